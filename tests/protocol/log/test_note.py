import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.errors import BadSignature, EncodingError, Error, MalformedError, NonCanonical, TooLarge, UnknownKey
from protocol.keys import VerifierKey, parse_vkey
from protocol.log import note
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, VECTORS, WITNESSES, key, unbase64

TEXT = b"a text\n\nwith an empty line\n"
OTHER = key("example.com/other", "log")
SIGNED = note.sign(TEXT, LOG_KEY, OTHER)
DATA = SIGNED.to_bytes()


@pytest.mark.parametrize(
    "path",
    sorted(p for p in (VECTORS / "signed-note").glob("*.json") if not p.stem.startswith("vkey-")),
    ids=lambda p: p.stem,
)
def test_vectors(path):
    case = json.loads(path.read_bytes())
    known = [parse_vkey(text) for text in case.get("vkeys", [case.get("vkey")])]
    data = case["note"].encode() if "note" in case else unbase64(case["note_base64"])
    if case["accept"]:
        parsed = note.parse(data)
        assert set(note.verify(parsed, known)) == set(known)
        assert parsed.to_bytes() == data
    else:
        with pytest.raises(Error):
            note.verify(note.parse(data), known)


def test_signed_notes_verify_and_read_back():
    assert note.parse(DATA) == SIGNED
    assert note.verify(SIGNED, [LOG_KEY.verifier]) == (LOG_KEY.verifier,)
    assert note.verify(SIGNED, [OTHER.verifier, LOG_KEY.verifier]) == (LOG_KEY.verifier, OTHER.verifier)


def test_the_text_ends_at_the_last_blank_line():
    assert note.parse(DATA).text == TEXT
    assert note.parse(note.sign(b"\n", LOG_KEY).to_bytes()).text == b"\n"
    assert note.parse(note.sign(b"x\n\n", LOG_KEY).to_bytes()).text == b"x\n\n"


@given(st.integers(0, len(DATA) * 8 - 1))
def test_a_flipped_bit_never_verifies_for_both_keys(bit):
    changed = bytearray(DATA)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        signers = note.verify(note.parse(bytes(changed)), [LOG_KEY.verifier, OTHER.verifier])
    except Error:
        return
    # Only a name or key id was hit: that line is by nobody known now; the other one still stands.
    assert len(signers) == 1


@given(st.binary(max_size=300))
@example(b"\n\n\xe2\x80\x94 a \n")
def test_any_bytes_are_a_note_or_malformed(data):
    try:
        parsed = note.parse(data)
    except MalformedError:
        return
    assert parsed.to_bytes() == data


@given(st.text("\n— abAB+/=", max_size=60))
def test_any_note_like_text_reads_back_or_is_malformed(text):
    data = text.encode() + b"\n\n\xe2\x80\x94 " + text.encode() + b"\n"
    try:
        parsed = note.parse(data)
    except MalformedError:
        return
    assert parsed.to_bytes() == data


LINE = SIGNED.signatures[0].line.decode()


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "\n",
        LINE.removesuffix("\n"),
        LINE.replace("— ", "- "),
        LINE.replace("— ", "—"),
        LINE.replace(ORIGIN, ""),
        LINE.replace(ORIGIN, "a+b"),
        LINE.replace(ORIGIN, "a\u00a0b"),
        LINE.replace("=\n", "= \n"),
        LINE.replace("=\n", "=\r\n"),
        LINE.replace("=\n", "\n"),
        f"— {ORIGIN}\n",
        f"— {ORIGIN} \n",
        f"— {ORIGIN} AAAAAA==\n",
        f"{LINE}trailing",
        f"{LINE}\n{LINE}x",
    ],
)
def test_malformed_signature_lines(tail):
    with pytest.raises(MalformedError):
        note.parse(b"text\n\n" + tail.encode())


def test_base64_of_a_signature_line_has_one_spelling():
    encoded = LINE.split(" ")[2].strip()
    assert encoded.endswith("=")
    last = encoded[-2]
    stray = next(
        c
        for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        if c != last and unbase64(encoded[:-2] + c + "=") == unbase64(encoded)
    )
    with pytest.raises(NonCanonical):
        note.parse(b"text\n\n" + LINE.replace(last + "=", stray + "=").encode())


@pytest.mark.parametrize("character", [b"\x00", b"\t", b"\r", b"\x1f", b"\x0b"])
def test_control_characters(character):
    with pytest.raises(MalformedError):
        note.parse(b"te" + character + DATA)


