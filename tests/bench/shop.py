"""The programs that are measured, and the books that must come of them: 10,000 members in a tree whose orders of one line pay three people,
chains of ten whose orders pay nine by the agents' rules, and thirteen by every rule kind that an order can meet."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import psycopg
from fenrun.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc
from fenrun.referral.v1 import referral_pb2
from google.protobuf.timestamp_pb2 import Timestamp

MEMBERS = 10_000
FAN_OUT = 10
# The root and the ten below it have fewer than two people above them.
FIRST_BUYER = 1 + FAN_OUT
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
# The agents' preset with everything that is lawful only elsewhere: deep, with peers by line and by income, two levels, a region, a fund, a
# cap, and promotions that nobody reaches.
RICH_PLAN = """
plan: rich-agents
version: 1
currency: GBP
profile: none
tiers: [member, manager, director, partner]
granted: [member, manager, director, partner]
effective: {from: "2000-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: own, kind: self, rate: 1%, cap_minor: {period: 1000000000000}}
  - {id: first, kind: generation, generation: 1, rate: 3%}
  - {id: second, kind: generation, generation: 2, rates: {member: 2%, manager: 2%, director: 2%}, skip_unqualified: true, depth: 10}
  - {id: ladder, kind: differential, rates: {member: 5%, manager: 10%, director: 15%, partner: 20%}, depth: 10}
  - {id: leaders, kind: peer, of: ladder, base: income, rates: {director: 10%, partner: 10%}, depth: 10}
  - {id: equals, kind: peer, rates: {manager: 1%, director: 1%}, times: 2, depth: 10}
  - {id: region, kind: attributed, role: region, rate: 2%}
  - {id: fund, kind: pool, role: partner, rate: 1%, split: shares}
promotions:
  - {tier: member, all: [{metric: orders, at_least: 1000000000}, {metric: own_volume, at_least: 1000000000000, days: 30}]}
  - {tier: partner, any: [{metric: team_volume, at_least: 1000000000000, days: 30, depth: 3}]}
"""
# The preset weishang-agents as deep as the chains, which is lawful only elsewhere, with peers by line beside those by income; promotions
# of the same kinds, which nobody reaches.
AGENTS_PLAN = """
plan: deep-agents
version: 1
currency: GBP
profile: none
tiers: [member, manager, director, partner]
granted: [member, manager, director, partner]
effective: {from: "2000-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: ladder, kind: differential, rates: {member: 5%, manager: 10%, director: 15%, partner: 20%}, depth: 10, buyer: deducts}
  - {id: leaders, kind: peer, of: ladder, base: income, rates: {director: 10%, partner: 10%}, depth: 10}
  - {id: equals, kind: peer, rates: {manager: 1%, director: 1%}, times: 2, depth: 10}
promotions:
  - tier: member
    any:
      - {metric: gift_packs, at_least: 1}
      - {metric: own_volume, at_least: 1000000000000, days: 30}
      - {metric: team_volume, at_least: 1000000000000, days: 30, depth: 1}
  - tier: manager
    all:
      - {metric: own_volume, at_least: 2000000000000, days: 30}
      - {metric: team_volume, at_least: 2000000000000, days: 30, depth: 1}
"""
CHAINS, CHAIN, BUYERS = 20, 10, 100
CHAIN_TIERS = ("member", "manager", "manager", "manager", "director", "director", "director", "partner", "partner", "partner")


@dataclass(frozen=True)
class Shop:
    """A program, what it tells before it is measured, and what its orders come to."""

    program: str
    plan: str
    payees: int
    # Of a base of whole steps every share is a whole number of pence, so the sum of all orders tells the books to the penny.
    pool_permille: int
    base_step_minor: int
    facts: Callable[[], list[ops_pb2.Fact]]
    # Everybody who buys once before the measuring, those above first, so that every lock has fallen.
    firsts: Sequence[str]
    buyers: Sequence[str]
    attributions: tuple[log_pb2.Attribution, ...] = ()


STORY_BEGINS = Timestamp()
STORY_BEGINS.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))


class Lost(AssertionError):
    """The books are not what the run told. Its figures are worthless, and so are all others until somebody knows why."""


def member_id(number: int) -> str:
    return f"m{number:05d}"


def referrer_id(number: int) -> str:
    """Who brought a member; empty for the root."""
    return member_id((number - 1) // FAN_OUT) if number else ""


def _enroll(member_id: str, referrer_id: str) -> ops_pb2.Fact:
    request = referral_pb2.EnrollMemberRequest(member_id=member_id, referrer_id=referrer_id, enrolled_at=STORY_BEGINS)
    return ops_pb2.Fact(enroll_member=request)


def _tree() -> list[ops_pb2.Fact]:
    return [_enroll(member_id(number), referrer_id(number)) for number in range(MEMBERS)]


def _above(chain: int, level: int) -> str:
    """Who stands so many above the buyers of a chain."""
    return f"c{chain:02d}u{level:02d}"


def _chains() -> list[ops_pb2.Fact]:
    facts = []
    for chain in range(CHAINS):
        for level in range(CHAIN, 0, -1):
            facts.append(_enroll(_above(chain, level), _above(chain, level + 1) if level < CHAIN else ""))
            upgrade = referral_pb2.UpgradeMemberRequest(
                upgrade_id=_above(chain, level),
                member_id=_above(chain, level),
                tier=CHAIN_TIERS[level - 1],
                upgraded_at=STORY_BEGINS,
                evidence=log_pb2.Evidence(kind=log_pb2.EVIDENCE_KIND_IMPORT),
            )
            facts.append(ops_pb2.Fact(upgrade_member=upgrade))
        facts += [_enroll(f"c{chain:02d}b{number:02d}", _above(chain, 1)) for number in range(BUYERS)]
    return facts


def _chains_and_roles() -> list[ops_pb2.Fact]:
    facts = [_enroll("region-east", ""), _enroll("region-west", ""), *_chains()]
    # The fund is shared by three of the first chain, for a partner of every chain would make each order pay sixty.
    partners = [("partner", "", _above(0, level), weight) for level, weight in ((8, 1), (9, 1), (10, 2))]
    for role, scope, holder, weight in [("region", "310000", "region-east", 1), ("region", "310000", "region-west", 1), *partners]:
        grant = referral_pb2.GrantRoleRequest(
            grant_id=f"{role}-{holder}",
            member_id=holder,
            role=role,
            scope=scope,
            weight=weight,
            effective_from=STORY_BEGINS,
            granted_at=STORY_BEGINS,
        )
        facts.append(ops_pb2.Fact(grant_role=grant))
    return facts


TREE = Shop("bench", PLAN, 3, 180, 100, _tree, [member_id(n) for n in range(MEMBERS)], [member_id(n) for n in range(FIRST_BUYER, MEMBERS)])
_RICH_BUYERS = [f"c{chain:02d}b{number:02d}" for chain in range(CHAINS) for number in range(BUYERS)]
RICH = Shop(
    "bench-rich",
    RICH_PLAN,
    13,
    340,
    2000,
    _chains_and_roles,
    _RICH_BUYERS,
    # Of the first chain, whose partners share the fund: the path and the roles together are thirteen payees.
    [buyer for buyer in _RICH_BUYERS if buyer.startswith("c00")],
    (log_pb2.Attribution(role="region", scope="310000"),),
)
AGENTS = Shop("bench-agents", AGENTS_PLAN, 9, 250, 2000, _chains, _RICH_BUYERS, _RICH_BUYERS)
SHOPS = (TREE, AGENTS, RICH)


class Orders:
    """New orders of one run, drawn with the run's name as seed, and what they come to."""

    def __init__(self, run: str, shop: Shop = TREE) -> None:
        self.shop = shop
        self._run = run
        self._dice = random.Random(run)
        self.told = 0
        self.base_minor = 0

    def order(self) -> ledger_pb2.Order:
        return self.of(self._dice.choice(self.shop.buyers))

    def of(self, buyer_id: str) -> ledger_pb2.Order:
        self.told += 1
        base = self.shop.base_step_minor * self._dice.randrange(10, 1000)
        self.base_minor += base
        line = log_pb2.OrderLine(line_no=1, base_minor=base, quantity=1, sku=f"S{base % 997}")
        return ledger_pb2.Order(
            order_id=f"{self._run}-{self.told}",
            member_id=buyer_id,
            paid_at=STORY_BEGINS,
            currency="GBP",
            lines=[line],
            attributions=self.shop.attributions,
        )


@dataclass(frozen=True)
class Books:
    """What is checked: where the log ends and what each account holds."""

    position: int
    accounts: dict[int, int]

    @classmethod
    def of(cls, channel: grpc.Channel, shop: Shop) -> "Books":
        request = ledger_pb2.TrialBalanceRequest(program_id=shop.program)
        found = ledger_pb2_grpc.LedgerServiceStub(channel).TrialBalance(request, timeout=CALL_TIMEOUT_S)
        return cls(found.position, {row.account: row.balance.minor_units for row in found.accounts})

    def check_after(self, shop: Shop, before: "Books", told: int, base_minor: int, owner: psycopg.Connection[tuple[int, ...]]) -> None:
        """That the log grew by exactly the orders told, and the accounts by exactly what these earn. Raises Lost."""
        if sum(self.accounts.values()):
            raise Lost(f"the trial balance sums to {sum(self.accounts.values())}: {self.accounts}")
        counted = owner.execute(
            "select count(*), count(distinct stream) from fenrun.entries"
            " where program_id = %s and position > %s and type = 'order.paid.v1'",
            [shop.program, before.position],
        ).fetchone()
        if counted != (told, told) or self.position - before.position != told:
            raise Lost(f"{told} orders were told and answered, the log has {counted} more, its head {self.position - before.position}")
        earned = base_minor * shop.pool_permille // 1000
        moved = {account: value - before.accounts.get(account, 0) for account, value in self.accounts.items()}
        expected = dict.fromkeys(moved, 0) | {log_pb2.ACCOUNT_COMMISSION: -earned, log_pb2.ACCOUNT_PENDING: earned}
        if moved != expected:
            raise Lost(f"the accounts moved by {moved}, the orders earn {expected}")


def open_books(channel: grpc.Channel, shop: Shop) -> tuple[Orders, int]:
    """Makes a program: the plan, the members, and the first orders. Gives these orders, and how many facts were told before them."""
    ops, ledger = ops_pb2_grpc.OpsServiceStub(channel), ledger_pb2_grpc.LedgerServiceStub(channel)
    ops.CreateProgram(ops_pb2.CreateProgramRequest(program_id=shop.program, currency="GBP"), timeout=CALL_TIMEOUT_S)
    publish = ledger_pb2.PublishPlanRequest(program_id=shop.program, document=shop.plan, published_at=STORY_BEGINS)
    ledger.PublishPlan(publish, timeout=CALL_TIMEOUT_S)
    firsts = Orders("first", shop)
    facts = shop.facts()
    for start in range(0, len(facts), LARGEST_BATCH):
        request = ops_pb2.RecordFactsRequest(program_id=shop.program, facts=facts[start : start + LARGEST_BATCH])
        answer = ops.RecordFacts(request, timeout=CALL_TIMEOUT_S)
        _require(all(result.WhichOneof("result") != "error" for result in answer.results), answer)
    for start in range(0, len(shop.firsts), LARGEST_BATCH):
        orders = [firsts.of(buyer) for buyer in shop.firsts[start : start + LARGEST_BATCH]]
        told = ledger.RecordOrders(ledger_pb2.RecordOrdersRequest(program_id=shop.program, orders=orders), timeout=CALL_TIMEOUT_S)
        _require(all(result.recorded.HasField("binding_locked") for result in told.results), told)
    return firsts, len(facts)


def require_paid(shop: Shop, recorded: ledger_pb2.RecordedOrder) -> None:
    """That an order was recorded now, and pays everybody it must. Raises Lost."""
    _require(len(recorded.earnings) == shop.payees and not recorded.receipt.already_recorded, recorded)


def _require(holds: bool, answer: object) -> None:
    if not holds:
        raise Lost(f"not the answer this run must get: {str(answer)[:500]}")
