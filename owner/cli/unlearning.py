"""The patch and its certificate."""

from pathlib import Path

import click

from owner.cli.program import DEVICE, KEY, LOG, RESUME, SEED, progress, statement_key
from protocol.device import Device
from protocol.errors import OwnerError
from protocol.program import FILE, FOLDER, FORCE, JSON, NOW, OUT, clock, done, with_options

METHODS = (
    "prune", "prune-paper", "distribution-matching", "instance-wise", "retrain", "fine-tune", "gradient-ascent",
    "deny-list",
)  # fmt: skip
GATES = ["auto", "sketch", "feature", "linear-region", "always", "sketch+feature"]
HEADS = ["set", "shift", "affine"]


@click.command()
@click.option("--commitment", required=True, type=FOLDER, help="The commitment folder.")
@click.option(
    "--request", "requests", required=True, multiple=True, type=FILE, help="A request to answer; may be repeated."
)
@click.option("--opening", type=FILE, help="The audit that was opened for them, to be named in the certificate.")
@click.option("--method", default="prune", show_default=True, type=click.Choice(METHODS), help="How to unlearn.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the method; may be repeated."
)
@click.option("--gate", default="auto", show_default=True, type=click.Choice(GATES), help="Where items act.")
@click.option(
    "--head",
    default="set",
    show_default=True,
    type=click.Choice(HEADS),
    help="What items give: a row of logits, or the least shift or affine map that is added to the base's.",
)
@click.option(
    "--target", default="match", show_default=True, help="What outputs become: match, misclassify, relabel:K."
)
@click.option(
    "--radius", help="Radius to certify, such as 8steps or 2flips.  [default: as large as retained records allow]"
)
@click.option(
    "--disclosure",
    type=click.FloatRange(0.0, 1.0),
    help="Least error of rebuilding a record from the patch, relative to guessing.  [default: 0.2]",
)
@click.option(
    "--merge", is_flag=True, help="Let records with the same output share items: fewer, but they reach between records."
)
@click.option("--previous", type=FOLDER, help="Bundle of the certificate to build on, if the commitment lacks it.")
@click.option("--beside", is_flag=True, help="Build on no earlier certificate: whoever reads the log sees that.")
@click.option(
    "--drop", "drops", multiple=True, help="Stop a claim of the earlier certificate: ROW=REASON or class:K=REASON."
)
@with_options(DEVICE, KEY, LOG, OUT, FORCE, SEED, RESUME, NOW, JSON)
def unlearn(
    commitment: Path,
    requests: tuple[Path, ...],
    opening: Path | None,
    method: str,
    settings: tuple[str, ...],
    gate: str,
    head: str,
    target: str,
    radius: str | None,
    disclosure: float | None,
    merge: bool,
    previous: Path | None,
    beside: bool,
    drops: tuple[str, ...],
    device: Device,
    seed: int,
    resume: bool,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Make a patch for logged requests, check it, and sign and log the certificate.

    Where the log has a certificate about this commitment already, the new one builds on it: it answers its requests,
    too, and carries every claim that is not dropped.
    """
    from owner.journal import leaf_of
    from owner.methods.job import DISCLOSURE
    from owner.succession import parse_drop
    from owner.targets import parse_target
    from owner.unlearn import Options
    from owner.unlearn import unlearn as run
    from owner.workspace import Workspace

    if disclosure is not None and "sketch" not in gate and gate != "auto":
        raise OwnerError(f"--disclosure chooses a sketch, and --gate {gate} has none; leave it out")
    if beside and (previous is not None or drops):
        raise OwnerError("--beside builds on nothing: leave --previous and --drop away")
    steps, flips = _radius(radius)
    options = Options(
        requests=requests,
        opening=opening,
        method=method,
        target=parse_target(target),
        radius=steps,
        ceiling=steps if steps is not None else 64,
        flips=flips,
        disclosure=disclosure if disclosure is not None else DISCLOSURE,
        merge=merge,
        gate=gate,
        head=head,
        settings=_settings(settings),
        previous=previous,
        beside=beside,
        drops=tuple(parse_drop(drop) for drop in drops),
        device=device,
        key=statement_key(key),
        log=log,
        out=out,
        now=clock(now),
        seed=seed,
        force=force,
        resume=resume,
    )
    with progress() as show:
        outcome = run(Workspace(folder=commitment), options, progress=show)
    if outcome.redirected and options.target.name != "match":
        click.echo(
            "note: a certified wrong output makes a record easier to find, not harder; see the target match", err=True
        )
    leaf = leaf_of(outcome.certificate)
    lines = [*outcome.notes, f"{out}: certificate logged as {leaf}"]
    done(as_json, lines, certificate=leaf, claims=outcome.claims)


def _settings(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if bad := next((text for text, (_, sign, _) in zip(given, pairs, strict=True) if not sign), None):
        raise OwnerError(f"--set {bad}: give NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _radius(radius: str | None) -> tuple[int | None, bool]:
    """The number, and whether it counts flips."""
    if radius is None:
        return None, False
    number = radius
    for unit in ("steps", "step", "flips", "flip"):
        number = number.removesuffix(unit) if number == radius else number
    if number == radius or not number.isascii() or not number.isdigit() or len(number) > 7 or int(number) > 1 << 20:
        raise OwnerError(
            f"--radius {radius}: a whole number up to {1 << 20} of grid steps, such as 8steps, or of changed binary "
            "columns and one-hot groups, such as 2flips"
        )
    return int(number), "flip" in radius
