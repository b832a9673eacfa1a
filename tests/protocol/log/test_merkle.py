import json
import time
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Consistency, EncodingError, Inclusion
from protocol.log import merkle
from tests.protocol.log.helpers import VECTORS, unbase64

LEAVES = [b"leaf %d" % i for i in range(131)]
HASHES = merkle.leaf_hashes(LEAVES)


def slow_root(leaves):
    """MTH of RFC 6962 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return sha256(b"\x01" + slow_root(leaves[:k]) + slow_root(leaves[k:])).digest()


def split(n):
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def slow_path(m, leaves):
    """PATH(m, D[n]) of RFC 6962 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*slow_path(m, leaves[:k]), slow_root(leaves[k:])]
    return [*slow_path(m - k, leaves[k:]), slow_root(leaves[:k])]


def slow_proof(m, leaves):
    """PROOF(m, D[n]) of RFC 6962 2.1.2."""

    def subproof(m, leaves, whole):
        if m == len(leaves):
            return [] if whole else [slow_root(leaves)]
        k = split(len(leaves))
        if m <= k:
            return [*subproof(m, leaves[:k], whole), slow_root(leaves[k:])]
        return [*subproof(m - k, leaves[k:], False), slow_root(leaves[:k])]

    return subproof(m, leaves, True)


def folded(values):
    total = sha256()
    for value in values:
        total.update(value)
    return total.hexdigest()


def test_roots_of_every_size_up_to_130():
    roots = [merkle.root_from_leaves(LEAVES[:n]) for n in range(131)]
    assert roots == [slow_root(LEAVES[:n]) for n in range(131)]
    # Accumulated: any change of the tree's definition, here or in the reference, shows.
    assert folded(roots) == "b71d6dfa71f627f16d57884ab54729f4db594a867e01b82a852361c4ab466287"


def test_inclusion_proofs_of_every_leaf_up_to_size_66():
    proofs = []
    for size in range(1, 67):
        root = slow_root(LEAVES[:size])
        computed = merkle.inclusion_proofs(range(size), HASHES[:size])
        for index, proof in enumerate(computed):
            assert proof == slow_path(index, LEAVES[:size])
            ranges = merkle.inclusion_ranges(index, size)
            assert proof == [slow_root(LEAVES[low:high]) for low, high in ranges]
            merkle.verify_inclusion(HASHES[index], index, size, proof, root)
            proofs += proof
    assert folded(proofs) == "db7ca8d861c45b582530104fa0214c10d3b899281ca18b2b696e1b8750b9d6ff"


def test_consistency_proofs_of_every_pair_up_to_size_66():
    proofs = []
    for size in range(1, 67):
        for old in range(1, size + 1):
            proof = merkle.consistency_proof(old, HASHES[:size])
            assert proof == slow_proof(old, LEAVES[:size])
            merkle.verify_consistency(old, slow_root(LEAVES[:old]), size, slow_root(LEAVES[:size]), proof)
            proofs += proof
    assert folded(proofs) == "122bea19513a5815ac088094ba09a35560eaf8dfd7bb7230bbd82579504014c7"


@pytest.mark.parametrize("path", sorted((VECTORS / "merkle-rfc6962/inclusion").rglob("*.json")), ids=str)
def test_inclusion_vectors(path):
    case = json.loads(path.read_bytes())
    arguments = (
        unbase64(case["leafHash"]),
        case["leafIdx"],
        case["treeSize"],
        [unbase64(value) for value in case["proof"] or []],
        unbase64(case["root"]),
    )
    if case["wantErr"]:
        with pytest.raises(Inclusion):
            merkle.verify_inclusion(*arguments)
    else:
        merkle.verify_inclusion(*arguments)


@pytest.mark.parametrize("path", sorted((VECTORS / "merkle-rfc6962/consistency").rglob("*.json")), ids=str)
def test_consistency_vectors(path):
    case = json.loads(path.read_bytes())
    arguments = (
        case["size1"],
        unbase64(case["root1"]),
        case["size2"],
        unbase64(case["root2"]),
        [unbase64(value) for value in case["proof"] or []],
    )
    if case["wantErr"]:
        with pytest.raises(Consistency):
            merkle.verify_consistency(*arguments)
    else:
        merkle.verify_consistency(*arguments)


def test_hashes_that_are_not_32_bytes():
    # A verifier that only compares accepts an empty leaf hash with an empty root at size 1.
    for leaf, root in ((b"", b""), (b"x" * 31, b"x" * 31), (b"x" * 33, b"x" * 33)):
        with pytest.raises(Inclusion):
            merkle.verify_inclusion(leaf, 0, 1, [], root)
        with pytest.raises(Consistency):
            merkle.verify_consistency(1, leaf, 1, root, [])
    # Two hashes glued into one "leaf" have the parent's hash: RFC 6962's prefixes and the length forbid it.
    pair = HASHES[0] + HASHES[1]
    with pytest.raises(Inclusion):
        merkle.verify_inclusion(pair, 0, 1, [], merkle.root_from_hashes(HASHES[:2]))
    with pytest.raises(Inclusion):
        merkle.verify_inclusion(HASHES[0], 0, 2, [b""], merkle.root_from_hashes(HASHES[:2]))
    with pytest.raises(Consistency):
        merkle.verify_consistency(1, HASHES[0], 2, merkle.root_from_hashes(HASHES[:2]), [HASHES[1][:31]])


