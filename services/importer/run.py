"""Merges the files of an import into one order of time and sends them, so that any number of broken runs ends in the same log.

Facts go out strictly in order, in one stream: the server records nothing of a message before all before it is recorded or refused. What is
sent twice is answered as already recorded, so after a crash of either side the same command simply runs again. Whether a row is refused
must not depend on how far an earlier run came: a row that refers to one standing later in these files is refused here, whatever the server
knows by now.
"""

import csv
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Timer
from typing import Any, NamedTuple, TypeVar

import grpc
import yaml
from fenrun.ledger.v1 import ledger_pb2 as ledger
from fenrun.ops.v1 import ops_pb2 as ops
from google.rpc.status_pb2 import Status

from services.console.client import Connection, Failed, explain, refusal
from services.importer.files import Fact, Kind, Reject, Rejected, Survey, Table, completion, facts, find, survey, timestamp
from services.kernel.times import DAY_US, to_text

T = TypeVar("T")

# The contract's most for one call, and a bound on its size: far below what a message may hold.
BATCH_FACTS = 500
BATCH_ROWS = 20_000
# Messages that are sent before the first of them is answered: the server reads one while it records another.
UNDER_WAY = 2
# How long an answer may take.
CALL_TIMEOUT_S = 60
LONGEST_PAUSE_S = 2.0
# The server is away, stopping or stuck. Every write counts once, so the call is simply made again.
AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
# What a fact can be refused with; anything else ends the import.
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
}
CODES = {code.value[0]: code for code in grpc.StatusCode}

# ---------------------------------------------------------------- one order of time


def merged(tables: Sequence[tuple[Table, Survey]], complete_after_days: int | None, reject: Reject) -> Iterator[Fact]:
    """All facts by time and, within an instant, by kind; completions last. None is dated after the last instant of the files."""
    seen = {table.kind: found.seen for table, found in tables}
    last_us = max((found.last_us for _, found in tables if found.last_us is not None), default=0)
    due: deque[Fact] = deque()
    streams = [facts(table, found, reject) for table, found in tables]
    for fact in heapq.merge(*streams, key=lambda fact: (fact.at_us, fact.kind)):
        while due and due[0].at_us < fact.at_us:
            yield due.popleft()
        problem = _refers_later(fact, seen)
        if problem:
            for line in fact.lines:
                reject(Rejected(fact.kind, line, fact.id, *problem))
            continue
        yield fact
        if fact.kind is Kind.ORDER and complete_after_days is not None:
            done = completion(fact.id, fact.at_us + complete_after_days * DAY_US)
            if done.at_us <= last_us:
                due.append(done)
    yield from due


def _refers_later(fact: Fact, seen: dict[Kind, dict[tuple[str, ...], tuple[int, int]]]) -> tuple[str, str] | None:
    """(reason, sentence) for a fact that needs one that comes after it."""
    for kind, id in fact.refers:
        there = seen.get(kind, {}).get((id,))
        if there and (there[0], kind, there[1]) > (fact.at_us, fact.kind, fact.lines[0]):
            name = kind.name.lower()
            return f"{name.upper()}_UNKNOWN", f"{name} {id!r} comes later: line {there[1]} of the {name}s, at {to_text(there[0])}"
    return None


# ---------------------------------------------------------------- sending


class Answer(NamedTuple):
    """What the server said of one fact: recorded now, recorded before, or refused for a reason."""

    already: bool = False
    reason: str = ""
    message: str = ""


class Again(Exception):
    """A call of which one fact was answered with "repeat the call"."""


