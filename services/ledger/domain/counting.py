"""Counters: what promotions, caps, counted rules and periods look at, kept with the orders that move them. docs/counters.md names them.

An order moves counters when it is recorded, and back as far as nothing of it remains; by the plan version it was recorded under, so that
whatever it added it also takes away.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from services.ledger.domain.engine import Remaining, Standing, lives
from services.ledger.domain.facts import Count, LineKind, OrderLine, OrderPaid
from services.ledger.domain.plan import Plan
from services.ledger.domain.rules import Condition, Counted, Promotion, Rank, When, days_before, local_day_text


class Key(NamedTuple):
    """Which counter of whom."""

    counter: str
    bucket: str
    member_id: str


class Window(NamedTuple):
    """A counter by day, over some days, both included."""

    counter: str
    member_id: str
    first_day: str
    last_day: str

    def holds(self, counter: str, bucket: str, member_id: str) -> bool:
        return (counter, member_id) == (self.counter, self.member_id) and self.first_day <= bucket <= self.last_day


class Reading(Protocol):
    """What counters stand at."""

    def counter(self, key: Key) -> int: ...

    def window(self, window: Window) -> int:
        """The sum over the days of a window."""
        ...


def volume_counter(rule_id: str) -> str:
    """Base counted for a rule by period, or invites for a rank of them; the bucket is the period."""
    return f"rule:{rule_id}"


def qualified_counter(rule_id: str) -> str:
    """Qualified invitees of an inviter, for a counted rule."""
    return f"qualified:{rule_id}"


def invitee_counter(rule_id: str) -> str:
    """Living orders of an invitee that a counted rule looks at; the bucket is the inviter."""
    return f"invitee:{rule_id}"


def cap_counter(rule_id: str) -> str:
    """Earned by a capped rule; the bucket is the period."""
    return f"cap:{rule_id}"


def task_counter(rule_id: str) -> str:
    """How often a task was paid."""
    return f"task:{rule_id}"


# Living orders of a direct; the bucket is the one they are locked to.
DIRECT_ORDERS = "direct_orders"


class Order(NamedTuple):
    """An order as far as counting looks: who stands above the buyer, nearest first, and what was frozen."""

    plan: Plan
    fact: OrderPaid
    paid_us: int
    above: Sequence[str]
    period_id: str
    # It let the lock fall to the one at level 1.
    invited: bool

    @property
    def day(self) -> str:
        return local_day_text(self.paid_us, self.plan.zone_us)

    @property
    def inviter(self) -> str:
        return self.above[0] if self.above else ""


def window(condition: Condition, member_id: str, day: str) -> Window:
    """The days that a condition by window looks at on a day."""
    return Window(condition.counter, member_id, days_before(day, condition.days), day)


def moved(order: Order, standing: Standing, before: Remaining | None, after: Remaining, read: Reading) -> list[Count]:
    """How the counters move when what remains of an order goes from `before` (None: it is recorded now) to `after`.

    Caps are counted apart, from the shares. `read` gives what counters stand at before.
    """
    plan, fact = order.plan, order.fact
    if not plan.counts:
        return []
    changes: dict[Key, int] = {}

    def add(counter: str, bucket: str, member_id: str, amount: int) -> None:
        if amount:
            key = Key(counter, bucket, member_id)
            changes[key] = changes.get(key, 0) + amount

    def turned(lines: Sequence[OrderLine]) -> int:
        """1: some of these lines live from now on, -1: none of them any more."""
        return int(_living(lines, after)) - int(_living(lines, before))

    def grown(lines: Sequence[OrderLine]) -> int:
        return _base(lines, after) - _base(lines, before)

    def meant(when: When) -> list[OrderLine]:
        return [line for line in fact.lines if standing.means(when, line)]

    buyer, day = fact.member_id, order.day
    alive, volume = turned(fact.lines), grown(fact.lines)
    for condition in plan.conditions:
        # Set, not added: two conditions may look at one counter.
        bucket = day if condition.days else ""
        match condition.metric:
            case "orders":
                changes[Key("orders", bucket, buyer)] = alive
            case "own_volume":
                changes[Key("own_volume", bucket, buyer)] = volume
            case "team_volume":
                for member_id in (buyer, *order.above[: condition.depth]):
                    changes[Key(condition.counter, bucket, member_id)] = volume
            case "gift_packs":
                changes[Key("gift_packs", bucket, buyer)] = turned([line for line in fact.lines if line.kind is LineKind.GIFT_PACK])
            case "qualified_directs":
                if order.inviter and alive:
                    pair = Key(DIRECT_ORDERS, order.inviter, buyer)
                    changes[pair] = alive
                    changes[Key("qualified_directs", "", order.inviter)] = _crossed(read.counter(pair), alive)
    for _, counted in plan.counted_rules:
        turn = turned(meant(counted.when))
        if order.inviter and turn:
            add(invitee_counter(counted.id), order.inviter, buyer, turn)
            _, change = qualified(order, standing, counted, before, after, read)
            add(qualified_counter(counted.id), "", order.inviter, change)
    # After a closed campaign an order counts in no period.
    for _, rule in plan.period_rules if order.period_id else ():
        lines = meant(rule.when)
        if isinstance(rule, Rank) and rule.board == "invites":
            if order.invited and order.inviter:
                add(volume_counter(rule.id), order.period_id, order.inviter, turned(lines))
        else:
            add(volume_counter(rule.id), order.period_id, buyer, grown(lines))
    return [Count(*key, amount) for key, amount in changes.items() if amount]


def _living(lines: Sequence[OrderLine], remaining: Remaining | None) -> bool:
    """Whether any of the lines has something left."""
    return remaining is not None and any(lives(line, *remaining[line.line_no]) for line in lines)


def _base(lines: Sequence[OrderLine], remaining: Remaining | None) -> int:
    return 0 if remaining is None else sum([remaining[line.line_no][0] for line in lines])


def qualified(
    order: Order, standing: Standing, rule: Counted, before: Remaining | None, after: Remaining, read: Reading
) -> tuple[int, int]:
    """(how many invitees of the inviter are qualified by a counted rule now, how that changes)."""
    if not order.inviter:
        return 0, 0

    lines = [line for line in order.fact.lines if standing.means(rule.when, line)]
    turn = int(_living(lines, after)) - int(_living(lines, before))
    pair = read.counter(Key(invitee_counter(rule.id), order.inviter, order.fact.member_id))
    return read.counter(Key(qualified_counter(rule.id), "", order.inviter)), _crossed(pair, turn)


def _crossed(count: int, change: int) -> int:
    """1 when a count leaves 0, -1 when it comes back to it."""
    return int(count + change > 0) - int(count > 0)


def keys(order: Order) -> Iterable[Key | Window]:
    """Every counter that `moved` and `met` look at for an order."""
    plan, buyer = order.plan, order.fact.member_id
    if order.inviter:
        for _, rule in plan.counted_rules:
            yield Key(invitee_counter(rule.id), order.inviter, buyer)
            yield Key(qualified_counter(rule.id), "", order.inviter)
    day, looked = order.day, looked_at(plan, order)
    for condition in plan.conditions:
        if condition.metric == "qualified_directs" and order.inviter:
            yield Key(DIRECT_ORDERS, order.inviter, buyer)
        for member_id in looked:
            yield window(condition, member_id, day) if condition.days else Key(condition.counter, "", member_id)


def looked_at(plan: Plan, order: Order) -> list[str]:
    """Whose promotion an order may bring about: its buyer, and those above as far as a metric reaches."""
    return [order.fact.member_id, *order.above[: plan.promotion_reach]]


def met(plan: Plan, member_id: str, tier: str, day: str, read: Reading) -> str:
    """The highest tier above a member's own whose conditions they meet; empty: none."""
    own = plan.rank_of.get(tier, -1)
    best = own
    for promotion in plan.promotions:
        rank = plan.rank_of[promotion.tier]
        if rank > best and _holds(promotion, member_id, day, read):
            best = rank
    return plan.tiers[best] if best > own else ""


def _holds(promotion: Promotion, member_id: str, day: str, read: Reading) -> bool:
    for one in promotion.conditions:
        if (_stands_at(one, member_id, day, read) >= one.at_least) is not promotion.every:
            return not promotion.every
    return promotion.every


def _stands_at(condition: Condition, member_id: str, day: str, read: Reading) -> int:
    if condition.days:
        return read.window(window(condition, member_id, day))
    return read.counter(Key(condition.counter, "", member_id))


class Moved:
    """A reading, with some counts moved."""

    def __init__(self, read: Reading, counts: Iterable[Count]) -> None:
        self._read = read
        # {(counter, member): [(bucket, amount)]}
        self._counts: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for counter, bucket, member_id, amount in counts:
            self._counts.setdefault((counter, member_id), []).append((bucket, amount))

    def counter(self, key: Key) -> int:
        counter, bucket, member_id = key
        moved = self._counts.get((counter, member_id), ())
        return self._read.counter(key) + sum([amount for at, amount in moved if at == bucket])

    def window(self, window: Window) -> int:
        counter, member_id, first_day, last_day = window
        moved = self._counts.get((counter, member_id), ())
        return self._read.window(window) + sum([amount for day, amount in moved if first_day <= day <= last_day])
