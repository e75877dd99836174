"""The tree folded in batches, in PostgreSQL: whatever the batches, the same rows; a gap in the log stops it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from random import Random

import psycopg
import pytest

from services import composition
from services.audit.projection import Tree, folding, read
from services.audit.views import TreeIncomplete
from services.runtime.eventlog import Connection
from services.runtime.migrations import migrate
from services.runtime.stored import Stored


def entry(position: int) -> Stored:
    return Stored("p", position, f"s/{position}", 1, "t", None, 0, position, "", b"", b"", sha256(b"%d" % position).digest())


@contextmanager
def connected(dsn: str) -> Iterator[Callable[[Callable[[Connection], Awaitable[object]]], None]]:
    """Runs something in a transaction of its own on a database where the tree of program p is empty."""
    migrate(dsn, composition.MIGRATIONS)
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("delete from audit.nodes where program_id = 'p'")

    async def work(what: Callable[[Connection], Awaitable[object]]) -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await what(connection)

    yield lambda what: asyncio.run(work(what))


def rows(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as owner:
        return owner.execute("select level, number, hash from audit.nodes where program_id = 'p' order by level, number").fetchall()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_batches_the_rows_are_those_folded_in_memory(own_dsn: str, seed: int) -> None:
    random, entries = Random(seed), [entry(position) for position in range(1, 400)]
    in_memory = folding()
    for one in entries:
        in_memory.add(read(one))
    with connected(own_dsn) as run:
        at = 0
        while at < len(entries):
            batch = entries[at : at + random.choice([1, 2, 3, 64, 150])]
            run(lambda connection, batch=batch: Tree().fold(connection, "p", batch))  # type: ignore[misc]
            at += len(batch)
    assert rows(own_dsn) == sorted(in_memory.rows()["audit.nodes"])


@pytest.mark.parametrize("missing", range(2, 12))
def test_a_position_left_out_stops_the_tree(own_dsn: str, missing: int) -> None:
    with connected(own_dsn) as run:
        run(lambda connection: Tree().fold(connection, "p", [entry(position) for position in range(1, missing)]))
        before = rows(own_dsn)
        with pytest.raises(TreeIncomplete):
            run(lambda connection: Tree().fold(connection, "p", [entry(missing + 1)]))
        with pytest.raises(ValueError, match=f"position {missing + 1} cannot be leaf {missing - 1} of the tree"):
            run(lambda connection: Tree().fold(connection, "p", [entry(missing - 1), entry(missing + 1)]))
        assert rows(own_dsn) == before


def test_an_entry_that_is_there_already_is_not_folded_again(own_dsn: str) -> None:
    with connected(own_dsn) as run:
        run(lambda connection: Tree().fold(connection, "p", [entry(1), entry(2)]))
        with pytest.raises(psycopg.IntegrityError):
            run(lambda connection: Tree().fold(connection, "p", [entry(2)]))
