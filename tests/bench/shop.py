"""The programs that are measured, and the books that must come of them: 10,000 members in a tree whose orders of one line pay three people,
chains of ten whose orders pay nine by the agents' rules, and thirteen by every rule kind that an order can meet; a thousand small programs,
and buyers under ten and under ten thousand others, all under the tree's plan."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

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
SMALL_PROGRAMS, SMALL_BUYERS = 1000, 10
# The run of the first orders.
FIRST = "first"
# Callers that open and check many programs at once.
OPENERS = 8
CHAIN_TIERS = ("member", "manager", "manager", "manager", "director", "director", "director", "partner", "partner", "partner")


@dataclass(frozen=True, eq=False)
class Shop:
    """A program or several alike, what each tells before it is measured, and what their orders come to."""

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
    copies: int = 1

    @property
    def programs(self) -> list[str]:
        return [f"{self.program}-{number:03d}" for number in range(self.copies)] if self.copies > 1 else [self.program]


STORY_BEGINS = Timestamp()
STORY_BEGINS.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))


class Lost(AssertionError):
    """The books are not what the run told. Its figures are worthless, and so are all others until somebody knows why."""


def member_id(number: int) -> str:
    return f"m{number:05d}"


def referrer_id(number: int) -> str:
    """Who brought a member; empty for the root."""
    return member_id((number - 1) // FAN_OUT) if number else ""


def member_number(member_id: str) -> int:
    """The number of a member of a tree."""
    return int(member_id.removeprefix("m"))


def referrers(member_id: str, levels: int) -> list[str]:
    """So many above a member of a tree, the nearest first."""
    above = [member_id]
    for _ in range(levels):
        above.append(referrer_id(member_number(above[-1])))
    return above[1:]


def _enroll(member_id: str, referrer_id: str) -> ops_pb2.Fact:
    request = referral_pb2.EnrollMemberRequest(member_id=member_id, referrer_id=referrer_id, enrolled_at=STORY_BEGINS)
    return ops_pb2.Fact(enroll_member=request)


def _tree(members: int) -> list[ops_pb2.Fact]:
    return [_enroll(member_id(number), referrer_id(number)) for number in range(members)]


def tree(program: str, members: int, copies: int = 1) -> Shop:
    """Members in a tree; whoever has two above buys."""
    everybody = [member_id(number) for number in range(members)]
    return Shop(program, PLAN, 3, 180, 100, partial(_tree, members), everybody, everybody[FIRST_BUYER:], copies=copies)


def _line(above: int) -> list[ops_pb2.Fact]:
    return [_enroll(member_id(n), member_id(n - 1) if n else "") for n in range(above)] + [
        _enroll(f"b{n:02d}", member_id(above - 1)) for n in range(BUYERS)
    ]


def line(program: str, above: int) -> Shop:
    """Buyers who all have the same so many above them, in one line."""
    buyers = [f"b{number:02d}" for number in range(BUYERS)]
    everybody = [*map(member_id, range(above)), *buyers]
    return Shop(program, PLAN, 3, 180, 100, partial(_line, above), everybody, buyers)


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


TREE = tree("bench", MEMBERS)
SMALL = tree("bench-small", FIRST_BUYER + SMALL_BUYERS, SMALL_PROGRAMS)
SHALLOW, DEEP = line("bench-shallow", 10), line("bench-deep", 10_000)
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


class Orders:
    """New orders of one run, drawn with the run's name as seed, and what they come to in each program."""

    def __init__(self, run: str, shop: Shop = TREE) -> None:
        self.shop, self._programs = shop, shop.programs
        self._run = run
        self._dice = random.Random(run)
        self.told: Counter[str] = Counter()
        self.base_minor: Counter[str] = Counter()

    def program(self) -> str:
        """Where the next call goes."""
        return self._dice.choice(self._programs)

    def some(self, program: str, count: int) -> list[ledger_pb2.Order]:
        return [self.of(program, self._dice.choice(self.shop.buyers)) for _ in range(count)]

    def of(self, program: str, buyer_id: str) -> ledger_pb2.Order:
        self.told[program] += 1
        base = self.shop.base_step_minor * self._dice.randrange(10, 1000)
        self.base_minor[program] += base
        line = log_pb2.OrderLine(line_no=1, base_minor=base, quantity=1, sku=f"S{base % 997}")
        return ledger_pb2.Order(
            order_id=f"{self._run}-{self.told[program]}",
            member_id=buyer_id,
            paid_at=STORY_BEGINS,
            currency="GBP",
            lines=[line],
            attributions=self.shop.attributions,
        )


