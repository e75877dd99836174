"""Making checkpoints: every so many entries or so many seconds, by the server that follows a program with the tree.

A checkpoint is a promise that what it covers never changes, so none is signed before the tree has been proven to go on from the last one:
the last in the database, and the last in the directory, which the database's owner does not have. Otherwise it is refused, and stays
refused until somebody has found out what happened: `fenrun audit status` and the log of the server say so.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import structlog

from services.audit import signing, views
from services.audit.domain import merkle
from services.audit.domain.checkpoint import Checkpoint, NoteMalformed, checkpoint, origin_of
from services.audit.domain.merkle import Node, ProofInvalid
from services.audit.projection import NAME
from services.audit.publishing import CannotPublish, Directory
from services.audit.signing import Keys, NotTrusted, SigningKey
from services.audit.views import Made, TreeIncomplete
from services.kernel.chain import GENESIS, entry_hash
from services.runtime import eventlog
from services.runtime.eventlog import Connection, array
from services.runtime.following import reached
from services.runtime.writer import DATABASE_LOST, Connect

log = structlog.get_logger()

# How often programs are looked at for a checkpoint that is due, in seconds; how many, beside those this server appended to.
POLL_S = 0.5
SWEEP_PAGE = 1000
# Where many are due at once, such as after a night, the checkpointer rests for so many times as long as a checkpoint took, so that orders
# do not wait for checkpoints; but no longer than that all of them can be made in half the time after which the next are due.
REST = 10
# Checkpoints made between two looks: what has grown by many entries meanwhile need not wait for all others.
DUE_AT_ONCE = 100
# A program this server appended to is looked at until its checkpoint is due by time, and so much longer, in seconds.
LATELY_S = 10.0
# How long a program whose checkpoint was refused is left alone, in seconds.
REFUSED_PAUSE_S = 30.0
TIMEOUT_S = 30


class Inconsistent(Exception):
    """The log or its tree is not what was signed before; `str()` says what differs."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When a checkpoint is due: after `entries` entries, or with the first entry `seconds` after the last checkpoint."""

    entries: int
    seconds: float


