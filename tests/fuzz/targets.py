"""What is fuzzed: one function of bytes for each parser, seeds that it accepts, and what it must hold to.

A target raises nothing but the errors of `protocol.errors` that its parser documents. Where a format has one spelling, a
target also writes back what it read and compares: another spelling that is accepted is a fault as well.
"""

import functools
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from auditor import receipts, threats, trusted
from auditor.deployment import endpoint, inference, journal
from auditor.evidence import load_reference
from auditor.profile import parse_plan, parse_profile, plan_template
from auditor.strict_yaml import parse_mapping
from owner.compose import compose
from protocol import (
    canonical,
    claims,
    hints,
    keys,
    locked_key,
    manifest,
    messages,
    openings,
    receipt_file,
    signer,
    statement,
    trust,
)
from protocol import envelope as dsse
from protocol.digests import sha256_hex
from protocol.encoding import decode_base64, parse_decimal, parse_float32, parse_time
from protocol.errors import BadSignature, Error, MalformedError, VerificationError
from protocol.log import checkpoint, note, policy, proof, tiles, witness_http
from protocol.messages import request as request_message
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.commitment import Commitment
from protocol.messages.opening import Acknowledgement, Opening
from protocol.messages.report import Receipt, Report
from protocol.messages.request import Request
from protocol.model import patch, profile, recipe, schema
from protocol.model.graph import Graph
from protocol.model.patch import Cap, FeatureGate, Part, Patch, SetHead, ShiftHead, SketchGate
from protocol.model.profile import make_node
from tests.conformance import forge
from tests.conformance.cases_report import PLAN, manifest_of

MAX_BYTES = 16_384


