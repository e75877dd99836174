"""A plan in sentences, rule by rule, for those who run the shop: who earns what, of what, up to how much, and from when."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from services.ledger.domain.facts import LineKind
from services.ledger.domain.plan import US_PER_MINUTE, Plan
from services.ledger.domain.rules import (
    PERIOD_RULES,
    Amount,
    Attributed,
    Condition,
    Counted,
    Differential,
    GroupFormed,
    LinePool,
    Peer,
    PeriodPool,
    Promotion,
    Rank,
    Rule,
    Seat,
    Triggered,
    Volume,
    When,
)
from services.runtime.currency import to_major

WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
KINDS = {LineKind.GOODS: "goods", LineKind.GIFT_PACK: "gift packs", LineKind.FEE: "fees"}
BOARDS = {
    "invites": "newcomers who were bound to them by a first order",
    "own": "what they bought themselves",
    "direct": "what the people they brought bought",
    "team": "what they and everybody below them bought",
}


def tell(plan: Plan) -> list[str]:
    """The whole plan: first what holds for all rules, then a text for each rule, override and promotion, which begins with its name."""
    return [
        *_frame(plan),
        *(f"Rule {rule.id}: {_rule(plan, rule)}" for rule in plan.rules),
        *(_override(plan, number) for number in range(len(plan.overrides))),
        *_tiers(plan),
    ]


# ---------------------------------------------------------------- what holds for all rules


def _frame(plan: Plan) -> Iterable[str]:
    begins = "from the time of publishing" if plan.effective_from_us is None else f"from {_time(plan, plan.effective_from_us)}"
    ends = "" if plan.effective_until_us is None else f" and before {_time(plan, plan.effective_until_us)}"
    yield f"Plan {plan.plan_id}, version {plan.version}: for orders paid {begins}{ends}, in {plan.currency}."
    law = {
        None: "It names no profile: the linter only advises.",
        "none": "Its profile is none: only its arithmetic is checked, no law.",
    }
    yield law.get(plan.profile, f"It is checked against the profile {plan.profile}.")
    yield from (f"Waived, {rule}: {reason}" for rule, reason in plan.waivers.items())
    if plan.tiers:
        yield f"Tiers, lowest first: {', '.join(plan.tiers)}."
    to_whom = {
        "last": "to the last link or code they followed before",
        "first": "to the first link or code they ever followed",
        "order": "to the code on that order, or else to the last link or code they followed before",
    }
    yield f"A buyer is bound for life by their first paid order or first upgrade, {to_whom[plan.touch]}."
    if plan.on_full_refund == "release":
        yield "If the order that bound them is refunded in full, they are free again."
    else:
        yield "No refund undoes that."
    yield (
        "Percentages are of the amount of each order line that is not refunded, and a refund takes back from everybody what it no longer"
        " gives. Fees earn nothing unless a rule says so. What nobody qualifies for stays with the company."
    )
    if plan.points:
        yield f"Points ({', '.join(plan.points)}) are never paid out in money."


# ---------------------------------------------------------------- rules


def _rule(plan: Plan, rule: Rule) -> str:
    told = [f"{_who(plan, rule)}."]
    if not (isinstance(rule, Triggered) and rule.on == "task"):
        told += _conditions(plan, rule.when)
    limits = []
    if rule.cap_order_minor is not None:
        limits.append(f"{_money(plan, rule.cap_order_minor, rule.asset)} from one order")
    if rule.cap_period_minor is not None:
        limits.append(f"{_money(plan, rule.cap_period_minor, rule.asset)} in one {plan.period}")
    if limits:
        told.append(f"Nobody earns more by it than {' and '.join(limits)}.")
    told.append(_release(plan, rule))
    return " ".join(told)


def _who(plan: Plan, rule: Rule) -> str:
    match rule:
        case Seat(level=0):
            return f"The buyer earns {_amount(plan, rule, rule.amount)}"
        case Seat():
            earns = f"earns {_amount(plan, rule, rule.amount)}"
            if rule.skip_unqualified:
                which = "first" if rule.level == 1 else _ordinal(rule.level)
                return (
                    f"Of the people above the buyer whose tier has an amount, the {which} {earns}. Others are passed over, up to"
                    f" {_levels(rule.depth)} above the buyer"
                )
            return f"{_level(rule.level)} {earns}"
        case Differential():
            buyer = {
                "out": "The buyer's own tier does not count",
                "earns": "The buyer is the first on the way",
                "deducts": "The buyer's own tier counts as earned below, and is not paid",
            }[rule.buyer]
            return (
                f"Going up from the buyer, {_levels(rule.depth)} at most, everybody earns the amount of their tier less the highest"
                f" amount met below them: {_amount(plan, rule, rule.amount)}. {buyer}"
            )
        case Peer():
            first = "the first person of a tier above the buyer"
            if rule.of is not None:
                first = f"the first person of a tier who earns by rule {plan.rules[rule.of].id}"
            whom = "the next person" if rule.times == 1 else f"each of the next {rule.times} people"
            base = ", of what that first person earns by it" if rule.base == "income" else ""
            return (
                f"Above {first}, {whom} of the same tier earns by that tier{base}: {_amount(plan, rule, rule.amount)}."
                f" No further up than {_levels(rule.depth)} above the buyer"
            )
        case Attributed():
            told = f"Whoever the order names as {rule.role} earns {_amount(plan, rule, rule.amount)}; several share it by their weights"
            if rule.with_referrer == "exclusive":
                told += ". Where somebody does, nobody earns as the buyer's upline on that line"
            elif rule.with_referrer == "split":
                assert rule.referrer_share is not None
                told += f". Whoever brought the buyer has {rule.referrer_share.percent} of that, they the rest"
            return told
        case LinePool():
            return f"All who hold the role {rule.role} share {_amount(plan, rule, rule.amount)}, {_split(rule.split, rule.of_total)}"
        case GroupFormed():
            return f"Whoever opened the group that an order joins earns {_amount(plan, rule, rule.amount)}"
        case Triggered():
            return _triggered(plan, rule)
        case Counted():
            given = _money(plan, rule.fixed_minor, rule.asset)
            people = "one person" if rule.at == 1 else f"{rule.at} people"
            often = f", {rule.most} times at most" if rule.most is not None and rule.repeat else ""
            when = f"For every {people if rule.at > 1 else 'person'} they bring" if rule.repeat else f"Once they have brought {people}"
            return (
                f"{when} who {'have' if rule.at > 1 else 'has'} an order that counts and is not refunded, the inviter earns {given}{often}"
            )
        case PeriodPool():
            whom = f"all who hold the role {rule.role}" if rule.role else f"everybody of tier {_list(rule.tiers, 'or')}"
            if rule.split == "volume":
                how = f"by what they {'and everybody below them ' if rule.volume == 'team' else ''}bought in it"
            else:
                how = _split(rule.split, rule.of_total)
            return f"When a {plan.period} is closed, {rule.rate.percent} of everything bought in it goes to {whom}, {how}"
        case Volume():
            brackets = ", ".join(f"from {_money(plan, least, '')} {rate.percent}" for least, rate in rule.brackets)
            whom = f"everybody of tier {_list(rule.tiers, 'or')}" if rule.tiers else "everybody"
            return (
                f"When a {plan.period} is closed, what somebody and everybody below them bought in it gives their rate: {brackets}. By it"
                f" {whom} earns on what they bought themselves, and, on what each person they brought and that person's people bought, the"
                " difference between their rate and that person's"
            )
        case Rank():
            prizes = ", ".join(f"{_money(plan, prize, rule.asset)} for place {place}" for place, prize in enumerate(rule.places_minor, 1))
            least = str(rule.at_least) if rule.board == "invites" else _money(plan, rule.at_least, "")
            return (
                f"When a {plan.period} is closed, people are ranked by {BOARDS[rule.board]}: {prizes}. Who has less than {least} is not"
                " ranked, and those who tie share their places"
            )
    raise AssertionError(rule)


def _triggered(plan: Plan, rule: Triggered) -> str:
    first = "the member" if rule.on == "task" else "the buyer"
    given = [(first, rule.buyer_minor), (f"whoever brought {'them' if rule.buyer_minor else first}", rule.referrer_minor)]
    gets = " and ".join(f"{who} gets {_money(plan, minor, rule.asset)}" for who, minor in given if minor)
    match rule.on:
        case "invite":
            return f"When an order binds its buyer to somebody for life, {gets}"
        case "upgrade":
            return f"When an order raises its buyer{f' to {rule.tier}' if rule.tier else ' to a tier'}, {gets}"
    often = "" if rule.most is None else f", {_times(rule.most)} at most for each member"
    return f"For the task {rule.task}, {gets}{often}"


def _override(plan: Plan, number: int) -> str:
    override = plan.overrides[number]
    instead = "; ".join(f"{plan.rules[index].id} {_amount(plan, plan.rules[index], amount)}" for index, amount in override.amounts.items())
    told = f"Instead, by these amounts: {instead}."
    return f"Exception {number + 1}: " + " ".join([told, *(_conditions(plan, override.when) or ["Always."])])


# ---------------------------------------------------------------- parts of a rule


def _amount(plan: Plan, rule: Rule, amount: Amount) -> str:
    """ "10%", or "manager 5%, director 6%, others nothing"."""
    if not amount.tiers:
        return _value(plan, rule, amount, "")
    named = [f"{tier} {_value(plan, rule, amount, tier)}" for tier in plan.tiers if tier in amount.tiers]
    return ", ".join([*named, f"others {_value(plan, rule, amount, '')}"])


def _value(plan: Plan, rule: Rule, amount: Amount, tier: str) -> str:
    fixed: int | None = amount.fixed
    if tier in amount.fixed_by_tier:
        fixed = amount.fixed_by_tier[tier]
    if fixed is not None:
        per = {"unit": "for each unit", "order": "once an order", "group": "once a group"}[amount.per]
        return f"{_money(plan, fixed, rule.asset)} {per}" if fixed else "nothing"
    rate = amount.rate_of(tier)
    if rate is None or not rate.numerator:
        return "nothing"
    return rate.percent + (f" in {rule.asset}" if rule.asset else "")


def _conditions(plan: Plan, when: When) -> list[str]:
    told = []
    if when.kinds != frozenset((LineKind.GOODS, LineKind.GIFT_PACK)):
        told.append(f"for {_list([name for kind, name in KINDS.items() if kind in when.kinds], 'and')}")
    places = (("product", when.skus), ("category", when.categories), ("store", when.stores), ("region", when.regions))
    told += [f"for {what} {_list(sorted(names), 'or')}" for what, names in places if names]
    if when.from_us is not None:
        told.append(f"paid from {_time(plan, when.from_us)}")
    if when.until_us is not None:
        told.append(f"paid before {_time(plan, when.until_us)}")
    if when.weekdays:
        told.append(f"on {_list([WEEKDAYS[day] for day in sorted(when.weekdays)], 'and')}")
    if when.days:
        told.append(f"on the {_list([_ordinal(day) for day in sorted(when.days)], 'and')} of a month")
    if when.min_order_minor:
        told.append(f"in orders of {_money(plan, when.min_order_minor, '')} or more")
    return [f"Only {', '.join(told)}."] if told else []


def _release(plan: Plan, rule: Rule) -> str:
    on, days = rule.release
    after = f"{days} {'day' if days == 1 else 'days'} after" if days else "on"
    if on == "at_once":
        return "It is available at once."
    if isinstance(rule, PERIOD_RULES):
        return f"It is available {after} the closing of the {plan.period}."
    if isinstance(rule, Triggered) and rule.on == "task":
        return f"It is available {after} the day the task was done." if days else "It is available when the task is done."
    if on == "group_formed":
        return f"It is available {after} the forming of the group, or, without a group, {after} completion of the order."
    if on == "period_close":
        return f"It is available {after if days else 'at'} the end of the {plan.period} in which the order is completed."
    return f"It is available {after} completion of the order."


def _split(split: str, of_total: int | None) -> str:
    if split == "seats":
        return "equally" if of_total is None else f"each one of {of_total} equal parts"
    return "by their weights" if of_total is None else f"by their weights out of {of_total}"


# ---------------------------------------------------------------- tiers


def _tiers(plan: Plan) -> Iterable[str]:
    for promotion in plan.promotions:
        yield f"Tier {promotion.tier}: {_promotion(plan, promotion)}"
    if plan.granted:
        yield f"Given by hand only: {', '.join(plan.granted)}."
    for tier, quota in plan.seats.items():
        yield f"No more than {quota} seats of {tier} granted by hand at a time."
    if plan.promotions:
        then = {
            "keep": "keeps the tier.",
            "demote": "goes back to the tier before.",
            "freeze": "keeps the title and earns nothing by it until they rise again.",
        }[plan.on_evidence_refunded]
        yield f"When all of an order is refunded, whoever rose by it {then}"


def _promotion(plan: Plan, promotion: Promotion) -> str:
    conditions = [_condition(plan, one) for one in promotion.conditions]
    return f"reached with {(' and ' if promotion.every else ', or ').join(conditions)}."


def _condition(plan: Plan, one: Condition) -> str:
    days = f" within {one.days} days" if one.days else ""
    match one.metric:
        case "orders":
            return f"{_count(one.at_least, 'order')} of one's own{days}"
        case "own_volume":
            return f"own purchases of {_money(plan, one.at_least, '')}{days}"
        case "team_volume":
            return f"purchases of {_money(plan, one.at_least, '')}{days} by oneself and those up to {_levels(one.depth)} below"
        case "qualified_directs":
            return f"{_count(one.at_least, 'person', 'people')} brought who ordered"
        case "gift_packs":
            return _count(one.at_least, "order") + " of a gift pack"


# ---------------------------------------------------------------- words


def _money(plan: Plan, minor: int, asset: str) -> str:
    if asset:
        return f"{minor:,} {asset}"
    return f"{to_major(minor, plan.currency)} {plan.currency}"


def _level(level: int) -> str:
    return {1: "Whoever brought the buyer", 2: "Whoever brought the one who brought the buyer"}.get(
        level, f"The person {level} levels above the buyer"
    )


def _levels(depth: int) -> str:
    return "one level" if depth == 1 else f"{depth} levels"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _count(number: int, one: str, more: str = "") -> str:
    return f"one {one}" if number == 1 else f"{number} {more or one + 's'}"


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _list(names: Sequence[str], last: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _time(plan: Plan, us: int) -> str:
    """In the plan's zone: 2026-01-01 00:00 (+08:00)."""
    sign, minutes = "-" if plan.zone_us < 0 else "+", abs(plan.zone_us) // US_PER_MINUTE
    there = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us + plan.zone_us)
    zone = f"{sign}{minutes // 60:02}:{minutes % 60:02}" if plan.zone_us else "UTC"
    return f"{there:%Y-%m-%d %H:%M} ({zone})"
