"""The library's own test cases against our append, and its readers and runners on a program that is being written."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import eventsourcing.persistence as es
import grpc
import psycopg
import pytest
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.sqlite import SQLiteTrackingRecorder
from eventsourcing.system import NotificationLogReader
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc
from psycopg_pool import ConnectionPool

from services import composition
from services.runtime.migrations import migrate
from services.runtime.recorder import FollowedProgram, LibraryProgramRecorder, ProgramEvent, ProgramRecorder, Sync
from tests.given import Client, line, reason

# Importing the library's cases imports its cipher and so PyCryptodome, which we do without: none of the cases for ciphers is ours.
sys.modules.setdefault("eventsourcing.cipher", ModuleType("eventsourcing.cipher")).__dict__.setdefault("AESCipher", None)
# The module, not its classes: pytest would collect the abstract cases from our namespace too.
from eventsourcing.tests import persistence as contract  # noqa: E402

WRITERS = 8


@pytest.fixture(scope="module")
def pool(dsn: str) -> Iterator[ConnectionPool[Sync]]:
    """Connections in the role of the services, which may append and read and no more."""
    migrate(dsn, composition.MIGRATIONS)
    with ConnectionPool[Sync](composition.service_dsn(dsn), min_size=4, max_size=16, kwargs={"autocommit": True}) as opened:
        yield opened


@pytest.fixture
def recorder(pool: ConnectionPool[Sync], fresh_program_id: Callable[[], str]) -> LibraryProgramRecorder:
    """A recorder of a new program of the library's own."""
    return LibraryProgramRecorder(pool.connection, fresh_program_id(), poll_s=0.01)


def event(stream: str, version: int, topic: str = "Parcel:Posted", state: bytes = b"{}") -> es.StoredEvent:
    return es.StoredEvent(stream, version, topic, state)


def take(subscription: es.Subscription[Any], count: int) -> list[int]:
    """The positions of the next entries; fewer when they do not come within ten seconds, so that a test fails rather than waits."""
    timer = threading.Timer(10, subscription.stop)
    timer.start()
    try:
        return [notification.id for notification in itertools.islice(subscription, count)]
    finally:
        timer.cancel()


# ---------------------------------------------------------------- the library's contract


class OnOurLog:
    """The hooks of the library's cases: what to test, and how originators are called."""

    @pytest.fixture(autouse=True)
    def _log(self, pool: ConnectionPool[Sync], fresh_program_id: Callable[[], str]) -> None:
        self.pool, self.fresh_program_id = pool, fresh_program_id

    def create_recorder(self) -> LibraryProgramRecorder:
        # A new program each time: the cases expect an empty log, numbered from 1, and leave what they wrote.
        return LibraryProgramRecorder(self.pool.connection, self.fresh_program_id(), poll_s=0.01)

    def new_originator_id(self) -> str:
        # UUIDs unless overridden; the library's own PostgreSQL recorder does the same for ids kept as text.
        return f"parcel/{uuid4()}"


class TestApplicationRecorder(OnOurLog, contract.ApplicationRecorderTestCase[LibraryProgramRecorder]):
    """Numbered from 1 without gaps, read by position and topic, atomic and unique, also with ten writers at once."""

    def test_insert_subscribe(self) -> None:
        """A subscription gives what is there, then what comes, from where it was asked to, of the topics asked for, until it is stopped."""
        # The library makes this case optional by its name; recorders that can subscribe call it.
        self.optional_test_insert_subscribe()


class WithoutPositions(es.AggregateRecorder):
    """An application recorder as an aggregate recorder: the aggregate cases want None where the application cases want positions."""

    def __init__(self, recorder: es.ApplicationRecorder) -> None:
        self._recorder = recorder

    def insert_events(self, stored_events: Sequence[es.StoredEvent], **kwargs: Any) -> None:
        self._recorder.insert_events(stored_events, **kwargs)

    def select_events(self, originator_id: UUID | str, **which: Any) -> Sequence[es.StoredEvent]:
        return self._recorder.select_events(originator_id, **which)


