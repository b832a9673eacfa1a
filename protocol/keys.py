"""Keys in the C2SP spelling: verifier keys, key files, signatures over bytes.

Ed25519 for statements, logs and witnesses; ML-DSA-44 for witnesses beside it.
Proves: a key that parses has exactly one spelling; an Ed25519 key is a point of the curve in its one
encoding and not one of the eight low-order points (for which anybody can make signatures that verify);
of ML-DSA-44 every string of the right length is a key. Assumes that the caller knows whose key it is:
names are labels, trust comes from a policy or trust file. Does not say what a signature means; note,
envelope and cosignature build the signed bytes.
Source: C2SP signed-note (verifier keys), Go `sumdb/note` (key files), RFC 8032 5.1, FIPS 204. SPEC 4.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from unicodedata import category

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from protocol.encoding import decode_base64, encode_base64
from protocol.errors import BadSignature, Error, MalformedError, NonCanonical, Schema, TooLarge

ED25519 = 0x01
"""Signature type of statements and of a log's own checkpoint signature."""
COSIGNATURE = 0x04
"""Signature type of a witness: timestamped Ed25519 cosignature."""
COSIGNATURE_ML_DSA = 0x06
"""Signature type of a witness: timestamped ML-DSA-44 cosignature."""
WITNESS_TYPES = frozenset({COSIGNATURE, COSIGNATURE_ML_DSA})
USES: dict[str, int] = {
    "statement": ED25519,
    "log": ED25519,
    "witness": COSIGNATURE,
    "witness-ml-dsa": COSIGNATURE_ML_DSA,
}
ML_DSA_PUBLIC_SIZE = 1312

MAX_NAME = 255
"""Bytes of a key name; a cosignature's length byte can hold no more."""
MAX_KEY_TEXT = 4096
"""Bytes of a written key."""
MAX_KEY_FILE = 8192
"""Bytes of a key file; one that names a signer also holds a command."""
_SKEY_PREFIX = "PRIVATE+KEY+"

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# y coordinates of the points whose order divides 8: order 4 has y = 0, order 1 and 2 have y = 1 and -1.
_LOW_ORDER_Y = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


def check_name(name: str) -> None:
    """Refuse key names that a signed note cannot carry.

    Raises:
        Schema: empty, or with a space of any script, `+`, a control character, or not encodable as UTF-8.
    """
    if not name or any(c.isspace() or c == "+" or category(c) in ("Cc", "Cs") for c in name):
        raise Schema(f"{name[:60]!r} is no key name: not empty, no spaces, no '+', no control characters")


