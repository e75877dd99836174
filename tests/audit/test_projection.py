"""The tree folded in batches, in PostgreSQL: whatever the batches, the same rows; a gap in the log stops it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from random import Random

import psycopg
import pytest

from services import composition
from services.audit import views
from services.audit.domain import merkle
from services.audit.projection import Tree, folding, read
from services.audit.views import TreeIncomplete
from services.runtime.eventlog import COLUMNS, Connection
from services.runtime.migrations import migrate
from services.runtime.stored import Stored
from tests.audit.test_merkle import mth, path, subproof

# Entries in the log of program p.
MOST = 400


def entry(position: int) -> Stored:
    return Stored("p", position, f"s/{position}", 1, "t", None, 0, position, "", b"", b"", sha256(b"%d" % position).digest())


@contextmanager
def connected(dsn: str) -> Iterator[Callable[[Callable[[Connection], Awaitable[object]]], None]]:
    """Runs something in a transaction of its own on a database where the log of program p is there and its tree is empty."""
    migrate(dsn, composition.MIGRATIONS)
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("delete from audit.nodes where program_id = 'p'")
        owner.execute("alter table fenrun.entries disable trigger user")
        owner.execute("delete from fenrun.entries where program_id = 'p'")
        with owner.cursor() as cursor:
            cursor.executemany(
                f"insert into fenrun.entries ({COLUMNS}) values ({', '.join(['%s'] * len(Stored._fields))})".encode(),
                [entry(position) for position in range(1, MOST + 1)],
            )
        owner.execute("alter table fenrun.entries enable trigger user")

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
            run(lambda connection, batch=batch: Tree().fold(connection, {"p": batch}))  # type: ignore[misc]
            at += len(batch)
    assert rows(own_dsn) == sorted(in_memory.rows()["audit.nodes"])


@pytest.mark.parametrize("missing", [2, 16, 17])
def test_a_position_left_out_of_a_batch_stops_the_tree(own_dsn: str, missing: int) -> None:
    with connected(own_dsn) as run:
        run(lambda connection: Tree().fold(connection, {"p": [entry(position) for position in range(1, missing)]}))
        before = rows(own_dsn)
        with pytest.raises(ValueError, match=f"position {missing + 1} cannot be leaf {missing - 1} of the tree"):
            run(lambda connection: Tree().fold(connection, {"p": [entry(missing - 1), entry(missing + 1)]}))
        assert rows(own_dsn) == before


@pytest.mark.parametrize("missing", [16, 32])
def test_a_position_left_out_between_batches_stops_the_tree_where_it_would_have_completed_a_node(own_dsn: str, missing: int) -> None:
    """Elsewhere it is read from the log, as if it had not been left out."""
    with connected(own_dsn) as run:
        run(lambda connection: Tree().fold(connection, {"p": [entry(position) for position in range(1, missing)]}))
        with pytest.raises(TreeIncomplete):
            run(lambda connection: Tree().fold(connection, {"p": [entry(missing + 1)]}))


def test_a_node_that_is_there_already_is_not_made_again(own_dsn: str) -> None:
    with connected(own_dsn) as run:
        run(lambda connection: Tree().fold(connection, {"p": [entry(position) for position in range(1, 17)]}))
        with pytest.raises(psycopg.IntegrityError):
            run(lambda connection: Tree().fold(connection, {"p": [entry(16)]}))


def test_every_root_and_proof_is_the_definition_s(own_dsn: str) -> None:
    """Also around powers of two, and whether what a proof needs is kept or hashed from entries."""
    log = [entry(position).hash for position in range(1, 131)]

    async def compare(connection: Connection) -> None:
        await Tree().fold(connection, {"p": [entry(position) for position in range(1, len(log) + 1)]})
        for size in (*range(1, 41), *range(47, 50), *range(62, 67), *range(126, 131)):
            assert await views.hashes_of(connection, "p", [merkle.perfect(0, size)]) == [mth(log[:size])]
            # Of long logs some, at both ends and around what is kept.
            for at in range(size) if size <= 40 else (0, 1, 14, 15, 16, 17, size // 2, size - 17, size - 16, size - 2, size - 1):
                found = await views.hashes_of(connection, "p", merkle.inclusion_parts(at, size))
                assert found == path(at, log[:size]), f"leaf {at} of {size}"
                found = await views.hashes_of(connection, "p", merkle.consistency_parts(at + 1, size))
                assert found == subproof(at + 1, log[:size], True), f"{at + 1} to {size}"

    with connected(own_dsn) as run:
        run(compare)


def test_an_entry_that_is_not_in_the_log_is_missing_in_the_tree(own_dsn: str) -> None:
    with connected(own_dsn) as run, pytest.raises(TreeIncomplete, match=f"number {MOST} of level 0"):
        run(lambda connection: views.nodes(connection, "p", [merkle.Node(0, MOST - 1), merkle.Node(0, MOST)]))
