"""What statistics reads of the log: who is bound to whom, what was paid, what was taken back. Amounts are minor units, or points."""

from dataclasses import dataclass
from typing import NamedTuple


class Rule(NamedTuple):
    """A rule of a plan version. `asset` is empty for money of the program's currency, else the name of points."""

    id: str
    asset: str


class Share(NamedTuple):
    """`payee` is a 1-based index into the payees of the source; 0 is breakage, which is nobody's income."""

    rule_index: int
    payee: int
    amount: int


@dataclass(frozen=True, slots=True)
class PlanPublished:
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Enrolled:
    member_id: str


@dataclass(frozen=True, slots=True)
class Locked:
    """The lifetime lock falling; to nobody where the referrer is empty."""

    member_id: str
    referrer_id: str


@dataclass(frozen=True, slots=True)
class Corrected:
    """A locked binding moved, for later orders only."""

    member_id: str
    referrer_id: str


class Paid(NamedTuple):
    """Something that gives income: an order, which has a buyer and a base, a task or a period, which have neither.

    `source` is its stream. `at_us` is the time it counts at, where that is not the time the entry tells.
    """

    source: str
    plan_position: int
    payees: tuple[str, ...]
    shares: tuple[Share, ...]
    buyer_id: str = ""
    base_minor: int = 0
    lock: Locked | None = None
    at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """Part of a source taken back, or computed anew: shares are the changes.

    `base_minor` is what goes of its base; None: all that remains.
    """

    source: str
    base_minor: int | None
    shares: tuple[Share, ...]
    released_member_id: str = ""


Fact = PlanPublished | Enrolled | Locked | Corrected | Paid | Changed
