"""An entry as it is stored, and the pieces of a codec that every service's `codec.py` is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fenrun.log.v1 import log_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.kernel.decider import Draft, Entry


class Stored(NamedTuple):
    """One row of the log. `fact` and `decision` are serialized messages, never rewritten."""

    program_id: str
    position: int
    stream: str
    stream_version: int
    type: str
    fact_id: str | None
    occurred_us: int
    recorded_us: int
    actor: str
    fact: bytes
    decision: bytes
    hash: bytes


class Kind(NamedTuple):
    """How one type of entry is written and read: its stored name, its messages, and the four ways between them and the domain."""

    name: str
    fact_class: type
    fact_message: Callable[[Any], Message]
    decision_message: Callable[[Any], Message] | None


class Writing:
    """Domain drafts to bytes. The stored name belongs to the fact's class, for ever."""

    def __init__(self, kinds: list[Kind]) -> None:
        self._kinds = {kind.fact_class: kind for kind in kinds}

    def __call__(self, draft: Draft) -> tuple[str, bytes, bytes]:
        """(stored name, fact bytes, decision bytes) of a draft. Deterministic: the same draft gives the same bytes."""
        kind = self._kinds[type(draft.fact)]
        fact = kind.fact_message(draft.fact).SerializeToString(deterministic=True)
        if kind.decision_message is None:
            return kind.name, fact, b""
        return kind.name, fact, kind.decision_message(draft.decision).SerializeToString(deterministic=True)


Reader = Callable[[bytes, bytes], tuple[Any, Any]]


class Reading:
    """Stored bytes to a service's own dataclasses. Types the service does not care about read as (None, None)."""

    def __init__(self, readers: dict[str, Reader]) -> None:
        self._readers = readers

    def __call__(self, stored: Stored) -> Entry:
        _, position, stream, version, kind, _, occurred_us, recorded_us, _, told, decided, own_hash = stored
        reader = self._readers.get(kind)
        fact, decision = reader(told, decided) if reader else (None, None)
        # Made without the detour through a NamedTuple's own __new__ in Python: this is done for every entry, several times.
        return tuple.__new__(Entry, (position, stream, version, occurred_us, recorded_us, own_hash, fact, decision))


def entry_of(stored: Stored, fact: Any, decision: Any) -> Entry:
    """The entry of a draft that was just stored, without reading its bytes back."""
    return Entry(stored.position, stored.stream, stored.stream_version, stored.occurred_us, stored.recorded_us, stored.hash, fact, decision)


def timestamp(us: int) -> Timestamp:
    """Microseconds since the epoch as a protobuf time."""
    return Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


def moment_fields(us: int) -> dict[str, int]:
    """The fields of the same time within another message."""
    return {"seconds": us // 1_000_000, "nanos": us % 1_000_000 * 1000}


def microseconds(moment: Timestamp) -> int:
    """A protobuf time in microseconds; what is finer must have been refused before."""
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def entry_message(stored: Stored, previous_hash: bytes) -> log_pb2.Entry:
    """The entry as the API shows it."""
    return log_pb2.Entry(**entry_fields(stored, previous_hash))


def entry_fields(stored: Stored, previous_hash: bytes) -> dict[str, Any]:
    """The fields of the same entry within another message."""
    return {
        "program_id": stored.program_id,
        "position": stored.position,
        "stream": stored.stream,
        "stream_version": stored.stream_version,
        "type": stored.type,
        "occurred_at": moment_fields(stored.occurred_us),
        "recorded_at": moment_fields(stored.recorded_us),
        "actor": stored.actor,
        "fact": stored.fact,
        "decision": stored.decision,
        "previous_hash": previous_hash,
        "hash": stored.hash,
    }
