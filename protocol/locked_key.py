"""Key files under a passphrase, in one line like the plain ones.

Proves (`parse`): the file was written by somebody who knew the passphrase, for exactly this name, key id and
type. Assumes a passphrase that nobody guesses; scrypt makes a guess cost 128 MiB and about half a second, no
more. Protects the file at rest, not the memory of the program that unlocked it. A passphrase is never a
command-line argument: it comes from a file or variable that the environment names, or from the terminal.
Source: RFC 7914 (scrypt), NIST SP 800-38D (AES-GCM). SPEC 4.5.
"""

import getpass
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from protocol.encoding import decode_base64, encode_base64
from protocol.errors import BadSignature, EncodingError, Error, MalformedError, Schema, TooLarge

PREFIX = "LOCKED+PRIVATE+KEY+"
COST = 17
"""log2 of scrypt's N for new files; r = 8 and p = 1: 128 MiB."""
COSTS = range(14, 21)
"""What a reader accepts: from 16 MiB to 1 GiB."""
MAX_PASSPHRASE = 1024
_SALT, _NONCE, _SEED, _TAG = 16, 12, 32, 16
PASSPHRASE, PASSPHRASE_FILE = "PRUNE_AUDIT_PASSPHRASE", "PRUNE_AUDIT_PASSPHRASE_FILE"

Ask = Callable[[str], bytes]
"""Gives the passphrase of the key with this name."""


def _check(passphrase: bytes) -> bytes:
    if not passphrase:
        raise EncodingError("an empty passphrase protects nothing")
    if len(passphrase) > MAX_PASSPHRASE:
        raise TooLarge(f"a passphrase of {len(passphrase)} bytes, at most {MAX_PASSPHRASE} are accepted")
    return passphrase


def _derive(passphrase: bytes, salt: bytes, cost: int) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=32, n=1 << cost, r=8, p=1).derive(_check(passphrase)))


def serialise(name: str, key_id: bytes, use: int, seed: bytes, passphrase: bytes, *, cost: int = COST) -> bytes:
    """Write a key file; every call gives other bytes.

    Args:
        name: the key's name.
        key_id: 4 bytes, of the public key.
        use: signature type.
        seed: 32 secret bytes.
        passphrase: 1 to 1,024 bytes, UTF-8 where people type it.
        cost: log2 of scrypt's N, 14 to 20.

    Raises:
        EncodingError: an empty passphrase, or a cost that no reader accepts.
        TooLarge: a passphrase over the limit.
    """
    if cost not in COSTS:
        raise EncodingError(f"a cost of {cost}, not {COSTS.start} to {COSTS.stop - 1}")
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    head = f"{PREFIX}{name}+{key_id.hex()}+"
    fixed = bytes([use, cost]) + salt + nonce
    # What stands in clear is authenticated with the secret: a file cannot be renamed to another key's.
    sealed = _derive(passphrase, salt, cost).encrypt(nonce, seed, head.encode() + fixed)
    return f"{head}{encode_base64(fixed + sealed)}\n".encode()


def parse(data: bytes, ask: Ask) -> tuple[str, bytes, int, bytes]:
    """Unlock a key file: name, key id, signature type, seed. The caller checks that they belong together.

    Args:
        data: the file.
        ask: called once, after everything that can be checked without was.

    Raises:
        MalformedError: not such a file.
        BadSignature: another passphrase, or a damaged file.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("a key file is UTF-8 text") from None
    found = re.fullmatch(r"LOCKED\+PRIVATE\+KEY\+([^+\n]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)\n", text)
    if found is None:
        raise Schema(f"a locked key file is one line: {PREFIX}<name>+<8 hex>+<base64>")
    name, key_id, material = found.groups()
    blob = decode_base64(material)
    if len(blob) != 2 + _SALT + _NONCE + _SEED + _TAG:
        raise Schema(f"a locked key file holds {2 + _SALT + _NONCE + _SEED + _TAG} bytes, not {len(blob)}")
    use, cost = blob[0], blob[1]
    if cost not in COSTS:
        raise TooLarge(f"a scrypt cost of 2^{cost}, not 2^{COSTS.start} to 2^{COSTS.stop - 1}")
    fixed, sealed = blob[: 2 + _SALT + _NONCE], blob[2 + _SALT + _NONCE :]
    head = text.removesuffix(f"{material}\n").encode()
    try:
        seed = _derive(ask(name), fixed[2 : 2 + _SALT], cost).decrypt(fixed[2 + _SALT :], sealed, head + fixed)
    except InvalidTag:
        raise BadSignature("the passphrase does not open this key, or the file is damaged") from None
    return name, bytes.fromhex(key_id), use, seed


def from_surroundings(name: str, *, environment: Mapping[str, str] = os.environ, twice: bool = False) -> bytes:
    """The passphrase from the environment, else from the terminal.

    Args:
        name: the key's name, for the prompt.
        environment: `PRUNE_AUDIT_PASSPHRASE_FILE` names a file (one final newline is dropped), or
            `PRUNE_AUDIT_PASSPHRASE` is the passphrase itself.
        twice: ask again, for a new key.

    Raises:
        Error: no such file, or neither variable and no terminal to ask at.
    """
    if path := environment.get(PASSPHRASE_FILE):
        try:
            with Path(path).open("rb") as file:
                return _check(file.read(MAX_PASSPHRASE + 2).removesuffix(b"\n"))
        except OSError as error:
            raise Error(f"the passphrase file cannot be read: {error.strerror}", where=path) from None
    if value := environment.get(PASSPHRASE):
        return _check(os.fsencode(value))
    if not sys.stdin.isatty():
        raise Error(
            f"the key {name} needs a passphrase: set {PASSPHRASE_FILE} or {PASSPHRASE}, or run this at a terminal"
        )
    first = getpass.getpass(f"passphrase of the key {name}: ")
    if twice and getpass.getpass("the same again: ") != first:
        raise Error("the two passphrases differ; nothing was written")
    return _check(first.encode())