class TestAggregateRecorder(OnOurLog, contract.AggregateRecorderTestCase):
    """Streams are read whole, from and up to a version, backwards; versions are unique; a batch is recorded whole or not at all."""

    def create_recorder(self) -> WithoutPositions:  # type: ignore[override]  # OnOurLog's serves the other two cases
        return WithoutPositions(super().create_recorder())


class TestNonInterleavingNotificationIds(OnOurLog, contract.NonInterleavingNotificationIDsBaseCase):
    """Batches appended at once stand one after the other."""


# ---------------------------------------------------------------- inserting


def test_an_append_that_lost_the_race_for_the_head_is_made_again_behind_the_winner(
    pool: ConnectionPool[Sync], recorder: LibraryProgramRecorder
) -> None:
    """Compare-and-set: what was numbered after an old head is numbered again, and nothing is lost or overwritten."""
    recorder.insert_events([event("parcel/1", 1)])
    meanwhile = iter([[event("parcel/2", 1), event("parcel/2", 2)]])

    def while_the_other_inserts() -> int:
        # The clock is read between the head and the append; only once, for the second attempt holds the head.
        for events in meanwhile:
            recorder.insert_events(events)
        return 1

    slower = LibraryProgramRecorder(pool.connection, recorder.program_id, now_us=while_the_other_inserts)
    assert slower.insert_events([event("parcel/3", 1)]) == [4]
    assert [n.originator_id for n in recorder.select_notifications(None, 9)] == ["parcel/1", "parcel/2", "parcel/2", "parcel/3"]


def test_inserts_go_on_after_a_rebuild_was_asked_for(
    channel: grpc.Channel, pool: ConnectionPool[Sync], recorder: LibraryProgramRecorder
) -> None:
    """A program of the library's has no views, but whoever asks for one to be rebuilt is told so; appends compare that too."""
    recorder.insert_events([event("parcel/1", 1)])
    rebuild = ops_pb2.RebuildProjectionRequest(program_id=recorder.program_id, projection="ledger.members")
    ops_pb2_grpc.OpsServiceStub(channel).RebuildProjection(rebuild)
    # One that lost the head is tried again without end.
    attempts = iter([pool.connection] * 3)
    assert LibraryProgramRecorder(lambda: next(attempts)(), recorder.program_id).insert_events([event("parcel/1", 2)]) == [2]


def test_of_two_that_take_the_same_version_the_later_is_refused(pool: ConnectionPool[Sync], recorder: LibraryProgramRecorder) -> None:
    """Also when the loser read the head before the winner appended; none of its batch is recorded."""
    recorder.insert_events([event("parcel/1", 1)])
    meanwhile = iter([[event("parcel/1", 2, state=b"winner")]])

    def while_the_other_inserts() -> int:
        for events in meanwhile:
            recorder.insert_events(events)
        return 1

    slower = LibraryProgramRecorder(pool.connection, recorder.program_id, now_us=while_the_other_inserts)
    with pytest.raises(es.IntegrityError):
        slower.insert_events([event("parcel/2", 1), event("parcel/1", 2, state=b"loser")])
    assert [n.state for n in recorder.select_notifications(2, 9)] == [b"winner"]


def test_what_many_insert_at_once_is_one_sound_hash_chain(channel: grpc.Channel, recorder: LibraryProgramRecorder) -> None:
    """The services' own verification recomputes numbering, times and hashes, and finds nothing."""
    with ThreadPoolExecutor(WRITERS) as threads:
        batches = [[event(f"parcel/{writer}-{n}", version) for version in (1, 2, 3)] for writer in range(WRITERS) for n in range(10)]
        positions = list(threads.map(recorder.insert_events, batches))
    assert sorted(itertools.chain.from_iterable(positions)) == list(range(1, 3 * 10 * WRITERS + 1))
    assert Client.of(channel, recorder.program_id).differences() == []


