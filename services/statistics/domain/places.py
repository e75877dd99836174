"""How volume climbs: who stood above a member when an order was recorded, and what each of them gets of it.

A place is a member together with everybody above, for as long as that path stays as it is. All orders of one place have the same upline, so
they are added up first and climb together: a batch costs as many steps as there are people above its buyers, however many orders it holds,
and an upline of 10,000 is walked once for a batch and not once for an order. A binding that moves makes new places for those below it as
they buy again; earlier orders, and their later refunds, stay in the old ones.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

# (position from which it holds, referrer; empty: nobody), oldest first.
History = Sequence[tuple[int, str]]
END = 2**63
_position = itemgetter(0)


class Placement(NamedTuple):
    """Where a buyer stood at a position; their volume of a month climbs from there."""

    member_id: str
    position: int
    month: str


class _Place(NamedTuple):
    since: int
    until: int
    number: int


def referrer_at(history: History, position: int) -> tuple[str, int, int]:
    """(the one a member was locked to right after the entry at a position, first position that held from, first that it no longer held)."""
    if history and history[-1][0] <= position:
        return history[-1][1], history[-1][0], END
    after = bisect_right(history, position, key=_position)
    until = history[after][0] if after < len(history) else END
    return (history[after - 1][1], history[after - 1][0], until) if after else ("", 0, until)


def climb(histories: Mapping[str, History], placements: Mapping[Placement, int]) -> dict[tuple[str, str], int]:
    """{(member, month): what their whole downline changed by} of the amounts placed. Raises ValueError where the bindings form a circle."""
    places: dict[str, list[_Place]] = {}
    # By the number of a place: its member, the place above (-1: none), and {month: volume of the member and everybody below}.
    members: list[str] = []
    above: list[int] = []
    volumes: list[dict[str, int]] = []

    def place(member_id: str, position: int) -> int:
        latest = places.get(member_id)
        if latest and latest[-1].since <= position < latest[-1].until:
            return latest[-1].number  # as most are: they buy where they bought before
        steps: dict[str, tuple[int, int]] = {}
        current, found = member_id, None
        while current:
            known = places.get(current, [])
            at = bisect_right(known, position, key=_position)
            if at and position < known[at - 1].until:
                found = known[at - 1]
                break
            if current in steps:
                raise ValueError(f"{current} stands above themselves")
            current_id = current
            current, since, until = referrer_at(histories.get(current_id, ()), position)
            steps[current_id] = (since, until)
        for step, (since, until) in reversed(steps.items()):
            number = len(members)
            members.append(step)
            above.append(found.number if found else -1)
            volumes.append({})
            found = _Place(max(since, found.since), min(until, found.until), number) if found else _Place(since, until, number)
            known = places.setdefault(step, [])
            known.insert(bisect_right(known, found.since, key=_position), found)
        assert found is not None
        return found.number

    for (member_id, position, month), amount in placements.items():
        held = volumes[place(member_id, position)]
        held[month] = held.get(month, 0) + amount
    teams: dict[tuple[str, str], int] = {}
    # A place is made after the one above it, so from the last to the first everything below has arrived.
    for number in range(len(members) - 1, -1, -1):
        over = above[number]
        if over >= 0:
            member_id, higher = members[over], volumes[over]
            for month, amount in volumes[number].items():
                higher[month] = higher.get(month, 0) + amount
                teams[member_id, month] = teams.get((member_id, month), 0) + amount
    return teams
