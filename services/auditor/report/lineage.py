"""The referral tree as columns: everybody before those below them, larger subtrees first; how many people and levels; heads."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.auditor.report.folding import Members

# 关于办理组织领导传销活动刑事案件适用法律若干问题的意见 (公通字〔2013〕37号), by the Supreme Court, Supreme Procuratorate and Ministry of
# Public Security. Art. 1: thirty people or more and three levels or more; art. 7: the head and their own level are counted, and "or more"
# includes the number itself.
HEAD_PEOPLE, HEAD_LEVELS = 30, 3


@dataclass(frozen=True, slots=True)
class Tree:
    """By place, from 0. `members` gives the member's number; `parent` a place, -1 at the top; `people` and `levels` count oneself.

    `circles`: members whose referrers form a circle, cut open to draw them. A log that holds has none.
    """

    members: Sequence[int]
    parent: Sequence[int]
    people: Sequence[int]
    levels: Sequence[int]
    below_minor: Sequence[int]
    circles: int


def grow(members: Members) -> Tree:
    """The tree of current referrers, locked or not; `below_minor` is the volume of everybody below, without one's own."""
    count = len(members.ids)
    parent, circles = _cut(members.referrer)
    waiting = [0] * count
    for above in parent:
        if above >= 0:
            waiting[above] += 1
    people, levels, below = [1] * count, [1] * count, [0] * count
    children: list[list[int]] = [[] for _ in range(count)]
    # From the leaves up: whoever waits for nobody any more is done.
    ready = [number for number in range(count) if not waiting[number]]
    for number in ready:
        above = parent[number]
        if above >= 0:
            people[above] += people[number]
            levels[above] = max(levels[above], levels[number] + 1)
            below[above] += below[number] + members.own[number]
            children[above].append(number)
            waiting[above] -= 1
            if not waiting[above]:
                ready.append(above)

    def rank(number: int) -> tuple[int, str]:
        return (people[number], members.ids[number])

    order: list[int] = []
    # Popped from the end: the largest last.
    stack = sorted((number for number in range(count) if parent[number] < 0), key=rank)
    while stack:
        number = stack.pop()
        order.append(number)
        stack += sorted(children[number], key=rank)
        children[number] = []
    place = [0] * count
    for index, number in enumerate(order):
        place[number] = index
    return Tree(
        order,
        [place[parent[number]] if parent[number] >= 0 else -1 for number in order],
        [people[number] for number in order],
        [levels[number] for number in order],
        [below[number] for number in order],
        circles,
    )


def _cut(referrer: Sequence[int]) -> tuple[list[int], int]:
    """Referrers without circles, and how many members stood in one."""
    parent = list(referrer)
    # 0 not seen, otherwise the walk that saw it.
    seen = [0] * len(parent)
    circles = 0
    for start in range(len(parent)):
        number = start
        while number >= 0 and not seen[number]:
            seen[number] = start + 1
            number = parent[number]
        if number >= 0 and seen[number] == start + 1:
            circles += 1
            at = parent[number]
            while at != number:
                circles, at = circles + 1, parent[at]
            parent[number] = -1
    return parent, circles


def heads(tree: Tree) -> list[int]:
    """Places of everybody with thirty people or more in three levels or more, counting themselves; the most people first."""
    found = [
        place
        for place, (people, levels) in enumerate(zip(tree.people, tree.levels, strict=True))
        if people >= HEAD_PEOPLE and levels >= HEAD_LEVELS
    ]
    return sorted(found, key=lambda place: (-tree.people[place], place))
