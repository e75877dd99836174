"""One segment, looked at by itself: framing, bytes, every hash, the chain, the times; its part of the Merkle tree and of the index.

The hash is computed here from its description in docs/log.md, not by the code that made it.
"""

import mmap
import os
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

from fenrun.log.v1 import log_pb2
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from services.auditor.bundle import File, frames, hash_file
from services.auditor.verifying.index import Records, fact_key, stream_key
from services.auditor.verifying.report import Bad, Finding
from services.auditor.verifying.tree import Peaks, add_leaf

CHAIN = "hashes and chain"
OFFSETS = "offsets"
# The times that a google.protobuf.Timestamp can have.
EARLIEST_S, LATEST_S = -62_135_596_800, 253_402_300_799
_NUMBERS = Struct(">QQqq")
_LENGTH = Struct(">I")
# Facts that count once by an id which is not their stream's: which field of which message is it, and the id it is kept under.
FACT_IDS: dict[str, tuple[type[Any], str, str]] = {
    "member.enrolled.v1": (log_pb2.MemberEnrolled, "member_id", "member/"),
    "member.touched.v1": (log_pb2.MemberTouched, "touch_id", "touch/"),
    "member.upgraded.v1": (log_pb2.MemberUpgraded, "upgrade_id", "upgrade/"),
    "member.binding_corrected.v1": (log_pb2.BindingCorrected, "correction_id", "correction/"),
    "member.role_granted.v1": (log_pb2.RoleGranted, "grant_id", "role/"),
    "member.role_ended.v1": (log_pb2.RoleEnded, "grant_id", "role_end/"),
    "member.named.v1": (log_pb2.MemberNamed, "naming_id", "naming/"),
    "member.erased.v1": (log_pb2.MemberErased, "member_id", "erasure/"),
}


def micros(moment: Timestamp) -> int:
    """Microseconds since the epoch."""
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def hash_of(entry: log_pb2.Entry) -> bytes:
    """The hash that an entry must have, over all it says (docs/log.md, "The hash of an entry")."""
    numbers = _NUMBERS.pack(entry.position, entry.stream_version, micros(entry.occurred_at), micros(entry.recorded_at))
    parts = [b"fenrun.entry.v1\x00", entry.previous_hash, numbers]
    texts = (entry.program_id.encode(), entry.stream.encode(), entry.type.encode(), entry.actor.encode())
    pack = _LENGTH.pack
    for part in (*texts, entry.fact, entry.decision):
        parts.append(pack(len(part)))
        parts.append(part)
    return sha256(b"".join(parts)).digest()


@dataclass(slots=True)
class Scanned:
    """What a segment turned out to be. `finding`: the first entry in it that is not as it must be; nothing after it was looked at."""

    first_position: int
    last_position: int
    first_previous_hash: bytes = b""
    last_hash: bytes = b""
    first_recorded_us: int = 0
    last_recorded_us: int = 0
    peaks: Peaks = field(default_factory=list)
    # {tree size inside the segment: peaks of the segment up to there}
    peaks_at: dict[int, Peaks] = field(default_factory=dict)
    types: Counter[str] = field(default_factory=Counter)
    finding: Finding | None = None


def scan(bundle: Path, program_id: str, sizes: Iterable[int], work: Path, secret: bytes, segment: File) -> Scanned:
    """Reads a segment once. `sizes`: tree sizes that a checkpoint is of. Writes index records and offsets into `work`."""
    scanned = Scanned(segment.first_position, segment.last_position)
    try:
        _scan(bundle, program_id, segment, set(sizes), work, secret, scanned)
    except Bad as bad:
        scanned.finding = bad.finding
    return scanned


