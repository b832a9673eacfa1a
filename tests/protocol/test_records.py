import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import records
from protocol.digests import tagged
from protocol.errors import DigestMismatch, EncodingError, VerificationError
from protocol.log import merkle
from protocol.records import Opening

FEATURES = 3


def salts_for(count, name="salt"):
    rows = [np.frombuffer(records.derive_salt(b"secret", name, str(i)), np.uint8) for i in range(count)]
    return np.stack(rows) if rows else np.zeros((0, 32), np.uint8)


def data_set(subjects):
    values = np.arange(len(subjects) * FEATURES, dtype=np.int32).reshape(-1, FEATURES) - 4
    labels = np.arange(len(subjects), dtype=np.int64) % 3
    group_salts = {s: records.derive_salt(b"secret", "group", s) for s in set(subjects) if s}
    return values, labels, subjects, salts_for(len(subjects)), group_salts


def slow_root(values, labels, subjects, salts, group_salts):
    """The committed root, written down as SPEC 10.4 says it."""
    groups = {}
    for row, subject in enumerate(subjects):
        salt = group_salts[subject] if subject else salts[row].tobytes()
        groups.setdefault(tagged("group", salt, subject.encode()), []).append(row)
    leaves, entries = [], []
    for group, rows in sorted(groups.items()):
        entries.append(tagged("group-entry", group, len(leaves).to_bytes(8, "big"), len(rows).to_bytes(8, "big")))
        for row in rows:
            canonical = b"".join(int(v).to_bytes(4, "big", signed=True) for v in values[row])
            leaves.append(tagged("record", salts[row].tobytes(), canonical, int(labels[row]).to_bytes(4, "big"), group))
    both = [len(leaves).to_bytes(8, "big"), rfc6962(leaves), len(entries).to_bytes(8, "big"), rfc6962(entries)]
    return tagged("record-trees", *both)


def rfc6962(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + rfc6962(leaves[:split]) + rfc6962(leaves[split:])).digest()


subjects_of = st.lists(st.sampled_from(["", "", "ann", "bob", "zoë"]), max_size=20)


@given(subjects_of)
def test_root_is_that_of_the_specification(subjects):
    tree = records.build(*data_set(subjects))
    assert tree.root == slow_root(*data_set(subjects))
    assert sorted(tree.order.tolist()) == list(range(len(subjects)))
    assert int(tree.counts.sum()) == len(subjects)
    assert list(tree.groups) == sorted(tree.groups)


@given(subjects_of.filter(bool), st.data())
def test_every_opening_verifies(subjects, data):
    values, labels, subjects, salts, group_salts = data_set(subjects)
    tree = records.build(values, labels, subjects, salts, group_salts)
    wanted = data.draw(st.permutations(range(len(subjects))))
    openings = tree.openings(wanted, values, labels, salts)
    for index, opening in zip(wanted, openings, strict=True):
        assert opening.index == index
        assert opening.verify(tree.root, groups=len(tree.groups), count=len(subjects)) == tree.commitments[index]
        row = int(tree.order[index])
        assert np.array_equal(opening.values, values[row])
        assert opening.group_count == (subjects.count(subjects[row]) if subjects[row] else 1)
        assert tree.groups[tree.group_of(index)] == opening.group
        assert tree.starts[opening.group_index] <= index < tree.starts[opening.group_index] + opening.group_count


def flipped(value):
    return bytes([value[0] ^ 1]) + value[1:]


@st.composite
def changed(draw, opening):
    """`opening` with one field changed."""
    name = draw(st.sampled_from([f.name for f in dataclasses.fields(Opening)]))
    old = getattr(opening, name)
    if isinstance(old, int):
        new = draw(st.integers(-2, 30).filter(lambda n: n != old))
        if name == "label":
            new = abs(new) + old + 1
    elif isinstance(old, bytes):
        new = flipped(old)
    elif isinstance(old, tuple):
        ways = [(*old, b"\0" * 32), old[:-1], (flipped(old[0]), *old[1:]) if old else (b"x",), (*old, b"short")]
        new = draw(st.sampled_from(ways).filter(lambda path: path != old))
    else:
        new = old.copy()
        new[draw(st.integers(0, len(old) - 1))] += 1
    return dataclasses.replace(opening, **{name: new})


@given(subjects_of.filter(bool), st.data())
def test_any_changed_field_fails(subjects, data):
    values, labels, subjects, salts, group_salts = data_set(subjects)
    tree = records.build(values, labels, subjects, salts, group_salts)
    index = data.draw(st.integers(0, len(subjects) - 1))
    (opening,) = tree.openings([index], values, labels, salts)
    hostile = data.draw(changed(opening))
    with pytest.raises(DigestMismatch):
        hostile.verify(tree.root, groups=len(tree.groups), count=len(subjects))


