"""The ledger's one door for commands: each goes to the function that knows its rules."""

from typing import assert_never

from services.kernel.decider import Answer
from services.ledger.domain import apart, closing, groups, money_out, orders, plans, sealing, tasks
from services.ledger.domain.books import Books
from services.ledger.domain.commands import (
    ClosePeriod,
    Command,
    CompleteOrder,
    ConfirmPayout,
    FailGroup,
    FailPayout,
    FormGroup,
    LiftHold,
    MoveDeposit,
    OpenBalance,
    OpenGroup,
    PlaceHold,
    PostAdjustment,
    PublishPlan,
    RecordOrder,
    RecordTask,
    RefundOrder,
    ReleaseDue,
    RequestPayout,
    SealBooks,
    TransferStock,
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
        case OpenGroup():
            return groups.open_group(books, command)
        case FormGroup():
            return groups.form_group(books, command)
        case FailGroup():
            return groups.fail_group(books, command)
        case RecordTask():
            return tasks.record(books, command)
        case ClosePeriod():
            return closing.close(books, command)
        case MoveDeposit():
            return apart.move_deposit(books, command)
        case TransferStock():
            return apart.transfer_stock(books, command)
        case OpenBalance():
            return apart.open_balance(books, command)
        case SealBooks():
            return sealing.seal(books, command)
    assert_never(command)
