"""Followed projections: kept after the log, in batches, by one server at a time.

For each projection and program there is a tracking row: how far it has come, and who follows it until when (the lease). A batch is one
transaction: it locks the tracking row, reads the entries after its position, folds them into the projection's tables and moves the
position; programs in which only a few entries wait share one. So whatever is killed, and whenever, the rows are those of the position,
neither less nor more; the lease only saves two servers from doing the same work, and nothing would go wrong without it. It is renewed by
each batch and otherwise runs out, so that a program in which nothing happens costs nothing.

A program that lags is found in three ways: this process appended to it (at once); this server followed it lately (every POLL_S); and a
sweep that looks at SWEEP_PAGE programs every POLL_S and begins again at the end, which finds what a server left behind that is gone.

An entry whose fold raises is a poison entry. Programs that shared the batch are then taken one by one, and the batch is halved until the
entry is alone; it is put in quarantine (fenrun.quarantined) and the projection goes on past it: to this projection the entry is not in the
log. An entry that needs it, such as the refund of an order in quarantine, cannot be folded either and follows it there. Verifying leaves
out the same entries, and says how many; rebuilding tries them again. Only the fold's own errors and values that PostgreSQL cannot hold
count as poison. A database that is away, or a table that is missing, is nobody's fault in the log: that is tried again. A projection that
must hold every entry says so (`skips`): nothing of it goes into quarantine, it stands still and is tried again, visibly, until somebody
puts it right.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import psycopg
import structlog

from services.kernel.refusals import NotFreshEnough
from services.runtime import eventlog
from services.runtime.eventlog import Connection, array, integers, texts
from services.runtime.stored import Stored
from services.runtime.watching import Watchers
from services.runtime.writer import DATABASE_LOST, Connect

log = structlog.get_logger()

# Entries folded in one transaction at most: about a second of work.
BATCH = 24_000
# ... and bytes of facts and decisions: a closed period may be one entry of tens of megabytes.
BATCH_BYTES = 8 * 1024 * 1024
# How often a follower looks for what nobody told it of, in seconds.
POLL_S = 0.25
# Programs one look of the sweep covers. 300,000 of them take less than a minute.
SWEEP_PAGE = 2000
# Programs in one batch at most, where so few entries wait in each: what a batch costs whatever it holds is shared, and a thousand programs
# with an order each are a few batches and not a thousand.
TOGETHER, FEW = 64, 32
# Batches under way at once: one folds while another waits for the database.
AT_ONCE = 2
# A batch that takes longer is cut off and tried again; PostgreSQL gives up a little earlier.
BATCH_TIMEOUT_S = 60
# How long a read waits for a projection to come as far as asked: for the batch under way and the one after it.
PATIENCE_S = 4.0
# Pauses after a failure that is not the log's fault, doubling from the first to the last.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
LONGEST_ERROR = 500
# How long the follower rests after a round that left nothing behind, unless somebody waits for a projection: where orders come one by one,
# a batch for each of them costs more than they do; and where they come by the thousand, a row that many of them change is written once.
REST_S = 0.25
# A projection that has nothing left to do in a program rests there for so many times as long as the whole round took, but no longer than
# this: what a batch costs whatever it holds, such as everybody above its buyers, or each of many programs, is then a small part of all
# work ...
REST, LONGEST_REST_S = 10, 4.0
# ... unless so many entries wait; fewer for a while after somebody waited for a projection, for a long batch keeps waiting who asks next.
ENOUGH, ENOUGH_ASKED, ASKED_S = 20_000, 4000, 60.0


class Followed(Protocol):
    """A projection, as the follower sees it."""

    name: str
    # Whether it may go past an entry that it cannot fold.
    skips: bool

    async def fold(self, connection: Connection, entries: Mapping[str, Sequence[Stored]]) -> None:
        """Folds the entries after the position reached in each program, at least one of each, into its tables, inside the caller's
        transaction.

        Entries that mean nothing to it are skipped. Any exception that is not the database's says that one of the entries cannot be
        folded; nothing of the batch is kept then.
        """
        ...


class Lag(NamedTuple):
    program_id: str
    projection: str
    # Somebody else holds the lease.
    taken: bool
    # Entries that it has not folded.
    behind: int
    # Somebody waits, at whichever server.
    asked: bool


class Poisoned(Exception):
    """A batch could not be folded; `entries` are all it held, by program, `error` says why."""

    def __init__(self, entries: Mapping[str, Sequence[Stored]], error: Exception) -> None:
        super().__init__(str(error))
        self.entries = entries
        self.error = error


def describe(error: Exception) -> str:
    """What a quarantined entry's row says of the error: its type and first line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:LONGEST_ERROR].replace("\0", "")


