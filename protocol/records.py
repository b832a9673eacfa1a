"""Salted commitments to training records, in a tree of records and a tree of their subjects' groups.

Proves (`Opening.verify`): a record, with its label and its subject's group, is the one at that index
of the committed training set; no other record can be. Hiding rests on the salts: 32 bytes each,
derived by HMAC from the owner's secret and a stable record id, so that a monitor can see a record
return in a later commitment (SPEC 10.2). Nothing here says that the committed data is what was
trained on, nor that a group holds all records of its subject: the subject's slip can.

The two trees (SPEC 10.4), both RFC 6962: one over all record commitments, records of one subject
side by side; one over group entries (group commitment, index of its first record, count), a record
without a subject being a group of its own. The committed root is a hash over both roots and sizes.
A record's place in its tree *is* its index: with sub-trees that only *say* where they begin, an
owner could commit two records to one index and choose between them when challenged.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer, UInt8

from protocol.digests import tagged, tagged_rows
from protocol.errors import DigestMismatch, EncodingError, Inclusion
from protocol.log import merkle

NO_SUBJECT = ""
_MAX_LABEL = (1 << 32) - 1
_TOGETHER = 4096


def derive_salt(secret: bytes, purpose: str, identifier: str) -> bytes:
    """32 bytes: HMAC-SHA-256 of a stable identifier under the owner's commitment secret.

    Raises:
        EncodingError: an identifier that UTF-8 cannot spell.
    """
    return hmac.digest(secret, f"prune-audit/{purpose}/v1\0".encode() + _utf8(identifier), "sha256")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise EncodingError("a subject or identifier holds a lone surrogate, which UTF-8 cannot spell") from None


def group_commitment(salt: bytes, subject: str) -> bytes:
    """Commitment to a subject's identity; `subject` is empty for a record that has none.

    Raises:
        EncodingError: a subject that UTF-8 cannot spell.
    """
    return tagged("group", salt, _utf8(subject))


def record_commitment(salt: bytes, values: Int[np.ndarray, "feature"], label: int, group: bytes) -> bytes:
    """Commitment to one record.

    Args:
        salt: 32 bytes.
        values: the canonical record: integers on the input schema's grid.
        label: class index, 0 or more.
        group: the group's commitment.
    """
    return tagged("record", salt, values.astype(">i4").tobytes(), label.to_bytes(4, "big"), group)


def group_entry(group: bytes, start: int, count: int) -> bytes:
    """The bytes of a leaf of the group tree: `count` records from index `start` on are the group's."""
    return tagged("group-entry", group, start.to_bytes(8, "big"), count.to_bytes(8, "big"))