class Sender:
    """Sends facts to one program, again and again while the server is away. Raises Failed when it stays away."""

    def __init__(self, connection: Connection, program: str, retry_for_s: float) -> None:
        self.connection, self.program, self.retry_for_s = connection, program, retry_for_s
        self.currency = ""

    def prepare(self, currency: str | None, plan: str | None, first_us: int) -> None:
        """Program and plan, dated so that a second run says exactly the same."""
        if currency:
            create = ops.CreateProgramRequest(program_id=self.program, currency=currency)
            self.patiently(lambda: self.connection.ops.CreateProgram(create))
        if plan is not None:
            document = effective_from(plan, to_text(first_us))
            publish = ledger.PublishPlanRequest(program_id=self.program, document=document, published_at=timestamp(first_us))
            self.patiently(lambda: self.connection.ledger.PublishPlan(publish))
        self.currency = self.patiently(lambda: self.connection.ops.GetProgram(ops.GetProgramRequest(program_id=self.program))).currency

    def patiently(self, attempt: Callable[[], T]) -> T:
        until: float | None = None
        pause_s = 0.1
        while True:
            try:
                return attempt()
            except Again as again:
                told = str(again)
            except grpc.RpcError as error:
                call: Any = error
                if call.code() not in AGAIN:
                    raise
                told = explain(error, self.connection.address)
            until = until or time.monotonic() + self.retry_for_s
            if time.monotonic() + pause_s > until:
                raise Failed(f"{told}; tried for {self.retry_for_s:g} s. Run the same command again: it goes on, and nothing counts twice")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self.connection.reopen()

    def record(self, request: ops.RecordFactsRequest) -> list[Answer]:
        """The answers to one call. Raises Again when one of its facts is to be repeated."""
        return [_answer(result) for result in self.connection.ops.RecordFacts(request, timeout=CALL_TIMEOUT_S).results]