def test_programs_share_nothing(pool: ConnectionPool[Sync], recorder: LibraryProgramRecorder, fresh_program_id: Callable[[], str]) -> None:
    """The same stream and version may stand in two programs, each numbered from 1."""
    other = LibraryProgramRecorder(pool.connection, fresh_program_id())
    assert recorder.insert_events([event("parcel/1", 1, state=b"here")]) == [1]
    assert other.insert_events([event("parcel/1", 1, state=b"there")]) == [1]
    assert [n.state for n in recorder.select_notifications(None, 9)] == [b"here"]


def test_a_program_of_the_services_takes_no_insert(pool: ConnectionPool[Sync], client: Client) -> None:
    """Neither recorder appends to it: the entry would be missing from the inline views."""
    for refusing in (ProgramRecorder, LibraryProgramRecorder):
        recorder = refusing(pool.connection, client.program_id)
        with pytest.raises(es.NotSupportedError, match="written by its services"):
            recorder.insert_events([event("member/ann", 1)])
        assert recorder.max_notification_id() == 1


def test_the_services_accept_no_money_in_a_program_of_the_librarys(channel: grpc.Channel, recorder: LibraryProgramRecorder) -> None:
    """It has no currency, and to the services it is not there."""
    recorder.insert_events([event("parcel/1", 1)])
    client = Client.of(channel, recorder.program_id)
    for write in (client.publish, lambda: client.enroll("ann")):
        with pytest.raises(grpc.RpcError) as refused:
            write()
        assert reason(refused.value)[1] == "PROGRAM_UNKNOWN"


def test_a_stream_is_named_by_text(recorder: LibraryProgramRecorder) -> None:
    """A UUID would come back as text, which is another id to the library; it is refused instead."""
    with pytest.raises(es.ProgrammingError, match="as str"):
        recorder.insert_events([es.StoredEvent(uuid4(), 1, "Parcel:Posted", b"{}")])
    with pytest.raises(es.ProgrammingError, match="as str"):
        recorder.select_events(uuid4())


def test_an_insert_is_not_repeated_when_its_connection_breaks(dsn: str, recorder: LibraryProgramRecorder) -> None:
    """It may have been recorded; repeating it blindly would answer IntegrityError for what is in the log."""
    with psycopg.connect(composition.service_dsn(dsn), autocommit=True) as breaking:
        attempts = iter([breaking])
        broken = LibraryProgramRecorder(lambda: nullcontext(next(attempts)), recorder.program_id)
        with psycopg.connect(dsn) as owner:
            owner.execute("select pg_terminate_backend(%s)", [breaking.info.backend_pid])
        with pytest.raises(es.OperationalError):
            broken.insert_events([event("parcel/1", 1)])


# ---------------------------------------------------------------- following


def write_at_once(client: Client, threads: ThreadPoolExecutor, when: str) -> list[Future[None]]:
    """Starts as many writers as there are threads; each enrols ten members and sells to them."""

    def write(writer: int) -> None:
        for n in range(10):
            client.enroll(f"{when}-{writer}-{n}")
            client.order(f"{when}-{writer}-{n}", f"{when}-{writer}-{n}", line(1, 1000))

    return [threads.submit(write, writer) for writer in range(WRITERS)]


WRITTEN_AT_ONCE = 2 * 10 * WRITERS


def entries_of(client: Client) -> list[log_pb2.Entry]:
    """The log as the API gives it."""
    entries: list[log_pb2.Entry] = []
    while True:
        request = ops_pb2.ReadEntriesRequest(program_id=client.program_id, after_position=len(entries), page_size=100)
        page = client.ops.ReadEntries(request).entries
        if not page:
            return entries
        entries.extend(page)


