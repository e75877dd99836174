"""What is wrong with a plan although it can be read: what the law of its profile forbids, and what does not add up. docs/plan-linter.md.

The linter knows a document, not a business: it finds what must not be published and what an operator ought to know. It cannot make a plan
lawful. A plan without a profile is older than the linter and is only advised: every finding is a warning then.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

from services.kernel.times import to_text
from services.ledger.domain.bounds import most, parts, pays
from services.ledger.domain.facts import LineKind
from services.ledger.domain.plan import Plan, PlanVersion
from services.ledger.domain.rules import (
    Attributed,
    Condition,
    Counted,
    Differential,
    Paying,
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

Severity = Literal["error", "warning"]

# 直销管理条例 (State Council Order 443), art. 24: pay of a direct seller counts on what they themselves sell, and is at most 30 % of it.
ART_24 = "直销管理条例 art. 24"
# 禁止传销条例 (State Council Order 444), art. 7: (1) pay by the number of people brought, directly or through others, "material rewards and
# other economic benefits" included; (2) a fee, or goods bought in place of one, for the right to join or to bring others; (3) pay to the
# upline by what its downline sells.
HEADS, ENTRY_FEE, TEAM = "禁止传销条例 art. 7 (1)", "禁止传销条例 art. 7 (2)", "禁止传销条例 art. 7 (3)"
FINED = "market regulator of Banan, Chongqing, 2022"

# Every finding by its stable name, and what it rests on. Names are never reused.
SOURCES: Mapping[str, str] = {
    "profile-missing": "",
    "depth-over-limit": f"{ART_24}; {TEAM}",
    "two-levels": FINED,
    "team-volume": TEAM,
    "promotion-by-team": TEAM,
    "reward-on-fee": ENTRY_FEE,
    "reward-on-registration": HEADS,
    "reward-on-head-count": HEADS,
    "reward-on-upgrade": ENTRY_FEE,
    "task-in-money": HEADS,
    "gift-pack-entry": ENTRY_FEE,
    "entry-by-purchase": ENTRY_FEE,
    "payout-over-limit": ART_24,
    "payout-over-base": "",
    "payout-not-bounded": ART_24,
    "tier-unreachable": "",
    "higher-tier-easier": "",
    "higher-tier-earns-less": "",
    "versions-overlap": "",
    "counted-terms-changed": "",
    "rule-never-pays": "",
    "role-misspelt": "",
    "points-unused": "",
    "waiver-unknown": "",
    "waiver-unused": "",
}
# What a recorded reason lets through.
WAIVABLE = ("gift-pack-entry",)
# How many levels above the buyer may earn.
DEEPEST_EARNING = {"cn-strict": 1, "cn-common": 2}
STRICT_LIMIT = Fraction(30, 100)
# Attributions that the contract names; plans may use others.
ROLES = ("creator", "guide", "leader", "store", "region", "source_merchant")
REGISTERING = re.compile(r"regist|sign[-_]?up|enrol|^join|注册|註冊|入会|入會|加入|开户|入驻|报名", re.IGNORECASE)
# What an order can name as a place or a member.
NAMEABLE = re.compile(r"[!-.0-~]{1,100}")


class Finding(NamedTuple):
    """`problem` says what is wrong, why, and what to change. `source` is empty where arithmetic says so."""

    severity: Severity
    rule: str
    path: str
    problem: str
    source: str


# What a check finds: (severity, name, path, problem).
Found = tuple[Severity, str, str, str]


def lint(plan: Plan, published: Sequence[PlanVersion]) -> list[Finding]:
    """Everything to be said of a plan, beside the versions published before it: errors first, each in the order of the document."""
    return together(alone(plan), beside(plan, published))


def alone(plan: Plan) -> list[Finding]:
    """What the document alone says. It may take a second or two for the longest."""
    law = _law(plan)
    found: list[Found] = []
    if plan.profile is None:
        problem = "The plan names no profile, so nothing refuses it and these are hints. Add profile: cn-strict, cn-common or none."
        found.append(("warning", "profile-missing", "profile", problem))
    if law != "none":
        found += [*_levels(plan, law), *_not_for_goods(plan), *_entry(plan)]
    found += [*_payout(plan, law), *_tiers(plan), *_idle(plan), *_roles(plan), *_waivers(plan, law)]
    return _findings(plan, found)


def beside(plan: Plan, published: Sequence[PlanVersion]) -> list[Finding]:
    """What only the versions published before say. Quick, so that it is looked at where those are known for certain: in the writer."""
    return _findings(plan, [*_counted(plan, published), *_versions(plan, published)])


def together(*found: Sequence[Finding]) -> list[Finding]:
    """Errors first."""
    return sorted((finding for some in found for finding in some), key=lambda finding: finding.severity)


def _law(plan: Plan) -> str:
    # Older documents in yuan are told what they would meet under the milder profile.
    return plan.profile or ("cn-common" if plan.currency == "CNY" else "none")


def _findings(plan: Plan, found: Iterable[Found]) -> list[Finding]:
    law = _law(plan)
    return [
        Finding("warning" if plan.profile is None else severity, rule, path, problem, "" if law == "none" else SOURCES[rule])
        for severity, rule, path, problem in found
    ]


def refusing(findings: Sequence[Finding]) -> Finding | None:
    """The finding that publishing is refused for; None: it may be published."""
    return next((finding for finding in findings if finding.severity == "error"), None)


def _at(index: int, rule: Rule) -> tuple[str, str]:
    """(path, how a sentence names the rule)."""
    return f"rules[{index}]", f"Rule {rule.id!r}"


def _percent(share: Fraction) -> str:
    """Rounded up to hundredths of a percent, so that nothing over a limit reads as if it met it."""
    hundredths = -(-share.numerator * 10_000 // share.denominator)
    return f"{hundredths // 100}.{hundredths % 100:02}".rstrip("0").rstrip(".") + "%"


# ---------------------------------------------------------------- law: who may earn


def earning_depth(rule: Rule) -> int:
    """How many levels above the buyer this rule may pay by where people stand. 0: the buyer, or people named for another reason."""
    match rule:
        case Seat():
            return rule.depth if rule.skip_unqualified else rule.level
        case Differential() | Peer():
            return rule.depth
        case Attributed():
            return 1 if rule.with_referrer == "split" else 0
        case Triggered():
            return 1 if rule.referrer_minor else 0
        case Counted():
            return 1
    return 0


def _levels(plan: Plan, law: str) -> Iterator[Found]:
    limit = DEEPEST_EARNING[law]
    two = []
    for index, rule in enumerate(plan.rules):
        path, name = _at(index, rule)
        depth = earning_depth(rule) if pays(plan, index) else 0
        if depth > limit:
            allowed = "one level" if limit == 1 else f"{limit} levels"
            remedy = f"set depth: {limit}" if not isinstance(rule, Seat) or rule.level <= limit else "take the rule out"
            if isinstance(rule, Seat) and rule.skip_unqualified and rule.level <= limit:
                remedy += " or leave out skip_unqualified"
            yield (
                "error",
                "depth-over-limit",
                path,
                f"{name} can pay somebody {depth} levels above the buyer; {law} allows {allowed}. To publish, {remedy}.",
            )
        elif depth == 2:
            two.append((path, rule.id))
        if isinstance(rule, Volume) or (isinstance(rule, PeriodPool) and rule.split == "volume" and rule.volume == "team"):
            instead = "own" if isinstance(rule, PeriodPool) else "a pool with split: volume, volume: own"
            problem = (
                f"{name} pays by what a whole team sells, at any depth; {law} does not allow that. Use {instead}, or take the rule out."
            )
            yield "error", "team-volume", path, problem
        elif isinstance(rule, Rank) and rule.board == "team":
            problem = f"{name} gives prizes by what a whole team sells, at any depth; {law} does not allow that. Use board: own or direct."
            yield "error", "team-volume", path, problem
    if two:
        names = ", ".join(rule_id for _, rule_id in two)
        problem = f"Two levels above the buyer can earn ({names}). {law} lets it through, and yet two levels have been fined as pyramid"
        problem += " selling (Banan, Chongqing, 2022): ask a lawyer, or pay one level."
        yield "warning", "two-levels", two[0][0], problem
    for number, promotion in enumerate(plan.promotions):
        reach = max((one.depth for one in promotion.conditions if one.metric == "team_volume"), default=0)
        if reach > limit:
            problem = f"People rise to {promotion.tier} by what is sold up to {reach} levels below them, deeper than the {limit} that {law}"
            yield "warning", "promotion-by-team", f"promotions[{number}]", f"{problem} lets earn. Lower depth, or count own_volume."


def _not_for_goods(plan: Plan) -> Iterator[Found]:
    """Rewards that are not for goods sold: on fees, for joining, by the head."""
    for index, rule in enumerate(plan.rules):
        path, name = _at(index, rule)
        if not pays(plan, index):
            continue
        # Points are an economic benefit too, but what they are worth the plan does not say.
        severity: Severity = "warning" if rule.asset else "error"
        what = "points" if rule.asset else "money"
        if LineKind.FEE in rule.when.kinds and not (isinstance(rule, Triggered) and rule.on == "task"):
            problem = f"{name} gives {what} for fees that are paid; a reward may only be for goods. Take fee out of when.kinds."
            yield severity, "reward-on-fee", path, problem
        match rule:
            case Triggered(on="task"):
                yield from _task(path, name, rule, severity, what)
            case Triggered(on="invite") if rule.referrer_minor:
                if rule.when.min_order_minor and not rule.asset:
                    problem = f"{name} pays a fixed sum for each newcomer who orders. It is tied to a sale of at least"
                    problem += f" {rule.when.min_order_minor} minor units and so let through; a rate on that order would be safer."
                    yield "warning", "reward-on-head-count", path, problem
                else:
                    problem = f"{name} gives {what} to whoever brings a person, however little that person buys."
                    yield severity, "reward-on-head-count", path, f"{problem} Set when.min_order_minor, or pay a rate on the order instead."
            case Triggered(on="upgrade") if rule.referrer_minor:
                problem = f"{name} gives {what} when somebody rises by buying. Where rising is the way in, that is a share of an entry fee;"
                yield "warning", "reward-on-upgrade", path, f"{problem} a rate on the goods would be safer."
            case Counted():
                problem = f"{name} gives {what} by the number of people brought."
                remedy = "points that buy nothing are safer still" if rule.asset else "Pay a rate on what they buy, or give points (asset)"
                yield severity, "reward-on-head-count", path, f"{problem} {remedy[0].upper()}{remedy[1:]}."
            case Rank(board="invites"):
                problem = f"{name} gives {what} to those who bring the most people."
                remedy = (
                    "Points that buy nothing are safer still." if rule.asset else "Rank by own or direct sales, or give points (asset)."
                )
                yield severity, "reward-on-head-count", path, f"{problem} {remedy}"


def _task(path: str, name: str, rule: Triggered, severity: Severity, what: str) -> Iterator[Found]:
    if REGISTERING.search(rule.task):
        problem = (
            f"{name} gives {what} for {rule.task!r}, which reads as joining. Reward a purchase instead, or name the task for what it is."
        )
        yield severity, "reward-on-registration", path, problem
    elif rule.referrer_minor:
        problem = f"{name} gives {what} to whoever brought a member for what that member does without buying, so for having brought them."
        yield severity, "reward-on-head-count", path, f"{problem} Take referrer out of to."
    elif not rule.asset:
        problem = (
            f"{name} pays money for a task, without a sale. Make sure that {rule.task!r} is work done, not joining or bringing people."
        )
        yield "warning", "task-in-money", path, problem


def _entry(plan: Plan) -> Iterator[Found]:
    """Tiers that earn and that one must buy one's way into. Being granted one is no way in that is open to everybody."""
    earning = _earning_tiers(plan)
    for tier in plan.tiers:
        leading = [(number, promotion) for number, promotion in enumerate(plan.promotions) if promotion.tier == tier]
        if tier not in earning or not leading:
            continue
        path = f"promotions[{leading[0][0]}]"
        if all(_needs(promotion, ("gift_packs",)) for _, promotion in leading):
            reason = plan.waivers.get("gift-pack-entry")
            if reason is None:
                problem = f"The only way into {tier}, which earns, is to buy a gift pack. Add another condition under any,"
                yield "error", "gift-pack-entry", path, f"{problem} or record why it is lawful: waivers: {{gift-pack-entry: reason}}."
            else:
                problem = f"The only way into {tier}, which earns, is to buy a gift pack; waived in the plan: {reason}"
                yield "warning", "gift-pack-entry", path, problem
        elif all(_needs(promotion, ("gift_packs", "own_volume", "orders")) for _, promotion in leading):
            problem = f"Every way into {tier}, which earns, is buying for oneself. Goods bought in place of an entry fee count as one;"
            yield "warning", "entry-by-purchase", path, f"{problem} a way in by goods sold to others would be safer."


