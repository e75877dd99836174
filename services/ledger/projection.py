"""The ledger's inline views: what a batch changes in them (live), and the same tables folded in memory (verify, rebuild).

The live fold adds up changes in SQL; the in-memory one evolves `Books` and reads the rows off, so that each checks the other. What one
entry changes (`movements`) they share: the independent oracle of the tests checks that.
"""

from collections.abc import Collection, Sequence
from typing import Any

from services.kernel.decider import Entry
from services.ledger.domain.books import (
    COMPANY_ACCOUNTS,
    LAST_EARNED,
    Books,
    Standing,
    evidence_of,
    evolve,
    movements,
    rests_on,
    source_of,
    standing_after_change,
    standing_after_upgrade,
)
from services.ledger.domain.facts import (
    Account,
    BindingCorrected,
    BindingLock,
    HoldLifted,
    HoldPlaced,
    MemberEnrolled,
    MemberTouched,
    MemberUpgraded,
    OrderPaid,
    OrderRefunded,
    OrderVoided,
    PeriodClosed,
    RoleEnded,
    RoleGranted,
    TierChangeKind,
)
from services.runtime.eventlog import Fold, array, integers, texts
from services.runtime.projecting import First, Folding, InlineView, Row

MEMBERS = InlineView(
    "ledger.members", ("member_id", "tier", "tier_position", "locked", "referrer_id", "binding_position", "touch_position"), 1
)
_BALANCE = ("member_id", "asset", "position", "pending", "available", "reserved", "paid", "debt", "accrued", "reversed", "adjusted")
# Now, and right after each entry that moved them.
BALANCES = InlineView("ledger.balances", _BALANCE, 2)
BALANCE_HISTORY = InlineView("ledger.balance_history", _BALANCE, 3, written_once=True)
COMPANY = InlineView("ledger.company", ("asset", "account", "balance"), 2)
# What is due from anything but an order names its stream as order_id: a stream has a slash, an order's id has none.
DUE = InlineView("ledger.due", ("due_us", "order_id", "member_id", "asset", "amount_minor"), 4)
HOLDS = InlineView("ledger.holds", ("hold_id", "member_id", "order_id"), 1)
STANDINGS = InlineView("ledger.standings", ("member_id", "frozen", "seat_until_us", "fallback_tier", "fallback_position"), 1)
ROLES = InlineView("ledger.roles", ("grant_id", "member_id", "role", "scope", "weight", "from_us", "until_us", "position"), 1)
EVIDENCE = InlineView("ledger.evidence", ("order_id", "member_id", "position", "tier", "previous_tier", "previous_position"), 3)
COUNTERS = InlineView("ledger.counters", ("counter", "bucket", "member_id", "amount"), 3)
PERIODS = InlineView("ledger.periods", ("period_id", "position"), 1)
APART = InlineView("ledger.apart", ("member_id", "asset", "account", "balance"), 3)
VIEWS = (MEMBERS, BALANCES, BALANCE_HISTORY, COMPANY, DUE, HOLDS, STANDINGS, ROLES, EVIDENCE, COUNTERS, PERIODS, APART)


