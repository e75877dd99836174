"""The root of a Merkle tree over entry hashes, as RFC 6962 section 2.1 defines it; written from that text, apart from the server's."""

from hashlib import sha256

# Complete subtrees that stand side by side, the largest first: (height, root).
Peaks = list[tuple[int, bytes]]


def add(peaks: Peaks, height: int, root: bytes) -> None:
    """Takes in the next complete subtree of 2^height leaves; none that stands there already may be smaller."""
    while peaks and peaks[-1][0] == height:
        _, left = peaks.pop()
        root = sha256(b"\x01" + left + root).digest()
        height += 1
    peaks.append((height, root))


def add_leaf(peaks: Peaks, entry_hash: bytes) -> None:
    """Takes in the next leaf."""
    add(peaks, 0, sha256(b"\x00" + entry_hash).digest())


def root_of(peaks: Peaks) -> bytes:
    """The root of the whole tree, 32 bytes."""
    if not peaks:
        return sha256(b"").digest()
    root = peaks[-1][1]
    for _, left in reversed(peaks[:-1]):
        root = sha256(b"\x01" + left + root).digest()
    return root