async def reached(connection: Connection, projection: str, program_id: str) -> int:
    """The position a followed projection has come to in a program; 0 before the first batch."""
    cursor = await connection.execute(
        "select position from fenrun.followed where program_id = %s and projection = %s", [program_id, projection]
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _ask(connection: Connection, projection: str, program_id: str) -> None:
    """Says to whoever follows, at another server too, that somebody waits; one who is at a batch need not be told."""
    await connection.execute(
        "update fenrun.followed f set asked = true from (select program_id, projection from fenrun.followed"
        " where program_id = %s and projection = %s and not asked for update skip locked) g"
        " where f.program_id = g.program_id and f.projection = g.projection",
        [program_id, projection],
    )


class Awaiting:
    """What waits for projections, whoever follows with them. Bound to one event loop."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._moved = Watchers()
        self._closing = False

    def hurry(self) -> None:
        """Somebody waits for a projection."""

    async def await_position(self, projection: str, program_id: str, position: int) -> None:
        """Returns once the projection has come to a position, whoever follows it. Raises NotFreshEnough after PATIENCE_S."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        news = self._moved.join(program_id)
        hurried = False
        try:
            while True:
                news.clear()
                async with self._connect() as connection:
                    come_to = await reached(connection, projection, program_id)
                    if come_to < position and hurried:
                        await _ask(connection, projection, program_id)
                left_s = until - loop.time()
                if come_to >= position:
                    return
                if left_s <= 0 or self._closing:
                    raise NotFreshEnough(position, come_to)
                self.hurry()
                hurried = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), min(left_s, POLL_S))
        finally:
            self._moved.leave(program_id, news)


