"""A program's log behind the eventsourcing library's recorder interface: its readers, subscriptions, projections and runners follow it.

    notification id     position
    originator id       stream; text, never a UUID
    originator version  stream version
    topic               type, such as order.paid.v1
    state               the whole entry, as a serialized fenrun.log.v1.Entry: what ReadEntries and WatchEntries give for it, byte for byte

So `Entry.FromString(notification.state)` has fact, decision, both times, the actor and both hashes, also behind the library's remote logs.

**Who may insert.** Not `ProgramRecorder`: what went in through it would be missing from the services' inline views, which are folded in the
transaction of the writer's append and only there. `LibraryProgramRecorder` inserts, through the same `fenrun.append`, into programs of the
library's own: those of applications that no Fenrun service serves, and of tests. Such a program has no currency. That tells it from the
services' programs, which have one for ever, and the services accept no money in it. There the state is what was inserted, and nothing else.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any
from uuid import UUID

import eventsourcing.persistence as es
import psycopg
from eventsourcing.application import Application
from eventsourcing.utils import Environment, EnvType, retry
from fenrun.log.v1 import log_pb2
from psycopg_pool import ConnectionPool

from services.kernel.chain import GENESIS
from services.kernel.decider import Draft
from services.runtime import eventlog
from services.runtime.eventlog import COLUMNS, Head, HeadMoved, array
from services.runtime.stored import Stored, entry_message

Sync = psycopg.Connection[tuple[Any, ...]]
# `pool.connection` of a psycopg_pool.ConnectionPool; autocommit saves two round trips per read.
Connect = Callable[[], AbstractContextManager[Sync]]

# The currency of programs without money, which are the library's. CreateProgram takes none but three capital letters.
NO_CURRENCY = ""
CHUNK = 500
LAST = 2**63 - 1

# The one table from the driver's errors to the library's, first match first.
_ERRORS: tuple[tuple[type[psycopg.Error], type[es.PersistenceError]], ...] = (
    (psycopg.InterfaceError, es.InterfaceError),
    (psycopg.OperationalError, es.OperationalError),
    (psycopg.DataError, es.DataError),
    (psycopg.IntegrityError, es.IntegrityError),
    (psycopg.InternalError, es.InternalError),
    (psycopg.ProgrammingError, es.ProgrammingError),
    (psycopg.NotSupportedError, es.NotSupportedError),
    (psycopg.DatabaseError, es.DatabaseError),
    (psycopg.Error, es.PersistenceError),
)
# As the library's own recorder does when a connection breaks; only what reads is repeated.
_retried = retry((es.InterfaceError, es.OperationalError), max_attempts=10, wait=0.2)


class ProgramRecorder(es.ApplicationRecorder):
    """Reads one program's log. A program that is not there has an empty log, and may be waited for. Safe to share between threads."""

    def __init__(self, connect: Connect, program_id: str, poll_s: float = 0.1) -> None:
        self.program_id = program_id
        self._connect = connect
        self._poll_s = poll_s

    def insert_events(self, stored_events: Sequence[es.StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Raises NotSupportedError, always: see the top of this file."""
        raise self._served()

    @_retried
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[es.StoredEvent]:
        """The entries of a stream with versions in (gt, lte], by version. Raises ProgrammingError for a UUID, which names no stream."""
        direction = "desc" if desc else "asc"
        rows = self._select(
            f"stream = %(stream)s and stream_version > %(gt)s and stream_version <= %(lte)s order by stream_version {direction}",
            {"stream": _stream(originator_id), "gt": -1 if gt is None else gt, "lte": LAST if lte is None else lte, "limit": limit},
        )
        return [es.StoredEvent(s.stream, s.stream_version, s.type, self._state(s, previous)) for s, previous in rows]

    @_retried
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[es.Notification]:
        """Up to `limit` entries from `start` (or after it) to `stop` inclusive, in order of position.

        None is passed over: positions are gapless in the order in which appends commit, so what cannot be seen yet comes after what can.
        """
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        rows = self._select(
            "position > %(after)s and position <= %(stop)s and (%(topics)s::text[] = '{}' or type = any(%(topics)s)) order by position",
            {"after": after, "stop": LAST if stop is None else stop, "topics": array(topics), "limit": limit},
        )
        return [es.Notification(s.stream, s.stream_version, s.type, self._state(s, previous), id=s.position) for s, previous in rows]

    @_retried
    def max_notification_id(self) -> int | None:
        """The head position; None while nothing is recorded."""
        with self._connected() as connection:
            head = self._head(connection)
        return head.position if head else None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> "PolledSubscription":
        """Every entry after `gt`, those there and those to come, until it is stopped.

        Raises ProgrammingError when the log does not reach `gt`: then that is a position of some other log, or of this one before a backup
        was restored, and entries would be passed over in silence.
        """
        head_position = self.max_notification_id() or 0
        if gt is not None and gt > head_position:
            raise es.ProgrammingError(f"asked for what follows position {gt}; the log of {self.program_id!r} ends at {head_position}")
        return PolledSubscription(self, gt, topics, self._poll_s)

    def _served(self) -> es.NotSupportedError:
        return es.NotSupportedError(f"program {self.program_id!r} is written by its services; a recorder would bypass their views")

    def _state(self, stored: Stored, previous_hash: bytes) -> bytes:
        return entry_message(stored, previous_hash).SerializeToString(deterministic=True)

    def _select(self, which: str, parameters: dict[str, Any]) -> list[tuple[Stored, bytes]]:
        """The entries asked for, each with the hash of the entry before it."""
        statement = (
            f"select {COLUMNS}, (select b.hash from fenrun.entries b where b.program_id = e.program_id and b.position = e.position - 1)"
            f" from fenrun.entries e where program_id = %(program_id)s and {which} limit %(limit)s"
        )
        with self._connected() as connection:
            cursor = connection.execute(statement.encode(), {"program_id": self.program_id, **parameters}, binary=True)
            return [(Stored(*row[:-1]), row[-1] or GENESIS) for row in cursor]

    def _head(self, connection: Sync, lock: bool = False) -> Head | None:
        columns = "program_id, currency, head_position, head_hash, head_recorded_us, rebuilt"
        statement = f"select {columns} from fenrun.programs where program_id = %s"
        row = connection.execute(statement.encode() + (b" for update" if lock else b""), [self.program_id]).fetchone()
        return Head(*row[:5])._replace(rebuilt=row[5]) if row else None

    @contextmanager
    def _connected(self) -> Iterator[Sync]:
        """A connection; what the driver raises inside is raised as the library's error."""
        try:
            with self._connect() as connection:
                yield connection
        except psycopg.Error as error:
            raise next(theirs for ours, theirs in _ERRORS if isinstance(error, ours))(str(error)) from error


class LibraryProgramRecorder(ProgramRecorder):
    """Reads and inserts one program of the library's own; the first insert creates it. The top of this file says what such a program is.

    The library promises no more than that a stream's versions are unique, so they may start anywhere and leave gaps. The log itself is the
    same as everywhere: gapless, ordered, hash-chained.
    """

    def __init__(
        self,
        connect: Connect,
        program_id: str,
        poll_s: float = 0.1,
        actor: str = "eventsourcing",
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        super().__init__(connect, program_id, poll_s)
        self._actor = actor
        self._now_us = now_us

    def insert_events(self, stored_events: Sequence[es.StoredEvent], **kwargs: Any) -> Sequence[int]:
        """Appends all of them or none, next to one another; returns their positions.

        Raises IntegrityError when a version of a stream is recorded already, NotSupportedError for a program of the services. An insert is
        never repeated by itself: after OperationalError it may or may not be recorded, and the streams tell.
        """
        if not stored_events:
            return []
        contended = False
        while True:
            try:
                with self._connected() as connection, connection.transaction():
                    return self._append(connection, stored_events, lock=contended)
            except HeadMoved:
                # As the writer does: the next attempt holds the head, so that it cannot lose again.
                contended = True

    def _append(self, connection: Sync, stored_events: Sequence[es.StoredEvent], lock: bool) -> list[int]:
        expected = self._head(connection, lock)
        if expected is None:
            # In the transaction of its first entries: nobody ever sees the program empty.
            beginning = eventlog.beginning(self.program_id, NO_CURRENCY)
            connection.execute("insert into fenrun.programs values (%s, %s, %s, %s, %s) on conflict do nothing", beginning[:5])
            expected = self._head(connection, lock=True)
            assert expected is not None
        if expected.currency != NO_CURRENCY:
            raise self._served()
        now_us, before, entries = self._now_us(), expected, []
        for event in stored_events:
            draft = Draft(_stream(event.originator_id), None, None, now_us)
            stored = eventlog.store(before, draft, event.originator_version, (event.topic, event.state, b""), self._actor, now_us)
            before = before._replace(position=stored.position, hash=stored.hash, recorded_us=stored.recorded_us)
            entries.append(stored)
        try:
            connection.execute(
                "select fenrun.append(%s, %s, %b, %s, %b, %s, %s::text[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[],"
                " %s::text[], %b::bytea[], %b::bytea[], %b::bytea[])",
                [
                    self.program_id,
                    expected.position,
                    expected.hash,
                    expected.rebuilt,
                    before.hash,
                    before.recorded_us,
                    array([e.stream for e in entries]),
                    array([e.stream_version for e in entries]),
                    array([e.type for e in entries]),
                    array([e.fact_id or "" for e in entries]),
                    array([e.occurred_us for e in entries]),
                    array([e.recorded_us for e in entries]),
                    array([e.actor for e in entries]),
                    [e.fact for e in entries],
                    [e.decision for e in entries],
                    [e.hash for e in entries],
                ],
            )
        except psycopg.Error as error:
            if error.sqlstate == "FR001":
                raise HeadMoved from None
            raise
        return [e.position for e in entries]

    def _state(self, stored: Stored, previous_hash: bytes) -> bytes:
        return stored.fact


class PolledSubscription(es.Subscription[ProgramRecorder]):
    """Looks at the head row every `poll_s` seconds, at entries only when it moved: no NOTIFY in the writers' transactions, no thread."""

    def __init__(self, recorder: ProgramRecorder, gt: int | None, topics: Sequence[str], poll_s: float) -> None:
        super().__init__(recorder, gt or 0, topics)
        self._poll_s = poll_s
        self._fetched: deque[es.Notification] = deque()
        self._stopped = Event()

    def stop(self) -> None:
        """Ends the iteration, also from another thread and while it waits."""
        super().stop()
        self._stopped.set()

    def __next__(self) -> es.Notification:
        while not self._stopped.is_set():
            if self._fetched:
                return self._fetched.popleft()
            if not self._fetch():
                self._stopped.wait(self._poll_s)
        raise StopIteration

    def _fetch(self) -> bool:
        """Takes in the next entries; False when the log has not grown."""
        after, head_position = self._last_notification_id or 0, self._recorder.max_notification_id() or 0
        if head_position <= after:
            return False
        found = self._recorder.select_notifications(after, CHUNK, head_position, self._topics, inclusive_of_start=False)
        self._fetched.extend(found)
        # Entries of other topics are passed for good: a rare topic must not cost a walk through the log at every look.
        self._last_notification_id = found[-1].id if len(found) == CHUNK else head_position
        return True


def _stream(originator_id: UUID | str) -> str:
    if not isinstance(originator_id, str):
        raise es.ProgrammingError(f"streams are named by text; declare the aggregates' ids as str, not {type(originator_id).__name__}")
    return originator_id


@dataclass(frozen=True)
class ProgramEvent:
    """An entry as the library hands it to projections: register `process_event` for this class and look at `entry.type`."""

    originator_id: str
    originator_version: int
    entry: log_pb2.Entry


class EntryMapper(es.Mapper[str]):
    """From what `ProgramRecorder` reads. The library's own would import what a topic names; ours are names, chosen once and for ever."""

    def __init__(self) -> None:
        super().__init__(es.JSONTranscoder())

    def to_domain_event(self, stored_event: es.StoredEvent) -> ProgramEvent:
        entry = log_pb2.Entry.FromString(stored_event.state)
        return ProgramEvent(entry.stream, entry.stream_version, entry)


class FollowedProgram(Application[str]):
    """A program as the application that the library's runners follow. Its environment says which: FENRUN_DSN, FENRUN_PROGRAM.

    Tracking positions are kept under the program's id, so that one view may follow several programs. The database role needs no more than
    to select from fenrun.programs and fenrun.entries.
    """

    def __init__(self, env: EnvType | None = None) -> None:
        super().__init__(env)
        self.name = self._setting("FENRUN_PROGRAM")

    def construct_factory(self, env: Environment) -> es.InfrastructureFactory:
        # The environment's PERSISTENCE_MODULE means the view, which shares it; this application keeps nothing.
        return es.InfrastructureFactory.construct(Environment(self.name))

    def construct_mapper(self) -> es.Mapper[str]:
        return EntryMapper()

    def construct_recorder(self) -> ProgramRecorder:
        dsn, program_id = self._setting("FENRUN_DSN"), self._setting("FENRUN_PROGRAM")
        self._pool: ConnectionPool[Sync] = ConnectionPool(dsn, min_size=1, max_size=2, timeout=5, open=True, kwargs={"autocommit": True})
        return ProgramRecorder(self._pool.connection, program_id)

    def close(self) -> None:
        super().close()
        self._pool.close()

    def _setting(self, key: str) -> str:
        value = self.env.get(key)
        if not value:
            raise es.InfrastructureFactoryError(f"the environment has no {key}")
        return str(value)
