"""The load clients of the API. `run` is called in a process that does nothing else. Every case is a closed loop: who calls waits for the
answer. Requests are made before the clock starts and answers are checked after it stopped, so that what is measured is the server, and what
gRPC costs its caller."""

import asyncio
import contextlib
import gc
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import grpc
from fenrun.ledger.v1 import ledger_pb2
from grpc_health.v1 import health_pb2

from tests.bench.machine import Meter, Usage
from tests.bench.shop import CALL_TIMEOUT_S, FIRST_BUYER, MEMBERS, TREE, Lost, Orders, Shop, first_order, require_paid

# Messages a stream's caller has under way at once: the next is there when the server has answered one.
SENT_AHEAD = 2
# 500 orders and their answers are far below it.
LARGEST_MESSAGE = 64 * 1024 * 1024
CHANNEL_OPTIONS = [("grpc.max_send_message_length", LARGEST_MESSAGE), ("grpc.max_receive_message_length", LARGEST_MESSAGE)]
# What a writer beside readers records in one call.
WRITERS_BATCH = 200


Kind = Literal["unary", "batch", "stream", "health", "balance", "order", "explain", "commit", "bare", "pgledger", "eventsourcing"]


@dataclass(frozen=True)
class Case:
    """One kind of load."""

    key: str
    title: str
    call: Kind
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

    def measured(self) -> Measured:
        """What was counted. Call it when all callers have stopped."""
        assert self._usage is not None
        calls, seconds = [call for call in self._calls if self.begin <= call[1] < self.end], self.end - self.begin
        if not calls:
            # Slower than the window is long: then what was under way when it closed.
            calls = [call for call in self._calls if call[1] >= self.end]
            seconds = max(ended for _, ended, _ in calls) - self.begin
        latencies = [ended - began for began, ended, _ in calls]
        return Measured(seconds, self._usage, sum(items for *_, items in calls), latencies)


def run(case: Case, where: Where, name: str, warm_s: float, measure_s: float) -> Measured:
    """One run of a case; `name` makes its order ids its own."""
    return asyncio.run(_calls(case, where, name, warm_s, measure_s))


