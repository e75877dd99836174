"""What does not add up in a mall's own books: every check, over a whole export, purely.

A finding is about one member, with the figure the mall shows, what its rows come to, and a sentence. Checks judge and change nothing;
what is carried over is decided in carry.py, and is the mall's own figure wherever there is one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.importer.exports import Entry, Mall, Member
from services.kernel.times import to_text


@dataclass(frozen=True, slots=True)
class Finding:
    """`own_minor` is the mall's figure, `rows_minor` what its rows come to; None where the check is about no amount."""

    check: str
    member: str
    what: str
    own_minor: int | None = None
    rows_minor: int | None = None
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """A check of the whole export: the sums over all members where it compares figures, else over the findings."""

    name: str
    about: str
    findings: list[Finding]
    own_minor: int | None
    rows_minor: int | None

    @property
    def members(self) -> int:
        return len({finding.member for finding in self.findings})


ABOUT = {
    "balance": "the balance column is the sum of the rows that count",
    "running balance": "the balance each row shows follows from the row before",
    "frozen": "the frozen figure is the sum of the rows still frozen",
    "withdrawals": "the withdrawal table tells what the commission rows tell",
    "open withdrawals": "deducted, and neither paid nor given back; not carried",
    "negative balance": "carried as debt",
    "not booked yet": "commission of paid orders the mall has not booked; not carried",
    "unknown order": "commission rows name orders that are there",
    "refund not reversed": "of a refunded order nothing is left to earn",
    "paid twice": "one commission of one order is one row",
    "unknown member": "rows belong to members that are there",
    "repeated rows": "each row is there once",
    "self referral": "nobody brought themselves; goes in without a referrer",
    "referral circle": "nobody stands above themselves; goes in without a referrer",
    "unknown referrer": "a referrer is a member; goes in without a referrer",
    "late referrer": "a referrer is there when the binding begins",
}
# Sums over all members, not over the findings alone: these say how large the books are.
TOTALS = {"balance", "frozen", "withdrawals"}


def referrers(mall: Mall) -> tuple[dict[str, str], list[Finding]]:
    """Who brought whom, by what can be: no self, no circle, nobody unknown; and the findings about the rest.

    Everybody on a circle loses the referrer, as nothing in the export says which of them was first; whoever stands below keeps theirs.
    """
    found: list[Finding] = []
    kept: dict[str, str] = {}
    for member in mall.members.values():
        table, above = member.file or mall.files["members"], mall.members.get(member.referrer)
        if not member.referrer:
            continue
        if member.referrer == member.id:
            found.append(Finding("self referral", member.id, "is their own referrer", file=table, line=member.line))
        elif above is None:
            what = f"referrer {member.referrer} is no member"
            found.append(Finding("unknown referrer", member.id, what, file=table, line=member.line))
        else:
            kept[member.id] = member.referrer
            if member.bound_us and above.enrolled_us and above.enrolled_us > member.bound_us:
                what = f"bound at {to_text(member.bound_us)}, before {above.id} was there ({to_text(above.enrolled_us)})"
                found.append(Finding("late referrer", member.id, what, file=table, line=member.line))
    for circle in _circles(kept):
        for id in circle:
            what = f"stands above themselves: {' < '.join([*circle[circle.index(id) :], *circle[: circle.index(id) + 1]][:12])}"
            found.append(Finding("referral circle", id, what, file=mall.files["members"], line=mall.members[id].line))
            del kept[id]
    return kept, found


def _circles(above: dict[str, str]) -> list[list[str]]:
    """Every circle, each from the member that comes first in the table."""
    order = {id: place for place, id in enumerate(above)}
    walked: set[str] = set()
    found = []
    for start in above:
        way: dict[str, int] = {}
        at = start
        while at in above and at not in walked and at not in way:
            way[at] = len(way)
            at = above[at]
        if at in way:
            circle = list(way)[way[at] :]
            first = circle.index(min(circle, key=order.__getitem__))
            found.append(circle[first:] + circle[:first])
        walked.update(way)
    return found


