"""A program that grows through the API, measured on the way beside one of the size it is compared to, each on a server and a database of
its own. The other is made anew for each step, for it grows while it is measured."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc

from tests.bench import shop
from tests.bench.load import Case, Measured
from tests.bench.machine import memory_mib
from tests.bench.report import spread, table
from tests.bench.running import REPLAY_S, Bench, opened

PROGRAM, FEW = "grown", "few"
# Where it is measured, in parts of what it grows to; of the entries of both one in ten enrols somebody, one is that member's first order.
STEPS, ENTRIES_A_MEMBER = (0.1, 0.25, 0.5, 1.0), 10
# The other one's, and the least that any has.
FEW_ENTRIES, LEAST_MEMBERS = 100_000, 1000


@dataclass
class Step:
    """So many entries and members when the measuring began; each list has one of each round."""

    entries: int
    members: int
    batches: list[Measured] = field(default_factory=list)
    unary: list[Measured] = field(default_factory=list)
    few_batches: list[Measured] = field(default_factory=list)
    few_unary: list[Measured] = field(default_factory=list)
    server_mib: list[float] = field(default_factory=list)


def run(entries: int, rounds: int, client: ProcessPoolExecutor, scratch: Path, times_s: tuple[float, float]) -> list[Step]:
    """The curve. The last replay proves everything that was told."""
    steps = []
    (scratch / "grown").mkdir()
    with opened(scratch / "grown", client, times_s) as many, grpc.insecure_channel(many.where.address) as channel:
        members = 0
        for number, part in enumerate(STEPS):
            grown = _of(PROGRAM, int(entries * part))
            fill(channel, grown, members, int(entries * part), f"fill{number}")
            members = len(grown.firsts)
            steps.append(_measured(many, grown, min(entries, FEW_ENTRIES), rounds, client, scratch / f"few{number}", times_s))
            print(f"grown to {steps[-1].entries:>9,} entries  {_line(steps[-1])}", flush=True)
        many.replay(PROGRAM)
    return steps


def _of(program: str, entries: int) -> shop.Shop:
    return shop.tree(program, max(LEAST_MEMBERS, entries // ENTRIES_A_MEMBER))


def fill(channel: grpc.Channel, grown: shop.Shop, members: int, entries: int, run: str) -> None:
    """Enrols whoever is new, each with a first order, then tells orders up to so many entries. Raises Lost when the log has others."""
    program = grown.program
    if not members:
        shop.open_program(channel, grown, program)
    begins = shop.Books.of(channel, program).position
    new = grown.firsts[members:]
    orders = shop.Orders(run, grown)
    more = max(0, entries - begins - 2 * len(new))

    def facts() -> Iterator[ops_pb2.Fact]:
        for fact, member in zip(grown.facts()[members:], new, strict=True):
            yield fact
            yield shop.told(orders.of(program, member))
        for order in orders.some(program, more):
            yield shop.told(order)

    answered = 0
    for answer in ops_pb2_grpc.OpsServiceStub(channel).StreamFacts(_messages(program, facts()), timeout=REPLAY_S):
        for result in answer.results:
            if result.WhichOneof("result") == "error":
                raise shop.Lost(f"a fact was refused: {result.error}")
        answered += len(answer.results)
    books = shop.Books.of(channel, program)
    if books.position - begins != answered or answered != 2 * len(new) + more or sum(books.accounts.values()) != 0:
        raise shop.Lost(f"{answered} facts were answered, the books went from {begins} to {books}")


def _messages(program: str, facts: Iterator[ops_pb2.Fact]) -> Iterator[ops_pb2.StreamFactsRequest]:
    while batch := list(itertools.islice(facts, shop.LARGEST_BATCH)):
        yield ops_pb2.StreamFactsRequest(program_id=program, facts=batch)


def _measured(
    many: Bench, grown: shop.Shop, few_entries: int, rounds: int, client: ProcessPoolExecutor, scratch: Path, times_s: tuple[float, float]
) -> Step:
    """The grown program and a new one of so many entries on a server of its own, one after the other."""
    step = Step(many.head(PROGRAM), len(grown.firsts))
    scratch.mkdir()
    small = _of(FEW, few_entries)
    with opened(scratch, client, times_s) as few, grpc.insecure_channel(few.where.address) as channel:
        fill(channel, small, 0, few_entries, "fill")
        for bench in (many, few):
            bench.settle()
            bench.owner.execute("analyze")
        for number in range(-1, rounds):
            for bench, one, batches, unary in (
                (many, grown, step.batches, step.unary),
                (few, small, step.few_batches, step.few_unary),
            ):
                name = f"{step.entries}-r{number}"
                measured = bench.load(Case("grown", "", "batch", 8, 200, one), f"batch-{name}")
                alone = bench.load(Case("grown", "", "unary", 64, 1, one), f"unary-{name}")
                # The first of each warms up.
                if number >= 0:
                    batches.append(measured)
                    unary.append(alone)
            if number >= 0:
                step.server_mib.append(memory_mib(many.where.server_pid))
    return step


def _line(step: Step) -> str:
    return f"{spread([run.per_s for run in step.batches])}/s beside {spread([run.per_s for run in step.few_batches])}/s of the small one"


def curve(steps: Sequence[Step]) -> list[str]:
    """The table; nothing without steps."""
    head = ("entries", "members", "orders/s", "small one", "p99 ms, 64 in flight", "small one", "server MB")
    return (
        table(
            head,
            [
                (
                    f"{step.entries:,}",
                    f"{step.members:,}",
                    spread([run.per_s for run in step.batches]),
                    spread([run.per_s for run in step.few_batches]),
                    spread([run.percentile_ms(99) for run in step.unary], 1),
                    spread([run.percentile_ms(99) for run in step.few_unary], 1),
                    spread([mib * 2**20 / 1e6 for mib in step.server_mib]),
                )
                for step in steps
            ],
        )
        if steps
        else []
    )
