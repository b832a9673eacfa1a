"""Requests on a subject's behalf."""

from pathlib import Path

import click

from owner.cli.program import KEY, LOG, statement_key, wanted
from protocol.program import FOLDER, FORCE, JSON, NOW, OUT, Time, clock, done, with_options


@click.command()
@click.option("--commitment", required=True, type=FOLDER, help="The commitment folder.")
@click.option("--records", help="Row numbers of the data file, from 0, separated by commas.")
@click.option("--class", "klass", type=click.IntRange(0), help="A whole class.")
@click.option("--subject", help="All records of one subject.")
@click.option("--trigger", help="A backdoor trigger, by name.")
@click.option("--deadline", type=Time(), help="By when the law wants an answer.")
@with_options(KEY, LOG, OUT, FORCE, NOW, JSON)
def request(
    commitment: Path,
    records: str | None,
    klass: int | None,
    subject: str | None,
    trigger: str | None,
    deadline: int | None,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Sign and log a deletion request on a subject's behalf (it says so)."""
    from owner.journal import leaf_of
    from owner.requests import make_request
    from owner.workspace import Workspace

    envelope = make_request(
        Workspace(folder=commitment),
        wanted(records, subject, klass, trigger),
        key=statement_key(key),
        log=log,
        out=out,
        now=clock(now),
        deadline=deadline,
        force=force,
    )
    if trigger is not None:
        click.echo(
            "note: a trigger has no records to redirect: prune-owner unlearn cannot answer this request, and every "
            "audit of it stays INCONCLUSIVE",
            err=True,
        )
    done(as_json, [f"{out}: logged as {leaf_of(envelope)}"], request=leaf_of(envelope))
