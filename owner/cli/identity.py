"""Keys and logs to begin with."""

from pathlib import Path

import click

from protocol import keys
from protocol.errors import MalformedError, OwnerError
from protocol.program import FILE, FORCE, JSON, KEYGEN, OUT, done, with_options


@click.command()
@KEYGEN
@with_options(OUT, FORCE, JSON)
def keygen(name: str, use: str, locked: bool, signer: str | None, out: Path, as_json: bool, force: bool) -> None:
    """Make a key pair: NAME.key (secret, 0600) and NAME.vkey (C2SP verifier key) in the folder OUT."""
    from protocol.keygen import make_pair

    try:
        keys.check_name(name)
    except MalformedError as error:
        raise OwnerError(error.message) from None
    secret, public, made = make_pair(name, use, out, locked=locked, command=signer, force=force)
    done(as_json, [f"{secret} and {public}: {made.vkey}"], key=str(secret), vkey=made.vkey)


@click.command("log-init")
@click.option("--origin", required=True, help="The log's name in checkpoints; the log key's name.")
@click.option("--key", required=True, type=FILE, help="The log's own key (keygen --use log).")
@with_options(OUT, FORCE, JSON)
def log_init(origin: str, key: Path, out: Path, as_json: bool, force: bool) -> None:
    """Begin an empty transparency log in the folder OUT; its key is kept beside it as OUT.key.

    A log that exists is never overwritten; with --force a left-over OUT.key is.
    """
    from owner.files import check_free, check_free_folder, read_file, write_atomic
    from owner.journal import log_key_path
    from protocol.log.store import Log

    signing = keys.load_signing_key(key)
    if signing.name != origin:
        raise OwnerError(f"the key is named {signing.name}, a log's key has the log's origin as its name ({origin})")
    check_free_folder(out, force=False)
    check_free(log_key_path(out), force=force)
    Log.create(out, signing)
    write_atomic(log_key_path(out), read_file(key, limit=keys.MAX_KEY_FILE), secret=True)
    done(as_json, [f"{out}: an empty log {origin}"], log=str(out), vkey=signing.verifier.vkey)
