"""Which entries belong to a stream or tell a fact: an index on disk, so that memory does not grow with the number of orders.

While segments are scanned, records of keys are thrown into buckets; then each bucket is sorted by itself. A record is 24 bytes: 12 of the
key's hash (keyed anew for each run, so that nobody can make two keys meet), 8 position, 4 version within the stream.
"""

import mmap
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from struct import Struct

BUCKETS = 64
_RECORD = Struct(">12sQI")
_FIRST_8 = Struct(">Q")


def stream_key(stream: str) -> bytes:
    return b"s" + stream.encode()


def fact_key(fact_id: str) -> bytes:
    return b"f" + fact_id.encode()


class Records:
    """Collects the records of one segment and appends them to the buckets: any number of processes may do so at once."""

    def __init__(self, directory: Path, secret: bytes) -> None:
        self._directory, self._secret = directory, secret
        self._buckets = [bytearray() for _ in range(BUCKETS)]

    def add(self, key: bytes, position: int, version: int) -> None:
        digest = blake2b(key, digest_size=12, key=self._secret).digest()
        self._buckets[digest[0] % BUCKETS] += _RECORD.pack(digest, position, version)

    def flush(self) -> None:
        for number, records in enumerate(self._buckets):
            if records:
                # The kernel appends each write as a whole.
                file = os.open(self._directory / f"{number}.records", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    if os.write(file, records) != len(records):
                        raise OSError(f"no room left in {self._directory}")
                finally:
                    os.close(file)


def sort_bucket(directory: Path, number: int) -> list[tuple[int, int, int]]:
    """Sorts one bucket. Gives (position, version expected, version found) of entries whose streams are not numbered 1, 2, 3, …"""
    source = directory / f"{number}.records"
    data = source.read_bytes() if source.exists() else b""
    records = sorted(data[at : at + _RECORD.size] for at in range(0, len(data), _RECORD.size))
    hashes, positions = array("Q"), array("Q")
    wrong = []
    before, count = b"", 0
    for record in records:
        digest, position, version = _RECORD.unpack(record)
        count = count + 1 if digest == before else 1
        before = digest
        if version and version != count:
            wrong.append((position, count, version))
        hashes.append(_FIRST_8.unpack_from(digest)[0])
        positions.append(position)
    with (directory / f"{number}.index").open("wb") as file:
        file.write(hashes.tobytes() + positions.tobytes())
    source.unlink(missing_ok=True)
    return wrong


class Index:
    """Looks keys up. Safe to use after a fork: files are opened when first asked."""

    def __init__(self, directory: Path, secret: bytes) -> None:
        self._directory, self._secret = directory, secret
        self._opened: dict[int, tuple[memoryview, memoryview]] = {}

    def positions(self, key: bytes, before: int) -> Iterator[int]:
        """Positions below `before` that have this key, ascending. One of another key may be among them, once in 2^64."""
        digest = blake2b(key, digest_size=12, key=self._secret).digest()
        hashes, positions = self._bucket(digest[0] % BUCKETS)
        wanted = _FIRST_8.unpack_from(digest)[0]
        at = bisect_left(hashes, wanted)
        while at < len(hashes) and hashes[at] == wanted and positions[at] < before:
            yield positions[at]
            at += 1

    def _bucket(self, number: int) -> tuple[memoryview, memoryview]:
        found = self._opened.get(number)
        if found is None:
            with (self._directory / f"{number}.index").open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size:
                    whole, half = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), size // 2
                    found = (whole[:half].cast("Q"), whole[half:].cast("Q"))
                else:
                    found = (memoryview(array("Q")), memoryview(array("Q")))
            self._opened[number] = found
        return found
