"""Keys that stay elsewhere: in a hardware token, in a cloud service, behind any program that speaks this protocol.

Proves (`ExternalKey.sign`): the signature that came back is by the public key that the key file names, over
exactly the bytes that were to be signed; a signer can refuse or fall silent, but not slip in another
signature. Assumes that whoever wrote the key file chose the command: it is run as it stands there, without a
shell. The program is started once for each call, gets one line of JSON on standard input and answers with
one line on standard output; what it prints on standard error goes to the user (touch the token, say).
Source: SPEC 4.6.
"""

import json
import subprocess
from dataclasses import dataclass, field
from typing import Any

from protocol.canonical import Fields, parse_json, to_bytes
from protocol.encoding import decode_base64, encode_base64
from protocol.errors import EncodingError, MalformedError, Schema, UnsupportedVersion, VerificationError
from protocol.keys import MAX_KEY_FILE, USES, SigningKey, VerifierKey, parse_vkey

VERSION = "prune-audit/signer/v1"
MAX_ANSWER = 16_384
"""Bytes of a signer's answer: an ML-DSA-44 signature in base64 has 3,228."""
SECONDS = 60.0
"""How long a signer may take, unless the key file says otherwise: somebody may have to touch a token."""


def _ask(command: tuple[str, ...], seconds: float, request: dict[str, Any], wanted: str) -> bytes:
    # One call: a process, a line in, a line out.
    line = to_bytes({"version": VERSION, **request}) + b"\n"
    where = f"signer {command[0]}"
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
            try:
                answer, _ = process.communicate(line, timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise VerificationError(f"gave no answer within {seconds:g} s", where=where) from None
            except BaseException:
                process.kill()
                raise
    except OSError as error:
        raise VerificationError(f"cannot be run: {error.strerror}", where=where) from None
    if not answer.endswith(b"\n") or b"\n" in answer[:-1]:
        raise MalformedError(f"ended with status {process.returncode} and not with one line of answer", where=where)
    with Fields(parse_json(answer[:-1], limit=MAX_ANSWER, where=where), where=where) as fields:
        if fields.has("error"):
            raise VerificationError(f"refuses: {fields.text('error', longest=500)}", where=where)
        return decode_base64(fields.text(wanted, longest=MAX_ANSWER), where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalKey(SigningKey):
    """A signing key whose secret this program never has.

    Args:
        name: label in signature lines.
        use: signature type.
        seed: empty; there is none here.
        public: the public key, from the key file.
        command: program and arguments of the signer.
        seconds: how long one call may take.
    """

    seed: bytes = field(default=b"", repr=False)
    public: bytes
    command: tuple[str, ...]
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if self.seed or not self.command:
            raise Schema("a key in a signer has a command, and no secret here")
        _ = self.verifier  # refuses a bad name, type or public key

    @property
    def verifier(self) -> VerifierKey:
        """The public half, as the key file says; the signer is not asked."""
        return VerifierKey(name=self.name, use=self.use, public=self.public)

    @property
    def skey(self) -> str:
        """Not to be had.

        Raises:
            EncodingError: always.
        """
        raise EncodingError(f"the secret of {self.name!r} is in a signer and cannot be written")

    def sign(self, message: bytes) -> bytes:
        """Have exactly these bytes signed, and check what comes back.

        Raises:
            VerificationError: no answer in time, the program cannot be run, or it refuses.
            MalformedError: an answer that cannot be read.
            BadSignature: not a signature of these bytes by this key.
        """
        request = {"call": "sign", "name": self.name, "type": self.use, "message": encode_base64(message)}
        signature = _ask(self.command, self.seconds, request, "signature")
        self.verifier.verify(signature, message)
        return signature

    def key_file(self) -> bytes:
        """The key file, which `parse_key_file` gives back."""
        value = {
            "version": VERSION,
            "vkey": self.verifier.vkey,
            "command": list(self.command),
            "timeoutSeconds": int(self.seconds),
        }
        return json.dumps(value, indent=1).encode() + b"\n"


def parse_key_file(data: bytes) -> ExternalKey:
    """Read the key file of a key in a signer: JSON, white space free to choose.

    Raises:
        MalformedError: with the reason.
    """
    with Fields(parse_json(data, limit=MAX_KEY_FILE, where=""), where="") as fields:
        version = fields.text("version", longest=100)
        if version != VERSION:
            raise UnsupportedVersion(f"version {version[:40]!r}, this reads {VERSION}")
        verifier = parse_vkey(fields.text("vkey", longest=4096))
        command = fields.array("command", longest=100)
        if not command or not all(isinstance(word, str) and word and "\0" not in word for word in command):
            raise Schema("command is not an array of words, the program first")
        seconds = fields.integer("timeoutSeconds", low=1, high=3600) if fields.has("timeoutSeconds") else SECONDS
    return ExternalKey(
        name=verifier.name, use=verifier.use, public=verifier.public, command=tuple(command), seconds=float(seconds)
    )


def enrol(name: str, use: str, command: tuple[str, ...], *, seconds: float = SECONDS) -> ExternalKey:
    """Ask a signer for its public key, and have it sign once, to see that it has the secret.

    Args:
        name: the key's name.
        use: what the key is for, one of `keys.USES`.
        command: program and arguments.
        seconds: how long one call may take.

    Raises:
        VerificationError, MalformedError: as for `ExternalKey.sign`.
    """
    kind = USES[use]
    public = _ask(command, seconds, {"call": "public-key", "name": name, "type": kind}, "publicKey")
    key = ExternalKey(name=name, use=kind, public=public, command=command, seconds=seconds)
    # A message that is no note, no cosignature and no envelope: this signature is good for nothing else.
    key.sign(b"prune-audit/enrol/v1\n" + key.verifier.vkey.encode())
    return key


__all__ = ["ExternalKey", "enrol", "parse_key_file"]
