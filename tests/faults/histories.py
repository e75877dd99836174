"""What is told to a server and what its log must then say: facts that can be repeated, logs judged by docs/log.md, readers that tail."""

import random
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

import grpc
import psycopg
from fenrun.ledger.v1 import ledger_pb2
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2
from fenrun.type.v1 import type_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2

from tests.faults.processes import SHORTLY_S
from tests.given import TWO_LEVEL, Client, day, line, money

# ---------------------------------------------------------------- what is told

Receipts = Mapping[str, type_pb2.Receipt]


class Partly(Exception):
    """A batch of which a part was UNAVAILABLE: the rest has receipts."""

    def __init__(self, receipts: Receipts) -> None:
        self.receipts = receipts


@dataclass(frozen=True)
class Telling:
    """One call that tells facts; safe to repeat. It gives a receipt for each fact, by the fact's id as `id_of` names it."""

    ids: tuple[str, ...]
    tell: Callable[[Client], Receipts]


def enrolment(member: str, referrer: str) -> Telling:
    fact = f"member.enrolled.v1 {member}"
    return Telling((fact,), lambda client: {fact: client.enroll(member, referrer).receipt})


def touch(touch_id: str, member: str, referrer: str) -> Telling:
    fact = f"member.touched.v1 {touch_id}"
    return Telling((fact,), lambda client: {fact: client.touch(touch_id, member, referrer).receipt})


def order(order_id: str, member: str, base_minor: int = 1000) -> Telling:
    fact = f"order.paid.v1 {order_id}"
    return Telling((fact,), lambda client: {fact: client.order(order_id, member, line(1, base_minor, 2)).receipt})


def orders(order_ids: Sequence[str], member: str, base_minor: int = 1000) -> Telling:
    facts = tuple(f"order.paid.v1 {order_id}" for order_id in order_ids)

    def tell(client: Client) -> Receipts:
        told = [client.told_order(order_id, member, line(1, base_minor, 2), line(2, 500)) for order_id in order_ids]
        answer = client.ledger.RecordOrders(ledger_pb2.RecordOrdersRequest(program_id=client.program_id, orders=told))
        told_of = list(zip(facts, answer.results, strict=True))
        receipts = {fact: result.recorded.receipt for fact, result in told_of if result.HasField("recorded")}
        if len(receipts) < len(facts):
            refused = Counter(result.error.code for result in answer.results if result.HasField("error"))
            assert set(refused) == {code_pb2.UNAVAILABLE}, refused
            raise Partly(receipts)
        return receipts

    return Telling(facts, tell)


def refund(refund_id: str, order_id: str, base_minor: int = 100) -> Telling:
    fact = f"order.refunded.v1 {order_id} {refund_id}"
    return Telling((fact,), lambda client: {fact: client.refund(refund_id, order_id, (1, 1, base_minor)).receipt})


def credit(adjustment_id: str, member: str, minor_units: int) -> Telling:
    fact = f"adjustment.posted.v1 {adjustment_id}"

    def tell(client: Client) -> Receipts:
        request = ledger_pb2.PostAdjustmentRequest(
            program_id=client.program_id,
            adjustment_id=adjustment_id,
            member_id=member,
            kind=log_pb2.ADJUSTMENT_KIND_CORRECTION,
            amount=money(minor_units),
            reason="goodwill",
            requested_by="ann",
            approved_by="bob",
            posted_at=day(2),
        )
        return {fact: client.ledger.PostAdjustment(request).receipt}

    return Telling((fact,), tell)


def payout(payout_id: str, member: str, minor_units: int) -> Telling:
    fact = f"payout.requested.v1 {payout_id}"
    return Telling((fact,), lambda client: {fact: client.payout(payout_id, member, minor_units).receipt})


def opening(client: Client) -> None:
    """The plan, and two people whom everybody else stands below."""
    client.publish(TWO_LEVEL)
    client.enroll("root")
    client.enroll("guide", "root")


def life_of(member: str) -> list[Telling]:
    """A member's enrolment, a touch, orders alone and in a batch, refunds, a credit and a payout of part of it."""
    return [
        enrolment(member, "root"),
        touch(f"touch-{member}", member, "guide"),
        orders([f"{member}-batch-{number}" for number in range(5)], member),
        order(f"{member}-single", member),
        refund(f"{member}-refund", f"{member}-single"),
        refund(f"{member}-refund", f"{member}-batch-0"),
        credit(f"{member}-credit", member, 500),
        payout(f"{member}-payout", member, 300),
    ]


# ---------------------------------------------------------------- what the log says


def whole_log(client: Client) -> list[log_pb2.Entry]:
    """Every entry, by ReadEntries page after page."""
    entries: list[log_pb2.Entry] = []
    request = ops_pb2.ReadEntriesRequest(program_id=client.program_id, page_size=1000)
    while True:
        page = client.ops.ReadEntries(request)
        entries += page.entries
        if not page.next_page_token:
            return entries
        request.page_token = page.next_page_token