def _scan(bundle: Path, program_id: str, segment: File, sizes: set[int], work: Path, secret: bytes, scanned: Scanned) -> None:
    records, offsets = Records(work, secret), array("Q")
    position = segment.first_position
    last: log_pb2.Entry | None = None
    with (bundle / segment.path).open("rb") as file, _mapped(file, segment) as buffer:
        try:
            for offset, raw in frames(buffer):
                if position > segment.last_position:
                    raise Bad(_finding(position, f"{segment.path} goes on after its last position", "the end of the file", "an entry"))
                entry = parsed(raw, position)
                _check(entry, raw, position, program_id, last)
                if last is None:
                    scanned.first_previous_hash, scanned.first_recorded_us = entry.previous_hash, micros(entry.recorded_at)
                add_leaf(scanned.peaks, entry.hash)
                if position in sizes:
                    scanned.peaks_at[position] = list(scanned.peaks)
                records.add(stream_key(entry.stream), position, entry.stream_version)
                told = FACT_IDS.get(entry.type)
                if told:
                    message, name, prefix = told
                    records.add(fact_key(prefix + getattr(message.FromString(entry.fact), name)), position, 0)
                scanned.types[entry.type] += 1
                offsets.append(offset)
                last = entry
                position += 1
        except ValueError as problem:
            raise Bad(_finding(position, str(problem), "a whole entry", f"{segment.path} broken off")) from None
        except DecodeError as problem:
            raise Bad(_finding(position, f"the fact cannot be read: {problem}", "a message of its type", "other bytes")) from None
    if last is None or position <= segment.last_position:
        raise Bad(_finding(position, f"{segment.path} ends early", f"entries up to {segment.last_position}", f"the last is {position - 1}"))
    scanned.last_hash, scanned.last_recorded_us = last.hash, micros(last.recorded_at)
    records.flush()
    file_ = os.open(work / OFFSETS, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        data = offsets.tobytes()
        if os.pwrite(file_, data, (segment.first_position - 1) * offsets.itemsize) != len(data):
            raise OSError(f"no room left in {work}")
    finally:
        os.close(file_)


def _mapped(file: BinaryIO, segment: File) -> mmap.mmap:
    """Raises Bad for an empty file, which cannot be mapped."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise Bad(_finding(segment.first_position, f"{segment.path} is empty", "its entries", "nothing")) from None


def parsed(raw: bytes, position: int) -> log_pb2.Entry:
    """Raises Bad where the bytes are no entry."""
    try:
        return log_pb2.Entry.FromString(raw)
    except DecodeError as problem:
        raise Bad(_finding(position, f"the entry cannot be read: {problem}", "a fenrun.log.v1.Entry", "other bytes")) from None


def _check(entry: log_pb2.Entry, raw: bytes, position: int, program_id: str, before: log_pb2.Entry | None) -> None:
    """Raises Bad with the first thing wrong."""
    if entry.position != position:
        raise Bad(_finding(position, "positions have no gaps", f"position {position}", f"position {entry.position}"))
    if entry.program_id != program_id:
        raise Bad(_finding(position, "the entry is of another program", program_id, entry.program_id))
    if not 0 < entry.stream_version <= position:
        raise Bad(
            _finding(position, "a stream has no such version before this position", f"1 to {position}", f"version {entry.stream_version}")
        )
    for name, there, moment in (
        ("occurred_at", entry.HasField("occurred_at"), entry.occurred_at),
        ("recorded_at", entry.HasField("recorded_at"), entry.recorded_at),
    ):
        _check_time(name, there, moment, position)
    computed = hash_of(entry)
    if entry.hash != computed:
        raise Bad(_finding(position, "the hash is not that of the entry", computed.hex(), entry.hash.hex()))
    if before is not None:
        link(position, before.hash, entry.previous_hash, micros(before.recorded_at), micros(entry.recorded_at))
    # A field this version does not know would be kept, and written again.
    entry.DiscardUnknownFields()
    if entry.SerializeToString(deterministic=True) != raw:
        raise Bad(_finding(position, "the entry says more than its hash covers", "its deterministic serialization", "other bytes"))


def _check_time(name: str, there: bool, moment: Timestamp, position: int) -> None:
    """The hash covers microseconds: of the ways to write them as seconds and nanos only one is right. Raises Bad."""
    seconds, nanos = moment.seconds, moment.nanos
    if not there or nanos % 1000 or not 0 <= nanos < 1_000_000_000:
        expected = "seconds, and nanos from 0 to 999,999,000 in whole microseconds"
        raise Bad(_finding(position, f"{name} is not written as the hash covers it", expected, f"{seconds} s, {nanos} ns"))
    if not EARLIEST_S <= seconds <= LATEST_S:
        raise Bad(_finding(position, f"{name} is no time of the calendar", "the years 1 to 9999", f"{seconds} s"))


def link(position: int, before: bytes, previous: bytes, before_us: int, recorded_us: int) -> None:
    """That an entry follows the one before it. Raises Bad."""
    if before != previous:
        raise Bad(_finding(position, "the chain is broken", f"previous_hash {before.hex()}", previous.hex()))
    if recorded_us <= before_us:
        raise Bad(_finding(position, "recorded times increase strictly", f"after {before_us} µs", f"{recorded_us} µs"))


def check_file(bundle: Path, file: File) -> Finding | None:
    """A file of the manifest against its size and SHA-256."""
    path = bundle / file.path
    if not path.is_file():
        return Finding("manifest", None, f"{file.path} is missing")
    size = path.stat().st_size
    if size != file.bytes:
        return Finding("manifest", None, f"{file.path} has another size than the manifest says", f"{file.bytes} bytes", f"{size} bytes")
    digest = hash_file(path)
    if digest != file.sha256:
        return Finding("manifest", None, f"{file.path} is not what the manifest says", f"SHA-256 {file.sha256}", digest)
    return None


def _finding(position: int, problem: str, expected: str, found: str) -> Finding:
    return Finding(CHAIN, position, problem, expected, found)
