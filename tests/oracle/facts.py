"""What can be told to the ledger, and what it can answer, as plain data.

One frozen dataclass per write of the contract, with the same field names; `Outcome` is what any set of books answers to it.
Times are integers, nanoseconds since 1970 (UTC); amounts are integers in minor units. No rule of the ledger lives here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

NS_PER_S = 1_000_000_000
DAY_NS = 86_400 * NS_PER_S

# fenrun.log.v1.LineKind
KIND_UNSPECIFIED, KIND_GOODS, KIND_GIFT_PACK, KIND_FEE = 0, 1, 2, 3
# fenrun.log.v1.EvidenceKind
EVIDENCE_PAID_ORDER, EVIDENCE_VOLUME, EVIDENCE_SEAT_GRANTED, EVIDENCE_IMPORT = 1, 2, 3, 4
# fenrun.log.v1.AdjustmentKind
ADJUST_CORRECTION, ADJUST_WRITE_OFF = 1, 2
# fenrun.log.v1.DepositKind
DEPOSIT_PAID_IN, DEPOSIT_RETURNED, DEPOSIT_FORFEITED = 1, 2, 3
# fenrun.log.v1.TierChangeKind
TIER_PROMOTED, TIER_DEMOTED, TIER_FROZEN = 1, 2, 3


@dataclass(frozen=True)
class CreateProgram:
    """The books are opened: always the entry at position 1."""

    currency: str


@dataclass(frozen=True)
class PublishPlan:
    """One version of a plan; plan id and version stand in the document."""

    document: str
    published_at: int


@dataclass(frozen=True)
class Enroll:
    """A new member; an empty referrer_id is nobody."""

    member_id: str
    referrer_id: str
    enrolled_at: int


@dataclass(frozen=True)
class Touch:
    """A member followed someone's link."""

    touch_id: str
    member_id: str
    referrer_id: str
    touched_at: int
    channel: str = ""


@dataclass(frozen=True)
class Upgrade:
    """A member is put into a tier; expires_at 0 is for good."""

    upgrade_id: str
    member_id: str
    tier: str
    upgraded_at: int
    evidence_kind: int = EVIDENCE_SEAT_GRANTED
    evidence_order_id: str = ""
    evidence_note: str = ""
    expires_at: int = 0


@dataclass(frozen=True)
class Correct:
    """A locked binding is moved by hand; an empty new_referrer_id is nobody."""

    correction_id: str
    member_id: str
    new_referrer_id: str
    corrected_at: int
    reason: str = "wrong poster"
    requested_by: str = "lin"
    approved_by: str = "zhao"


@dataclass(frozen=True)
class GrantRole:
    """A role at a place or (empty scope) everywhere; weight 0 is one share, effective_until 0 an open end."""

    grant_id: str
    member_id: str
    role: str
    scope: str
    weight: int
    effective_from: int
    granted_at: int
    effective_until: int = 0


@dataclass(frozen=True)
class EndRole:
    """A role ends before its time."""

    grant_id: str
    ended_at: int
    reason: str = "moved away"


@dataclass(frozen=True)
class Attribution:
    """A role named on an order or a line, by a member or by a place."""

    role: str
    member_id: str = ""
    scope: str = ""


@dataclass(frozen=True)
class Line:
    """One line of an order."""

    line_no: int
    base_minor: int
    quantity: int = 1
    sku: str = ""
    category: str = ""
    kind: int = KIND_GOODS
    attributions: tuple[Attribution, ...] = ()


@dataclass(frozen=True)
class Order:
    """A paid order."""

    order_id: str
    member_id: str
    paid_at: int
    currency: str
    lines: tuple[Line, ...]
    attributions: tuple[Attribution, ...] = ()
    group_id: str = ""
    referrer_id: str = ""


@dataclass(frozen=True)
class Complete:
    """The customer has the goods for good."""

    order_id: str
    completed_at: int


@dataclass(frozen=True)
class RefundLine:
    """What came back of one line."""

    line_no: int
    quantity: int
    base_minor: int


