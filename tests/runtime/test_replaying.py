"""Work on a whole log beside the server: followed while it goes on, ended when nobody waits for it; in a thread, or in a process."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import psycopg
import pytest
from structlog.testing import capture_logs

from services.kernel.refusals import ProjectionUnknown, Unavailable
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


# ---------------------------------------------------------------- in a process of its own


def counting(connection: Sync, last: int, progress: Callable[[int, int], None]) -> tuple[int, int]:
    """Who has counted, and how far."""
    for position in range(1, last + 1):
        progress(position, last)
    row = connection.execute("select %s::int", [last]).fetchone()
    assert row is not None
    return os.getpid(), row[0]


def waiting(connection: Sync, progress: Callable[[int, int], None]) -> None:
    progress(os.getpid(), 0)
    connection.execute("select pg_sleep(60)")


def naming(connection: Sync, name: str) -> None:
    connection.execute(f"select {name}".encode())
    raise LookupError(f"{name} is there")


def refusing(connection: Sync) -> None:
    raise ProjectionUnknown("x", ["log", "y"])


def dying(connection: Sync) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def until_gone(process: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.01)


def test_work_in_a_process_is_followed_step_by_step_to_its_result(dsn: str) -> None:
    async def follow() -> None:
        *steps, found = [step async for step in Threads(dsn, "test").follow_beside(counting, (2,))]
        assert steps == [Progress(1, 2), Progress(2, 2)]
        assert isinstance(found, tuple)
        process, last = found
        assert process != os.getpid()
        assert last == 2
        await until_gone(process)

    asyncio.run(follow())


def test_what_work_in_a_process_raises_is_raised(dsn: str) -> None:
    """Refusals and the database's errors as they are, others as what they say and where."""
    threads = Threads(dsn, "test")
    with pytest.raises(ProjectionUnknown) as caught:
        asyncio.run(threads.run_beside(refusing, ()))
    refused = ProjectionUnknown("x", ["log", "y"])
    assert (str(caught.value), caught.value.metadata) == (str(refused), refused.metadata)
    with pytest.raises(psycopg.errors.UndefinedColumn, match="nowhere"):
        asyncio.run(threads.run_beside(naming, ("nowhere",)))
    with pytest.raises(RuntimeError, match=r"in naming[\s\S]*LookupError: 1 is there"):
        asyncio.run(threads.run_beside(naming, ("1",)))


def test_a_process_that_ends_without_a_word_is_no_answer(dsn: str) -> None:
    with capture_logs() as logs, pytest.raises(Unavailable, match="has ended with status -9; repeat the call"):
        asyncio.run(Threads(dsn, "test").run_beside(dying, ()))
    # Servers of other tests of this process log as well.
    told = [(line["event"], line["status"]) for line in logs if line["event"].startswith("replaying.")]
    assert told == [("replaying.process_ended", -signal.SIGKILL)]


def test_a_process_that_cannot_be_started_is_no_answer(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("too many processes")

    monkeypatch.setattr(BaseProcess, "start", full)
    with pytest.raises(Unavailable, match="too many processes"):
        asyncio.run(Threads(dsn, "test").run_beside(dying, ()))


def test_a_process_ends_when_the_caller_leaves(dsn: str) -> None:
    """Though it waits for the database, which does not say a word."""

    async def leave() -> None:
        steps = Threads(dsn, "test").follow_beside(waiting, ())
        first = await anext(steps)
        assert isinstance(first, Progress)
        await steps.aclose()
        await until_gone(first.position)

    asyncio.run(leave())
