"""Making a key pair in the form that was asked for: plain, under a passphrase, or in a signer.

Proves nothing; both programs' `keygen` does this. Source: SPEC 4.4 to 4.6.
"""

import shlex
from pathlib import Path

from protocol import keys, locked_key, signer
from protocol.errors import Error
from protocol.keys import SigningKey, VerifierKey


def make_pair(
    name: str,
    use: str,
    out: Path,
    *,
    locked: bool = False,
    command: str | None = None,
    force: bool = False,
    ask: locked_key.Ask | None = None,
) -> tuple[Path, Path, VerifierKey]:
    """Write NAME.key and NAME.vkey; return both paths and the verifier key.

    Args:
        name: the key's name.
        use: what it is for, one of `keys.USES`.
        out: the folder.
        locked: put the secret under a passphrase.
        command: program and arguments of a signer that has the secret, as a shell would split them.
        force: replace what is there.
        ask: gives the passphrase; from environment or terminal (twice) if None.

    Raises:
        MalformedError: a name that no key can have, or a signer's answer that cannot be read.
        VerificationError: the signer refuses or is silent.
        Error: a file is there already, no passphrase to be had, or both forms were asked for.
    """
    if locked and command is not None:
        raise Error("a key in a signer has no secret here that a passphrase could protect")
    key: SigningKey
    content = None
    if command is not None:
        external = signer.enrol(name, use, tuple(shlex.split(command)))
        key, content = external, external.key_file()
    else:
        key = keys.generate(name, use=use)  # type: ignore[arg-type]
        if locked:
            passphrase = ask(name) if ask is not None else locked_key.from_surroundings(name, twice=True)
            content = locked_key.serialise(name, key.verifier.key_id, key.use, key.seed, passphrase)
    secret, public = keys.write_key_pair(key, out, force=force, secret_file=content)
    return secret, public, key.verifier
