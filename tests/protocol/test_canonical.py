import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.canonical import MAX_DEPTH, MAX_INTEGER, Fields, parse_json, to_bytes
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge
from tests.protocol.samples import json_values, mutated, texts

LIMIT = 1 << 20


def nested(depth, inner="", *, opened="[", closed="]"):
    return (opened * depth + inner + closed * depth).encode()


@given(json_values)
def test_parse_gives_back_what_was_written(value):
    assert parse_json(to_bytes(value), limit=LIMIT, canonical=True) == value


@given(json_values, st.data())
def test_one_spelling_of_each_value(value, data):
    hostile = data.draw(mutated(to_bytes(value)))
    try:
        again = parse_json(hostile, limit=LIMIT, canonical=True)
    except MalformedError:
        return
    assert to_bytes(again) == hostile
    assert again != value or type(again) is not type(value)


@given(st.binary(max_size=60) | st.text('[]{}",:\\u0dD8cC1-.eE tnaN', max_size=40).map(str.encode))
def test_any_bytes_give_a_value_or_malformed(data):
    try:
        value = parse_json(data, limit=LIMIT)
    except MalformedError:
        return
    assert json.loads(data) == value
    assert to_bytes(value)  # whatever was read can be written: no surrogate, no float, no large integer


@given(json_values)
def test_white_space_and_escapes_are_a_second_spelling(value):
    loose = json.dumps(value, indent=1, ensure_ascii=True).encode()
    assert parse_json(loose, limit=LIMIT) == value
    if loose != to_bytes(value):
        with pytest.raises(NonCanonical):
            parse_json(loose, limit=LIMIT, canonical=True)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"a":1,"a":1}', Schema),
        (b'{"a":1,"\\u0061":2}', Schema),  # the same key after unescaping
        (b'[{"x":{"b":0,"a":1,"b":2}}]', Schema),
        (b"1.0", Schema),
        (b"1e2", Schema),
        (b"NaN", Schema),
        (b"[Infinity]", Schema),
        (b"-Infinity", Schema),
        (b"-0", NonCanonical),
        (b"-0.0", Schema),
        (b"%d" % (MAX_INTEGER + 1), Schema),
        (b"%d" % (-MAX_INTEGER - 1), Schema),
        (b"9" * 100_000, Schema),
        (b"01", MalformedError),
        (b"+1", MalformedError),
        (b"\xef\xbb\xbf{}", MalformedError),  # byte order mark
        (b"\xff\xfe{\x00}\x00", MalformedError),  # UTF-16
        (b'"\xed\xa0\x80"', MalformedError),  # a surrogate in UTF-8's place
        (b'"\xc0\x80"', MalformedError),  # overlong
        (b'"\\ud800"', Schema),
        (b'{"\\uDFFF":1}', Schema),
        (b'["\\udc00\\ud800"]', Schema),  # a pair in the wrong order
        (b'"\x00"', MalformedError),
        (b'"a', MalformedError),
        (b'"a\\', MalformedError),
        (b"{} {}", MalformedError),
        (b"", MalformedError),
        (b"{'a':1}", MalformedError),
        (b"[1,]", MalformedError),
        (b"/**/1", MalformedError),
    ],
)
def test_refused(data, error):
    with pytest.raises(error) as caught:
        parse_json(data, limit=LIMIT, where="file")
    assert caught.value.where == "file"


def test_integers_at_the_limit():
    assert parse_json(b"[%d,%d]" % (MAX_INTEGER, -MAX_INTEGER), limit=LIMIT) == [MAX_INTEGER, -MAX_INTEGER]


def test_a_surrogate_pair_is_one_character():
    assert parse_json(b'"\\ud83d\\ude00"', limit=LIMIT) == "\U0001f600"


def test_size_comes_first():
    parse_json(b"[1]", limit=3)
    with pytest.raises(TooLarge):
        parse_json(b"\xff\xff\xff\xff", limit=3)


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_depth(brackets):
    opened, closed = (brackets[0], brackets[1]) if brackets == "[]" else ('{"":', "}")
    assert parse_json(nested(MAX_DEPTH, "1", opened=opened, closed=closed), limit=LIMIT)
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(TooLarge):
            parse_json(nested(depth, "1", opened=opened, closed=closed), limit=LIMIT)
    with pytest.raises(TooLarge):
        parse_json(b"[" * 100_000, limit=LIMIT)


def test_writing_has_the_depth_limit_of_reading():
    value = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert parse_json(to_bytes(value), limit=LIMIT) == value
    for deeper in ([value], {"": value}, (value,)):
        with pytest.raises(EncodingError):
            to_bytes(deeper)
    innermost = []
    for _ in range(MAX_DEPTH):
        innermost = [innermost]
    with pytest.raises(EncodingError):
        to_bytes(innermost)


