"""Sharing the event loop: waiting for company without a timer, and not holding it up."""

import asyncio
from collections.abc import Sized

# Turns of the event loop that the next call takes to the queue it waits in, if it has come in: gRPC takes calls from its sockets one after
# the other, in a thread of its own. With three turns, batches of reads had three calls in them where sixty waited.
TURNS = 36
# Beside long work a turn takes as long as a stretch of it, so the next one is waited for no longer than this, in seconds.
COMPANY_S = 0.006
# How often in a row who comes first waits for others in vain.
CHANCES = 3
# How long work goes on at a stretch, in seconds. gRPC takes one call in each turn, so whoever waits, waits for many of these.
STRETCH_S = 0.0005
# A turn of the event loop that took less had nothing in it.
IDLE_S = 0.00003


async def gather(waiting: Sized, enough: int) -> None:
    """Lets calls that have come in get as far as the queue, as long as more of them do and until there are enough; none: at once."""
    now_s = asyncio.get_running_loop().time
    while 0 < (before := len(waiting)) < enough:
        until_s = now_s() + COMPANY_S
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if now_s() > until_s:
                break
        if len(waiting) == before:
            return


class Company:
    """Whether who comes first is waited with for others, where many come one by one.

    If it is answered at once it is answered alone, and then the next one may be, and so on: the others wait in gRPC, which hands over a
    call in about the time that a short statement takes. So after several came together the first one waits too.
    """

    __slots__ = ("_chances",)

    def __init__(self) -> None:
        self._chances = 0

    @property
    def likely(self) -> bool:
        """Whether several came together lately."""
        return self._chances > 0

    async def wait(self, waiting: Sized, enough: int) -> None:
        """Lets others join who has just come in, where that is likely."""
        if self.likely:
            await gather(waiting, enough)

    def came(self, number: int) -> None:
        """So many calls were there together."""
        self._chances = CHANCES if number > 1 else max(0, self._chances - 1)


class Pace:
    """Of long work that is done in steps: between two of them it lets others have a turn, once it has held the event loop long enough.

    `by_halves` for work that may follow on itself without end: as many turns then as others have something to do, for as long as it has
    held the loop itself.
    """

    def __init__(self, by_halves: bool = False) -> None:
        self._now_s = asyncio.get_running_loop().time
        self._by_halves = by_halves
        self._until_s = self._now_s() + STRETCH_S

    async def step(self) -> None:
        now_s = self._now_s()
        if now_s <= self._until_s:
            return
        enough_s = now_s + STRETCH_S
        while True:
            began_s = now_s
            await asyncio.sleep(0)
            now_s = self._now_s()
            if not self._by_halves or now_s >= enough_s or now_s - began_s < IDLE_S:
                break
        self._until_s = now_s + STRETCH_S
