"""Two implementations written from one text, in two languages, read the same bytes in the same way.

The second one is JavaScript: the receipt page's modules, and the command line under `tests/conformance/second_auditor`.
A disagreement is a fault of one of the two, or of SPEC.md.
"""

import base64
import copy
import hashlib
import json
import random
import shutil
from itertools import pairwise

import numpy as np
import pytest

from auditor import receipts
from protocol import canonical, claims, encoding, envelope, keys, openings, trust
from protocol import statement as intoto
from protocol.errors import MalformedError, VerificationError
from protocol.log import checkpoint, merkle, note, policy
from protocol.messages.certificate import Certificate
from protocol.messages.commitment import Commitment
from protocol.messages.report import Receipt, Report
from protocol.messages.request import Request
from tests.demo.world import run
from tests.peers import SECOND_AUDITOR, batch, node
from tests.protocol.log.helpers import VECTORS

BATCH = SECOND_AUDITOR / "batch.mjs"
AUDIT = SECOND_AUDITOR / "audit.mjs"
MESSAGES = {
    "commitment": Commitment, "request": Request, "certificate": Certificate, "report": Report, "receipt": Receipt,
}  # fmt: skip


def outcome(reading):
    try:
        return {"ok": reading()}
    except MalformedError as error:
        return {"kind": "malformed", "message": str(error)}
    except VerificationError as error:
        return {"kind": "unverifiable", "message": str(error)}


def compare(cases, folder, *, kinds=True):
    """Each case is (what, reading in Python, bytes...); both have to give the same value or kind of refusal."""
    ours = [outcome(reading) for _, reading, *_ in cases]
    theirs = batch(BATCH, [(what, *given) for what, _, *given in cases], folder)
    accepted = 0
    for (what, _, data, *_), mine, other in zip(cases, ours, theirs, strict=True):
        agree = ("ok" in mine) == ("ok" in other) and mine.get("ok") == other.get("ok")
        if kinds:
            agree = agree and mine.get("kind") == other.get("kind")
        assert agree, f"{what} {data[:300]!r}\nhere:  {mine}\nthere: {other}"
        accepted += "ok" in mine
    assert 0 < accepted < len(cases)


def nothing(function, *arguments, **named):
    """A reading whose value is not compared, only whether it is accepted."""

    def reading():
        function(*arguments, **named)

    return reading


def changed(data, rng, count):
    for _ in range(count):
        copied = bytearray(data)
        place = rng.randrange(len(copied))
        copied[place] ^= 1 << rng.randrange(8)
        yield bytes(copied)


@pytest.fixture(scope="module")
def receipt_case(small_demo, tmp_path_factory):
    world = small_demo.world
    folder = tmp_path_factory.mktemp("slips")
    listed = json.loads((world.root / "requests" / "records.leaves.json").read_text())
    rows = [str(int(row)) for row in np.random.default_rng(3).choice(400, 40, replace=False)[:2]]
    slips = {}
    for name, records in {"own": ",".join(rows), "other": other_row(rows)}.items():
        ran = run("prune-owner", "slip", "--commitment", world.root / "commitment", "--records", records,
                  "--out", folder / f"{name}.npz")  # fmt: skip
        assert ran.code == 0, ran.err
        slips[name] = folder / f"{name}.npz"
    return {
        "receipt": world.root / "honest" / "report" / "receipts" / "000.receipt",
        "policy": world.policy, "trust": world.trust, "records": len(listed), "slips": slips,
        "logs": (world.owner_log, world.auditor_log),
    }  # fmt: skip


def other_row(rows):
    requested = {int(row) for row in np.random.default_rng(3).choice(400, 40, replace=False)}
    return str(next(row for row in range(400) if row not in requested and str(row) not in rows))


def test_hashes_are_the_standard_ones(tmp_path):
    rng = random.Random(0)
    for data, got in zip(
        lengths := [rng.randbytes(n) for n in (0, 1, 55, 56, 64, 111, 112, 119, 127, 128, 135, 136, 167, 168, 1000)],
        batch(BATCH, [("hashes", data) for data in lengths], tmp_path),
        strict=True,
    ):
        assert got["ok"] == [
            hashlib.sha256(data).hexdigest(), hashlib.sha512(data).hexdigest(),
            hashlib.shake_128(data).hexdigest(200), hashlib.shake_256(data).hexdigest(200),
        ]  # fmt: skip


