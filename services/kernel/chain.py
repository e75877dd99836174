"""The hash chain: the exact bytes that an entry's hash covers. docs/log.md says the same in words, for other languages."""

import struct
from functools import lru_cache
from hashlib import sha256

GENESIS = bytes(32)
DOMAIN = b"fenrun.entry.v1\x00"
_NUMBERS = struct.Struct(">QQqq")
_LENGTH = struct.Struct(">I")


def entry_hash(
    previous_hash: bytes,
    program_id: str,
    position: int,
    stream: str,
    stream_version: int,
    type_name: str,
    occurred_us: int,
    recorded_us: int,
    actor: str,
    fact: bytes,
    decision: bytes,
) -> bytes:
    """SHA-256 of an entry, 32 bytes. `previous_hash` is the hash at `position - 1`, GENESIS at position 1."""
    of, pack = stream.encode(), _LENGTH.pack
    parts = (
        DOMAIN,
        previous_hash,
        _NUMBERS.pack(position, stream_version, occurred_us, recorded_us),
        _known(program_id),
        pack(len(of)),
        of,
        _known(type_name),
        _known(actor),
        pack(len(fact)),
        fact,
        pack(len(decision)),
        decision,
    )
    return sha256(b"".join(parts)).digest()


@lru_cache(maxsize=1024)
def _known(text: str) -> bytes:
    """Of a text that comes again and again, its length and bytes."""
    found = text.encode()
    return _LENGTH.pack(len(found)) + found
