"""What the ledger can be asked to do. A command is a fact to be told and when it happened; `ReleaseDue` finds its facts itself."""

from dataclasses import dataclass
from typing import NamedTuple

from services.kernel.refusals import Refusal
from services.ledger.domain.facts import (
    AdjustmentPosted,
    BalanceOpened,
    BooksSealed,
    DepositMoved,
    GroupFailed,
    GroupFormed,
    GroupOpened,
    HoldLifted,
    HoldPlaced,
    OrderCompleted,
    OrderPaid,
    OrderRefunded,
    PayoutFailed,
    PayoutPaid,
    PayoutRequested,
    PeriodClosed,
    PlanPublished,
    StockTransferred,
    TaskDone,
)


class RecordOrder(NamedTuple):
    fact: OrderPaid
    occurred_us: int


@dataclass(frozen=True, slots=True)
class CompleteOrder:
    fact: OrderCompleted
    occurred_us: int


@dataclass(frozen=True, slots=True)
class RefundOrder:
    fact: OrderRefunded
    occurred_us: int


@dataclass(frozen=True, slots=True)
class ReleaseDue:
    """Everything due at or before `occurred_us`, of at most `limit` orders."""

    occurred_us: int
    limit: int


@dataclass(frozen=True, slots=True)
class PlaceHold:
    fact: HoldPlaced
    occurred_us: int


@dataclass(frozen=True, slots=True)
class LiftHold:
    fact: HoldLifted
    occurred_us: int


@dataclass(frozen=True, slots=True)
class RequestPayout:
    fact: PayoutRequested
    occurred_us: int


@dataclass(frozen=True, slots=True)
class ConfirmPayout:
    fact: PayoutPaid
    occurred_us: int


@dataclass(frozen=True, slots=True)
class FailPayout:
    fact: PayoutFailed
    occurred_us: int


@dataclass(frozen=True, slots=True)
class PostAdjustment:
    fact: AdjustmentPosted
    occurred_us: int


@dataclass(frozen=True, slots=True)
class PublishPlan:
    fact: PlanPublished
    occurred_us: int
    # Whoever publishes asks for it; what was published before the linter knew better is decided again without.
    linted: bool = False
    # What the document alone is refused for, unless it is published already. That was looked for beside the event loop.
    refused: Refusal | None = None


@dataclass(frozen=True, slots=True)
class OpenGroup:
    fact: GroupOpened
    occurred_us: int


@dataclass(frozen=True, slots=True)
class FormGroup:
    fact: GroupFormed
    occurred_us: int


@dataclass(frozen=True, slots=True)
class FailGroup:
    fact: GroupFailed
    occurred_us: int


@dataclass(frozen=True, slots=True)
class RecordTask:
    fact: TaskDone
    occurred_us: int


@dataclass(frozen=True, slots=True)
class ClosePeriod:
    fact: PeriodClosed
    occurred_us: int


@dataclass(frozen=True, slots=True)
class MoveDeposit:
    fact: DepositMoved
    occurred_us: int


@dataclass(frozen=True, slots=True)
class TransferStock:
    fact: StockTransferred
    occurred_us: int


@dataclass(frozen=True, slots=True)
class OpenBalance:
    fact: BalanceOpened
    occurred_us: int


@dataclass(frozen=True, slots=True)
class SealBooks:
    fact: BooksSealed
    occurred_us: int


Command = (
    RecordOrder
    | CompleteOrder
    | RefundOrder
    | ReleaseDue
    | PlaceHold
    | LiftHold
    | RequestPayout
    | ConfirmPayout
    | FailPayout
    | PostAdjustment
    | PublishPlan
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