class Follower(Awaiting):
    """Follows every program with every projection, for as long as it runs. Bound to one event loop.

    `holder` names this server in leases and must be no other's; a lease lasts `lease_s` seconds after the last batch. `moved` is told of
    every program in which a projection moved.
    """

    def __init__(
        self,
        connect: Connect,
        projections: Sequence[Followed],
        holder: str,
        lease_s: float,
        moved: Callable[[str], None] = lambda program_id: None,
    ) -> None:
        super().__init__(connect)
        self._tell = moved
        self._projections = {projection.name: projection for projection in projections}
        self._holder = holder
        self._lease_s = lease_s
        self._news = asyncio.Event()
        # Somebody waits for a projection, or the server is stopping.
        self._hurry = asyncio.Event()
        # Programs to look at in the next round, and those to look at with each poll until the time given.
        self._wanted: set[str] = set()
        self._lately: dict[str, float] = {}
        # (projection, program) that are not to be tried before a time: somebody else's, or failing.
        self._later: dict[tuple[str, str], float] = {}
        self._pauses: dict[tuple[str, str], float] = {}
        # Until when (projection, program) rest.
        self._rests: dict[tuple[str, str], float] = {}
        # Which have nothing left to do after the round under way.
        self._done: set[tuple[str, str]] = set()
        # Entries in the next batch, which is the program's own: fewer than BATCH while a poison entry is being looked for.
        self._limits: dict[tuple[str, str], int] = {}
        # Until when somebody else may wait soon, for whichever projection and program.
        self._asked_until = float("-inf")
        self._swept_to = ""
        self._swept_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------- from outside

    def start(self) -> None:
        """Begins to follow, where there is anything to follow with."""
        if self._projections:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def appended(self, program_id: str) -> None:
        """This process appended to a program."""
        if self._task is None:
            return
        self._wanted.add(program_id)
        now = asyncio.get_running_loop().time()
        # While another server follows it, the next poll is soon enough.
        if any(self._later.get((name, program_id), now) <= now for name in self._projections):
            self._news.set()

    def hurry(self) -> None:
        self._hurry.set()

    async def close(self, within_s: float) -> None:
        """Stops after the batches under way, but no later than this, and gives the leases back so that others need not wait for them."""
        self._closing = True
        self._news.set()
        self._hurry.set()
        self._moved.close()
        if self._task is None:
            return
        _, left = await asyncio.wait([self._task], timeout=within_s)
        for task in left:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(*DATABASE_LOST):
            async with asyncio.timeout(within_s), self._connect() as connection:
                await connection.execute("update fenrun.followed set held_until = '-infinity' where holder = %s", [self._holder])

    # ---------------------------------------------------------------- the rounds

    async def _run(self) -> None:
        while not self._closing:
            self._news.clear()
            hurried = self._hurry.is_set()
            self._hurry.clear()
            more = False
            try:
                more = await self._round(hurried)
            except DATABASE_LOST as error:
                log.warning("follower.database_unreachable", error=str(error))
            except Exception:
                log.exception("follower.failed")
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), REST_S)
                if not self._hurry.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), POLL_S)

    async def _round(self, hurried: bool) -> bool:
        """One batch for each program that lags and does not rest; `hurried`: that lags. Gives whether there is more to do at once."""
        now = asyncio.get_running_loop().time()
        asked, self._wanted = self._wanted, set()
        try:
            async with asyncio.timeout(BATCH_TIMEOUT_S), self._connect() as connection:
                if now - self._swept_at >= POLL_S:
                    self._swept_at = now
                    self._lately = {program_id: until for program_id, until in self._lately.items() if until > now}
                    self._rests = {key: until for key, until in self._rests.items() if until > now}
                    asked |= {*self._lately, *(program_id for _, program_id in self._later)}
                    asked |= await self._page(connection)
                lags = await self._lags(connection, asked) if asked else []
        except BaseException:
            self._wanted |= asked
            raise
        lagging = {(lag.projection, lag.program_id) for lag in lags}
        for key in [key for key in self._later if key not in lagging and key[1] in asked]:
            del self._later[key]
        if hurried or any(lag.asked for lag in lags):
            self._asked_until = now + ASKED_S
        enough = ENOUGH_ASKED if now < self._asked_until else ENOUGH
        due = []
        for lag in lags:
            key = (lag.projection, lag.program_id)
            if lag.taken:
                self._later[key] = now + POLL_S
            elif self._later.get(key, now) > now:
                continue
            elif self._rests.get(key, now) > now and lag.behind < enough and not (hurried or lag.asked):
                self._wanted.add(lag.program_id)
            else:
                due.append(lag)
        places = asyncio.Semaphore(AT_ONCE)

        async def together(some: Sequence[Lag]) -> bool:
            async with places:
                return not self._closing and await self._together(some)

        began = asyncio.get_running_loop().time()
        more = any(await asyncio.gather(*map(together, self._batches(due))))
        ended = asyncio.get_running_loop().time()
        rest_s = min(REST * (ended - began), LONGEST_REST_S)
        self._rests |= dict.fromkeys(self._done, ended + rest_s)
        self._done.clear()
        return more

    def _batches(self, due: Iterable[Lag]) -> list[list[Lag]]:
        """Who is folded with whom. Where something failed, poison is looked for or a shared batch left something, a program is alone."""
        batches, open_ = list[list[Lag]](), dict[str, list[Lag]]()
        for lag in due:
            key = (lag.projection, lag.program_id)
            if lag.behind > FEW or key in self._limits or key in self._pauses:
                batches.append([lag])
                continue
            some = open_.get(lag.projection)
            if some is None or len(some) == TOGETHER:
                some = open_[lag.projection] = []
                batches.append(some)
            some.append(lag)
        return batches

    async def _page(self, connection: Connection) -> set[str]:
        """The next programs of the sweep. A program without a currency is the eventsourcing library's own."""
        cursor = await connection.execute(
            "select program_id from fenrun.programs where program_id > %s and currency <> '' order by program_id limit %s",
            [self._swept_to, SWEEP_PAGE],
        )
        found = [program_id for (program_id,) in await cursor.fetchall()]
        self._swept_to = found[-1] if len(found) == SWEEP_PAGE else ""
        return set(found)

    async def _lags(self, connection: Connection, program_ids: Iterable[str]) -> list[Lag]:
        """Which projections are behind the log in these programs."""
        cursor = await connection.execute(
            "select p.program_id, n.projection, coalesce(f.holder <> %s and f.held_until > clock_timestamp(), false),"
            " p.head_position - coalesce(f.position, 0), coalesce(f.asked, false)"
            " from unnest(%s::text[]) as a(program_id) join fenrun.programs p on p.program_id = a.program_id and p.currency <> ''"
            " cross join unnest(%s::text[]) as n(projection)"
            " left join fenrun.followed f on f.program_id = p.program_id and f.projection = n.projection"
            " where p.head_position > coalesce(f.position, 0) order by 1, 2",
            [self._holder, array(program_ids), array(self._projections)],
        )
        return [Lag(*row) for row in await cursor.fetchall()]

    async def _together(self, lags: Sequence[Lag]) -> bool:
        """One batch of one projection in these programs; whether there is more. Never raises but for cancellation."""
        try:
            folded = await self._batch(self._projections[lags[0].projection], [lag.program_id for lag in lags])
        except Poisoned as poisoned:
            if len(lags) > 1:
                # Each by itself, so that only who holds the poison is halved.
                return any([await self._together([lag]) for lag in lags])
            [lag] = lags
            [entries] = poisoned.entries.values()
            if len(entries) > 1:
                self._limits[lag.projection, lag.program_id] = len(entries) // 2
                self._wanted.add(lag.program_id)
                return True
            try:
                await self._quarantine(lag, entries[0], poisoned.error)
            except Exception as error:
                return self._failed(lags, error)
            folded = {lag.program_id: True}
        except Exception as error:
            return self._failed(lags, error)
        now = asyncio.get_running_loop().time()
        for lag in lags:
            more = folded.get(lag.program_id)
            self._folded(lag, more, now)
            if more and len(lags) > 1:
                # It had more than a shared batch takes, in entries or in bytes: others must not keep it out for ever.
                self._limits[lag.projection, lag.program_id] = BATCH
        return any(folded.values())

    def _folded(self, lag: Lag, more: bool | None, now: float) -> None:
        """A batch is over. `more`: there is more to fold; None: somebody else follows this program."""
        key = (lag.projection, lag.program_id)
        self._pauses.pop(key, None)
        self._later.pop(key, None)
        if more is None:
            self._later[key] = now + POLL_S
            return
        self._lately[lag.program_id] = now + self._lease_s
        if key in self._limits:
            self._limits[key] *= 2
            if self._limits[key] >= BATCH:
                del self._limits[key]
        self._moved.appended(lag.program_id)
        self._tell(lag.program_id)
        if more:
            self._wanted.add(lag.program_id)
        else:
            self._done.add(key)

    def _failed(self, lags: Iterable[Lag], error: Exception) -> bool:
        known = isinstance(error, (*DATABASE_LOST, psycopg.Error))
        now = asyncio.get_running_loop().time()
        for lag in lags:
            key = (lag.projection, lag.program_id)
            pause_s = self._pauses.get(key, FIRST_PAUSE_S)
            self._pauses[key] = min(pause_s * 2, LONGEST_PAUSE_S)
            self._later[key] = now + pause_s
            log.warning("follower.retrying", projection=key[0], program_id=key[1], error=describe(error), exc_info=not known)
        return False

    # ---------------------------------------------------------------- one batch

    async def _batch(self, projection: Followed, program_ids: Sequence[str]) -> dict[str, bool]:
        """Folds one batch of these programs; whether more was there to fold in each. Who is missing is followed by somebody else. Raises
        Poisoned, psycopg.Error."""
        async with asyncio.timeout(BATCH_TIMEOUT_S), self._connect() as connection, connection.transaction():
            taken = await self._take(connection, projection.name, program_ids)
            if not taken:
                return {}
            entries: dict[str, list[Stored]]
            if len(taken) == 1:
                [(program_id, (position, _))] = taken.items()
                limit = self._limits.get((projection.name, program_id), BATCH)
                some = await eventlog.read_batch(connection, program_id, position, limit, BATCH_BYTES)
                entries = {program_id: some} if some else {}
            else:
                after = {program_id: position for program_id, (position, _) in taken.items()}
                entries = await eventlog.read_batches(connection, after, FEW, BATCH_BYTES)
            try:
                await projection.fold(connection, entries)
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                if not projection.skips:
                    raise
                raise Poisoned(entries, error) from error
            except (*DATABASE_LOST, psycopg.Error, MemoryError):
                raise
            except Exception as error:
                if not projection.skips:
                    raise
                raise Poisoned(entries, error) from error
            come_to = {program_id: some[-1].position for program_id, some in entries.items()}
            await self._advance(connection, projection.name, come_to)
        # A log that says it is longer and has no entry to give is no reason to try again at once.
        return {program_id: bool(entries) and come_to.get(program_id, position) < head for program_id, (position, head) in taken.items()}

    async def _quarantine(self, lag: Lag, entry: Stored, error: Exception) -> None:
        """Goes past an entry, if the projection still stands before it."""
        async with asyncio.timeout(BATCH_TIMEOUT_S), self._connect() as connection, connection.transaction():
            taken = await self._take(connection, lag.projection, [lag.program_id])
            if lag.program_id not in taken or taken[lag.program_id][0] != entry.position - 1:
                return
            await connection.execute(
                "insert into fenrun.quarantined (program_id, projection, position, error) values (%s, %s, %s, %s)"
                " on conflict (program_id, projection, position) do update set error = excluded.error, quarantined_at = now()",
                [lag.program_id, lag.projection, entry.position, describe(error)],
            )
            await self._advance(connection, lag.projection, {lag.program_id: entry.position})
        log.error(
            "follower.quarantined",
            projection=lag.projection,
            program_id=lag.program_id,
            position=entry.position,
            type=entry.type,
            error=describe(error),
        )

    async def _take(self, connection: Connection, projection: str, program_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Locks the tracking rows; gives the position of each and that of the log. Those are missing of which somebody else holds the lease
        or the row, and nobody waits for them."""
        # What a batch reads, it reads by key. A plan that was made while a table was small must not walk it when it has grown.
        await connection.execute(
            "select set_config('statement_timeout', %s, true), set_config('enable_seqscan', 'off', true)", [f"{BATCH_TIMEOUT_S - 5}s"]
        )
        find: Any = (
            "select f.program_id, f.position, p.head_position from unnest(%s::text[]) as a(program_id)"
            " join fenrun.followed f on f.program_id = a.program_id join fenrun.programs p on p.program_id = f.program_id"
            " where f.projection = %s and (f.holder = %s or f.held_until < clock_timestamp()) for update of f skip locked"
        )
        names = texts(program_ids)
        parameters = [names, projection, self._holder]
        rows = await (await connection.execute(find, parameters)).fetchall()
        if len(rows) < len(program_ids):
            made = await connection.execute(
                "insert into fenrun.followed select program_id, %s, 0, '', '-infinity' from unnest(%s::text[]) as a(program_id)"
                " on conflict do nothing",
                [projection, names],
            )
            if made.rowcount:
                rows = await (await connection.execute(find, parameters)).fetchall()
        return {program_id: (position, head_position) for program_id, position, head_position in rows}

    async def _advance(self, connection: Connection, projection: str, positions: Mapping[str, int]) -> None:
        await connection.execute(
            "update fenrun.followed f"
            " set position = a.position, holder = %s, held_until = clock_timestamp() + make_interval(secs => %s), asked = false"
            " from unnest(%s::text[], %s::bigint[]) as a(program_id, position)"
            " where f.program_id = a.program_id and f.projection = %s",
            [self._holder, self._lease_s, texts(positions), integers(positions.values()), projection],
        )
