"""A follower in a process of its own: folding neither holds up those who call, nor shares a processor with them.

The two talk through a socket, a line at a time. The server says to which programs it appended (their ids), and that somebody waits (an
empty line); the follower says in which programs its projections moved. All of it is said to save time: what is not said is found by
looking, as with followers of other servers. When one of the two is gone the socket ends: then the follower ends too, and the server starts
another one.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import structlog

from services.runtime.following import Awaiting, Follower
from services.runtime.writer import Connect

log = structlog.get_logger()

# What was appended to within so many seconds is told in one go: a follower that rests is woken no more often than that.
TOLD_EVERY_S = 0.05
# A follower that is so many bytes behind with listening is told nothing more until it has read them.
UNREAD = 64 * 1024
# Between the end of a follower and the start of the next, in seconds, doubling from the first to the last.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# One that lasted so long was well: the next one that ends is replaced after the first pause again.
WELL_S = 60.0


class FollowerProcess(Awaiting):
    """Starts a follower in another process, and again when that ends. `target` runs there, with the other end of the socket and `given`."""

    def __init__(self, connect: Connect, target: Callable[..., None], given: tuple[Any, ...]) -> None:
        super().__init__(connect)
        self._target, self._given = target, given
        self._process: BaseProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        # Programs it has not been told of yet, and the call that will.
        self._untold: set[str] = set()
        self._telling: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def appended(self, program_id: str) -> None:
        """This process appended to a program."""
        self._untold.add(program_id)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TOLD_EVERY_S, self._tell)

    def hurry(self) -> None:
        self._tell("")

    async def close(self, within_s: float) -> None:
        """Lets the follower finish its batches and give its leases back, but no longer than this."""
        self._closing = True
        self._moved.close()
        if self._telling:
            self._telling.cancel()
        if self._writer:
            self._writer.close()
        if self._process:
            await asyncio.get_running_loop().run_in_executor(None, self._process.join, within_s + 1)
            self._process.kill()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _tell(self, *more: str) -> None:
        writer, lines, self._untold = self._writer, (*self._untold, *more), set()
        if self._telling:
            self._telling.cancel()
            self._telling = None
        if writer and not writer.is_closing() and writer.transport.get_write_buffer_size() < UNREAD:
            writer.write("".join(f"{line}\n" for line in lines).encode())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while not self._closing:
            began_s = loop.time()
            status: int | str | None
            try:
                status = await self._one()
            except OSError as error:
                # No memory, processes or files are left to start it with.
                status = str(error)
            if not self._closing:
                log.error("follower.process_ended", status=status, again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = FIRST_PAUSE_S if loop.time() - began_s > WELL_S else min(pause_s * 2, LONGEST_PAUSE_S)

    async def _one(self) -> int | None:
        """Starts a follower and listens to it until it ends; its exit status. Raises OSError where it cannot be started."""
        loop = asyncio.get_running_loop()
        mine, theirs = socket.socketpair()
        with mine, theirs:
            # Forking would copy what gRPC's threads were in the middle of.
            process = get_context("spawn").Process(target=self._target, args=(theirs, *self._given), name="fenrun-follower", daemon=True)
            await loop.run_in_executor(None, process.start)
            self._process = process
            theirs.close()
            reader, self._writer = await asyncio.open_connection(sock=mine)
            with contextlib.suppress(OSError):
                async for line in reader:
                    self._moved.appended(line.decode().rstrip("\n"))
            self._writer.close()
            await loop.run_in_executor(None, process.join)
        return process.exitcode


async def listen(theirs: socket.socket, make: Callable[[Callable[[str], None]], Follower], within_s: float) -> None:
    """Runs, in the other process, the follower that `make` gives when told whom to tell of what moved, until the server's end is closed."""
    reader, writer = await asyncio.open_connection(sock=theirs)

    def moved(program_id: str) -> None:
        if not writer.is_closing() and writer.transport.get_write_buffer_size() < UNREAD:
            writer.write(f"{program_id}\n".encode())

    follower = make(moved)
    follower.start()
    with contextlib.suppress(OSError):
        async for line in reader:
            program_id = line.decode().rstrip("\n")
            if program_id:
                follower.appended(program_id)
            else:
                follower.hurry()
    await follower.close(within_s)
    writer.close()


def belong_to_server() -> None:
    """An interrupt, or a request to end, is the server's to answer; its end of the socket says when it is over."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
