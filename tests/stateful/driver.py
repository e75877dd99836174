"""What a set of books must be able to do to be compared: one method per write, and the reads that are compared.

The oracle is one (tests/oracle/oracle.py), the server behind its gRPC stubs another (grpc_driver.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, assert_never

from tests.oracle.facts import (
    Adjust,
    Balance,
    ClosePeriod,
    Complete,
    ConfirmPayout,
    Correct,
    EndRole,
    Enroll,
    FailGroup,
    FailPayout,
    FormGroup,
    GrantRole,
    GroupState,
    LiftHold,
    Member,
    MoveDeposit,
    OpenBalance,
    OpenGroup,
    Order,
    OrderState,
    Outcome,
    PeriodState,
    PlaceHold,
    PublishPlan,
    RecordTask,
    Refund,
    ReleaseDue,
    RequestPayout,
    SealBooks,
    Touch,
    TransferStock,
    Upgrade,
    Write,
)


class Driver(Protocol):
    """The books of one program, newly opened."""

    def publish_plan(self, fact: PublishPlan) -> Outcome: ...
    def enroll(self, fact: Enroll) -> Outcome: ...
    def touch(self, fact: Touch) -> Outcome: ...
    def upgrade(self, fact: Upgrade) -> Outcome: ...
    def correct(self, fact: Correct) -> Outcome: ...
    def order(self, fact: Order) -> Outcome: ...
    def complete(self, fact: Complete) -> Outcome: ...
    def refund(self, fact: Refund) -> Outcome: ...
    def release_due(self, fact: ReleaseDue) -> Outcome: ...
    def place_hold(self, fact: PlaceHold) -> Outcome: ...
    def lift_hold(self, fact: LiftHold) -> Outcome: ...
    def request_payout(self, fact: RequestPayout) -> Outcome: ...
    def confirm_payout(self, fact: ConfirmPayout) -> Outcome: ...
    def fail_payout(self, fact: FailPayout) -> Outcome: ...
    def adjust(self, fact: Adjust) -> Outcome: ...
    def grant_role(self, fact: GrantRole) -> Outcome: ...
    def end_role(self, fact: EndRole) -> Outcome: ...
    def open_group(self, fact: OpenGroup) -> Outcome: ...
    def form_group(self, fact: FormGroup) -> Outcome: ...
    def fail_group(self, fact: FailGroup) -> Outcome: ...
    def record_task(self, fact: RecordTask) -> Outcome: ...
    def close_period(self, fact: ClosePeriod) -> Outcome: ...
    def move_deposit(self, fact: MoveDeposit) -> Outcome: ...
    def transfer_stock(self, fact: TransferStock) -> Outcome: ...
    def open_balance(self, fact: OpenBalance) -> Outcome: ...
    def seal_books(self, fact: SealBooks) -> Outcome: ...

    def orders(self, facts: Sequence[Order]) -> list[Outcome]:
        """Several orders in one call, one answer each."""

    def follow_ups(self, facts: Sequence[Complete | Refund]) -> list[Outcome]:
        """Several completions and refunds in one call, one answer each."""

    def balance(self, member_id: str, position: int | None = None, asset: str = "") -> Balance: ...
    def balances(self, asset: str = "") -> Mapping[str, Balance]:
        """Every member's; one who never had anything of the asset may be left out."""

    def trial_balance(self, asset: str = "", position: int | None = None) -> Mapping[str, int]:
        """Every account with its sign in the book, the members' summed up, right after an entry or now: the names of docs/accounts.md."""

    def entries(self) -> list[tuple[str, str]]:
        """Type and stream of every entry of the log, oldest first."""

    def check_itself(self) -> None:
        """Checks what these books can check without help. Raises AssertionError."""

    def member(self, member_id: str) -> Member: ...
    def upline(self, member_id: str) -> list[str]: ...
    def order_state(self, order_id: str) -> OrderState: ...
    def group_state(self, group_id: str) -> GroupState: ...
    def period_state(self, period_id: str) -> PeriodState: ...


def tell(books: Driver, fact: Write) -> Outcome:
    """Gives a fact to the method that takes it."""
    match fact:
        case PublishPlan():
            return books.publish_plan(fact)
        case Enroll():
            return books.enroll(fact)
        case Touch():
            return books.touch(fact)
        case Upgrade():
            return books.upgrade(fact)
        case Correct():
            return books.correct(fact)
        case Order():
            return books.order(fact)
        case Complete():
            return books.complete(fact)
        case Refund():
            return books.refund(fact)
        case ReleaseDue():
            return books.release_due(fact)
        case PlaceHold():
            return books.place_hold(fact)
        case LiftHold():
            return books.lift_hold(fact)
        case RequestPayout():
            return books.request_payout(fact)
        case ConfirmPayout():
            return books.confirm_payout(fact)
        case FailPayout():
            return books.fail_payout(fact)
        case Adjust():
            return books.adjust(fact)
        case GrantRole():
            return books.grant_role(fact)
        case EndRole():
            return books.end_role(fact)
        case OpenGroup():
            return books.open_group(fact)
        case FormGroup():
            return books.form_group(fact)
        case FailGroup():
            return books.fail_group(fact)
        case RecordTask():
            return books.record_task(fact)
        case ClosePeriod():
            return books.close_period(fact)
        case MoveDeposit():
            return books.move_deposit(fact)
        case TransferStock():
            return books.transfer_stock(fact)
        case OpenBalance():
            return books.open_balance(fact)
        case SealBooks():
            return books.seal_books(fact)
        case _:
            assert_never(fact)


# Where more than one thing is wrong with an order or an adjustment, these are told in this order. Elsewhere any reason that holds is right.
REFUSALS_IN_ORDER = (
    "MALFORMED",
    "MEMBER_UNKNOWN",
    "CURRENCY_MISMATCH",
    "NO_PLAN_IN_FORCE",
    "APPROVER_IS_REQUESTER",
    "WRITE_OFF_EXCEEDS_DEBT",
)


def agree(fact: Write, expected: Outcome, got: Outcome) -> bool:
    """Whether two answers to a fact say the same."""
    if expected.kind == got.kind == "refused":
        reasons = (expected.reason, *expected.also)
        in_order = isinstance(fact, Order | Adjust) and set(reasons) <= set(REFUSALS_IN_ORDER)
        return got.reason == expected.reason if in_order else got.reason in reasons
    return expected == got
