import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import claims
from protocol.claims import Argmax, ClassRemoval, Coverage, Linear, Logits, NoRedirection, Redirection, Region
from protocol.encoding import format_decimal, format_float32
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge
from tests.protocol.samples import hashes, mutated, texts
from tests.protocol.test_records import rfc6962

decimals = st.decimals(0, 1000, places=4).map(format_decimal)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False).map(np.float32)
classes = st.integers(0, 1 << 20)
whole = st.integers(0, 10**10 - 1)
regions = st.builds(Region, norm=st.sampled_from(["linf", "hamming"]), radius=whole, radius_data=decimals) | st.builds(
    Region, norm=st.just("hamming"), radius=whole, radius_data=decimals, steps=whole
)


@st.composite
def linears(draw):
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    entries = draw(st.lists(floats, min_size=rows * width, max_size=rows * width))
    least = draw(st.lists(st.decimals(-1000, 1000, places=4).map(format_decimal), min_size=rows, max_size=rows))
    return claims.linear_property(np.array(entries, np.float32).reshape(rows, width), least)


@st.composite
def redirections(draw):
    gate = draw(st.sampled_from(claims.GATES))
    return Redirection(
        record=draw(hashes),
        item=None if gate == "none" else draw(st.integers(0, claims.MAX_CLAIMS)),
        gate=gate,
        region=draw(regions),
        property=draw(
            st.builds(Argmax, klass=classes, margin=decimals)
            | st.lists(floats, min_size=1, max_size=4).map(np.array).map(claims.logits_property)
            | linears()
        ),
        target=draw(st.sampled_from(["match", "misclassify", "relabel"])),
        twins=draw(st.just(0) | st.integers(1, claims.MAX_CLAIMS)),
    )


any_claim = (
    redirections()
    | st.builds(ClassRemoval, klass=classes, margin=decimals, nonce=hashes)
    | st.builds(NoRedirection, record=hashes, reason=texts)
    | st.builds(Coverage, record=hashes, item=st.integers(0, 10**6), gate=st.sampled_from(claims.GATES[:-1]))
)
LINEAR = Redirection(
    record=b"r" * 32,
    item=4,
    gate="sketch",
    region=Region(norm="linf", radius=8, radius_data="0.0313"),
    property=Argmax(klass=3, margin="1"),
    target="misclassify",
)
LINE = claims.claim_line(LINEAR)
LOGITS = json.loads(LINE) | {"property": {"logits": ["1.25", "-3"]}}
UNGATED = {name: value for name, value in json.loads(LINE).items() if name != "item"} | {
    "gate": "none",
    "property": {"linear": [["1", "-1"], ["0.5", "1e-45"]], "atLeast": ["0.25", "-3"]},
}


def edited(base=None, **changes):
    value = {**(base or json.loads(LINE)), **changes}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@given(any_claim)
def test_round_trip(claim):
    line = claims.claim_line(claim)
    assert claims.parse_claim(line) == claim
    assert b"\n" not in line


@given(st.sampled_from([LINE, edited(LOGITS), edited(UNGATED)]).flatmap(mutated) | st.binary(max_size=30))
def test_one_spelling_of_each_claim(line):
    try:
        claim = claims.parse_claim(line)
    except MalformedError:
        return
    assert claims.claim_line(claim) == line


def test_the_spelling_itself():
    assert LINE == (
        b'{"gate":"sketch","item":4,"kind":"redirection","property":{"argmax":3,"margin":"1"},"record":"'
        + b"72" * 32
        + b'","region":{"norm":"linf","radius":"8","radiusData":"0.0313","unit":"step"},"target":"misclassify"}'
    )


@given(st.lists(floats, min_size=1, max_size=5))
def test_logits_are_bit_exact_up_to_the_sign_of_zero(values):
    row = np.array(values, dtype=np.float32)
    found = claims.logits_property(row)
    assert found.values == tuple(format_float32(value) for value in row)
    assert found.array().dtype == np.float32
    assert np.array_equal((found.array() + 0.0).view(np.uint32), (row + np.float32(0)).view(np.uint32))


