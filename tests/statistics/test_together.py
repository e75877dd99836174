"""Statistics and tree of several programs folded in shared batches: each program's rows are those it has when it is alone."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import grpc
import psycopg
import pytest

from services.audit.projection import VIEWS as TREE_VIEWS
from services.audit.projection import Tree
from services.composition import RunningServer
from services.runtime import eventlog
from services.runtime.eventlog import Connection
from services.runtime.stored import Stored
from services.statistics.projection import VIEWS, Statistics
from tests.given import Client, line
from tests.ledger.test_found_by_key import SIZES

# Texts that mean something in a PostgreSQL array.
ODD = 'a"b",{c}\\d'


def play(client: Client, number: int) -> None:
    """Alike in all programs and the same ids in each, but other amounts, and not everything happens everywhere."""
    client.publish()
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B"), (ODD, "C")):
        client.enroll(member, referrer)
    for order in range(12 + number):
        client.order(f"o{order}", ("C", ODD)[order % 2], line(1, 1000 * (number + 1) + order))
    if number % 2:
        client.order("later", ODD, line(1, 700), at=3)
        client.correct("k", "C", "A", at=4)
        client.order("last", "C", line(1, 900), at=5)
    client.complete("o1", at=6)
    client.refund("r0", "o0", (1, 1, 500), at=20)
    client.refund("r1", "o1", (1, 1, 1000 * (number + 1) + 1), at=21)


async def rows(connection: Connection, program_id: str) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for view in (*VIEWS, *TREE_VIEWS):
        query = f"select {', '.join(view.columns)} from {view.name} where program_id = %s order by {', '.join(view.columns)}"
        found[view.name] = await (await connection.execute(query.encode(), [program_id])).fetchall()
    return found


async def followed(connection: Connection, names: list[str]) -> bool:
    """Whether the server has come to the end of these programs."""
    cursor = await connection.execute(
        "select count(*) from fenrun.followed f join fenrun.programs p on p.program_id = f.program_id and p.head_position = f.position"
        " where f.program_id = any(%s)",
        [names],
    )
    return await cursor.fetchone() == (2 * len(names),)


@pytest.mark.parametrize("seed", range(3))
def test_programs_folded_together_have_the_rows_of_programs_folded_alone(
    server: RunningServer, channel: grpc.Channel, fresh_program_id: Callable[[], str], seed: int
) -> None:
    random = Random(seed)
    clients = [Client.of_new_program(channel, fresh_program_id()) for _ in range(3)]
    names = [client.program_id for client in clients]
    for number, client in enumerate(clients):
        play(client, number)

    async def refold() -> None:
        async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as connection:
            async with asyncio.timeout(20):
                while not await followed(connection, names):
                    await asyncio.sleep(0.05)
            for client in clients:
                assert client.differences() == []
            async with connection.transaction(force_rollback=True):
                await refold_in(connection)

    async def refold_in(connection: Connection) -> None:
        # So that the server does nothing meanwhile.
        await connection.execute("select from fenrun.followed where program_id = any(%s) for update", [names])
        logs = {name: await eventlog.read(connection, name, 0, 1000) for name in names}
        before = {name: await rows(connection, name) for name in names}
        for view in (*VIEWS, *TREE_VIEWS):
            await connection.execute(f"delete from {view.name} where program_id = any(%s)".encode(), [names])
        statistics, tree, at = Statistics(), Tree(), dict.fromkeys(names, 0)
        while batch := taken(logs, at):
            await statistics.fold(connection, batch)
            await tree.fold(connection, batch)
        assert {name: await rows(connection, name) for name in names} == before
        assert all(before[name]["statistics.sources"] and before[name]["statistics.income"] for name in names)
        assert all(before[name]["audit.nodes"] for name in names)

    def taken(logs: dict[str, list[Stored]], at: dict[str, int]) -> dict[str, list[Stored]]:
        """Some of what is left of each, of some programs nothing."""
        left = {name: len(log) - at[name] for name, log in logs.items()}
        counts = {name: random.randint(0, min(5, some)) for name, some in left.items()}
        while any(left.values()) and not any(counts.values()):
            counts = {name: random.randint(0, min(5, some)) for name, some in left.items()}
        batch = {name: logs[name][at[name] : at[name] + count] for name, count in counts.items() if count}
        for name, count in counts.items():
            at[name] += count
        return batch

    asyncio.run(refold())


FOLDS = {
    "volumes": ("'m' || n, '2026-01', 5, 5, 5, 5, 5, 5", "'{large}', '{m7}', '{2026-02}', '{1}', '{1}', '{1}', '{1}', '{1}', '{1}'"),
    "income": ("'m' || n, '', 'first', '2026-01', 5, 5", "'{large}', '{m7}', '{\"\"}', '{first}', '{2026-02}', '{1}', '{1}'"),
}


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("table", FOLDS)
def test_a_row_is_found_by_its_key_in_a_large_program_among_many_small_ones(dsn: str, table: str) -> None:
    """Whatever the planner thinks that a program has, no fold walks all of its rows."""
    columns, change = FOLDS[table]
    reads = (
        "select sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0)) from pg_stat_xact_user_tables where schemaname = 'statistics'"
    )
    with psycopg.connect(dsn, autocommit=True) as owner, owner.transaction(force_rollback=True):
        owner.execute(f"insert into statistics.{table} select p, {columns} from ({SIZES}) x".encode())
        owner.execute(f"analyze statistics.{table}".encode())
        [[before]] = owner.execute(reads.encode()).fetchall()
        owner.execute(f"select statistics.fold_{table}({change})".encode())
        [[after]] = owner.execute(reads.encode()).fetchall()
        assert 0 < after - before < 30
        query = f"select month from statistics.{table} where program_id = 'large' and member_id = 'm7'"
        assert owner.execute(query.encode()).fetchall() == [("2026-02",)]
