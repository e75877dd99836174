"""As of when a read is: which entries of the log its answer counts. docs/as-of.md says what that means for people."""

from typing import Any, NamedTuple

from services.runtime.eventlog import Connection, Head, position_at
from services.runtime.serving import moment, within
from services.runtime.stored import Stored


class AsOf(NamedTuple):
    """The entries at or before `position`, and of these only those that had happened by `occurred_us` (inclusive; None: all of them)."""

    position: int
    occurred_us: int | None = None
    # What was asked, for a page token to be held to; empty: nothing, so the answer is of now.
    asked: str = ""

    def counts(self, stored: Stored) -> bool:
        return stored.position <= self.position and (self.occurred_us is None or stored.occurred_us <= self.occurred_us)


async def as_asked(connection: Connection, now: Head, request: Any) -> AsOf:
    """What a request with `position` or `recorded_at`, and `occurred_at`, asks for. Raises PositionBeyondHead, Malformed."""
    occurred_us = moment("occurred_at", request.occurred_at) if request.HasField("occurred_at") else None
    match request.WhichOneof("as_of"):
        case "position":
            position, book = within(request.position, now.position), f"position {request.position}"
        case "recorded_at":
            recorded_us = moment("recorded_at", request.recorded_at)
            position, book = await position_at(connection, now.program_id, recorded_us), f"recorded {recorded_us}"
        case _:
            position, book = now.position, ""
    return AsOf(position, occurred_us, book if occurred_us is None else f"{book} occurred {occurred_us}")
