"""Appends of different programs that are ready at the same time, in one statement: one round trip and one commit for all of them.

No timer gathers them: what gets ready during an append is the next one. What cannot go with others is appended by itself, beside them: a
program whose head moved or is held by somebody else, and each of those whose statement failed, so that only who is at fault hears of it.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, NamedTuple

import structlog

from services.runtime import eventlog
from services.runtime.eventlog import Append, Connect
from services.runtime.gathering import gather

log = structlog.get_logger()

# What goes with others has at most so many entries, and bytes in them; and so many go together.
ENTRIES, BYTES, TOGETHER = 16, 64 * 1024, 64
# A statement that takes longer is not waited for by those behind it.
PATIENCE_S = 0.1


class _Waiting(NamedTuple):
    append: Append
    answer: "asyncio.Future[None]"


class Appender:
    """Appends for all programs of a process. Bound to the event loop that appends.

    After an error of `lost` nobody knows whether it was committed, so all who went together hear of it.
    """

    def __init__(self, connect: Connect, lost: tuple[type[Exception], ...]) -> None:
        self._connect = connect
        self._lost = lost
        self._waiting: deque[_Waiting] = deque()
        # Stands for the statement that those who wait wait for, and until when. Others may be under way besides.
        self._ahead: object | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, append: Append) -> None:
        """Returns once it is committed. Raises as `eventlog.append` does."""
        if len(append.entries) > ENTRIES or sum(len(entry.fact) + len(entry.decision) for entry in append.entries) > BYTES:
            await self._append(append)
            return
        if self._ahead is None:
            # Nobody to go with: as it is, without another task's turns of the event loop.
            ahead = self._go_ahead()
            try:
                await self._append(append)
            finally:
                self._go_on(ahead)
            return
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(append, answer))
        await answer

    async def close(self) -> None:
        """Cuts off whatever is under way."""
        while self._waiting:
            self._waiting.pop().answer.cancel()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _go_ahead(self) -> object:
        ahead = self._ahead = object()
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._go_on, ahead)
        return ahead

    def _go_on(self, ahead: object) -> None:
        """That statement is not waited for any more."""
        if self._ahead is ahead and self._patience:
            self._patience.cancel()
            self._ahead = self._patience = None
            if self._waiting:
                following = self._go_ahead()
                self._start(self._group()).add_done_callback(lambda _: self._go_on(following))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _group(self) -> None:
        """Appends those who wait, as many as can go together, and lets the next ones come."""
        group = self._take()
        if len(group) == 1:
            await self._alone(*group[0])
        elif group:
            await self._together(group)
        await gather(self._waiting, TOGETHER)

    def _take(self) -> list[_Waiting]:
        """The first who waits, and who can go with it. Nobody else loses their place."""
        group: list[_Waiting] = []
        others: list[_Waiting] = []
        while self._waiting and len(group) < TOGETHER:
            item = self._waiting.popleft()
            # Done: whoever waited was cut off.
            if not item.answer.done():
                (others if group and item.append.functions() != group[0].append.functions() else group).append(item)
        self._waiting.extendleft(reversed(others))
        return group

    async def _together(self, group: list[_Waiting]) -> None:
        appended: set[str] = set()
        try:
            async with self._connect() as connection:
                appended = await eventlog.append_together(connection, [item.append for item in group])
        except self._lost as error:
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        except Exception as error:
            # One of them is at fault, and nothing was written.
            log.info("appending.one_by_one", programs=len(group), error=type(error).__name__)
        except BaseException:
            for _, answer in group:
                answer.cancel()
            raise
        for append, answer in group:
            if answer.done():
                continue
            if append.expected.program_id in appended:
                answer.set_result(None)
            else:
                # It waits for whoever holds its head, or raises what is its own.
                self._start(self._alone(append, answer))

    async def _alone(self, append: Append, answer: "asyncio.Future[None]") -> None:
        try:
            await self._append(append)
        except Exception as error:
            if not answer.done():
                answer.set_exception(error)
        except BaseException:
            answer.cancel()
            raise
        else:
            if not answer.done():
                answer.set_result(None)

    async def _append(self, append: Append) -> None:
        async with self._connect() as connection:
            await eventlog.append(connection, *append)
