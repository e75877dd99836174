"""The writer: one per program and process. It takes whatever is waiting as one batch, decides it command by command, appends it once.

No timer: what arrives during an append is the next batch. Where many wait already, the next batch is decided during the append, and
appended and answered after it. A command that is refused answers for itself. When another process appended first, or the connection broke
so that the outcome is unknown, the batch is decided again from what the log then holds; facts that did get in answer with their first
receipt, because they count once by their own ids.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, cast

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from services.kernel.decider import Answer, Draft, Entry, NotLoaded, Repeated
from services.kernel.refusals import Malformed, Refusal, Unavailable
from services.runtime import eventlog
from services.runtime.appending import Appender
from services.runtime.eventlog import Append, Changes, Connection, Head, HeadMoved
from services.runtime.gathering import Company, Pace, gather
from services.runtime.stored import Stored, entry_of

log = structlog.get_logger()

# Programs that are remembered, and members of all of them together; beyond it the program used longest ago goes. A member takes 330
# to 420 bytes.
PROGRAMS_KEPT, MEMBERS_KEPT = 10_000, 200_000
# For so many seconds after another process wrote to a program its head is held while deciding: what is decided without would be in vain as
# often as not.
SHARED_S = 10.0
# Where so many wait while a batch of so many or more is appended, the next one is decided meanwhile. Where fewer do, more may come until
# then, and a batch costs the database as much by itself as some ten orders do. A writer that never rests leaves little to those who read.
AHEAD = 300
# What another process appended is taken into what is remembered, up to so many entries and bytes; beyond it all is read anew.
UNSEEN, UNSEEN_BYTES = 1000, 4 * 1024 * 1024

# The connection broke, none could be had, or it leads to a server that only reads (a standby, after a failover): what was asked for may
# or may not have happened.
DATABASE_LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
    PoolTimeout,
    OSError,
)


def answer_to(error: Exception) -> Refusal:
    """What a caller is told when the database did not answer, or cannot hold a value it was given (NUL in a text, a number too large)."""
    if isinstance(error, psycopg.DataError | ValueError):
        return Malformed("request", f"a value cannot be stored: {str(error).partition(chr(10))[0]}")
    return Unavailable("the database cannot be reached; repeat the call, every fact counts once")


class Participant(Protocol):
    """A service, as the writer sees it."""

    name: str
    handles: frozenset[type]

    def alone(self, command: Any) -> bool:
        """Whether a command must be decided in a batch of its own."""
        ...

    def people(self, command: Any) -> Iterable[str]:
        """Members whom a command may put above somebody, so that every service of the batch has them at hand."""
        ...

    async def load(self, connection: Connection, head: Head, commands: Sequence[Any], people: Collection[str], kept: Any) -> Any:
        """The state that deciding these commands needs, as of the head. `people` are those named by the whole batch, in any service.

        `kept` is what `keep` left of an earlier state, evolved to the head, or None.
        """
        ...

    async def look_up(
        self,
        connection: Connection,
        before: Head,
        head: Head,
        commands: Sequence[Any],
        people: Collection[str],
        kept: Any,
        folding: Collection[str],
    ) -> None:
        """Takes into `kept`, which is as of the head, what `load` would read, as far as it can while what leads from `before` to the head
        is being appended. That may be there or not: what a function in `folding` changes is read together with the head that it is of."""
        ...

    def keep(self, state: Any) -> int:
        """Cuts a state down to what the next load may begin with; how many members, and what costs as much, it holds then. 0: none."""
        ...

    def decide(self, state: Any, command: Any) -> Answer:
        """Drafts or the entry recorded before. Raises Refusal, NotLoaded."""
        ...

    def evolve(self, state: Any, entry: Entry) -> None:
        """Takes an entry of the batch into the state."""
        ...

    def next_version(self, state: Any, stream: str) -> int:
        """The version that the next entry of a stream gets."""
        ...

    def write(self, draft: Draft) -> tuple[str, bytes, bytes]:
        """(stored name, fact, decision)."""
        ...

    def read(self, stored: Stored) -> Entry:
        """An entry in this service's own dataclasses."""
        ...

    def changes(self) -> Changes:
        """An empty collection of changes to this service's inline views."""
        ...


