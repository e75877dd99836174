"""Waking whoever waits for news of a program, inside this process. What other processes do is found by looking."""

import asyncio


class Watchers:
    """Wakes those who wait for a program. Bound to the event loop that joins; nothing is lost that happened after `event.clear()`."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}
        self.stopping = asyncio.Event()

    def close(self) -> None:
        """Ends every wait: the server is stopping."""
        self.stopping.set()
        for events in self._events.values():
            for event in events:
                event.set()

    def appended(self, program_id: str) -> None:
        for event in self._events.get(program_id, ()):
            event.set()

    def join(self, program_id: str) -> asyncio.Event:
        event = asyncio.Event()
        self._events.setdefault(program_id, set()).add(event)
        return event

    def leave(self, program_id: str, event: asyncio.Event) -> None:
        events = self._events.get(program_id, set())
        events.discard(event)
        if not events:
            self._events.pop(program_id, None)
