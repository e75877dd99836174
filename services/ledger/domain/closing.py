"""Closing a period, once, from the log as it stands; and correcting a closed one when a refund comes late. Rules: pool, volume, rank."""

from collections.abc import Mapping

from services.kernel.decider import Answer, Draft, Repeated
from services.kernel.refusals import NoPlanInForce, PeriodNotOver, PeriodUnknown
from services.kernel.times import to_text
from services.ledger.domain import counting, periods
from services.ledger.domain.books import Ahead, Books, figures_of
from services.ledger.domain.commands import ClosePeriod
from services.ledger.domain.corrections import booked
from services.ledger.domain.facts import PeriodClosedDecision, PeriodFigures, PeriodPerson
from services.ledger.domain.periods import Period
from services.ledger.domain.plan import Plan, PlanVersion
from services.ledger.domain.rules import PeriodPool, Rule, Volume

NOT_IN_FORCE = "no plan with rules by period was in force in it"


def close(books: Books, command: ClosePeriod) -> Answer:
    """What every rule by period gives. Asked again, whenever that is, the first answer stands."""
    period_id = command.fact.period_id
    stream = f"period/{period_id}"
    closed = books.stream(stream)
    if closed:
        return Repeated(closed[0])
    version, period = governing(books, period_id, command.occurred_us)
    plan = version.plan
    own = _own(books, plan, period_id)
    if not any(own.values()) and version.effective_from_us < period.starts_us and books.plan_in_force(period.starts_us) is not version:
        # Another version had taken its place, and nobody lost anything by that.
        raise PeriodUnknown(period_id, NOT_IN_FORCE)
    if command.occurred_us < period.ends_us:
        raise PeriodNotOver(period_id, to_text(period.ends_us), to_text(command.occurred_us))
    held = {index: _holders(books, rule, period) for index, rule in plan.period_rules if isinstance(rule, PeriodPool)}
    people = _people(books, plan, own, held, period)
    numbers = {person.member_id: number for number, person in enumerate(people, 1)}
    volumes = _numbered(own, numbers)
    holders = _numbered(held, numbers)
    shares = periods.compute(plan, people, figures_of(volumes), figures_of(holders))
    postings, due = booked(Ahead(books), plan, people, {(s.payee, s.rule_index): s.amount_minor for s in shares}, command.occurred_us, None)
    decision = PeriodClosedDecision(
        books.engine_version, version.position, period.starts_us, period.ends_us, people, volumes, holders, tuple(shares), due, postings
    )
    return [Draft(stream, command.fact, decision, command.occurred_us)]


def governing(books: Books, period_id: str, at_us: int) -> tuple[PlanVersion, Period]:
    """The plan version whose rules count for a period: in force when it began, else the first with such rules that came into force in it,
    else the one that would have been in force when it began, had no other taken its place: what was counted under it is still owed, as
    where a version published later begins before the period. That one counts only if something was.

    Raises PeriodUnknown, NoPlanInForce.
    """
    if not books.plans:
        raise NoPlanInForce(to_text(at_us))
    # Versions may name their periods otherwise, and begin their days elsewhere.
    able = [(v, period) for v in books.plans if v.plan.period_rules and (period := periods.named(v.plan, period_id))]
    for version, period in reversed(able):
        if books.plan_in_force(period.starts_us) is version:
            return version, period
    # One that came into force as the period began may have been replaced since, from that same time on.
    in_it = [(v, period) for v, period in able if period.starts_us <= v.effective_from_us < period.ends_us]
    if in_it:
        return min(in_it, key=lambda one: (one[0].effective_from_us, -one[0].position))
    replaced = [(v, period) for v, period in able if v.effective_from_us < period.starts_us]
    if replaced:
        return max(replaced, key=lambda one: (one[0].in_force(one[1].starts_us), one[0].position))
    by_period = [version.plan for version in books.plans if version.plan.period_rules]
    if able or not by_period:
        raise PeriodUnknown(period_id, NOT_IN_FORCE)
    raise PeriodUnknown(period_id, f"expected {periods.expected(by_period[-1])}")


def rule_counters(plan: Plan) -> list[str]:
    """The counters that closing a period of a plan looks at."""
    return [counting.volume_counter(rule.id) for _, rule in plan.period_rules]


def _own(books: Books, plan: Plan, period_id: str) -> dict[int, dict[str, int]]:
    """{rule index: {member: what was counted}}"""
    rules = {counting.volume_counter(rule.id): index for index, rule in plan.period_rules}
    found: dict[int, dict[str, int]] = {index: {} for index in rules.values()}
    for (counter, bucket, member_id), amount in books.counters.items():
        if bucket == period_id and counter in rules and amount:
            found[rules[counter]][member_id] = amount
    return found


def _holders(books: Books, rule: PeriodPool, period: Period) -> dict[str, int]:
    """{member: weight} of those who share a pool."""
    if rule.role:
        found: dict[str, int] = {}
        for grant in books.holders(rule.role, "", period.ends_us - 1):
            found[grant.member_id] = found.get(grant.member_id, 0) + grant.weight
        return found
    return {
        member_id: 1
        for member_id, member in books.members.items()
        if member is not None and books.tier_at(member_id, member, period.ends_us - 1)[0] in rule.tiers
    }


def _people(
    books: Books, plan: Plan, own: Mapping[int, Mapping[str, int]], held: Mapping[int, Mapping[str, int]], period: Period
) -> tuple[PeriodPerson, ...]:
    """Everybody the rules look at, by member id: who counted something, who shares a pool, and where volumes go up the tree all above."""
    climbing = any(climbs(rule) for _, rule in plan.period_rules)
    members = {member_id for figures in (*own.values(), *held.values()) for member_id in figures}
    parents: dict[str, str] = {}
    waiting = list(members) if climbing else []
    while waiting:
        member_id = waiting.pop()
        member = books.member(member_id)
        assert member is not None, "only enrolled members count"
        if member.locked and member.referrer_id:
            parents[member_id] = member.referrer_id
            if member.referrer_id not in members:
                members.add(member.referrer_id)
                waiting.append(member.referrer_id)
    ordered = sorted(members)
    numbers = {member_id: number for number, member_id in enumerate(ordered, 1)}
    people = []
    for member_id in ordered:
        member = books.member(member_id)
        assert member is not None, "only enrolled members count"
        tier, _ = books.tier_at(member_id, member, period.ends_us - 1)
        people.append(PeriodPerson(member_id, tier, numbers[parents[member_id]] if member_id in parents else 0))
    return tuple(people)


def climbs(rule: Rule) -> bool:
    """Whether a rule looks at what stands below somebody."""
    return isinstance(rule, Volume) or getattr(rule, "board", "") in ("direct", "team") or getattr(rule, "volume", "") == "team"


def _numbered(figures: Mapping[int, Mapping[str, int]], numbers: Mapping[str, int]) -> tuple[PeriodFigures, ...]:
    return tuple(
        PeriodFigures(index, tuple(sorted((numbers[member_id], figure) for member_id, figure in by_member.items())))
        for index, by_member in figures.items()
        if by_member
    )
