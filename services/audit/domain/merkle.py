"""The Merkle tree of RFC 6962 over entry hashes: hashing, appending, proofs, and checking them.

Leaf i (from 0) is the entry at position i + 1. A node is the root of a perfect subtree: once its last leaf is there it never changes, so
nodes are only ever added. The root of every size and every proof is folded from at most two nodes a level.

Everything here is pure; where nodes come from is the caller's.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

HASH_BYTES = 32
# MTH({}) of RFC 6962 2.1: the hash of nothing.
EMPTY_ROOT = sha256(b"").digest()


class Node(NamedTuple):
    """The perfect subtree over the leaves [number << level, (number + 1) << level)."""

    level: int
    number: int


# The perfect subtrees that make up a range of leaves, from the left. The range's hash is folded from their hashes.
Part = tuple[Node, ...]
Read = Callable[[Node], bytes]


class ProofInvalid(Exception):
    """A proof does not prove what it was given for; `str()` says why."""


def leaf_hash(entry_hash: bytes) -> bytes:
    """SHA-256(0x00 || entry hash); RFC 6962 2.1."""
    return sha256(b"\x00" + entry_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right); RFC 6962 2.1."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a tree: the roots of the perfect subtrees that its leaves make up, largest first.

    `roots` are those of `perfect(0, size)`, in that order. Appending hashes one leaf and, on average, one node.
    """

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        assert len(roots) == size.bit_count(), f"{len(roots)} roots given for a tree of {size}"
        self.size = size
        self._roots = list(roots)

    def append(self, entry_hash: bytes) -> list[tuple[Node, bytes]]:
        """Adds a leaf and gives the nodes that it completes, the leaf first."""
        node, value = Node(0, self.size), leaf_hash(entry_hash)
        completed = [(node, value)]
        while node.number & 1:
            node, value = Node(node.level + 1, node.number >> 1), node_hash(self._roots.pop(), value)
            completed.append((node, value))
        self._roots.append(value)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """MTH of the leaves so far, RFC 6962 2.1; EMPTY_ROOT without any."""
        return _fold(self._roots) if self._roots else EMPTY_ROOT


def root_over(entry_hashes: Iterable[bytes]) -> bytes:
    """MTH of these entries; of as many as a perfect subtree has leaves, its node."""
    frontier = Frontier()
    for entry_hash in entry_hashes:
        frontier.append(entry_hash)
    return frontier.root()


def leaves_of(node: Node) -> range:
    """The leaves of a perfect subtree."""
    return range(node.number << node.level, (node.number + 1) << node.level)


def perfect(start: int, end: int) -> Part:
    """The perfect subtrees over the leaves [start, end), from the left.

    `start` is a multiple of the largest power of two not above end - start, as everywhere in a tree of RFC 6962.
    """
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        assert start % (1 << level) == 0, f"no subtree of 2^{level} leaves begins at {start}"
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return tuple(nodes)


def inclusion_parts(index: int, size: int) -> list[Part]:
    """What PATH(index, D[size]) of RFC 6962 2.1.1 hashes, nearest the leaf first. Needs 0 <= index < size."""
    assert 0 <= index < size
    parts, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            parts.append(perfect(middle, end))
            end = middle
        else:
            parts.append(perfect(start, middle))
            start = middle
    return parts[::-1]


def consistency_parts(old: int, new: int) -> list[Part]:
    """What PROOF(old, D[new]) of RFC 6962 2.1.2 hashes, in its order. Needs 0 <= old <= new; nothing to prove from 0 or to itself."""
    assert 0 <= old <= new
    if old in (0, new):
        return []
    parts, start, end = [], 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            parts.append(perfect(middle, end))
            end = middle
        else:
            parts.append(perfect(start, middle))
            start = middle
    # A subtree that begins with the first leaf is the old tree itself, whose root the verifier has.
    if start > 0:
        parts.append(perfect(start, end))
    return parts[::-1]


def nodes_of(parts: Iterable[Part]) -> list[Node]:
    """All nodes that `hashes` will read for these parts, to be fetched in one go."""
    return [node for part in parts for node in part]


def hashes(parts: Iterable[Part], read: Read) -> list[bytes]:
    """The hash of each part: a proof, given its parts."""
    return [_fold([read(node) for node in part]) for part in parts]


def root_of(size: int, read: Read) -> bytes:
    """The root of the tree as it was with `size` leaves, from the nodes `perfect(0, size)`."""
    return hashes([perfect(0, size)], read)[0] if size else EMPTY_ROOT


def verify_inclusion(entry_hash: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Checks that the entry is leaf `index` of the tree with this size and root; RFC 9162 2.1.3.2. Raises ProofInvalid."""
    if not 0 <= index < size:
        raise ProofInvalid(f"a tree of {size} has no leaf {index}")
    _check_hashes(proof, entry_hash, root)
    place, last, value = index, size - 1, leaf_hash(entry_hash)
    for sibling in proof:
        if last == 0:
            raise ProofInvalid(f"the inclusion proof is longer than that of leaf {index} in a tree of {size}")
        if place & 1 or place == last:
            value = node_hash(sibling, value)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise ProofInvalid(f"the inclusion proof is shorter than that of leaf {index} in a tree of {size}")
    if value != root:
        raise ProofInvalid(f"the inclusion proof of leaf {index} leads to the root {value.hex()}, not {root.hex()}")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Checks that the first `old` leaves of the tree with `new` are the old tree; RFC 9162 2.1.4.2. Raises ProofInvalid.

    Two trees of one size are consistent if their roots are the same; every tree is consistent with the empty one. Both need no proof.
    """
    if not 0 <= old <= new:
        raise ProofInvalid(f"a tree of {new} cannot follow one of {old}")
    _check_hashes(proof, old_root, new_root)
    for size, root in ((old, old_root), (new, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise ProofInvalid(f"{root.hex()} is not the root of the empty tree")
    if old in (0, new):
        if proof:
            raise ProofInvalid(f"the consistency proof from {old} to {new} must be empty")
        if old == new and old_root != new_root:
            raise ProofInvalid(f"two roots of size {new}: {old_root.hex()} and {new_root.hex()}")
        return
    path = [old_root, *proof] if old.bit_count() == 1 else list(proof)
    if not path or not proof:
        raise ProofInvalid(f"the consistency proof from {old} to {new} is empty")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_value = new_value = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofInvalid(f"the consistency proof from {old} to {new} is too long")
        if place & 1 or place == last:
            old_value, new_value = node_hash(sibling, old_value), node_hash(sibling, new_value)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new_value = node_hash(new_value, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise ProofInvalid(f"the consistency proof from {old} to {new} is too short")
    if old_value != old_root:
        raise ProofInvalid(f"the consistency proof leads to the root {old_value.hex()} of size {old}, not {old_root.hex()}")
    if new_value != new_root:
        raise ProofInvalid(f"the consistency proof leads to the root {new_value.hex()} of size {new}, not {new_root.hex()}")


def _split(width: int) -> int:
    """The largest power of two below `width` (at least 2): where RFC 6962 2.1 splits a list of that many."""
    return 1 << (width - 1).bit_length() - 1


def _fold(roots: Sequence[bytes]) -> bytes:
    """The hash of a range from those of its perfect subtrees, from the left: the last two are joined first."""
    value = roots[-1]
    for left in roots[-2::-1]:
        value = node_hash(left, value)
    return value


def _check_hashes(proof: Sequence[bytes], *others: bytes) -> None:
    for value in (*proof, *others):
        if len(value) != HASH_BYTES:
            raise ProofInvalid(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