@given(st.lists(texts | st.text('[{"\\', max_size=8), max_size=40))
def test_brackets_inside_strings_are_not_depth(value):
    assert parse_json(to_bytes([*value, "[" * 40]), limit=LIMIT) == [*value, "[" * 40]


@given(st.lists(st.integers(), max_size=3))
def test_siblings_are_not_depth(value):
    data = json.dumps([[[]]] * 50 + [{"a": {}}] * 50).encode()
    assert parse_json(data, limit=LIMIT) == json.loads(data)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        2**53,
        -(2**53),
        pytest.param(10**5000, id="huge"),
        {1: 2},
        {None: 1},
        b"a",
        {1},
        "\ud800",
        {"\udfff": 1},
        object(),
    ],
)
def test_values_without_a_spelling(value):
    with pytest.raises(EncodingError):
        to_bytes([value])


def test_a_cycle_is_refused():
    value = []
    value.append(value)
    with pytest.raises(EncodingError):
        to_bytes(value)


def test_the_spelling_itself():
    assert to_bytes({"b": (1, True, None), "a": "é\n"}) == '{"a":"é\\n","b":[1,true,null]}'.encode()


def refusal(read, value, error=Schema):
    with pytest.raises(error) as caught, Fields(value, where="place") as fields:
        read(fields)
    return caught.value


def test_fields_reads_every_type():
    value = {
        "t": "x",
        "i": 3,
        "f": False,
        "h": "ab" * 32,
        "a": [1, []],
        "o": {"k": "v"},
        "e": [{"n": 1}, {"n": 2}],
        "n": None,
    }
    with Fields(value) as fields:
        assert fields.text("t", choices=("x", "y")) == "x"
        assert not fields.has("t")
        assert fields.integer("i", low=3, high=3) == 3
        assert fields.flag("f") is False
        assert fields.hex("h") == "ab" * 32
        assert fields.array("a") == [1, []]
        with fields.object("o") as inner:
            assert inner.text("k") == "v"
        assert fields.each("e", lambda each: each.integer("n")) == (1, 2)
        assert fields.has("n")
        assert fields.any("n") is None
    assert len(value) == 8  # the caller's object is not emptied


@pytest.mark.parametrize("wrong", [None, True, 1, "x", [], {}])
def test_fields_refuses_wrong_types(wrong):
    value = {"k": wrong}
    reads = {str: "text", int: "integer", bool: "flag", list: "array", dict: "object"}
    for kind, name in reads.items():
        if type(wrong) is not kind:
            refusal(lambda fields, name=name: getattr(fields, name)("k"), value)
    refusal(lambda fields: fields.hex("k"), value)
    refusal(lambda fields: fields.each("k", lambda _: None) or fields.any("more"), value)


def test_fields_refusals_name_their_place():
    assert refusal(lambda fields: fields.text("a"), {}).where == "place"
    assert "'extra'" in str(refusal(lambda _: None, {"extra": 1}))
    refusal(lambda fields: fields.text("a", longest=2), {"a": "abc"}, TooLarge)
    refusal(lambda fields: fields.text("a", choices=("b",)), {"a": "a"})
    refusal(lambda fields: fields.array("a", longest=1), {"a": [1, 2]}, TooLarge)
    refusal(lambda fields: fields.integer("a"), {"a": -1})
    refusal(lambda fields: fields.integer("a", high=4), {"a": 5})
    for bad in ("AB" * 32, "ab" * 31, "ab" * 33, "ag" * 32, "ab" * 31 + "a\n"):
        refusal(lambda fields: fields.hex("a"), {"a": bad})
    for not_object in ([], "", None, 1):
        with pytest.raises(Schema):
            Fields(not_object)
    inner = refusal(lambda fields: fields.object("a").text("b"), {"a": {}})
    assert inner.where == "place.a"
    each = refusal(lambda fields: fields.each("a", lambda one: one.text("b")), {"a": [{"b": "c"}, {}]})
    assert each.where == "place.a[1]"
    with pytest.raises(Schema) as caught, Fields({"a": [1]}) as fields:
        fields.each("a", lambda one: one)
    assert caught.value.where == "a[0]"
    with pytest.raises(Schema) as caught, Fields({"a": {"b": 1}}) as fields:
        fields.object("a").done()
    assert caught.value.where == "a"


def test_fields_name_the_place_of_errors_raised_inside():
    def read(fields):
        fields.any("a")
        raise Schema("inside")

    assert refusal(read, {"a": 1}).where == "place"
    with pytest.raises(KeyError), Fields({"a": 1}):
        raise KeyError  # not ours: passes through untouched