def _needs(promotion: Promotion, metrics: Sequence[str]) -> bool:
    """Whether nobody meets a promotion without one of these."""
    within = [one.metric in metrics for one in promotion.conditions]
    return any(within) if promotion.every else all(within)


def _earning_tiers(plan: Plan) -> dict[str, str]:
    """{tier: path of what pays it first}, of the tiers that rules name with more than nothing."""
    found: dict[str, str] = {}
    for index, rule in enumerate(plan.rules):
        if isinstance(rule, PeriodPool | Volume):
            for tier in rule.tiers:
                found.setdefault(tier, f"rules[{index}].tiers")
        elif isinstance(rule, Paying):
            amounts = [(f"rules[{index}]", rule.amount)]
            amounts += [
                (f"overrides[{number}].rules.{rule.id}", one.amounts[index])
                for number, one in enumerate(plan.overrides)
                if index in one.amounts
            ]
            for path, amount in amounts:
                for tier, (rate, fixed) in parts(amount).items():
                    if tier and (rate or fixed):
                        found.setdefault(tier, path)
    return found


# ---------------------------------------------------------------- arithmetic: how much


def _payout(plan: Plan, law: str) -> Iterator[Found]:
    worst = most(plan)
    if worst.share > 1 or (law == "cn-strict" and worst.share > STRICT_LIMIT):
        one = len(worst.by_rule) == 1
        rules = ", ".join(f"{plan.rules[index].id} {_percent(share)}" for index, share in sorted(worst.by_rule.items()))
        path = f"rules[{next(iter(worst.by_rule))}]" if one else "rules"
        problem = f"Together the rules can pay {_percent(worst.share)} of what is sold" if not one else "One rule can pay more than it may"
        if worst.share > 1:
            yield "error", "payout-over-base", path, f"{problem} ({rules}), more than the whole. Lower the rates, or ask for larger orders."
        else:
            problem = f"{problem} ({rules}); cn-strict allows 30% in all. Lower the rates, or ask for larger orders with min_order_minor."
            yield "error", "payout-over-limit", path, problem
    for index, why in sorted(worst.unbounded.items()):
        path, name = _at(index, plan.rules[index])
        problem = f"{name} pays a fixed sum, and nothing says how large it is beside the sale: {why}."
        if law == "cn-strict":
            problem += " cn-strict needs proof that at most 30% are paid: use a rate, or per: order with when.min_order_minor."
        else:
            problem += " Compare it with your prices; a rate, or per: order with when.min_order_minor, would bound it."
        yield "error" if law == "cn-strict" else "warning", "payout-not-bounded", path, problem