def combined_root(record_root: bytes, count: int, group_root: bytes, groups: int) -> bytes:
    """The committed root: over the roots of both trees and their sizes."""
    return tagged("record-trees", count.to_bytes(8, "big"), record_root, groups.to_bytes(8, "big"), group_root)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opening:
    """What opens one record: everything that its commitment hides, and its and its group's way up the trees.

    Compared by identity: equality of arrays is no truth value.
    """

    index: int
    values: Int[np.ndarray, "feature"]
    label: int
    salt: bytes
    group: bytes
    group_start: int
    group_count: int
    record_path: tuple[bytes, ...]
    group_index: int
    group_path: tuple[bytes, ...]

    @property
    def commitment(self) -> bytes:
        """The record commitment that this opening recomputes."""
        return record_commitment(self.salt, self.values, self.label, self.group)

    def verify(self, root: bytes, *, groups: int, count: int) -> bytes:
        """Check the way to the committed root; return the record commitment.

        Args:
            root: the committed root, 32 bytes.
            groups: committed number of groups.
            count: committed number of records.

        Raises:
            DigestMismatch: this is not the record at `index` under `root`.
        """
        where = f"record {self.index}"
        position = self.index - self.group_start
        if self.group_start < 0 or not 0 <= position < self.group_count or self.group_start + self.group_count > count:
            raise DigestMismatch("the index lies outside its group", where=where)
        commitment = self.commitment
        entry = group_entry(self.group, self.group_start, self.group_count)
        try:
            record_root = merkle.root_from_inclusion(merkle.leaf_hash(commitment), self.index, count, self.record_path)
            group_root = merkle.root_from_inclusion(merkle.leaf_hash(entry), self.group_index, groups, self.group_path)
        except Inclusion:
            raise DigestMismatch("does not open the commitment: a path of another tree", where=where) from None
        if combined_root(record_root, count, group_root, groups) != root:
            raise DigestMismatch("does not open the commitment", where=where)
        return commitment


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordTree:
    """Both trees, as their owner holds it. `order[i]` is the data set's row of committed record i.

    `record_levels` and `group_levels` are all nodes of both, from the leaves up.
    """

    order: Int[np.ndarray, "record"]
    commitments: tuple[bytes, ...]
    groups: tuple[bytes, ...]
    starts: Int[np.ndarray, "group"]
    counts: Int[np.ndarray, "group"]
    record_levels: Sequence[Sequence[bytes]]
    group_levels: Sequence[Sequence[bytes]]
    root: bytes

    def group_of(self, index: int) -> int:
        """The group that committed record `index` is in."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def openings(
        self,
        indices: Sequence[int],
        values: Integer[np.ndarray, "record feature"],
        labels: Int[np.ndarray, "record"],
        salts: UInt8[np.ndarray, "record 32"],
    ) -> list[Opening]:
        """Open the committed records at `indices`; the arrays are in the data set's order.

        Raises:
            EncodingError: an index outside the tree.
        """
        record_paths = merkle.proofs_from_levels(indices, self.record_levels)
        groups = [self.group_of(index) for index in indices]
        group_paths = merkle.proofs_from_levels(groups, self.group_levels)
        result = []
        for index, group, record_path, group_path in zip(indices, groups, record_paths, group_paths, strict=True):
            row = int(self.order[index])
            result.append(
                Opening(
                    index=int(index),
                    values=values[row].astype(np.int32, copy=False),
                    label=int(labels[row]),
                    salt=salts[row].tobytes(),
                    group=self.groups[group],
                    group_start=int(self.starts[group]),
                    group_count=int(self.counts[group]),
                    record_path=tuple(record_path),
                    group_index=group,
                    group_path=tuple(group_path),
                )
            )
        return result


def build(
    values: Integer[np.ndarray, "record feature"],
    labels: Int[np.ndarray, "record"],
    subjects: Sequence[str],
    salts: UInt8[np.ndarray, "record 32"],
    group_salts: dict[str, bytes],
) -> RecordTree:
    """Commit to a data set.

    Args:
        values: canonical records, each value within int32.
        labels: class indices, 0 to 2^32 - 1.
        subjects: each record's subject, empty for none.
        salts: each record's salt.
        group_salts: salt of each non-empty subject's group. A group without a subject takes its
            record's salt, which is secret and unique as well.

    Raises:
        EncodingError: the arguments' lengths differ, a salt is missing, or a value is out of range.
    """
    total = len(values)
    if not total == len(labels) == len(subjects) == len(salts):
        raise EncodingError("values, labels, subjects and salts have different lengths")
    if not np.can_cast(values.dtype, np.int32) and not np.array_equal(values.astype(np.int32), values):
        raise EncodingError("a value of a canonical record is outside int32")
    if total and (int(labels.min()) < 0 or int(labels.max()) > _MAX_LABEL):
        raise EncodingError(f"a label is outside 0..{_MAX_LABEL}")
    if missing := set(subjects) - set(group_salts) - {NO_SUBJECT}:
        raise EncodingError(f"{len(missing)} subjects have no group salt")
    group_of_row = _groups(subjects, salts, group_salts)
    # Sorted by salted commitment: a pseudo-random order that tells nothing about the subjects. Of one group in the
    # data set's order. All have 32 bytes, so that the zeros which numpy takes off the end make no two alike.
    keys = np.frombuffer(b"".join(group_of_row), "S32")
    order = np.argsort(keys, kind="stable").astype(np.int64)
    begins = np.ones(total, dtype=bool)
    begins[1:] = keys[order[1:]] != keys[order[:-1]]
    starts = np.flatnonzero(begins)
    counts = np.diff(starts, append=total)
    groups = [group_of_row[row] for row in order[starts].tolist()]
    of_record: list[bytes] = []
    for start in range(0, total, _TOGETHER):
        part = slice(start, start + _TOGETHER)
        block = np.ascontiguousarray(values[part], dtype=">i4").view(np.uint8).reshape(len(salts[part]), -1)
        of_record += tagged_rows(
            "record", salts[part], block, _big_endian(labels[part], 4), _matrix(group_of_row[part])
        )
    commitments = tuple(of_record[row] for row in order.tolist())
    entries = tagged_rows("group-entry", _matrix(groups), _big_endian(starts, 8), _big_endian(counts, 8))
    record_levels = merkle.levels(merkle.leaf_hashes(commitments))
    group_levels = merkle.levels(merkle.leaf_hashes(entries))
    roots = [tree[-1][0] if tree[0] else merkle.EMPTY_ROOT for tree in (record_levels, group_levels)]
    return RecordTree(
        order=order,
        commitments=commitments,
        groups=tuple(groups),
        starts=starts,
        counts=counts,
        record_levels=record_levels,
        group_levels=group_levels,
        root=combined_root(roots[0], total, roots[1], len(entries)),
    )


def _groups(subjects: Sequence[str], salts: UInt8[np.ndarray, "record 32"], known: dict[str, bytes]) -> list[bytes]:
    # Each record's group; of one subject all records', and of a record without subject its own.
    found = [b""] * len(subjects)
    alone = [row for row, subject in enumerate(subjects) if not subject]
    nobody = np.zeros((len(alone), 0), np.uint8)
    for row, group in zip(alone, tagged_rows("group", salts[alone], nobody), strict=True):
        found[row] = group
    named = {subject: group_commitment(known[subject], subject) for subject in set(subjects) if subject}
    return [named[subject] if subject else group for subject, group in zip(subjects, found, strict=True)]


def _matrix(digests: Sequence[bytes]) -> UInt8[np.ndarray, "digest 32"]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), 32)


def _big_endian(numbers: Integer[np.ndarray, "row"], size: int) -> UInt8[np.ndarray, "row size"]:
    return numbers.astype(f">u{size}").view(np.uint8).reshape(len(numbers), size)


def list_root(commitments: Sequence[bytes]) -> bytes:
    """RFC 6962 root over a request's record commitments, sorted: a set has one spelling (none may occur twice)."""
    return merkle.root_from_leaves(sorted(commitments))
