"""Appends of several programs in one statement: one commit for all, and what befalls one of them is no other's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from services.composition import MIGRATIONS
from services.kernel.decider import Answer, Draft, Entry, Repeated
from services.kernel.refusals import Unavailable
from services.runtime import appending, eventlog
from services.runtime.appending import Appender
from services.runtime.eventlog import Append, Connection, Head, HeadMoved
from services.runtime.migrations import migrate
from services.runtime.process import Connections
from services.runtime.stored import Stored, entry_of
from services.runtime.writer import DATABASE_LOST, Connect, Writer

APPLICATION = "appending"
TERMINATE: LiteralString = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'appending' and state = 'active'"
)
PROGRAMS = [f"p{number}" for number in range(8)]
# Whoever comes first goes by itself; what comes meanwhile goes together.
AHEAD = "ahead"


@pytest.fixture
def own(dsn: str) -> str:
    """A database of the test's own with eight programs and the one that goes ahead, whose logs have one entry each."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(sql.SQL("drop database if exists appending with (force)"))
        owner.execute(sql.SQL("create database appending"))
    conninfo = make_conninfo(dsn, dbname="appending")
    migrate(conninfo, MIGRATIONS)

    async def create() -> None:
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            for program_id in (*PROGRAMS, AHEAD):
                first = eventlog.store(eventlog.beginning(program_id, "GBP"), Draft("s/first", None, None, 0), 1, ("t", b"", b""), "", 1)
                await eventlog.create_program(connection, first, "GBP")

    asyncio.run(create())
    return conninfo


@asynccontextmanager
async def borrowing(conninfo: str) -> AsyncIterator[Connect]:
    connections = Connections(make_conninfo(conninfo, application_name=APPLICATION), 4)
    await connections.open()
    try:
        yield connections.connect
    finally:
        await connections.close()


async def heads(connect: Connect) -> list[Head]:
    async with connect() as connection:
        return [await eventlog.head(connection, program_id) for program_id in PROGRAMS]


def next_of(head: Head, stream: str = "s/next", fact: bytes = b"fact") -> Append:
    return Append(head, [eventlog.store(head, Draft(stream, None, None, 0), 1, ("t", fact, b"decision"), "", 1)], [])


async def append_all(connect: Connect, appends: Sequence[Append]) -> list[type[Exception] | None]:
    """What became of each, all having been ready at the same time. None: appended."""
    async with connect() as connection:
        ahead = next_of(await eventlog.head(connection, AHEAD))
    appender = Appender(connect, DATABASE_LOST)
    _, *found = await asyncio.gather(*map(appender.append, [ahead, *appends]), return_exceptions=True)
    await appender.close()
    return [type(error) if isinstance(error, Exception) else None for error in found]


async def rows(conninfo: str, statement: LiteralString) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        return await (await connection.execute(statement)).fetchall()


async def recorded(conninfo: str) -> dict[str, str]:
    """{program: the transaction of its second entry}."""
    return {
        str(program): str(xmin)
        for program, xmin in await rows(
            conninfo, "select program_id, xmin from fenrun.entries where position = 2 and program_id <> 'ahead'"
        )
    }


def test_what_is_ready_at_the_same_time_is_one_commit_and_the_same_log(own: str) -> None:
    async def story() -> None:
        async with borrowing(own) as connect:
            before = await heads(connect)
            appends = [next_of(head) for head in before]
            assert await append_all(connect, appends) == [None] * len(PROGRAMS)
            found = await recorded(own)
            assert set(found) == set(PROGRAMS)
            assert len(set(found.values())) == 1
            assert await heads(connect) == [eventlog.after(one.expected, one.entries[-1]) for one in appends]
            async with connect() as connection:
                assert [(await eventlog.read(connection, one.expected.program_id, 1, 9)) for one in appends] == [
                    list(one.entries) for one in appends
                ]

    asyncio.run(story())


def test_several_entries_of_each_stand_in_their_own_logs(own: str) -> None:
    async def story() -> None:
        async with borrowing(own) as connect:
            appends = []
            for number, head in enumerate(await heads(connect)):
                after, entries = head, []
                for _ in range(number + 1):
                    entries.append(
                        eventlog.store(after, Draft(f's/"{after.position}\\', None, None, 0), 1, ("t", bytes([number]), b""), "", 1)
                    )
                    after = eventlog.after(after, entries[-1])
                appends.append(Append(head, entries, []))
            assert await append_all(connect, appends) == [None] * len(PROGRAMS)
            async with connect() as connection:
                for one in appends:
                    assert await eventlog.read(connection, one.expected.program_id, 1, 99) == one.entries

    asyncio.run(story())


