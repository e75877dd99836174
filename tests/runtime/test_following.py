"""Followed projections: every entry once, one follower at a time, poison left aside, and nothing waited for without end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from services.composition import MIGRATIONS
from services.kernel.decider import Draft
from services.kernel.refusals import NotFreshEnough
from services.runtime import eventlog, following
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.eventlog import Connection
from services.runtime.following import Follower, Lag, reached
from services.runtime.migrations import migrate
from services.runtime.stored import Stored

SHORTLY_S = 20.0
BATCH = 500
Pool = AsyncConnectionPool[Connection]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database of this module's own: a follower follows every program there is."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("following") / "data", durable=False) as running:
        migrate(running.dsn, MIGRATIONS)
        with psycopg.connect(running.dsn) as connection:
            connection.execute("create schema collected")
            connection.execute(
                "create table collected.entries (projection text, program_id text, position bigint, follower text,"
                " at timestamptz default clock_timestamp(), primary key (projection, program_id, position))"
            )
        yield running.dsn


@pytest.fixture
def dsn(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, as if new; batches are small."""
    monkeypatch.setattr(following, "BATCH", BATCH)
    with psycopg.connect(database) as connection:
        connection.execute("alter table fenrun.entries disable trigger user")
        connection.execute("alter table fenrun.programs disable trigger user")
        connection.execute("truncate collected.entries, fenrun.followed, fenrun.quarantined, fenrun.entries, fenrun.programs")
        connection.execute("alter table fenrun.entries enable trigger user")
        connection.execute("alter table fenrun.programs enable trigger user")
    return database


class Collector:
    """A projection that writes down each entry it is given; `spoil` may raise for one, before or instead of that."""

    name = "collector"
    skips = True

    def __init__(self, follower: str, spoil: Callable[[Stored], None] = lambda stored: None) -> None:
        self._follower = follower
        self.spoil = spoil
        self.batches: list[int] = []

    async def fold(self, connection: Connection, entries: Mapping[str, Sequence[Stored]]) -> None:
        self.batches.append(sum(map(len, entries.values())))
        for program_id, some in entries.items():
            for stored in some:
                self.spoil(stored)
                await connection.execute(
                    "insert into collected.entries values (%s, %s, %s, %s)", [self.name, program_id, stored.position, self._follower]
                )


async def tell(pool: Pool, program_id: str, count: int) -> None:
    """Appends so many entries to a program, which it opens first if need be."""
    async with pool.connection() as connection:
        first = eventlog.store(eventlog.beginning(program_id, "GBP"), Draft("s/0", None, None, 0), 1, ("t", b"fact", b"decision"), "", 1)
        created = await eventlog.create_program(connection, first, "GBP")
        head = before = await eventlog.head(connection, program_id)
        stored = []
        for _ in range(count - created):
            stored.append(eventlog.store(head, Draft(f"s/{head.position}", None, None, 0), 1, ("t", b"fact", b"decision"), "", 1))
            head = head._replace(position=stored[-1].position, hash=stored[-1].hash, recorded_us=stored[-1].recorded_us)
        if stored:
            await eventlog.append(connection, before, stored, [])


@asynccontextmanager
async def following_with(pool: Pool, collector: Collector, lease_s: float = 5) -> AsyncIterator[Follower]:
    follower = Follower(pool.connection, (collector,), collector._follower, lease_s)
    follower.start()
    try:
        yield follower
    finally:
        await follower.close(SHORTLY_S)


async def caught_up(pool: Pool, **heads: int) -> None:
    """Returns once the collectors have come to these positions."""
    async with asyncio.timeout(SHORTLY_S):
        for program_id, position in heads.items():
            while True:
                async with pool.connection() as connection:
                    if await reached(connection, Collector.name, program_id) >= position:
                        break
                await asyncio.sleep(0.01)


