"""Work on a whole log beside the server: in a thread and on a connection of its own, because folding is work for the processor and the
server's event loop must go on. Who calls is told how far it has come, and when they leave the work ends."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import psycopg

from services.kernel.refusals import ProgramUnknown
from services.runtime.eventlog import COLUMNS
from services.runtime.stored import Stored

Sync = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")
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


class Threads:
    """Threads for such work."""

    def __init__(self, dsn: str, name: str, at_once: int = 4) -> None:
        self._dsn = dsn
        self._threads = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix=name)

    async def run(self, work: Callable[[Sync], T]) -> T:
        opened: list[Sync] = []
        left = False

        def run() -> T:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                opened.append(connection)
                if left:
                    raise asyncio.CancelledError
                return work(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except asyncio.CancelledError:
            left = True
            # Without its connection the work ends at its next read.
            for connection in opened:
                connection.close()
            raise

    async def follow(self, work: Callable[[Sync, Callable[[int, int], None]], T]) -> AsyncGenerator[Progress | T, None]:
        """How far the work has come, each time it says so, and at the end what it gives. Close it, and the work ends."""
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[Progress | None] = asyncio.Queue()

        def progress(position: int, head: int) -> None:
            loop.call_soon_threadsafe(steps.put_nowait, Progress(position, head))

        task = asyncio.ensure_future(self.run(lambda connection: work(connection, progress)))
        task.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while step := await steps.get():
                yield step
        finally:
            # The caller may have left: nobody waits for the rest.
            task.cancel()
        yield await task