# ---------------------------------------------------------------- arithmetic: tiers


def _tiers(plan: Plan) -> Iterator[Found]:
    leading = {promotion.tier for promotion in plan.promotions}
    if plan.promotions:
        reachable = leading | set(plan.granted) | set(plan.seats)
        for tier, path in _earning_tiers(plan).items():
            if tier not in reachable:
                problem = f"{tier} earns and nobody can reach it: no promotion leads there. Add one, or name it in granted."
                yield "error", "tier-unreachable", path, problem
    for number, promotion in enumerate(plan.promotions):
        for other in plan.promotions:
            if plan.tiers.index(other.tier) > plan.tiers.index(promotion.tier) and _implies(promotion, other):
                problem = (
                    f"Whoever meets the conditions of {promotion.tier} meets those of {other.tier}, a higher tier, and goes straight there."
                )
                yield "warning", "higher-tier-easier", f"promotions[{number}]", f"{problem} Ask more for {other.tier}."
                break
    for index, rule in enumerate(plan.rules):
        if isinstance(rule, Differential):
            rates = [(tier, rate) for tier in plan.tiers if (rate := rule.amount.rate_of(tier)) and tier in rule.amount.tiers]
            for (lower, less), (higher, rate) in pairwise(rates):
                if rate < less:
                    problem = (
                        f"{higher} has {rate.percent} and {lower}, below it, {less.percent}: above a {lower} a {higher} earns nothing."
                    )
                    yield "warning", "higher-tier-earns-less", f"rules[{index}].rates.{higher}", f"{problem} Let rates rise with the tiers."