def head_of(client: Client) -> int:
    return client.ops.GetProgram(ops_pb2.GetProgramRequest(program_id=client.program_id)).head_position


def id_of(entry: log_pb2.Entry) -> str:
    """The name of the fact an entry tells: its type and the id it counts once by."""
    match entry.type:
        case "member.touched.v1":
            name = log_pb2.MemberTouched.FromString(entry.fact).touch_id
        case "order.refunded.v1":
            refunded = log_pb2.OrderRefunded.FromString(entry.fact)
            name = f"{refunded.order_id} {refunded.refund_id}"
        case "plan.published.v1":
            published = log_pb2.PlanPublished.FromString(entry.fact)
            name = f"{published.plan_id} {published.version}"
        case _:
            # The stream is of the one thing: order/O1, payout/P1, member/M1.
            name = entry.stream.partition("/")[2]
    return f"{entry.type} {name}"


def positions_of(entries: Iterable[log_pb2.Entry]) -> dict[str, int]:
    """{fact: position}. Raises AssertionError for a fact that is recorded twice."""
    found = Counter(id_of(entry) for entry in entries)
    assert not (twice := [fact for fact, times in found.items() if times > 1]), f"recorded more than once: {twice}"
    return {id_of(entry): entry.position for entry in entries}


def wrong_with(entries: Sequence[log_pb2.Entry]) -> list[str]:
    """Everything about a whole log that docs/log.md forbids; computed from that table alone, not by the product's code."""
    wrong: list[str] = []
    previous, recorded_us, versions = bytes(32), -(2**63), Counter[str]()
    for number, entry in enumerate(entries, start=1):
        at = f"position {entry.position}"
        if entry.position != number:
            wrong.append(f"{at}: the {number}-th entry")
        versions[entry.stream] += 1
        if entry.stream_version != versions[entry.stream]:
            wrong.append(f"{at}: {entry.stream} version {entry.stream_version}, expected {versions[entry.stream]}")
        if entry.previous_hash != previous:
            wrong.append(f"{at}: names another hash before it")
        if entry.hash != _hash(entry, previous):
            wrong.append(f"{at}: its hash is not of its bytes")
        if _microseconds(entry.recorded_at) <= recorded_us:
            wrong.append(f"{at}: recorded no later than the entry before it")
        previous, recorded_us = entry.hash, _microseconds(entry.recorded_at)
    return wrong


def _hash(entry: log_pb2.Entry, previous: bytes) -> bytes:
    numbers = struct.pack(">QQqq", entry.position, entry.stream_version, _microseconds(entry.occurred_at), _microseconds(entry.recorded_at))
    texts = [entry.program_id.encode(), entry.stream.encode(), entry.type.encode(), entry.actor.encode(), entry.fact, entry.decision]
    return sha256(b"fenrun.entry.v1\0" + previous + numbers + b"".join(struct.pack(">I", len(text)) + text for text in texts)).digest()


def _microseconds(moment: Timestamp) -> int:
    return moment.seconds * 1_000_000 + moment.nanos // 1000


# ---------------------------------------------------------------- who tells


@dataclass
class Answers:
    """Every receipt that anybody got, shared by the threads that tell."""

    receipts: dict[str, list[type_pb2.Receipt]] = field(default_factory=dict, repr=False)
    # Status codes of calls that failed and were repeated.
    failures: Counter[grpc.StatusCode] = field(default_factory=Counter)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _broken: list[BaseException] = field(default_factory=list)

    def add(self, receipts: Receipts) -> None:
        with self._changed:
            for fact, receipt in receipts.items():
                self.receipts.setdefault(fact, []).append(receipt)
            self._changed.notify_all()

    def failed(self, code: grpc.StatusCode) -> None:
        with self._changed:
            self.failures[code] += 1
            self._changed.notify_all()

    def broke(self, error: BaseException) -> None:
        with self._changed:
            self._broken.append(error)
            self._changed.notify_all()

    def await_more(self, count: int) -> None:
        """Returns once so many facts more have been acknowledged for the first time. Raises what broke a thread that tells."""
        with self._changed:
            wanted = len(self.receipts) + count
            came = self._changed.wait_for(lambda: self._broken or len(self.receipts) >= wanted, SHORTLY_S)
            self.check()
        assert came, f"nothing was acknowledged for {SHORTLY_S} s; failures so far: {self.failures}"

    def await_failure(self) -> None:
        """Returns once a call more has failed."""
        with self._changed:
            wanted = self.failures.total() + 1
            came = self._changed.wait_for(lambda: self._broken or self.failures.total() >= wanted, SHORTLY_S)
            self.check()
        assert came, f"no call failed for {SHORTLY_S} s"

    def check(self) -> None:
        for error in self._broken:
            raise error

    def positions(self) -> dict[str, int]:
        """{fact: position} of every fact acknowledged. Raises AssertionError where two callers were told different ones."""
        differing = {
            fact: [receipt.position for receipt in receipts]
            for fact, receipts in self.receipts.items()
            if len({(receipt.position, receipt.entry_hash, _microseconds(receipt.recorded_at)) for receipt in receipts}) > 1
        }
        assert not differing
        return {fact: receipts[0].position for fact, receipts in self.receipts.items()}