class Outcome(NamedTuple):
    """What became of a command: the entries that tell its fact, committed. `repeated`: they were there before."""

    program_id: str
    entries: tuple[Entry, ...]
    repeated: bool
    # Head of the log when this was decided.
    position: int


@dataclass(slots=True)
class _Waiting:
    command: Any
    actor: str
    answer: "asyncio.Future[Outcome | Refusal]"


@dataclass(slots=True)
class _Queue:
    waiting: deque[_Waiting] = field(default_factory=deque)
    # The batch under way.
    taken: list[_Waiting] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None
    # Given once so many wait that they are decided ahead.
    enough: "asyncio.Future[None] | None" = None
    # Calls that came since a batch was taken. While company is likely, an empty queue is kept.
    calls: int = 0
    company: Company = field(default_factory=Company)

    def take(self, most: int) -> list[_Waiting]:
        """Up to so many of those who wait; they are under way from now on."""
        found = [self.waiting.popleft() for _ in range(min(len(self.waiting), most))]
        self.taken += found
        return found

    def give_back(self, batch: Sequence[_Waiting]) -> None:
        """Those who were taken last wait again, before all others."""
        self.waiting.extendleft(reversed(batch))
        del self.taken[len(self.taken) - len(batch) :]


class _Decided(NamedTuple):
    """What a batch comes to: an answer for each command decided, the head and states after them, what must be appended before they hold."""

    batch: Sequence[_Waiting]
    answers: Sequence[Outcome | Refusal]
    before: Head
    after: Head
    states: dict[str, Any]
    append: Append | None


@dataclass(slots=True)
class _Left:
    """A program as this process left it: the head, and the states of participants there."""

    head: Head
    states: dict[str, Any] = field(default_factory=dict)
    members: int = 0


Connect = eventlog.Connect


