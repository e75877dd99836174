"""The referral vocabulary: what is told and what was decided on it. `codec.py` gives each its stored name."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class EvidenceKind(IntEnum):
    """Why a member stands in a tier; the numbers are the contract's."""

    PAID_ORDER = 1
    VOLUME = 2
    SEAT_GRANTED = 3
    IMPORT = 4


class Evidence(NamedTuple):
    kind: EvidenceKind
    order_id: str
    note: str


class BindingLock(NamedTuple):
    """The lifetime lock falling. `referrer_id` is empty when nobody brought the member; `touch_position` is then 0."""

    member_id: str
    referrer_id: str
    touch_position: int


@dataclass(frozen=True, slots=True)
class MemberEnrolled:
    member_id: str
    referrer_id: str


@dataclass(frozen=True, slots=True)
class MemberTouched:
    touch_id: str
    member_id: str
    referrer_id: str
    channel: str


@dataclass(frozen=True, slots=True)
class TouchDecision:
    counts: bool


@dataclass(frozen=True, slots=True)
class MemberUpgraded:
    upgrade_id: str
    member_id: str
    tier: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class UpgradeDecision:
    previous_tier: str
    binding_locked: BindingLock | None


@dataclass(frozen=True, slots=True)
class BindingCorrected:
    correction_id: str
    member_id: str
    referrer_id: str
    reason: str
    requested_by: str
    approved_by: str


@dataclass(frozen=True, slots=True)
class CorrectionDecision:
    previous_referrer_id: str


# ---------------------------------------------------------------- facts of the same log that others tell


@dataclass(frozen=True, slots=True)
class PlanPublished:
    """What of a plan concerns referral."""

    tiers: tuple[str, ...]
    first_touch: bool
    effective_from_us: int
    effective_until_us: int | None

    def in_force(self, at_us: int) -> bool:
        return self.effective_from_us <= at_us and (self.effective_until_us is None or at_us < self.effective_until_us)


@dataclass(frozen=True, slots=True)
class OrderLocked:
    """An order whose payment let the buyer's lock fall."""

    order_id: str
    lock: BindingLock


@dataclass(frozen=True, slots=True)
class BindingReleased:
    """A full refund that released the lock, as the plan said."""

    order_id: str
    member_id: str
