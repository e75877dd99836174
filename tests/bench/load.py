"""The load clients of the API. `run` is called in a process that does nothing else. Every case is a closed loop: who calls waits for the
answer."""

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Literal

import grpc
from fenrun.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from grpc_health.v1 import health_pb2

from tests.bench.machine import Meter, Usage
from tests.bench.shop import CALL_TIMEOUT_S, FIRST_BUYER, MEMBERS, TREE, Orders, Shop, first_order, require_paid

# Messages a stream's caller has under way at once: the next is there when the server has answered one.
SENT_AHEAD = 2
# 500 orders and their answers are far below it.
LARGEST_MESSAGE = 64 * 1024 * 1024
CHANNEL_OPTIONS = [("grpc.max_send_message_length", LARGEST_MESSAGE), ("grpc.max_receive_message_length", LARGEST_MESSAGE)]
# What a writer beside readers records in one call.
WRITERS_BATCH = 200


Call = Literal["unary", "batch", "stream", "health", "balance", "order", "explain", "commit", "bare", "pgledger", "eventsourcing"]


@dataclass(frozen=True)
class Case:
    """One kind of load."""

    key: str
    title: str
    call: Call
    in_flight: int
    batch: int = 1
    shop: Shop = TREE
    # Callers of RecordOrders beside those who are measured.
    writers: int = 0
    # Servers of the same database that callers are divided among.
    servers: int = 1

    @property
    def records(self) -> bool:
        """Whether it records orders."""
        return self.call in ("unary", "batch", "stream") or self.writers > 0


@dataclass(frozen=True)
class Where:
    """The server to load."""

    address: str
    dsn: str
    server_pid: int
    database_pid: int
    # Other servers of the same database.
    beside: tuple[tuple[str, int], ...] = ()


@dataclass
class Measured:
    """What one run gave. Rates and latencies are of calls that ended within the window; `told` is everything that each
    program was told, the warm-up included."""

    seconds: float
    usage: Usage
    items: int = 0
    latencies_s: list[float] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    base_minor: Counter[str] = field(default_factory=Counter)
    # How long whatever follows the log needed after the run to see its end; None where nothing was recorded.
    behind_s: float | None = None

    @property
    def per_s(self) -> float:
        return self.items / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Nearest rank."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Window:
    """When to count. Before it everything warms up; after it callers finish what they have under way and stop."""

    def __init__(self, where: Where, warm_s: float, measure_s: float) -> None:
        self._meter = Meter((where.server_pid, *(pid for _, pid in where.beside)), where.database_pid)
        self.begin = time.perf_counter() + warm_s
        self.end = self.begin + measure_s
        self._calls: list[tuple[float, float, int]] = []
        self._usage: Usage | None = None

    @property
    def over(self) -> bool:
        return time.perf_counter() >= self.end

    def note(self, began: float, items: int = 1) -> None:
        """A call that began then has been answered now."""
        self._calls.append((began, time.perf_counter(), items))

    async def watch(self) -> None:
        """Reads the meter when the window opens and closes."""
        await asyncio.sleep(self.begin - time.perf_counter())
        self.opens()
        await asyncio.sleep(self.end - time.perf_counter())
        self.closes()

    def opens(self) -> None:
        self._meter.restart()

    def closes(self) -> None:
        self._usage = self._meter.usage()

    def measured(self, orders: Orders | None = None) -> Measured:
        """What was counted. Call it when all callers have stopped."""
        assert self._usage is not None
        calls, seconds = [call for call in self._calls if self.begin <= call[1] < self.end], self.end - self.begin
        if not calls:
            # Slower than the window is long: then what was under way when it closed.
            calls = [call for call in self._calls if call[1] >= self.end]
            seconds = max(ended for _, ended, _ in calls) - self.begin
        told, base = (orders.told, orders.base_minor) if orders else (Counter[str](), Counter[str]())
        latencies = [ended - began for began, ended, _ in calls]
        return Measured(seconds, self._usage, sum(items for *_, items in calls), latencies, told, base)


def run(case: Case, where: Where, name: str, warm_s: float, measure_s: float) -> Measured:
    """One run of a case; `name` makes its order ids its own."""
    return asyncio.run(_calls(case, where, name, warm_s, measure_s))