class Seen(SQLiteTrackingRecorder):
    """A view of all that was seen, in the order it was, kept in one transaction with the position tracked."""

    def construct_create_table_statements(self) -> list[str]:
        return [*super().construct_create_table_statements(), "CREATE TABLE IF NOT EXISTS seen (number INTEGER PRIMARY KEY, entry BLOB)"]

    def take(self, entry: log_pb2.Entry, tracking: es.Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute("INSERT INTO seen (entry) VALUES (?)", (entry.SerializeToString(deterministic=True),))

    def entries(self) -> list[log_pb2.Entry]:
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT entry FROM seen ORDER BY number")
            return [log_pb2.Entry.FromString(row["entry"]) for row in cursor.fetchall()]


class Seeing(Projection[Seen]):
    """Takes in whatever comes."""

    def process_event(self, domain_event: ProgramEvent, tracking: es.Tracking) -> None:
        self.view.take(domain_event.entry, tracking)


def test_a_runner_sees_every_entry_once_and_in_order_while_many_write_and_resumes_where_it_stopped(
    dsn: str, client: Client, tmp_path: Path
) -> None:
    """The second runner has nothing of the first but the view, and goes on behind the position tracked there."""
    env = {
        "FENRUN_DSN": composition.service_dsn(dsn),
        "FENRUN_PROGRAM": client.program_id,
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": str(tmp_path / "view.sqlite"),
    }

    def runner() -> ProjectionRunner[FollowedProgram, Seen]:
        return ProjectionRunner(application_class=FollowedProgram, projection_class=Seeing, view_class=Seen, env=env)

    client.publish()
    with ThreadPoolExecutor(WRITERS) as threads:
        writing = write_at_once(client, threads, "early")
        with runner() as first:
            first.wait(20, timeout=30)
        stopped_at = first.view.max_tracking_id(client.program_id)
        writing += write_at_once(client, threads, "late")
        with runner() as second:
            for writer in writing:
                writer.result()
            second.wait(2 + 2 * WRITTEN_AT_ONCE, timeout=30)
            seen = second.view.entries()
    assert stopped_at is not None and 20 <= stopped_at <= 2 + WRITTEN_AT_ONCE
    assert [entry.position for entry in seen] == list(range(1, 2 + 2 * WRITTEN_AT_ONCE + 1))
    assert seen == entries_of(client)


def test_a_reader_of_the_notification_log_sees_every_entry_once_and_in_order_while_many_write(dsn: str, client: Client) -> None:
    """Read as fast as can be: no append becomes visible behind a later one."""
    client.publish()
    with (
        closing(FollowedProgram({"FENRUN_DSN": dsn, "FENRUN_PROGRAM": client.program_id})) as program,
        ThreadPoolExecutor(WRITERS) as threads,
    ):
        reader = NotificationLogReader(program.notification_log)
        writing = write_at_once(client, threads, "early")
        seen: list[int] = []
        growing = True
        while growing:
            # Asked before reading: what was written by then must be found.
            growing = not all(writer.done() for writer in writing)
            seen += [notification.id for notification in reader.read(start=seen[-1] + 1 if seen else 1)]
    assert seen == list(range(1, 2 + WRITTEN_AT_ONCE + 1))


def test_the_state_is_the_entry_as_the_api_gives_it(pool: ConnectionPool[Sync], client: Client) -> None:
    """Byte for byte, so nothing of it is lost on its way through the library: not the decision, the times, the actor or the hashes."""
    client.publish()
    client.enroll("ann")
    client.order("o-1", "ann", line(1, 1000))
    recorder = ProgramRecorder(pool.connection, client.program_id)
    entries = entries_of(client)
    assert [n.state for n in recorder.select_notifications(None, 9)] == [e.SerializeToString(deterministic=True) for e in entries]
    assert [n.topic for n in recorder.select_notifications(None, 9)] == [e.type for e in entries]
    assert [s.state for s in recorder.select_events("order/o-1")] == [entries[-1].SerializeToString(deterministic=True)]
    assert entries[-1].decision


def test_a_program_that_is_not_there_yet_can_be_waited_for(
    pool: ConnectionPool[Sync], channel: grpc.Channel, fresh_program_id: Callable[[], str]
) -> None:
    """A follower may start before the program is created; its first entry then comes like any other."""
    recorder = ProgramRecorder(pool.connection, fresh_program_id(), poll_s=0.01)
    assert recorder.max_notification_id() is None
    with ThreadPoolExecutor(1) as thread, recorder.subscribe() as subscription:
        first = thread.submit(take, subscription, 1)
        Client.of_new_program(channel, recorder.program_id)
        assert first.result() == [1]


def test_a_subscription_to_a_rare_topic_does_not_read_again_what_it_passed(
    pool: ConnectionPool[Sync], recorder: LibraryProgramRecorder
) -> None:
    """It goes on after the head it looked at, not after the last entry that was of its topic."""
    began_after = []

    class Watched(ProgramRecorder):
        def select_notifications(self, start: int | None, *args: Any, **kwargs: Any) -> Sequence[es.Notification]:
            began_after.append(start)
            found: Sequence[es.Notification] = super().select_notifications(start, *args, **kwargs)
            return found

    recorder.insert_events([event("parcel/1", 1, "Parcel:Posted"), *[event("parcel/1", n, "Parcel:Moved") for n in range(2, 10)]])
    with Watched(pool.connection, recorder.program_id, poll_s=0.01).subscribe(topics=["Parcel:Posted"]) as subscription:
        assert take(subscription, 1) == [1]
        recorder.insert_events([event("parcel/2", 1, "Parcel:Posted")])
        assert take(subscription, 1) == [10]
    assert began_after == [0, 9]


def test_a_subscription_reads_a_long_log_in_chunks(recorder: LibraryProgramRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one look does not hold comes with the next, from after its last entry; also of one topic only."""
    monkeypatch.setattr("services.runtime.recorder.CHUNK", 3)
    recorder.insert_events([event("parcel/1", n, "Parcel:Moved" if n % 2 else "Parcel:Stored") for n in range(1, 21)])
    with recorder.subscribe(gt=2) as every, recorder.subscribe(topics=["Parcel:Moved"]) as moved:
        assert take(every, 18) == list(range(3, 21))
        assert take(moved, 10) == list(range(1, 21, 2))


def test_stopping_a_subscription_ends_its_waiting_at_once(pool: ConnectionPool[Sync], fresh_program_id: Callable[[], str]) -> None:
    """Whoever waits for the next entry is let go, however long the pause between two looks."""
    subscription = ProgramRecorder(pool.connection, fresh_program_id(), poll_s=3600).subscribe()
    found: list[es.Notification] = []
    waiting = threading.Thread(target=lambda: found.extend(subscription))
    waiting.start()
    subscription.stop()
    waiting.join(timeout=5)
    assert not waiting.is_alive() and found == []


def test_a_position_the_log_does_not_reach_is_refused(recorder: LibraryProgramRecorder) -> None:
    """It was tracked in another log, or before a backup was restored: going on from there would pass over entries in silence."""
    recorder.insert_events([event("parcel/1", 1)])
    recorder.subscribe(gt=1).stop()
    with pytest.raises(es.ProgrammingError, match=r"follows position 2; .* ends at 1"):
        recorder.subscribe(gt=2)


def test_reading_goes_on_when_the_database_drops_its_connections(dsn: str, recorder: LibraryProgramRecorder) -> None:
    """Reading changes nothing, so it is repeated; a follower survives a failover."""
    recorder.insert_events([event("parcel/1", 1)])
    with ConnectionPool[Sync](composition.service_dsn(dsn), min_size=2, kwargs={"autocommit": True}) as own:
        own.wait()
        with own.connection() as one, own.connection() as two, psycopg.connect(dsn) as owner:
            for connection in (one, two):
                owner.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        assert ProgramRecorder(own.connection, recorder.program_id).max_notification_id() == 1


def test_a_follower_is_told_which_setting_it_lacks() -> None:
    """Rather than following nothing."""
    with pytest.raises(es.InfrastructureFactoryError, match="FENRUN_PROGRAM"):
        FollowedProgram({"FENRUN_DSN": "dbname=fenrun", "FENRUN_PROGRAM": ""})