def check_ed25519(public: bytes) -> None:
    """Refuse public keys that are not 32 bytes, not on the curve, not canonically encoded, or of low order.

    Common libraries accept the last two kinds, for which a signature proves nothing.

    Raises:
        Schema: wrong length, not a point, or a low-order point.
        NonCanonical: a coordinate of 2^255 - 19 or more.

    Source: RFC 8032 5.1.3 (decoding), 5.1.7.
    """
    if len(public) != 32:
        raise Schema(f"an Ed25519 public key has 32 bytes, not {len(public)}")
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    if y >= _P:
        raise NonCanonical("an Ed25519 public key with a coordinate over the field size")
    # The sign bit with x = 0 (the other non-canonical form) occurs only for y = 1 and -1, refused here.
    if y in _LOW_ORDER_Y:
        raise Schema("a low-order Ed25519 public key: anybody can sign for it")
    # x^2 = (y^2 - 1) / (d y^2 + 1) must be a square (Euler's criterion); the denominator is never 0.
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(x_squared, (_P - 1) // 2, _P) != 1:
        raise Schema("an Ed25519 public key that is no point of the curve")


def _key_id(name: str, use: int, public: bytes) -> bytes:
    # C2SP signed-note: SHA-256(key name || 0x0A || signature type || public key)[:4].
    return hashlib.sha256(name.encode("utf-8") + b"\n" + bytes([use]) + public).digest()[:4]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public key with the name and the one signature type that it is trusted for.

    Args:
        name: label in signature lines; equal to the origin for a log's key.
        use: signature type, `ED25519`, `COSIGNATURE` or `COSIGNATURE_ML_DSA`.
        public: 32 bytes, or 1312 for ML-DSA-44.

    Raises:
        MalformedError: when any of the three is not acceptable.
    """

    name: str
    use: int
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if (length := len(self.name.encode("utf-8"))) > MAX_NAME:
            raise TooLarge(f"a key name has {length} bytes, at most {MAX_NAME} are accepted")
        if self.use == COSIGNATURE_ML_DSA:
            # FIPS 204: any 1312 bytes decode to a key, and encode to the same bytes.
            if len(self.public) != ML_DSA_PUBLIC_SIZE:
                raise Schema(f"a key of type 0x06 (ML-DSA-44) has {ML_DSA_PUBLIC_SIZE} bytes, not {len(self.public)}")
        elif self.use in (ED25519, COSIGNATURE):
            check_ed25519(self.public)
        else:
            raise Schema(f"signature type {self.use:#04x} is not one that this implementation knows")

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that stand for this key in signature lines; a hint, not a fingerprint."""
        return _key_id(self.name, self.use, self.public)

    @property
    def vkey(self) -> str:
        """The key as `<name>+<8 hex>+<base64(type || key)>`."""
        material = encode_base64(bytes([self.use]) + self.public)
        return f"{self.name}+{self.key_id.hex()}+{material}"

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature of this key's algorithm over exactly these bytes (ML-DSA-44 with an empty context).

        Raises:
            BadSignature: it does not verify under this key.
        """
        try:
            if self.use == COSIGNATURE_ML_DSA:
                MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            raise BadSignature(f"the signature of {self.name!r} does not verify") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A secret key. Its representation never shows the secret.

    Args:
        name: label in signature lines.
        use: signature type, `ED25519`, `COSIGNATURE` or `COSIGNATURE_ML_DSA`.
        seed: the 32 secret bytes of RFC 8032, or of FIPS 204 (xi in algorithm 1).
    """

    name: str
    use: int
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise Schema(f"a seed has 32 bytes, not {len(self.seed)}")
        _ = self.verifier  # refuses a bad name or type

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        if self.use == COSIGNATURE_ML_DSA:
            public = MLDSA44PrivateKey.from_seed_bytes(self.seed).public_key().public_bytes_raw()
        else:
            public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return VerifierKey(name=self.name, use=self.use, public=public)

    @property
    def skey(self) -> str:
        """The key file's text without its newline: `PRIVATE+KEY+<name>+<8 hex>+<base64(type || seed)>`."""
        material = encode_base64(bytes([self.use]) + self.seed)
        return f"{_SKEY_PREFIX}{self.name}+{self.verifier.key_id.hex()}+{material}"

    def sign(self, message: bytes) -> bytes:
        """Sign exactly these bytes; 64 bytes, or 2420 for ML-DSA-44, whose signing is randomised."""
        if self.use == COSIGNATURE_ML_DSA:
            return MLDSA44PrivateKey.from_seed_bytes(self.seed).sign(message)
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def generate(name: str, *, use: Literal["statement", "log", "witness", "witness-ml-dsa"]) -> SigningKey:
    """Make a key from the operating system's randomness.

    Args:
        name: label in signature lines; a log's key is named as its origin.
        use: what the key is for; a key serves one purpose.

    Raises:
        Schema: a name that no note can carry.
    """
    return SigningKey(name=name, use=USES[use], seed=os.urandom(32))


def _split(text: str, what: str) -> tuple[str, bytes, int, bytes]:
    # Returns name, key id, type, material of `<name>+<8 hex>+<base64(type || material)>`.
    if len(text) > MAX_KEY_TEXT:
        raise TooLarge(f"a {what} of {len(text)} characters, at most {MAX_KEY_TEXT} are accepted")
    parts = text.split("+", 2)  # base64 may hold '+', the name cannot
    if len(parts) != 3:
        raise Schema(f"a {what} has the form <name>+<8 hex>+<base64>")
    name, key_id, material = parts
    if not re.fullmatch(r"[0-9a-f]{8}", key_id):
        raise Schema(f"the key id in a {what} is not 8 lower-case hexadecimal digits")
    data = decode_base64(material)
    if not data:
        raise Schema(f"a {what} without a signature type")
    return name, bytes.fromhex(key_id), data[0], data[1:]


def parse_vkey(text: str) -> VerifierKey:
    """Read a verifier key; exactly one spelling is accepted.

    Raises:
        MalformedError: not a verifier key, an unknown signature type, a key id that is not the key's,
            or a public key that is none of its algorithm.
    """
    name, key_id, use, public = _split(text, "verifier key")
    key = VerifierKey(name=name, use=use, public=public)
    if key.key_id != key_id:
        raise Schema(f"the key id {key_id.hex()} is not that of the key {name[:60]!r}; was the line damaged?")
    return key


def parse_skey(data: bytes) -> SigningKey:
    """Read a key file: one line with its newline.

    Raises:
        MalformedError: with the reason, which never quotes the secret part.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("a key file is UTF-8 text") from None
    if not text.startswith(_SKEY_PREFIX) or not text.endswith("\n"):
        raise Schema(f"a key file is one line that begins with {_SKEY_PREFIX} (is this the .vkey file?)")
    name, key_id, use, seed = _split(text.removeprefix(_SKEY_PREFIX).removesuffix("\n"), "key file")
    key = SigningKey(name=name, use=use, seed=seed)
    if key.verifier.key_id != key_id:
        raise Schema("the key id in the key file is not that of its key; was the file damaged?")
    return key


def file_stem(name: str) -> str:
    """The name of a key as part of a file name: letters, digits, `.`, `_`, `-`; anything else becomes `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:200].lstrip(".") or "_"


def write_key_pair(
    key: SigningKey, out_dir: Path, *, force: bool = False, secret_file: bytes | None = None
) -> tuple[Path, Path]:
    """Write `<name>.key` (readable by its owner only) and `<name>.vkey`; return both paths.

    Args:
        key: the pair to write.
        out_dir: the folder, made if missing. A `/` in the name becomes `_` in the file names.
        force: replace files that are there; without it nothing is overwritten.
        secret_file: what to write as the key file instead of the plain form, of the same key.

    Raises:
        Error: a file is there already.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    stem = file_stem(key.name)
    secret, public = out_dir / f"{stem}.key", out_dir / f"{stem}.vkey"
    for path in (secret, public):
        if force:
            # Unlink first: O_EXCL then makes a new file with our mode, whatever link or mode was there.
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        elif os.path.lexists(path):
            raise Error("exists already; nothing is overwritten without --force", where=str(path))
    content = secret_file if secret_file is not None else f"{key.skey}\n".encode()
    for path, data, mode in ((secret, content, 0o600), (public, f"{key.verifier.vkey}\n".encode(), 0o644)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    return secret, public


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise MalformedError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > MAX_KEY_FILE:
        raise TooLarge(f"over {MAX_KEY_FILE} bytes, so not a key file", where=str(path))
    return data


_unlocked: dict[bytes, SigningKey] = {}  # by digest of the file: one passphrase prompt for many signatures


def parse_key_file(data: bytes, *, ask: Callable[[str], bytes] | None = None) -> SigningKey:
    """Read a key file of any of the three kinds: plain, under a passphrase, or in a signer (SPEC 4.4 to 4.6).

    Args:
        data: the file.
        ask: gives the passphrase for a key's name; from environment or terminal if None.

    Raises:
        MalformedError: none of them.
        BadSignature: another passphrase.
        Error: no passphrase to be had.
    """
    # Imported here: both build on this module, and plain keys need neither.
    from protocol import locked_key, signer

    if data.lstrip(b" \t\r\n").startswith(b"{"):
        return signer.parse_key_file(data)
    if not data.startswith(locked_key.PREFIX.encode()):
        return parse_skey(data)
    mark = hashlib.sha256(data).digest()
    if ask is not None or mark not in _unlocked:
        name, key_id, use, seed = locked_key.parse(data, ask or locked_key.from_surroundings)
        key = SigningKey(name=name, use=use, seed=seed)
        if key.verifier.key_id != key_id:
            raise Schema("the key id in the key file is not that of its key")
        _unlocked[mark] = key
    return _unlocked[mark]


def load_signing_key(path: Path, *, ask: Callable[[str], bytes] | None = None) -> SigningKey:
    """Read a `.key` file of any kind; see `parse_key_file`.

    Raises:
        MalformedError: it cannot be read or is no key file; names the path.
        BadSignature, Error: as for `parse_key_file`.
    """
    try:
        return parse_key_file(_read(path), ask=ask)
    except Error as error:
        error.at(str(path))
        raise


def load_verifier_key(path: Path) -> VerifierKey:
    """Read a `.vkey` file: one verifier key and a newline.

    Raises:
        MalformedError: it cannot be read or is no verifier key; names the path.
    """
    try:
        data = _read(path)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedError("a verifier key is UTF-8 text") from None
        if not text.endswith("\n"):
            raise Schema("a verifier key file is one line with its newline")
        return parse_vkey(text.removesuffix("\n"))
    except MalformedError as error:
        error.at(str(path))
        raise
