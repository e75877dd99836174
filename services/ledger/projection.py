"""The ledger's inline views: what a batch changes in them (live), and the same tables folded in memory (verify, rebuild).

The live fold adds up changes in SQL; the in-memory one evolves `Books` and reads the rows off, so that each checks the other. What one
entry changes (`movements`) they share: the independent oracle of the tests checks that.
"""

from typing import Any

from services.kernel.decider import Entry
from services.ledger.domain.books import COMPANY_ACCOUNTS, Books, evolve, movements
from services.ledger.domain.facts import (
    BindingCorrected,
    BindingLock,
    HoldLifted,
    HoldPlaced,
    MemberEnrolled,
    MemberTouched,
    MemberUpgraded,
    OrderPaid,
    OrderRefunded,
)
from services.runtime.eventlog import Fold, array
from services.runtime.projecting import Folding, InlineView, Row

MEMBERS = InlineView(
    "ledger.members", ("member_id", "tier", "tier_position", "locked", "referrer_id", "binding_position", "touch_position"), 1
)
BALANCES = InlineView(
    "ledger.balances",
    (
        *("member_id", "asset", "position", "pending", "available", "reserved", "paid", "debt"),
        *("accrued", "reversed", "adjusted"),
    ),
    3,
)
COMPANY = InlineView("ledger.company", ("asset", "account", "balance"), 2)
DUE = InlineView("ledger.due", ("due_us", "order_id", "member_id", "amount_minor"), 3)
HOLDS = InlineView("ledger.holds", ("hold_id", "member_id", "order_id"), 1)
VIEWS = (MEMBERS, BALANCES, COMPANY, DUE, HOLDS)


class LedgerChanges:
    """What a batch of entries changes, one value for each key."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Any]] = {}
        self._balances: list[tuple[int, str, str, tuple[int, ...]]] = []
        self._company: dict[tuple[str, int], int] = {}
        self._due: dict[tuple[int, str, str], int] = {}
        self._placed: list[HoldPlaced] = []
        self._lifted: list[str] = []

    def add(self, entry: Entry) -> None:
        """Takes in one entry. Raises AssertionError when its postings do not sum to zero: such an entry is a bug and must not be stored."""
        fact, decision, position = entry.fact, entry.decision, entry.position
        sums: dict[str, int] = {}
        for account, _, amount, asset in getattr(decision, "postings", ()):
            sums[asset] = sums.get(asset, 0) + amount
            if account in COMPANY_ACCOUNTS:
                key = (asset, int(account))
                self._company[key] = self._company.get(key, 0) + amount
        assert not any(sums.values()), f"the postings of {entry.stream} do not sum to zero: {sums}"
        for (member_id, asset), change in movements(entry).items():
            self._balances.append((position, member_id, asset, change))
        for change_ in getattr(decision, "due", ()):
            due_key = (change_.due_us, fact.order_id, change_.member_id)
            self._due[due_key] = self._due.get(due_key, 0) + change_.amount_minor
        match fact:
            case OrderPaid():
                self._lock(decision.binding_locked, position)
            case OrderRefunded():
                if decision.binding_released_member_id:
                    self._member(decision.binding_released_member_id, locked=False, binding_position=0)
            case MemberEnrolled():
                touch = position if fact.referrer_id else 0
                self._member(fact.member_id, tier="", referrer_id=fact.referrer_id, touch_position=touch)
            case MemberTouched():
                self._member(fact.member_id, referrer_id=fact.referrer_id, touch_position=position)
            case MemberUpgraded():
                self._member(fact.member_id, tier=fact.tier, tier_position=position)
                self._lock(fact.binding_locked, position)
            case BindingCorrected():
                self._member(fact.member_id, locked=True, referrer_id=fact.referrer_id, binding_position=position)
            case HoldPlaced():
                self._placed.append(fact)
            case HoldLifted():
                self._lifted.append(fact.hold_id)

    def _member(self, member_id: str, **columns: Any) -> None:
        self._members.setdefault(member_id, {}).update(columns)

    def _lock(self, lock: BindingLock | None, position: int) -> None:
        if lock is not None:
            self._member(lock.member_id, locked=True, referrer_id=lock.referrer_id, binding_position=position)

    def folds(self) -> list[Fold]:
        folds = []
        if self._members:
            columns = [array(row.get(name) for row in self._members.values()) for name in MEMBERS.columns[1:]]
            types = ("text", "text", "bigint", "boolean", "text", "bigint", "bigint")
            folds.append(Fold("ledger.fold_members", (array(self._members), *columns), types))
        if self._balances:
            positions, members, assets, changes = zip(*self._balances, strict=True)
            # An array of nothing but zeros need not travel.
            deltas = [array(column) if any(column) else "{}" for column in zip(*changes, strict=True)]
            arguments = (array(positions), array(members), array(assets), *deltas)
            folds.append(Fold("ledger.fold_balances", arguments, ("bigint", "text", "text", *["bigint"] * 8)))
        if self._company:
            keys = self._company
            arguments = (array(asset for asset, _ in keys), array(account for _, account in keys), array(keys.values()))
            folds.append(Fold("ledger.fold_company", arguments, ("text", "bigint", "bigint")))
        due = {key: change for key, change in self._due.items() if change}
        if due:
            arguments = (array(k[0] for k in due), array(k[1] for k in due), array(k[2] for k in due), array(due.values()))
            folds.append(Fold("ledger.fold_due", arguments, ("bigint", "text", "text", "bigint")))
        if self._placed or self._lifted:
            arguments = (
                array(hold.hold_id for hold in self._placed),
                array(hold.member_id for hold in self._placed),
                array(hold.order_id for hold in self._placed),
                array(self._lifted),
            )
            folds.append(Fold("ledger.fold_holds", arguments, ("text", "text", "text", "text")))
        return folds


def folding() -> Folding:
    """The ledger's views, folded in memory from the whole log by the domain's own `evolve`."""
    books = Books()
    balances: dict[Row, Row] = {}
    company: dict[Row, int] = {}

    def add(entry: Entry) -> None:
        evolve(books, entry)
        # Streams are for deciding; a replay of the whole log must not hold it in memory.
        books.streams.clear()
        for account, member_id, amount, asset in getattr(entry.decision, "postings", ()):
            if account in COMPANY_ACCOUNTS:
                company[(asset, int(account))] = company.get((asset, int(account)), 0) + amount
            else:
                balances[(member_id, asset, entry.position)] = tuple(books.balance(member_id))

    def rows() -> dict[str, dict[Row, Row]]:
        return {
            MEMBERS.name: {(member_id,): tuple(member) for member_id, member in books.members.items() if member is not None},
            BALANCES.name: balances,
            COMPANY.name: {key: (balance,) for key, balance in company.items()},
            DUE.name: {key: (amount,) for key, amount in books.due.items()},
            HOLDS.name: {(hold_id,): (hold.member_id, hold.order_id) for hold_id, hold in books.holds.items()},
        }

    return Folding(VIEWS, add, rows)
