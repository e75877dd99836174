"""The append: it compares what the log ends with, not only how long it is."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from services.composition import MIGRATIONS
from services.kernel.decider import Draft
from services.runtime import eventlog
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.eventlog import Connection, Head, HeadMoved
from services.runtime.migrations import migrate


@pytest.fixture(scope="module")
def dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("eventlog") / "data", durable=False) as running:
        migrate(running.dsn, MIGRATIONS)
        yield running.dsn


async def append(connection: Connection, head: Head, stream: str) -> Head:
    stored = eventlog.store(head, Draft(stream, None, None, 0), 1, ("t", b"fact", b"decision"), "", 1)
    await eventlog.append(connection, head, [stored], [])
    return eventlog.after(head, stored)


def test_a_log_of_the_same_length_with_another_end_is_not_appended_to(dsn: str) -> None:
    """After a restore from a backup another server wrote as many entries: the one that remembers the lost end must not chain to it."""

    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            first = eventlog.store(eventlog.beginning("p", "GBP"), Draft("s/0", None, None, 0), 1, ("t", b"fact", b""), "", 1)
            await eventlog.create_program(connection, first, "GBP")
            shared = await eventlog.head(connection, "p")
            lost = eventlog.after(shared, eventlog.store(shared, Draft("s/lost", None, None, 0), 1, ("t", b"lost", b""), "", 1))
            there = await append(connection, shared, "s/there")
            assert there.position == lost.position
            with pytest.raises(HeadMoved):
                await append(connection, lost, "s/next")
            assert await eventlog.head(connection, "p") == there
            assert (await append(connection, there, "s/next")).position == 3

    asyncio.run(story())


def test_the_head_knows_where_plans_stand_whoever_appended_them(dsn: str) -> None:
    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            first = eventlog.store(eventlog.beginning("plans", "GBP"), Draft("s/0", None, None, 0), 1, ("t", b"fact", b""), "", 1)
            await eventlog.create_program(connection, first, "GBP")
            head = await eventlog.head(connection, "plans")
            for stream in ("plan/a", "planet/x", "plan/b"):
                head = await append(connection, head, stream)
            assert [plan.position for plan in head.plans] == [2, 4]
            assert await eventlog.head(connection, "plans") == head

    asyncio.run(story())