async def _calls(case: Case, where: Where, name: str, warm_s: float, measure_s: float) -> Measured:
    orders = Orders(name, case.shop)
    async with contextlib.AsyncExitStack() as closing:
        channels = []
        for address in (where.address, *(address for address, _ in where.beside)):
            channels.append(await closing.enter_async_context(grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)))
            await channels[-1].channel_ready()
        window, beside = Window(where, warm_s, measure_s), Window(where, warm_s, measure_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(window.watch())
            for number in range(case.in_flight):
                group.create_task(CALLERS[case.call](channels[number % len(channels)], window, orders, case.batch))
            for _ in range(case.writers):
                group.create_task(_batch(channels[0], beside, orders, WRITERS_BATCH))
    return window.measured(orders)


async def _repeat(window: Window, items: int, call: Callable[[], Awaitable[None]]) -> None:
    while not window.over:
        began = time.perf_counter()
        await call()
        window.note(began, items)


def repeat_here(window: Window, items: int, call: Callable[[], object]) -> None:
    """The same in a thread."""
    while not window.over:
        began = time.perf_counter()
        call()
        window.note(began, items)


async def _unary(channel: grpc.aio.Channel, window: Window, orders: Orders, _: int) -> None:
    ledger = ledger_pb2_grpc.LedgerServiceStub(channel)

    async def call() -> None:
        program = orders.program()
        [order] = orders.some(program, 1)
        request = ledger_pb2.RecordOrderRequest(program_id=program, order=order)
        require_paid(orders.shop, (await ledger.RecordOrder(request, timeout=CALL_TIMEOUT_S)).recorded)

    await _repeat(window, 1, call)


async def _batch(channel: grpc.aio.Channel, window: Window, orders: Orders, size: int) -> None:
    ledger = ledger_pb2_grpc.LedgerServiceStub(channel)

    async def call() -> None:
        program = orders.program()
        request = ledger_pb2.RecordOrdersRequest(program_id=program, orders=orders.some(program, size))
        _require_all_paid(orders.shop, (await ledger.RecordOrders(request, timeout=CALL_TIMEOUT_S)).results, size)

    await _repeat(window, size, call)


async def _stream(channel: grpc.aio.Channel, window: Window, orders: Orders, size: int) -> None:
    stream = ledger_pb2_grpc.LedgerServiceStub(channel).StreamOrders()
    under_way: deque[float] = deque()

    async def answer() -> None:
        found = await asyncio.wait_for(stream.read(), CALL_TIMEOUT_S)
        assert isinstance(found, ledger_pb2.StreamOrdersResponse), "the server ended the stream"
        _require_all_paid(orders.shop, found.results, size)
        window.note(under_way.popleft(), size)

    while not window.over:
        while len(under_way) < SENT_AHEAD:
            under_way.append(time.perf_counter())
            program = orders.program()
            await stream.write(ledger_pb2.StreamOrdersRequest(program_id=program, orders=orders.some(program, size)))
        await answer()
    while under_way:
        await answer()
    await stream.done_writing()


async def _health(channel: grpc.aio.Channel, window: Window, _: Orders, __: int) -> None:
    check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )

    async def call() -> None:
        answer = await check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    await _repeat(window, 1, call)


async def _balance(channel: grpc.aio.Channel, window: Window, orders: Orders, _: int) -> None:
    ledger = ledger_pb2_grpc.LedgerServiceStub(channel)

    async def call() -> None:
        member = random.choice(orders.shop.firsts)
        request = ledger_pb2.GetBalanceRequest(program_id=orders.shop.program, member_id=member)
        found = (await ledger.GetBalance(request, timeout=CALL_TIMEOUT_S)).balance
        assert found.member_id == member and found.pending_minor > 0, f"not the balance of {member}: {found}"

    await _repeat(window, 1, call)


async def _order(channel: grpc.aio.Channel, window: Window, orders: Orders, _: int) -> None:
    ledger = ledger_pb2_grpc.LedgerServiceStub(channel)

    async def call() -> None:
        order_id, _ = first_order(random.randrange(MEMBERS))
        request = ledger_pb2.GetOrderRequest(program_id=orders.shop.program, order_id=order_id)
        found = await ledger.GetOrder(request, timeout=CALL_TIMEOUT_S)
        assert found.order.order_id == order_id, f"not the order {order_id}: {found}"

    await _repeat(window, 1, call)


async def _explain(channel: grpc.aio.Channel, window: Window, orders: Orders, _: int) -> None:
    ledger = ledger_pb2_grpc.LedgerServiceStub(channel)

    async def call() -> None:
        _, position = first_order(random.randrange(FIRST_BUYER, MEMBERS))
        posting_id = f"{position}.{random.randint(1, orders.shop.payees)}"
        request = ledger_pb2.ExplainRequest(program_id=orders.shop.program, posting_id=posting_id)
        found = await ledger.Explain(request, timeout=CALL_TIMEOUT_S)
        assert found.entry.position == position and found.shares and found.sentences, f"no explanation of {posting_id}: {found}"

    await _repeat(window, 1, call)


CALLERS: dict[Call, Callable[[grpc.aio.Channel, Window, Orders, int], Coroutine[None, None, None]]] = {
    "unary": _unary,
    "batch": _batch,
    "stream": _stream,
    "health": _health,
    "balance": _balance,
    "order": _order,
    "explain": _explain,
}


def _require_all_paid(shop: Shop, results: Sequence[ledger_pb2.OrderResult], size: int) -> None:
    assert len(results) == size, f"{size} orders were told, {len(results)} answered"
    for result in results:
        require_paid(shop, result.recorded)