async def rows(pool: Pool, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    async with pool.connection() as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def collected(pool: Pool, program_id: str) -> list[int]:
    found = await rows(pool, "select position from collected.entries where program_id = %s order by position", program_id)
    return [position for (position,) in found]


def run(dsn: str, story: Callable[[Pool], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncConnectionPool(dsn, min_size=1, max_size=8, kwargs={"autocommit": True}) as pool:
            await story(pool)

    asyncio.run(main())


# ---------------------------------------------------------------- following


def test_every_entry_of_every_program_comes_once(dsn: str) -> None:
    """From the beginning, in batches, then each new one; also what other processes append."""

    async def story(pool: Pool) -> None:
        await tell(pool, "many", 2 * BATCH + 7)
        await tell(pool, "few", 3)
        collector = Collector("a")
        async with following_with(pool, collector) as follower:
            await caught_up(pool, many=2 * BATCH + 7, few=3)
            assert max(collector.batches) == BATCH
            await tell(pool, "few", 2)
            await caught_up(pool, few=5)
            await tell(pool, "new", 1)
            follower.appended("new")
            await caught_up(pool, new=1)
        assert await collected(pool, "many") == list(range(1, 2 * BATCH + 8))
        assert await collected(pool, "few") == [1, 2, 3, 4, 5]
        assert await collected(pool, "new") == [1]

    run(dsn, story)


@pytest.mark.parametrize(("most_bytes", "batches"), [(23, [1, 1, 1]), (24, [2, 1]), (1, [1, 1, 1]), (100, [3])])
def test_a_batch_holds_as_many_entries_as_fit_and_at_least_one(
    dsn: str, monkeypatch: pytest.MonkeyPatch, most_bytes: int, batches: list[int]
) -> None:
    """An entry here has 12 bytes."""
    monkeypatch.setattr(following, "BATCH_BYTES", most_bytes)

    async def story(pool: Pool) -> None:
        await tell(pool, "p", 3)
        collector = Collector("a")
        async with following_with(pool, collector):
            await caught_up(pool, p=3)
        assert collector.batches == batches
        assert await collected(pool, "p") == [1, 2, 3]

    run(dsn, story)


def test_its_own_process_wakes_it(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that looks by itself when it starts, and never again, follows what it is told of."""
    monkeypatch.setattr(following, "POLL_S", 3600.0)

    async def story(pool: Pool) -> None:
        await tell(pool, "told", 1)
        async with following_with(pool, Collector("a")) as follower:
            await caught_up(pool, told=1)
            for position in (2, 3):
                await tell(pool, "told", 1)
                follower.appended("told")
                await caught_up(pool, told=position)

    run(dsn, story)


async def rounds(pool: Pool, follower: Follower, *names: str) -> None:
    """One and another, each of which would have folded what waits in p."""
    for name in names:
        follower.appended("p")
        await tell(pool, name, 1)
        follower.appended(name)
        await caught_up(pool, **{name: 1})


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little time a batch took, here it rests for an hour; programs rest each by itself."""
    monkeypatch.setattr(following, "REST", 10**9)
    monkeypatch.setattr(following, "LONGEST_REST_S", 3600.0)


@pytest.mark.usefixtures("resting")
def test_it_rests_until_somebody_waits_or_enough_has_come(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "ENOUGH", 4)

    async def story(pool: Pool) -> None:
        await tell(pool, "p", 1)
        async with following_with(pool, Collector("a")) as follower:
            await caught_up(pool, p=1)
            await tell(pool, "p", 3)
            await rounds(pool, follower, "q", "r")
            assert await collected(pool, "p") == [1]
            await tell(pool, "p", 1)
            follower.appended("p")
            await caught_up(pool, p=5)
            await tell(pool, "p", 3)
            await rounds(pool, follower, "s", "t")
            assert await collected(pool, "p") == [1, 2, 3, 4, 5]
            await follower.await_position(Collector.name, "p", 8)

    run(dsn, story)


@pytest.mark.usefixtures("resting")
@pytest.mark.parametrize("here", [True, False], ids=["here", "at another server"])
@pytest.mark.parametrize(("asked_s", "enough"), [(3600.0, 2), (0.0, 4)])
def test_for_a_while_after_somebody_waited_less_is_enough(
    dsn: str, monkeypatch: pytest.MonkeyPatch, asked_s: float, enough: int, here: bool
) -> None:
    monkeypatch.setattr(following, "ENOUGH", 4)
    monkeypatch.setattr(following, "ENOUGH_ASKED", 2)
    monkeypatch.setattr(following, "ASKED_S", asked_s)
    monkeypatch.setattr(following, "PATIENCE_S", SHORTLY_S)

    async def story(pool: Pool) -> None:
        await tell(pool, "p", 1)
        other = Follower(pool.connection, (), "other", 5)
        async with following_with(pool, Collector("a")) as follower:
            await caught_up(pool, p=1)
            await tell(pool, "p", 1)
            await (follower if here else other).await_position(Collector.name, "p", 2)
            await tell(pool, "p", enough - 1)
            await rounds(pool, follower, "q", "r")
            assert await collected(pool, "p") == [1, 2]
            await tell(pool, "p", 1)
            follower.appended("p")
            await caught_up(pool, p=2 + enough)

    run(dsn, story)


class Slow(Collector):
    """Takes a second for one program."""

    async def fold(self, connection: Connection, entries: Mapping[str, Sequence[Stored]]) -> None:
        if "slow" in entries:
            await asyncio.sleep(1)
        await super().fold(connection, entries)


def test_who_took_little_rests_as_long_as_the_round_took(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that take a moment each are many moments together."""
    monkeypatch.setattr(following, "LONGEST_REST_S", 3600.0)
    monkeypatch.setattr(following, "FEW", 0)

    async def story(pool: Pool) -> None:
        await tell(pool, "quick", 1)
        await tell(pool, "slow", 1)
        async with following_with(pool, Slow("a")) as follower:
            await caught_up(pool, quick=1, slow=1)
            await tell(pool, "quick", 1)
            for name in ("p", "q", "r"):
                follower.appended("quick")
                await tell(pool, name, 1)
                follower.appended(name)
                await caught_up(pool, **{name: 1})
            assert await collected(pool, "quick") == [1]
            await follower.await_position(Collector.name, "quick", 2)

    run(dsn, story)


def test_who_waits_at_another_server_ends_the_rest_too(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "REST", 10**9)
    monkeypatch.setattr(following, "LONGEST_REST_S", 3600.0)
    monkeypatch.setattr(following, "PATIENCE_S", SHORTLY_S)

    async def story(pool: Pool) -> None:
        await tell(pool, "p", 1)
        other = Follower(pool.connection, (), "other", 5)
        async with following_with(pool, Collector("a")):
            for position in (1, 2, 3):
                await other.await_position(Collector.name, "p", position)
                assert await rows(pool, "select asked from fenrun.followed") == [(False,)]
                await tell(pool, "p", 1)
        assert await collected(pool, "p") == [1, 2, 3]

    run(dsn, story)


def test_a_follower_that_is_far_behind_does_not_rest(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it would rest, and though no more than ENOUGH are left after one batch or another."""
    monkeypatch.setattr(following, "REST", 10**9)
    monkeypatch.setattr(following, "LONGEST_REST_S", 3600.0)
    monkeypatch.setattr(following, "ENOUGH", BATCH)

    async def story(pool: Pool) -> None:
        await tell(pool, "p", 3 * BATCH + 1)
        collector = Collector("a")
        async with following_with(pool, collector):
            await caught_up(pool, p=3 * BATCH + 1)
        assert collector.batches == [BATCH, BATCH, BATCH, 1]

    run(dsn, story)


def test_programs_in_which_few_entries_wait_share_a_batch(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit; where more wait, a program has a batch of its own."""
    monkeypatch.setattr(following, "TOGETHER", 3)
    monkeypatch.setattr(following, "FEW", 2)

    async def story(pool: Pool) -> None:
        heads = {f"shared-{number}": 1 + number % 2 for number in range(7)} | {"alone": 5}
        for name, position in heads.items():
            await tell(pool, name, position)
        collector = Collector("a")
        async with following_with(pool, collector):
            await caught_up(pool, **heads)
        for name, position in heads.items():
            assert await collected(pool, name) == list(range(1, position + 1))
        # The one by itself, and three, three and one together.
        assert sorted(collector.batches) == sorted([5, 1 + 2 + 1, 2 + 1 + 2, 1])

    run(dsn, story)


def test_of_large_entries_a_shared_batch_takes_as_many_as_fit(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry has 12 bytes of fact and decision here. Whoever is left out comes next, and one that is too large comes alone."""
    for most_bytes in (1, 12, 30):
        monkeypatch.setattr(following, "BATCH_BYTES", most_bytes)

        async def story(pool: Pool, most_bytes: int = most_bytes) -> None:
            heads = {f"{most_bytes}-{name}": 2 for name in "pqr"}
            for name in heads:
                await tell(pool, name, 2)
            collector = Collector("a")
            async with following_with(pool, collector):
                await caught_up(pool, **heads)
            for name in heads:
                assert await collected(pool, name) == [1, 2]
            assert max(collector.batches) == max(1, most_bytes // 12)

        run(dsn, story)


def test_who_does_not_fit_into_a_shared_batch_is_alone_in_the_next(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much those before it go on to tell."""
    monkeypatch.setattr(following, "BATCH_BYTES", 12)

    async def story(pool: Pool) -> None:
        for name in ("busy", "large"):
            await tell(pool, name, 1)
        collector = Collector("a")
        follower = Follower(pool.connection, (collector,), "a", 5)
        lags = [Lag(name, collector.name, False, 1, False) for name in ("busy", "large")]
        assert await follower._together(lags)
        assert [await collected(pool, name) for name in ("busy", "large")] == [[1], []]
        await tell(pool, "busy", 1)
        batches = follower._batches(lags)
        assert sorted(len(some) for some in batches) == [1, 1]
        for some in batches:
            await follower._together(some)
        assert [await collected(pool, name) for name in ("busy", "large")] == [[1, 2], [1]]
        # And shares one again.
        assert follower._batches(lags) == [lags]

    run(dsn, story)


def test_the_sweep_comes_round_to_every_program(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one look covers two of them."""
    monkeypatch.setattr(following, "SWEEP_PAGE", 2)
    monkeypatch.setattr(following, "POLL_S", 0.01)

    async def story(pool: Pool) -> None:
        names = [f"sweep-{number}" for number in range(7)]
        for name in names:
            await tell(pool, name, 1)
        # Without a lease it forgets at once what it has followed.
        async with following_with(pool, Collector("a"), lease_s=0):
            await caught_up(pool, **dict.fromkeys(names, 1))
            # Once round, and again.
            for name in reversed(names):
                await tell(pool, name, 1)
            await caught_up(pool, **dict.fromkeys(names, 2))

    run(dsn, story)


def test_a_read_waits_for_the_position_it_asks_for_but_not_for_ever(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(pool: Pool) -> None:
        await tell(pool, "read", 2)
        idle = Follower(pool.connection, (), "idle", 5)
        with pytest.raises(NotFreshEnough) as refusal:
            await idle.await_position(Collector.name, "read", 2)
        assert refusal.value.metadata == {"position": "2", "head": "0"}
        monkeypatch.setattr(following, "PATIENCE_S", SHORTLY_S)
        waiting = asyncio.create_task(idle.await_position(Collector.name, "read", 2))
        async with following_with(pool, Collector("a")) as follower:
            await waiting
            await tell(pool, "read", 1)
            await follower.await_position(Collector.name, "read", 3)
        assert await collected(pool, "read") == [1, 2, 3]

    monkeypatch.setattr(following, "PATIENCE_S", 0.05)
    run(dsn, story)


# ---------------------------------------------------------------- one at a time


def test_of_two_followers_one_follows_until_it_gives_the_lease_back(dsn: str) -> None:
    """The other has nothing to do meanwhile, though it is told of every entry; then it goes on at once, however long the lease was."""

    async def story(pool: Pool) -> None:
        first, second = Collector("first"), Collector("second")
        async with following_with(pool, first, lease_s=3600) as following_first:
            await tell(pool, "p", 1)
            await caught_up(pool, p=1)
            async with following_with(pool, second) as following_second:
                for position in range(2, 12):
                    await tell(pool, "p", 1)
                    following_second.appended("p")
                    await caught_up(pool, p=position)
                assert second.batches == []
                await following_first.close(SHORTLY_S)
                await tell(pool, "p", 1)
                await caught_up(pool, p=12)
        assert sum(first.batches) == 11
        assert await rows(pool, "select follower from collected.entries where position = 12") == [("second",)]
        assert await collected(pool, "p") == list(range(1, 13))

    run(dsn, story)


def test_the_lease_of_one_that_is_gone_is_taken_over_when_it_has_run_out(dsn: str) -> None:
    async def story(pool: Pool) -> None:
        gone = Follower(pool.connection, (Collector("gone"),), "gone", 0.7)
        gone.start()
        await tell(pool, "p", 1)
        await caught_up(pool, p=1)
        assert gone._task is not None
        gone._task.cancel()
        [(held_until,)] = await rows(pool, "select held_until from fenrun.followed where program_id = 'p'")
        async with following_with(pool, Collector("heir")) as heir:
            await tell(pool, "p", 1)
            heir.appended("p")
            await caught_up(pool, p=2)
        found = await rows(pool, "select follower, at > %s from collected.entries order by position", held_until)
        assert found == [("gone", False), ("heir", True)]

    run(dsn, story)


def test_a_lease_or_a_batch_in_between_keeps_a_follower_from_what_it_was_about_to_do(dsn: str) -> None:
    """It saw a program lag, or an entry poison it; before it gets to work another one takes over."""

    async def story(pool: Pool) -> None:
        late, error = Follower(pool.connection, (), "late", 5), KeyError("x")
        await tell(pool, "p", 2)
        async with pool.connection() as connection:
            first, second = await eventlog.read(connection, "p", 0, 2)
        async with following_with(pool, Collector("a")):
            await caught_up(pool, p=2)
            collector = Collector("late")
            assert await late._batch(collector, ["p"]) == {}
            assert collector.batches == []
        # The lease is given back, and the position is beyond these entries.
        for entry in (first, second):
            await late._quarantine(Lag("p", "collector", False, 2, False), entry, error)
        assert await rows(pool, "select position from fenrun.quarantined") == []
        assert await rows(pool, "select position from fenrun.followed") == [(2,)]

    run(dsn, story)


def test_nobody_waits_for_one_that_is_frozen_in_the_middle_of_a_batch(dsn: str) -> None:
    """It holds its row; other programs go on."""

    async def story(pool: Pool) -> None:
        await tell(pool, "stuck", 2)
        await tell(pool, "free", 2)
        await rows(pool, "insert into fenrun.followed values ('stuck', 'collector', 0, '', '-infinity') returning 1")
        async with pool.connection() as frozen, frozen.transaction():
            await frozen.execute("select from fenrun.followed where program_id = 'stuck' for update")
            async with following_with(pool, Collector("a")):
                await caught_up(pool, free=2)
        async with following_with(pool, Collector("a")):
            await caught_up(pool, stuck=2)
        assert await collected(pool, "stuck") == [1, 2]

    run(dsn, story)


# ---------------------------------------------------------------- what cannot be folded


def test_poison_is_put_aside_and_everything_else_is_folded(dsn: str) -> None:
    """In the middle of full batches, two next to each other, at the very end; for whatever reason the fold gives."""
    poison = {3, 4, BATCH, 2 * BATCH}

    def spoil(stored: Stored) -> None:
        if stored.position in poison:
            raise KeyError(f"no such thing\nas {stored.position}")

    async def story(pool: Pool) -> None:
        await tell(pool, "p", 2 * BATCH)
        async with following_with(pool, Collector("a", spoil)):
            await caught_up(pool, p=2 * BATCH)
            await tell(pool, "p", 1)
            await caught_up(pool, p=2 * BATCH + 1)
        assert await collected(pool, "p") == [position for position in range(1, 2 * BATCH + 2) if position not in poison]
        kept = await rows(pool, "select projection, position, error from fenrun.quarantined order by position")
        assert kept == [("collector", position, "KeyError: 'no such thing\\nas " + f"{position}'") for position in sorted(poison)]

    run(dsn, story)


def test_poison_in_one_program_leaves_those_alone_that_shared_its_batch(dsn: str) -> None:
    def spoil(stored: Stored) -> None:
        if (stored.program_id, stored.position) == ("p1", 2):
            raise KeyError("no such thing")

    async def story(pool: Pool) -> None:
        heads = {f"p{number}": 3 for number in range(4)}
        for name in heads:
            await tell(pool, name, 3)
        async with following_with(pool, Collector("a", spoil)):
            await caught_up(pool, **heads)
        assert [await collected(pool, name) for name in heads] == [[1, 2, 3], [1, 3], [1, 2, 3], [1, 2, 3]]
        assert await rows(pool, "select program_id, position from fenrun.quarantined") == [("p1", 2)]

    run(dsn, story)


def test_a_program_that_the_database_cannot_fold_now_keeps_nobody_back_who_shared_its_batch(dsn: str) -> None:
    """It is tried again by itself, and goes on when the database can."""
    broken = True

    class Breaks(Collector):
        async def fold(self, connection: Connection, entries: Mapping[str, Sequence[Stored]]) -> None:
            await super().fold(connection, entries)
            if broken and "p1" in entries:
                await connection.execute("select from no.such_table")

    async def story(pool: Pool) -> None:
        nonlocal broken
        heads = {f"p{number}": 3 for number in range(4)}
        for name in heads:
            await tell(pool, name, 3)
        async with following_with(pool, Breaks("a")):
            await caught_up(pool, p0=3, p2=3, p3=3)
            assert await collected(pool, "p1") == []
            broken = False
            await caught_up(pool, p1=3)
        assert [await collected(pool, name) for name in heads] == [[1, 2, 3]] * 4

    run(dsn, story)


def test_of_a_shared_batch_only_those_are_folded_that_nobody_else_follows(dsn: str) -> None:
    async def story(pool: Pool) -> None:
        for name in ("p", "q", "r", "s"):
            await tell(pool, name, 2)
        await rows(
            pool,
            "insert into fenrun.followed values ('p', 'collector', 0, 'other', clock_timestamp() + interval '1 hour'),"
            " ('q', 'collector', 0, 'gone', clock_timestamp() - interval '1 hour'), ('r', 'collector', 0, '', '-infinity') returning 1",
        )
        follower, collector = Follower(pool.connection, (), "a", 5), Collector("a")
        async with pool.connection() as held, held.transaction():
            await held.execute("select from fenrun.followed where program_id = 'r' for update")
            assert await follower._batch(collector, ["p", "q", "r", "s"]) == {"q": False, "s": False}
        assert [await collected(pool, name) for name in "pqrs"] == [[], [1, 2], [], [1, 2]]

    run(dsn, story)


def test_a_value_that_the_database_cannot_hold_is_poison(dsn: str) -> None:
    class TooLarge(Collector):
        async def fold(self, connection: Connection, entries: Mapping[str, Sequence[Stored]]) -> None:
            await super().fold(connection, entries)
            if any(stored.position == 2 for stored in entries.get("p", [])):
                await connection.execute("select 9223372036854775807::bigint + 1")

    async def story(pool: Pool) -> None:
        await tell(pool, "p", 3)
        async with following_with(pool, TooLarge("a")):
            await caught_up(pool, p=3)
        assert await collected(pool, "p") == [1, 3]
        assert await rows(pool, "select position, error from fenrun.quarantined") == [(2, "NumericValueOutOfRange: bigint out of range")]

    run(dsn, story)


def test_a_table_that_is_missing_is_not_the_logs_fault(dsn: str) -> None:
    """Nothing goes into quarantine; once the table is back it goes on."""

    async def story(pool: Pool) -> None:
        await tell(pool, "p", 3)
        async with pool.connection() as connection:
            await connection.execute("alter table collected.entries rename to away")
        collector = Collector("a")
        async with following_with(pool, collector):
            async with asyncio.timeout(SHORTLY_S):
                while len(collector.batches) < 2:
                    await asyncio.sleep(0.01)
            async with pool.connection() as connection:
                assert await reached(connection, "collector", "p") == 0
                await connection.execute("alter table collected.away rename to entries")
            await caught_up(pool, p=3)
        assert await collected(pool, "p") == [1, 2, 3]
        assert await rows(pool, "select * from fenrun.quarantined") == []

    run(dsn, story)


def test_a_library_program_is_not_followed(dsn: str) -> None:
    """One without a currency belongs to the eventsourcing library (runtime/recorder.py)."""

    async def story(pool: Pool) -> None:
        await tell(pool, "theirs", 1)
        async with pool.connection() as connection:
            await connection.execute("update fenrun.programs set currency = '' where program_id = 'theirs'")
        await tell(pool, "ours", 1)
        async with following_with(pool, Collector("a")) as follower:
            follower.appended("theirs")
            await caught_up(pool, ours=1)
            await tell(pool, "ours", 1)
            follower.appended("ours")
            await caught_up(pool, ours=2)
        assert await collected(pool, "theirs") == []

    run(dsn, story)
