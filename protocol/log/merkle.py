"""RFC 6962 Merkle trees: roots, inclusion proofs, consistency proofs.

Proves (given SHA-256): that a leaf is at an index of the tree with a given root and size; that one
tree is a prefix of another. Assumes that the roots were authenticated elsewhere (checkpoint).
Does not read files; `tiles` and `tree` do. A consistency proof from the empty tree proves nothing
and is refused. Source: RFC 6962 2.1, RFC 9162 2.1.3.2 and 2.1.4.2 (verification). SPEC 5.9.
"""

import hashlib
from collections.abc import Callable, Sequence

from protocol.errors import Consistency, EncodingError, Inclusion

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_TREE_SIZE = 2**63 - 1
"""Largest number of leaves: what a tlog-tiles level and a signed 64-bit integer can say."""
MAX_PROOF = 63
"""Most hashes in one proof over a tree of at most `MAX_TREE_SIZE` leaves."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def leaf_hashes(leaves: Sequence[bytes]) -> list[bytes]:
    """`leaf_hash` of each, in one loop."""
    sha256 = hashlib.sha256
    return [sha256(b"\x00" + leaf).digest() for leaf in leaves]


def _above(hashes: Sequence[bytes]) -> list[bytes]:
    # One level up. RFC 6962's split at the largest power of two is the same tree as pairing from the
    # left and carrying an odd last node up unchanged; a flat loop costs little more than its hashes.
    sha256 = hashlib.sha256
    parents = [sha256(b"\x01" + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=False)]
    if len(hashes) % 2:
        parents.append(hashes[-1])
    return parents


def root_from_hashes(hashes: Sequence[bytes]) -> bytes:
    """Root of the tree over leaf *hashes* (32 bytes each), in order."""
    if not hashes:
        return EMPTY_ROOT
    while len(hashes) > 1:
        hashes = _above(hashes)
    return hashes[0]


def root_from_leaves(leaves: Sequence[bytes]) -> bytes:
    """Root of the tree over leaf *data* (each hashed here first), in order."""
    return root_from_hashes(leaf_hashes(leaves))


def levels(hashes: Sequence[bytes]) -> list[Sequence[bytes]]:
    """All nodes of the tree over leaf hashes, from the leaves up to the root; one empty level if there are none."""
    found = [hashes]
    while len(found[-1]) > 1:
        found.append(_above(found[-1]))
    return found


def inclusion_proofs(indices: Sequence[int], hashes: Sequence[bytes]) -> list[list[bytes]]:
    """Inclusion proofs for several leaves of one tree, computing the tree once.

    Args:
        indices: which leaves, from 0; any order.
        hashes: all leaf hashes, in order.

    Returns:
        One proof per index, from the leaf's sibling up.

    Raises:
        EncodingError: an index outside the tree.
    """
    return proofs_from_levels(indices, levels(hashes))


def proofs_from_levels(indices: Sequence[int], tree: Sequence[Sequence[bytes]]) -> list[list[bytes]]:
    """`inclusion_proofs`, of a tree whose `levels` are known.

    Raises:
        EncodingError: an index outside the tree.
    """
    for index in indices:
        if not 0 <= index < len(tree[0]):
            raise EncodingError(f"no leaf {index} in a tree of {len(tree[0])}")
    return [
        [level[(index >> height) ^ 1] for height, level in enumerate(tree[:-1]) if (index >> height) ^ 1 < len(level)]
        for index in indices
    ]


def inclusion_proof(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """Inclusion proof of leaf `index` among all leaf `hashes`; see `inclusion_proofs` for many."""
    return inclusion_proofs([index], hashes)[0]


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The leaf ranges whose roots are the inclusion proof, from the leaf's sibling up.

    Args:
        index: leaf, `0 <= index < size`.
        size: leaves in the tree.

    Raises:
        EncodingError: an index outside the tree.

    Source: RFC 6962 2.1.1, PATH(m, D[n]).
    """
    if not 0 <= index < size:
        raise EncodingError(f"no leaf {index} in a tree of {size}")
    low, high, ranges = 0, size, []
    while high - low > 1:
        split = low + _split(high - low)
        if index < split:
            ranges.append((split, high))
            high = split
        else:
            ranges.append((low, split))
            low = split
    return ranges[::-1]