def test_no_consistency_proof_from_the_empty_tree():
    empty = merkle.EMPTY_ROOT
    for size, root in ((0, empty), (1, HASHES[0])):
        with pytest.raises(Consistency):
            merkle.verify_consistency(0, empty, size, root, [])
        with pytest.raises(EncodingError):
            merkle.consistency_proof(0, HASHES[:size])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (0, -1), (2**63, 2**64)])
def test_indices_outside_the_tree(index, size):
    with pytest.raises(Inclusion):
        merkle.root_from_inclusion(HASHES[0], index, size, [])
    if size < 2**63:
        with pytest.raises(EncodingError):
            merkle.inclusion_ranges(index, size)
        with pytest.raises(EncodingError):
            merkle.inclusion_proof(index, HASHES[: max(size, 0)])


sizes = st.integers(1, 131)


@given(st.data())
def test_a_changed_inclusion_proof_fails(data):
    size = data.draw(sizes)
    index = data.draw(st.integers(0, size - 1))
    root = merkle.root_from_hashes(HASHES[:size])
    proof = merkle.inclusion_proof(index, HASHES[:size])
    change = data.draw(st.sampled_from(["bit", "drop", "add", "index", "swap", "leaf"]))
    leaf = HASHES[index]
    if change == "bit" and proof:
        place, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        proof[place] = (int.from_bytes(proof[place], "big") ^ 1 << bit).to_bytes(32, "big")
    elif change == "drop" and proof:
        del proof[data.draw(st.integers(0, len(proof) - 1))]
    elif change == "index" and size > 1:
        index = data.draw(st.integers(0, size - 1).filter(lambda other: other != index))
    elif change == "swap" and len(proof) > 1:
        proof[0], proof[1] = proof[1], proof[0]
    elif change == "leaf":
        leaf = merkle.leaf_hash(b"another")
    else:
        proof.insert(data.draw(st.integers(0, len(proof))), data.draw(st.sampled_from([root, leaf, bytes(32)])))
    with pytest.raises(Inclusion):
        merkle.verify_inclusion(leaf, index, size, proof, root)


@given(st.data())
def test_a_changed_consistency_proof_fails(data):
    size2 = data.draw(sizes)
    size1 = data.draw(st.integers(1, size2))
    roots = [merkle.root_from_hashes(HASHES[:size1]), merkle.root_from_hashes(HASHES[:size2])]
    proof = merkle.consistency_proof(size1, HASHES[:size2])
    change = data.draw(st.sampled_from(["bit", "drop", "add", "old", "new", "size"]))
    if change == "bit" and proof:
        place, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        proof[place] = (int.from_bytes(proof[place], "big") ^ 1 << bit).to_bytes(32, "big")
    elif change == "drop" and proof:
        del proof[data.draw(st.integers(0, len(proof) - 1))]
    elif change == "old":
        roots[0] = merkle.leaf_hash(b"another")
    elif change == "new":
        roots[1] = merkle.leaf_hash(b"another")
    elif change == "size":
        size1 = size2 + 1
    else:
        proof.insert(data.draw(st.integers(0, len(proof))), data.draw(st.sampled_from([*roots, bytes(32)])))
    with pytest.raises(Consistency):
        merkle.verify_consistency(size1, roots[0], size2, roots[1], proof)


def test_proofs_over_the_largest_trees_have_at_most_63_hashes():
    size = merkle.MAX_TREE_SIZE
    for index in (0, 1, size // 2, size - 1):
        assert len(merkle.inclusion_ranges(index, size)) <= merkle.MAX_PROOF
    with pytest.raises(Inclusion, match="short"):
        merkle.root_from_inclusion(HASHES[0], 0, size, [])


def test_range_root_of_any_aligned_range():
    def subtree(level, index):
        return slow_root(LEAVES[index << level : (index + 1) << level])

    for low, high in [(0, 1), (0, 131), (0, 64), (64, 131), (128, 131), (130, 131)]:
        assert merkle.range_root(low, high, subtree) == slow_root(LEAVES[low:high])


def test_cost_is_that_of_the_hashes():
    leaves = [b"%020d" % i for i in range(1 << 15)]

    def bare():
        for leaf in leaves:
            sha256(b"\x00" + leaf).digest()
        node = bytes(65)
        for _ in range(len(leaves) - 1):
            sha256(node[:33] + node[33:]).digest()

    def best(function):
        times = []
        for _ in range(5):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        return min(times)

    # Measured 0.8 to 1.1; the margin is for busy machines.
    assert best(lambda: merkle.root_from_leaves(leaves)) < 2.5 * best(bare)
