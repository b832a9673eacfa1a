import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadSignature, MalformedError, Schema, TooLarge, UnknownKey
from protocol.keys import SigningKey, VerifierKey
from protocol.log import checkpoint, cosignature, note, policy
from protocol.log.checkpoint import Checkpoint
from tests.protocol.log.helpers import LOG_KEY, ML_DSA, ORIGIN, POLICY, POLICY_TEXT, WITNESSES, key

HEAD = Checkpoint(origin=ORIGIN, size=3, root=bytes(32))
LOG = f"log {LOG_KEY.verifier.vkey}"
W = [f"witness w{i} {w.verifier.vkey}" for i, w in enumerate(WITNESSES)]


def parse(*lines):
    return policy.parse("".join(f"{line}\n" for line in lines).encode())


def cosigned(times, head=HEAD, log_key=LOG_KEY):
    signed, _ = checkpoint.parse_signed(checkpoint.sign(head, log_key))
    for number, time in times:
        line = cosignature.sign(signed.text, WITNESSES[number], time)
        signed = note.Note(text=signed.text, signatures=(*signed.signatures, line))
    return signed.to_bytes()


def test_the_example_of_the_specification():
    keys = [key(f"example.com/{n}", "witness").verifier.vkey for n in range(6)]
    read = parse(
        LOG,
        "",
        *(f"witness X{i} {keys[i]}" for i in range(3)),
        "group X-witnesses 2 X0 X1 X2",
        *(f"witness Y{i} {keys[3 + i]}" for i in range(3)),
        "group Y-witnesses any Y0 Y1 Y2",
        "group X-and-Y all X-witnesses Y-witnesses",
        "quorum X-and-Y",
    )
    assert read.quorum == "X-and-Y"
    for present in itertools.product([False, True], repeat=6):
        names = [name for name, there in zip(["X0", "X1", "X2", "Y0", "Y1", "Y2"], present, strict=True) if there]
        met = sum(present[:3]) >= 2 and any(present[3:])
        assert (read.quorum_time(dict.fromkeys(names, 5)) is not None) == met


def test_reading():
    assert POLICY.logs[0].url == "https://example.com/log/"
    assert [w.name for w in POLICY.witnesses] == ["w0", "w1", "w2"]
    assert POLICY.groups == (policy.Group(name="all-three", threshold=2, members=("w0", "w1", "w2")),)
    relaxed = POLICY_TEXT.replace(" ", " \t ").replace("\n", "\t\n\n  # comment \xff+\n").encode("latin-1")
    assert policy.parse(relaxed) == POLICY
    assert policy.parse(POLICY_TEXT.strip().encode()) == POLICY
    assert parse(LOG, W[0] + " https://w0.example", "quorum w0").witnesses[0].url == "https://w0.example"


def test_names_may_look_like_rules():
    read = parse(LOG, W[0].replace("w0", "all", 1), W[1].replace("w1", "2", 1), "group any any all 2", "quorum any")
    assert read.quorum_time({"2": 7}) == 7


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [LOG],
        ["quorum none", "quorum none"],
        ["quorum"],
        ["quorum none none"],
        ["quorum nobody"],
        ["quorum w0", W[0]],
        ["log", "quorum none"],
        [LOG + " url more", "quorum none"],
        [W[0] + " url more", "quorum none"],
        ["witness w0", "quorum none"],
        ["witness w0 junk", "quorum none"],
        [LOG, LOG, "quorum none"],
        [W[0], W[0], "quorum none"],
        [W[0], W[0].replace("w0", "other", 1), "quorum none"],
        [W[0], W[1].replace("w1", "w0", 1), "quorum none"],
        [W[0].replace("w0", "none", 1), "quorum none"],
        [W[0], "group w0 any w0", "quorum none"],
        [W[0], "group none any w0", "quorum none"],
        [W[0], "group g any", "quorum none"],
        [W[0], "group g any w1", "quorum none"],
        [W[0], "group g any g", "quorum none"],
        [W[0], "group g any none", "quorum none"],
        [W[0], "group g any w0 w0", "quorum none"],
        [W[0], "group g any w0", "group h any w0", "quorum none"],
        [W[0], "group g 0 w0", "quorum none"],
        [W[0], "group g 2 w0", "quorum none"],
        [W[0], "group g 01 w0", "quorum none"],
        [W[0], "group g -1 w0", "quorum none"],
        [W[0], "group g most w0", "quorum none"],
        [LOG.replace("log", "Log", 1), "quorum none"],
        ["quorum none\r"],
        ["quorum none", "\x00"],
        ["quorum none", "#\x7f"],
        [f"log {WITNESSES[0].verifier.vkey}", "quorum none"],
        [f"witness w {LOG_KEY.verifier.vkey}", "quorum none"],
    ],
)
def test_malformed_policies(lines):
    with pytest.raises(MalformedError):
        parse(*lines)