def test_limits_leave_room_for_sixteen_signatures():
    unknown = [key(f"unknown{i}", "log") for i in range(note.MAX_SIGNATURES - 1)]
    full = note.sign(TEXT, *unknown, LOG_KEY)
    assert note.verify(note.parse(full.to_bytes()), [LOG_KEY.verifier]) == (LOG_KEY.verifier,)
    assert len(full.signatures) == 100
    with pytest.raises(TooLarge):
        note.parse(full.to_bytes() + LINE.encode())
    with pytest.raises(TooLarge):
        note.parse(b"x" * 1_000_001)
    assert len(note.sign(b"x" * (1_000_000 - len(DATA)) + b"\n", LOG_KEY).text) > 999_000
    with pytest.raises(TooLarge):
        note.parse(DATA, limit=len(DATA) - 1)


def test_lines_of_unknown_keys_are_ignored_even_with_a_known_name_or_id():
    right = SIGNED.signatures[0]
    for other in (
        note.Signature(name=right.name, key_id=b"abcd", value=b"junk"),
        note.Signature(name="example.com/stranger", key_id=right.key_id, value=b"junk"),
    ):
        mixed = note.Note(text=TEXT, signatures=(other, right))
        assert note.verify(mixed, [LOG_KEY.verifier]) == (LOG_KEY.verifier,)
        with pytest.raises(UnknownKey):
            note.verify(note.Note(text=TEXT, signatures=(other,)), [LOG_KEY.verifier])


@pytest.mark.parametrize("value", [b"junk", bytes(64), bytes(63), bytes(65)])
def test_a_bad_line_of_a_known_key_rejects_the_note_beside_good_ones(value):
    bad = note.Signature(name=LOG_KEY.name, key_id=LOG_KEY.verifier.key_id, value=value)
    for lines in ((*SIGNED.signatures, bad), (bad, *SIGNED.signatures)):
        with pytest.raises(BadSignature):
            note.verify(note.Note(text=TEXT, signatures=lines), [LOG_KEY.verifier, OTHER.verifier])


def test_a_key_counts_once():
    twice = note.Note(text=TEXT, signatures=(SIGNED.signatures[0],) * 2)
    assert note.verify(twice, [LOG_KEY.verifier, LOG_KEY.verifier]) == (LOG_KEY.verifier,)


def test_no_keys_verify_nothing():
    with pytest.raises(UnknownKey):
        note.verify(SIGNED, [])


def test_a_new_line_replaces_the_older_one_of_the_same_key():
    replaced = SIGNED.with_signature(note.Signature(name=LOG_KEY.name, key_id=LOG_KEY.verifier.key_id, value=b"new"))
    assert [line.name for line in replaced.signatures] == [OTHER.name, LOG_KEY.name]
    assert replaced.signatures[1].value == b"new"
    kept = SIGNED.with_signature(note.Signature(name=LOG_KEY.name, key_id=b"abcd", value=b"new"))
    assert len(kept.signatures) == 3


@pytest.mark.parametrize("text", [b"", b"no newline", b"tab\t\n", b"\xff\n"])
def test_texts_that_no_note_can_have(text):
    with pytest.raises(EncodingError):
        note.sign(text, LOG_KEY)


def test_notes_that_cannot_be_written():
    with pytest.raises(EncodingError):
        note.sign(TEXT)
    with pytest.raises(EncodingError):
        note.Note(text=TEXT, signatures=(note.Signature(name="a b", key_id=b"abcd", value=b"x"),)).to_bytes()
    # A key id of another length moves the border between id and signature.
    with pytest.raises(EncodingError, match="begin"):
        note.Note(text=TEXT, signatures=(note.Signature(name="a", key_id=b"abc", value=b"xy"),)).to_bytes()


def test_witness_keys_do_not_sign_texts():
    with pytest.raises(EncodingError):
        note.sign(TEXT, WITNESSES[0])
    with pytest.raises(EncodingError):
        note.verify(SIGNED, [WITNESSES[0].verifier])


def test_two_keys_with_one_name_and_id_are_ambiguous(monkeypatch):
    monkeypatch.setattr(VerifierKey, "key_id", b"same")
    with pytest.raises(EncodingError, match="share"):
        note.by_name_and_id([LOG_KEY.verifier, key(ORIGIN, "statement").verifier])
