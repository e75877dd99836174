"""Waiting for company without a timer."""

import asyncio
from collections.abc import Sized

# Turns of the event loop that a call takes from the socket, or from an answer, to the queue it waits in.
TURNS = 3


async def gather(waiting: Sized, enough: int) -> None:
    """Lets calls that have come in get as far as the queue, as long as more of them do and until there are enough; none: at once."""
    while 0 < (before := len(waiting)) < enough:
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if len(waiting) == before:
            return
