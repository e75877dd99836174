"""The ledger's vocabulary: what is told (facts) and what was decided on it. `codec.py` gives each its stored name.

Hot values are NamedTuples: an order makes a dozen of them. Amounts are minor units, times microseconds (see kernel).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Account(IntEnum):
    """docs/accounts.md; the numbers are the contract's."""

    PENDING = 1
    AVAILABLE = 2
    RESERVED = 3
    PAID = 4
    DEBT = 5
    COMMISSION = 6
    BREAKAGE = 7
    ADJUSTMENT = 8
    WRITE_OFF = 9
    DEPOSIT = 10
    MARGIN = 11
    CLEARING = 12
    OPENING = 13


class LineKind(IntEnum):
    GOODS = 1
    GIFT_PACK = 2
    FEE = 3


class Posting(NamedTuple):
    """One side of a movement; `member_id` is empty for the company's accounts."""

    account: Account
    member_id: str
    amount_minor: int
    asset: str


class Attribution(NamedTuple):
    """A role named on an order or a line: by the member in it, or by a place; the other of the two is empty."""

    role: str
    member_id: str
    scope: str


class OrderLine(NamedTuple):
    line_no: int
    base_minor: int
    quantity: int
    sku: str
    category: str
    kind: LineKind
    attributions: tuple[Attribution, ...] = ()


class Person(NamedTuple):
    """Somebody a decision looked at, as they stood in the log just before it."""

    member_id: str
    tier: str
    # The entry that locked them to the next one up; 0: not locked to anybody.
    binding_position: int
    # The entry that gave the tier; 0: none.
    tier_position: int
    # Empty: on the path. Else the role they are looked at for, the place it was found by, the grant (0: named on the order), their weight.
    role: str = ""
    scope: str = ""
    role_position: int = 0
    weight: int = 0


class Share(NamedTuple):
    """What one rule gives one payee on one line. `payee` counts the decision's people from 1; 0 is breakage."""

    rule_index: int
    payee: int
    amount_minor: int


class LineShares(NamedTuple):
    line_no: int
    shares: tuple[Share, ...]


class RefundLine(NamedTuple):
    line_no: int
    quantity: int
    base_minor: int


class DueChange(NamedTuple):
    """A change of what is due to a member from an order at a time."""

    member_id: str
    due_us: int
    amount_minor: int
    # Empty: the program's currency.
    asset: str = ""


class BindingLock(NamedTuple):
    """The lifetime lock falling. `referrer_id` is empty when nobody brought the member; `touch_position` is then 0."""

    member_id: str
    referrer_id: str
    touch_position: int


class Count(NamedTuple):
    """A counter moving; docs/counters.md names them."""

    counter: str
    bucket: str
    member_id: str
    amount: int


class CapRoom(NamedTuple):
    """The most a payee could still earn by a capped rule when the order was recorded."""

    rule_index: int
    payee: int
    room_minor: int


class TierChangeKind(IntEnum):
    PROMOTED = 1
    DEMOTED = 2
    FROZEN = 3


class TierChange(NamedTuple):
    """`tier` from now on, with FROZEN the title that stays. Positions: what gave the tier before; what this one rests on (0: this)."""

    member_id: str
    kind: TierChangeKind
    tier: str
    previous_tier: str
    previous_tier_position: int = 0
    tier_position: int = 0


# ---------------------------------------------------------------- facts the ledger tells


@dataclass(frozen=True, slots=True)
class PlanPublished:
    plan_id: str
    version: int
    document: str
    effective_from_us: int
    effective_until_us: int | None


@dataclass(frozen=True, slots=True)
class PlanDecision:
    content_hash: bytes


class OrderPaid(NamedTuple):
    order_id: str
    member_id: str
    currency: str
    lines: tuple[OrderLine, ...]
    attributions: tuple[Attribution, ...] = ()
    group_id: str = ""
    referrer_id: str = ""


