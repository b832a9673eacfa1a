"""Keys and logs to begin with."""

from pathlib import Path

import click

from auditor.cli.program import read
from protocol import keys
from protocol.errors import AuditorError, MalformedError
from protocol.program import FILE, FORCE, JSON, KEYGEN, OUT, done, with_options


@click.command()
@KEYGEN
@with_options(OUT, FORCE, JSON)
def keygen(name: str, use: str, locked: bool, signer: str | None, out: Path, force: bool, as_json: bool) -> None:
    """Make a key pair: NAME.key (secret, 0600) and NAME.vkey (C2SP verifier key) in the folder OUT."""
    from protocol.keygen import make_pair

    try:
        keys.check_name(name)
    except MalformedError as error:
        raise AuditorError(error.message) from None
    secret, public, made = make_pair(name, use, out, locked=locked, command=signer, force=force)
    place = {"statement": "trust.json, with a role and the logs that it signs in", "log": "policy.txt, as: log VKEY"}
    lines = [
        f"{secret} and {public}: {made.vkey}",
        f"keep the first to yourself; the second belongs into {place.get(use, 'policy.txt, as: witness NAME VKEY')}",
    ]
    done(as_json, lines, key=str(secret), vkey=made.vkey)


@click.command("log-init")
@click.option("--origin", required=True, help="The log's name in checkpoints; the log key's name.")
@click.option("--key", required=True, type=FILE, help="The log's own key (keygen --use log).")
@with_options(OUT, JSON)
def log_init(origin: str, key: Path, out: Path, as_json: bool) -> None:
    """Begin an empty transparency log in the folder OUT; its key is kept beside it as OUT.key."""
    from auditor.files import write_atomic
    from auditor.ledger import Ledger
    from protocol.log.store import Log

    signing = keys.load_signing_key(key)
    if signing.name != origin:
        raise AuditorError(f"the key is named {signing.name}, a log's key has the log's origin as its name ({origin})")
    Log.create(out, signing)
    write_atomic(Ledger(log=out).key_path, read(key, keys.MAX_KEY_FILE), secret=True)
    done(as_json, [f"{out}: an empty log {origin}"], log=str(out), vkey=signing.verifier.vkey)
