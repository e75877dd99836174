"""The ledger's state: what deciding needs to know of the past, and how each entry changes it.

A `Books` can be complete (folded from position 1: tests, replay) or partial (what the writer loaded for a batch). A partial one knows
which keys it holds, absent ones included, and raises NotLoaded for any other, so that missing knowledge is never taken for absence.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from operator import add
from typing import NamedTuple

from services.kernel.decider import Entry, NotLoaded
from services.kernel.times import DAY_US
from services.ledger.domain.booking import Booked, Seal, seal_of
from services.ledger.domain.counting import Key, Window
from services.ledger.domain.engine import ENGINE_VERSION
from services.ledger.domain.facts import (
    Account,
    AdjustmentPosted,
    BalanceOpened,
    BindingCorrected,
    BindingLock,
    BooksSealed,
    Count,
    DepositMoved,
    DueChange,
    GroupFailed,
    GroupFormed,
    GroupJoined,
    GroupOpened,
    HoldLifted,
    HoldPlaced,
    LineShares,
    MemberEnrolled,
    MemberTouched,
    MemberUpgraded,
    OrderCompleted,
    OrderGroupFormed,
    OrderLine,
    OrderPaid,
    OrderPaidDecision,
    OrderRefunded,
    OrderReleased,
    OrderVoided,
    PayoutFailed,
    PayoutPaid,
    PayoutRequested,
    PeriodClosed,
    PeriodClosedDecision,
    PeriodCorrected,
    PeriodFigures,
    PlanPublished,
    Posting,
    ProgramCreated,
    RewardReleased,
    RoleEnded,
    RoleGranted,
    StockTransferred,
    TaskDone,
    TierChange,
    TierChangeKind,
)
from services.ledger.domain.periods import period_of
from services.ledger.domain.plan import Plan, PlanVersion, version_of
from services.ledger.domain.rules import Release


class Member(NamedTuple):
    """As far as money cares. While open, `referrer_id` is the one a lock would fall to, `touch_position` the touch that says so."""

    tier: str = ""
    tier_position: int = 0
    locked: bool = False
    referrer_id: str = ""
    binding_position: int = 0
    touch_position: int = 0


class Standing(NamedTuple):
    """What makes a tier count otherwise than it stands there: frozen, or a seat that ends at a time and then counts as `fallback_tier`."""

    frozen: bool
    seat_until_us: int | None
    fallback_tier: str
    # The entry that gave the fallback tier; 0: none.
    fallback_position: int = 0


class Grant(NamedTuple):
    """A role held at a place (empty: everywhere) from a time until another (None: open end)."""

    grant_id: str
    member_id: str
    role: str
    scope: str
    weight: int
    from_us: int
    until_us: int | None
    position: int

    def in_effect(self, at_us: int) -> bool:
        return self.from_us <= at_us and (self.until_us is None or at_us < self.until_us)


class Evidence(NamedTuple):
    """A tier that rests on an order, and the tier before it. `position`: the entry that gave the tier."""

    member_id: str
    tier: str
    previous_tier: str
    position: int
    # The entry that gave the tier before; 0: none, or an upgrade by hand, which does not say.
    previous_position: int = 0


class Balance(NamedTuple):
    """A member's accounts in one asset; `debt` is zero or negative. accrued - reversed + adjusted = the sum of the five."""

    pending: int = 0
    available: int = 0
    reserved: int = 0
    paid: int = 0
    debt: int = 0
    accrued: int = 0
    reversed: int = 0
    adjusted: int = 0

    def __add__(self, other: object) -> "Balance":
        if not isinstance(other, Balance):
            return NotImplemented
        return Balance._make(map(add, self, other))


NOTHING = Balance()


def settle(balance: Balance, amount: int) -> list[tuple[Account, int]]:
    """Where incoming money goes: debts first, the rest to available."""
    owed = min(-balance.debt, amount)
    return [(account, part) for account, part in ((Account.DEBT, owed), (Account.AVAILABLE, amount - owed)) if part]


def claw_back(balance: Balance, amount: int) -> list[tuple[Account, int]]:
    """Where money to be taken back comes from: available as far as it reaches, the rest becomes debt."""
    taken = min(balance.available, amount)
    return [(account, -part) for account, part in ((Account.AVAILABLE, taken), (Account.DEBT, amount - taken)) if part]


