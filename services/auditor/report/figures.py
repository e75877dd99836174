"""What the report says, as plain figures: the page draws them, `--json` prints them. Amounts are minor units; of points, points."""

from dataclasses import asdict, dataclass, field
from typing import Any

from services.auditor.report.folding import Correction, Flow, Hold


@dataclass(frozen=True, slots=True)
class Plan:
    plan_id: str
    version: int
    position: int
    effective_from: str
    effective_until: str
    content_hash: str


@dataclass(frozen=True, slots=True)
class AccountRow:
    """`holders`: members whose balance is not zero; 0 for the company's accounts."""

    asset: str
    account: str
    balance_minor: int
    holders: int


@dataclass(frozen=True, slots=True)
class FlowRow:
    """`begins`: the first day of the step, in the plan's zone."""

    begins: str
    flow: Flow


@dataclass(frozen=True, slots=True)
class Flows:
    asset: str
    # day, week (Monday first), month, year
    unit: str
    rows: list[FlowRow]
    total: Flow


@dataclass(frozen=True, slots=True)
class RuleRow:
    """`by_tier`: given less taken back, by the payee's tier then; empty: no tier."""

    plan_id: str
    versions: list[int]
    rule_id: str
    kind: str
    asset: str
    accrued_minor: int
    reversed_minor: int
    breakage_minor: int
    by_tier: dict[str, int]

    @property
    def net_minor(self) -> int:
        return self.accrued_minor - self.reversed_minor


@dataclass(frozen=True, slots=True)
class MemberAmount:
    member_id: str
    tier: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Debts:
    asset: str
    members: int
    total_minor: int
    # The largest.
    listed: list[MemberAmount]


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that a log which holds never has; `where` says positions or members, some of them."""

    name: str
    count: int
    where: list[str]


@dataclass(frozen=True, slots=True)
class Locks:
    """Lifetime locks. `unbound`: locked to nobody, with orders; `open_orders`: with orders, and not locked."""

    locked: int
    open: int
    top: int
    corrected: int
    corrections: list[Correction]
    unlocked: int
    unbound: int
    unbound_volume_minor: int
    unbound_listed: list[MemberAmount]
    open_orders: int
    open_listed: list[MemberAmount]


@dataclass(frozen=True, slots=True)
class Head:
    """`depth`: levels above them. `earners`: people counted who have been given something by the rules."""

    member_id: str
    tier: str
    depth: int
    people: int
    levels: int
    earners: int
    earned_minor: int
    people_earned_minor: int


@dataclass(frozen=True, slots=True)
class TopShare:
    """The `members` who earned most, and what they have of `of_minor` all together."""

    members: int
    earned_minor: int


@dataclass(frozen=True, slots=True)
class Concentration:
    """`heads`: members with at least `least_people` people and `least_levels` levels, themselves counted; `heads_top`: those
    with nobody above."""

    least_people: int
    least_levels: int
    heads: int
    heads_top: int
    people_under_heads: int
    heads_earned_minor: int
    listed: list[Head]
    earners: int
    earned_minor: int
    top: list[TopShare]
    levels: int


@dataclass(frozen=True, slots=True)
class Figures:
    program_id: str
    currency: str
    # Minutes east of UTC.
    zone_minutes: int
    first_position: int
    last_position: int
    head_hash: str
    first_recorded_at: str
    last_recorded_at: str
    members: int
    buyers: int
    orders: int
    # {tier: members}, those of the newest plan first, lowest first; empty: no tier.
    tiers: dict[str, int]
    entries_by_type: dict[str, int]
    plans: list[Plan]
    trial_balance: list[AccountRow]
    sums: dict[str, int]
    flows: list[Flows]
    rules: list[RuleRow]
    debts: list[Debts]
    holds: list[Hold]
    holds_open: int
    wrong: list[Wrong]
    locks: Locks
    concentration: Concentration
    explained: list[dict[str, Any]] = field(default_factory=list)

    @property
    def totals(self) -> Flow:
        """All there was in the program's currency."""
        return next((one.total for one in self.flows if one.asset == self.currency), Flow())

    def balance(self, account: str, asset: str = "") -> int:
        wanted = (asset or self.currency, account)
        return next((row.balance_minor for row in self.trial_balance if (row.asset, row.account) == wanted), 0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
