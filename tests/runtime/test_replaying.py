"""Work on a whole log beside the server: followed while it goes on, ended when nobody waits for it."""

import asyncio
import threading
from collections.abc import Callable

import psycopg
import pytest

from services.runtime.replaying import Progress, Sync, Threads


def test_work_is_followed_step_by_step_to_its_result(dsn: str) -> None:
    def work(connection: Sync, progress: Callable[[int, int], None]) -> str:
        for position in (1, 2):
            progress(position, 2)
        row = connection.execute("select 'done'").fetchone()
        assert row is not None
        return str(row[0])

    async def follow() -> list[Progress | str]:
        return [step async for step in Threads(dsn, "test").follow(work)]

    assert asyncio.run(follow()) == [Progress(1, 2), Progress(2, 2), "done"]


def test_what_the_work_raises_is_raised(dsn: str) -> None:
    def work(connection: Sync, progress: Callable[[int, int], None]) -> str:
        raise LookupError("nothing there")

    async def follow() -> None:
        async for _ in Threads(dsn, "test").follow(work):
            pass

    with pytest.raises(LookupError, match="nothing there"):
        asyncio.run(follow())


def test_work_ends_at_its_next_read_when_the_caller_leaves(dsn: str) -> None:
    ended = threading.Event()

    def work(connection: Sync, progress: Callable[[int, int], None]) -> None:
        try:
            for position in range(100_000):
                connection.execute("select pg_sleep(0.01)")
                progress(position, 100_000)
        except psycopg.Error:
            ended.set()
            raise

    async def leave() -> None:
        steps = Threads(dsn, "test").follow(work)
        await anext(steps)
        await steps.aclose()
        assert await asyncio.to_thread(ended.wait, 10)

    asyncio.run(leave())
