"""Work on a whole log beside the server: in a thread and on a connection of its own, because folding is work for the processor and the
server's event loop must go on; or in a process of its own, where it is long, because a thread shares Python with that loop. Who calls is
told how far it has come, and when they leave the work ends."""

import asyncio
import contextlib
import gc
import signal
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
import structlog

from services.kernel.refusals import ProgramUnknown, Refusal, Unavailable
from services.runtime.eventlog import COLUMNS
from services.runtime.stored import Stored

log = structlog.get_logger()

Sync = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")
# Called with the position the work has come to, and that of the head.
Progressing = Callable[[int, int], None]
# Entries fetched at a time.
CHUNK = 2000


class Progress(NamedTuple):
    position: int
    head_position: int


def head_position(connection: Sync, program_id: str) -> int:
    """Raises ProgramUnknown."""
    row = connection.execute("select head_position from fenrun.programs where program_id = %s", [program_id]).fetchone()
    if row is None:
        raise ProgramUnknown(program_id)
    return int(row[0])


def entries(
    connection: Sync, program_id: str, last: int, types: Sequence[str] | None = None, after: int = 0, occurred_us: int | None = None
) -> Iterator[Stored]:
    """Every entry after a position and up to `last` (of some types only, or only what had happened by a time), in order."""
    for some in chunks(connection, program_id, last, types, after, occurred_us):
        yield from some


def chunks(
    connection: Sync, program_id: str, last: int, types: Sequence[str] | None = None, after: int = 0, occurred_us: int | None = None
) -> Iterator[list[Stored]]:
    """As `entries`, some at a time, through a server-side cursor so that memory does not grow with the log."""
    with connection.cursor("replay", binary=True) as cursor:
        only, values = "", list[object]()
        if types is not None:
            only, values = " and type = any(%s::text[])", [list(types)]
        if occurred_us is not None:
            only, values = f"{only} and occurred_us <= %s", [*values, occurred_us]
        query = f"select {COLUMNS} from fenrun.entries where program_id = %s and position > %s and position <= %s{only} order by position"
        cursor.execute(query.encode(), [program_id, after, last, *values])
        while rows := cursor.fetchmany(CHUNK):
            yield list(map(Stored._make, rows))


class _Caller:
    """Who waits for some work, as the thread that does it sees them."""

    def __init__(self) -> None:
        self.gone = False
        self._end: Callable[[], None] = lambda: None

    def when_gone(self, end: Callable[[], None]) -> None:
        """What ends the work: called when they leave, or now if they have left."""
        self._end = end
        if self.gone:
            end()

    def leave(self) -> None:
        self.gone = True
        self._end()


class Threads:
    """Threads for such work."""

    def __init__(self, dsn: str, name: str, at_once: int = 4) -> None:
        self._dsn = dsn
        self._threads = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix=name)

    async def run(self, work: Callable[[Sync], T]) -> T:
        def run(caller: _Caller) -> T:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                # Without its connection the work ends at its next read.
                caller.when_gone(connection.close)
                return work(connection)

        return await self._run(run)

    async def run_beside(self, work: Callable[..., T], given: tuple[Any, ...], progress: Progressing | None = None) -> T:
        """What `work`, a function of a module, gives in a process of its own for a connection, what is given and `progress`, if that is
        asked for; all of it goes there and back as bytes. Refusals and the database's errors are raised as they are, others as
        RuntimeError. Raises Unavailable when there is no process, or it ended without a word."""

        def run(caller: _Caller) -> T:
            # Forking would copy what gRPC's threads were in the middle of.
            spawning = get_context("spawn")
            mine, theirs = spawning.Pipe(duplex=False)
            with mine:
                with theirs:
                    process = spawning.Process(target=_beside, args=(theirs, self._dsn, work, given, progress is not None), daemon=True)
                    try:
                        process.start()
                    except OSError as error:
                        raise Unavailable(f"there is no process to read the log with ({error}); repeat the call") from None
                caller.when_gone(process.kill)
                try:
                    while isinstance(told := mine.recv(), Progress):
                        if progress:
                            progress(*told)
                except (EOFError, OSError):
                    process.join()
                    if not caller.gone:
                        log.error("replaying.process_ended", status=process.exitcode)
                    raise Unavailable(f"the process that read the log has ended with status {process.exitcode}; repeat the call") from None
                process.join()
            found, wrong = told
            if wrong is not None:
                raise wrong
            return cast(T, found)

        return await self._run(run)

    async def _run(self, work: Callable[[_Caller], T]) -> T:
        caller = _Caller()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, caller)
        except asyncio.CancelledError:
            caller.leave()
            raise

    def follow(self, work: Callable[[Sync, Progressing], T]) -> AsyncGenerator[Progress | T, None]:
        """How far the work has come, each time it says so, and at the end what it gives. Close it, and the work ends."""
        return self._followed(lambda progress: self.run(lambda connection: work(connection, progress)))

    def follow_beside(self, work: Callable[..., T], given: tuple[Any, ...]) -> AsyncGenerator[Progress | T, None]:
        """The same in a process of its own; see `run_beside`."""
        return self._followed(lambda progress: self.run_beside(work, given, progress))

    async def _followed(self, start: Callable[[Progressing], Coroutine[None, None, T]]) -> AsyncGenerator[Progress | T, None]:
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[Progress | None] = asyncio.Queue()

        def progress(position: int, head: int) -> None:
            loop.call_soon_threadsafe(steps.put_nowait, Progress(position, head))

        task = asyncio.ensure_future(start(progress))
        task.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while step := await steps.get():
                yield step
        finally:
            # The caller may have left: nobody waits for the rest.
            task.cancel()
        yield await task


def _beside(pipe: Pipe, dsn: str, work: Callable[..., Any], given: tuple[Any, ...], followed: bool) -> None:
    """Works in the other process; says how far it has come, and at the end (what came of it, what went wrong)."""
    # An interrupt is the server's to answer, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Millions of small objects without cycles, and the process ends with the work.
    gc.disable()

    def progress(position: int, head: int) -> None:
        pipe.send(Progress(position, head))

    told: tuple[Any, Exception | None]
    # Without the server nobody waits for what comes of it.
    with contextlib.suppress(BrokenPipeError):
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                told = work(connection, *given, *([progress] if followed else [])), None
        except (Refusal, psycopg.Error, BrokenPipeError) as error:
            told = None, error
        except Exception as error:
            # It may not be possible to make it again from what it says.
            told = None, RuntimeError("".join(traceback.format_exception(error)))
        pipe.send(told)