class Writer:
    """Takes commands for any program; programs are independent of one another. Bound to the event loop that submits.

    It remembers where it left each log, and of whom it knew what, and decides from there without asking. Whoever else appended meanwhile,
    or rebuilt a view, is noticed when this one appends: the head is compared. Only an answer without an append has to ask. From then on the
    two take turns: who decides holds the head, and first takes in what the other appended.
    """

    def __init__(
        self,
        connect: Connect,
        participants: Sequence[Participant],
        now_us: Callable[[], int],
        batch_limit: int,
        retry_for_s: float,
        appended: Callable[[str], None] = lambda program_id: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connect = connect
        self._participants = tuple(participants)
        self._by_command = {handled: participant for participant in participants for handled in participant.handles}
        self._now_us = now_us
        self._batch_limit = batch_limit
        self._retry_for_s = retry_for_s
        self._appended = appended
        self._sleep = sleep
        self._queues: dict[str, _Queue] = {}
        # Programs as this process left them, the one used last at the end.
        self._left: dict[str, _Left] = {}
        self._members_kept = 0
        # Programs that another process wrote to lately, and until when this one holds their heads while it decides.
        self._shared: dict[str, float] = {}
        self._appender = Appender(connect, DATABASE_LOST)

    async def submit(self, program_id: str, command: Any, actor: str) -> Outcome:
        """Decides and records one command. Raises its Refusal."""
        [answer] = await self.submit_all(program_id, [command], actor)
        if isinstance(answer, Refusal):
            raise answer
        return answer

    async def submit_all(self, program_id: str, commands: Sequence[Any], actor: str) -> list[Outcome | Refusal]:
        """Decides and records commands in the order given; each is answered for itself."""
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(program_id, _Queue())
        waiting = [_Waiting(command, actor, loop.create_future()) for command in commands]
        queue.waiting.extend(waiting)
        queue.calls += 1
        if queue.enough and len(queue.waiting) >= AHEAD:
            _give(queue.enough)
        if queue.task is None:
            queue.task = loop.create_task(self._drain(program_id, queue))
        return [await item.answer for item in waiting]

    async def close(self, within_s: float) -> None:
        """Waits until everything submitted is answered, but no longer than this; what the database still holds up then is cut off."""
        tasks = [queue.task for queue in self._queues.values() if queue.task]
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=within_s)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        # Of a task that was cut off before it took them.
        for queue in self._queues.values():
            while queue.waiting:
                item = queue.waiting.popleft()
                if not item.answer.done():
                    item.answer.set_exception(Unavailable("the server is stopping"))
        await self._appender.close()

    async def _drain(self, program_id: str, queue: _Queue) -> None:
        ahead: _Decided | None = None
        try:
            await queue.company.wait(queue.waiting, self._batch_limit)
            while queue.waiting or ahead:
                queue.taken = [*ahead.batch] if ahead else []
                try:
                    batch = ahead.batch if ahead else queue.take(self._batch_limit)
                    queue.company.came(queue.calls)
                    queue.calls = 0
                    ahead = await self._settle(program_id, batch, queue, ahead)
                except BaseException as error:
                    ahead = None
                    # A bug, or the process is stopping: nobody may wait for ever.
                    bug = isinstance(error, Exception)
                    for item in queue.taken if bug else (*queue.taken, *queue.waiting):
                        if not item.answer.done():
                            item.answer.set_exception(error if bug else Unavailable("the server is stopping"))
                    if not bug:
                        queue.waiting.clear()
                        raise
                if ahead is None:
                    await gather(queue.waiting, self._batch_limit)
        finally:
            queue.task = None
            if not queue.waiting and not queue.company.likely:
                self._queues.pop(program_id, None)

    async def _settle(
        self, program_id: str, batch: Sequence[_Waiting], queue: _Queue, decided: _Decided | None = None, one_by_one: bool = False
    ) -> _Decided | None:
        """Answers every command of a batch, in one append if it can, in more if it must. `decided`: what it came to while the batch before
        was appended.

        Gives the next batch where that was decided meanwhile; never of a batch that is taken `one_by_one`, whose rest comes first.
        """
        loop = asyncio.get_running_loop()
        waited_s, pause_s = 0.0, 0.01
        ahead: _Decided | None = None
        while batch:
            began_s, known = loop.time(), self._recall(program_id)
            doubtful = known is not None or decided is not None
            try:
                if decided is None and self._is_shared(program_id):
                    batch = [*batch]
                    done = await self._attempt_holding(program_id, batch, known, queue)
                else:
                    given, decided = decided or await self._decide_now(program_id, batch, known), None
                    done = len(given.answers)
                    ahead = await self._append(given, queue, rest=one_by_one or done < len(batch))
                batch, waited_s, pause_s = batch[done:], 0.0, 0.01
            except HeadMoved:
                # Another process is writing too. The next attempts hold the head while they decide, so that they cannot lose again.
                self._share(program_id)
            except DATABASE_LOST as error:
                # An attempt may have waited for a connection itself.
                waited_s += loop.time() - began_s
                if waited_s >= self._retry_for_s:
                    # Who waited behind this batch has waited as long: nobody waits the same time twice.
                    batch = [*batch, *queue.waiting]
                    queue.waiting.clear()
                    log.error("writer.database_unreachable", program_id=program_id, commands=len(batch), error=str(error))
                    for item in batch:
                        _resolve(item, answer_to(error))
                    return None
                log.warning("writer.retrying", program_id=program_id, commands=len(batch), error=str(error))
                await self._sleep(pause_s)
                waited_s, pause_s = waited_s + pause_s, min(pause_s * 2, 1.0)
            except Exception as error:
                if doubtful:
                    # What was loaded may be newer than the head that was remembered, and not fit it.
                    continue
                if isinstance(error, Refusal):
                    for item in batch:
                        _resolve(item, error)
                    return None
                if len(batch) == 1 and isinstance(error, psycopg.DataError):
                    log.warning(
                        "writer.unstorable", program_id=program_id, command=type(batch[0].command).__name__, error=type(error).__name__
                    )
                    _resolve(batch[0], answer_to(error))
                    return None
                if len(batch) == 1:
                    log.exception("writer.command_failed", program_id=program_id, command=type(batch[0].command).__name__)
                    if not batch[0].answer.done():
                        batch[0].answer.set_exception(error)
                    return None
                # One of them is at fault; alone, each answers for itself.
                for item in batch:
                    await self._settle(program_id, [item], queue, one_by_one=True)
                return None
        return ahead

    async def _decide_now(self, program_id: str, batch: Sequence[_Waiting], known: _Left | None) -> _Decided:
        """Decides as many of a batch as can go together, at least one."""
        # Given back before appending: who holds one must not wait for another.
        async with _Borrowing(self._connect) as borrowing:
            connection = cast(Connection, borrowing)
            before = known.head if known else await eventlog.head(connection, program_id)
            return await self._decide(connection, before, batch, known)

    async def _append(self, decided: _Decided, queue: _Queue, rest: bool) -> _Decided | None:
        """Appends and answers what was decided; gives the next batch where that was decided meanwhile. `rest`: others come before that."""
        if decided.append is None or rest or max(len(decided.batch), len(queue.waiting)) < AHEAD:
            await self._append_all(decided)
            self._remember(decided)
            return None
        ahead: _Decided | None = None
        appending = asyncio.create_task(self._append_all(decided))
        try:
            if await _enough(queue, appending):
                ahead = await self._decide_ahead(decided, queue, appending)
            await appending
        except BaseException:
            appending.cancel()
            await asyncio.gather(appending, return_exceptions=True)
            if ahead:
                queue.give_back(ahead.batch)
            raise
        if ahead is None:
            self._remember(decided)
        return ahead

    async def _append_all(self, decided: _Decided) -> None:
        if decided.append:
            await self._appender.append(decided.append)
        self._answer(decided)

    async def _decide_ahead(self, before: _Decided, queue: _Queue, appending: "asyncio.Future[None]") -> _Decided | None:
        """Decides the next batch as if what is being appended were there. None: it waits again, and is decided once that is true."""
        batch = queue.take(self._batch_limit)
        known = self._left_after(before)
        before.states.clear()
        try:
            # Given back before waiting for what is appended: that may be waiting for one.
            async with _Borrowing(self._connect) as connection:
                await self._look_up(cast(Connection, connection), before, batch, known)
            async with _Borrowing(self._connect, appending) as connection:
                decided = await self._decide(cast(Connection, connection), before.after, batch, known)
        except Exception as error:
            log.info("writer.decided_in_vain", program_id=before.after.program_id, commands=len(batch), error=type(error).__name__)
            queue.give_back(batch)
            return None
        done = len(decided.answers)
        queue.give_back(batch[done:])
        return decided._replace(batch=batch[:done])

    async def _look_up(self, connection: Connection, before: _Decided, batch: Sequence[_Waiting], known: _Left) -> None:
        """What deciding a batch needs and what is being appended leaves as it is."""
        assert before.append is not None, "it is being appended"
        folding = {fold.function for fold in before.append.folds}
        commands, people = self._told(batch)
        for participant in self._participants:
            if participant.name in commands and participant.name in known.states:
                kept = known.states[participant.name]
                await participant.look_up(connection, before.before, before.after, commands[participant.name], people, kept, folding)

    def _told(self, batch: Sequence[_Waiting]) -> tuple[dict[str, list[Any]], set[str]]:
        """The commands of a batch by participant, and the people they name."""
        commands: dict[str, list[Any]] = {}
        people: set[str] = set()
        for item in batch:
            participant = self._by_command[type(item.command)]
            commands.setdefault(participant.name, []).append(item.command)
            people.update(participant.people(item.command))
        return commands, people

    async def _attempt_holding(self, program_id: str, batch: list[_Waiting], known: _Left | None, queue: _Queue) -> int:
        """Decides and appends while nobody else can append; returns how many were answered, at least one. Whoever came while it waited for
        the head joins the batch, unless somebody who came before them waits for a batch of their own."""
        async with self._connect() as connection, connection.transaction():
            before = await eventlog.head(connection, program_id, lock=True)
            if batch[-1] is queue.taken[-1]:
                batch += queue.take(self._batch_limit - len(batch))
            if known and known.head != before:
                self._share(program_id)
                known = await self._caught_up(connection, known, before)
            decided = await self._decide(connection, before, batch, known)
            if decided.append:
                await eventlog.append(connection, *decided.append)
        self._answer(decided)
        self._remember(decided)
        return len(decided.answers)

    async def _caught_up(self, connection: Connection, known: _Left, head: Head) -> _Left | None:
        """What was remembered, with what others have appended since; None where that is another log, or too much."""
        unseen = head.position - known.head.position
        if known.head.rebuilt != head.rebuilt or not 0 < unseen <= UNSEEN:
            return None
        last, *entries = await eventlog.read_batch(connection, head.program_id, known.head.position - 1, unseen + 1, UNSEEN_BYTES)
        if last.hash != known.head.hash or len(entries) < unseen:
            return None
        taking_part = [participant for participant in self._participants if participant.name in known.states]
        for participant in taking_part:
            for stored in entries:
                participant.evolve(known.states[participant.name], participant.read(stored))
        return _Left(head, {one.name: known.states[one.name] for one in taking_part if one.keep(known.states[one.name])})

    def _answer(self, decided: _Decided) -> None:
        """Only now is everything committed."""
        for item, answer in zip(decided.batch, decided.answers, strict=False):
            _resolve(item, answer)
        if decided.after.position > decided.before.position:
            self._appended(decided.after.program_id)

    def _share(self, program_id: str) -> None:
        now = asyncio.get_running_loop().time()
        self._shared = {other: until_s for other, until_s in self._shared.items() if until_s > now}
        self._shared[program_id] = now + SHARED_S

    def _is_shared(self, program_id: str) -> bool:
        return program_id in self._shared and self._shared[program_id] > asyncio.get_running_loop().time()

    def _recall(self, program_id: str) -> "_Left | None":
        """What is remembered of a program, and no longer is: whatever fails from here on was decided from something doubtful."""
        left = self._left.pop(program_id, None)
        if left is not None:
            self._members_kept -= left.members
        return left

    def _left_after(self, decided: _Decided) -> _Left:
        left, states = _Left(decided.after), decided.states
        for participant in self._participants:
            members = participant.keep(states[participant.name]) if participant.name in states else 0
            if members:
                left.states[participant.name] = states[participant.name]
                left.members += members
        return left

    def _remember(self, decided: _Decided) -> None:
        left = self._left[decided.after.program_id] = self._left_after(decided)
        self._members_kept += left.members
        while self._members_kept > MEMBERS_KEPT or len(self._left) > PROGRAMS_KEPT:
            self._recall(next(iter(self._left)))

    async def _decide(self, connection: Connection, head: Head, batch: Sequence[_Waiting], known: "_Left | None") -> _Decided:
        """Decides as many of a batch as can go together. Without `known` the head was read just now."""
        states: dict[str, Any] = dict(known.states) if known else {}
        if self._by_command[type(batch[0].command)].alone(batch[0].command):
            # It looks at everything of some kind; what others left would only be in its way.
            batch, states = batch[:1], {}
        commands, people = self._told(batch)
        taking_part = [participant for participant in self._participants if participant.name in commands]
        for participant in taking_part:
            kept = states.get(participant.name)
            states[participant.name] = await participant.load(connection, head, commands[participant.name], people, kept)
        changes = {participant.name: participant.changes() for participant in self._participants}
        now, expected, stored_entries = self._now_us(), head, []
        answers: list[Outcome | Refusal] = []
        # Whoever reads, or calls for another program, need not wait for the whole batch; and where one is decided after the other, not for
        # ever.
        pace = Pace(by_halves=True)
        for item in batch:
            await pace.step()
            participant = self._by_command[type(item.command)]
            state = states[participant.name]
            if answers and participant.alone(item.command):
                break
            try:
                answer = participant.decide(state, item.command)
            except Refusal as refusal:
                answers.append(refusal)
                continue
            except NotLoaded:
                if not answers:
                    await _still_at(connection, expected)
                    raise
                break
            if isinstance(answer, Repeated):
                answers.append(Outcome(head.program_id, (answer.entry, *answer.more), True, head.position))
                continue
            try:
                written = [participant.write(draft) for draft in answer]
            except ValueError as error:
                # protobuf holds 64-bit numbers and text that UTF-8 can write; Python's are larger.
                answers.append(answer_to(error))
                continue
            entries = []
            for draft, bytes_ in zip(answer, written, strict=True):
                version = participant.next_version(state, draft.stream)
                stored = eventlog.store(head, draft, version, bytes_, item.actor, now)
                head = eventlog.after(head, stored)
                stored_entries.append(stored)
                for other in self._participants:
                    entry = entry_of(stored, draft.fact, draft.decision) if other is participant else other.read(stored)
                    if other is participant:
                        entries.append(entry)
                    if entry.fact is not None:
                        changes[other.name].add(entry)
                    if other.name in states:
                        other.evolve(states[other.name], entry)
            answers.append(Outcome(head.program_id, tuple(entries), False, head.position))
        if stored_entries:
            append = Append(expected, stored_entries, [fold for one in changes.values() for fold in one.folds()])
            return _Decided(batch, answers, expected, head, states, append)
        if known or any(isinstance(answer, Refusal) for answer in answers):
            # The state was read in several statements. An append would have noticed what came in between; a refusal must notice it too.
            await _still_at(connection, expected)
        else:
            # Nobody has asked whether what was read is as of the head: it is not remembered.
            states = {}
        return _Decided(batch, answers, expected, head, states, None)


