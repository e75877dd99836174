"""What a period gives, as postings; and what a closed one gives less when a refund comes late. Rules: a correction entry."""

from collections.abc import Iterable, Mapping

from services.kernel.times import DAY_US
from services.ledger.domain import counting, periods
from services.ledger.domain.books import Ahead, ClosedPeriod, claw_back, settle
from services.ledger.domain.engine import TOLD_APART
from services.ledger.domain.facts import (
    Account,
    Count,
    DueChange,
    PeriodCorrected,
    PeriodCorrectedDecision,
    PeriodFigures,
    PeriodPerson,
    Posting,
    Share,
)
from services.ledger.domain.plan import Plan

# {(payee, rule index): change}
Changes = Mapping[tuple[int, int], int]


def correct(ahead: Ahead, fact: PeriodCorrected, counts: Iterable[Count]) -> tuple[PeriodCorrected, PeriodCorrectedDecision] | None:
    """What a closed period gives without what these counts take out of it; None where they move no figure of its rules."""
    books = ahead.books
    period = ahead.period(fact.period_id)
    assert period is not None, "an order's period that is closed has a stream"
    decided = period.decision
    plan = books.plan_at(decided.plan_position).plan
    rules = {counting.volume_counter(rule.id): index for index, rule in plan.period_rules}
    numbers = {person.member_id: number for number, person in enumerate(decided.people, 1)}
    taken: dict[int, dict[int, int]] = {}
    for counter, _, member_id, amount in counts:
        if counter in rules and member_id in numbers:
            by_person = taken.setdefault(rules[counter], {})
            by_person[numbers[member_id]] = by_person.get(numbers[member_id], 0) + amount
    if not taken:
        return None
    for index, by_person in taken.items():
        volumes = period.volumes.setdefault(index, {})
        for number, amount in by_person.items():
            volumes[number] = volumes.get(number, 0) + amount
    now = {(s.payee, s.rule_index): s.amount_minor for s in periods.compute(plan, decided.people, period.volumes, period.holders)}
    keys = sorted(set(now) | set(period.shares), key=lambda key: (key[1], key[0] == 0, key[0]))
    changes = {key: now.get(key, 0) - period.shares.get(key, 0) for key in keys}
    changes = {key: change for key, change in changes.items() if change}
    postings, due = booked(ahead, plan, decided.people, changes, period.closed.occurred_us, period)
    for key, change in changes.items():
        period.shares[key] = period.shares.get(key, 0) + change
    for member_id, due_us, amount, asset in due:
        period.due[(member_id, due_us, asset)] = period.due.get((member_id, due_us, asset), 0) + amount
    volumes_changed = tuple(PeriodFigures(index, tuple(sorted(by_person.items()))) for index, by_person in taken.items())
    shares = tuple(Share(rule_index, payee, amount) for (payee, rule_index), amount in changes.items())
    return fact, PeriodCorrectedDecision(volumes_changed, shares, due, postings)


def booked(
    ahead: Ahead, plan: Plan, people: tuple[PeriodPerson, ...], changes: Changes, closed_us: int, period: ClosedPeriod | None
) -> tuple[tuple[Posting, ...], tuple[DueChange, ...]]:
    """Postings and due amounts of what is earned by a period, or of the change of that."""
    postings: dict[str, dict[tuple[Account, str], int]] = {}
    due: dict[tuple[str, int, str], int] = {}
    apart = period is not None and period.decision.engine_version >= TOLD_APART
    waiting = {} if period is None else _waiting(plan, people, closed_us, period)
    for (payee, rule_index), amount in changes.items():
        rule = plan.rules[rule_index]
        moved = postings.setdefault(rule.asset, {(Account.COMMISSION, ""): 0})
        moved[(Account.COMMISSION, "")] -= amount
        if not payee:
            moved[(Account.BREAKAGE, "")] = moved.get((Account.BREAKAGE, ""), 0) + amount
            continue
        member_id = people[payee - 1].member_id
        key = (member_id, closed_us + rule.release.days * DAY_US, rule.asset)
        at_once, released = rule.release.on == "at_once", period is not None and key in period.released
        mine = (key, apart and at_once and not released)
        if apart:
            # Of what was paid at once, or released, waits only what a hold stopped.
            waits = waiting.get(mine, 0) > 0 or not (at_once or released)
        else:
            waits = not released and (not at_once or (period is not None and key in period.due))
        # A hold stops what would come to a member, never what is taken back.
        held = amount > 0 and ahead.books.is_held(member_id)
        if held or waits:
            here = max(amount, -waiting.get(mine, 0))
            waiting[mine] = waiting.get(mine, 0) + here
            moved[(Account.PENDING, member_id)] = moved.get((Account.PENDING, member_id), 0) + here
            due[key] = due.get(key, 0) + here
            amount -= here
            if not amount:
                continue
        balance = ahead.balance(member_id, rule.asset)
        for account, part in settle(balance, amount) if amount > 0 else claw_back(balance, -amount):
            moved[(account, member_id)] = moved.get((account, member_id), 0) + part
            ahead.moves(member_id, rule.asset, account, part)
    found = [
        Posting(account, member_id, amount, asset or plan.currency)
        for asset, moved in postings.items()
        for (account, member_id), amount in moved.items()
        if amount
    ]
    return tuple(found), tuple(DueChange(member_id, due_us, amount, asset) for (member_id, due_us, asset), amount in due.items() if amount)


# (member, due time, asset), and whether it is what a hold stopped of what is paid at once.
Waiting = tuple[tuple[str, int, str], bool]


def _waiting(plan: Plan, people: tuple[PeriodPerson, ...], closed_us: int, period: ClosedPeriod) -> dict[Waiting, int]:
    """What is due of a closed period. A hold stopped all that is due at the closing but what other rules gave; before TOLD_APART nothing is
    told apart."""
    found = {(key, False): amount for key, amount in period.due.items()}
    if period.decision.engine_version < TOLD_APART or not plan.pays_at_once:
        return found
    stopped = {key: amount for key, amount in period.due.items() if key[1] == closed_us and key not in period.released}
    for (payee, rule_index), amount in period.shares.items():
        rule = plan.rules[rule_index]
        if payee and rule.release.on != "at_once" and not rule.release.days:
            key = (people[payee - 1].member_id, closed_us, rule.asset)
            if key in stopped:
                stopped[key] -= amount
    for key, amount in stopped.items():
        found[(key, True)] = max(0, amount)
        found[(key, False)] -= max(0, amount)
    return found