def _implies(lower: Promotion, higher: Promotion) -> bool:
    """Whether whoever meets the one meets the other."""
    met = all if higher.every else any
    if lower.every:
        return met(any(_stronger(one, other) for one in lower.conditions) for other in higher.conditions)
    return all(met(_stronger(one, other) for other in higher.conditions) for one in lower.conditions)


def _stronger(one: Condition, other: Condition) -> bool:
    """Whether meeting the one condition means meeting the other."""
    # Own sales are part of the team's.
    same = one.metric == other.metric or (one.metric, other.metric) == ("own_volume", "team_volume")
    within = other.days == 0 or 0 < one.days <= other.days
    return same and within and one.depth <= other.depth and one.at_least >= other.at_least


# ---------------------------------------------------------------- what does nothing


def _idle(plan: Plan) -> Iterator[Found]:
    for index, rule in enumerate(plan.rules):
        path, name = _at(index, rule)
        if not pays(plan, index):
            yield "warning", "rule-never-pays", path, f"{name} pays nobody anything: every amount, or a cap, is 0. Take it out or set one."
        if isinstance(rule, Triggered) and rule.on == "upgrade":
            leading = [promotion.tier for promotion in plan.promotions]
            if not leading or (rule.tier and rule.tier not in leading):
                problem = (
                    f"{name} waits for an order that promotes the buyer{f' to {rule.tier}' if rule.tier else ''}, and no promotion does."
                )
                yield "warning", "rule-never-pays", path, f"{problem} Add the promotion or take the rule out."
    whens = [(f"rules[{index}].when", rule.when) for index, rule in enumerate(plan.rules)]
    whens += [(f"overrides[{number}].when", override.when) for number, override in enumerate(plan.overrides)]
    for path, when in whens:
        why = _never(plan, when)
        if why:
            yield "warning", "rule-never-pays", path, f"These conditions never hold: {why}. Correct them or take them out."
    used = {rule.asset for rule in plan.rules}
    for number, points in enumerate(plan.points):
        if points not in used:
            problem = f"No rule gives {points}. Let a rule give them with asset: {points}, or take them out."
            yield "warning", "points-unused", f"points[{number}]", problem