def test_wycheproof_signatures(tmp_path):
    cases, wanted = [], []
    for group in json.loads((VECTORS / "wycheproof" / "ed25519_test.json").read_text())["testGroups"]:
        for one in group["tests"]:
            cases.append(("ed25519", *(bytes.fromhex(x) for x in (group["publicKey"]["pk"], one["msg"], one["sig"]))))
            wanted.append(one["result"] == "valid")
    for group in json.loads((VECTORS / "wycheproof" / "mldsa_44_verify_test.json").read_text())["testGroups"]:
        for one in group["tests"]:
            if not one.get("ctx"):
                cases.append(("mldsa44", *(bytes.fromhex(x) for x in (group["publicKey"], one["msg"], one["sig"]))))
                wanted.append(one["result"] == "valid")
    assert len(wanted) > 200
    for case, valid, got in zip(cases, wanted, batch(BATCH, cases, tmp_path), strict=True):
        assert got["ok"] is valid, case


def test_edge_case_signatures(tmp_path):
    """CCTV gives no verdicts: the two have to agree on every key and every signature."""

    def python(key, message, signature):
        def reading():
            try:
                keys.VerifierKey(name="k", use=keys.ED25519, public=key).verify(signature, message)
            except (MalformedError, VerificationError):
                return False
            return True

        return reading

    cases = []
    for one in json.loads((VECTORS / "cctv-ed25519" / "ed25519vectors.json").read_text()):
        given = bytes.fromhex(one["key"]), one["msg"].encode(), bytes.fromhex(one["sig"])
        cases.append(("ed25519", python(*given), *given))
    theirs = batch(BATCH, [(what, *given) for what, _, *given in cases], tmp_path)
    assert {got["ok"] for got in theirs} == {True, False}
    for (_, reading, *_), got in zip(cases, theirs, strict=True):
        assert got["ok"] == reading()


JSON_TEXTS = (
    "{}", '{"a":1}', '{"a":1,"a":2}', '{"a":{"b":1,"b":2}}', "-0", "0", "01", "1.0", "1e1", "9007199254740991",
    "9007199254740992", "-9007199254740991", '"\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00\\ud83d"', '"\\/"', '"\\u004"',
    '"\x7f"', '"\x1f"', "NaN", "-Infinity", "true", "tru", "[1,]", '{"a":1,}', '{"a"}', "[1 2]", " 1 ", "\n[\t1\r]",
    "\x0c1", "\u00a01", "\ufeff1", "1 1", "", '"abc', "[" * 32 + "]" * 32, "[" * 33 + "]" * 33,
    '{"a":' * 33 + "1" + "}" * 33, '"\\"' + "[" * 50 + '"', '{"__proto__":1}', '{"\U0001f600":3,"\uffff":4}', '"\u2028"',
    '"\\u0000"', "- 1", ".5", "1.", "0x10", '{"":1}', "1" * 400, '{"b":1,"a":2}', '{"a": 1}', '"\\u00e9"', '"\\u001F"',
)  # fmt: skip


def test_json(tmp_path):
    rng = random.Random(1)
    start = b'{"a":[1,-2,{"b":"x\\n\xc3\xa9"},true,null],"z":{"y":"\\u0001"}}'
    texts = [text.encode() for text in JSON_TEXTS] + [
        b"\xff",
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\xf4\x90\x80\x80"',
        start,
    ]
    for _ in range(700):
        text = bytearray(start)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 1)] = bytes([rng.choice(b'{}[]",:\\0129eE+-. truefalsn\n\t\x00\xff')])
        texts.append(bytes(text))
    cases = []
    for text in texts:
        cases.append(("json", lambda t=text: canonical.to_bytes(canonical.parse_json(t, limit=1 << 20)).decode(), text))
        cases.append(("canonical", nothing(canonical.parse_json, text, limit=1 << 20, canonical=True), text))
    compare(cases, tmp_path)


DECIMALS = (
    "0", "-0", "1", "01", "1.0", "0.10", "1e3", "1e13", "1e12", "0.0000000000001", "1e-13", "-1.5", "+1", "1e-400", "1e-401",
    "1e400", "1e401", ".5", "5.", "1e", "1e+5", "1E5", "9" * 60, "9" * 61, "1e012", "0e5", "12e20", "1.2e20", "NaN", "",
    "-", "1_0", "１", " 1", "1\n", "3.4028235e38", "3.4028236e38", "1e-45", "1.4e-45", "7e-46", "16777217", "1e39",
    "19781.062", "19781.063", "1796994.2", "1796994.3",
)  # fmt: skip