def test_errors_name_the_line():
    with pytest.raises(Schema) as caught:
        parse(LOG, "", "junk")
    assert caught.value.where == "line 3"


def test_names_have_to_be_utf8():
    with pytest.raises(Schema, match="UTF-8"):
        policy.parse(b"quorum \xff\n")


def test_the_same_key_under_two_names_is_one_key():
    # Another name gives another key id; counting both would let one witness be two.
    twin = SigningKey(name="witness.example/twin", use=WITNESSES[0].use, seed=WITNESSES[0].seed)
    with pytest.raises(Schema, match="twice"):
        parse(W[0], f"witness twin {twin.verifier.vkey}", "quorum none")


def test_two_keys_with_one_name_and_id_are_ambiguous(monkeypatch):
    monkeypatch.setattr(VerifierKey, "key_id", bytes.fromhex(LOG_KEY.verifier.key_id.hex()))
    other = key(ORIGIN, "statement")
    with pytest.raises(Schema, match="share"):
        parse(LOG, f"log {other.verifier.vkey}", "quorum none")


def test_lines_that_share_only_name_or_id_with_a_witness_are_ignored():
    signed, _ = checkpoint.parse_signed(cosigned([(1, 6)]))
    for name, key_id in ((WITNESSES[0].name, b"abcd"), ("stranger", WITNESSES[0].verifier.key_id)):
        line = note.Signature(name=name, key_id=key_id, value=b"anything")
        assert not line.is_by(WITNESSES[0].verifier)
        verified = POLICY.verify_checkpoint(signed.with_signature(line).to_bytes())
        assert dict(verified.cosigned) == {"w1": 6}


def test_limit():
    assert policy.parse(b"quorum none\n#".ljust(262_144, b"x")).quorum == "none"
    with pytest.raises(TooLarge):
        policy.parse(b"#" * (policy.MAX_POLICY + 1))


def test_deep_nesting_is_no_recursion():
    lines = [W[0], "group g0 any w0", *(f"group g{i} any g{i - 1}" for i in range(1, 3000)), "quorum g2999"]
    assert parse(*lines).quorum_time({"w0": 9}) == 9


@given(st.binary(max_size=100))
def test_any_bytes_are_a_policy_or_malformed(data):
    with contextlib.suppress(MalformedError):
        policy.parse(data)


@given(
    st.lists(
        st.sampled_from([LOG, *W, "group g 2 w0 w1 w2", "group h any w0", "quorum g", "quorum none", "quorum w1"]),
        max_size=8,
    )
)
def test_any_lines_are_a_policy_or_malformed(lines):
    try:
        read = parse(*lines)
    except MalformedError:
        return
    assert sum(line.startswith("quorum") for line in lines) == 1
    assert read.quorum == "none" or read.quorum_time({f"w{i}": 1 for i in range(3)}) in (1, None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], None),
        ([(0, 5)], None),
        ([(0, 5), (1, 9)], 9),
        ([(0, 5), (1, 9), (2, 7)], 7),
        ([(0, 5), (0, 6)], None),
        ([(0, 5), (1, 9), (1, 6)], 6),
        ([(0, 5), (1, 6), (1, 9)], 6),
    ],
)
def test_quorum_and_its_time(times, expected):
    verified = POLICY.verify_checkpoint(cosigned(times))
    assert verified.quorum_met == (expected is not None)
    assert verified.time == expected
    assert verified.origin == ORIGIN
    assert verified.checkpoint == HEAD
    assert dict(verified.cosigned) == {f"w{n}": min(t for m, t in times if m == n) for n, _ in times}


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 9)))
def test_quorum_time_is_the_smallest_time_at_which_the_quorum_holds(times):
    keys = [key(f"example.com/{n}", "witness").verifier.vkey for n in "abcd"]
    read = parse(
        *(f"witness {n} {k}" for n, k in zip("abcd", keys, strict=True)),
        "group left all a b",
        "group all 1 left c",
        "group top 2 all d",
        "quorum top",
    )

    def met(until):
        seen = {name for name, time in times.items() if time <= until}
        return ({"a", "b"} <= seen or "c" in seen) and "d" in seen

    assert read.quorum_time(times) == next((t for t in range(1, 10) if met(t)), None)