def test_only_who_is_at_fault_is_not_appended(own: str) -> None:
    """A head that moved, a stream's version that is there, a value that cannot be stored."""

    async def story() -> None:
        async with borrowing(own) as connect:
            first, second, third, *others = await heads(connect)
            async with connect() as connection:
                await eventlog.append(connection, *next_of(first, "s/other"))
            unstorable = next_of(third, "s/\0")
            found = await append_all(connect, [next_of(first), next_of(second, "s/first"), unstorable, *map(next_of, others)])
            assert found[0] is HeadMoved
            assert found[1] is psycopg.errors.UniqueViolation
            assert found[2] is not None and issubclass(found[2], psycopg.DataError)
            assert found[3:] == [None] * len(others)
            assert set(await recorded(own)) == {first.program_id, *(head.program_id for head in others)}
            [(stream,)] = await rows(own, "select stream from fenrun.entries where program_id = 'p0' and position = 2")
            assert stream == "s/other"

    asyncio.run(story())


def test_where_a_head_moved_the_others_are_still_one_commit(own: str) -> None:
    async def story() -> None:
        async with borrowing(own) as connect:
            first, *others = await heads(connect)
            async with connect() as connection:
                await eventlog.append(connection, *next_of(first, "s/other"))
            assert await append_all(connect, [next_of(first), *map(next_of, others)]) == [HeadMoved, *[None] * len(others)]
            found = await recorded(own)
            assert len({found[head.program_id] for head in others}) == 1

    asyncio.run(story())


def test_nobody_is_told_of_an_append_that_is_not_committed(own: str) -> None:
    """A trigger that waits for the commit refuses one of them: it has been executed by then like all the others."""

    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(own, autocommit=True) as owner:
            await owner.execute(
                "create function refuse() returns trigger language plpgsql as"
                " $$ begin if new.fact = 'refused' then raise check_violation; end if; return null; end $$"
            )
            await owner.execute(
                "create constraint trigger refuse after insert on fenrun.entries deferrable initially deferred"
                " for each row execute function refuse()"
            )
        async with borrowing(own) as connect:
            first, *others = await heads(connect)
            found = await append_all(connect, [next_of(first, fact=b"refused"), *map(next_of, others)])
            assert found == [psycopg.errors.CheckViolation, *[None] * len(others)]
            assert set(await recorded(own)) == {head.program_id for head in others}

    asyncio.run(story())


@pytest.mark.parametrize("behind", [True, False])
def test_a_head_that_is_held_holds_nobody_else(own: str, monkeypatch: pytest.MonkeyPatch, behind: bool) -> None:
    """Whether the others are ready at the same time or while that one already waits by itself."""
    monkeypatch.setattr(appending, "PATIENCE_S", 0.0)

    async def story() -> None:
        async with borrowing(own) as connect, await psycopg.AsyncConnection.connect(own) as holder:
            first, *others = await heads(connect)
            await holder.execute("select from fenrun.programs where program_id = %s for update", [first.program_id])
            async with connect() as connection:
                ahead = next_of(await eventlog.head(connection, AHEAD))
            appender = Appender(connect, DATABASE_LOST)
            going = [] if behind else [asyncio.create_task(appender.append(ahead))]
            held = asyncio.create_task(appender.append(next_of(first)))
            if behind:
                await until(lambda: waiting_for_locks(own))
            await asyncio.gather(*going, *(appender.append(next_of(head)) for head in others))
            assert not held.done()
            await holder.rollback()
            await held
            assert set(await recorded(own)) == set(PROGRAMS)
            await appender.close()

    asyncio.run(story())


def test_when_the_connection_breaks_everybody_of_a_statement_hears_of_it(own: str) -> None:
    async def story() -> None:
        async with borrowing(own) as connect, await psycopg.AsyncConnection.connect(own) as holder:
            appends = [next_of(head) for head in await heads(connect)]
            # The same version of a stream, not committed: the statement waits for what becomes of it.
            await holder.execute(
                "insert into fenrun.entries select program_id, 9, 's/next', 1, type, null, 0, 0, '', '', '', '' from fenrun.entries"
                " where program_id = 'p0'"
            )
            ended = asyncio.create_task(append_all(connect, appends))
            await until(lambda: waiting_for_locks(own))
            [(waiting,)] = await rows(own, "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event_type = 'Lock'")
            assert waiting == 1
            assert await ended == [psycopg.errors.AdminShutdown] * len(PROGRAMS)
            await holder.rollback()
            assert await recorded(own) == {}

    asyncio.run(story())


async def until(seen: Callable[[], Awaitable[bool]]) -> None:
    while not await seen():
        await asyncio.sleep(0.01)


async def waiting_for_locks(conninfo: str, statements: int = 1) -> bool:
    [(count,)] = await rows(
        conninfo, "select count(*) from pg_stat_activity where application_name = 'appending' and wait_event_type = 'Lock'"
    )
    return bool(count == statements)


# With the writer before it.


@dataclass(frozen=True)
class Tell:
    fact_id: str