def frozen_figure(mall: Mall, member: Member, rows_minor: int) -> int:
    """What the mall shows as frozen: its column; without one, what is frozen by the rows, and no more than the balance it is part of."""
    if member.frozen_minor is not None:
        return member.frozen_minor
    return min(rows_minor, max(member.balance_minor, 0)) if mall.frozen_within else rows_minor


def audit(mall: Mall) -> list[Check]:
    """All checks, in the order of the report."""
    by_member: dict[str, list[Entry]] = defaultdict(list)
    for entry in mall.entries:
        by_member[entry.member].append(entry)
    found: list[Finding] = [*referrers(mall)[1]]
    sums: dict[str, list[int]] = {name: [0, 0] for name in TOTALS}
    for add in (_figures(mall, by_member, sums), _running(mall, by_member), _orders(mall), _strangers(mall)):
        found.extend(add)
    found += [
        Finding("repeated rows", id, "a row that is there twice, alike; counted once", file=file, line=line)
        for file, line, id in mall.repeated
    ]
    checks = []
    for name, about in ABOUT.items():
        mine = [finding for finding in found if finding.check == name]
        own, rows = sums.get(name) or (_total(f.own_minor for f in mine), _total(f.rows_minor for f in mine))
        checks.append(Check(name, about, mine, own, rows))
    return checks


def _total(amounts: Iterable[int | None]) -> int | None:
    told = [amount for amount in amounts if amount is not None]
    return sum(told) if told else None


def _figures(mall: Mall, by_member: dict[str, list[Entry]], sums: dict[str, list[int]]) -> Iterator[Finding]:
    """The columns of the member table and the withdrawal table, against the rows."""
    told: dict[str, int] = defaultdict(int)
    for withdrawal in mall.withdrawals:
        if withdrawal.state != "refused":
            told[withdrawal.member] += withdrawal.amount_minor
        if withdrawal.state == "open":
            what = f"asked for at {to_text(withdrawal.at_us)}"
            amount = withdrawal.amount_minor
            yield Finding("open withdrawals", withdrawal.member, what, amount, None, mall.files["withdrawals"], withdrawal.line)
    for member in mall.members.values():
        table = member.file or mall.files["members"]
        entries = by_member.get(member.id, [])
        balance = sum(entry.amount_minor for entry in entries if entry.counts)
        frozen = sum(entry.amount_minor for entry in entries if entry.due_us is not None)
        shown = frozen_figure(mall, member, frozen)
        withdrawn = -sum(entry.amount_minor for entry in entries if entry.counts and entry.withdraws)
        for name, own, rows in (
            ("balance", member.balance_minor, balance),
            ("frozen", shown, frozen),
            ("withdrawals", told.get(member.id, 0), withdrawn),
        ):
            sums[name][0] += own
            sums[name][1] += rows
            if own != rows:
                yield Finding(name, member.id, NOT_EQUAL[name], own, rows, table, member.line)
        if member.balance_minor < 0:
            yield Finding("negative balance", member.id, "the balance is below zero", member.balance_minor, balance, table, member.line)
        if (member.frozen_minor or 0) < 0:
            yield Finding("negative balance", member.id, "the frozen figure is below zero", member.frozen_minor, frozen, table, member.line)


NOT_EQUAL = {
    "balance": "the balance column is not what the rows add up to",
    "frozen": "what is frozen is not what the rows add up to",
    "withdrawals": "the withdrawal table is not what the commission rows tell",
}


def _running(mall: Mall, by_member: dict[str, list[Entry]]) -> Iterator[Finding]:
    """The balance each row shows. A break is told once, where it is: from there on the shown figure is taken for right."""
    for id, entries in by_member.items():
        yield from _after(mall, id, entries) if mall.shows_after else _before(mall, id, entries)


def _after(mall: Mall, id: str, entries: list[Entry]) -> Iterator[Finding]:
    running = 0
    moved = [(at_us, entry, amount) for entry in entries for at_us, amount in entry.moves]
    for _, entry, amount in sorted(moved, key=lambda one: one[0]):  # stable: rows of one second in the order of their numbers
        running += amount
        if entry.shown_minor is not None and entry.shown_minor != running:
            yield _break(mall, id, entry, "after", running)
            running = entry.shown_minor