class OrderPaidDecision(NamedTuple):
    engine_version: int
    plan_position: int
    binding_locked: BindingLock | None
    # The buyer, then the locked upline, nearest first, as far as the plan looks; then those in roles.
    people: tuple[Person, ...]
    # Shares of the order as a whole stand under line 0, the last.
    lines: tuple[LineShares, ...]
    postings: tuple[Posting, ...]
    period_id: str = ""
    rooms: tuple[CapRoom, ...] = ()
    counts: tuple[Count, ...] = ()
    tier_changes: tuple[TierChange, ...] = ()
    group_first: bool = False
    # What a hold keeps from being paid at once.
    due: tuple[DueChange, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderCompleted:
    order_id: str


class OrderCompletedDecision(NamedTuple):
    due: tuple[DueChange, ...]


@dataclass(frozen=True, slots=True)
class OrderRefunded:
    refund_id: str
    order_id: str
    lines: tuple[RefundLine, ...]


class OrderRefundedDecision(NamedTuple):
    engine_version: int
    lines: tuple[LineShares, ...]
    due: tuple[DueChange, ...]
    postings: tuple[Posting, ...]
    # The buyer, when this refund emptied the order that locked them and the plan releases the lock then; else empty.
    binding_released_member_id: str
    counts: tuple[Count, ...] = ()
    tier_changes: tuple[TierChange, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderGroupFormed:
    """Its decision is an OrderCompletedDecision."""

    order_id: str
    group_id: str


@dataclass(frozen=True, slots=True)
class OrderVoided:
    """Its decision is an OrderRefundedDecision."""

    order_id: str
    group_id: str


@dataclass(frozen=True, slots=True)
class OrderReleased:
    order_id: str


class OrderReleasedDecision(NamedTuple):
    due: tuple[DueChange, ...]
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class PayoutRequested:
    payout_id: str
    member_id: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class PayoutPaid:
    payout_id: str
    reference: str


@dataclass(frozen=True, slots=True)
class PayoutFailed:
    payout_id: str
    reason: str


class AdjustmentKind(IntEnum):
    CORRECTION = 1
    WRITE_OFF = 2


@dataclass(frozen=True, slots=True)
class AdjustmentPosted:
    adjustment_id: str
    member_id: str
    kind: AdjustmentKind
    amount_minor: int
    currency: str
    reason: str
    requested_by: str
    approved_by: str


@dataclass(frozen=True, slots=True)
class Movement:
    """The decision of facts that only move money: payouts and adjustments."""

    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class HoldPlaced:
    hold_id: str
    # One of the two.
    member_id: str
    order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class HoldLifted:
    hold_id: str
    reason: str


# ---------------------------------------------------------------- groups, tasks, periods


@dataclass(frozen=True, slots=True)
class GroupOpened:
    group_id: str
    opener_id: str


@dataclass(frozen=True, slots=True)
class GroupJoined:
    group_id: str
    order_id: str


@dataclass(frozen=True, slots=True)
class GroupFormed:
    group_id: str


@dataclass(frozen=True, slots=True)
class GroupFailed:
    group_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskDone:
    task_id: str
    member_id: str
    task: str


class TaskDoneDecision(NamedTuple):
    engine_version: int
    plan_position: int
    people: tuple[Person, ...]
    lines: tuple[LineShares, ...]
    due: tuple[DueChange, ...]
    postings: tuple[Posting, ...]
    counts: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class PeriodClosed:
    period_id: str


class PeriodPerson(NamedTuple):
    """Somebody as they stood when a period was closed; `parent` counts the people from 1, 0 is nobody."""

    member_id: str
    tier: str
    parent: int


class PeriodFigures(NamedTuple):
    """What belongs to people by a rule: volumes counted, or weights held. {person, from 1: figure}, as pairs in order of person."""

    rule_index: int
    figures: tuple[tuple[int, int], ...]


class PeriodClosedDecision(NamedTuple):
    engine_version: int
    plan_position: int
    starts_us: int
    ends_us: int
    people: tuple[PeriodPerson, ...]
    volumes: tuple[PeriodFigures, ...]
    holders: tuple[PeriodFigures, ...]
    shares: tuple[Share, ...]
    due: tuple[DueChange, ...]
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class PeriodCorrected:
    period_id: str
    order_id: str
    refund_id: str


class PeriodCorrectedDecision(NamedTuple):
    volumes: tuple[PeriodFigures, ...]
    shares: tuple[Share, ...]
    due: tuple[DueChange, ...]
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class RewardReleased:
    """Its decision is an OrderReleasedDecision."""

    source: str


# ---------------------------------------------------------------- accounts of their own


class DepositKind(IntEnum):
    PAID_IN = 1
    RETURNED = 2
    FORFEITED = 3


@dataclass(frozen=True, slots=True)
class DepositMoved:
    deposit_id: str
    member_id: str
    kind: DepositKind
    amount_minor: int
    currency: str
    reason: str


class StockLine(NamedTuple):
    sku: str
    quantity: int
    unit_cost_minor: int
    unit_price_minor: int


@dataclass(frozen=True, slots=True)
class StockTransferred:
    transfer_id: str
    from_member_id: str
    to_member_id: str
    currency: str
    lines: tuple[StockLine, ...]


@dataclass(frozen=True, slots=True)
class BalanceOpened:
    opening_id: str
    member_id: str
    currency: str
    available_minor: int
    pending_minor: int
    pending_due_us: int | None
    paid_minor: int
    debt_minor: int
    source: str


@dataclass(frozen=True, slots=True)
class BalanceOpenedDecision:
    due: tuple[DueChange, ...]
    postings: tuple[Posting, ...]


# ---------------------------------------------------------------- sealing


@dataclass(frozen=True, slots=True)
class BooksSealed:
    """`through_us` is exclusive."""

    seal_id: str
    through_us: int
    reason: str
    sealed_by: str


class AccountTotal(NamedTuple):
    """What stands on an account, of all members together where it is theirs."""

    account: Account
    asset: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class BooksSealedDecision:
    """`from_us` is where the seal before ends; None: this is the first. Totals by asset and account, none of them zero."""

    from_us: int | None
    entries: int
    totals: tuple[AccountTotal, ...]


# ---------------------------------------------------------------- facts of the same log that others tell


@dataclass(frozen=True, slots=True)
class ProgramCreated:
    currency: str


@dataclass(frozen=True, slots=True)
class MemberEnrolled:
    member_id: str
    referrer_id: str


@dataclass(frozen=True, slots=True)
class MemberTouched:
    """Only touches that count; the others mean nothing to the ledger."""

    member_id: str
    referrer_id: str


@dataclass(frozen=True, slots=True)
class MemberUpgraded:
    member_id: str
    tier: str
    binding_locked: BindingLock | None
    previous_tier: str = ""
    # The order that is its evidence; empty: none.
    evidence_order_id: str = ""
    # A seat for a time ends here, and what gave the tier that then counts again.
    expires_us: int | None = None
    previous_tier_position: int = 0


@dataclass(frozen=True, slots=True)
class RoleGranted:
    grant_id: str
    member_id: str
    role: str
    scope: str
    weight: int
    from_us: int
    until_us: int | None


@dataclass(frozen=True, slots=True)
class RoleEnded:
    grant_id: str
    ended_us: int


@dataclass(frozen=True, slots=True)
class BindingCorrected:
    member_id: str
    referrer_id: str