COMPANY_ACCOUNTS = frozenset(
    {Account.COMMISSION, Account.BREAKAGE, Account.ADJUSTMENT, Account.WRITE_OFF, Account.CLEARING, Account.OPENING}
)
# The five accounts of what a member earns come first. A plain number: it is compared with every posting.
LAST_EARNED = Account.DEBT.value
# Members' accounts apart from what they earn.
APART_ACCOUNTS = frozenset({Account.DEPOSIT, Account.MARGIN})
# Where a fact's postings to a member add up gross: which figure of a Balance, and the sign. Of a correction the sum of them tells.
ACCRUED, REVERSED, ADJUSTED = (5, 1), (6, -1), (7, 1)
GROSS: dict[type, tuple[int, int]] = {
    **dict.fromkeys((OrderPaid, TaskDone, PeriodClosed), ACCRUED),
    **dict.fromkeys((OrderRefunded, OrderVoided), REVERSED),
    **dict.fromkeys((AdjustmentPosted, BalanceOpened), ADJUSTED),
}
NOT_GROSS = (0, 0)


def movements(entry: Entry) -> dict[tuple[str, str], Balance]:
    """What an entry changes for each (member, asset), gross figures included."""
    changes: dict[tuple[str, str], list[int]] = {}
    _add_up(changes, entry, getattr(entry.decision, "postings", ()), complete=True)
    return {key: Balance._make(row) for key, row in changes.items()}


def _add_up(balances: dict[tuple[str, str], list[int]], entry: Entry, postings: Iterable[Posting], complete: bool) -> None:
    """Adds an entry's postings to the figures of members; to those only that are there, unless these are complete."""
    fact = type(entry.fact)
    gross, sign = GROSS.get(fact, NOT_GROSS)
    nets: dict[tuple[str, str], int] = {}
    for account, member_id, amount, asset in postings:
        if account <= LAST_EARNED:
            key = (member_id, asset)
            figures = balances.get(key)
            if figures is None:
                if not complete:
                    continue
                figures = balances[key] = [0, 0, 0, 0, 0, 0, 0, 0]
            figures[account - 1] += amount
            if gross:
                figures[gross] += sign * amount
            elif fact is PeriodCorrected:
                nets[key] = nets.get(key, 0) + amount
    for key, net in nets.items():
        gross, sign = ACCRUED if net > 0 else REVERSED
        balances[key][gross] += sign * net


@dataclass(slots=True)
class LineState:
    """What remains of a line, and what that entitles to: {(rule index, payee): amount}."""

    line: OrderLine
    remaining_base: int
    remaining_quantity: int
    entitled: dict[tuple[int, int], int]


