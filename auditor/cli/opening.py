"""Before the audit: a request, the plan in the log, the challenge."""

from pathlib import Path

import click

from auditor.cli.program import KEY, LOG, fresh, read
from protocol import keys
from protocol.program import FILE, FOLDER, FORCE, JSON, NOW, OUT, Time, clock, done, with_options


@click.command()
@click.option("--slip", required=True, type=FILE, help="The subject's slip.")
@click.option("--deadline", type=Time(), help="By when the law wants an answer.")
@click.option("--key", required=True, type=FILE, help="The requester's own key (keygen NAME --use statement).")
@with_options(LOG, OUT, NOW, FORCE, JSON)
def request(
    slip: Path, deadline: int | None, key: Path, log: Path, out: Path, now: int | None, force: bool, as_json: bool
) -> None:
    """Sign and log a subject's own deletion request for the records of a slip."""
    from auditor.ledger import Ledger, leaf_of
    from auditor.opening import request_from_slip

    fresh(out, force)
    envelope = request_from_slip(
        read(slip, 1 << 28),
        key=keys.load_signing_key(key),
        ledger=Ledger(log=log),
        out=out,
        now=clock(now),
        deadline=deadline,
    )
    lines = [
        f"{out}: logged as {leaf_of(envelope)}",
        f"give the owner {out.name}, {out.stem}.leaves.json and {out.stem}.tlog-proof, owner and auditor your .vkey:",
        "the request counts for whoever lists that key in trust.json, as a requester in this log",
        "keep the slip: with it verify-receipt, or a page of receipt-page, shows that a receipt is about your records",
    ]
    done(as_json, lines, request=leaf_of(envelope))


@click.command("open-audit")
@click.argument("requests", nargs=-1, required=True, type=FILE)
@click.option("--plan", required=True, type=FILE, help="What the audit will do; see plan --template.")
@with_options(KEY, LOG, OUT, NOW, FORCE, JSON)
def open_audit(
    requests: tuple[Path, ...], plan: Path, key: Path, log: Path, out: Path, now: int | None, force: bool, as_json: bool
) -> None:
    """Fix plan and nonce in the log before the owner certifies."""
    import secrets

    from auditor.ledger import Ledger, leaf_of
    from auditor.opening import open_audit as run

    fresh(out, force)
    envelope = run(
        requests,
        read(plan, 1 << 18),
        nonce=secrets.token_bytes(32),
        key=keys.load_signing_key(key),
        ledger=Ledger(log=log),
        out=out,
        now=clock(now),
    )
    done(as_json, [f"{out}: logged as {leaf_of(envelope)}"], opening=leaf_of(envelope))


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--opening", required=True, type=FILE, help="The opened audit.")
@click.option("--acknowledgement", type=FILE, help="The owner's, for an audit opened after the certificate.")
@with_options(KEY, LOG, OUT, NOW, FORCE, JSON)
def challenge(
    bundle: Path,
    opening: Path,
    acknowledgement: Path | None,
    key: Path,
    log: Path,
    out: Path,
    now: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Ask the owner to open retained records that neither side chose."""
    from auditor.ledger import Ledger, leaf_of
    from auditor.opening import make_challenge

    fresh(out, force)
    envelope = make_challenge(
        bundle,
        read(opening),
        acknowledgement=read(acknowledgement) if acknowledgement is not None else None,
        key=keys.load_signing_key(key),
        ledger=Ledger(log=log),
        out=out,
        now=clock(now),
    )
    done(as_json, [f"{out}: logged as {leaf_of(envelope)}"], challenge=leaf_of(envelope))
