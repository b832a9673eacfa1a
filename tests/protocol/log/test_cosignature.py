import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadSignature, EncodingError
from protocol.keys import SigningKey
from protocol.log import checkpoint, cosignature, note
from protocol.log.checkpoint import Checkpoint
from tests.protocol.log.helpers import LOG_KEY, ML_DSA, ORIGIN, WITNESSES

TEXT = checkpoint.to_text(Checkpoint(origin=ORIGIN, size=3, root=bytes(32)))
WITNESS = WITNESSES[0]
LINE = cosignature.sign(TEXT, WITNESS, 1_679_315_147)


def test_message_is_the_one_of_the_specification():
    text = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert cosignature.message(text, 1679315147) == b"cosignature/v1\ntime 1679315147\n" + text


def test_the_specification_s_own_line_has_our_form():
    line = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0"
        "xUe+mbIUBkBIfZ+qnA==\n"
    )
    signature = note.parse(line.encode()).signatures[0]
    assert len(signature.value) == 72
    assert int.from_bytes(signature.value[:8], "big") == 1679315147


@given(st.integers(1, cosignature.MAX_TIME))
def test_signed_times_come_back(time):
    line = cosignature.sign(TEXT, WITNESS, time)
    assert line.is_by(WITNESS.verifier)
    assert cosignature.verify(line, WITNESS.verifier, TEXT) == time
    assert line.value[:8] == time.to_bytes(8, "big")


@given(st.integers(0, 72 * 8 - 1))
def test_a_flipped_bit_fails(bit):
    value = bytearray(LINE.value)
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSignature):
        cosignature.verify(
            note.Signature(name=LINE.name, key_id=LINE.key_id, value=bytes(value)), WITNESS.verifier, TEXT
        )


@pytest.mark.parametrize("value", [b"x", LINE.value[8:], LINE.value[:-1], LINE.value + b"\0"])
def test_wrong_lengths_fail(value):
    with pytest.raises(BadSignature, match="72"):
        cosignature.verify(note.Signature(name=LINE.name, key_id=LINE.key_id, value=value), WITNESS.verifier, TEXT)


@pytest.mark.parametrize("time", [0, 2**63, 2**64 - 1])
def test_times_out_of_range_fail_even_if_signed(time):
    with pytest.raises(EncodingError):
        cosignature.sign(TEXT, WITNESS, time)
    value = time.to_bytes(8, "big") + WITNESS.sign(cosignature.message(TEXT, time))
    with pytest.raises(BadSignature, match="time"):
        cosignature.verify(note.Signature(name=LINE.name, key_id=LINE.key_id, value=value), WITNESS.verifier, TEXT)


def test_a_cosignature_is_no_log_signature_nor_the_other_way_round():
    with pytest.raises(EncodingError):
        cosignature.sign(TEXT, LOG_KEY, 1)
    with pytest.raises(EncodingError):
        cosignature.verify(LINE, LOG_KEY.verifier, TEXT)
    plain = note.Signature(name=WITNESS.name, key_id=WITNESS.verifier.key_id, value=WITNESS.sign(TEXT))
    with pytest.raises(BadSignature):
        cosignature.verify(plain, WITNESS.verifier, TEXT)
    padded = note.Signature(
        name=WITNESS.name, key_id=WITNESS.verifier.key_id, value=(1).to_bytes(8, "big") + plain.value
    )
    with pytest.raises(BadSignature):
        cosignature.verify(padded, WITNESS.verifier, TEXT)


def test_another_text_or_witness_fails():
    with pytest.raises(BadSignature):
        cosignature.verify(LINE, WITNESS.verifier, TEXT.replace(b"\n3\n", b"\n4\n"))
    with pytest.raises(BadSignature):
        cosignature.verify(LINE, WITNESSES[1].verifier, TEXT)


def test_only_checkpoints_are_cosigned():
    with pytest.raises(EncodingError, match="checkpoint"):
        cosignature.sign(b"anything\n", WITNESS, 1)


def test_the_line_s_base64_holds_id_time_and_signature():
    encoded = LINE.line.decode().split(" ")[2].strip()
    assert base64.b64decode(encoded) == WITNESS.verifier.key_id + LINE.value


PQ_LINE = cosignature.sign(TEXT, ML_DSA, 1_679_315_147)


def test_the_tree_message_is_the_structure_of_the_specification():
    head = Checkpoint(origin="example.com/behind-the-sofa", size=20852163, root=bytes(range(32)), extensions=("x",))
    assert cosignature.tree_message(head, "witness.example/w1", 1679315147) == (
        b"subtree/v1\n\0"
        b"\x12witness.example/w1"
        + bytes.fromhex("00000000641850cb")
        + b"\x1bexample.com/behind-the-sofa"
        + bytes(8)
        + bytes.fromhex("00000000013e2dc3")
        + bytes(range(32))
    )


@given(st.integers(1, cosignature.MAX_TIME))
def test_ml_dsa_times_come_back(time):
    line = cosignature.sign(TEXT, ML_DSA, time)
    assert len(line.value) == 8 + 2420
    assert line.is_by(ML_DSA.verifier)
    assert cosignature.verify(line, ML_DSA.verifier, TEXT) == time


@given(st.integers(0, len(PQ_LINE.value) * 8 - 1))
def test_a_flipped_bit_fails_with_ml_dsa(bit):
    value = bytearray(PQ_LINE.value)
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSignature):
        cosignature.verify(
            note.Signature(name=ML_DSA.name, key_id=PQ_LINE.key_id, value=bytes(value)), ML_DSA.verifier, TEXT
        )


def test_ml_dsa_binds_name_origin_size_and_root_but_not_extensions():
    for old, new in ((b"\n3\n", b"\n4\n"), (b"example.com/log", b"example.com/lok"), (b"AAAA=", b"AAAE=")):
        changed = TEXT.replace(old, new)
        assert changed != TEXT
        with pytest.raises(BadSignature):
            cosignature.verify(PQ_LINE, ML_DSA.verifier, changed)
    assert cosignature.verify(PQ_LINE, ML_DSA.verifier, TEXT + b"extension\n") == 1_679_315_147
    renamed = SigningKey(name="witness.example/other", use=ML_DSA.use, seed=ML_DSA.seed).verifier
    with pytest.raises(BadSignature):
        cosignature.verify(PQ_LINE, renamed, TEXT)


def test_the_two_types_do_not_stand_for_each_other():
    assert ML_DSA.verifier.key_id != SigningKey(name=ML_DSA.name, use=WITNESS.use, seed=ML_DSA.seed).verifier.key_id
    with pytest.raises(BadSignature, match="2428"):
        cosignature.verify(LINE, ML_DSA.verifier, TEXT)
    with pytest.raises(BadSignature, match="72"):
        cosignature.verify(PQ_LINE, WITNESS.verifier, TEXT)
    with pytest.raises(BadSignature, match="time"):
        zero = note.Signature(name=ML_DSA.name, key_id=PQ_LINE.key_id, value=bytes(8) + PQ_LINE.value[8:])
        cosignature.verify(zero, ML_DSA.verifier, TEXT)


def test_origins_that_ml_dsa_cannot_speak_of():
    origin = "o" * 256
    text = checkpoint.to_text(Checkpoint(origin=origin, size=3, root=bytes(32)))
    with pytest.raises(EncodingError, match="256"):
        cosignature.sign(text, ML_DSA, 1)
    with pytest.raises(BadSignature, match="256"):
        cosignature.verify(PQ_LINE, ML_DSA.verifier, text)
    assert cosignature.verify(cosignature.sign(text, WITNESS, 1), WITNESS.verifier, text) == 1