class Second(AssertionError):
    """Bytes that a parser accepts, and that are not the one spelling of what it read."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parser.

    Args:
        run: parses; anything but `errors` that leaves it is a fault.
        seeds: inputs that it accepts.
        errors: what it may raise.
        covers: the public functions that it is for, as `module.name`.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    covers: tuple[str, ...]
    errors: tuple[type[Error], ...] = field(default=(MalformedError,))

    def __call__(self, data: bytes) -> bool:
        """Run it; say whether the bytes were accepted."""
        try:
            self.run(data)
        except self.errors:
            return False
        return True


def _same(data: bytes, written: bytes) -> None:
    if data != written:
        raise Second("accepted in a second spelling")


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


@functools.cache
def _made() -> forge.Made:
    return forge.make(rows=(0, 1, 2), scope="subject", by_subject=True)


def _payload(name: str) -> list[bytes]:
    return [dsse.parse(_made().envelopes[name]).payload]


def _message(kind: type) -> Callable[[bytes], object]:
    def run(payload: bytes) -> object:
        message = kind.parse(statement.parse(payload))  # type: ignore[attr-defined]
        _same(payload, message.payload())
        return message

    return run


def _pair(data: bytes) -> tuple[bytes, bytes]:
    # Two files in one input: the length of the first as two bytes.
    cut = int.from_bytes(data[:2], "big")
    return data[2 : 2 + cut], data[2 + cut :]


def _joined(first: bytes, second: bytes) -> bytes:
    return len(first).to_bytes(2, "big") + first + second


@functools.cache
def _patch() -> Patch:
    return Patch(
        features=3,
        classes=3,
        parts=(
            Part(
                gate=SketchGate(
                    matrix=np.array([[1, 0, -1], [2, 1, 0]], np.int32), low=np.array([[-8, 0]], np.int32),
                    high=np.array([[8, 9]], np.int32), screen=np.array([0, 1]), branch=True,
                ),
                head=SetHead(rows=np.array([[1, 2, 3]], np.float32), index=np.zeros(1, np.int64)),
            ),
            Part(
                gate=FeatureGate(
                    tensor="hidden", low=np.zeros((1, 2), np.float32), high=np.ones((1, 2), np.float32)
                ),
                head=ShiftHead(rows=np.array([[1, 2, 3]], np.float32), index=np.zeros(1, np.int64)),
            ),
        ),
        caps=(Cap(klass=0, margin="1"),),
    )  # fmt: skip


def _parse_patch(data: bytes) -> None:
    first, second = _pair(data)
    found = patch.parse(first, second)
    written = patch.to_bytes(found)
    _same(first + second, written[0] + written[1])


@functools.cache
def _schema() -> schema.InputSchema:
    return schema.InputSchema.uniform((3,), scale=16.0, offset=0.0, low=0, high=16)


def _graphs() -> list[bytes]:
    random = np.random.default_rng(0)
    nodes = (
        make_node("Gemm", ("x", "w", "b"), "h"),
        make_node("Relu", ("h",), "r"),
        make_node("MatMul", ("r", "v"), "y"),
    )
    graph = Graph(
        opset=18, input="x", input_shape=(3,), output="y", classes=2, nodes=nodes,
        initialisers={
            "w": random.normal(size=(3, 4)).astype(np.float32), "b": np.zeros(4, np.float32),
            "v": random.normal(size=(4, 2)).astype(np.float32),
        },
    )  # fmt: skip
    return [profile.serialise(graph)]


@functools.cache
def _deployed() -> list[bytes]:
    # A screen with a branch: the one operator whose file holds graphs.
    base = profile.parse(_graphs()[0])
    gate = SketchGate(
        matrix=np.array([[1, 0, -1], [2, 1, 0]], np.int32), low=np.array([[-8, 0]], np.int32),
        high=np.array([[8, 9]], np.int32), screen=np.array([0, 1]), branch=True,
    )  # fmt: skip
    head = SetHead(rows=np.array([[1, 2]], np.float32), index=np.zeros(1, np.int64))
    made = Patch(features=3, classes=2, parts=(Part(gate=gate, head=head),))
    return [profile.serialise(compose(base, _schema(), made))]


def _parse_deployed(data: bytes) -> None:
    found = profile.parse(data, operators=profile.PATCHED, limits=profile.DEPLOYED)
    again = profile.parse(profile.serialise(found), operators=profile.PATCHED, limits=profile.DEPLOYED)
    assert again == found


def _read_reference(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(data)
        file.flush()
        load_reference(Path(file.name), _schema(), 3)


def _reference() -> list[bytes]:
    held = io.BytesIO()
    np.savez(held, X=np.array([[1, 2, 3], [4, 5, 6]], np.uint8), y=np.array([0, 1]))
    packed = io.BytesIO()
    np.savez_compressed(packed, X_test=np.array([[0.5, 0.25, 1.0]], np.float32), y_test=np.array([2]))
    return [held.getvalue(), packed.getvalue()]


@functools.cache
def _trusted() -> tuple[policy.Policy, trust.Trust]:
    return trusted.read(_made().policy, _made().trust)


def _verify_receipt(data: bytes) -> None:
    logs, signers = _trusted()
    receipts.verify(data, policy=logs, trust=signers)


def _verify_slip(data: bytes) -> None:
    slip = openings.parse_slip(data)
    for one in slip.openings:
        one.verify(forge.tree().root, groups=len(forge.tree().groups), count=6)


def _note(data: bytes) -> None:
    _same(data, note.parse(data).to_bytes())


def _proof(data: bytes) -> None:
    _same(data, proof.to_bytes(proof.parse(data)))


def _checkpoint(data: bytes) -> None:
    signed, head = checkpoint.parse_signed(data)
    _same(signed.text, checkpoint.to_text(head))


def _witness_request(data: bytes) -> None:
    _same(data, witness_http.to_bytes(witness_http.parse(data)))


def _tile(data: bytes) -> None:
    name, content = _pair(data)
    tile = tiles.parse_path(_text(name))
    if tile.path != _text(name):
        raise Second("a second name of a tile")
    if tile.level is None:
        _same(content, tiles.join_entries(tiles.split_entries(content, tile)))
    else:
        _same(content, b"".join(tiles.split_hashes(content, tile)))


def _tiles() -> list[bytes]:
    files = forge.tiles_of([b"a", b"", b"ccc"])
    return [_joined(path.encode(), data) for path, data in files.items()]


def _hints() -> list[bytes]:
    slopes = hints.Slopes(
        claim=np.array([0, 2], np.int32),
        entry=np.array([0, 0], np.int32),
        inner=np.array([[0, 255, 9]], np.uint8),
        last=np.full((1, 2, 3), 128, np.uint8),
    )
    one = np.zeros(1, np.int32)
    duals = hints.Duals(part=one, row=one, claim=one, rival=one, weight=one + 1, offset=np.ones((1, 3), np.int32))
    return [
        hints.to_bytes(hints.Hints(slopes=slopes, duals=duals)),
        hints.to_bytes(hints.Hints(slopes=hints.Slopes.none(), duals=hints.Duals.none())),
    ]


def _vkey(data: bytes) -> None:
    _same(data, keys.parse_vkey(_text(data)).vkey.encode())


def _skey(data: bytes) -> None:
    keys.parse_skey(data)


_PASSPHRASE = b"a passphrase for tests alone"


def _key_files() -> list[bytes]:
    plain = b"PRIVATE+KEY+example.com/owner+4a6e1abd+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
    known = keys.parse_skey(plain).verifier
    locked = locked_key.serialise(known.name, known.key_id, 1, bytes(range(32)), _PASSPHRASE, cost=14)
    outside = signer.ExternalKey(
        name=known.name, use=known.use, public=known.public, command=("signer", "--slot", "2"), seconds=5.0
    )
    return [plain, locked, outside.key_file()]


def _key_file(data: bytes) -> None:
    keys.parse_key_file(data, ask=lambda _: _PASSPHRASE)


def _numbers(data: bytes) -> None:
    text = _text(data)
    for parse in (parse_time, parse_decimal, parse_float32, decode_base64):
        try:
            parse(text)
        except MalformedError:
            continue


def _number_of_a_log(data: bytes) -> None:
    if str(checkpoint.parse_decimal(_text(data), what="number")) != _text(data):
        raise Second("a second spelling of a number")


def _list(data: bytes) -> None:
    wanted = messages.read(_made().envelopes["request"], Request)[1]
    request_message.parse_list(data, wanted, where="")


def _opening_seeds(kind: str) -> list[bytes]:
    zeros = "0" * 64
    made = {
        "opening": Opening(
            subject=sha256_hex(PLAN), requests=(zeros,), nonce_commitment=zeros, answer_within=60, opened_at=1
        ),
        "acknowledgement": Acknowledgement(subject=zeros, opening=zeros, certificate=zeros, acknowledged_at=1),
        "challenge": Challenge(
            subject=zeros, opening=zeros, answers=zeros, seed=bytes(32), count=1, population=2, challenged_at=1
        ),
        "answer": Answer(subject=zeros, challenge=zeros, opened=1, answered_at=1),
    }
    return [made[kind].payload()]


def _threat() -> list[bytes]:
    folder = Path(threats.__file__).parents[1] / "threat_models"
    return [(folder / "replay.yaml").read_bytes()]


def _builtin(name: str) -> list[bytes]:
    return [(Path(threats.__file__).parent / "profiles" / f"{name}.yaml").read_bytes()]


def _files() -> list[bytes]:
    return [manifest_of({"a.json": b"x", "b/c.txt": b"y"}, "")]


_ENDPOINT = b"""version: prune-audit/endpoint/v1
url: https://a.example
model: digits
identities:
  - {name: us, headers: {X-Client: "7"}}