def _never(plan: Plan, when: When) -> str:
    """Why conditions never hold; empty: they may."""
    if when.until_us is not None and plan.effective_from_us is not None and when.until_us <= plan.effective_from_us:
        return f"they end at {to_text(when.until_us)}, before the plan begins at {to_text(plan.effective_from_us)}"
    if when.from_us is not None and plan.effective_until_us is not None and when.from_us >= plan.effective_until_us:
        return f"they begin at {to_text(when.from_us)}, after the plan ends at {to_text(plan.effective_until_us)}"
    for role, wanted in (("store", when.stores), ("region", when.regions)):
        if wanted and not any(NAMEABLE.fullmatch(place) for place in wanted):
            return f"an order names a {role} by a code in ASCII, not as {sorted(wanted)[0]}"
    return ""


def _roles(plan: Plan) -> Iterator[Found]:
    for index, rule in enumerate(plan.rules):
        if isinstance(rule, Attributed):
            path = f"rules[{index}].role"
            close = [role for role in ROLES if _nearly(role, rule.role)]
            if rule.role not in ROLES and close:
                problem = f"Orders usually name a {close[0]}; a {rule.role} they would have to name in just this spelling."
                yield "warning", "role-misspelt", path, f"{problem} Write {close[0]} if that is meant."


