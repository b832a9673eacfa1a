"""What an auditor asks for: openings of a challenge, acknowledgement of a later audit."""

from pathlib import Path

import click

from owner.cli.program import KEY, LOG, POLICY, TRUST, statement_key
from protocol.program import FILE, FOLDER, FORCE, JSON, NOW, OUT, clock, done, with_options


@click.command()
@click.argument("challenge", type=FILE)
@click.option("--commitment", required=True, type=FOLDER, help="The commitment folder.")
@click.option("--acknowledgement", type=FILE, help="For an audit that was opened after the certificate.")
@click.option("--at-most", type=click.IntRange(1), help="Refuse to open more records than this.")
@with_options(POLICY, TRUST, KEY, LOG, OUT, FORCE, NOW, JSON)
def answer(
    challenge: Path,
    commitment: Path,
    acknowledgement: Path | None,
    at_most: int | None,
    policy: Path | None,
    trust: Path | None,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Open the records that a challenge names.

    With --policy and --trust only for a challenge that a trusted auditor signed; where the challenge's .tlog-proof lies
    beside it, it has to show the challenge in that auditor's log, cosigned by the quorum.
    """
    from owner.answer import answer as run
    from owner.auditors import Auditors
    from owner.workspace import Workspace

    count, warning = run(
        Workspace(folder=commitment),
        challenge,
        acknowledgement=acknowledgement,
        key=statement_key(key),
        log=log,
        out=out,
        now=clock(now),
        force=force,
        at_most=at_most,
        auditors=Auditors.read(policy, trust),
    )
    lines = [f"{out}: {count} records opened", *([warning] if warning else [])]
    done(as_json, lines, opened=count, warning=warning)


@click.command()
@click.argument("opening", type=FILE)
@click.option("--bundle", required=True, type=FOLDER, help="The bundle whose certificate is audited again.")
@with_options(POLICY, TRUST, KEY, LOG, OUT, FORCE, NOW, JSON)
def acknowledge(
    opening: Path,
    bundle: Path,
    policy: Path | None,
    trust: Path | None,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Acknowledge an audit that was opened after the certificate, so that it can be challenged.

    With --policy and --trust only one that a trusted auditor opened, as with `answer`.
    """
    from owner.answer import acknowledge as run
    from owner.auditors import Auditors
    from owner.journal import leaf_of

    envelope, warning = run(
        opening,
        bundle,
        key=statement_key(key),
        log=log,
        out=out,
        now=clock(now),
        force=force,
        auditors=Auditors.read(policy, trust),
    )
    lines = [f"{out}: logged as {leaf_of(envelope)}", *([warning] if warning else [])]
    done(as_json, lines, acknowledgement=leaf_of(envelope), warning=warning)