def test_numbers_and_times(tmp_path):
    values = np.frombuffer(random.Random(2).randbytes(4 * 500), dtype="<f4")
    texts = [*DECIMALS]
    for value in values[np.isfinite(values)]:
        texts += [encoding.format_float32(value), repr(float(value))]
    cases = [("decimal", nothing(encoding.parse_decimal, text), text.encode()) for text in texts]
    cases += [("float32", nothing(encoding.parse_float32, text), text.encode()) for text in texts]
    for text in (
        "2026-11-21T08:00:00Z", "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "0001-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-11-21T24:00:00Z", "2026-11-21T08:00:60Z",
        "2026-11-21t08:00:00Z", "2026-11-21T08:00:00.0Z", "2026-13-21T08:00:00Z", "2026-11-31T08:00:00Z",
        "12026-11-21T08:00:00Z", "2026-11-21T08:00:00+00:00", "２026-11-21T08:00:00Z", "2026-11-21T08:00:00Z\n",
    ):  # fmt: skip
        cases.append(("time", lambda t=text: encoding.parse_time(t), text.encode()))
    for text in (
        "",
        "AA==",
        "AB==",
        "AAA=",
        "AAB=",
        "AAAA",
        "AA",
        "A===",
        "====",
        "AAAA\n",
        "-_-_",
        "+/+/",
        "-/AA",
        "é",
    ):
        cases.append(("base64", lambda t=text: encoding.decode_base64(t).hex(), text.encode()))
        cases.append(("either", lambda t=text: encoding.decode_base64(t, url_safe=True).hex(), text.encode()))
    compare(cases, tmp_path)


def vkey(name, use, public):
    typed = bytes([use]) + public
    key_id = hashlib.sha256(name.encode() + b"\n" + typed).digest()[:4].hex()
    return f"{name}+{key_id}+{base64.b64encode(typed).decode()}"


PUBLIC = keys.SigningKey(name="k", use=keys.ED25519, seed=bytes(range(32))).verifier.public


def test_keys_policies_and_trust_files(small_demo, tmp_path):
    names = ("a", "", "a b", "a\u00a0b", "a\u2003b", "a\u200bb", "a\x85b", "a\x1fb", "a\u2028b", "a\ufeffb", "a\x7fb", "a\u009fb",
             "x" * 255, "x" * 256, "é" * 127, "é" * 128, "\U0001f600", "a\u0301", "\u3000", "a\u00adb", "\ue000")  # fmt: skip
    texts = [vkey(name, 1, PUBLIC) for name in names]
    texts += [vkey("a", use, PUBLIC) for use in (0, 2, 4, 6)] + [vkey("a", 6, bytes(1312)), vkey("a", 1, PUBLIC[:31])]
    texts += [vkey("a", 1, key) for key in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"\x02" + bytes(31))]
    texts += [texts[0] + "\n", texts[0][:-1], texts[0].upper(), "", texts[0].replace("+", "+ ", 1)]
    cases = [("vkey", lambda t=text: keys.parse_vkey(t).key_id.hex(), text.encode()) for text in texts]
    for text in policies(small_demo.world.policy.read_text().splitlines()):
        cases.append(("policy", nothing(policy.parse, text), text))
    for text in trust_files(json.loads(small_demo.world.trust.read_text())):
        cases.append(("trust", nothing(trust.parse, text), text))
    compare(cases, tmp_path)