class Stream:
    """Facts on their way to one program, some in a message. After a break everything that is not answered is sent again."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._unanswered: deque[ops.StreamFactsRequest] = deque()
        self._call: Any = None
        self._sending: SimpleQueue[ops.StreamFactsRequest | None] = SimpleQueue()

    def send(self, batch: Sequence[Fact]) -> None:
        message = ops.StreamFactsRequest(program_id=self._sender.program)
        for fact in batch:
            _tell(message.facts.add(), fact, self._sender.currency)
        self._unanswered.append(message)
        if self._call is not None:
            self._sending.put(message)

    def answers(self) -> list[Answer]:
        """To what was sent first of all that is not answered. Raises Failed."""
        return self._sender.patiently(self._answers)

    def _answers(self) -> list[Answer]:
        if self._call is None:
            self._sending = SimpleQueue()
            for message in self._unanswered:
                self._sending.put(message)
            self._call = self._sender.connection.ops.StreamFacts(iter(self._sending.get, None))
        late = Timer(CALL_TIMEOUT_S, self._call.cancel)
        late.daemon = True
        late.start()
        try:
            response = next(self._call, None)
            if response is None:
                raise Again("the server ended the stream")
            answers = [_answer(result) for result in response.results]
        except BaseException as error:
            self.close()
            if isinstance(error, grpc.RpcError) and late.finished.is_set():
                raise Again(f"the server at {self._sender.connection.address} has not answered for {CALL_TIMEOUT_S} s") from None
            raise
        finally:
            late.cancel()
        self._unanswered.popleft()
        return answers

    def close(self) -> None:
        if self._call is not None:
            self._sending.put(None)
            self._call.cancel()
            self._call = None


def _tell(told: ops.Fact, fact: Fact, currency: str) -> None:
    match fact.kind:
        case Kind.MEMBER:
            told.enroll_member.CopyFrom(fact.message)
        case Kind.UPGRADE:
            told.upgrade_member.CopyFrom(fact.message)
        case Kind.ORDER:
            told.record_order.order.CopyFrom(fact.message)
            told.record_order.order.currency = currency
        case Kind.REFUND:
            told.refund_order.refund.CopyFrom(fact.message)
        case Kind.COMPLETION:
            told.complete_order.completion.CopyFrom(fact.message)


def _answer(result: ops.FactResult) -> Answer:
    match result.WhichOneof("result"):
        case "enroll_member":
            return Answer(already=result.enroll_member.receipt.already_recorded)
        case "upgrade_member":
            return Answer(already=result.upgrade_member.receipt.already_recorded)
        case "record_touch":
            return Answer(already=result.record_touch.receipt.already_recorded)
        case "open_balance":
            return Answer(already=result.open_balance.receipt.already_recorded)
        case "record_order":
            return Answer(already=result.record_order.recorded.receipt.already_recorded)
        case "refund_order":
            return Answer(already=result.refund_order.recorded.receipt.already_recorded)
        case "complete_order":
            return Answer(already=result.complete_order.receipt.already_recorded)
    code = CODES.get(result.error.code, grpc.StatusCode.UNKNOWN)
    if code in AGAIN:
        raise Again(refusal(result.error)[1])
    if code not in REFUSED:
        raise Failed(f"the server answered {code.name}: {refusal(result.error)[1]}")
    return _refused(result.error)


def _refused(status: Status) -> Answer:
    reason, sentence = refusal(status)
    if reason == "PROGRAM_UNKNOWN":
        raise Failed(sentence)
    return Answer(reason=reason or "REFUSED", message=sentence)


def batches(stream: Iterable[Fact]) -> Iterator[list[Fact]]:
    """The facts in their order, cut wherever a call would grow too large. A completion never goes with its order: if that is refused,
    the completion must not be sent."""
    batch: list[Fact] = []
    orders: set[str] = set()
    rows = 0
    for fact in stream:
        full = len(batch) >= BATCH_FACTS or rows + len(fact.lines) > BATCH_ROWS
        if batch and (full or (fact.kind is Kind.COMPLETION and fact.id in orders)):
            yield batch
            batch, orders, rows = [], set(), 0
        batch.append(fact)
        rows += len(fact.lines)
        if fact.kind is Kind.ORDER:
            orders.add(fact.id)
    if batch:
        yield batch


# ---------------------------------------------------------------- the whole import


@dataclass
class Count:
    """Facts of one kind. sent = recorded + already recorded + refused by the server; rejected counts those refused here as well."""

    sent: int = 0
    recorded: int = 0
    already_recorded: int = 0
    rejected: set[str] = field(default_factory=set)


@dataclass
class Summary:
    counts: dict[Kind, Count]
    rejected_rows: int
    rows: int
    elapsed_s: float


class Rejections:
    """Writes rejected.csv, a row for every row that stayed out. Rows come from reading and from the server at the same time."""

    def __init__(self, path: Path, names: dict[Kind, str]) -> None:
        self._names, self.rows, self._one = names, 0, Lock()
        self.counts = {kind: Count() for kind in Kind}
        try:
            self._file = path.open("w", newline="", encoding="utf-8")
        except OSError as problem:
            raise Failed(f"cannot write {path}: {problem.strerror}; name another with --rejected") from problem
        self._csv = csv.writer(self._file)
        self._csv.writerow(("file", "line", "id", "reason", "message"))

    def __call__(self, row: Rejected) -> None:
        with self._one:
            self.rows += 1
            self.counts[row.kind].rejected.add(row.id or f"line {row.line}")
            self._csv.writerow((self._names[row.kind], row.line, row.id, row.reason, row.message))

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Job:
    """What `fenrun import` was asked for."""

    directory: Path
    program: str
    rejected: Path
    currency: str | None = None
    plan: str | None = None
    complete_after_days: int | None = None
    retry_for_s: float = 30


def run(connection: Connection, job: Job, notice: Callable[[str], None], advance: Callable[[int, int], None]) -> Summary:
    """Sends everything once. Raises Unreadable before anything is sent, Failed when the server refuses or stays away."""
    started = time.monotonic()
    tables = [(table, survey(table)) for table in find(job.directory)]
    for table, found in tables:
        if table.unused:
            notice(f"{table.path.name}: not used: {', '.join(table.unused)}")
        if found.disorder:
            notice(f"{table.path.name} is not in order of time (line {found.disorder} is earlier than the one before); sorting in memory")
    first_us = min((found.first_us for _, found in tables if found.first_us is not None), default=None)
    if first_us is None:
        raise Failed(f"{job.directory} has no row to import")
    sender = Sender(connection, job.program, job.retry_for_s)
    sender.prepare(job.currency, job.plan, first_us)
    # A completion stands in no file.
    reject = Rejections(job.rejected, {table.kind: table.path.name for table, _ in tables} | {Kind.COMPLETION: "--complete-after"})
    total, done, refused = sum(found.rows for _, found in tables), 0, 0
    stream, under_way = Stream(sender), deque[list[Fact]]()

    def answered() -> None:
        nonlocal done, refused
        batch = under_way.popleft()
        refused += _count(reject, batch, stream.answers())
        done += sum(len(fact.lines) for fact in batch)
        advance(done + reject.rows - refused, total)

    try:
        for batch in ahead(batches(merged(tables, job.complete_after_days, reject))):
            # An order that stayed out is not completed either, so whether it did must be known.
            while under_way and (len(under_way) == UNDER_WAY or _completes(batch, under_way)):
                answered()
            batch = [fact for fact in batch if fact.kind is not Kind.COMPLETION or fact.id not in reject.counts[Kind.ORDER].rejected]
            if batch:
                stream.send(batch)
                under_way.append(batch)
        while under_way:
            answered()
    finally:
        stream.close()
        reject.close()
    return Summary(reject.counts, reject.rows, total, time.monotonic() - started)


def _completes(batch: Sequence[Fact], under_way: Iterable[Sequence[Fact]]) -> bool:
    """Whether an order is completed of which it is not known yet whether it went in."""
    completed = {fact.id for fact in batch if fact.kind is Kind.COMPLETION}
    return bool(completed) and any(fact.kind is Kind.ORDER and fact.id in completed for sent in under_way for fact in sent)


def ahead(source: Iterator[T]) -> Iterator[T]:
    """The same, each made in a thread of its own while the one before is in use."""
    with ThreadPoolExecutor(1, "fenrun-reading") as thread:
        upcoming = thread.submit(next, source, None)
        while (found := upcoming.result()) is not None:
            upcoming = thread.submit(next, source, None)
            yield found


def _count(reject: Rejections, batch: Sequence[Fact], answers: Sequence[Answer]) -> int:
    """Takes the answers into the counts; gives how many rows the server refused."""
    refused = 0
    for fact, answer in zip(batch, answers, strict=True):
        count = reject.counts[fact.kind]
        count.sent += 1
        if answer.reason:
            for line in fact.lines or (0,):
                reject(Rejected(fact.kind, line, fact.id, answer.reason, answer.message))
                refused += 1
        elif answer.already:
            count.already_recorded += 1
        else:
            count.recorded += 1
    return refused


def effective_from(document: str, at: str) -> str:
    """The plan document, in force from `at` unless it says from when. What is no such document comes back as it is: the server judges it.

    Works on the nodes of the YAML, so that no value is read and written again as something else.
    """
    try:
        root = yaml.compose(document, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return document
    if not isinstance(root, yaml.MappingNode):
        return document
    start = (yaml.ScalarNode("tag:yaml.org,2002:str", "from"), yaml.ScalarNode("tag:yaml.org,2002:str", at, style='"'))
    there = next((value for key, value in root.value if key.value == "effective"), None)
    if there is None:
        name = yaml.ScalarNode("tag:yaml.org,2002:str", "effective")
        root.value.append((name, yaml.MappingNode("tag:yaml.org,2002:map", [start], flow_style=root.flow_style)))
    elif isinstance(there, yaml.MappingNode) and all(key.value != "from" for key, _ in there.value):
        there.value.append(start)
    else:
        return document
    return str(yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True))