@dataclass(frozen=True)
class Refund:
    """A credit note on one order; its id counts together with the order's."""

    refund_id: str
    order_id: str
    refunded_at: int
    lines: tuple[RefundLine, ...]


@dataclass(frozen=True)
class OpenGroup:
    """A group buy is opened."""

    group_id: str
    opener_id: str
    opened_at: int


@dataclass(frozen=True)
class FormGroup:
    """A group buy is complete."""

    group_id: str
    formed_at: int


@dataclass(frozen=True)
class FailGroup:
    """A group buy fell through."""

    group_id: str
    failed_at: int
    reason: str = "too few"


@dataclass(frozen=True)
class RecordTask:
    """A task was done."""

    task_id: str
    member_id: str
    task: str
    done_at: int


@dataclass(frozen=True)
class ClosePeriod:
    """A period is over and is computed."""

    period_id: str
    closed_at: int


@dataclass(frozen=True)
class MoveDeposit:
    """A deposit comes in, goes back or is forfeited."""

    deposit_id: str
    member_id: str
    kind: int
    amount_minor: int
    currency: str
    moved_at: int
    reason: str = ""


@dataclass(frozen=True)
class StockLine:
    """Goods sold on."""

    sku: str
    quantity: int
    unit_cost_minor: int
    unit_price_minor: int


@dataclass(frozen=True)
class TransferStock:
    """One agent sells stock on to another."""

    transfer_id: str
    from_member_id: str
    to_member_id: str
    currency: str
    lines: tuple[StockLine, ...]
    transferred_at: int


@dataclass(frozen=True)
class OpenBalance:
    """What a member had in another system; pending_due_at 0 is not given."""

    opening_id: str
    member_id: str
    currency: str
    opened_at: int
    available_minor: int = 0
    pending_minor: int = 0
    pending_due_at: int = 0
    paid_minor: int = 0
    debt_minor: int = 0
    source: str = "the old system"


@dataclass(frozen=True)
class SealBooks:
    """Everything booked before `through` is final."""

    seal_id: str
    through: int
    sealed_at: int
    reason: str = "month end"
    sealed_by: str = "zhao"


@dataclass(frozen=True)
class ReleaseDue:
    """Asks to release what is due; not a fact itself, each order it releases is one."""

    as_of: int
    max_orders: int = 0


@dataclass(frozen=True)
class Released:
    """What one source (order/ID, period/ID, task/ID, opening/ID) releases: every (payee, asset, due time) that went to available."""

    source: str
    parts: frozenset[tuple[str, str, int]]
    released_at: int


@dataclass(frozen=True)
class PlaceHold:
    """A hold on a member or on an order: exactly one of the two is given."""

    hold_id: str
    member_id: str
    order_id: str
    placed_at: int
    reason: str = "looks odd"


@dataclass(frozen=True)
class LiftHold:
    """The end of a hold."""

    hold_id: str
    lifted_at: int
    reason: str = "looked fine"


@dataclass(frozen=True)
class RequestPayout:
    """An amount is reserved to be paid out."""

    payout_id: str
    member_id: str
    amount_minor: int
    currency: str
    requested_at: int


@dataclass(frozen=True)
class ConfirmPayout:
    """The money has left."""

    payout_id: str
    paid_at: int
    reference: str = ""


@dataclass(frozen=True)
class FailPayout:
    """The money did not leave."""

    payout_id: str
    failed_at: int
    reason: str = "account closed"


@dataclass(frozen=True)
class Adjust:
    """A correction of a balance, or a debt forgiven."""

    adjustment_id: str
    member_id: str
    kind: int
    amount_minor: int
    currency: str
    posted_at: int
    reason: str = "goodwill"
    requested_by: str = "lin"
    approved_by: str = "zhao"