def policies(lines):
    five = lines[:5]
    ends = (
        ["quorum witness-north"], ["quorum w"], [], ["quorum none", "quorum none"], ["quorum none x"], ["quorum"], ["log"],
        ["group g 0 witness-north", "quorum g"], ["group g 1 witness-north witness-north", "quorum g"],
        ["group g 01 witness-north", "quorum g"], ["group g 2 witness-north", "quorum g"], ["group g any", "quorum none"],
        ["group g all witness-north", "group h any g witness-south", "quorum h"], ["group g any none", "quorum g"],
        ["group g all witness-north", "group h any witness-north", "quorum h"], ["group g any g", "quorum g"],
        ["group none all witness-north", "quorum none"], ["group witness-north any witness-south", "quorum none"],
        ["group g any h", "group h any witness-north", "quorum g"], ["group any any witness-north", "quorum any"],
        ["group 2 any witness-north", "quorum 2"], ["group g １ witness-north", "quorum g"], ["quorum none # c"],
        ["group g +1 witness-north", "quorum g"], ["quorum\tnone"], ["  quorum   none  "], ["quorum none\r"], ["frob", "quorum none"],
        ["# \x7f", "quorum none"], ["x#y", "quorum none"], ["\ufeffquorum none"], ["quorum none\u00a0"], ["quorum none\x0b"],
        [five[0], "quorum none"], [five[2].replace("witness-north ", "w ", 1), "quorum none"],
        [five[0].replace("log ", "witness a "), "quorum none"], [five[2].replace("witness witness-north", "log"), "quorum none"],
        [f"log {vkey('log.owner.example', 1, PUBLIC)}", "quorum none"], [f"{five[2]} https://w.example/ x", "quorum none"],
        [f"log {vkey('q', 1, PUBLIC)}", f"witness q {vkey('q', 4, PUBLIC)}", "quorum none"],
    )  # fmt: skip
    for end in ends:
        yield "\n".join([*five, *end]).encode()
    yield "\n".join([*lines[:2], "quorum witness-north", *lines[2:5]]).encode()
    yield b"# \xff\nquorum none\n"
    yield b"quorum none\n#" + b"x" * 262_200


def trust_files(value):
    first = value["signers"][0]
    alone = {**value, "thresholds": {}}
    for change in (
        {}, {"role": "x"}, {"logs": []}, {"logs": ["a", "a"]}, {"logs": [1]}, {"logs": ["a"] * 101}, {"validFrom": "x"},
        {"validFrom": None}, {"validFrom": "2027-01-01T00:00:00Z", "validTo": "2026-01-01T00:00:00Z"}, {"foo": 1},
        {"revokedSince": "2027-01-01T00:00:00Z"}, {"vkey": vkey("a", 4, PUBLIC)},
    ):  # fmt: skip
        yield json.dumps({**alone, "signers": [{**first, **change}]}).encode()
    again = vkey("another name", 1, keys.parse_vkey(first["vkey"]).public)
    for signers in ([], {}, [first, first], [first, {**first, "role": "auditor"}], [first, {**first, "vkey": again}]):
        yield json.dumps({**alone, "signers": signers}).encode()
    for thresholds in ({}, {"owner": 1}, {"owner": 2}, {"owner": 0}, {"x": 1}, {"requester": 1}, {"owner": 101}, None):
        yield json.dumps({**value, "thresholds": thresholds}).encode()
    yield json.dumps({**value, "version": "prune-audit/trust/v2"}).encode()
    yield json.dumps({**value, "extra": 1}).encode()
    yield json.dumps(value, indent=4).encode()
    yield b"[]"


