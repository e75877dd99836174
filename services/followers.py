"""What follows the log and makes its checkpoints, and the process for that: apart from composition.py, to begin quickly and hold little."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from services.audit.checkpointing import Checkpointer, Policy
from services.audit.projection import Tree
from services.audit.publishing import Directory
from services.audit.signing import Keys
from services.runtime.beside import belong_to_server, listen
from services.runtime.following import AT_ONCE, Followed, Follower
from services.runtime.process import Connections, configure_logging, settle_memory
from services.runtime.writer import Connect
from services.statistics.projection import Statistics

# By the service that offers what it keeps.
FOLLOWED: dict[str, Callable[[], Followed]] = {"statistics": Statistics, "audit": Tree}
# How long batches under way may keep the process from ending.
CLOSING_S = 1


class Signing(NamedTuple):
    """With what checkpoints are signed, where they are published, and when."""

    keys: Keys
    directory: Directory | None
    policy: Policy


class Following(NamedTuple):
    """What to follow, where, and as whom; and the checkpoints to be made of it."""

    dsn: str
    # Of FOLLOWED.
    offers: tuple[str, ...]
    holder: str
    lease_s: float
    log_level: str
    signs: Signing | None = None


def follower_of(given: Following, connect: Connect, moved: Callable[[str], None] = lambda program_id: None) -> Follower:
    return Follower(connect, [FOLLOWED[name]() for name in sorted(given.offers)], given.holder, given.lease_s, moved)


def now_us() -> int:
    """The book's clock: microseconds since the epoch."""
    return time.time_ns() // 1000


def checkpointer_of(given: Following, connect: Connect) -> Checkpointer | None:
    return Checkpointer(connect, *given.signs, given.holder, now_us) if given.signs else None


def follow(theirs: socket.socket, given: Following) -> None:
    """Follows for a server, in a process of its own, until the server's end of the socket is closed."""
    belong_to_server()
    configure_logging(given.log_level, for_good=True)
    asyncio.run(_follow(theirs, given))


async def _follow(theirs: socket.socket, given: Following) -> None:
    # One for each batch under way, one to look for more, and one to make checkpoints.
    connections = Connections(given.dsn, AT_ONCE + 2)
    connect = connections.connect
    await connections.open()
    settle_memory()
    checkpointer = checkpointer_of(given, connect)

    def make(moved: Callable[[str], None]) -> Follower:
        def grown(program_id: str) -> None:
            moved(program_id)
            if checkpointer:
                checkpointer.appended(program_id)

        return follower_of(given, connect, grown)

    try:
        if checkpointer:
            checkpointer.start()
        await listen(theirs, make, CLOSING_S)
    finally:
        if checkpointer:
            await checkpointer.close(CLOSING_S)
        await connections.close()
