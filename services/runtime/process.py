"""How a process that serves is set up: its log lines, its memory, its connections."""

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from services.runtime.eventlog import Connection

# A pool that cannot connect tries again after 1, 2, 4, … seconds and starts anew after this many: so long at most does it sleep through
# the return of its database.
RECONNECT_S = 5
# So many connections at most are preferred, the first of them most; one that is not there after so many seconds is passed over for a while.
FIRST, FIRST_S = 3, 0.5
# How long it is waited for one of the last, in seconds.
LEND_S = 5.0
# While a database only reads, all connections are replaced after so many seconds at the earliest: whoever reads uses them meanwhile.
RENEW_S = 0.1


class Connections:
    """Up to so many connections, of which the first ones are lent whenever they are free; the last ones are made when they are needed, and
    given up when they are not.

    psycopg's pool lends its connections in turn. A server process of PostgreSQL that has not been asked for a while has to warm up again,
    and one that comes round now and then is never idle for long enough to be given up. So each of the first ones is a pool of its own.
    """

    def __init__(self, dsn: str, most: int) -> None:
        first = min(FIRST, most // 2)
        # Who finds none free waits for one of the last, half of all at least.
        sizes = [*[1] * first, most - first]
        self._free = [*sizes]
        # Until when each is passed over.
        self._missing = [0.0 for _ in sizes]
        # Whether a write has failed since the connections were renewed, because its server only reads; and when that was.
        self._only_reads, self._renewed_s = False, -RENEW_S
        self._pools = [
            AsyncConnectionPool[Connection](
                dsn,
                min_size=0 if number else 1,
                max_size=size,
                timeout=LEND_S,
                reconnect_timeout=RECONNECT_S,
                open=False,
                num_workers=min(size, 3),
                kwargs={"autocommit": True},
            )
            for number, size in enumerate(sizes)
        ]

    async def open(self) -> None:
        for pool in self._pools:
            await pool.open()

    async def close(self) -> None:
        for pool in self._pools:
            await pool.close()

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Lends one while the block lasts. Raises PoolTimeout where there is none for LEND_S."""
        await self._renew()
        try:
            number, connection = await self._lend()
            try:
                async with connection:
                    try:
                        yield connection
                    except psycopg.errors.ReadOnlySqlTransaction:
                        # Its server has become a standby; another connection may lead to the one that took over.
                        await connection.close()
                        raise
            finally:
                try:
                    await self._pools[number].putconn(connection)
                finally:
                    self._free[number] += 1
        except psycopg.errors.ReadOnlySqlTransaction:
            # So may those that were made while it was one; they answer, and only a write would tell.
            self._only_reads = True
            await self._renew()
            raise
        except psycopg.OperationalError:
            # The server may have gone and come back: its other connections are as dead as this one.
            for pool in self._pools:
                with contextlib.suppress(psycopg.Error):
                    await pool.check()
            raise

    async def _renew(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._only_reads and now_s >= self._renewed_s + RENEW_S:
            self._only_reads, self._renewed_s = False, now_s
            for pool in self._pools:
                await pool.drain()

    async def _lend(self) -> tuple[int, Connection]:
        """(of which pool, a connection)"""
        now_s, last = asyncio.get_running_loop().time(), len(self._pools) - 1
        free = [number for number, free in enumerate(self._free) if free > 0]
        # Those that are passed over are better than none.
        number = min(free, key=lambda number: (self._missing[number] > now_s, number), default=last)
        if number < last:
            try:
                return number, await self._take(number, FIRST_S)
            except PoolTimeout:
                # It was lost and does not come back, while others may be there: the server takes no more, perhaps.
                self._missing[number] = now_s + RECONNECT_S
        return last, await self._take(last, LEND_S)

    async def _take(self, number: int, within_s: float) -> Connection:
        self._free[number] -= 1
        try:
            return await self._pools[number].getconn(within_s)
        except BaseException:
            self._free[number] += 1
            raise


def settle_memory() -> None:
    """Tells Python's collector of cycles that a batch of orders is not garbage. For a process that does nothing but serve.

    By its defaults it looks at all objects alive again whenever their number has grown by a quarter, which a batch of 500 orders does many
    times over, and finds nothing: what a call leaves behind is freed by its reference counts. Cycles (errors with their tracebacks) are
    still collected, after more of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def configure_logging(level: str, for_good: bool = False) -> None:
    """One line per event on stderr: for people on a terminal, else JSON. `for_good`: loggers look it up once."""
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        # Plain tracebacks: the pretty ones print every local variable, and those hold what people told us.
        processors.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=for_good,
    )