@dataclass(frozen=True)
class Books:
    """What is checked of a program: where the log ends and what each account holds."""

    position: int
    accounts: dict[int, int]

    @classmethod
    def of(cls, channel: grpc.Channel, program: str) -> "Books":
        request = ledger_pb2.TrialBalanceRequest(program_id=program)
        found = ledger_pb2_grpc.LedgerServiceStub(channel).TrialBalance(request, timeout=CALL_TIMEOUT_S)
        return cls(found.position, {row.account: row.balance.minor_units for row in found.accounts})

    def check_after(self, before: "Books", program: str, told: int, earned: int, owner: psycopg.Connection[tuple[int, ...]]) -> None:
        """That the log grew by exactly the orders told, and the accounts by exactly what these earn. Raises Lost."""
        if sum(self.accounts.values()):
            raise Lost(f"the trial balance of {program} sums to {sum(self.accounts.values())}: {self.accounts}")
        counted = owner.execute(
            "select count(*), count(distinct stream) from fenrun.entries"
            " where program_id = %s and position > %s and type = 'order.paid.v1'",
            [program, before.position],
        ).fetchone()
        grown = self.position - before.position
        if counted != (told, told) or grown != told:
            raise Lost(f"{told} orders were told to {program} and answered, the log has {counted} more, its head {grown}")
        moved = {account: value - before.accounts.get(account, 0) for account, value in self.accounts.items()}
        expected = dict.fromkeys(moved, 0) | ({log_pb2.ACCOUNT_COMMISSION: -earned, log_pb2.ACCOUNT_PENDING: earned} if told else {})
        if moved != expected:
            raise Lost(f"the accounts of {program} moved by {moved}, the orders earn {expected}")


def books(channel: grpc.Channel, shop: Shop) -> dict[str, Books]:
    """{program: its books}."""
    with ThreadPoolExecutor(OPENERS) as callers:
        return dict(zip(shop.programs, callers.map(partial(Books.of, channel), shop.programs), strict=True))


def open_books(channel: grpc.Channel, shop: Shop) -> None:
    """Makes the shop's programs: the plan, the members, and the first orders. Raises Lost when the books do not say so."""
    with ThreadPoolExecutor(OPENERS) as callers:
        list(callers.map(partial(_open, channel, shop, shop.facts()), shop.programs))


def open_program(channel: grpc.Channel, shop: Shop, program: str) -> None:
    """The program and its plan."""
    request = ops_pb2.CreateProgramRequest(program_id=program, currency="GBP")
    ops_pb2_grpc.OpsServiceStub(channel).CreateProgram(request, timeout=CALL_TIMEOUT_S)
    publish = ledger_pb2.PublishPlanRequest(program_id=program, document=shop.plan, published_at=STORY_BEGINS)
    ledger_pb2_grpc.LedgerServiceStub(channel).PublishPlan(publish, timeout=CALL_TIMEOUT_S)


def _open(channel: grpc.Channel, shop: Shop, facts: Sequence[ops_pb2.Fact], program: str) -> None:
    open_program(channel, shop, program)
    ops, ledger = ops_pb2_grpc.OpsServiceStub(channel), ledger_pb2_grpc.LedgerServiceStub(channel)
    for start in range(0, len(facts), LARGEST_BATCH):
        request = ops_pb2.RecordFactsRequest(program_id=program, facts=facts[start : start + LARGEST_BATCH])
        answer = ops.RecordFacts(request, timeout=CALL_TIMEOUT_S)
        _require(all(result.WhichOneof("result") != "error" for result in answer.results), answer)
    firsts = Orders(FIRST, shop)
    for start in range(0, len(shop.firsts), LARGEST_BATCH):
        orders = [firsts.of(program, buyer) for buyer in shop.firsts[start : start + LARGEST_BATCH]]
        told = ledger.RecordOrders(ledger_pb2.RecordOrdersRequest(program_id=program, orders=orders), timeout=CALL_TIMEOUT_S)
        _require(all(result.recorded.HasField("binding_locked") for result in told.results), told)
    found = Books.of(channel, program)
    # The program, its plan, what was told of its members, and the first orders.
    if sum(found.accounts.values()) or found.position != 2 + len(facts) + len(shop.firsts):
        raise Lost(f"the books of {program} after the first orders: {found}")


def told(order: ledger_pb2.Order) -> ops_pb2.Fact:
    """An order among facts of other kinds."""
    return ops_pb2.Fact(record_order=ledger_pb2.RecordOrderRequest(order=order))


def first_order(number: int) -> tuple[str, int]:
    """(id, position) of the first order of a member of the tree: the program, its plan and all members were told before."""
    return f"{FIRST}-{number + 1}", 2 + MEMBERS + number + 1


def require_paid(shop: Shop, recorded: ledger_pb2.RecordedOrder) -> None:
    """That an order was recorded now, and pays everybody it must. Raises Lost."""
    _require(len(recorded.earnings) == shop.payees and not recorded.receipt.already_recorded, recorded)


def _require(holds: bool, answer: object) -> None:
    if not holds:
        raise Lost(f"not the answer this run must get: {str(answer)[:500]}")
