"""Reads that callers ask for one by one and the database answers many at a time.

Most of what a short read costs is the way to PostgreSQL and back, whether it asks for one row or for fifty. So what is asked while a
statement is under way is asked together by the next one, and after several came together the first waits for company (`gathering`).
There is no timer, and who asks alone, but for three times after that, is answered as soon as ever.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from services.runtime.eventlog import Connection
from services.runtime.gathering import Company, gather
from services.runtime.writer import DATABASE_LOST, Connect

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class _Waiting(NamedTuple, Generic[Asked, Found]):
    asked: Asked
    answer: "asyncio.Future[Found]"


class Together(Generic[Asked, Found]):
    """One kind of read. `read` answers up to `most` of them in their order, for callers who have nothing to do with one another."""

    def __init__(self, connect: Connect, read: Callable[[Connection, Sequence[Asked]], Awaitable[Sequence[Found]]], most: int) -> None:
        self._connect = connect
        self._read = read
        self._most = most
        self._waiting: deque[_Waiting[Asked, Found]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._company = Company()

    async def ask(self, asked: Asked) -> Found:
        """The answer to one read, as of some moment after this call. Raises what reading it alone raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Found] = loop.create_future()
        self._waiting.append(_Waiting(asked, answer))
        if self._task is None:
            self._task = loop.create_task(self._drain())
        return await answer

    async def _drain(self) -> None:
        batch: list[_Waiting[Asked, Found]] = []
        try:
            await self._company.wait(self._waiting, self._most)
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
                self._company.came(len(batch))
                # Who has given up in the meantime is not asked for.
                batch = [one for one in batch if not one.answer.done()]
                if batch:
                    await self._answer(batch)
                await gather(self._waiting, self._most)
        finally:
            self._task = None
            # Nothing is left to cancel, unless this was cut off itself because the server is stopping: nobody may wait for ever.
            for one in (*batch, *self._waiting):
                one.answer.cancel()

    async def _answer(self, batch: Sequence[_Waiting[Asked, Found]]) -> None:
        try:
            async with self._connect() as connection:
                found = await self._read(connection, [one.asked for one in batch])
            answers = list(zip(batch, found, strict=True))
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, DATABASE_LOST):
                # One of them is at fault; alone, each answers for itself.
                for one in batch:
                    await self._answer([one])
                return
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in answers:
            if not one.answer.done():
                one.answer.set_result(answer)