class Checkpointer:
    """Makes checkpoints for as long as it runs. Bound to one event loop. `holder` is this server's name in leases."""

    def __init__(
        self, connect: Connect, keys: Keys, directory: Directory | None, policy: Policy, holder: str, now_us: Callable[[], int]
    ) -> None:
        assert keys.signing is not None
        self._connect = connect
        self._key: SigningKey = keys.signing
        self._keys = keys
        self._directory = directory
        self._policy = policy
        self._holder = holder
        self._now_us = now_us
        # Programs to look at each time, until when.
        self._lately: dict[str, float] = {}
        self._later: dict[str, float] = {}
        self._swept_to = ""
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def appended(self, program_id: str) -> None:
        """A program's log or its tree has grown."""
        self._lately[program_id] = asyncio.get_running_loop().time() + self._policy.seconds + LATELY_S

    async def close(self, within_s: float) -> None:
        """Stops after the checkpoint under way, but no later than this."""
        self._closing.set()
        if self._task is not None:
            _, left = await asyncio.wait([self._task], timeout=within_s)
            for task in left:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        # When all that are due now should be made.
        until: float | None = None
        while not self._closing.is_set():
            try:
                due = await self._due()
                until = until or loop.time() + self._policy.seconds / 2
                for number, program_id in enumerate(due[:DUE_AT_ONCE], start=1):
                    if self._closing.is_set():
                        break
                    began = loop.time()
                    await self._one(program_id)
                    if left := len(due) - number:
                        took_s = loop.time() - began
                        await self._rest(min(REST * took_s, (until - loop.time()) / left - took_s))
                if len(due) > DUE_AT_ONCE:
                    continue
            except DATABASE_LOST as error:
                log.warning("checkpoint.database_unreachable", error=str(error))
            except Exception:
                log.exception("checkpoint.failed")
            until = None
            await self._rest(POLL_S)

    async def _rest(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), seconds)

    async def _due(self) -> list[str]:
        """Programs of the next page, and those this process appended to, whose checkpoint is due and nobody else's to make; those first
        that have grown most since their last."""
        now = asyncio.get_running_loop().time()
        self._later = {program_id: until for program_id, until in self._later.items() if until > now}
        self._lately = {program_id: until for program_id, until in self._lately.items() if until > now}
        async with asyncio.timeout(TIMEOUT_S), self._connect() as connection:
            cursor = await connection.execute(
                "select program_id from fenrun.followed where projection = %s and program_id > %s order by program_id limit %s",
                [NAME, self._swept_to, SWEEP_PAGE],
            )
            page = [program_id for (program_id,) in await cursor.fetchall()]
            self._swept_to = page[-1] if len(page) == SWEEP_PAGE else ""
            # abs: the clock of whoever made the last one may have been ahead, and time must not stand still until ours has caught up.
            cursor = await connection.execute(
                "select f.program_id, f.position - coalesce(c.size, 0) >= %s or abs(%s - coalesce(c.made_us, 0)) >= %s"
                " from unnest(%s::text[]) as a(program_id)"
                " join fenrun.followed f on f.program_id = a.program_id and f.projection = %s"
                " left join lateral (select size, made_us from audit.checkpoints where program_id = f.program_id"
                " order by size desc limit 1) c on true"
                " where f.position > coalesce(c.size, 0) and (f.holder = %s or f.held_until < clock_timestamp())"
                " order by f.position - coalesce(c.size, 0) desc, 1",
                [
                    self._policy.entries,
                    self._now_us(),
                    int(self._policy.seconds * 1_000_000),
                    array({*self._lately, *page}),
                    NAME,
                    self._holder,
                ],
            )
            found = [program_id for program_id, due in await cursor.fetchall() if due]
        return [program_id for program_id in found if program_id not in self._later]

    async def _one(self, program_id: str) -> None:
        """Makes a program's checkpoint, or says why not."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._connect() as connection, connection.transaction():
                made = await self._make(connection, program_id)
        except (Inconsistent, ProofInvalid, NotTrusted, NoteMalformed, TreeIncomplete, CannotPublish) as error:
            self._later[program_id] = asyncio.get_running_loop().time() + REFUSED_PAUSE_S
            log.error("checkpoint.refused", program_id=program_id, reason=str(error))
            async with self._connect() as connection:
                await connection.execute(
                    "insert into audit.refusals values (%s, %s, %s, now()) on conflict (program_id)"
                    " do update set size = excluded.size, reason = excluded.reason, refused_at = excluded.refused_at",
                    [program_id, await reached(connection, NAME, program_id), str(error).replace("\0", "")],
                )
            return
        if made is not None:
            log.info("checkpoint.made", program_id=program_id, size=made.size)

    async def _make(self, connection: Connection, program_id: str) -> Made | None:
        """The checkpoint of the tree as it stands, signed, published and stored; None where another server is at it.

        Raises Inconsistent, ProofInvalid, NotTrusted, NoteMalformed, TreeIncomplete, CannotPublish, and then made nothing.
        """
        # The follower's own lock: while it is held the tree does not grow, and no other server makes this checkpoint.
        cursor = await connection.execute(
            "select position from fenrun.followed where program_id = %s and projection = %s"
            " and (holder = %s or held_until < clock_timestamp()) for update skip locked",
            [program_id, NAME, self._holder],
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        size, origin = int(row[0]), origin_of(self._key.name, program_id)
        stored = await views.checkpoint(connection, program_id)
        if stored is not None and stored.size == size:
            return None
        root = await tree_of(connection, program_id, size)
        if stored is not None:
            last = signing.open_checkpoint(stored.note.encode(), self._keys.trusted, origin)
            await goes_on_from(connection, program_id, last, size, root, "the last checkpoint in the database")
        note = ""
        for published in await asyncio.to_thread(self._directory.standing, origin, size) if self._directory is not None else ():
            last = signing.open_checkpoint(published, self._keys.trusted, origin)
            await goes_on_from(connection, program_id, last, size, root, "the last checkpoint published")
            if last.size == size:
                # Signed and published before, and the process ended before it was stored.
                note = published.decode()
        made = Made(size, self._now_us(), note)
        if not note:
            made = made._replace(note=str(self._key.sign(str(checkpoint(origin, size, root, made.made_us)))))
        if self._directory is not None:
            await asyncio.to_thread(self._directory.publish, origin, size, made.note)
        await connection.execute("insert into audit.checkpoints values (%s, %s, %s, %s)", [program_id, *made])
        await connection.execute("delete from audit.refusals where program_id = %s", [program_id])
        return made


async def tree_of(connection: Connection, program_id: str, size: int) -> bytes:
    """The root of the tree of a size. Raises Inconsistent, TreeIncomplete.

    The newest entry hashes to what it says, and the newest node that is kept is that of the entries it covers: a log that was exchanged
    under the tree shows there, for every later hash is another then.
    """
    newest = [Node(views.LOWEST, (size >> views.LOWEST) - 1)] if size >> views.LOWEST else []
    nodes = await views.nodes(connection, program_id, [*merkle.perfect(0, size), *newest])
    entries = await eventlog.at(connection, program_id, [size - 1, size])
    if not entries or entries[-1].position != size:
        raise Inconsistent(f"the log has no entry at position {size}, which the tree has reached")
    last = entries[-1]
    previous = entries[0].hash if size > 1 else GENESIS
    own = entry_hash(
        previous,
        last.program_id,
        last.position,
        last.stream,
        last.stream_version,
        last.type,
        last.occurred_us,
        last.recorded_us,
        last.actor,
        last.fact,
        last.decision,
    )
    if own != last.hash:
        raise Inconsistent(f"the entry at position {size} hashes to {own.hex()}, and says {last.hash.hex()}")
    for node in newest:
        positions = range(merkle.leaves_of(node).start + 1, merkle.leaves_of(node).stop + 1)
        covered = await eventlog.hashes(connection, program_id, positions)
        if merkle.root_over([covered[position] for position in positions if position in covered]) != nodes[node]:
            raise Inconsistent(f"the tree has other entries at positions {positions[0]} to {positions[-1]} than the log")
    return merkle.root_of(size, nodes.__getitem__)


async def goes_on_from(connection: Connection, program_id: str, last: Checkpoint, size: int, root: bytes, what: str) -> None:
    """Proves that the tree begins with what a checkpoint covers. Raises Inconsistent, TreeIncomplete."""
    if last.size > size:
        raise Inconsistent(f"{what} covers {last.size} entries, and the log now has {size}: entries are gone")
    proof = await views.hashes_of(connection, program_id, merkle.consistency_parts(last.size, size))
    try:
        merkle.verify_consistency(last.size, last.root, size, root, proof)
    except ProofInvalid as error:
        raise Inconsistent(
            f"the first {last.size} entries are not those that {what} covers: something at or before position {last.size} was changed"
        ) from error


class Standing(NamedTuple):
    """How a program's audit stands: entries in the log and in the tree, the latest checkpoint, a refusal that has not been put right."""

    head_position: int
    tree_size: int
    latest: Made | None
    refusal: tuple[int, str, datetime] | None


async def status(connection: Connection, program_id: str) -> Standing:
    """Raises ProgramUnknown."""
    head = await eventlog.head(connection, program_id)
    cursor = await connection.execute("select size, reason, refused_at from audit.refusals where program_id = %s", [program_id])
    row = await cursor.fetchone()
    latest = await views.checkpoint(connection, program_id)
    return Standing(head.position, await reached(connection, NAME, program_id), latest, (row[0], row[1], row[2]) if row else None)