class _Borrowing:
    """Borrows a connection with the first statement: where everything is remembered there is none. All that loads uses is `execute`.

    With `after` nothing is read before that is done, and nothing if it fails.
    """

    def __init__(self, connect: Connect, after: "asyncio.Future[None] | None" = None) -> None:
        self._connect = connect
        self._after = after
        self._lent: AbstractAsyncContextManager[Connection] | None = None
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._connection is not None and self._lent is not None:
            await self._lent.__aexit__(kind, error, traceback)

    async def execute(self, *arguments: Any, **options: Any) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        if self._connection is None:
            if self._after is not None:
                # Looked at only: whoever appends waits for it as well.
                await asyncio.wait([self._after])
                self._after.result()
            self._lent = self._connect()
            self._connection = await self._lent.__aenter__()
        return await self._connection.execute(*arguments, **options)


async def _enough(queue: _Queue, appending: "asyncio.Future[None]") -> bool:
    """Whether so many wait that they are decided ahead; False once there is nothing to be ahead of."""
    # What is to be appended sets out first.
    await asyncio.sleep(0)
    if len(queue.waiting) < AHEAD and not appending.done():
        enough = queue.enough = asyncio.get_running_loop().create_future()
        appending.add_done_callback(lambda _: _give(enough))
        try:
            await enough
        finally:
            queue.enough = None
    return not appending.done()


def _give(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _resolve(item: _Waiting, answer: Outcome | Refusal) -> None:
    if not item.answer.done():
        item.answer.set_result(answer)


async def _still_at(connection: Connection, head: Head) -> None:
    """Raises HeadMoved when somebody appended since `head` was read."""
    if await eventlog.head(connection, head.program_id) != head:
        raise HeadMoved
