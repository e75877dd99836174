"""A follower in a process of its own: it follows, is replaced when it ends, and goes when its server goes."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from services.audit.projection import NAME
from services.followers import Following, follow
from services.kernel.refusals import NotFreshEnough
from services.runtime import following
from services.runtime.beside import FollowerProcess
from services.runtime.following import reached
from tests.runtime.test_following import SHORTLY_S, Pool, database, dsn, rows, run, tell

__all__ = ["database", "dsn"]


@asynccontextmanager
async def beside(pool: Pool, dsn: str, lease_s: float = 3600) -> AsyncIterator[FollowerProcess]:
    follower = FollowerProcess(pool.connection, follow, (Following(dsn, ("audit",), "beside", lease_s, "error"),))
    follower.start()
    try:
        yield follower
    finally:
        await follower.close(SHORTLY_S)


def gone(pid: int | None) -> bool:
    assert pid
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_follows_and_gives_its_leases_back_when_it_is_closed(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", SHORTLY_S)

    async def story(pool: Pool) -> None:
        async with beside(pool, dsn) as follower:
            for position in range(1, 4):
                await tell(pool, "p", 1)
                follower.appended("p")
                await follower.await_position(NAME, "p", position)
            process = follower._process
            assert process
        assert gone(process.pid)
        assert await rows(pool, "select position, held_until < now() from fenrun.followed") == [(3, True)]

    run(dsn, story)


def test_one_that_was_killed_is_replaced_and_the_next_goes_on_where_it_was(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", SHORTLY_S)

    async def story(pool: Pool) -> None:
        async with beside(pool, dsn) as follower:
            await tell(pool, "killed", 2)
            await follower.await_position(NAME, "killed", 2)
            first = follower._process
            assert first and first.pid
            with capture_logs() as logs:
                os.kill(first.pid, signal.SIGKILL)
                await tell(pool, "killed", 2)
                # Whoever asks waits for the next one, whose leases are the same server's.
                await follower.await_position(NAME, "killed", 4)
            ended = [line["status"] for line in logs if line["event"] == "follower.process_ended"]
            assert ended == [-signal.SIGKILL]
            assert follower._process is not first

    run(dsn, story)


def test_it_ends_when_the_server_is_gone_without_a_word(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", SHORTLY_S)

    async def story(pool: Pool) -> None:
        async with beside(pool, dsn, 0.5) as follower:
            await tell(pool, "left", 1)
            await follower.await_position(NAME, "left", 1)
            process, task, writer = follower._process, follower._task, follower._writer
            assert process and task and writer
            task.cancel()
            writer.transport.abort()
            async with asyncio.timeout(SHORTLY_S):
                while process.is_alive():
                    await asyncio.sleep(0.02)
            await tell(pool, "left", 1)
            monkeypatch.setattr(following, "PATIENCE_S", 0.05)
            with pytest.raises(NotFreshEnough):
                await follower.await_position(NAME, "left", 2)
        async with pool.connection() as connection:
            assert await reached(connection, NAME, "left") == 1

    run(dsn, story)


def test_one_that_cannot_be_started_is_tried_again_and_said(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", SHORTLY_S)
    pairs = []

    def full_once() -> tuple[socket.socket, socket.socket]:
        pairs.append(1)
        if len(pairs) == 1:
            raise OSError(errno.EMFILE, "too many open files")
        return socketpair()

    socketpair = socket.socketpair

    async def story(pool: Pool) -> None:
        # The event loop has its own pair by now.
        monkeypatch.setattr(socket, "socketpair", full_once)
        with capture_logs() as logs:
            async with beside(pool, dsn) as follower:
                await tell(pool, "full", 1)
                await follower.await_position(NAME, "full", 1)
        ended = [line["status"] for line in logs if line["event"] == "follower.process_ended"]
        assert ended == ["[Errno 24] too many open files"]

    run(dsn, story)
