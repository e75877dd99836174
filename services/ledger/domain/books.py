"""The ledger's state: what deciding needs to know of the past, and how each entry changes it.

A `Books` can be complete (folded from position 1: tests, replay) or partial (what the writer loaded for a batch). A partial one knows
which keys it holds, absent ones included, and raises NotLoaded for any other, so that missing knowledge is never taken for absence.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from services.kernel.decider import Entry, NotLoaded
from services.kernel.times import DAY_US
from services.ledger.domain.facts import (
    Account,
    AdjustmentPosted,
    BindingCorrected,
    BindingLock,
    DueChange,
    HoldLifted,
    HoldPlaced,
    MemberEnrolled,
    MemberTouched,
    MemberUpgraded,
    OrderCompleted,
    OrderLine,
    OrderPaid,
    OrderPaidDecision,
    OrderRefunded,
    OrderReleased,
    PayoutFailed,
    PayoutPaid,
    PayoutRequested,
    PlanPublished,
    Posting,
    ProgramCreated,
)
from services.ledger.domain.plan import PlanVersion, version_of


class Member(NamedTuple):
    """As far as money cares. While open, `referrer_id` is the one a lock would fall to, `touch_position` the touch that says so."""

    tier: str = ""
    tier_position: int = 0
    locked: bool = False
    referrer_id: str = ""
    binding_position: int = 0
    touch_position: int = 0


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
        return Balance(*map(sum, zip(self, other, strict=True)))


NOTHING = Balance()
COMPANY_ACCOUNTS = frozenset({Account.COMMISSION, Account.BREAKAGE, Account.ADJUSTMENT, Account.WRITE_OFF})


def movements(entry: Entry) -> dict[tuple[str, str], Balance]:
    """What an entry changes for each (member, asset), gross figures included."""
    postings: tuple[Posting, ...] = getattr(entry.decision, "postings", ())
    changes: dict[tuple[str, str], list[int]] = {}
    for account, member_id, amount, asset in postings:
        if account in COMPANY_ACCOUNTS:
            continue
        row = changes.get((member_id, asset))
        if row is None:
            row = changes[(member_id, asset)] = [0] * 8
        row[account - 1] += amount
    fact = type(entry.fact)
    for row in changes.values():
        net = row[0] + row[1] + row[2] + row[3] + row[4]
        if fact is OrderPaid:
            row[5] = net
        elif fact is OrderRefunded:
            row[6] = -net
        elif fact is AdjustmentPosted:
            row[7] = net
    return {key: Balance(*row) for key, row in changes.items()}


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
    lines: dict[int, LineState]
    completed: Entry | None = None
    refunds: dict[str, Entry] = field(default_factory=dict)
    # What is due, and what has been released: {(member, due time): amount}.
    due: dict[tuple[str, int], int] = field(default_factory=dict)
    released: set[tuple[str, int]] = field(default_factory=set)
    positions: list[int] = field(default_factory=list)

    @property
    def fact(self) -> OrderPaid:
        assert isinstance(self.paid.fact, OrderPaid)
        return self.paid.fact

    @property
    def decision(self) -> OrderPaidDecision:
        assert isinstance(self.paid.decision, OrderPaidDecision)
        return self.paid.decision

    def due_us(self, release_days: int) -> int | None:
        """When shares of a rule with these days fall due; None before completion."""
        return None if self.completed is None else self.completed.occurred_us + release_days * DAY_US


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
        order = Order(entry, {line.line_no: LineState(line, line.base_minor, line.quantity, {}) for line in fact.lines})
    order.positions.append(entry.position)
    if isinstance(fact, OrderRefunded):
        order.refunds[fact.refund_id] = entry
        for refunded in fact.lines:
            order.lines[refunded.line_no].remaining_base -= refunded.base_minor
            order.lines[refunded.line_no].remaining_quantity -= refunded.quantity
    elif isinstance(fact, OrderCompleted):
        order.completed = entry
    elif isinstance(fact, OrderReleased):
        order.released.update((change.member_id, change.due_us) for change in decision.due)
    for line_no, shares in getattr(decision, "lines", ()):
        entitled = order.lines[line_no].entitled
        for rule_index, payee, amount in shares:
            entitled[(rule_index, payee)] = entitled.get((rule_index, payee), 0) + amount
    for member_id, due_us, amount in getattr(decision, "due", ()):
        order.due[(member_id, due_us)] = order.due.get((member_id, due_us), 0) + amount
    return order


@dataclass(slots=True)
class Books:
    """The state. Keys held but absent map to None (or the empty balance); keys not held raise NotLoaded unless the books are complete."""

    complete: bool = True
    currency: str = ""
    position: int = 0
    plans: list[PlanVersion] = field(default_factory=list)
    members: dict[str, Member | None] = field(default_factory=dict)
    # Entries of order/…, payout/…, hold/…, adjustment/…, plan/… streams, oldest first.
    streams: dict[str, list[Entry]] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)
    holds: dict[str, HoldPlaced] = field(default_factory=dict)
    due: dict[tuple[int, str, str], int] = field(default_factory=dict)
    # Where a partial state was loaded for a release: the orders of which something is due and not held, earliest first.
    orders_due: list[str] | None = None

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
        return fold_order(self.stream(f"order/{order_id}"))

    def balance(self, member_id: str) -> Balance:
        found = self.balances.get(member_id)
        if found is None:
            if not self.complete:
                raise NotLoaded(f"balance of {member_id}")
            return NOTHING
        return found

    def plan_in_force(self, at_us: int) -> PlanVersion | None:
        """The newest published version in force at a time."""
        return next((version for version in reversed(self.plans) if version.in_force(at_us)), None)

    def plan_at(self, position: int) -> PlanVersion:
        found = next((version for version in self.plans if version.position == position), None)
        if found is None:
            raise NotLoaded(f"the plan version at position {position}")
        return found

    def releasable(self, as_of_us: int, limit: int) -> list[tuple[str, list[DueChange]]]:
        """Up to `limit` orders with what of them is due at or before a time and stopped by no hold, the order due earliest first."""
        held_members = {hold.member_id for hold in self.holds.values() if hold.member_id}
        if self.orders_due is not None:
            order_ids = self.orders_due
        elif self.complete:
            held_orders = {hold.order_id for hold in self.holds.values() if hold.order_id}
            rows = [(order_id, member_id) for due_us, order_id, member_id in sorted(self.due) if due_us <= as_of_us]
            order_ids = list(dict.fromkeys(o for o, member_id in rows if o not in held_orders and member_id not in held_members))
        else:
            raise NotLoaded("what is due")
        found = []
        for order_id in order_ids[:limit]:
            order = self.order(order_id)
            assert order is not None, "what is due is due from an order"
            dues = sorted((due_us, member_id, amount) for (member_id, due_us), amount in order.due.items() if due_us <= as_of_us and amount)
            found.append((order_id, [DueChange(m, due_us, amount) for due_us, m, amount in dues if m not in held_members]))
        return found


def evolve(books: Books, entry: Entry) -> None:
    """Takes in one entry of the log, also those the referral service wrote. A partial state takes in what it holds and what is new."""
    fact, decision = entry.fact, entry.decision
    books.position = entry.position
    match fact:
        case OrderPaid():
            _append(books, entry)
            _lock(books, decision.binding_locked, entry.position)
        case OrderRefunded():
            _append(books, entry)
            member_id = decision.binding_released_member_id
            if member_id:
                member = books.members.get(member_id)
                if member is not None:
                    books.members[member_id] = member._replace(locked=False, binding_position=0)
        case OrderCompleted() | OrderReleased() | PayoutRequested() | PayoutPaid() | PayoutFailed() | AdjustmentPosted():
            _append(books, entry)
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
            _lock(books, fact.binding_locked, entry.position)
        case BindingCorrected():
            _change(books, fact.member_id, locked=True, referrer_id=fact.referrer_id, binding_position=entry.position)
        case PlanPublished():
            _append(books, entry)
            books.plans.append(version_of(fact, entry.position))
        case ProgramCreated():
            books.currency = fact.currency
    if books.complete or books.balances:
        for (member_id, asset), change in movements(entry).items():
            if asset == books.currency and (books.complete or member_id in books.balances):
                books.balances[member_id] = books.balances.get(member_id, NOTHING) + change
    if books.complete:
        for change_ in getattr(decision, "due", ()):
            _due(books, fact.order_id, change_)


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
        _change(books, lock.member_id, locked=True, referrer_id=lock.referrer_id, binding_position=position)


def _due(books: Books, order_id: str, change: DueChange) -> None:
    key = (change.due_us, order_id, change.member_id)
    amount = books.due.get(key, 0) + change.amount_minor
    if amount:
        books.due[key] = amount
    else:
        books.due.pop(key, None)