def test_notes_and_checkpoints(small_demo, tmp_path):
    rng = random.Random(4)
    data = (small_demo.world.owner_log / "checkpoint").read_bytes()
    trusted = small_demo.world.policy.read_bytes()
    text, lines = data.rsplit(b"\n\n", 1)
    text, lines = text + b"\n", lines.splitlines()

    def signed(body, *signatures):
        return body + b"\n" + b"".join(line + b"\n" for line in signatures)

    zeros = base64.b64encode(bytes(32))
    bodies = [b"o\n%s\n%s\n%s" % parts for parts in (
        (b"0", zeros, b""), (b"0", base64.b64encode(hashlib.sha256().digest()), b""), (b"1", zeros, b"ext\n"),
        (b"9223372036854775807", zeros, b""), (b"9223372036854775808", zeros, b""), (b"01", zeros, b""), (b"+1", zeros, b""),
        (b"1", b"AAAA", b""), (b"1", zeros, b"\next\n"), (b"1", zeros, b"x" * 16_400 + b"\n"), (b"1", zeros, b"\x85\n"),
        (b"1", zeros, "\u0085\n".encode()), (b"1", zeros, b"\t\n"), (b"1", zeros, b"\x7f\n"), (b"1 ", zeros, b""),
    )]  # fmt: skip
    notes = [
        data,
        data[:-1],
        data + b"\n",
        b"",
        b"\n\n",
        data.replace(b"\n\n", b"\n\n\n"),
        signed(text),
        signed(b"", lines[0]),
    ]
    notes += [signed(body, lines[0]) for body in bodies]
    notes += [signed(text, *[lines[0]] * 100), signed(text, *[lines[0]] * 101), signed(text, lines[0] + b" x")]
    for line in (
        "— x AAAAAA==",
        "— x AAAAAAA=",
        "— x AAAAAAB=",
        "— x+y AAAAAAA=",
        "—  AAAAAAA=",
        "— x\u00a0y AAAAAAA=",
        "- x AAAAAAA=",
    ):
        notes.append(signed(text, lines[0], line.encode()))
    cases = []
    for one in notes:
        cases.append(("note", lambda n=one: len(note.parse(n).signatures), one))
        cases.append(("checkpoint", lambda n=one: str(checkpoint.parse_signed(n)[1].size), one))
    several = [
        lines[:1],
        lines[1:],
        lines[:2],
        [*lines[:2], lines[1], lines[2]],
        [lines[0], lines[0]],
        [lines[0], lines[1], lines[3]],
    ]
    for one in [data, *(signed(text, *some) for some in several), *changed(data, rng, 150)]:

        def seen(n=one):
            found = policy.parse(trusted).verify_checkpoint(n)
            return [found.quorum_met, found.time, sorted([name, at] for name, at in found.cosigned.items())]

        cases.append(("verifyCheckpoint", seen, one, trusted))
    # What a changed byte breaks first is not said: either refusal is right.
    compare(cases, tmp_path, kinds=False)


def test_trees(tmp_path):
    hashes = [hashlib.sha256(bytes([n])).digest() for n in range(20)]
    cases = []
    for size in range(1, 21):
        root = merkle.root_from_hashes(hashes[:size])
        cases.append(("root", lambda n=size: merkle.root_from_hashes(hashes[:n]).hex(), b"".join(hashes[:size])))
        for index in range(size):
            path = merkle.inclusion_proof(index, hashes[:size])
            for use, place in ((path, index), (path[:-1], index), ([*path, root], index), (path, index + 1)):
                cases.append((
                    "inclusion", nothing(merkle.verify_inclusion, hashes[index], place, size, use, root),
                    hashes[index], json.dumps([place, size]).encode(), b"".join(use), root,
                ))  # fmt: skip
        for small in range(size + 1):
            first = merkle.root_from_hashes(hashes[:small])
            path = merkle.consistency_proof(small, hashes[:size]) if small > 0 else []
            for use, claimed in ((path, first), (path[:-1], first), ([*path, root], first), (path, hashes[0])):
                cases.append((
                    "consistency", nothing(merkle.verify_consistency, small, claimed, size, root, use),
                    json.dumps([small, size]).encode(), claimed, root, b"".join(use),
                ))  # fmt: skip
    compare(cases, tmp_path, kinds=False)


SUBSTITUTES = (
    0, -1, 2**20, 2**20 + 1, 2**32, 2**32 + 1, "", "x" * 60, "x" * 61, "00" * 32, "AB" * 32, None, True, [], {}, ["00" * 32] * 2,
    [f"{n:064x}" for n in range(201)], [{"record": "00" * 32, "reason": "r"}], "CONSISTENT", "2026-11-21T08:00:00Z",
    {"kind": "class", "class": 3}, {"kind": "class", "class": 3, "x": 1}, {"kind": "trigger", "trigger": "00" * 32},
    {"kind": "toString"}, [{"threat": "a", "check": "b"}], [{"threat": "a" * 61, "check": "b"}],
)  # fmt: skip


def places(value, path=()):
    yield path
    for key, inner in (
        value.items() if isinstance(value, dict) else list(enumerate(value))[:2] if isinstance(value, list) else ()
    ):
        yield from places(inner, (*path, key))


def altered(value):
    """The value with each of its parts replaced, left out, and with something unknown beside it."""
    for *path, last in (path for path in places(value) if path):
        for new in (*SUBSTITUTES, ...):
            changed_value = copy.deepcopy(value)
            holder = changed_value
            for key in path:
                holder = holder[key]
            if new is ...:
                del holder[last]
            else:
                holder[last] = new
            yield changed_value
    yield {**value, "extra": 1}


