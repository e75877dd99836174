"""What follows the log, and the process that does: kept apart from composition.py, so that it begins quickly and holds little."""

import asyncio
import socket
from collections.abc import Callable
from typing import NamedTuple

from services.audit.projection import Tree
from services.runtime.beside import belong_to_server, listen
from services.runtime.following import AT_ONCE, Followed, Follower
from services.runtime.process import configure_logging, connections, settle_memory
from services.runtime.writer import Connect
from services.statistics.projection import Statistics

# By the service that offers what it keeps.
FOLLOWED: dict[str, Callable[[], Followed]] = {"statistics": Statistics, "audit": Tree}
# How long batches under way may keep the process from ending.
CLOSING_S = 1


class Following(NamedTuple):
    """What to follow, where, and as whom."""

    dsn: str
    # Of FOLLOWED.
    offers: tuple[str, ...]
    holder: str
    lease_s: float
    log_level: str


def follower_of(given: Following, connect: Connect, moved: Callable[[str], None] = lambda program_id: None) -> Follower:
    return Follower(connect, [FOLLOWED[name]() for name in sorted(given.offers)], given.holder, given.lease_s, moved)


def follow(theirs: socket.socket, given: Following) -> None:
    """Follows for a server, in a process of its own, until the server's end of the socket is closed."""
    belong_to_server()
    configure_logging(given.log_level, for_good=True)
    asyncio.run(_follow(theirs, given))


async def _follow(theirs: socket.socket, given: Following) -> None:
    # One for each batch under way, and one to look for more.
    pool, connect = connections(given.dsn, AT_ONCE + 1)
    await pool.open()
    settle_memory()
    try:
        await listen(theirs, lambda moved: follower_of(given, connect, moved), CLOSING_S)
    finally:
        await pool.close()