def _before(mall: Mall, id: str, entries: list[Entry]) -> Iterator[Finding]:
    moves = sorted(((at_us, amount, entry) for entry in entries for at_us, amount in entry.moves), key=lambda one: one[0])
    running = shift = place = 0
    for entry in sorted(entries, key=lambda one: one.at_us):
        while place < len(moves) and moves[place][0] < entry.at_us:
            running += moves[place][1]
            place += 1
        # The times are whole seconds: what else moved in this one may have come before the row or after it.
        possible = [running + shift]
        for at_us, amount, other in moves[place:]:
            if at_us > entry.at_us:
                break
            if other is not entry:
                possible.append(possible[-1] + amount)
        if entry.shown_minor is not None and entry.shown_minor not in possible:
            yield _break(mall, id, entry, "before", possible[0])
            shift += entry.shown_minor - possible[0]


def _break(mall: Mall, id: str, entry: Entry, when: str, expected: int) -> Finding:
    what = f"the balance shown {when} the row of {to_text(entry.at_us)} does not follow from the rows before it"
    return Finding("running balance", id, what, entry.shown_minor, expected, mall.files["entries"], entry.line)


def _orders(mall: Mall) -> Iterator[Finding]:
    """Commission against the orders it comes from."""
    file = mall.files["entries"]
    left: dict[tuple[str, str], int] = defaultdict(int)
    given: dict[tuple[str, str], int] = defaultdict(int)
    once: dict[tuple[str, ...], Entry] = {}
    lines: dict[tuple[str, str], int] = {}
    for entry in mall.entries:
        if entry.unbooked and entry.amount_minor:
            what = f"order {entry.order} is paid and not received yet"
            yield Finding("not booked yet", entry.member, what, None, entry.amount_minor, file, entry.line)
        if entry.order is None:
            continue
        live = entry.counts or entry.due_us is not None or entry.unbooked
        if entry.order not in mall.orders:
            if live:
                yield Finding("unknown order", entry.member, f"there is no order {entry.order}", None, entry.amount_minor, file, entry.line)
            continue
        if live:
            key = (entry.order, entry.member)
            left[key] += entry.amount_minor
            given[key] += max(entry.amount_minor, 0)
            lines.setdefault(key, entry.line)
        if entry.once is not None:
            earlier = once.setdefault(entry.once, entry)
            if earlier is not entry:
                what = f"order {entry.order}: lines {earlier.line} and {entry.line}"
                yield Finding(
                    "paid twice", entry.member, what, earlier.amount_minor, earlier.amount_minor + entry.amount_minor, file, entry.line
                )
    for id, order in mall.orders.items():
        for member, amount in order.elsewhere.items():
            if order.refunded:
                left[id, member] += amount
                given[id, member] += amount
        for member, amount in order.expected.items():
            what = f"order {id} is paid and not received yet"
            yield Finding("not booked yet", member, what, None, amount, mall.files["orders"], order.line)
    for (id, member), amount in left.items():
        if mall.orders[id].refunded and amount:
            what = f"order {id} is refunded, {'nothing' if amount == given[id, member] else 'not all'} of its commission was taken back"
            yield Finding("refund not reversed", member, what, 0, amount, file, lines.get((id, member), 0))


def _strangers(mall: Mall) -> Iterator[Finding]:
    """Rows of nobody in the member table: they go nowhere."""
    for entry in mall.entries:
        if entry.member not in mall.members and entry.amount_minor:
            what = "a commission row of nobody in the member table"
            yield Finding("unknown member", entry.member, what, None, entry.amount_minor, mall.files["entries"], entry.line)
    for withdrawal in mall.withdrawals:
        if withdrawal.member not in mall.members:
            what = "a withdrawal of nobody in the member table"
            yield Finding(
                "unknown member", withdrawal.member, what, None, withdrawal.amount_minor, mall.files["withdrawals"], withdrawal.line
            )
    for buyer in mall.paid_us:
        if buyer not in mall.members:
            yield Finding("unknown member", buyer, "has paid orders and is not in the member table")