def spelled(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_messages_and_claims(receipt_case, tmp_path):
    file = json.loads(receipt_case["receipt"].read_text())
    cases = []
    for name, kind in MESSAGES.items():
        payload = json.loads(base64.b64decode(json.loads(base64.b64decode(file["envelopes"][name]))["payload"]))
        for value in (payload, *altered(payload)):
            data = spelled(value)
            cases.append((name, lambda d=data, k=kind: nothing(k.parse, intoto.parse(d))(), data))
    claim = json.loads(base64.b64decode(file["claims"][0]["line"]))
    more = (
        {"region": {"norm": "hamming", "radius": "2", "unit": "flip", "radiusData": "1"}}, {"target": "relabel"},
        {"region": {"norm": "hamming", "radius": "2", "unit": "step", "radiusData": "1"}}, {"property": {"argmax": 1, "margin": "0"}},
        {"property": {"argmax": 1, "margin": "-1"}}, {"property": {"logits": ["-0"]}}, {"property": {"logits": ["1"] * 10_001}},
        {"region": {"norm": "linf", "radius": "02", "unit": "step", "radiusData": "1"}}, {"item": 1_000_001},
        {"region": {"norm": "linf", "radius": "12345678901", "unit": "step", "radiusData": "1"}}, {"kind": "toString"},
    )  # fmt: skip
    removal = {"kind": "class-removal", "class": 7, "margin": "0.123456789123", "nonce": "00" * 32}
    nothing_claimed = {"kind": "no-redirection", "record": "00" * 32, "reason": "r"}
    covering = {"kind": "coverage", "record": "00" * 32, "item": 7, "gate": "feature"}
    lines = [spelled({**claim, **change}) for change in ({}, *more)]
    lines += [spelled({**covering, "gate": gate}) for gate in claims.GATES]
    for one in (claim, removal, nothing_claimed, covering):
        lines += [spelled(value) for value in (one, *altered(one))]
    cases += [("claim", nothing(claims.parse_claim, line), line) for line in [*lines, lines[0] + b"\n", b"[]"]]
    compare(cases, tmp_path)


def test_envelopes(tmp_path):
    sound = {"payload": "e30=", "payloadType": envelope.PAYLOAD_TYPE, "signatures": [{"sig": "AAAA"}]}
    values = [{**sound, **change} for change in (
        {}, {"x": 1}, {"payload": "e3 0="}, {"payload": "-_-_"}, {"payload": "-+-_"}, {"payload": "AB=="}, {"signatures": []},
        {"signatures": [{"sig": "AAAA"}] * 17}, {"signatures": [{}]}, {"signatures": [{"sig": "AAAA", "keyid": 1}]}, {"x": 1.5},
        {"signatures": [{"sig": "AAAA", "y": []}]}, {"signatures": {}}, {"zzz": "x" * 66_000}, {"payload": None},
    )]  # fmt: skip
    texts = [json.dumps(value).encode() for value in values]
    texts += [texts[0] + b" ", texts[0].replace(b'"payloadType"', b'"payload":"","payloadType"'), b"[]"]
    compare(
        [("envelope", lambda t=text: hashlib.sha256(envelope.parse(t).payload).hexdigest(), text) for text in texts],
        tmp_path,
    )


def test_slips(receipt_case, tmp_path):
    rng = random.Random(5)
    slip = receipt_case["slips"]["own"].read_bytes()
    files = [slip, slip + b"\0", b"\0" + slip, slip[:-1], b"", *changed(slip, rng, 150)]
    # The directory and the end record, where a zip file can hide things.
    files += [slip[:at] + bytes([slip[at] ^ 1]) + slip[at + 1 :] for at in range(len(slip) - 900, len(slip), 5)]
    compare([("slip", lambda s=one: len(openings.parse_slip(s).openings), one) for one in files], tmp_path, kinds=False)


def test_receipts(receipt_case, tmp_path):
    """Changed receipts: bytes, fields, envelopes and proofs exchanged, claims and records added, moved and left out."""
    rng = random.Random(6)
    data = receipt_case["receipt"].read_bytes()
    value = json.loads(data)
    variants = [data, *changed(data, rng, 12)]

    def variant(**change):
        variants.append(spelled({**value, **change}))

    for part in ("envelopes", "proofs"):
        for one, other in pairwise([*value[part], next(iter(value[part]))]):
            variant(**{part: {**value[part], one: value[part][other]}})
            variant(**{part: {name: text for name, text in value[part].items() if name != one}})
            raw = bytearray(base64.b64decode(value[part][one]))
            raw[rng.randrange(len(raw))] ^= 1
            variant(**{part: {**value[part], one: base64.b64encode(raw).decode()}})
    listed, opened = value["records"], value["claims"]
    for records in ([], listed[1:], listed[::-1], [*listed, listed[-1]], sorted([*listed, "00" * 32])):
        variant(records=records)
    for some in ([], opened[1:], opened[::-1], [*opened, opened[-1]], [{**opened[0], "index": 1}, *opened[1:]],
                 [{**opened[0], "path": opened[0]["path"][1:]}, *opened[1:]], [{**opened[0], "line": opened[1]["line"]}]):  # fmt: skip
        variant(claims=some)
    variant(version="prune-audit/receipt/v2")
    variant(extra=1)
    variants += [json.dumps(value).encode(), data + b"\n", b"{}", b""]
    trusted = receipt_case["policy"].read_bytes(), receipt_case["trust"].read_bytes()
    read = {"policy": policy.parse(trusted[0]), "trust": trust.parse(trusted[1])}
    cases = []
    for one in variants:
        cases.append(("receiptFile", lambda r=one: verified(r, read, None), one, *trusted))
    for slip in receipt_case["slips"].values():
        cases.append(
            ("receiptFile", lambda s=slip: verified(data, read, s.read_bytes()), data, *trusted, slip.read_bytes())
        )
    compare(cases, tmp_path, kinds=False)


def verified(data, read, slip):
    result = receipts.verify(data, **read, slip=slip)
    return [result.verdict, result.profile, result.records, result.requested_by_subject]


def audit(*arguments):
    ran = node(AUDIT, *arguments, "--json")
    return ran, json.loads(ran.stdout.strip().split("\n")[-1])


def test_the_second_auditor_says_what_the_first_one_says(receipt_case, tmp_path):
    trusted = "--policy", receipt_case["policy"], "--trust", receipt_case["trust"]
    ran, answer = audit("verify-receipt", receipt_case["receipt"], *trusted, "--slip", receipt_case["slips"]["own"])
    first = run("prune-auditor", "verify-receipt", receipt_case["receipt"], *trusted, "--json")
    assert ran.returncode == first.code == 0
    assert answer == {name: first.json[name] for name in answer}
    assert "That the information is gone" in ran.stdout
    ran, answer = audit("verify-receipt", receipt_case["receipt"], *trusted, "--slip", receipt_case["slips"]["other"])
    assert (ran.returncode, answer["reason"]) == (4, "digest-mismatch")
    assert "Error" not in ran.stderr
    for log in receipt_case["logs"]:
        ran, answer = audit("verify-log", log, "--policy", receipt_case["policy"], "--state", tmp_path / "state")
        first = run("prune-auditor", "verify-log", log, "--policy", receipt_case["policy"], "--json")
        assert ran.returncode == first.code == 0
        assert answer == first.json
    assert node(AUDIT, "verify-log").returncode == 2
    assert node(AUDIT, "frob").returncode == 2


@pytest.mark.parametrize("what", ["entry", "hash tile", "missing", "extra file", "link", "old partial tile"])
def test_the_second_auditor_finds_every_wrong_file_of_a_log(receipt_case, tmp_path, what):
    log = tmp_path / "log"
    shutil.copytree(receipt_case["logs"][0], log)
    last = log / "tile" / "entries" / "000.p" / "4"
    if what == "entry":
        last.write_bytes(last.read_bytes().replace(b"payload", b"pAyload", 1))
    elif what == "hash tile":
        tile = log / "tile" / "0" / "000.p" / "4"
        tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    elif what == "missing":
        last.unlink()
    elif what == "extra file":
        (log / "tile" / "notes.txt").write_text("hello")
    elif what == "link":
        (log / "tile" / "0" / "001").symlink_to(last)
    else:
        old = log / "tile" / "entries" / "000.p" / "2"
        old.write_bytes(old.read_bytes()[:-1] + b"!")
    ran, answer = audit("verify-log", log, "--policy", receipt_case["policy"])
    first = run("prune-auditor", "verify-log", log, "--policy", receipt_case["policy"])
    assert ran.returncode == first.code == 4, (ran.stderr, first.err)
    assert answer["reason"] in {"schema", "digest-mismatch"}