def consistency_ranges(size1: int, size2: int) -> list[tuple[int, int]]:
    """The leaf ranges whose roots are the consistency proof from `size1` to `size2` leaves.

    Raises:
        EncodingError: unless `1 <= size1 <= size2`.

    Source: RFC 6962 2.1.2, SUBPROOF(m, D[n], b).
    """
    if not 1 <= size1 <= size2:
        raise EncodingError(f"no consistency proof from size {size1} to {size2}")
    low, high, ranges = 0, size2, []
    # The subproof descends to the place where the old tree ends. Its last subtree is left out only if
    # it is the whole old tree, whose root the verifier has (b = true): that is, if it begins at 0.
    while size1 != high:
        split = low + _split(high - low)
        if size1 <= split:
            ranges.append((split, high))
            high = split
        else:
            ranges.append((low, split))
            low = split
    if low:
        ranges.append((low, high))
    return ranges[::-1]


def consistency_proof(size1: int, hashes: Sequence[bytes]) -> list[bytes]:
    """Consistency proof from the first `size1` leaves to all of them, given all leaf hashes.

    Raises:
        EncodingError: unless `1 <= size1 <= len(hashes)`.
    """
    return [root_from_hashes(hashes[low:high]) for low, high in consistency_ranges(size1, len(hashes))]


def range_root(low: int, high: int, subtree: Callable[[int, int], bytes]) -> bytes:
    """Root over the leaves `low` to `high` (exclusive) of a larger tree, from its complete subtrees.

    Args:
        low: first leaf, aligned as all ranges of proofs are.
        high: one past the last leaf, above `low`.
        subtree: gives the root of the complete subtree number `index` of `2**level` leaves.
    """
    roots = []
    while low < high:
        level = (high - low).bit_length() - 1
        roots.append(subtree(level, low >> level))
        low += 1 << level
    root = roots.pop()
    while roots:
        root = node_hash(roots.pop(), root)
    return root


def _split(count: int) -> int:
    # Largest power of two below `count` (count > 1).
    return 1 << ((count - 1).bit_length() - 1)


def _sized(hashes: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_SIZE for value in hashes)


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to.

    Args:
        leaf: leaf hash, 32 bytes.
        index: the leaf's place, from 0.
        size: leaves in the tree.
        proof: hashes from the leaf's sibling up, 32 bytes each.

    Raises:
        Inclusion: an index outside the tree, a hash that is not 32 bytes, or a proof too short or long.

    Source: RFC 9162 2.1.3.2.
    """
    if not 0 <= index < size <= MAX_TREE_SIZE:
        raise Inclusion(f"no leaf {index} in a tree of {size}")
    if not _sized([leaf, *proof]):
        raise Inclusion("a hash that is not 32 bytes")
    place, last = index, size - 1
    root = leaf
    for sibling in proof:
        if last == 0:
            raise Inclusion("the proof is too long")
        if place & 1 or place == last:
            root = node_hash(sibling, root)
            # A last node without sibling was carried up: skip the levels where it met nobody.
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        place >>= 1
        last >>= 1
    if last != 0:
        raise Inclusion("the proof is too short")
    return root


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with this hash is number `index` of the tree with this size and root.

    Raises:
        Inclusion: it is not, or the proof has not the one right form.
    """
    if root_from_inclusion(leaf, index, size, proof) != root:
        raise Inclusion(f"leaf {index} is not in the tree of {size} with this root")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `size1` leaves is the beginning of the tree of `size2` leaves.

    Args:
        size1: leaves of the older tree, at least 1.
        root1: its root, authenticated by the caller.
        size2: leaves of the newer tree, at least `size1`.
        root2: its root, likewise.
        proof: hashes, 32 bytes each; empty between equal sizes.

    Raises:
        Consistency: it is not, or the proof has not the one right form.

    Source: RFC 9162 2.1.4.2.
    """
    if not 1 <= size1 <= size2 <= MAX_TREE_SIZE:
        # From size 0 anything would verify; the caller has to treat "nothing seen yet" as such.
        raise Consistency(f"no consistency proof leads from size {size1} to {size2}")
    if not _sized([root1, root2, *proof]):
        raise Consistency("a hash that is not 32 bytes")
    if size1 == size2:
        if proof or root1 != root2:
            raise Consistency(f"two roots or a proof that is not empty for the one size {size1}")
        return
    # The proof leaves the old root out where the old tree is one complete subtree of the new one.
    nodes = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    if not nodes:
        raise Consistency("the proof is too short")
    place, last = size1 - 1, size2 - 1
    while place & 1:
        place >>= 1
        last >>= 1
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            raise Consistency("the proof is too long")
        if place & 1 or place == last:
            old = node_hash(node, old)
            new = node_hash(node, new)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            new = node_hash(new, node)
        place >>= 1
        last >>= 1
    if last != 0:
        raise Consistency("the proof is too short")
    if (old, new) != (root1, root2):
        raise Consistency(f"the tree of {size1} is not the beginning of the tree of {size2}")
