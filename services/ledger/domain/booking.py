"""When an entry is booked. Seals close the books period by period; what comes too late for its period adjusts it from the open one.

A pure function of the log: which seals stand before an entry, and when it occurred. Nothing of it is stored with the entry.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from services.kernel.decider import Entry
from services.ledger.domain.facts import Account, BooksSealed

# Books are sealed through a midnight. Every zone's is on a quarter of an hour, so amounts need not be kept any finer.
QUARTER_US = 900_000_000


class Seal(NamedTuple):
    """A period between two seals: from inclusive (None: the beginning), through exclusive. `position` is the entry that sealed it."""

    seal_id: str
    from_us: int | None
    through_us: int
    position: int


def seal_of(entry: Entry) -> Seal:
    """The seal that a books.sealed entry set."""
    assert isinstance(entry.fact, BooksSealed)
    return Seal(entry.fact.seal_id, entry.decision.from_us, entry.fact.through_us, entry.position)


def booked_us(position: int, occurred_us: int, seals: Sequence[Seal]) -> int:
    """The time an entry is booked at: when it occurred, or where that was sealed already, the beginning of the period open then."""
    before = [seal.through_us for seal in seals if seal.position < position]
    return max(occurred_us, before[-1]) if before else occurred_us


def adjusts(position: int, occurred_us: int, seals: Sequence[Seal]) -> Seal | None:
    """The sealed period that an entry belongs to and came too late for; None: it came in time. Seals in the order they were set."""
    return next((seal for seal in seals if seal.position < position and occurred_us < seal.through_us), None)


class Booked:
    """What is booked when, by quarters of an hour: how many entries, and how they moved the accounts."""

    def __init__(self) -> None:
        # {quarters since 1970: [entries, {(asset, account): amount}]}
        self._quarters: dict[int, tuple[int, dict[tuple[str, Account], int]]] = {}

    def add(self, occurred_us: int, entries: int, amounts: Iterable[tuple[tuple[str, Account], int]]) -> None:
        """Takes in entries of one time, and how they moved each (asset, account).

        That some of them may be late changes nothing here: it is before the next seal either way.
        """
        quarter = occurred_us // QUARTER_US
        count, totals = self._quarters.get(quarter) or (0, {})
        for key, amount in amounts:
            totals[key] = totals.get(key, 0) + amount
        self._quarters[quarter] = (count + entries, totals)

    def before(self, through_us: int) -> tuple[int, dict[tuple[str, Account], int]]:
        """(entries, totals) of everything booked before a time that no seal has reached yet. Zeros may be among the totals."""
        entries = 0
        sums: dict[tuple[str, Account], int] = {}
        for quarter, (count, totals) in self._quarters.items():
            if quarter * QUARTER_US < through_us:
                entries += count
                for key, amount in totals.items():
                    sums[key] = sums.get(key, 0) + amount
        return entries, sums