class LedgerChanges:
    """What a batch of entries changes, one value for each key."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Any]] = {}
        self._balances: list[tuple[int, str, str, tuple[int, ...]]] = []
        self._company: dict[tuple[str, int], int] = {}
        self._due: dict[tuple[int, str, str, str], int] = {}
        self._standings: dict[str, Standing | None] = {}
        self._granted: dict[str, tuple[RoleGranted, int]] = {}
        self._ended: dict[str, int] = {}
        self._evidence: list[tuple[str, str, int, str, str, int]] = []
        self._counts: dict[tuple[str, str, str], int] = {}
        self._periods: list[tuple[str, int]] = []
        self._apart: dict[tuple[str, str, int], int] = {}
        self._placed: list[HoldPlaced] = []
        self._lifted: list[str] = []

    def add(self, entry: Entry) -> None:
        """Takes in one entry. Raises AssertionError when its postings do not sum to zero: such an entry is a bug and must not be stored."""
        fact, decision, position = entry.fact, entry.decision, entry.position
        sums: dict[str, int] = {}
        for account, holder, amount, asset in getattr(decision, "postings", ()):
            sums[asset] = sums.get(asset, 0) + amount
            if account <= LAST_EARNED:
                continue
            if account in COMPANY_ACCOUNTS:
                key = (asset, int(account))
                self._company[key] = self._company.get(key, 0) + amount
            else:
                apart = (holder, asset, int(account))
                self._apart[apart] = self._apart.get(apart, 0) + amount
        assert not any(sums.values()), f"the postings of {entry.stream} do not sum to zero: {sums}"
        for (member_id, asset), moved in movements(entry).items():
            self._balances.append((position, member_id, asset, moved))
        for change_ in getattr(decision, "due", ()):
            due_key = (change_.due_us, source_of(entry.stream), change_.member_id, change_.asset)
            self._due[due_key] = self._due.get(due_key, 0) + change_.amount_minor
        for counter, bucket, member_id, amount in getattr(decision, "counts", ()):
            count_key = (counter, bucket, member_id)
            self._counts[count_key] = self._counts.get(count_key, 0) + amount
        match fact:
            case OrderPaid():
                self._lock(decision.binding_locked, position)
            case OrderRefunded() | OrderVoided():
                if decision.binding_released_member_id:
                    self._member(decision.binding_released_member_id, locked=False, binding_position=0)
            case MemberEnrolled():
                touch = position if fact.referrer_id else 0
                self._member(fact.member_id, tier="", referrer_id=fact.referrer_id, touch_position=touch)
            case MemberTouched():
                self._member(fact.member_id, referrer_id=fact.referrer_id, touch_position=position)
            case MemberUpgraded():
                self._member(fact.member_id, tier=fact.tier, tier_position=position)
                self._standings[fact.member_id] = standing_after_upgrade(fact)
                self._lock(fact.binding_locked, position)
            case BindingCorrected():
                self._member(fact.member_id, locked=True, referrer_id=fact.referrer_id, binding_position=position)
            case HoldPlaced():
                self._placed.append(fact)
            case HoldLifted():
                self._lifted.append(fact.hold_id)
            case RoleGranted():
                self._granted[fact.grant_id] = (fact, position)
            case RoleEnded():
                self._ended[fact.grant_id] = min(fact.ended_us, self._ended.get(fact.grant_id, fact.ended_us))
            case PeriodClosed():
                self._periods.append((fact.period_id, position))
        for change in getattr(decision, "tier_changes", ()):
            if change.kind is not TierChangeKind.FROZEN:
                self._member(change.member_id, tier=change.tier, tier_position=rests_on(change, position))
            self._standings[change.member_id] = standing_after_change(change)
        for order_id, rests in evidence_of(entry):
            self._evidence.append((order_id, rests.member_id, rests.position, rests.tier, rests.previous_tier, rests.previous_position))

    def _member(self, member_id: str, **columns: Any) -> None:
        self._members.setdefault(member_id, {}).update(columns)

    def _lock(self, lock: BindingLock | None, position: int) -> None:
        if lock is not None:
            # The code on an order is a touch of its own.
            touch = lock.touch_position
            self._member(lock.member_id, locked=True, referrer_id=lock.referrer_id, touch_position=touch, binding_position=position)

    def folds(self) -> list[Fold]:
        folds = []
        if self._members:
            columns = [array(row.get(name) for row in self._members.values()) for name in MEMBERS.columns[1:]]
            types = ("text", "text", "bigint", "boolean", "text", "bigint", "bigint")
            folds.append(Fold("ledger.fold_members", (array(self._members), *columns), types))
        if self._balances:
            positions, members, assets, changes = zip(*self._balances, strict=True)
            # An array of nothing but zeros need not travel.
            deltas = [integers(column) if any(column) else "{}" for column in zip(*changes, strict=True)]
            arguments = (integers(positions), texts(members), texts(assets), *deltas)
            of_balances = ("bigint", "text", "text", *["bigint"] * 8)
            if len(set(zip(members, assets, strict=True))) == len(members):
                folds.append(Fold("ledger.fold_balances_once", arguments, of_balances, len(positions), "ledger.fold_balances_together"))
            else:
                folds.append(Fold("ledger.fold_balances", arguments, of_balances))
        if self._company:
            keys = self._company
            arguments = (array(asset for asset, _ in keys), array(account for _, account in keys), array(keys.values()))
            folds.append(Fold("ledger.fold_company", arguments, ("text", "bigint", "bigint"), len(keys), "ledger.fold_company_together"))
        due = {key: change for key, change in self._due.items() if change}
        if due:
            folds.append(Fold("ledger.fold_due", (*_columns(due, 4), array(due.values())), ("bigint", "text", "text", "text", "bigint")))
        folds += self._further()
        if self._placed or self._lifted:
            arguments = (
                array(hold.hold_id for hold in self._placed),
                array(hold.member_id for hold in self._placed),
                array(hold.order_id for hold in self._placed),
                array(self._lifted),
            )
            folds.append(Fold("ledger.fold_holds", arguments, ("text", "text", "text", "text")))
        return folds

    def _further(self) -> list[Fold]:
        """The views that most orders of most shops leave alone."""
        folds = []
        if self._standings:
            rows = [standing or Standing(False, None, "") for standing in self._standings.values()]
            arguments = (array(self._standings), *_columns(rows, 4))
            folds.append(Fold("ledger.fold_standings", arguments, ("text", "boolean", "bigint", "text", "bigint")))
        if self._granted or self._ended:
            grants = [(*_fields(fact), position) for fact, position in self._granted.values()]
            arguments = (*_columns(grants, 8), array(self._ended), array(self._ended.values()))
            types = ("text", "text", "text", "text", "bigint", "bigint", "bigint", "bigint", "text", "bigint")
            folds.append(Fold("ledger.fold_roles", arguments, types))
        if self._evidence:
            folds.append(Fold("ledger.fold_evidence", _columns(self._evidence, 6), ("text", "text", "bigint", "text", "text", "bigint")))
        counts = {key: amount for key, amount in self._counts.items() if amount}
        if counts:
            columns = zip(*counts, strict=True)
            folds.append(
                Fold("ledger.fold_counters", (*map(texts, columns), integers(counts.values())), ("text", "text", "text", "bigint"))
            )
        if self._periods:
            folds.append(Fold("ledger.fold_periods", _columns(self._periods, 2), ("text", "bigint")))
        if self._apart:
            arguments = (*_columns(self._apart, 3), array(self._apart.values()))
            folds.append(Fold("ledger.fold_apart", arguments, ("text", "text", "bigint", "bigint")))
        return folds


def _columns(rows: Collection[Sequence[Any]], width: int) -> tuple[str, ...]:
    return tuple(array(row[column] for row in rows) for column in range(width))


def _fields(fact: RoleGranted) -> tuple[Any, ...]:
    return (fact.grant_id, fact.member_id, fact.role, fact.scope, fact.weight, fact.from_us, fact.until_us)


def folding(_: First | None = None) -> Folding:
    """The ledger's views, folded in memory from the whole log by the domain's own `evolve`."""
    books = Books(booked=None)
    balances: dict[Row, Row] = {}
    history: list[Row] = []
    company: dict[tuple[str, Account], int] = {}
    closed: list[Row] = []

    def add(entry: Entry) -> None:
        evolve(books, entry)
        # Streams are for deciding; a replay of the whole log must not hold it in memory.
        books.streams.clear()
        moved: dict[tuple[str, str], None] = {}
        for account, member_id, amount, asset in getattr(entry.decision, "postings", ()):
            if account <= LAST_EARNED:
                moved[member_id, asset] = None
            elif account in COMPANY_ACCOUNTS:
                company[asset, account] = company.get((asset, account), 0) + amount
        for key in moved:
            balances[key] = row = (*key, entry.position, *books.balances[key])
            history.append(row)
        if isinstance(entry.fact, PeriodClosed):
            closed.append((entry.fact.period_id, entry.position))

    def rows() -> dict[str, Collection[Row]]:
        return {
            MEMBERS.name: [(member_id, *member) for member_id, member in books.members.items() if member is not None],
            BALANCES.name: balances.values(),
            BALANCE_HISTORY.name: history,
            COMPANY.name: [(*key, balance) for key, balance in company.items()],
            DUE.name: [(*key, amount) for key, amount in books.due.items()],
            HOLDS.name: [(hold_id, hold.member_id, hold.order_id) for hold_id, hold in books.holds.items()],
            STANDINGS.name: [(member_id, *standing) for member_id, standing in books.standings.items()],
            ROLES.name: [grant for grants in books.roles.values() for grant in grants],
            EVIDENCE.name: [
                (order_id, one.member_id, one.position, one.tier, one.previous_tier, one.previous_position)
                for order_id, resting in books.evidence.items()
                for one in resting
            ],
            COUNTERS.name: [(*key, amount) for key, amount in books.counters.items()],
            PERIODS.name: closed,
            APART.name: [(*key, held) for key, held in books.apart.items()],
        }

    return Folding(VIEWS, add, rows, {BALANCE_HISTORY.name: history})
