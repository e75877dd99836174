"""The writer between its callers and a database that fails: no refusal from a torn read, nobody waits twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from services.kernel.decider import Answer, Entry, Repeated
from services.kernel.refusals import PayoutExceedsAvailable, Unavailable
from services.runtime import eventlog, gathering
from services.runtime.eventlog import Head
from services.runtime.gathering import CHANCES, TURNS
from services.runtime.writer import Writer


@dataclass(frozen=True)
class Ask:
    number: int


class Refusing:
    """A participant that refuses everything, and counts how often it was asked. A stand-in for a service, not for the writer."""

    name = "refusing"
    handles: frozenset[type] = frozenset({Ask})

    def __init__(self) -> None:
        self.asked = 0

    def alone(self, command: Any) -> bool:
        return False

    def people(self, command: Any) -> tuple[str, ...]:
        return ()

    async def load(self, connection: Any, head: Head, commands: Any, people: Any, kept: Any) -> None:
        return None

    def keep(self, state: Any) -> int:
        return 0

    def decide(self, state: Any, command: Any) -> Answer:
        self.asked += 1
        raise PayoutExceedsAvailable("bo", 0, self.asked)

    def __getattr__(self, name: str) -> Any:
        if name == "changes":
            return lambda: None
        raise AttributeError(name)


@asynccontextmanager
async def nowhere() -> AsyncIterator[Any]:
    yield _Transactions()


class _Transactions:
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield


def test_a_refusal_from_a_state_that_changed_while_it_was_read_is_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server appended between two of our reads: what we were about to refuse may be recorded by now."""
    positions = iter([5, 6, 6, 6])

    async def head(connection: Any, program_id: str, lock: bool = False) -> Head:
        position = next(positions)
        return Head(program_id, "CNY", position, position.to_bytes(32), 0)

    monkeypatch.setattr(eventlog, "head", head)
    refusing = Refusing()

    async def story() -> list[Any]:
        return await Writer(nowhere, [refusing], lambda: 0, 500, 1).submit_all("p", [Ask(1)], "ann")

    [answer] = asyncio.run(story())
    assert isinstance(answer, PayoutExceedsAvailable)
    assert answer.metadata["given"] == "2"


def test_when_the_database_stays_away_everybody_waiting_is_told_at_once() -> None:
    """Three batches wait; the two behind the first do not wait the whole time again."""

    @asynccontextmanager
    async def lost() -> AsyncIterator[Any]:
        raise psycopg.OperationalError("gone")
        yield

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def story() -> list[Any]:
        # Every pause counts towards the time waited, though none is slept.
        return await Writer(lost, [Refusing()], lambda: 0, 2, 3, sleep=sleep).submit_all("p", [Ask(n) for n in range(6)], "ann")

    answers = asyncio.run(story())
    assert [type(answer) for answer in answers] == [Unavailable] * 6
    assert 3 <= sum(slept) < 5


class Repeating(Refusing):
    """Has recorded everything before, and says what it was given to begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    async def load(self, connection: Any, head: Head, commands: Any, people: Any, kept: Any) -> Any:
        self.kept.append(kept)
        return f"as of {head.position}"

    def keep(self, state: Any) -> int:
        return 1

    def decide(self, state: Any, command: Any) -> Answer:
        return Repeated(Entry(1, "s", 1, 0, 0, b"", None, None))


def test_what_was_read_and_never_compared_with_the_head_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is repeated is answered without asking whether somebody appended between the reads. Where that entry is lost in a failover, the
    head is as it was, and people would be as they never were."""

    async def head(connection: Any, program_id: str, lock: bool = False) -> Head:
        return Head(program_id, "CNY", 5, bytes(32), 0)

    monkeypatch.setattr(eventlog, "head", head)
    repeating = Repeating()

    async def story() -> None:
        writer = Writer(nowhere, [repeating], lambda: 0, 500, 1)
        for number in range(3):
            await writer.submit("p", Ask(number), "ann")

    asyncio.run(story())
    # The second time the head was remembered, and so was compared.
    assert repeating.kept == [None, None, "as of 5"]


