"""Group buying (拼团): opened, joined by orders, formed or failed. Rules: a failed group voids all it accrued."""

from dataclasses import replace

from services.kernel.decider import Answer, Draft, Entry, repeated
from services.kernel.refusals import DatedTooEarly, GroupClosed, GroupUnknown, MemberUnknown
from services.kernel.times import to_text
from services.ledger.domain import orders
from services.ledger.domain.books import Ahead, Books
from services.ledger.domain.commands import FailGroup, FormGroup, OpenGroup
from services.ledger.domain.facts import (
    GroupFailed,
    GroupFormed,
    GroupJoined,
    OrderCompletedDecision,
    OrderGroupFormed,
    OrderVoided,
)


def open_group(books: Books, command: OpenGroup) -> Answer:
    """Somebody opens a group; it pays nobody yet."""
    fact = command.fact
    stream = f"group/{fact.group_id}"
    entries = books.stream(stream)
    again = repeated(entries[0] if entries else None, f"group {fact.group_id!r}", fact, command.occurred_us)
    if again:
        return again
    if books.member(fact.opener_id) is None:
        raise MemberUnknown(fact.opener_id, "opener_id")
    return [Draft(stream, fact, None, command.occurred_us)]


def form_group(books: Books, command: FormGroup) -> Answer:
    """The group is complete: in each of its orders what waits for that becomes due."""
    fact = command.fact
    stream, entries = _group(books, fact.group_id)
    again = _closed_before(books, entries, fact, command.occurred_us)
    if again:
        return again
    _not_before("formed_at", entries, command.occurred_us)
    drafts = [Draft(stream, fact, None, command.occurred_us)]
    for order_id in _orders(entries):
        order = orders.known(books, order_id)
        plan = books.plan_at(order.decision.plan_position).plan
        decision = OrderCompletedDecision(orders.newly_due(order, plan, formed_us=command.occurred_us))
        drafts.append(Draft(order.paid.stream, OrderGroupFormed(order_id, fact.group_id), decision, command.occurred_us))
    return drafts


def fail_group(books: Books, command: FailGroup) -> Answer:
    """The group fell through: each of its orders is voided."""
    fact = command.fact
    stream, entries = _group(books, fact.group_id)
    again = _closed_before(books, entries, fact, command.occurred_us)
    if again:
        return again
    _not_before("failed_at", entries, command.occurred_us)
    drafts = [Draft(stream, fact, None, command.occurred_us)]
    ahead = Ahead(books)
    for order_id in _orders(entries):
        drafts += orders.void(ahead, orders.known(books, order_id), fact.group_id, command.occurred_us)
    return drafts


def _group(books: Books, group_id: str) -> tuple[str, list[Entry]]:
    """(stream, entries). Raises GroupUnknown."""
    stream = f"group/{group_id}"
    entries = books.stream(stream)
    if not entries:
        raise GroupUnknown(group_id)
    return stream, entries


def _closed_before(books: Books, entries: list[Entry], fact: GroupFormed | GroupFailed, occurred_us: int) -> Answer | None:
    closed = next((entry for entry in entries if isinstance(entry.fact, GroupFormed | GroupFailed)), None)
    if closed is not None and type(closed.fact) is not type(fact):
        raise GroupClosed(fact.group_id, "formed" if isinstance(closed.fact, GroupFormed) else "failed")
    again = repeated(closed, f"closing of group {fact.group_id!r}", fact, occurred_us)
    if again is None:
        return None
    found = [orders.known(books, order_id) for order_id in _orders(entries)]
    done = [entry for order in found for entry in books.stream(order.paid.stream) if isinstance(entry.fact, OrderGroupFormed | OrderVoided)]
    corrected = [entry for order in found for entry in orders.corrections_by(books, order)] if isinstance(fact, GroupFailed) else []
    return replace(again, more=(*done, *corrected))


def _orders(entries: list[Entry]) -> list[str]:
    return [entry.fact.order_id for entry in entries if isinstance(entry.fact, GroupJoined)]


def _not_before(field: str, entries: list[Entry], occurred_us: int) -> None:
    earliest = max(entry.occurred_us for entry in entries)
    if occurred_us < earliest:
        raise DatedTooEarly(field, to_text(earliest), to_text(occurred_us))
