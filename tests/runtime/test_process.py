"""Connections to the database: as many as asked for, and the same one again and again where one is enough."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from services.runtime import process
from services.runtime.process import Connections


@asynccontextmanager
async def opened(dsn: str, most: int) -> AsyncIterator[Connections]:
    connections = Connections(dsn, most)
    await connections.open()
    try:
        yield connections
    finally:
        await connections.close()


async def together(connections: Connections, count: int) -> set[int]:
    """The server processes that so many have when all have one."""
    everybody = asyncio.Barrier(count)

    async def borrow() -> int:
        async with connections.connect() as connection:
            await everybody.wait()
            return connection.info.backend_pid

    return set(await asyncio.gather(*(borrow() for _ in range(count))))


@pytest.mark.parametrize("most", [1, 2, 3, 4, 10])
def test_as_many_as_asked_for_and_one_where_one_is_enough(dsn: str, most: int) -> None:
    async def story() -> None:
        async with opened(dsn, most) as connections:
            for count in (1, most):
                assert len(await together(connections, count)) == count
            # However many there are by now, and whichever came back last.
            assert len({pid for _ in range(20) for pid in await together(connections, 1)}) == 1

    asyncio.run(story())


@pytest.mark.parametrize("most", [2, 5])
def test_who_finds_none_free_waits_for_one(dsn: str, most: int) -> None:
    async def story() -> None:
        async with opened(dsn, most) as connections:
            lent = [connections.connect() for _ in range(most)]
            pids = [(await one.__aenter__()).info.backend_pid for one in lent]
            waiting = asyncio.create_task(together(connections, 1))
            _, still = await asyncio.wait([waiting], timeout=0.1)
            assert still
            for one in lent:
                await one.__aexit__(None, None, None)
            assert await waiting <= set(pids)

    asyncio.run(story())


def test_after_the_server_was_away_every_connection_is_a_new_one(dsn: str) -> None:
    """One call fails; those that follow do not each find a dead connection of their own."""

    async def story() -> None:
        async with opened(dsn, 5) as connections:
            pids = await together(connections, 5)
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
                await owner.execute("select pg_terminate_backend(pid) from unnest(%s::int[]) as p(pid)", [list(pids)])
            with pytest.raises(psycopg.OperationalError):
                async with connections.connect() as connection:
                    await connection.execute("select 1")
            assert not await together(connections, 5) & pids

    asyncio.run(story())


def test_after_a_standby_took_over_every_connection_is_a_new_one(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that were made while the database only read answer as ever, and every one of them would fail a write."""
    name = "only_reads"

    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
            await owner.execute(f"drop database if exists {name} with (force)")
            await owner.execute(f"create database {name}")
            await owner.execute(f"alter database {name} set default_transaction_read_only = on")
            async with opened(make_conninfo(dsn, dbname=name), 5) as connections:
                pids = await together(connections, 5)
                await owner.execute(f"alter database {name} reset default_transaction_read_only")
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    async with connections.connect() as connection:
                        await connection.execute("create table lost ()")
                assert not await together(connections, 5) & pids
                async with connections.connect() as connection:
                    await connection.execute("create table kept ()")
                # Not with every write that fails, as long as the database only reads, but all of them in the end.
                monkeypatch.setattr(process, "RENEW_S", 1000)
                pids = await together(connections, 5)
                for _ in range(3):
                    async with connections.connect() as connection:
                        await connection.execute("set default_transaction_read_only = on")
                    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                        async with connections.connect() as connection:
                            await connection.execute("create table lost ()")
                    assert len(await together(connections, 5) & pids) == 4
                monkeypatch.setattr(process, "RENEW_S", 0)
                assert not await together(connections, 5) & pids

    asyncio.run(asyncio.wait_for(story(), 30))


def test_one_that_is_lost_and_does_not_come_back_keeps_nobody_from_the_others(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes no more connections: those that are there are used, and the lost one once it takes some again."""
    monkeypatch.setattr(process, "RECONNECT_S", 1)
    name = "no_more"

    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
            await owner.execute(f"drop database if exists {name} with (force)")
            await owner.execute(f"create database {name}")
            async with opened(make_conninfo(dsn, dbname=name), 4) as connections:
                pids = await together(connections, 4)
                [first] = await together(connections, 1)
                await owner.execute(f"alter database {name} allow_connections false")
                await owner.execute("select pg_terminate_backend(%s)", [first])
                with pytest.raises(psycopg.OperationalError):
                    async with connections.connect() as connection:
                        await connection.execute("select 1")
                for _ in range(3):
                    assert await together(connections, 1) < pids - {first}
                assert await together(connections, 3) == pids - {first}
                await owner.execute(f"alter database {name} allow_connections true")
                while (await together(connections, 1)) <= pids:
                    await asyncio.sleep(0.05)
                assert len(await together(connections, 4)) == 4

    asyncio.run(asyncio.wait_for(story(), 30))