async def _calls(case: Case, where: Where, name: str, warm_s: float, measure_s: float) -> Measured:
    orders, method, batches = Orders(name, case.shop), METHODS[case.call], METHODS["batch"]
    supply = Supply(method.maker(orders, case.batch), int((warm_s + measure_s) * method.at_most_a_second) // case.batch)
    at_most = int((warm_s + measure_s) * batches.at_most_a_second) if case.writers else 0
    beside = Supply(batches.maker(orders, WRITERS_BATCH), at_most // WRITERS_BATCH)
    # What was made stays until the end: nothing that the collector has to look at again and again.
    gc.collect()
    gc.freeze()
    try:
        async with contextlib.AsyncExitStack() as closing:
            channels = []
            for address in (where.address, *(address for address, _ in where.beside)):
                channels.append(await closing.enter_async_context(grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)))
                await channels[-1].channel_ready()
            window, writing = Window(where, warm_s, measure_s), Window(where, warm_s, measure_s)
            async with asyncio.TaskGroup() as group:
                group.create_task(window.watch())
                for number in range(case.in_flight):
                    caller = _streaming if case.call == "stream" else _calling
                    group.create_task(caller(channels[number % len(channels)], method.path, window, supply))
                for _ in range(case.writers):
                    group.create_task(_calling(channels[0], batches.path, writing, beside))
    finally:
        gc.unfreeze()
    measured = window.measured()
    supply.check(measured)
    beside.check(measured)
    return measured


class Call(NamedTuple):
    """A call that is ready to be sent: how many items it has, and what its answer must be. `answered` raises when it is not."""

    request: bytes
    items: int
    answered: Callable[[bytes], None]
    # Of orders: where they go and what they are worth.
    program: str = ""
    base_minor: int = 0


class Supply:
    """So many calls made ahead, and their answers. When they run out, more are made one by one."""

    def __init__(self, made: Iterator[Call], ahead: int) -> None:
        self._made = made
        self._ahead = deque(itertools.islice(made, ahead))
        self.answers: list[tuple[Call, bytes]] = []

    def take(self) -> Call:
        return self._ahead.popleft() if self._ahead else next(self._made)

    def check(self, measured: Measured) -> None:
        """Every answer; counts what was told. Raises Lost."""
        for call, answer in self.answers:
            call.answered(answer)
            if call.program:
                measured.told[call.program] += call.items
                measured.base_minor[call.program] += call.base_minor


async def _calling(channel: grpc.aio.Channel, path: str, window: Window, supply: Supply) -> None:
    # Without serializers both are bytes.
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    while not window.over:
        call = supply.take()
        began = time.perf_counter()
        answer = await method(call.request, timeout=CALL_TIMEOUT_S)
        window.note(began, call.items)
        supply.answers.append((call, answer))


async def _streaming(channel: grpc.aio.Channel, path: str, window: Window, supply: Supply) -> None:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
    stream, under_way = method(), deque[tuple[float, Call]]()

    async def answer() -> None:
        found = await asyncio.wait_for(stream.read(), CALL_TIMEOUT_S)
        assert isinstance(found, bytes), "the server ended the stream"
        began, call = under_way.popleft()
        window.note(began, call.items)
        supply.answers.append((call, found))

    while not window.over:
        while len(under_way) < SENT_AHEAD:
            under_way.append((time.perf_counter(), supply.take()))
            await stream.write(under_way[-1][1].request)
        await answer()
    while under_way:
        await answer()
    await stream.done_writing()


def repeat_here(window: Window, items: int, call: Callable[[], object]) -> None:
    """A call in a thread, again and again until the window is over."""
    while not window.over:
        began = time.perf_counter()
        call()
        window.note(began, items)


# ---------------------------------------------------------------- what is told and asked


def _unary(orders: Orders, _: int) -> Iterator[Call]:
    def answered(answer: bytes) -> None:
        require_paid(orders.shop, ledger_pb2.RecordOrderResponse.FromString(answer).recorded)

    while True:
        program = orders.program()
        [order] = orders.some(program, 1)
        request = ledger_pb2.RecordOrderRequest(program_id=program, order=order)
        yield Call(request.SerializeToString(), 1, answered, program, order.lines[0].base_minor)


def _batches(orders: Orders, size: int) -> Iterator[Call]:
    return _of_many(orders, size, ledger_pb2.RecordOrdersRequest, ledger_pb2.RecordOrdersResponse)


def _messages(orders: Orders, size: int) -> Iterator[Call]:
    return _of_many(orders, size, ledger_pb2.StreamOrdersRequest, ledger_pb2.StreamOrdersResponse)


def _of_many(
    orders: Orders,
    size: int,
    request: type[ledger_pb2.RecordOrdersRequest | ledger_pb2.StreamOrdersRequest],
    response: type[ledger_pb2.RecordOrdersResponse | ledger_pb2.StreamOrdersResponse],
) -> Iterator[Call]:
    def answered(answer: bytes) -> None:
        results = response.FromString(answer).results
        if len(results) != size:
            raise Lost(f"{size} orders were told, {len(results)} answered")
        for result in results:
            require_paid(orders.shop, result.recorded)

    while True:
        program = orders.program()
        some = orders.some(program, size)
        base = sum(order.lines[0].base_minor for order in some)
        yield Call(request(program_id=program, orders=some).SerializeToString(), size, answered, program, base)


def _nothing(_: Orders, __: int) -> Iterator[Call]:
    def answered(answer: bytes) -> None:
        status = health_pb2.HealthCheckResponse.FromString(answer).status
        _require(status == health_pb2.HealthCheckResponse.SERVING, f"it serves ({status})")

    while True:
        yield Call(health_pb2.HealthCheckRequest().SerializeToString(), 1, answered)


def _balance(orders: Orders, _: int) -> Iterator[Call]:
    def answered(member: str, answer: bytes) -> None:
        found = ledger_pb2.GetBalanceResponse.FromString(answer).balance
        _require(found.member_id == member and found.pending_minor > 0, f"the balance of {member}: {found}")

    while True:
        member = random.choice(orders.shop.firsts)
        request = ledger_pb2.GetBalanceRequest(program_id=orders.shop.program, member_id=member)
        yield Call(request.SerializeToString(), 1, partial(answered, member))


def _order(orders: Orders, _: int) -> Iterator[Call]:
    def answered(order_id: str, answer: bytes) -> None:
        found = ledger_pb2.GetOrderResponse.FromString(answer)
        _require(found.order.order_id == order_id, f"the order {order_id}: {found}")

    while True:
        order_id = first_order(random.randrange(MEMBERS))[0]
        request = ledger_pb2.GetOrderRequest(program_id=orders.shop.program, order_id=order_id)
        yield Call(request.SerializeToString(), 1, partial(answered, order_id))


def _explain(orders: Orders, _: int) -> Iterator[Call]:
    def answered(position: int, answer: bytes) -> None:
        found = ledger_pb2.ExplainResponse.FromString(answer)
        holds = found.entry.position == position and bool(found.shares) and bool(found.sentences)
        _require(holds, f"an explanation of a posting of {position}: {found}")

    while True:
        position = first_order(random.randrange(FIRST_BUYER, MEMBERS))[1]
        posting_id = f"{position}.{random.randint(1, orders.shop.payees)}"
        request = ledger_pb2.ExplainRequest(program_id=orders.shop.program, posting_id=posting_id)
        yield Call(request.SerializeToString(), 1, partial(answered, position))


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Lost(f"not {what}"[:500])


class Method(NamedTuple):
    """What is called, what makes its calls, and how many items in a second are made ahead at most."""

    path: str
    maker: Callable[[Orders, int], Iterator[Call]]
    at_most_a_second: int


# More than this machine records in batches, or answers one by one.
AT_MOST_A_SECOND, AT_MOST_ONE_BY_ONE = 20_000, 6000
METHODS: dict[Kind, Method] = {
    "unary": Method("/fenrun.ledger.v1.LedgerService/RecordOrder", _unary, AT_MOST_ONE_BY_ONE),
    "batch": Method("/fenrun.ledger.v1.LedgerService/RecordOrders", _batches, AT_MOST_A_SECOND),
    "stream": Method("/fenrun.ledger.v1.LedgerService/StreamOrders", _messages, AT_MOST_A_SECOND),
    "health": Method("/grpc.health.v1.Health/Check", _nothing, AT_MOST_ONE_BY_ONE),
    "balance": Method("/fenrun.ledger.v1.LedgerService/GetBalance", _balance, AT_MOST_ONE_BY_ONE),
    "order": Method("/fenrun.ledger.v1.LedgerService/GetOrder", _order, AT_MOST_ONE_BY_ONE),
    "explain": Method("/fenrun.ledger.v1.LedgerService/Explain", _explain, AT_MOST_ONE_BY_ONE),
}