@given(subjects_of.filter(bool), st.data())
def test_another_root_or_size_fails(subjects, data):
    values, labels, _, salts, group_salts = data_set(subjects)
    tree = records.build(values, labels, subjects, salts, group_salts)
    (opening,) = tree.openings([0], values, labels, salts)
    groups, count = len(tree.groups), len(subjects)
    more = data.draw(st.integers(1, 3))
    for root, sizes in [
        (flipped(tree.root), (groups, count)),
        (tree.root, (groups + more, count)),
        (tree.root, (groups, count + more)),
        (tree.root, (groups - 1, count)),
        (tree.root, (groups, count - 1)),
    ]:
        with pytest.raises(VerificationError):
            opening.verify(root, groups=sizes[0], count=sizes[1])


def test_no_index_opens_to_two_records():
    # An owner commits groups that overlap: both say that they begin at 0. Only the record whose place
    # in the tree is 0 opens as number 0, whatever its group's entry says.
    values, labels, _, salts, _ = data_set(["", ""])
    groups = [records.group_commitment(salts[row].tobytes(), "") for row in range(2)]
    leaves = [records.record_commitment(salts[r].tobytes(), values[r], int(labels[r]), groups[r]) for r in range(2)]
    entries = [records.group_entry(group, 0, 2) for group in groups]
    root = records.combined_root(merkle.root_from_leaves(leaves), 2, merkle.root_from_leaves(entries), 2)
    verified = []
    for row in range(2):
        for index in range(2):
            for path in ((merkle.leaf_hash(leaves[0]),), (merkle.leaf_hash(leaves[1]),)):
                opening = Opening(
                    index=index,
                    values=values[row],
                    label=int(labels[row]),
                    salt=salts[row].tobytes(),
                    group=groups[row],
                    group_start=0,
                    group_count=2,
                    record_path=path,
                    group_index=row,
                    group_path=(merkle.leaf_hash(entries[1 - row]),),
                )
                try:
                    opening.verify(root, groups=2, count=2)
                except DigestMismatch:
                    continue
                verified.append((index, row))
    assert verified == [(0, 0), (1, 1)]


def test_commitment_of_one_record():
    values = np.array([1, -2, 3], dtype=np.int32)
    expected = tagged("record", b"s" * 32, b"\0\0\0\1\xff\xff\xff\xfe\0\0\0\3", b"\0\0\0\7", b"g" * 32)
    assert records.record_commitment(b"s" * 32, values, 7, b"g" * 32) == expected
    assert records.record_commitment(b"s" * 32, values.astype(np.int64), 7, b"g" * 32) == expected


def test_salts_differ_by_purpose_and_identifier():
    salts = {records.derive_salt(secret, p, i) for secret in (b"a", b"b") for p in ("x", "y") for i in ("", "0", "1")}
    assert len(salts) == 12
    assert {len(salt) for salt in salts} == {32}


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=8))
def test_list_root_is_of_a_set(commitments):
    assert records.list_root(commitments) == records.list_root(commitments[::-1]) == rfc6962(sorted(commitments))


def test_openings_outside_the_tree():
    values, labels, subjects, salts, group_salts = data_set(["", "ann"])
    tree = records.build(values, labels, subjects, salts, group_salts)
    for index in (-1, 2):
        with pytest.raises(EncodingError):
            tree.openings([index], values, labels, salts)
    assert tree.openings([], values, labels, salts) == []


def test_build_refuses_what_no_opening_could_show():
    values, labels, subjects, salts, group_salts = data_set(["", "ann"])
    wide = values.astype(np.int64)
    assert records.build(wide, labels, subjects, salts, group_salts).root == slow_root(
        values, labels, subjects, salts, group_salts
    )
    wide[0, 0] = 2**31
    for arguments in [
        (values[:1], labels, subjects, salts, group_salts),
        (values, labels[:1], subjects, salts, group_salts),
        (values, labels, subjects[:1], salts, group_salts),
        (values, labels, subjects, salts[:1], group_salts),
        (values, labels, subjects, salts, {}),
        (wide, labels, subjects, salts, group_salts),
        (values, labels - 1, subjects, salts, group_salts),
        (values, labels + 2**32, subjects, salts, group_salts),
        (values, labels, ["", "\ud800"], salts, {"\ud800": b"s"}),
    ]:
        with pytest.raises(EncodingError):
            records.build(*arguments)
    with pytest.raises(EncodingError):
        records.derive_salt(b"", "x", "\ud800")