class Stumbling(Refusing):
    """Refuses what it is asked, in the order asked, and breaks at number 2."""

    def __init__(self) -> None:
        super().__init__()
        self.decided: list[int] = []

    def decide(self, state: Any, command: Ask) -> Answer:
        if command.number == 2:
            raise ZeroDivisionError
        self.decided.append(command.number)
        raise PayoutExceedsAvailable("bo", 0, command.number)


def test_nobody_who_came_later_is_decided_before_a_batch_that_is_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process writes too, a batch takes in whoever came while it waited for the head."""

    async def head(connection: Any, program_id: str, lock: bool = False) -> Head:
        return Head(program_id, "CNY", 5, bytes(32), 0)

    monkeypatch.setattr(eventlog, "head", head)
    stumbling = Stumbling()

    async def story() -> list[Any]:
        writer = Writer(nowhere, [stumbling], lambda: 0, 3, 1)
        writer._share("p")
        return list(await asyncio.gather(*(writer.submit("p", Ask(number), "ann") for number in range(1, 6)), return_exceptions=True))

    answers = asyncio.run(story())
    assert [type(answer) for answer in answers] == [PayoutExceedsAvailable, ZeroDivisionError, *[PayoutExceedsAvailable] * 3]
    # Number 1 once in the batch that broke, then each in turn.
    assert stumbling.decided == [1, 1, 3, 4, 5]


class Batching(Repeating):
    """Has recorded everything before, and says how many commands came together."""

    async def load(self, connection: Any, head: Head, commands: Any, people: Any, kept: Any) -> Any:
        self.kept.append(len(commands))
        return f"as of {head.position}"


def test_after_company_the_first_command_waits_for_others_and_soon_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def head(connection: Any, program_id: str, lock: bool = False) -> Head:
        return Head(program_id, "CNY", 5, bytes(32), 0)

    monkeypatch.setattr(eventlog, "head", head)
    monkeypatch.setattr(gathering, "COMPANY_S", 3600.0)
    batching = Batching()

    async def story() -> list[list[int]]:
        writer = Writer(nowhere, [batching], lambda: 0, 500, 1)

        async def told(numbers: range, turns: int) -> list[int]:
            """How many were decided together, of commands that come so many turns of the event loop after one another."""
            batching.kept.clear()
            callers = []
            for number in numbers:
                callers.append(asyncio.create_task(writer.submit("p", Ask(number), "ann")))
                for _ in range(turns):
                    await asyncio.sleep(0)
            await asyncio.gather(*callers)
            return [*batching.kept]

        first, together, after = await told(range(3), 9), await told(range(3), 0), await told(range(3), 9)
        # Each is answered before the next one comes.
        await told(range(CHANCES), 3 * TURNS)
        # One call of many is no company.
        await writer.submit_all("p", [Ask(1), Ask(2), Ask(3)], "ann")
        return [first, together, after, await told(range(3), 9)]

    first, together, after, later = asyncio.run(story())
    assert together == [3]
    assert after == [3], "each waited for the others"
    assert first == later == [1, 1, 1], "nobody knew of the others"


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_whoever_waits_for_company_when_the_writer_stops_is_told_so(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    async def head(connection: Any, program_id: str, lock: bool = False) -> Head:
        return Head(program_id, "CNY", 5, bytes(32), 0)

    monkeypatch.setattr(eventlog, "head", head)

    async def story() -> None:
        writer = Writer(nowhere, [Batching()], lambda: 0, 500, 1)
        await asyncio.gather(*(writer.submit("p", Ask(number), "ann") for number in (1, 2)))
        waiting = asyncio.create_task(writer.submit("p", Ask(3), "ann"))
        for _ in range(1 + turns):
            await asyncio.sleep(0)
        await writer.close(0)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(story())
