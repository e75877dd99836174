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


class OrderLine(NamedTuple):
    line_no: int
    base_minor: int
    quantity: int
    sku: str
    category: str
    kind: LineKind


class Person(NamedTuple):
    """Somebody a decision looked at, as they stood in the log just before it."""

    member_id: str
    tier: str
    # The entry that locked them to the next one up; 0: not locked to anybody.
    binding_position: int
    # The entry that gave the tier; 0: none.
    tier_position: int


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


class BindingLock(NamedTuple):
    """The lifetime lock falling. `referrer_id` is empty when nobody brought the member; `touch_position` is then 0."""

    member_id: str
    referrer_id: str
    touch_position: int


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


@dataclass(frozen=True, slots=True)
class OrderPaid:
    order_id: str
    member_id: str
    currency: str
    lines: tuple[OrderLine, ...]


@dataclass(frozen=True, slots=True)
class OrderPaidDecision:
    engine_version: int
    plan_position: int
    binding_locked: BindingLock | None
    # The buyer, then the locked upline, nearest first, as far as the plan looks.
    people: tuple[Person, ...]
    lines: tuple[LineShares, ...]
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class OrderCompleted:
    order_id: str


@dataclass(frozen=True, slots=True)
class OrderCompletedDecision:
    due: tuple[DueChange, ...]


@dataclass(frozen=True, slots=True)
class OrderRefunded:
    refund_id: str
    order_id: str
    lines: tuple[RefundLine, ...]


@dataclass(frozen=True, slots=True)
class OrderRefundedDecision:
    engine_version: int
    lines: tuple[LineShares, ...]
    due: tuple[DueChange, ...]
    postings: tuple[Posting, ...]
    # The buyer, when this refund emptied the order that locked them and the plan releases the lock then; else empty.
    binding_released_member_id: str


@dataclass(frozen=True, slots=True)
class OrderReleased:
    order_id: str


@dataclass(frozen=True, slots=True)
class OrderReleasedDecision:
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


@dataclass(frozen=True, slots=True)
class BindingCorrected:
    member_id: str
    referrer_id: str