class Telling:
    """A participant that records what it is told once, and holds all facts of a program in mind. A stand-in for a service."""

    name = "telling"
    handles: frozenset[type] = frozenset({Tell})

    def alone(self, command: Any) -> bool:
        return False

    def people(self, command: Any) -> tuple[str, ...]:
        return ()

    async def load(
        self, connection: Connection, head: Head, commands: Sequence[Tell], people: Collection[str], kept: dict[str, Entry] | None
    ) -> dict[str, Entry]:
        return (
            kept if kept is not None else {one.stream: self.read(one) for one in await eventlog.read(connection, head.program_id, 0, 999)}
        )

    async def look_up(
        self,
        connection: Connection,
        before: Head,
        head: Head,
        commands: Sequence[Tell],
        people: Collection[str],
        kept: Any,
        folding: Collection[str],
    ) -> None:
        pass

    def keep(self, state: dict[str, Entry]) -> int:
        return len(state)

    def decide(self, state: dict[str, Entry], command: Tell) -> Answer:
        there = state.get(f"s/{command.fact_id}")
        return Repeated(there) if there else [Draft(f"s/{command.fact_id}", command, None, 0)]

    def evolve(self, state: dict[str, Entry], entry: Entry) -> None:
        state[entry.stream] = entry

    def next_version(self, state: dict[str, Entry], stream: str) -> int:
        return 1

    def write(self, draft: Draft) -> tuple[str, bytes, bytes]:
        return "t", b"told", b""

    def read(self, stored: Stored) -> Entry:
        return entry_of(stored, None, None)

    def changes(self) -> Any:
        return NoChanges()


class NoChanges:
    def add(self, entry: Entry) -> None:
        pass

    def folds(self) -> list[Any]:
        return []


def writer_of(connect: Connect) -> Writer:
    return Writer(connect, [Telling()], lambda: 0, 500, 30)


async def tell(writer: Writer, program_id: str, fact_ids: Sequence[str]) -> list[tuple[str, str, int]]:
    """Tells facts one after another; (program, fact, position) of each answer."""
    return [(program_id, fact_id, (await writer.submit(program_id, Tell(fact_id), "ann")).entries[0].position) for fact_id in fact_ids]


async def logged(conninfo: str) -> list[tuple[str, str, int]]:
    found = await rows(conninfo, "select program_id, stream, position from fenrun.entries where position > 1 order by 1, 3")
    return [(program_id, stream.removeprefix("s/"), position) for program_id, stream, position in found]


def test_facts_count_once_while_connections_break(own: str) -> None:
    """Every caller is answered, with the place where its fact stands, however often the ground is taken from under the statements."""
    facts = [f"f{number}" for number in range(40)]

    async def story() -> None:
        async with borrowing(own) as connect:
            writer = writer_of(connect)
            telling = asyncio.gather(*(tell(writer, program_id, facts) for program_id in PROGRAMS))
            while not telling.done():
                await rows(own, TERMINATE)
                await asyncio.sleep(0.005)
            assert sorted(answer for answers in await telling for answer in answers) == sorted(await logged(own))
            assert len(await logged(own)) == len(PROGRAMS) * len(facts)
            await writer.close(1)

    asyncio.run(story())


def test_two_servers_that_write_to_the_same_programs_make_one_log_of_each(own: str) -> None:
    facts = [f"f{number}" for number in range(20)]

    async def story() -> None:
        async with borrowing(own) as one, borrowing(own) as other:
            first, second = writer_of(one), writer_of(other)
            answers = await asyncio.gather(
                *(tell(first, program_id, facts) for program_id in PROGRAMS),
                *(tell(second, program_id, facts[::-1]) for program_id in reversed(PROGRAMS)),
            )
            log = await logged(own)
            assert len(log) == len(PROGRAMS) * len(facts)
            assert {answer for some in answers for answer in some} == set(log)
            await first.close(1)
            await second.close(1)

    asyncio.run(story())


def test_a_writer_that_closes_cuts_off_what_the_database_holds_up(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is answered and no task is left, whether their append is under way, alone or with others, or behind one that is. What had
    been sent may be recorded yet: told again, it counts once."""
    monkeypatch.setattr(appending, "PATIENCE_S", 0.0)

    async def story() -> None:
        async with borrowing(own) as connect, await psycopg.AsyncConnection.connect(own) as holder:
            writer = writer_of(connect)
            await asyncio.gather(*(writer.submit(program_id, Tell("one"), "ann") for program_id in PROGRAMS))
            await holder.execute("lock table fenrun.entries in share mode")
            own_tasks = asyncio.all_tasks()
            telling = [asyncio.create_task(writer.submit(program_id, Tell("two"), "ann")) for program_id in PROGRAMS[:4]]
            await until(lambda: waiting_for_locks(own, 2))
            telling += [asyncio.create_task(writer.submit(program_id, Tell("two"), "ann")) for program_id in PROGRAMS[4:]]
            await asyncio.sleep(0)
            await writer.close(0)
            assert [type(error) for error in await asyncio.gather(*telling, return_exceptions=True)] == [Unavailable] * len(PROGRAMS)
            assert asyncio.all_tasks() <= own_tasks
            await holder.rollback()
            again = writer_of(connect)
            await asyncio.gather(*(again.submit(program_id, Tell("two"), "ann") for program_id in PROGRAMS))
            assert [entry[:2] for entry in await logged(own)] == [
                (program_id, fact_id) for program_id in PROGRAMS for fact_id in ("one", "two")
            ]
            await again.close(1)

    asyncio.run(story())
