"""The program that is measured: 10,000 members in a tree, orders of one line that pay three people, and the books that must come of it."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import psycopg
from fenrun.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc
from fenrun.referral.v1 import referral_pb2
from google.protobuf.timestamp_pb2 import Timestamp

PROGRAM = "bench"
MEMBERS = 10_000
FAN_OUT = 10
# The root and the ten below it have fewer than two people above them.
FIRST_BUYER = 1 + FAN_OUT
PAYEES = 3
LARGEST_BATCH = 500
CALL_TIMEOUT_S = 60

PLAN = """
plan: three-payees
version: 1
currency: GBP
tiers: [member]
effective: {from: "2000-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: own, kind: self, rate: 3%}
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: second, kind: generation, generation: 2, rate: 5%}
"""
# Of a base of whole pounds every rate is a whole number of pence, so the sum of all orders tells the books to the penny.
POOL_PERCENT = 18

STORY_BEGINS = Timestamp()
STORY_BEGINS.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))


class Lost(AssertionError):
    """The books are not what the run told. Its figures are worthless, and so are all others until somebody knows why."""


def member_id(number: int) -> str:
    return f"m{number:05d}"


def referrer_id(number: int) -> str:
    """Who brought a member; empty for the root."""
    return member_id((number - 1) // FAN_OUT) if number else ""


class Orders:
    """New orders of one run, drawn with the run's name as seed, and what they come to."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._dice = random.Random(run)
        self.told = 0
        self.base_minor = 0

    def order(self) -> ledger_pb2.Order:
        return self.of(member_id(self._dice.randrange(FIRST_BUYER, MEMBERS)))

    def of(self, buyer_id: str) -> ledger_pb2.Order:
        self.told += 1
        base = 100 * self._dice.randrange(10, 1000)
        self.base_minor += base
        line = log_pb2.OrderLine(line_no=1, base_minor=base, quantity=1, sku=f"S{base % 997}")
        return ledger_pb2.Order(order_id=f"{self._run}-{self.told}", member_id=buyer_id, paid_at=STORY_BEGINS, currency="GBP", lines=[line])


@dataclass(frozen=True)
class Books:
    """What is checked: where the log ends and what each account holds."""

    position: int
    accounts: dict[int, int]

    @classmethod
    def of(cls, channel: grpc.Channel) -> "Books":
        request = ledger_pb2.TrialBalanceRequest(program_id=PROGRAM)
        found = ledger_pb2_grpc.LedgerServiceStub(channel).TrialBalance(request, timeout=CALL_TIMEOUT_S)
        return cls(found.position, {row.account: row.balance.minor_units for row in found.accounts})

    def check_after(self, before: "Books", told: int, base_minor: int, owner: psycopg.Connection[tuple[int, ...]]) -> None:
        """That the log grew by exactly the orders told, and the accounts by exactly what these earn. Raises Lost."""
        if sum(self.accounts.values()):
            raise Lost(f"the trial balance sums to {sum(self.accounts.values())}: {self.accounts}")
        counted = owner.execute(
            "select count(*), count(distinct stream) from fenrun.entries"
            " where program_id = %s and position > %s and type = 'order.paid.v1'",
            [PROGRAM, before.position],
        ).fetchone()
        if counted != (told, told) or self.position - before.position != told:
            raise Lost(f"{told} orders were told and answered, the log has {counted} more, its head {self.position - before.position}")
        earned = base_minor * POOL_PERCENT // 100
        moved = {account: value - before.accounts.get(account, 0) for account, value in self.accounts.items()}
        expected = dict.fromkeys(moved, 0) | {log_pb2.ACCOUNT_COMMISSION: -earned, log_pb2.ACCOUNT_PENDING: earned}
        if moved != expected:
            raise Lost(f"the accounts moved by {moved}, the orders earn {expected}")


def open_books(channel: grpc.Channel) -> Orders:
    """Makes the program: the plan, the members, and a first order of each so that every lock has fallen. Gives these orders."""
    ops, ledger = ops_pb2_grpc.OpsServiceStub(channel), ledger_pb2_grpc.LedgerServiceStub(channel)
    ops.CreateProgram(ops_pb2.CreateProgramRequest(program_id=PROGRAM, currency="GBP"), timeout=CALL_TIMEOUT_S)
    ledger.PublishPlan(ledger_pb2.PublishPlanRequest(program_id=PROGRAM, document=PLAN, published_at=STORY_BEGINS), timeout=CALL_TIMEOUT_S)
    firsts = Orders("first")
    for start in range(0, MEMBERS, LARGEST_BATCH):
        numbers = range(start, min(start + LARGEST_BATCH, MEMBERS))
        enrolments = [
            referral_pb2.EnrollMemberRequest(member_id=member_id(n), referrer_id=referrer_id(n), enrolled_at=STORY_BEGINS) for n in numbers
        ]
        facts = [ops_pb2.Fact(enroll_member=enrolment) for enrolment in enrolments]
        answer = ops.RecordFacts(ops_pb2.RecordFactsRequest(program_id=PROGRAM, facts=facts), timeout=CALL_TIMEOUT_S)
        _require(all(result.WhichOneof("result") == "enroll_member" for result in answer.results), answer)
    for start in range(0, MEMBERS, LARGEST_BATCH):
        numbers = range(start, min(start + LARGEST_BATCH, MEMBERS))
        orders = [firsts.of(member_id(n)) for n in numbers]
        told = ledger.RecordOrders(ledger_pb2.RecordOrdersRequest(program_id=PROGRAM, orders=orders), timeout=CALL_TIMEOUT_S)
        _require(all(result.recorded.HasField("binding_locked") for result in told.results), told)
    return firsts


def require_paid(recorded: ledger_pb2.RecordedOrder) -> None:
    """That an order was recorded now, and pays three. Raises Lost."""
    _require(len(recorded.earnings) == PAYEES and not recorded.receipt.already_recorded, recorded)


def _require(holds: bool, answer: object) -> None:
    if not holds:
        raise Lost(f"not the answer this run must get: {str(answer)[:500]}")
