"""The referral vocabulary: what is told and what was decided on it. `codec.py` gives each its stored name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    # A seat for a time ends here; None: for good.
    expires_us: int | None = None


@dataclass(frozen=True, slots=True)
class UpgradeDecision:
    previous_tier: str
    binding_locked: BindingLock | None
    # With a seat for a time: what gave the previous tier; 0: none.
    previous_tier_position: int = 0


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


@dataclass(frozen=True, slots=True)
class RoleGranted:
    """`scope` is the place it is held at, empty everywhere; `weight` the shares of the role."""

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
    member_id: str
    ended_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class MemberNamed:
    """The name itself is not here: `ciphertext` is what nobody reads without the member's key, `mac` what the same name gives again."""

    naming_id: str
    member_id: str
    mac: bytes
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class MemberErased:
    member_id: str
    reason: str
    erased_by: str


# ---------------------------------------------------------------- facts of the same log that others tell


@dataclass(frozen=True, slots=True)
class PlanPublished:
    """What of a plan concerns referral."""

    tiers: tuple[str, ...]
    first_touch: bool
    effective_from_us: int
    effective_until_us: int | None
    # {tier: seats granted by hand at once}; a tier not named has no limit.
    seats: Mapping[str, int] = field(default_factory=dict)

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


class TierChangeKind(IntEnum):
    """The numbers are the contract's."""

    PROMOTED = 1
    DEMOTED = 2
    FROZEN = 3


@dataclass(frozen=True, slots=True)
class TierChanged:
    """A tier that changed with an order or a refund: `tier` from now on, with FROZEN the title that stays."""

    member_id: str
    kind: TierChangeKind
    tier: str
    # The entry the tier rests on from now on; 0: the one that changes it.
    tier_position: int = 0


@dataclass(frozen=True, slots=True)
class OrderMeant:
    """An order, refund or void that means several things to referral."""

    parts: tuple[OrderLocked | BindingReleased | TierChanged, ...]
