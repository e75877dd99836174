"""Sharing the event loop: who waits for company, for how long, and who lets others have a turn."""

import asyncio

import pytest

from services.runtime import gathering
from services.runtime.gathering import TURNS, Pace, gather


async def arrive(waiting: list[int], number: int, turns: int) -> None:
    """One after the other, each some turns after the one before."""
    for one in range(number):
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.append(one)


@pytest.mark.parametrize(
    ("first", "turns", "enough", "found"),
    [
        pytest.param(0, 1, 50, 0, id="nobody waits, so nobody is waited for"),
        pytest.param(1, TURNS - 1, 50, 21, id="as long as more come"),
        pytest.param(1, 3 * TURNS, 50, 1, id="no longer"),
        pytest.param(9, 1, 9, 9, id="there are enough"),
    ],
)
def test_company_is_waited_for_as_long_as_more_of_it_comes(
    monkeypatch: pytest.MonkeyPatch, first: int, turns: int, enough: int, found: int
) -> None:
    monkeypatch.setattr(gathering, "COMPANY_S", 3600.0)

    async def story() -> int:
        waiting = [-1] * first
        arriving = asyncio.create_task(arrive(waiting, 20, turns))
        await gather(waiting, enough)
        gathered = len(waiting)
        await arriving
        return gathered

    assert asyncio.run(story()) == found


def test_company_is_not_waited_for_beyond_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside long work a turn may take as long as work goes on at a stretch."""
    monkeypatch.setattr(gathering, "COMPANY_S", -1.0)

    async def story() -> int:
        waiting = [-1]
        arriving = asyncio.create_task(arrive(waiting, 20, 1))
        await gather(waiting, 50)
        gathered = len(waiting)
        await arriving
        return gathered

    assert asyncio.run(story()) < 3


@pytest.mark.parametrize(("stretch_s", "seen"), [(-1.0, list(range(10))), (3600.0, [10])])
def test_long_work_lets_others_have_a_turn_between_its_steps(monkeypatch: pytest.MonkeyPatch, stretch_s: float, seen: list[int]) -> None:
    """What another task sees of the work: every step of it, or nothing until it is done."""
    monkeypatch.setattr(gathering, "STRETCH_S", stretch_s)
    done: list[int] = []

    async def watch() -> list[int]:
        found = []
        for _ in range(10):
            found.append(len(done))
            await asyncio.sleep(0)
        return found

    async def story() -> list[int]:
        watching = asyncio.create_task(watch())
        pace = Pace()
        for number in range(10):
            await pace.step()
            done.append(number)
        return await watching

    assert sorted(set(asyncio.run(story()))) == seen


@pytest.mark.parametrize(
    ("by_halves", "turn_s", "turns"),
    [
        pytest.param(False, 0.0001, 1, id="one turn"),
        pytest.param(True, 0.0001, 5, id="as long as the work has held the loop"),
        pytest.param(True, 0.003, 1, id="a long turn is enough"),
        pytest.param(True, 0.00001, 1, id="others have nothing to do"),
    ],
)
def test_others_have_as_many_turns_as_they_need_of_work_that_goes_by_halves(by_halves: bool, turn_s: float, turns: int) -> None:
    """How many turns of so many seconds another task has in one step of the work, by a clock that only turns move on."""

    async def story() -> int:
        clock_s, had = 0.0, 0
        asyncio.get_running_loop().time = lambda: clock_s  # type: ignore[method-assign]  # asyncio's own way to tell the time

        async def work_on() -> None:
            nonlocal clock_s, had
            while True:
                had, clock_s = had + 1, clock_s + turn_s
                await asyncio.sleep(0)

        pace = Pace(by_halves)
        await pace.step()
        assert had == 0, "it has not held the loop for long"
        clock_s = gathering.STRETCH_S * 1.5
        working = asyncio.create_task(work_on())
        await pace.step()
        found = had
        await pace.step()
        assert had == found, "a new stretch has begun"
        working.cancel()
        return found

    assert asyncio.run(story()) == turns