REGION = json.loads(LINE)["region"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "inert"},
        {"kind": ["redirection"]},
        {"record": "72" * 31},
        {"record": "AB" * 32},
        {"item": -1},
        {"item": "4"},
        {"item": claims.MAX_CLAIMS + 1},
        {"gate": "lookup"},
        {"target": {}},
        {"more": None},
        {"property": []},
        {"property": {}},
        {"property": {"argmax": 3}},
        {"property": {"argmax": True, "margin": "1"}},
        {"property": {"argmax": (1 << 20) + 1, "margin": "1"}},
        {"property": {"argmax": 3, "margin": "-1"}},
        {"property": {"argmax": 3, "margin": 1}},
        {"property": {"argmax": 3, "margin": "1", "logits": ["1"]}},
        {"property": {"logits": []}},
        {"property": {"logits": "1"}},
        {"property": {"logits": [1]}},
        {"property": {"logits": [["1"]]}},
        {"property": {"logits": ["1e39"]}},
        {"property": {"logits": ["nan"]}},
        {"property": {"linear": [["1", "-1"]]}},
        {"property": {"atLeast": ["1"]}},
        {"property": {"linear": [["1"]], "atLeast": []}},
        {"property": {"linear": [], "atLeast": []}},
        {"property": {"linear": [[]], "atLeast": ["1"]}},
        {"property": {"linear": [["1"], ["1", "2"]], "atLeast": ["1", "1"]}},
        {"property": {"linear": [["1"], ["2"]], "atLeast": ["1"]}},
        {"property": {"linear": ["1"], "atLeast": ["1"]}},
        {"property": {"linear": [[1]], "atLeast": ["1"]}},
        {"property": {"linear": [["nan"]], "atLeast": ["1"]}},
        {"property": {"linear": [["1e39"]], "atLeast": ["1"]}},
        {"property": {"linear": [["1"]], "atLeast": [1]}},
        {"property": {"linear": [["1"]], "atLeast": ["1e9999"]}},
        {"property": {"linear": [["1"]], "atLeast": ["1"], "margin": "1"}},
        {"gate": "none"},
        {"region": None},
        {"region": {**REGION, "norm": "l2"}},
        {"region": {**REGION, "unit": "flip"}},
        {"region": {**REGION, "norm": "hamming"}},
        {"region": {**REGION, "radius": 8}},
        {"region": {**REGION, "radius": ""}},
        {"region": {**REGION, "radius": "08"}},
        {"region": {**REGION, "radius": "00"}},
        {"region": {**REGION, "radius": "-1"}},
        {"region": {**REGION, "radius": "+8"}},
        {"region": {**REGION, "radius": "8.0"}},
        {"region": {**REGION, "radius": "²"}},
        {"region": {**REGION, "radius": "٨"}},
        {"region": {**REGION, "radiusData": "-0.5"}},
        {"region": {**REGION, "radiusData": "1e9999"}},
        {"region": {**REGION, "centre": "x"}},
        {"region": {**REGION, "steps": "1"}},
        {"region": {**REGION, "norm": "hamming", "unit": "flip", "steps": "0"}},
        {"region": {**REGION, "norm": "hamming", "unit": "flip", "steps": 1}},
        {"twins": 0},
        {"twins": -1},
        {"twins": "1"},
    ],
)
def test_refused(changes):
    line = json.dumps({**json.loads(LINE), **changes}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with pytest.raises(Schema) as caught:
        claims.parse_claim(line.encode(), where="claims.jsonl:7")
    assert caught.value.where.startswith("claims.jsonl:7")


@pytest.mark.parametrize(
    "changes",
    [
        {"property": {"argmax": 3, "margin": "1.0"}},
        {"property": {"logits": ["1.10"]}},
        {"property": {"logits": ["-0"]}},
        {"property": {"linear": [["1.0"]], "atLeast": ["1"]}},
        {"property": {"linear": [["-0"]], "atLeast": ["1"]}},
        {"property": {"linear": [["1"]], "atLeast": ["1.0"]}},
    ],
)
def test_second_spellings(changes):
    with pytest.raises(NonCanonical):
        claims.parse_claim(edited(**changes))


def test_flips_beside_steps_and_twins():
    region = {"norm": "hamming", "radius": "0", "unit": "flip", "radiusData": "0.49", "steps": "3"}
    claim = claims.parse_claim(edited(region=region, twins=2))
    assert claim.region == Region(norm="hamming", radius=0, radius_data="0.49", steps=3)
    assert claim.twins == 2
    assert claims.parse_claim(LINE).twins == 0
    with pytest.raises(Schema, match="steps beside"):
        Region(norm="linf", radius=1, radius_data="0", steps=1)


def test_a_claim_without_a_gate_has_no_item_and_the_others_have_one():
    claim = claims.parse_claim(edited(UNGATED))
    assert (claim.gate, claim.item) == ("none", None)
    assert claim.property == Linear(rows=(("1", "-1"), ("0.5", "1e-45")), least=("0.25", "-3"))
    assert claim.property.matrix().tolist() == [[1.0, -1.0], [0.5, 2.0**-149]]
    for wrong in ({"gate": "sketch"}, {"item": 0}, {"item": None}):
        with pytest.raises(MalformedError):
            claims.parse_claim(edited(UNGATED, **wrong))
    for item, gate in ((None, "sketch"), (0, "none")):
        with pytest.raises(EncodingError):
            claims.claim_line(dataclasses.replace(claim, item=item, gate=gate))


def test_a_linear_property_has_at_most_so_many_rows():
    def lines(count):
        return edited(UNGATED, property={"linear": [["1"]] * count, "atLeast": ["0"] * count})

    assert len(claims.parse_claim(lines(claims.MAX_ROWS)).property.least) == claims.MAX_ROWS
    with pytest.raises(TooLarge):
        claims.parse_claim(lines(claims.MAX_ROWS + 1))
    wide = ["1"] * 10_000
    assert (
        len(claims.parse_claim(edited(UNGATED, property={"linear": [wide], "atLeast": ["0"]})).property.rows[0])
        == 10_000
    )
    with pytest.raises(TooLarge):
        claims.parse_claim(edited(UNGATED, property={"linear": [[*wide, "1"]], "atLeast": ["0"]}))


def test_other_kinds():
    removal = {"kind": "class-removal", "class": 7, "margin": "1", "nonce": "ab" * 32}
    assert claims.parse_claim(edited(removal)).klass == 7
    for changes in ({"nonce": ""}, {"margin": "-1"}, {"class": -1}, {"record": "ab" * 32}):
        with pytest.raises(Schema):
            claims.parse_claim(edited(removal, **changes))
    missing = {"kind": "no-redirection", "record": "ab" * 32, "reason": "retrained"}
    assert claims.parse_claim(edited(missing)) == NoRedirection(record=b"\xab" * 32, reason="retrained")
    with pytest.raises(TooLarge):
        claims.parse_claim(edited(missing, reason="x" * 401))


def test_ten_thousand_logits_fit_and_no_more():
    widest = format_float32(np.float32(-1.1754944e-38))
    many = edited(property={"logits": [widest] * 10_000})
    assert len(claims.parse_claim(many).property.values) == 10_000
    assert claims.claim_line(claims.parse_claim(many)) == many
    with pytest.raises(TooLarge):
        claims.parse_claim(edited(property={"logits": ["1"] * 10_001}))
    too_long = Redirection(
        record=LINEAR.record,
        item=0,
        gate="sketch",
        region=LINEAR.region,
        property=Logits(values=(widest,) * 20_000),
        target="match",
    )
    with pytest.raises(EncodingError):
        claims.claim_line(too_long)


@given(st.lists(any_claim, max_size=4))
def test_file_round_trip(listed):
    lines = [claims.claim_line(claim) for claim in listed]
    data = b"".join(line + b"\n" for line in lines)
    assert claims.split_lines(data) == tuple(lines)
    assert claims.parse_file(data) == tuple(listed)
    assert claims.root(lines) == rfc6962(lines)


@pytest.mark.parametrize("data", [LINE, b"\n", LINE + b"\n\n", b"\n" + LINE + b"\n", LINE + b"\r\n", LINE + b"\n "])
def test_files_have_one_spelling(data):
    with pytest.raises(MalformedError):
        claims.parse_file(data)


def test_errors_name_the_line():
    with pytest.raises(MalformedError) as caught:
        claims.parse_file(LINE + b"\n" + LINE + b"\n{}\n", where="mine.jsonl")
    assert caught.value.where == "mine.jsonl:3"


def test_limits(monkeypatch):
    two = LINE + b"\n" + LINE + b"\n"
    monkeypatch.setattr(claims, "MAX_CLAIMS", 1)
    with pytest.raises(TooLarge):
        claims.split_lines(two)
    monkeypatch.setattr(claims, "MAX_FILE", len(two) - 1)
    with pytest.raises(TooLarge):
        claims.split_lines(two)
