"""The bundle as the past that a decision looks at: entries by position and by stream, read from the segments when they are asked for."""

import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from fenrun.log.v1 import log_pb2

from services.auditor.bundle import Manifest, frame_at, segment_path
from services.auditor.verifying.index import Index, fact_key, stream_key
from services.auditor.verifying.scanning import OFFSETS
from services.kernel.decider import Entry
from services.ledger import codec as ledger_codec
from services.ledger.domain.books import Books
from services.referral import codec as referral_codec
from services.referral.domain.roster import Roster
from services.runtime.stored import Stored, microseconds

# Entries read at a time.
ROWS_READ = 250
# Streams kept decoded. Most orders are asked for once or twice, some soon after they were paid; groups and closed periods again and again.
STREAMS_KEPT = 2000


class History:
    """Random access to entries whose hashes were checked. Maps of segments are the page cache's memory, not ours."""

    def __init__(self, bundle: Path, manifest: Manifest, work: Path, secret: bytes) -> None:
        self._bundle, self._size, self.entries = bundle, manifest.segment_entries, manifest.entries
        self._index = Index(work, secret)
        with (work / OFFSETS).open("rb") as file:
            self._offsets = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).cast("Q")
        self._segments: dict[int, mmap.mmap] = {}

    def entry(self, position: int) -> log_pb2.Entry:
        buffer = self._segment((position - 1) // self._size)
        start, end = frame_at(buffer, self._offsets[position - 1])
        return log_pb2.Entry.FromString(buffer[start:end])

    def read(self, first: int, last: int) -> Iterator[log_pb2.Entry]:
        """The entries of some positions, both included."""
        parse = log_pb2.Entry.FromString
        position = first
        while position <= last:
            number = (position - 1) // self._size
            buffer, offset = self._segment(number), self._offsets[position - 1]
            upto = min(last, (number + 1) * self._size)
            while position <= upto:
                start, offset = frame_at(buffer, offset)
                yield parse(buffer[start:offset])
                position += 1

    def rows(self, first: int, last: int) -> Iterator[Stored]:
        """As `read`, as the codecs take them; some are read at a time, for by turns with other work it would take longer."""
        entries = self.read(first, last)
        while rows := [stored(entry) for entry in islice(entries, ROWS_READ)]:
            yield from rows

    def stream(self, stream: str, before: int) -> list[log_pb2.Entry]:
        """What stands in a stream before a position, oldest first."""
        found = (self.entry(position) for position in self._index.positions(stream_key(stream), before))
        return [entry for entry in found if entry.stream == stream]

    def has_stream(self, stream: str, before: int) -> bool:
        return any(self.entry(position).stream == stream for position in self._index.positions(stream_key(stream), before))

    def facts(self, fact_id: str, before: int) -> list[log_pb2.Entry]:
        """The entries before a position that told a fact of the referral service."""
        return [self.entry(position) for position in self._index.positions(fact_key(fact_id), before)]

    def _segment(self, number: int) -> mmap.mmap:
        found = self._segments.get(number)
        if found is None:
            file = os.open(self._bundle / segment_path(number + 1), os.O_RDONLY)
            try:
                found = self._segments[number] = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
            finally:
                os.close(file)
        return found


def stored(entry: log_pb2.Entry) -> Stored:
    """As the codecs take it."""
    occurred_us, recorded_us = microseconds(entry.occurred_at), microseconds(entry.recorded_at)
    return Stored(
        entry.program_id,
        entry.position,
        entry.stream,
        entry.stream_version,
        entry.type,
        None,
        occurred_us,
        recorded_us,
        entry.actor,
        entry.fact,
        entry.decision,
        entry.hash,
    )


class _Nothing(dict[Any, Any]):
    """A mapping that keeps nothing: what would grow with the log is looked up in the history instead."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


class BundleBooks(Books):
    """Complete books whose streams stand in the bundle. What is due is not kept: each release is decided from its own source's stream."""

    __slots__ = ("_history", "_kept", "fresh")

    def __init__(self, history: History) -> None:
        super().__init__(streams=_Nothing(), due=_Nothing())
        self._history = history
        # A stream known to be empty: that of an entry whose version is 1, and versions have been checked.
        self.fresh = ""
        self._kept: OrderedDict[str, list[Entry]] = OrderedDict()

    def stream(self, stream: str) -> list[Entry]:
        if stream == self.fresh:
            return []
        found = self._kept.get(stream)
        if found is None:
            found = [ledger_codec.read(stored(entry)) for entry in self._history.stream(stream, self.position + 1)]
            self._keep(stream, found)
        else:
            self._kept.move_to_end(stream)
        return found

    def grew(self, entry: Entry, whole: bool) -> None:
        """Keeps a stream that was looked at, or has just begun, up to date. Every entry evolved must come through here once somebody may
        ask for streams. `whole`: nothing of it was left out when it was read."""
        kept = self._kept.get(entry.stream)
        if kept is not None:
            kept.append(entry)
        elif whole and entry.stream_version == 1:
            self._keep(entry.stream, [entry])

    def _keep(self, stream: str, entries: list[Entry]) -> None:
        self._kept[stream] = entries
        if len(self._kept) > STREAMS_KEPT:
            self._kept.popitem(last=False)


class BundleRoster(Roster):
    """A complete roster whose recorded facts and orders stand in the bundle."""

    __slots__ = ("_history",)

    def __init__(self, history: History) -> None:
        super().__init__(facts=_Nothing(), orders=_Nothing())
        self._history = history

    def fact(self, fact_id: str) -> Entry | None:
        found = self._history.facts(fact_id, self.position + 1)
        return referral_codec.read(stored(found[0])) if found else None

    def order_recorded(self, order_id: str) -> bool:
        return self._history.has_stream(f"order/{order_id}", self.position + 1)