def test_no_quorum_asked_for():
    read = parse(LOG, W[0], "quorum none")
    verified = read.verify_checkpoint(cosigned([(0, 5)]))
    assert verified.quorum_met
    assert verified.time is None
    assert dict(verified.cosigned) == {"w0": 5}


def test_the_log_s_signature_is_mandatory():
    signed, _ = checkpoint.parse_signed(cosigned([(0, 5), (1, 6)]))
    with pytest.raises(UnknownKey):
        POLICY.verify_checkpoint(note.Note(text=signed.text, signatures=signed.signatures[1:]).to_bytes())
    # A witness's key in the log's place is no log, even under the log's name.
    imposter = note.sign(signed.text, key(ORIGIN, "statement"))
    with pytest.raises(UnknownKey):
        POLICY.verify_checkpoint(imposter.to_bytes())


def test_a_bad_line_of_a_listed_witness_rejects():
    signed, _ = checkpoint.parse_signed(cosigned([(0, 5), (1, 6)]))
    old = signed.signatures[1]
    bad = note.Signature(name=old.name, key_id=old.key_id, value=(4).to_bytes(8, "big") + old.value[8:])
    with pytest.raises(BadSignature):
        POLICY.verify_checkpoint(note.Note(text=signed.text, signatures=(*signed.signatures, bad)).to_bytes())


def test_cosignatures_of_another_checkpoint_do_not_count():
    signed, _ = checkpoint.parse_signed(cosigned([]))
    other, _ = checkpoint.parse_signed(cosigned([(0, 5)], head=Checkpoint(origin=ORIGIN, size=4, root=bytes(32))))
    with pytest.raises(BadSignature):
        POLICY.verify_checkpoint(signed.with_signature(other.signatures[1]).to_bytes())


def test_origin():
    data = cosigned([])
    assert POLICY.verify_checkpoint(data, origin=ORIGIN).origin == ORIGIN
    with pytest.raises(UnknownKey):
        POLICY.verify_checkpoint(data, origin="example.com/other")
    other = key("example.com/other", "log")
    elsewhere = cosigned([], head=Checkpoint(origin=other.name, size=3, root=bytes(32)), log_key=other)
    with pytest.raises(UnknownKey, match="lists no log"):
        POLICY.verify_checkpoint(elsewhere)
    both = parse(LOG, f"log {other.verifier.vkey}", "quorum none")
    assert both.verify_checkpoint(elsewhere).origin == other.name
    # A listed log's key is good for its own origin only.
    crossed = note.sign(checkpoint.to_text(HEAD), other).to_bytes()
    with pytest.raises(UnknownKey):
        both.verify_checkpoint(crossed)


def test_two_keys_of_one_log():
    rotated = key(ORIGIN, "statement")
    both = parse(LOG, f"log {rotated.verifier.vkey}", "quorum none")
    for signer in (LOG_KEY, rotated):
        assert both.verify_checkpoint(checkpoint.sign(HEAD, signer)).origin == ORIGIN


def test_malformed_checkpoints():
    with pytest.raises(MalformedError):
        POLICY.verify_checkpoint(b"junk")


def test_witnesses_of_both_types_make_a_quorum():
    both = parse(LOG, W[0], f"witness pq {ML_DSA.verifier.vkey}", "group g all w0 pq", "quorum g")
    signed, _ = checkpoint.parse_signed(cosigned([(0, 5)]))
    assert not both.verify_checkpoint(signed.to_bytes()).quorum_met
    complete = signed.with_signature(cosignature.sign(signed.text, ML_DSA, 9))
    verified = both.verify_checkpoint(complete.to_bytes())
    assert verified.quorum_met
    assert verified.time == 9
    # To a policy that does not list it, the line is one of nobody known.
    assert dict(POLICY.verify_checkpoint(complete.to_bytes()).cosigned) == {"w0": 5}
    bad = note.Signature(name=ML_DSA.name, key_id=ML_DSA.verifier.key_id, value=complete.signatures[-1].value[:-1])
    with pytest.raises(BadSignature):
        both.verify_checkpoint(signed.with_signature(bad).to_bytes())


def test_no_key_is_a_logs_and_a_witnesses():
    """SPEC 4.1: one key, one purpose, whatever type byte it is listed with."""
    twin = VerifierKey(name="other", use=WITNESSES[0].verifier.use, public=LOG_KEY.verifier.public)
    with pytest.raises(Schema, match="listed twice"):
        parse(LOG, f"witness w {twin.vkey}", "quorum w")
