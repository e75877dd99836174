"""Payouts, adjustments, holds: what moves or stops a member's money without an order."""

from services.kernel.decider import Answer, Draft, Entry, Repeated, repeated
from services.kernel.refusals import (
    ApproverIsRequester,
    AssetUnknown,
    CurrencyMismatch,
    DatedTooEarly,
    HoldUnknown,
    Malformed,
    MemberUnknown,
    OrderUnknown,
    PayoutClosed,
    PayoutExceedsAvailable,
    PayoutUnknown,
    WriteOffExceedsDebt,
)
from services.kernel.times import to_text
from services.ledger.domain.books import Books, claw_back, settle
from services.ledger.domain.commands import ConfirmPayout, FailPayout, LiftHold, PlaceHold, PostAdjustment, RequestPayout
from services.ledger.domain.facts import (
    Account,
    AdjustmentKind,
    Movement,
    PayoutPaid,
    PayoutRequested,
    Posting,
)


def request_payout(books: Books, command: RequestPayout) -> Answer:
    """Reserves an amount; of two that together exceed what is available the second is refused."""
    fact = command.fact
    stream = f"payout/{fact.payout_id}"
    again = _first(books, stream, f"payout {fact.payout_id!r}", command)
    if again:
        return again
    if fact.amount_minor <= 0:
        raise Malformed("amount", f"a payout is positive, not {fact.amount_minor}")
    if books.member(fact.member_id) is None:
        raise MemberUnknown(fact.member_id)
    if fact.currency != books.currency:
        raise CurrencyMismatch(books.currency, fact.currency)
    available = books.balance(fact.member_id).available
    if fact.amount_minor > available:
        raise PayoutExceedsAvailable(fact.member_id, available, fact.amount_minor)
    moved = [(Account.AVAILABLE, -fact.amount_minor), (Account.RESERVED, fact.amount_minor)]
    return [Draft(stream, fact, _movement(fact.member_id, fact.currency, moved), command.occurred_us)]


def close_payout(books: Books, command: ConfirmPayout | FailPayout) -> Answer:
    """The money left, or it did not: then it is available again, debts settled first."""
    payout_id = command.fact.payout_id
    stream = f"payout/{payout_id}"
    entries = books.stream(stream)
    if not entries:
        raise PayoutUnknown(payout_id)
    if len(entries) > 1:
        closed = entries[1]
        if type(closed.fact) is not type(command.fact):
            raise PayoutClosed(payout_id, "paid" if isinstance(closed.fact, PayoutPaid) else "failed")
        again = repeated(closed, f"closing of payout {payout_id!r}", command.fact, command.occurred_us)
        assert again is not None
        return again
    requested = entries[0].fact
    assert isinstance(requested, PayoutRequested)
    _not_before("paid_at" if isinstance(command, ConfirmPayout) else "failed_at", entries[0], command.occurred_us)
    amount = requested.amount_minor
    back = [(Account.PAID, amount)] if isinstance(command, ConfirmPayout) else settle(books.balance(requested.member_id), amount)
    moved = [(Account.RESERVED, -amount), *back]
    return [Draft(stream, command.fact, _movement(requested.member_id, requested.currency, moved), command.occurred_us)]


def adjust(books: Books, command: PostAdjustment) -> Answer:
    """Credits, debits or forgives, asked by one and approved by another."""
    fact = command.fact
    stream = f"adjustment/{fact.adjustment_id}"
    again = _first(books, stream, f"adjustment {fact.adjustment_id!r}", command)
    if again:
        return again
    if not fact.amount_minor or (fact.kind is AdjustmentKind.WRITE_OFF and fact.amount_minor < 0):
        raise Malformed("amount", f"a {fact.kind.name.lower().replace('_', '-')} of {fact.amount_minor} changes nothing or the wrong way")
    if books.member(fact.member_id) is None:
        raise MemberUnknown(fact.member_id)
    known = [books.currency, *dict.fromkeys(name for version in books.plans for name in version.plan.points)]
    if fact.currency not in known:
        # Points are told by their lower-case names; any other name is a currency that these books are not in.
        raise AssetUnknown(fact.currency, known) if fact.currency.islower() else CurrencyMismatch(books.currency, fact.currency)
    if fact.requested_by == fact.approved_by:
        raise ApproverIsRequester(fact.requested_by)
    balance = books.balance(fact.member_id, fact.currency)
    if fact.kind is AdjustmentKind.WRITE_OFF:
        if fact.amount_minor > -balance.debt:
            raise WriteOffExceedsDebt(fact.member_id, -balance.debt, fact.amount_minor)
        contra, moved = Account.WRITE_OFF, [(Account.DEBT, fact.amount_minor)]
    else:
        contra = Account.ADJUSTMENT
        moved = settle(balance, fact.amount_minor) if fact.amount_minor > 0 else claw_back(balance, -fact.amount_minor)
    decision = Movement((Posting(contra, "", -fact.amount_minor, fact.currency), *_movement(fact.member_id, fact.currency, moved).postings))
    return [Draft(stream, fact, decision, command.occurred_us)]


def place_hold(books: Books, command: PlaceHold) -> Answer:
    """Stops releases to a member or from an order, never accrual."""
    fact = command.fact
    stream = f"hold/{fact.hold_id}"
    again = _first(books, stream, f"hold {fact.hold_id!r}", command)
    if again:
        return again
    if fact.member_id and books.member(fact.member_id) is None:
        raise MemberUnknown(fact.member_id)
    if fact.order_id and not books.stream(f"order/{fact.order_id}"):
        raise OrderUnknown(fact.order_id)
    return [Draft(stream, fact, None, command.occurred_us)]


def lift_hold(books: Books, command: LiftHold) -> Answer:
    """Ends a hold."""
    stream = f"hold/{command.fact.hold_id}"
    entries = books.stream(stream)
    if not entries:
        raise HoldUnknown(command.fact.hold_id)
    lifted: Entry | None = entries[1] if len(entries) > 1 else None
    again = repeated(lifted, f"lifting of hold {command.fact.hold_id!r}", command.fact, command.occurred_us)
    if again:
        return again
    _not_before("lifted_at", entries[0], command.occurred_us)
    return [Draft(stream, command.fact, None, command.occurred_us)]


def _not_before(field: str, earlier: Entry, occurred_us: int) -> None:
    if occurred_us < earlier.occurred_us:
        raise DatedTooEarly(field, to_text(earlier.occurred_us), to_text(occurred_us))


def _first(books: Books, stream: str, key: str, command: RequestPayout | PostAdjustment | PlaceHold) -> Repeated | None:
    entries = books.stream(stream)
    return repeated(entries[0] if entries else None, key, command.fact, command.occurred_us)


def _movement(member_id: str, asset: str, moved: list[tuple[Account, int]]) -> Movement:
    return Movement(tuple(Posting(account, member_id, amount, asset) for account, amount in moved))
