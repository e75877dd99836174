"""The ledger's one door for commands: each goes to the function that knows its rules."""

from typing import assert_never

from services.kernel.decider import Answer
from services.ledger.domain import money_out, orders, plans
from services.ledger.domain.books import Books
from services.ledger.domain.commands import (
    Command,
    CompleteOrder,
    ConfirmPayout,
    FailPayout,
    LiftHold,
    PlaceHold,
    PostAdjustment,
    PublishPlan,
    RecordOrder,
    RefundOrder,
    ReleaseDue,
    RequestPayout,
)


def decide(books: Books, command: Command) -> Answer:
    """Drafts of entries, or the entry that told the same fact before. Raises a Refusal, or NotLoaded when the books are partial."""
    match command:
        case RecordOrder():
            return orders.record(books, command)
        case RefundOrder():
            return orders.refund(books, command)
        case CompleteOrder():
            return orders.complete(books, command)
        case ReleaseDue():
            return orders.release(books, command)
        case RequestPayout():
            return money_out.request_payout(books, command)
        case ConfirmPayout() | FailPayout():
            return money_out.close_payout(books, command)
        case PostAdjustment():
            return money_out.adjust(books, command)
        case PlaceHold():
            return money_out.place_hold(books, command)
        case LiftHold():
            return money_out.lift_hold(books, command)
        case PublishPlan():
            return plans.publish(books, command)
    assert_never(command)
