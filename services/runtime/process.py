"""How a process that serves is set up: its log lines, its memory, its connections."""

import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool

from services.runtime.eventlog import Connection
from services.runtime.writer import Connect

# A pool that cannot connect tries again after 1, 2, 4, … seconds and starts anew after this many: so long at most does it sleep through
# the return of its database.
RECONNECT_S = 5


def connections(dsn: str, most: int) -> tuple[AsyncConnectionPool[Connection], Connect]:
    """A pool, still to be opened, of up to so many connections, and how to borrow one of them."""
    pool = AsyncConnectionPool[Connection](
        dsn, min_size=1, max_size=most, timeout=5, reconnect_timeout=RECONNECT_S, open=False, kwargs={"autocommit": True}
    )

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        try:
            async with pool.connection() as connection:
                try:
                    yield connection
                except psycopg.errors.ReadOnlySqlTransaction:
                    # Its server has become a standby; another connection may lead to the one that took over.
                    await connection.close()
                    raise
        except psycopg.OperationalError:
            # The server may have gone and come back: its other connections are as dead as this one.
            with contextlib.suppress(psycopg.Error):
                await pool.check()
            raise

    return pool, connect


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
