"""Plans and the threat model, to read before anything runs."""

import json
from pathlib import Path

import click

from auditor.cli.program import read
from auditor.section import Section
from protocol.errors import AuditorError
from protocol.program import FILE, JSON, done, with_options


def _attacks(section: Section | None) -> list[str]:
    if section is None:
        return ["attacks: the profile's"]
    lines = [f"attack {name}: {dict(settings)}" for name, settings in section.attacks.items()]
    return lines + [f"property {name}: {dict(settings)}" for name, settings in section.properties.items()]


@click.command()
@click.option("--template", is_flag=True, help="Print a plan to start from.")
@click.option("--profile", default="indistinguishable", show_default=True, help="The profile that it fixes.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="The seed that it fixes.")
@click.option("--check", type=FILE, help="A plan to read and describe.")
@with_options(JSON)
def plan(template: bool, profile: str, seed: int, check: Path | None, as_json: bool) -> None:
    """Print a plan to start from, or read one."""
    from auditor.profile import load_profile, parse_plan, plan_template
    from auditor.threats import check_profile, load_threats

    if template == (check is not None):
        raise AuditorError("give --template, or --check with a plan")
    if check is not None:
        parsed = parse_plan(read(check), where=str(check))
        done(
            as_json,
            [
                f"{check}: profile {parsed.profile}, {parsed.openings} openings, seed {parsed.seed}",
                *_attacks(parsed.membership),
            ],
            profile=parsed.profile,
            openings=parsed.openings,
            attacks=sorted(parsed.membership.attacks) if parsed.membership is not None else None,
        )
        return
    chosen = load_profile(profile)
    check_profile(chosen, load_threats())
    text = plan_template(chosen, seed=seed).decode()
    click.echo(json.dumps({"plan": text}) + "\n" if as_json else text, nl=False)


@click.command()
@click.option(
    "--format", "shape", default="table", show_default=True, type=click.Choice(["table", "json"]), help="How."
)
@JSON
def threats(shape: str, as_json: bool) -> None:
    """Print the threat model: behaviours, the checks that catch them, and what is out of reach."""
    from auditor.threats import as_table, load_threats

    found = load_threats()
    click.echo(json.dumps([threat.to_json() for threat in found]) if as_json or shape == "json" else as_table(found))
