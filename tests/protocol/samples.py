"""Fixed keys and hypothesis strategies for the protocol's values."""

import hashlib

from hypothesis import strategies as st

from protocol.keys import USES, SigningKey

OWNER, AUDITOR, REQUESTER, STRANGER = (
    SigningKey(name=f"example.com/{name}", use=USES["statement"], seed=hashlib.sha256(name.encode()).digest())
    for name in ("owner", "auditor", "requester", "stranger")
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
hexes = st.binary(min_size=32, max_size=32).map(bytes.hex)
hashes = st.binary(min_size=32, max_size=32)
times = st.integers(-62135596800, 253402300799)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw, data):
    """`data` with one byte changed, dropped, added, or a piece repeated: never equal to it."""
    place = draw(st.integers(0, len(data) - 1))
    kind = draw(st.sampled_from(["change", "drop", "add", "repeat", "cut"]))
    if kind == "change":
        return data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :]
    if kind == "drop":
        return data[:place] + data[place + 1 :]
    if kind == "add":
        return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place:]
    end = draw(st.integers(place + 1, len(data)))
    return data[:end] + data[place:end] + data[end:] if kind == "repeat" else data[:place]