queries: {core: 100, near: 10, ordinary: 50}
"""


def _query_log(data: bytes) -> None:
    _same(data, journal.parse(data, where="").to_bytes())


def _query_logs() -> list[bytes]:
    line = journal.Line(kind="core", identity="us", url=0, at=1.25, requests=1, logits=np.array([1, -0.0], np.float32))
    none = journal.Line(kind="near", identity="us", url=0, at=2.0, requests=5, logits=None, failure="status 503")
    public = endpoint.parse(_ENDPOINT).public()
    return [journal.Journal(endpoint=public, plan="00", planned=4, classes=2, lines=(line, none)).to_bytes()]


TARGETS: dict[str, Target] = {
    "endpoint": Target(run=endpoint.parse, seeds=lambda: [_ENDPOINT], covers=("auditor.deployment.endpoint.parse",)),
    "inference-answer": Target(
        run=inference.parse_json,
        seeds=lambda: [b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.5,-1]}]}'],
        covers=("auditor.deployment.inference.parse_json",),
    ),
    "query-log": Target(run=_query_log, seeds=_query_logs, covers=("auditor.deployment.journal.parse",)),
    "json": Target(
        run=lambda d: canonical.parse_json(d, limit=MAX_BYTES),
        seeds=lambda: [b'{"a":[1,-2,true,null,"\\u00e9"]}', b" [ ] "],
        covers=("protocol.canonical.parse_json",),
    ),
    "canonical": Target(
        run=lambda d: _same(d, canonical.to_bytes(canonical.parse_json(d, limit=MAX_BYTES, canonical=True))),
        seeds=lambda: [canonical.to_bytes({"a": [1, 2, {"b": "é\n"}], "z": None})],
        covers=("protocol.canonical.parse_json",),
    ),
    "numbers": Target(
        run=_numbers,
        seeds=lambda: [b"2026-11-21T08:00:00Z", b"0.33333334", b"1.5e-13", b"AAAA", b"-1e45"],
        covers=(
            "protocol.encoding.parse_time", "protocol.encoding.parse_decimal", "protocol.encoding.parse_float32",
            "protocol.encoding.decode_base64",
        ),
    ),
    "log-number": Target(
        run=_number_of_a_log, seeds=lambda: [b"0", b"9223372036854775807"], covers=("protocol.log.checkpoint.parse_decimal",)
    ),
    "vkey": Target(run=_vkey, seeds=lambda: [forge.key("owner").verifier.vkey.encode()], covers=("protocol.keys.parse_vkey",)),
    "skey": Target(
        run=_skey,
        seeds=lambda: [b"PRIVATE+KEY+example.com/owner+4a6e1abd+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"],
        covers=("protocol.keys.parse_skey",),
    ),
    "key-file": Target(
        run=_key_file,
        seeds=_key_files,
        covers=("protocol.keys.parse_key_file", "protocol.locked_key.parse", "protocol.signer.parse_key_file"),
        errors=(MalformedError, BadSignature),
    ),
    "envelope": Target(
        run=dsse.parse, seeds=lambda: [_made().envelopes["report"]], covers=("protocol.envelope.parse",)
    ),
    "statement": Target(
        run=statement.parse, seeds=lambda: _payload("report"), covers=("protocol.statement.parse",)
    ),
    "in-toto": Target(
        run=lambda d: statement.parse(d, ours=False), seeds=lambda: _payload("report"), covers=("protocol.statement.parse",)
    ),
    "commitment": Target(run=_message(Commitment), seeds=lambda: _payload("commitment"), covers=("Commitment",)),
    "request": Target(run=_message(Request), seeds=lambda: _payload("request"), covers=("Request",)),
    "certificate": Target(run=_message(Certificate), seeds=lambda: _payload("certificate"), covers=("Certificate",)),
    "report": Target(run=_message(Report), seeds=lambda: _payload("report"), covers=("Report",)),
    "receipt-message": Target(run=_message(Receipt), seeds=lambda: _payload("receipt"), covers=("Receipt",)),
    "opening": Target(run=_message(Opening), seeds=lambda: _opening_seeds("opening"), covers=("Opening",)),
    "acknowledgement": Target(
        run=_message(Acknowledgement), seeds=lambda: _opening_seeds("acknowledgement"), covers=("Acknowledgement",)
    ),
    "challenge": Target(run=_message(Challenge), seeds=lambda: _opening_seeds("challenge"), covers=("Challenge",)),
    "answer": Target(run=_message(Answer), seeds=lambda: _opening_seeds("answer"), covers=("Answer",)),
    "request-list": Target(
        run=_list,
        seeds=lambda: [request_message.serialise_list(tuple(sorted(forge.commitment_of(row) for row in (0, 1, 2))))],
        covers=("protocol.messages.request.parse_list",),
        errors=(MalformedError, VerificationError),
    ),
    "receipt": Target(
        run=lambda d: _same(d, receipt_file.parse(d).to_bytes()), seeds=lambda: [_made().receipt],
        covers=("protocol.receipt_file.parse",),
    ),
    "verify-receipt": Target(
        run=_verify_receipt, seeds=lambda: [_made().receipt], covers=("auditor.receipts.verify",),
        errors=(MalformedError, VerificationError),
    ),
    "verify-slip": Target(
        run=_verify_slip, seeds=lambda: [_made().slip(0, 1)], covers=("protocol.openings.parse_slip",),
        errors=(MalformedError, VerificationError),
    ),
    "hints": Target(
        run=hints.parse, seeds=_hints, covers=("protocol.hints.parse", "protocol.arrays.read_npz"),
    ),
    "openings": Target(
        run=openings.parse, seeds=lambda: [openings.serialise(forge.opened(0, 3), features=3)],
        covers=("protocol.openings.parse", "protocol.arrays.read_npz"),
    ),
    "claim": Target(
        run=claims.parse_claim, seeds=lambda: [forge.redirection(0), forge.removal(), forge.no_redirection(1), forge.coverage(1)],
        covers=("protocol.claims.parse_claim",),
    ),
    "claims": Target(
        run=claims.parse_file, seeds=lambda: [forge.redirection(0) + b"\n" + forge.removal() + b"\n"],
        covers=("protocol.claims.parse_file", "protocol.claims.split_lines"),
    ),
    "manifest": Target(run=manifest.parse, seeds=_files, covers=("protocol.manifest.parse",)),
    "trust": Target(run=trust.parse, seeds=lambda: [_made().trust], covers=("protocol.trust.parse",)),
    "note": Target(
        run=_note, seeds=lambda: [forge.cosigned(forge.MiniLog("log.example", [b"a"]))], covers=("protocol.log.note.parse",)
    ),
    "checkpoint": Target(
        run=_checkpoint, seeds=lambda: [forge.cosigned(forge.MiniLog("log.example", [b"a"]))],
        covers=("protocol.log.checkpoint.parse", "protocol.log.checkpoint.parse_signed"),
    ),
    "tlog-proof": Target(run=_proof, seeds=lambda: [_made().proofs["report"]], covers=("protocol.log.proof.parse",)),
    "policy": Target(run=policy.parse, seeds=lambda: [_made().policy], covers=("protocol.log.policy.parse",)),
    "tile": Target(
        run=_tile, seeds=_tiles,
        covers=(
            "protocol.log.tiles.parse_path", "protocol.log.tiles.split_hashes", "protocol.log.tiles.split_entries",
        ),
    ),
    "witness-request": Target(
        run=_witness_request,
        seeds=lambda: [
            witness_http.to_bytes(
                witness_http.Request(
                    old_size=1, proof=(bytes(32),), checkpoint_note=forge.cosigned(forge.MiniLog("log.example", [b"a", b"b"]))
                )
            )
        ],
        covers=("protocol.log.witness_http.parse",),
    ),
    "model": Target(run=profile.parse, seeds=_graphs, covers=("protocol.model.profile.parse", "protocol.model.decode.decode")),
    "deployed": Target(run=_parse_deployed, seeds=_deployed, covers=("protocol.model.profile.parse",)),
    "patch": Target(run=_parse_patch, seeds=lambda: [_joined(*patch.to_bytes(_patch()))], covers=("protocol.model.patch.parse",)),
    "schema": Target(
        run=lambda d: _same(d, schema.parse(d).to_bytes()), seeds=lambda: [_schema().to_bytes()],
        covers=("protocol.model.schema.parse",),
    ),
    "recipe": Target(
        run=recipe.parse, seeds=lambda: [recipe.serialise(recipe.Recipe())], covers=("protocol.model.recipe.parse",)
    ),
    "yaml": Target(
        run=lambda d: parse_mapping(d, where="file"), seeds=lambda: [b"a: [1, {b: c}]\n"],
        covers=("auditor.strict_yaml.parse_mapping",),
    ),
    "profile": Target(
        run=parse_profile, seeds=lambda: _builtin("indistinguishable"), covers=("auditor.profile.parse_profile",)
    ),
    "plan": Target(
        run=parse_plan, seeds=lambda: [plan_template(parse_profile(_builtin("redirection")[0]), seed=1)],
        covers=("auditor.profile.parse_plan",),
    ),
    "threat": Target(
        run=lambda d: threats.parse_threat(d, where="replay.yaml"), seeds=_threat, covers=("auditor.threats.parse_threat",)
    ),
    "reference": Target(run=_read_reference, seeds=_reference, covers=("auditor.evidence.load_reference",)),
}  # fmt: skip
