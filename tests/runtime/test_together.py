"""Reads asked one by one: what arrives during a statement is asked by the next, and each is answered for itself."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from services.runtime import gathering
from services.runtime.gathering import CHANCES
from services.runtime.together import Together


@asynccontextmanager
async def nowhere() -> AsyncIterator[Any]:
    yield None


class Reader:
    """Doubles numbers when it is let go on; divides by zero for 0 and loses the database for -1. Stands in for SQL, not for Together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Event()

    async def read(self, connection: Any, asked: Sequence[int]) -> list[int]:
        self.batches.append(list(asked))
        await self.go_on.wait()
        if -1 in asked:
            raise psycopg.OperationalError("gone")
        return [number * 2 // (number and 1) for number in asked]


def story(told: Callable[[Reader, Together[int, int]], Coroutine[Any, Any, list[Any]]]) -> tuple[list[Any], Reader]:
    async def run() -> tuple[list[Any], Reader]:
        reader = Reader()
        return await told(reader, Together(nowhere, reader.read, 10)), reader

    return asyncio.run(run())


async def turns() -> None:
    """Lets everybody get as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_arrives_during_a_statement_is_asked_together_by_the_next() -> None:
    async def told(reader: Reader, together: Together[int, int]) -> list[Any]:
        callers = []
        for number in range(1, 31):
            callers.append(asyncio.create_task(together.ask(number)))
            await turns()
        assert [len(batch) for batch in reader.batches] == [1], "one alone, and nobody waits for company"
        reader.go_on.set()
        return await asyncio.gather(*callers)

    found, reader = story(told)
    assert found == [2 * number for number in range(1, 31)]
    assert max(map(len, reader.batches)) == 10, "no more than allowed"
    assert len(reader.batches) == 4
    assert sorted(number for batch in reader.batches for number in batch) == list(range(1, 31)), "each is asked once"


def test_one_that_fails_takes_nobody_with_it() -> None:
    async def told(reader: Reader, together: Together[int, int]) -> list[Any]:
        reader.go_on.set()
        return await asyncio.gather(*map(together.ask, (1, 2, 3, 0, 5)), return_exceptions=True)

    (one, two, three, failed, five), _ = story(told)
    assert (one, two, three, five) == (2, 4, 6, 10)
    assert isinstance(failed, ZeroDivisionError)


def test_a_lost_database_is_told_to_everybody_and_asked_again_by_those_who_come_later() -> None:
    async def told(reader: Reader, together: Together[int, int]) -> list[Any]:
        callers = [asyncio.create_task(together.ask(number)) for number in (7, 8, -1)]
        reader.go_on.set()
        first = await asyncio.gather(*callers, return_exceptions=True)
        return [*first, await together.ask(4)]

    found, reader = story(told)
    assert found[-1] == 8
    lost = [number for batch in reader.batches if -1 in batch for number in batch]
    assert len(lost) > 1, "somebody shared a statement with the one that lost the database"
    assert [type(one) for one in found[:3]] == [psycopg.OperationalError if number in lost else int for number in (7, 8, -1)]


def test_who_gives_up_is_not_asked_for_and_holds_nobody_up() -> None:
    async def told(reader: Reader, together: Together[int, int]) -> list[Any]:
        callers = [asyncio.create_task(together.ask(number)) for number in range(1, 9)]
        await turns()
        for caller in callers[:4]:
            caller.cancel()
        await turns()
        reader.go_on.set()
        return await asyncio.gather(*callers, return_exceptions=True)

    found, _ = story(told)
    assert [isinstance(one, asyncio.CancelledError) for one in found] == [True] * 4 + [False] * 4
    assert found[4:] == [10, 12, 14, 16]


def test_whoever_waits_is_let_go_when_the_reading_is_cut_off() -> None:
    async def told(reader: Reader, together: Together[int, int]) -> list[Any]:
        callers = [asyncio.create_task(together.ask(number)) for number in range(1, 31)]
        await turns()
        for task in asyncio.all_tasks() - {asyncio.current_task(), *callers}:
            task.cancel()
        return await asyncio.gather(*callers, return_exceptions=True)

    found, _ = story(told)
    with pytest.raises(asyncio.CancelledError):
        raise found[0]
    assert all(isinstance(one, asyncio.CancelledError) for one in found)


def test_after_company_the_first_one_waits_for_others_and_soon_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "COMPANY_S", 3600.0)

    async def told(reader: Reader, together: Together[int, int]) -> list[Any]:
        reader.go_on.set()

        async def one_by_one(*numbers: int) -> list[int]:
            """As gRPC hands over calls: the next has come a few turns later."""
            callers = []
            for number in numbers:
                callers.append(asyncio.create_task(together.ask(number)))
                for _ in range(5):
                    await asyncio.sleep(0)
            return await asyncio.gather(*callers)

        found = await one_by_one(1, 2, 3)
        assert [len(batch) for batch in reader.batches] == [1, 1, 1], "nobody knew of the others"
        found += await asyncio.gather(together.ask(4), together.ask(5))
        reader.batches.clear()
        for number in range(6, 12, 3):
            found += await one_by_one(number, number + 1, number + 2)
        assert [len(batch) for batch in reader.batches] == [3, 3], "each waited for the others"
        for number in range(12, 12 + CHANCES):
            found.append(await together.ask(number))
        reader.batches.clear()
        found += await one_by_one(20, 21, 22)
        assert [len(batch) for batch in reader.batches] == [1, 1, 1], "nobody came with those before"
        return found

    found, _ = story(told)
    assert found == [2 * number for number in (*range(1, 12), *range(12, 12 + CHANCES), 20, 21, 22)]
