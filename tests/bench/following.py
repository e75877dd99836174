"""How fast the statistics follow, by the shape of the tree: `python -m tests.bench.following [MEMBERS]` prints docs/statistics.md's table.

Each shape is a program of its own in the embedded PostgreSQL, durable: members enrolled, each with one order, then 10,000 orders more of
the 500 members furthest from the top. It is told while nobody follows; then a follower catches up alone, with nothing else running.
"""

import asyncio
import functools
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psycopg
from fenrun.ops.v1 import ops_pb2
from fenrun.statistics.v1 import statistics_pb2 as pb
from psycopg_pool import AsyncConnectionPool

from services import composition
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.following import Follower
from services.runtime.settings import Settings
from services.statistics.projection import NAME, Statistics
from tests.given import Client, day, line

ORDERS = 10_000
BUYERS = 500


def facts(members: int, above: Callable[[int], int]) -> Iterator[ops_pb2.Fact]:
    """Enrolments and first orders from the top down, then orders of the last members."""
    for number in range(members):
        fact = ops_pb2.Fact()
        fact.enroll_member.member_id = f"m{number}"
        fact.enroll_member.referrer_id = f"m{above(number)}" if number else ""
        fact.enroll_member.enrolled_at.CopyFrom(day(1))
        yield fact
        yield order(f"first-{number}", number)
    for number in range(ORDERS):
        yield order(f"more-{number}", members - 1 - number % BUYERS)


def order(order_id: str, member: int) -> ops_pb2.Fact:
    fact = ops_pb2.Fact()
    told = fact.record_order.order
    told.order_id, told.member_id, told.currency = order_id, f"m{member}", "GBP"
    told.paid_at.CopyFrom(day(2))
    told.lines.append(line(1, 1000))
    return fact


def tell(client: Client, dsn: str, told: Iterator[ops_pb2.Fact]) -> int:
    """Tells a new program everything while its lease is nobody's; gives the head."""
    with psycopg.connect(dsn) as connection:
        key = [client.program_id, NAME]
        connection.execute("insert into fenrun.followed values (%s, %s, 0, 'nobody', 'infinity') on conflict do nothing", key)
        connection.execute("update fenrun.followed set holder = 'nobody', held_until = 'infinity' where program_id = %s", key[:1])
    client.publish()
    batch: list[ops_pb2.Fact] = []

    def requests() -> Iterator[ops_pb2.StreamFactsRequest]:
        for fact in told:
            batch.append(fact)
            if len(batch) == 500:
                yield ops_pb2.StreamFactsRequest(program_id=client.program_id, facts=batch)
                batch.clear()
        if batch:
            yield ops_pb2.StreamFactsRequest(program_id=client.program_id, facts=batch)

    for answer in client.ops.StreamFacts(requests()):
        assert all(result.WhichOneof("result") != "error" for result in answer.results)
    return client.ops.GetProgram(ops_pb2.GetProgramRequest(program_id=client.program_id)).head_position


def catch_up(dsn: str, program_id: str, head: int) -> tuple[float, float]:
    """(seconds for everything, seconds for the last ORDERS entries) of a follower alone with the database."""

    async def run() -> tuple[float, float]:
        async with AsyncConnectionPool(composition.service_dsn(dsn), min_size=2, kwargs={"autocommit": True}) as pool:
            async with pool.connection() as connection:
                await connection.execute("update fenrun.followed set held_until = '-infinity' where program_id = %s", [program_id])
            follower = Follower(pool.connection, (Statistics(),), "bench", 5)
            began = time.perf_counter()
            follower.start()
            times = []
            for position in (head - ORDERS, head):
                while True:
                    async with pool.connection() as connection:
                        cursor = await connection.execute("select position from fenrun.followed where program_id = %s", [program_id])
                        row = await cursor.fetchone()
                    if row and row[0] >= position:
                        break
                    await asyncio.sleep(0.02)
                times.append(time.perf_counter() - began)
            await follower.close(5)
            return times[1], times[1] - times[0]

    return asyncio.run(run())


def median_ms(call: Callable[[], object], times: int = 9) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def measure(dsn: str, program: str, size: int, above: Callable[[int], int]) -> list[float]:
    """The columns of the table after the name."""
    with composition.start(Settings(dsn=dsn)) as server, grpc.insecure_channel(server.address) as channel:
        head = tell(Client.of_new_program(channel, program), dsn, facts(size, above))
    whole_s, last_s = catch_up(dsn, program, head)
    with composition.start(Settings(dsn=dsn)) as server, grpc.insecure_channel(server.address) as channel:
        client = Client.of(channel, program)
        boards = [median_ms(functools.partial(client.board, board)) for board in pb.Board.values()[1:]]
        one_ms = median_ms(lambda: client.figures("m0"))
        cohorts_ms = median_ms(lambda: client.statistics.ListCohorts(pb.ListCohortsRequest(program_id=program)))
        numbers = itertools.count()

        def order_and_read() -> None:
            client.order(f"live-{next(numbers)}", f"m{size - 1}", line(1, 1000))
            client.board(pb.BOARD_TEAM_VOLUME, limit=1)

        visible_ms = median_ms(order_and_read)
        assert client.differences() == []
    return [size, head, head / whole_s, ORDERS / last_s, boards[4], max(boards), one_ms, cohorts_ms, visible_ms]


def main(members: int) -> None:
    shapes: list[tuple[str, int, Callable[[int], int]]] = [
        ("all below one", 10_000, lambda number: 0),
        ("ten below each", members, lambda number: (number - 1) // 10),
        ("a chain of 1,000", 1_000, lambda number: number - 1),
        ("a chain of 10,000", 10_000, lambda number: number - 1),
    ]
    columns = ("tree", "members", "entries", "entries/s", "last orders/s", "team board ms", "slowest board ms", "one member ms")
    print("|", " | ".join((*columns, "cohorts ms", "order to board ms")), "|")
    print("| --- |", " | ".join(["---:"] * 9), "|")
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory) / "data") as database:
        for number, (name, size, above) in enumerate(shapes):
            measured = measure(database.dsn, f"shape-{number}", size, above)
            print("|", " | ".join([name, *(f"{value:,.0f}" for value in measured)]), "|", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
