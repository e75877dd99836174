"""The Merkle tree: against RFC 6962's own definitions written out here, against a second implementation, and against adversarial proofs."""

from collections.abc import Iterator
from hashlib import sha256

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.audit.domain import merkle
from services.audit.domain.merkle import EMPTY_ROOT, Frontier, Node, ProofInvalid

# Entry hashes of a small log.
ENTRIES = [sha256(f"entry {position}".encode()).digest() for position in range(1, 65)]

# MTH, PATH and PROOF as RFC 6962 2.1, 2.1.1 and 2.1.2 define them, over lists and without a thought for cost.


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    if not d:
        return sha256().digest()
    if len(d) == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = split(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    return [*path(m, d[:k]), mth(d[k:])] if m < k else [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], whole: bool) -> list[bytes]:
    if m == len(d):
        return [] if whole else [mth(d)]
    k = split(len(d))
    if m <= k:
        return [*subproof(m, d[:k], whole), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def tree(entries: list[bytes]) -> tuple[Frontier, dict[Node, bytes]]:
    frontier, nodes = Frontier(), dict[Node, bytes]()
    for entry in entries:
        nodes.update(frontier.append(entry))
    return frontier, nodes


def inclusion(nodes: dict[Node, bytes], index: int, size: int) -> list[bytes]:
    return merkle.hashes(merkle.inclusion_parts(index, size), nodes.__getitem__)


def consistency(nodes: dict[Node, bytes], old: int, new: int) -> list[bytes]:
    return merkle.hashes(merkle.consistency_parts(old, new), nodes.__getitem__)


# Roots of the first 0 to 8 of the entries "a", "b", … "h" (one byte each), worked out once with `printf | sha256sum`, level by level.
LITERAL_ROOTS = """
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
022a6979e6dab7aa5ae4c3e5e45f7e977112a7e63593820dbec1ec738a24f93c
b137985ff484fb600db93107c77b0365c80d78f5b429ded0fd97361d077999eb
36642e73c2540ab121e3a6bf9545b0a24982cd830eb13d3cd19de3ce6c021ec1
33376a3bd63e9993708a84ddfe6c28ae58b83505dd1fed711bd924ec5a6239f0
fe14a5426fbd70c0fa73f52342afed0da0bd23c4838662ccf6b88a3070ead97b
e069fc12e231ccfd4516bf1617945fb3ccd5cc8910d92d6265289f088f777fdd
4ae191939f548d9934740b88dea2c5cb89bb8870fc4505cd79dec6bbfaaee9cb
a5dac6b1ff1dca13dcf9423dcbf1bbb4dbce7e8cbf7f4c014cf40c6c8171a2bd
"""


def test_small_trees_have_the_roots_worked_out_by_hand() -> None:
    letters = [bytes([letter]) for letter in b"abcdefgh"]
    for size, root in enumerate(LITERAL_ROOTS.split()):
        assert tree(letters[:size])[0].root().hex() == root, f"size {size}"


def test_every_root_is_the_definition_s() -> None:
    for size in range(len(ENTRIES) + 1):
        frontier, nodes = tree(ENTRIES[:size])
        assert frontier.root() == mth(ENTRIES[:size]) == merkle.root_of(size, nodes.__getitem__)


def test_a_root_of_any_earlier_size_is_read_from_the_tree_as_it_is_now() -> None:
    _, nodes = tree(ENTRIES)
    for size in range(len(ENTRIES) + 1):
        assert merkle.root_of(size, nodes.__getitem__) == mth(ENTRIES[:size])


def test_every_inclusion_proof_is_the_definition_s_and_verifies() -> None:
    _, nodes = tree(ENTRIES)
    for size in range(1, 34):
        for index in range(size):
            proof = inclusion(nodes, index, size)
            assert proof == path(index, ENTRIES[:size])
            merkle.verify_inclusion(ENTRIES[index], index, size, mth(ENTRIES[:size]), proof)


def test_every_consistency_proof_is_the_definition_s_and_verifies() -> None:
    _, nodes = tree(ENTRIES)
    for new in range(1, 34):
        for old in range(1, new + 1):
            proof = consistency(nodes, old, new)
            assert proof == subproof(old, ENTRIES[:new], True)
            merkle.verify_consistency(old, mth(ENTRIES[:old]), new, mth(ENTRIES[:new]), proof)


def test_a_frontier_goes_on_from_the_roots_it_had() -> None:
    _, nodes = tree(ENTRIES)
    for size in range(len(ENTRIES)):
        resumed = Frontier(size, [nodes[node] for node in merkle.perfect(0, size)])
        resumed.append(ENTRIES[size])
        assert resumed.root() == mth(ENTRIES[: size + 1])


def test_appending_completes_each_node_once_and_fewer_than_two_an_entry() -> None:
    frontier, seen = Frontier(), list[Node]()
    for entry in ENTRIES:
        seen += [node for node, _ in frontier.append(entry)]
    assert len(seen) == len(set(seen)) == 2 * len(ENTRIES) - 1


def test_a_proof_reads_at_most_two_nodes_a_level_however_long_the_log() -> None:
    size = 10**12 + 12_345
    for index in (0, 1, size // 3, size - 2, size - 1):
        assert len(merkle.nodes_of(merkle.inclusion_parts(index, size))) <= 2 * size.bit_length()
    for old in (1, 2, 1023, size // 3, size - 1):
        assert len(merkle.nodes_of(merkle.consistency_parts(old, size))) <= 2 * size.bit_length()


@given(size=st.integers(1, 700), data=st.data())
@settings(max_examples=60, deadline=None)
def test_roots_and_proofs_are_those_of_a_second_implementation(size: int, data: st.DataObject) -> None:
    entries = [sha256(b"%d" % number).digest() for number in range(size)]
    frontier, nodes = tree(entries)
    other = pymerkle.InmemoryTree(algorithm="sha256")
    other.append_entries(entries)
    assert other.get_root() == frontier.root()
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    theirs = other.prove_inclusion(index + 1, size)
    # Their path begins with the leaf itself.
    assert inclusion(nodes, index, size) == theirs.path[1:]
    assert merkle.root_of(old, nodes.__getitem__) == other.get_root(old)
    merkle.verify_consistency(old, other.get_root(old), size, other.get_root(), consistency(nodes, old, size))


# ---------------------------------------------------------------- adversarial proofs


def mutations(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Every single change of a proof: a node flipped, left out, repeated, put in, exchanged with its neighbour, cut short or made long."""
    other = bytes(32)
    yield [*proof, other]
    yield [other, *proof]
    for at in range(len(proof)):
        yield proof[:at] + proof[at + 1 :]
        yield [*proof[:at], proof[at], *proof[at:]]
        yield [*proof[:at], other, *proof[at:]]
        yield [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
        yield [*proof[:at], proof[at][:31], *proof[at + 1 :]]
        yield [*proof[:at], proof[at] + b"\x00", *proof[at + 1 :]]
        if at + 1 < len(proof):
            yield [*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]]
    if proof:
        yield proof[::-1] if len(proof) > 1 else []
        # Two nodes as one: the same bytes, were they joined without looking at lengths.
        yield [b"".join(proof[:2]), *proof[2:]] if len(proof) > 1 else [proof[0][:16], proof[0][16:]]


SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33]


@pytest.mark.parametrize("size", SIZES)
def test_a_changed_inclusion_proof_is_refused(size: int) -> None:
    _, nodes = tree(ENTRIES[:size])
    root = mth(ENTRIES[:size])
    for index in range(size):
        proof = inclusion(nodes, index, size)
        for changed in mutations(proof):
            with pytest.raises(ProofInvalid):
                merkle.verify_inclusion(ENTRIES[index], index, size, root, changed)
        for wrong in range(-1, size + 2):
            if wrong != index:
                with pytest.raises(ProofInvalid):
                    merkle.verify_inclusion(ENTRIES[index], wrong, size, root, proof)
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(ENTRIES[index + 1], index, size, root, proof)
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(ENTRIES[index], index, size, bytes(32), proof)


@pytest.mark.parametrize("size", SIZES)
def test_an_inclusion_proof_for_another_size_never_proves_another_root(size: int) -> None:
    """With the true root of the size that is claimed. (The size alone, beside an unchanged root, is what a signature is for.)"""
    _, nodes = tree(ENTRIES[:size])
    for index in range(size):
        proof = inclusion(nodes, index, size)
        for wrong in {0, 1, size - 1, size + 1, 2 * size} - {size}:
            with pytest.raises(ProofInvalid):
                merkle.verify_inclusion(ENTRIES[index], index, wrong, mth(ENTRIES[:wrong]), proof)


def test_nothing_is_included_in_the_empty_tree() -> None:
    for root in (EMPTY_ROOT, bytes(32)):
        with pytest.raises(ProofInvalid, match="a tree of 0 has no leaf 0"):
            merkle.verify_inclusion(ENTRIES[0], 0, 0, root, [])


def test_an_inner_node_does_not_pass_for_an_entry() -> None:
    """A second preimage: two leaves' hashes, joined, as if they were an entry. The prefixes of leaf and node tell them apart."""
    _, nodes = tree(ENTRIES[:4])
    joined = nodes[Node(0, 0)] + nodes[Node(0, 1)]
    with pytest.raises(ProofInvalid):
        merkle.verify_inclusion(joined, 0, 2, mth(ENTRIES[:4]), [nodes[Node(1, 1)]])
    with pytest.raises(ProofInvalid):
        merkle.verify_inclusion(nodes[Node(1, 0)], 0, 2, mth(ENTRIES[:4]), [nodes[Node(1, 1)]])


@pytest.mark.parametrize("new", SIZES)
def test_a_changed_consistency_proof_is_refused(new: int) -> None:
    _, nodes = tree(ENTRIES[:new])
    for old in range(1, new + 1):
        proof = consistency(nodes, old, new)
        roots = mth(ENTRIES[:old]), mth(ENTRIES[:new])
        for changed in mutations(proof):
            with pytest.raises(ProofInvalid):
                merkle.verify_consistency(old, roots[0], new, roots[1], changed)
        for wrong in range(-1, new + 2):
            if wrong not in (0, old):
                with pytest.raises(ProofInvalid):
                    merkle.verify_consistency(wrong, mth(ENTRIES[: max(wrong, 0)]), new, roots[1], proof)
        for wrong in range(old - 1, new + 3):
            if wrong != new:
                with pytest.raises(ProofInvalid):
                    merkle.verify_consistency(old, roots[0], wrong, mth(ENTRIES[: max(wrong, 0)]), proof)
        for wrong_roots in ((bytes(32), roots[1]), (roots[0], bytes(32)), *([roots[::-1]] if old < new else [])):
            with pytest.raises(ProofInvalid):
                merkle.verify_consistency(old, wrong_roots[0], new, wrong_roots[1], proof)


@pytest.mark.parametrize("size", SIZES)
def test_a_history_that_was_changed_anywhere_is_inconsistent_with_the_tree_before(size: int) -> None:
    """Whoever rewrites an entry and everything after it can give honest proofs of their own tree: none leads to the root kept elsewhere."""
    kept = mth(ENTRIES[:size])
    for changed in range(size):
        forged = [*ENTRIES[:changed], sha256(b"forged").digest(), *ENTRIES[changed + 1 : 40]]
        frontier, nodes = tree(forged)
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(size, kept, len(forged), frontier.root(), consistency(nodes, size, len(forged)))


def test_every_tree_follows_the_empty_one_and_needs_no_proof() -> None:
    merkle.verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    merkle.verify_consistency(0, EMPTY_ROOT, 3, mth(ENTRIES[:3]), [])
    with pytest.raises(ProofInvalid, match="must be empty"):
        merkle.verify_consistency(0, EMPTY_ROOT, 3, mth(ENTRIES[:3]), [ENTRIES[0]])
    with pytest.raises(ProofInvalid, match="not the root of the empty tree"):
        merkle.verify_consistency(0, ENTRIES[0], 3, mth(ENTRIES[:3]), [])
    with pytest.raises(ProofInvalid, match="not the root of the empty tree"):
        merkle.verify_consistency(0, EMPTY_ROOT, 0, ENTRIES[0], [])