# What a caller tells and the log keeps; what a caller asks; what the log keeps.
Told = (
    PublishPlan
    | Enroll
    | Touch
    | Upgrade
    | Correct
    | Order
    | Complete
    | Refund
    | PlaceHold
    | LiftHold
    | RequestPayout
    | ConfirmPayout
    | FailPayout
    | Adjust
    | GrantRole
    | EndRole
    | OpenGroup
    | FormGroup
    | FailGroup
    | RecordTask
    | ClosePeriod
    | MoveDeposit
    | TransferStock
    | OpenBalance
    | SealBooks
)
Write = Told | ReleaseDue
Fact = CreateProgram | Told | Released
Detail = Mapping[str, object]


def happened_at(fact: Told | Released) -> int:
    """When a fact happened: its one time that is not about something to come."""
    names = [spec.name for spec in fields(fact) if spec.name.endswith("_at") and spec.name not in ("expires_at", "pending_due_at")]
    return int(getattr(fact, names[0]))


@dataclass(frozen=True)
class Outcome:
    """The answer to a write.

    `reason` is a name of ErrorReason without its prefix, set when refused. `also` holds the other reasons that held at the same time,
    in the order the oracle looks at them: where the documents give no order, any of them is a right answer.
    `position` is the entry's place in the log (0 for a release, which may be many entries or none).
    `detail` is what the reply says besides.
    """

    kind: Literal["accepted", "repeated", "refused"]
    reason: str = ""
    position: int = 0
    detail: Detail = field(default_factory=dict)
    also: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Lock:
    """The lifetime lock falling; an empty referrer_id locks to nobody, touch_position is 0 then."""

    member_id: str
    referrer_id: str
    touch_position: int


@dataclass(frozen=True)
class TierChanged:
    """A tier given or taken as part of an order or a refund."""

    member_id: str
    kind: int
    tier: str
    previous_tier: str


@dataclass(frozen=True)
class Balance:
    """Where one member's money of one asset stands; debt is a positive figure. Deposits and margin are apart from the rest."""

    pending: int = 0
    available: int = 0
    reserved: int = 0
    paid: int = 0
    debt: int = 0
    accrued: int = 0
    reversed: int = 0
    adjusted: int = 0
    deposit: int = 0
    margin: int = 0


@dataclass(frozen=True)
class Company:
    """The company's accounts with their sign in the book; they and all members' accounts sum to zero."""

    commission: int = 0
    breakage: int = 0
    adjustment: int = 0
    write_off: int = 0
    clearing: int = 0
    opening: int = 0


@dataclass(frozen=True)
class Member:
    """A member as the log has them. Open: referrer_id is the candidate a lock would fall to now."""

    member_id: str
    enrolled_at: int
    tier: str
    locked: bool
    referrer_id: str
    binding_position: int
    tier_position: int
    direct_count: int
    tier_expires_at: int = 0
    tier_frozen: bool = False


@dataclass(frozen=True)
class OrderState:
    """What remains of an order, and who is entitled to what.

    lines: line_no -> (remaining base, remaining quantity).
    entitlements: (line_no, rule id, member or "" for breakage) -> amount, zeros left out; line 0 is the order as a whole.
    people: (member_id, tier, binding_position, tier_position), buyer first: of the path, as far as the plan looks or all of it.
    completed_at is 0 until completed. positions: every entry about it.
    """

    paid_at: int
    completed_at: int
    plan_position: int
    people: tuple[tuple[str, str, int, int], ...]
    lines: Mapping[int, tuple[int, int]]
    entitlements: Mapping[tuple[int, str, str], int]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class GroupState:
    """A group buy: open, formed or failed; closed_at is 0 while it is open."""

    opener_id: str
    state: str
    order_ids: tuple[str, ...]
    opened_at: int
    closed_at: int


@dataclass(frozen=True)
class PeriodResult:
    """What one rule gave for a period: volume, (member, asset) -> amount with zeros left out, and breakage."""

    rule_id: str
    volume: int
    earnings: Mapping[tuple[str, str], int]
    breakage: int


@dataclass(frozen=True)
class PeriodState:
    """A closed period as of now, corrections included."""

    starts_at: int
    ends_at: int
    closed_at: int
    plan_position: int
    rules: tuple[PeriodResult, ...]
    positions: tuple[int, ...]