@dataclass(slots=True)
class Order:
    """An order and all that followed on it, folded from its stream."""

    paid: Entry
    completed: Entry | None = None
    # The group of the order was formed.
    formed: Entry | None = None
    # The group of the order failed: nothing of it counts any more.
    voided: bool = False
    refunds: dict[str, Entry] = field(default_factory=dict)
    # What is due, and what has been released: {(member, due time, asset): amount}.
    due: dict[tuple[str, int, str], int] = field(default_factory=dict)
    released: set[tuple[str, int, str]] = field(default_factory=set)
    positions: list[int] = field(default_factory=list)
    # See `lines` and `whole`. Most orders are completed without anybody looking at their lines.
    _lines: dict[int, LineState] | None = field(default=None, compare=False, repr=False)
    _whole: dict[tuple[int, int], int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def fact(self) -> OrderPaid:
        assert isinstance(self.paid.fact, OrderPaid)
        return self.paid.fact

    @property
    def lines(self) -> dict[int, LineState]:
        if self._lines is None:
            self._lines = {line.line_no: LineState(line, line.base_minor, line.quantity, {}) for line in self.fact.lines}
            self.entitle(self.decision.lines)
        return self._lines

    @property
    def whole(self) -> dict[tuple[int, int], int]:
        """What the order as a whole entitles to."""
        _ = self.lines  # laid out with them
        return self._whole

    @property
    def decision(self) -> OrderPaidDecision:
        assert isinstance(self.paid.decision, OrderPaidDecision)
        return self.paid.decision

    def due_us(self, release: Release, plan: Plan) -> int | None:
        """When shares that are released so fall due; None while what they wait for has not happened."""
        if release.on == "at_once":
            return self.paid.occurred_us
        if release.on == "group_formed" and self.fact.group_id:
            return None if self.formed is None else self.formed.occurred_us + release.days * DAY_US
        if self.completed is None:
            return None
        happened_us = self.completed.occurred_us
        if release.on == "period_close":
            happened_us = period_of(plan, happened_us).ends_us
        return happened_us + release.days * DAY_US

    def waits(self, member_id: str, release: Release, due_us: int | None, asset: str) -> bool:
        """Whether shares of a member that fall due then are still pending, by engine 1: those paid at once are if anything is due then."""
        key = (member_id, due_us or 0, asset)
        if release.on == "at_once" and key not in self.due:
            return False
        return due_us is None or key not in self.released

    def stopped(self, plan: Plan, member_id: str, asset: str) -> int:
        """What a hold stopped of what is paid to a member at once, as far as it waits: all that is due then but what other rules gave."""
        key = (member_id, self.paid.occurred_us, asset)
        if key not in self.due or key in self.released:
            return 0
        others = 0
        for rule_index, payee, amount in self.entitlements():
            rule = plan.rules[rule_index]
            if payee and rule.release.on != "at_once" and rule.asset == asset and self.due_us(rule.release, plan) == key[1]:
                others += amount if self.decision.people[payee - 1].member_id == member_id else 0
        return max(0, self.due[key] - max(0, others))

    def remaining(self) -> dict[int, tuple[int, int]]:
        """{line: (base, units)} of what still counts."""
        if self.voided:
            return dict.fromkeys(self.lines, (0, 0))
        return {line_no: (line.remaining_base, line.remaining_quantity) for line_no, line in self.lines.items()}

    def entitled(self, line_no: int) -> dict[tuple[int, int], int]:
        """What a line, or under 0 the order as a whole, entitles to: {(rule index, payee): amount}."""
        return self.lines[line_no].entitled if line_no else self.whole

    def entitle(self, changes: Iterable[LineShares]) -> None:
        for line_no, shares in changes:
            entitled = self.entitled(line_no)
            for rule_index, payee, amount in shares:
                slot = (rule_index, payee)
                entitled[slot] = entitled.get(slot, 0) + amount

    def entitlements(self) -> list[tuple[int, int, int]]:
        """(rule index, payee, amount): what each line, in the order told, and then the order as a whole entitle to."""
        if self._lines is None:
            decided = dict(self.decision.lines)
            return [share for line_no in (*(line.line_no for line in self.fact.lines), 0) for share in decided.get(line_no, ())]
        each = (*(line.entitled for line in self._lines.values()), self._whole)
        return [(*slot, amount) for entitled in each for slot, amount in entitled.items()]


def fold_order(entries: Iterable[Entry]) -> Order | None:
    """The order that a stream's entries, oldest first, amount to; None for an empty stream."""
    order: Order | None = None
    for entry in entries:
        order = _evolve_order(order, entry)
    return order


def _evolve_order(order: Order | None, entry: Entry) -> Order:
    fact, decision = entry.fact, entry.decision
    if order is None:
        assert isinstance(fact, OrderPaid), "an order's stream begins with its payment"
        order = Order(entry)
    elif changes := getattr(decision, "lines", ()):
        order.entitle(changes)
    order.positions.append(entry.position)
    if isinstance(fact, OrderRefunded):
        order.refunds[fact.refund_id] = entry
        for refunded in fact.lines:
            order.lines[refunded.line_no].remaining_base -= refunded.base_minor
            order.lines[refunded.line_no].remaining_quantity -= refunded.quantity
    elif isinstance(fact, OrderCompleted):
        order.completed = entry
    elif isinstance(fact, OrderGroupFormed):
        order.formed = entry
    elif isinstance(fact, OrderVoided):
        order.voided = True
    elif isinstance(fact, OrderReleased):
        order.released.update((change.member_id, change.due_us, change.asset) for change in decision.due)
    for member_id, due_us, amount, asset in getattr(decision, "due", ()):
        key = (member_id, due_us, asset)
        order.due[key] = order.due.get(key, 0) + amount
    return order


def fold_due(entries: Iterable[Entry]) -> tuple[dict[tuple[str, int, str], int], set[tuple[str, int, str]]]:
    """What is due from any stream, and what has been released from it: {(member, due time, asset): amount}."""
    due: dict[tuple[str, int, str], int] = {}
    released: set[tuple[str, int, str]] = set()
    for entry in entries:
        for member_id, due_us, amount, asset in getattr(entry.decision, "due", ()):
            key = (member_id, due_us, asset)
            due[key] = due.get(key, 0) + amount
            if isinstance(entry.fact, OrderReleased | RewardReleased):
                released.add(key)
    return due, released


def source_of(stream: str) -> str:
    """What a due amount names as where it comes from: an order by its id, anything else by its stream. No order id has a slash."""
    return stream.removeprefix("order/")


def stream_of(source: str) -> str:
    return source if "/" in source else f"order/{source}"


def figures_of(figures: Iterable[PeriodFigures]) -> dict[int, dict[int, int]]:
    """{rule index: {person, from 1: figure}}"""
    return {index: dict(pairs) for index, pairs in figures}


@dataclass(slots=True)
class ClosedPeriod:
    """A closed period and its corrections, folded from its stream."""

    closed: Entry
    volumes: dict[int, dict[int, int]]
    holders: dict[int, dict[int, int]]
    # {(payee, rule index): amount}
    shares: dict[tuple[int, int], int] = field(default_factory=dict)
    due: dict[tuple[str, int, str], int] = field(default_factory=dict)
    released: set[tuple[str, int, str]] = field(default_factory=set)
    positions: list[int] = field(default_factory=list)

    @property
    def decision(self) -> PeriodClosedDecision:
        assert isinstance(self.closed.decision, PeriodClosedDecision)
        return self.closed.decision


def fold_period(entries: Iterable[Entry]) -> ClosedPeriod | None:
    """The closed period that a stream's entries, oldest first, amount to; None for an empty stream."""
    history = list(entries)
    if not history:
        return None
    closed = history[0].decision
    period = ClosedPeriod(history[0], figures_of(closed.volumes), figures_of(closed.holders))
    for entry in history:
        if isinstance(entry.fact, PeriodClosed | PeriodCorrected):
            period.positions.append(entry.position)
        for rule_index, payee, amount in getattr(entry.decision, "shares", ()):
            key = (payee, rule_index)
            period.shares[key] = period.shares.get(key, 0) + amount
        if isinstance(entry.fact, PeriodCorrected):
            for rule_index, pairs in entry.decision.volumes:
                for number, change in pairs:
                    volumes = period.volumes.setdefault(rule_index, {})
                    volumes[number] = volumes.get(number, 0) + change
    period.due, period.released = fold_due(history)
    return period


@dataclass(slots=True)
class Books:
    """The state. Keys held but absent map to None (or the empty balance); keys not held raise NotLoaded unless the books are complete."""

    complete: bool = True
    currency: str = ""
    position: int = 0
    # The engine that decides what is told: the newest, or, where a decision is taken again, the one that took it.
    engine_version: int = ENGINE_VERSION
    plans: list[PlanVersion] = field(default_factory=list)
    members: dict[str, Member | None] = field(default_factory=dict)
    # Of members whose tier does not count as it stands there; held for every member that is.
    standings: dict[str, Standing] = field(default_factory=dict)
    # By (role, place), in the order granted.
    roles: dict[tuple[str, str], list[Grant]] = field(default_factory=dict)
    # {order: tiers that rest on it}
    evidence: dict[str, list[Evidence]] = field(default_factory=dict)
    counters: dict[Key, int] = field(default_factory=dict)
    # Sums over days that a partial state was loaded with, by (counter, member); a complete one adds them up itself.
    windows: dict[tuple[str, str], dict[Window, int]] = field(default_factory=dict)
    # A partial state may look up counters before what it rests on is appended: what was counted since a position, whosever it is, and the
    # commands (by `id`) whose counters are all held.
    counted: dict[Key, int] = field(default_factory=dict)
    counted_after: int = 0
    looked_up: frozenset[int] = frozenset()
    # None: not loaded.
    closed_periods: set[str] | None = field(default_factory=set)
    # Entries of order/…, payout/…, hold/…, plan/… and all other streams the ledger writes, oldest first.
    streams: dict[str, list[Entry]] = field(default_factory=dict)
    # Of those that a partial state was asked for: the order that so many of its stream's entries amount to. Nobody changes it.
    orders: dict[str, tuple[Order | None, int]] = field(default_factory=dict)
    # Where a partial state did not look for streams that are thought to be new: these, held as absent. None: it looked for all.
    presumed: set[str] | None = None
    # By (member, asset): the figures of a Balance, which each entry adds to in place.
    balances: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    # Deposits and margins: {(member, asset, account): balance}.
    apart: dict[tuple[str, str, Account], int] = field(default_factory=dict)
    holds: dict[str, HoldPlaced] = field(default_factory=dict)
    # {(due time, source, member, asset): amount}
    due: dict[tuple[int, str, str, str], int] = field(default_factory=dict)
    # Where a partial state was loaded for a release: the sources of which something is due and not held, earliest first.
    sources_due: list[str] | None = None
    # Where a partial state was loaded for closing a period: everybody it looks at is held, all else is absent.
    closing: bool = False
    # In the order set. None: not loaded.
    seals: list[Seal] | None = field(default_factory=list)
    # None: not kept. A partial state that was loaded for a seal has what is booked before it.
    booked: Booked | None = field(default_factory=Booked)

    def member(self, member_id: str) -> Member | None:
        found = self.members.get(member_id)
        if found is None and not self.complete and member_id not in self.members:
            raise NotLoaded(f"member {member_id}")
        return found

    def stream(self, stream: str) -> list[Entry]:
        found = self.streams.get(stream)
        if found is None:
            if not self.complete:
                raise NotLoaded(f"stream {stream}")
            return []
        return found

    def order(self, order_id: str) -> Order | None:
        stream = f"order/{order_id}"
        entries = self.stream(stream)
        if self.complete:
            return fold_order(entries)
        # Asked for while loading and again for each command: folded once, and on from there.
        order, folded = self.orders.get(stream, (None, 0))
        for entry in entries[folded:]:
            order = _evolve_order(order, entry)
        self.orders[stream] = (order, len(entries))
        return order

    def balance(self, member_id: str, asset: str = "") -> Balance:
        """In an asset; empty: the program's currency."""
        key = (member_id, asset or self.currency)
        found = self.balances.get(key)
        if found is None:
            if not self.complete:
                raise NotLoaded(f"balance of {member_id} in {key[1]}")
            return NOTHING
        return Balance._make(found)

    def held_apart(self, member_id: str, asset: str, account: Account) -> int:
        key = (member_id, asset, account)
        if not self.complete and key not in self.apart:
            raise NotLoaded(f"{account.name.lower()} of {member_id}")
        return self.apart.get(key, 0)

    def is_held(self, member_id: str) -> bool:
        """Whether a hold stops releases to a member. A partial state that may pay at once holds the holds of whomever it may pay."""
        return any(hold.member_id == member_id for hold in self.holds.values())

    def counter(self, key: Key) -> int:
        if not self.complete and key not in self.counters and not self.closing:
            raise NotLoaded(f"counter {key}")
        return self.counters.get(key, 0)

    def window(self, window: Window) -> int:
        if self.complete:
            first, last = date.fromisoformat(window.first_day).toordinal(), date.fromisoformat(window.last_day).toordinal()
            days = (date.fromordinal(day).isoformat() for day in range(first, last + 1))
            return sum(self.counters.get(Key(window.counter, day, window.member_id), 0) for day in days)
        found = self.windows.get((window.counter, window.member_id), {}).get(window)
        if found is None:
            raise NotLoaded(f"counter {window}")
        return found

    def holders(self, role: str, scope: str, at_us: int) -> list[Grant]:
        """Who holds a role at a place (empty: everywhere) at a time, in the order granted."""
        if not self.complete and (role, scope) not in self.roles:
            raise NotLoaded(f"role {role} at {scope!r}")
        return [grant for grant in self.roles.get((role, scope), ()) if grant.in_effect(at_us)]

    def tiers_resting_on(self, order_id: str) -> list[Evidence]:
        if not self.complete and order_id not in self.evidence:
            raise NotLoaded(f"evidence of order {order_id}")
        # In one order, whether folded from the log or loaded from a view: a decision lists what changes in it.
        return sorted(self.evidence.get(order_id, []), key=lambda evidence: (evidence.position, evidence.member_id))

    def is_closed(self, period_id: str) -> bool:
        if self.closed_periods is None:
            raise NotLoaded("the closed periods")
        return period_id in self.closed_periods

    def last_seal(self) -> Seal | None:
        if self.seals is None:
            raise NotLoaded("the seals")
        return self.seals[-1] if self.seals else None

    def booked_before(self, through_us: int) -> tuple[int, dict[tuple[str, Account], int]]:
        """(entries, {(asset, account): total}) of everything booked before a time that no seal has reached."""
        if self.booked is None:
            raise NotLoaded(f"what is booked before {through_us}")
        return self.booked.before(through_us)

    def tier_at(self, member_id: str, member: Member, at_us: int) -> tuple[str, int]:
        """The tier that counts at a time, and what gave it: none while it is frozen, the one before once a seat has ended."""
        standing = self.standings.get(member_id)
        if standing is None:
            return member.tier, member.tier_position
        if standing.frozen:
            return "", 0
        if standing.seat_until_us is not None and at_us >= standing.seat_until_us:
            return standing.fallback_tier, standing.fallback_position
        return member.tier, member.tier_position

    def tier_behind(self, member_id: str, member: Member, at_us: int) -> tuple[str, int]:
        """The tier that a lost promotion leads back to, and what gave it: never that of a seat for a time, which would then last."""
        standing = self.standings.get(member_id)
        if standing is not None and standing.seat_until_us is not None:
            return standing.fallback_tier, standing.fallback_position
        return self.tier_at(member_id, member, at_us)

    def stands_above(self, member_id: str, of: str) -> bool:
        """Whether `member_id` is `of` or anywhere above it by the current referrers, locked or not."""
        current = of
        while current:
            if current == member_id:
                return True
            above = self.member(current)
            current = above.referrer_id if above else ""
        return False

    def plan_in_force(self, at_us: int) -> PlanVersion | None:
        """The newest published version in force at a time."""
        for version in reversed(self.plans):
            if version.in_force(at_us):
                return version
        return None

    def plan_at(self, position: int) -> PlanVersion:
        found = next((version for version in self.plans if version.position == position), None)
        if found is None:
            raise NotLoaded(f"the plan version at position {position}")
        return found

    def releasable(self, as_of_us: int, limit: int) -> list[tuple[str, list[DueChange]]]:
        """Up to `limit` sources with what of them is due at or before a time and stopped by no hold, the one due earliest first."""
        held_members = {hold.member_id for hold in self.holds.values() if hold.member_id}
        if self.sources_due is not None:
            sources = self.sources_due
        elif self.complete:
            held_orders = {hold.order_id for hold in self.holds.values() if hold.order_id}
            rows = [(source, member_id) for due_us, source, member_id, _ in sorted(self.due) if due_us <= as_of_us]
            sources = list(dict.fromkeys(o for o, member_id in rows if o not in held_orders and member_id not in held_members))
        else:
            raise NotLoaded("what is due")
        found = []
        for source in sources[:limit]:
            due, _ = fold_due(self.stream(stream_of(source)))
            dues = sorted((key[1], key[0], key[2], amount) for key, amount in due.items() if key[1] <= as_of_us and amount)
            found.append((source, [DueChange(m, due_us, amount, asset) for due_us, m, asset, amount in dues if m not in held_members]))
        return found


class Ahead:
    """Balances and counters as they will be after what a command has drafted so far: one command may draft several entries."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self._balances: dict[tuple[str, str], Balance] = {}
        self._counts: dict[Key, int] = {}
        self._periods: dict[str, ClosedPeriod | None] = {}

    def period(self, period_id: str) -> ClosedPeriod | None:
        """A closed period, with the corrections drafted so far."""
        if period_id not in self._periods:
            self._periods[period_id] = fold_period(self.books.stream(f"period/{period_id}"))
        return self._periods[period_id]

    def balance(self, member_id: str, asset: str = "") -> Balance:
        key = (member_id, asset or self.books.currency)
        found = self._balances.get(key)
        if found is None:
            found = self._balances[key] = self.books.balance(*key)
        return found

    def moves(self, member_id: str, asset: str, account: Account, amount: int) -> None:
        """Takes in a change of available or debt."""
        key = (member_id, asset or self.books.currency)
        held = self.balance(*key)
        self._balances[key] = held + (Balance(available=amount) if account is Account.AVAILABLE else Balance(debt=amount))

    def counter(self, key: Key) -> int:
        return self.books.counter(key) + self._counts.get(key, 0)

    def window(self, window: Window) -> int:
        drafted = sum(amount for key, amount in self._counts.items() if window.holds(*key)) if self._counts else 0
        return self.books.window(window) + drafted

    def counts(self, counts: Iterable[Count]) -> None:
        for counter, bucket, member_id, amount in counts:
            key = Key(counter, bucket, member_id)
            self._counts[key] = self._counts.get(key, 0) + amount


def evolve(books: Books, entry: Entry) -> None:
    """Takes in one entry of the log, also those the referral service wrote. A partial state takes in what it holds and what is new."""
    fact, decision = entry.fact, entry.decision
    books.position = entry.position
    match fact:
        case OrderPaid():
            _append(books, entry)
            _lock(books, decision.binding_locked, entry.position)
        case OrderRefunded() | OrderVoided():
            _append(books, entry)
            member_id = decision.binding_released_member_id
            if member_id:
                member = books.members.get(member_id)
                if member is not None:
                    books.members[member_id] = member._replace(locked=False, binding_position=0)
        case HoldPlaced():
            _append(books, entry)
            books.holds[fact.hold_id] = fact
        case HoldLifted():
            _append(books, entry)
            books.holds.pop(fact.hold_id, None)
        case MemberEnrolled():
            touch = entry.position if fact.referrer_id else 0
            books.members[fact.member_id] = Member(referrer_id=fact.referrer_id, touch_position=touch)
        case MemberTouched():
            _change(books, fact.member_id, referrer_id=fact.referrer_id, touch_position=entry.position)
        case MemberUpgraded():
            _change(books, fact.member_id, tier=fact.tier, tier_position=entry.position)
            _stand(books, fact.member_id, standing_after_upgrade(fact))
            _lock(books, fact.binding_locked, entry.position)
        case BindingCorrected():
            _change(books, fact.member_id, locked=True, referrer_id=fact.referrer_id, binding_position=entry.position)
        case RoleGranted() | RoleEnded():
            _role(books, fact, entry.position)
        case PlanPublished():
            _append(books, entry)
            books.plans.append(version_of(fact, entry.position))
        case PeriodClosed():
            _append(books, entry)
            if books.closed_periods is not None:
                books.closed_periods.add(fact.period_id)
        case BooksSealed():
            _append(books, entry)
            if books.seals is not None:
                books.seals.append(seal_of(entry))
        case ProgramCreated():
            books.currency = fact.currency
        case _ if isinstance(fact, STREAMED):
            _append(books, entry)
    changes = tier_changes(entry)
    for change in changes:
        _change_tier(books, change, entry.position)
    if changes or isinstance(fact, MemberUpgraded):
        for order_id, evidence in evidence_of(entry):
            if books.complete or order_id in books.evidence:
                books.evidence.setdefault(order_id, []).append(evidence)
    counts = getattr(decision, "counts", ())
    if counts:
        counted = [(Key(counter, bucket, member_id), amount) for counter, bucket, member_id, amount in counts]
        count(books, counted)
        count_by_day(books, counted)
        if not books.complete:
            for key, amount in counted:
                books.counted[key] = books.counted.get(key, 0) + amount
    postings = getattr(decision, "postings", ())
    if postings:
        _move(books, entry, postings)
    if books.complete:
        for due in getattr(decision, "due", ()):
            _due(books, source_of(entry.stream), due)
        if books.booked is not None:
            books.booked.add(entry.occurred_us, 1, [((asset, account), amount) for account, _, amount, asset in postings])


def _move(books: Books, entry: Entry, postings: Iterable[Posting]) -> None:
    complete = books.complete
    if complete or books.balances:
        _add_up(books.balances, entry, postings, complete)
    for account, member_id, amount, asset in postings:
        if account > LAST_EARNED and account in APART_ACCOUNTS and (complete or (member_id, asset, account) in books.apart):
            books.apart[(member_id, asset, account)] = books.apart.get((member_id, asset, account), 0) + amount


# Facts of which deciding needs no more than that they stand in their stream.
STREAMED = (
    OrderCompleted
    | OrderReleased
    | OrderGroupFormed
    | RewardReleased
    | PayoutRequested
    | PayoutPaid
    | PayoutFailed
    | AdjustmentPosted
    | GroupOpened
    | GroupJoined
    | GroupFormed
    | GroupFailed
    | TaskDone
    | PeriodCorrected
    | DepositMoved
    | StockTransferred
    | BalanceOpened
)


def tier_changes(entry: Entry) -> tuple[TierChange, ...]:
    """Tiers that changed with an order or a refund."""
    changes: tuple[TierChange, ...] = getattr(entry.decision, "tier_changes", ())
    return changes


def evidence_of(entry: Entry) -> list[tuple[str, Evidence]]:
    """(order, tier that rests on it from now on), for every one that an entry gives."""
    fact = entry.fact
    if isinstance(fact, MemberUpgraded):
        rests = Evidence(fact.member_id, fact.tier, fact.previous_tier, entry.position)
        return [(fact.evidence_order_id, rests)] if fact.evidence_order_id else []
    if not isinstance(fact, OrderPaid) or not entry.decision.tier_changes:
        return []
    return [
        (fact.order_id, Evidence(change.member_id, change.tier, change.previous_tier, entry.position, change.previous_tier_position))
        for change in tier_changes(entry)
    ]


def standing_after_upgrade(fact: MemberUpgraded) -> Standing | None:
    """None: the tier counts as it stands there."""
    return None if fact.expires_us is None else Standing(False, fact.expires_us, fact.previous_tier, fact.previous_tier_position)


def standing_after_change(change: TierChange) -> Standing | None:
    return Standing(True, None, "") if change.kind is TierChangeKind.FROZEN else None


def rests_on(change: TierChange, position: int) -> int:
    """The entry that a changed tier rests on, where the change stands at a position; 0 for no tier."""
    return (change.tier_position or position) if change.tier else 0


def _stand(books: Books, member_id: str, standing: Standing | None) -> None:
    if standing is None:
        books.standings.pop(member_id, None)
    elif books.complete or member_id in books.members:
        books.standings[member_id] = standing


def _change_tier(books: Books, change: TierChange, position: int) -> None:
    if change.kind is not TierChangeKind.FROZEN:
        _change(books, change.member_id, tier=change.tier, tier_position=rests_on(change, position))
    _stand(books, change.member_id, standing_after_change(change))


def _role(books: Books, fact: RoleGranted | RoleEnded, position: int) -> None:
    if isinstance(fact, RoleGranted):
        key = (fact.role, fact.scope)
        if books.complete or key in books.roles:
            grant = Grant(fact.grant_id, fact.member_id, fact.role, fact.scope, fact.weight, fact.from_us, fact.until_us, position)
            books.roles.setdefault(key, []).append(grant)
        return
    for grants in books.roles.values():
        for index, grant in enumerate(grants):
            if grant.grant_id == fact.grant_id:
                until = fact.ended_us if grant.until_us is None else min(grant.until_us, fact.ended_us)
                grants[index] = grant._replace(until_us=until)


def count(books: Books, counted: Iterable[tuple[Key, int]]) -> None:
    """Adds to the counters held."""
    for key, amount in counted:
        if books.complete or key in books.counters:
            total = books.counters.get(key, 0) + amount
            if total or not books.complete:
                books.counters[key] = total
            else:
                del books.counters[key]


def count_by_day(books: Books, counted: Iterable[tuple[Key, int]]) -> None:
    """Adds to the windows held."""
    if books.windows:
        for key, amount in counted:
            held = books.windows.get((key.counter, key.member_id), {})
            for window, total in held.items():
                if window.holds(*key):
                    held[window] = total + amount


def _append(books: Books, entry: Entry) -> None:
    stream = books.streams.get(entry.stream)
    if stream is not None:
        stream.append(entry)
    elif books.complete or entry.stream_version == 1:
        books.streams[entry.stream] = [entry]


def _change(books: Books, member_id: str, **changes: object) -> None:
    member = books.members.get(member_id)
    if member is not None:
        books.members[member_id] = member._replace(**changes)  # type: ignore[arg-type]  # the names are Member's fields, all call sites above


def _lock(books: Books, lock: BindingLock | None, position: int) -> None:
    if lock is not None:
        changed = {"referrer_id": lock.referrer_id, "touch_position": lock.touch_position, "binding_position": position}
        _change(books, lock.member_id, locked=True, **changed)


def _due(books: Books, source: str, change: DueChange) -> None:
    key = (change.due_us, source, change.member_id, change.asset)
    amount = books.due.get(key, 0) + change.amount_minor
    if amount:
        books.due[key] = amount
    else:
        books.due.pop(key, None)