# Of these the contract says: repeat the call.
AGAIN = frozenset({grpc.StatusCode.UNAVAILABLE})


def insist(telling: Telling, client: Client, answers: Answers, again: Set[grpc.StatusCode] = AGAIN) -> Receipts:
    """Tells until all of it is acknowledged: what ends in one of `again` is repeated, any other failure is raised."""
    while True:
        try:
            receipts = telling.tell(client)
        except Partly as answer:
            answers.add(answer.receipts)
            answers.failed(grpc.StatusCode.UNAVAILABLE)
        except grpc.RpcError as error:
            answers.failed(error.code())
            if error.code() not in again:
                raise
        else:
            answers.add(receipts)
            return receipts


class Teller(threading.Thread):
    """Insists on one thing after another, in a thread."""

    def __init__(
        self,
        client: Client,
        tellings: Iterable[Telling],
        answers: Answers,
        *,
        begin: threading.Barrier | None = None,
        again: Set[grpc.StatusCode] = AGAIN,
    ) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._tellings = tellings
        self._answers = answers
        self._begin = begin
        self._again = again
        self._finish = threading.Event()

    def run(self) -> None:
        try:
            if self._begin:
                self._begin.wait(SHORTLY_S)
            for telling in self._tellings:
                insist(telling, self._client, self._answers, self._again)
                if self._finish.is_set():
                    return
        except BaseException as error:
            self._answers.broke(error)

    def finish(self) -> None:
        """Ends after what it is telling now has been acknowledged."""
        self._finish.set()


def finish(tellers: Iterable[Teller], answers: Answers) -> None:
    """Lets every thread that tells come to its end, and raises what broke one."""
    for teller in tellers:
        teller.finish()
    await_end(tellers, answers)


def await_end(threads: Iterable[threading.Thread], answers: Answers) -> None:
    for thread in threads:
        thread.join(2 * SHORTLY_S)
        answers.check()
        assert not thread.is_alive(), f"{thread} is stuck"


# ---------------------------------------------------------------- who reads along


class _Tail(threading.Thread):
    """Follows a program's log in a thread; `seen` are the positions in the order they came."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[int] = []
        self._changed = threading.Condition()
        self._leave = threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.leave()

    def run(self) -> None:
        try:
            while not self._leave.is_set():
                for position in self.more(self.seen[-1] if self.seen else 0):
                    with self._changed:
                        self.seen.append(position)
                        self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def more(self, after: int) -> Iterator[int]:
        """Positions after one, as far as there are any now."""
        raise NotImplementedError

    def saw(self, position: int) -> list[int]:
        """What it has seen once it has come as far as a position."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or (self.seen and self.seen[-1] >= position), SHORTLY_S)
            if self._error:
                raise self._error
            return list(self.seen)

    def leave(self) -> None:
        self._leave.set()
        self.join(SHORTLY_S)
        assert not self.is_alive()


class WatchTail(_Tail):
    """Tails with WatchEntries; breaks its own call now and then, in the middle of what came, and goes on from the last position taken."""

    def __init__(self, client: Client, chance: random.Random) -> None:
        super().__init__()
        self.cuts = 0
        self._client = client
        self._chance = chance
        self._call: Any = None

    def more(self, after: int) -> Iterator[int]:
        patience = self._chance.randint(1, 60)
        request = ops_pb2.WatchEntriesRequest(program_id=self._client.program_id, after_position=after)
        self._call = self._client.ops.WatchEntries(request, timeout=SHORTLY_S)
        try:
            for message in self._call:
                for entry in message.entries:
                    yield entry.position
                    patience -= 1
                    if not patience:
                        self.cuts += 1
                        return
        except grpc.RpcError as error:
            if not (self._leave.is_set() and error.code() is grpc.StatusCode.CANCELLED):
                raise
        finally:
            self._call.cancel()

    def leave(self) -> None:
        self._leave.set()
        if self._call:
            self._call.cancel()
        super().leave()


class SqlTail(_Tail):
    """Tails the table itself, in READ COMMITTED and without a pause: whatever becomes visible out of order it loses."""

    def __init__(self, dsn: str, program: str) -> None:
        super().__init__()
        self.polls = 0
        self._program = program
        self._connection = psycopg.connect(dsn, autocommit=True)

    def more(self, after: int) -> Iterator[int]:
        self.polls += 1
        rows = self._connection.execute(
            "select position from fenrun.entries where program_id = %s and position > %s order by position", [self._program, after]
        )
        return (position for (position,) in rows.fetchall())

    def leave(self) -> None:
        super().leave()
        self._connection.close()