def _nearly(word: str, typed: str) -> bool:
    """Whether four fifths of the letters stand in both in the same order."""
    matched = sum(block.size for block in SequenceMatcher(None, word, typed).get_matching_blocks())
    return 2 * 5 * matched >= 4 * (len(word) + len(typed))


# ---------------------------------------------------------------- waivers and versions


def _waivers(plan: Plan, law: str) -> Iterator[Found]:
    for name in plan.waivers:
        path = f"waivers.{name}"
        if name not in WAIVABLE:
            problem = f"{name} cannot be waived; only {', '.join(WAIVABLE)} can. Take it out: nothing would come of it."
            yield "error", "waiver-unknown", path, problem
        elif law == "none" or not any(found[1] == name for found in _entry(plan)):
            yield (
                "warning",
                "waiver-unused",
                path,
                f"Nothing in this plan needs the waiver {name}. Take it out, so that it hides nothing later.",
            )


def _counted(plan: Plan, published: Sequence[PlanVersion]) -> Iterator[Found]:
    """Rules of one id count the same invitees whatever version an order was recorded under; what that comes to is by the version's terms.

    `when` may change: each order counts, and is taken out again, by its own.
    """
    earlier: dict[str, list[tuple[str, dict[str, object]]]] = {rule.id: [] for _, rule in plan.counted_rules}
    for older in reversed(published) if earlier else ():
        for _, rule in older.plan.counted_rules:
            if rule.id in earlier:
                earlier[rule.id].append((f"version {older.plan.version} of plan {older.plan.plan_id}", _terms(older.plan, rule)))
    for index, rule in plan.counted_rules:
        path, name = _at(index, rule)
        mine = _terms(plan, rule)
        version, theirs = next(((version, terms) for version, terms in earlier[rule.id] if terms != mine), ("", mine))
        if version:
            other = ", ".join(f"{key} is {_said(mine[key])}, there {_said(theirs[key])}" for key in mine if mine[key] != theirs[key])
            problem = f"{name} counts on where {version} left off, by other terms: {other}."
            problem += " What orders under one brought about, refunds of orders under the other would not take back. Give it another id."
            yield "error", "counted-terms-changed", path, problem


def _terms(plan: Plan, rule: Counted) -> dict[str, object]:
    """What the amount that a counted rule owes for so many invitees depends on."""
    return {
        "at": rule.at,
        "fixed_minor": rule.fixed_minor,
        "repeat": rule.repeat,
        "most": rule.most,
        "asset": plan.asset_of(rule),
    }


def _said(value: object) -> str:
    """As the document writes it."""
    return "left out" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _versions(plan: Plan, published: Sequence[PlanVersion]) -> Iterator[Found]:
    """The newest version in force counts, so one may begin within another that is open-ended; within a stated end it would cut that short.

    Without `effective.from` nothing can be said: it is the time of publishing, which whoever publishes puts in.
    """
    start, end = plan.effective_from_us, plan.effective_until_us
    if start is None:
        return
    for older in published:
        if (end is not None and end <= older.effective_from_us) or (
            older.effective_until_us is not None and older.effective_until_us <= start
        ):
            continue
        name = f"version {older.plan.version} of plan {older.plan.plan_id}"
        if older.effective_until_us is not None:
            problem = f"From {to_text(start)} this plan takes the place of {name}, which was published to last until"
            problem += f" {to_text(older.effective_until_us)}. Begin then, or end before {to_text(older.effective_from_us)}."
        elif start <= older.effective_from_us:
            problem = f"This plan begins at {to_text(start)}, not after {name} ({to_text(older.effective_from_us)}), which is open-ended:"
            problem += " orders paid since then would count by another plan than was published. Begin later."
        else:
            continue
        yield "error", "versions-overlap", "effective", problem
