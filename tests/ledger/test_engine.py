"""The engine's laws over random plans, trees and orders: conservation, nothing negative, nothing left of an order refunded in any split."""

import math
from fractions import Fraction
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ledger.domain.engine import Rooms, Standing, entitle, lives
from services.ledger.domain.facts import Attribution, LineKind, OrderLine, OrderPaid, Person
from services.ledger.domain.plan import Plan, parse
from services.ledger.domain.rules import Amount, Attributed, Differential, GroupFormed, LinePool, Paying, Peer, Seat

TIERS = ["member", "manager", "director", "partner"]
RATES = ["0%", "0.5%", "2.5%", "3.333333333%", "7.77%", "10%", "12.5%"]


def drawn(dice: Random) -> tuple[Plan, Standing]:
    """A plan of every kind that pays on lines, and an order somewhere in a tree."""

    def by_tier() -> dict[str, Any]:
        rates = {tier: dice.choice(RATES) for tier in TIERS if dice.random() < 0.7} or {"member": "5%"}
        return {"rates": rates} if dice.random() < 0.7 else {"rates": rates, "fixed_minor": {dice.choice(TIERS): dice.randrange(500)}}

    def flat() -> dict[str, Any]:
        fixed = {"fixed_minor": dice.randrange(500), "per": dice.choice(["unit", "order"])}
        return {"rate": dice.choice(RATES)} if dice.random() < 0.7 else fixed

    kinds: list[dict[str, Any]] = [
        {"kind": "self", **flat()},
        {"kind": "generation", "generation": dice.randrange(1, 4), "skip_unqualified": dice.random() < 0.5, **by_tier()},
        {"kind": "differential", "buyer": dice.choice(["out", "earns", "deducts"]), "depth": dice.randrange(1, 11), **by_tier()},
        {"kind": "attributed", "role": "creator", "with_referrer": dice.choice(["both", "exclusive"]), **flat()},
        {"kind": "attributed", "role": "region", "with_referrer": "split", "referrer_share": dice.choice(RATES), **flat()},
        {"kind": "pool", "role": "partner", "split": dice.choice(["shares", "seats"]), "of_total": 5, "rate": dice.choice(RATES)},
        {"kind": "triggered", "on": "group_formed", **flat()},
        {"kind": "peer", "times": dice.randrange(1, 4), "rates": {tier: dice.choice(RATES) for tier in TIERS}},
    ]
    rules = [{"id": f"r{index}", **rule} for index, rule in enumerate(dice.sample(kinds, dice.randrange(1, len(kinds) + 1)))]
    plan = parse({"plan": "p", "version": 1, "currency": "CNY", "tiers": TIERS, "rules": rules})
    people = [Person(f"u{level}", dice.choice(["", *TIERS]), 0, 0) for level in range(dice.randrange(1, 9))]
    people.append(Person("cai", "", 0, 0, "creator", "", 0, 1))
    people += [Person(f"q{n}", "", 0, 0, "region", "sh", n + 1, dice.randrange(1, 5)) for n in range(dice.randrange(3))]
    people += [Person(f"p{n}", "", 0, 0, "partner", "", n + 9, dice.randrange(1, 5)) for n in range(dice.randrange(4))]
    people.append(Person("opa", "", 0, 0, "opener", "", 0, 1))
    lines = tuple(
        OrderLine(number, dice.choice([0, 1, 33, 3335, 17_903, 10**12]), dice.randrange(1, 9), "", "", LineKind.GOODS)
        for number in range(1, dice.randrange(2, 5))
    )
    named = [Attribution("creator", "cai", ""), Attribution("region", "", "sh")]
    fact = OrderPaid("O", "u0", "CNY", lines, tuple(dice.sample(named, dice.randrange(3))), "G")
    return plan, Standing(plan, people, fact, 0)


def half_up(exact: Fraction) -> int:
    return math.floor(exact + Fraction(1, 2))


def worth(amount: Amount, tier: str | None, base: int, count: int) -> Fraction:
    """What an amount is worth for a tier, worked out anew from what the plan says."""
    fixed = amount.fixed_by_tier.get(tier or "", amount.fixed)
    rate = amount.rates.get(tier or "", amount.rate)
    return Fraction(fixed * count) if fixed is not None else Fraction(rate.numerator, rate.denominator) * base if rate else Fraction(0)


def pool_of(rule: Paying, standing: Standing, line: OrderLine, base: int, units: int, first: bool) -> int:
    """The pool of a rule on a living line, by the sentences of the plan format."""
    count = units if rule.amount.per == "unit" else int(first)
    top = max(worth(rule.amount, tier, base, count) for tier in (None, *TIERS))
    match rule:
        case Differential(buyer="deducts"):
            return max(0, half_up(top - worth(rule.amount, standing.path[0].tier, base, count)))
        case Attributed():
            return half_up(top) if standing.named(line, rule.role) else 0
        case Seat() | Differential() | LinePool() | GroupFormed():
            return half_up(top)
    assert isinstance(rule, Peer)
    return rule.times * sum(half_up(worth(rule.amount, tier, base, count)) for tier in rule.amount.tiers)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_payees_and_breakage_make_the_pool_of_every_rule_on_every_line_whatever_remains(seed: int) -> None:
    dice = Random(seed)
    plan, standing = drawn(dice)
    remaining = {
        line.line_no: (dice.choice([0, line.base_minor, line.base_minor // 3]), dice.randrange(line.quantity + 1))
        for line in standing.fact.lines
    }
    found = {line_no: shares for line_no, shares in entitle(standing, remaining, Rooms({})) if line_no}
    begun: set[int] = set()
    for line in standing.fact.lines:
        base, units = remaining[line.line_no]
        shut_out = any(
            isinstance(rule, Attributed)
            and rule.with_referrer == "exclusive"
            and standing.named(line, rule.role)
            and pool_of(rule, standing, line, line.base_minor, line.quantity, True)
            for _, rule in plan.line_rules
        )
        for index, rule in plan.line_rules:
            mine = [share for share in found[line.line_no] if share.rule_index == index]
            assert all(share.amount_minor > 0 for share in mine)
            if not lives(line, base, units):
                assert mine == []
                continue
            out = shut_out and rule.kind in ("generation", "differential", "peer")
            pool = 0 if out else pool_of(rule, standing, line, base, units, index not in begun)
            begun.add(index)
            assert sum(share.amount_minor for share in mine) == pool, (rule, base, units, mine)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_any_split_of_a_full_refund_leaves_nobody_anything(seed: int) -> None:
    """What is posted is the difference of two entitlements, so it telescopes; what is left at the end is what nothing entitles to."""
    dice = Random(seed)
    _, standing = drawn(dice)
    left = {line.line_no: [line.base_minor, line.quantity] for line in standing.fact.lines}
    posted: dict[tuple[int, int, int], int] = {}

    def post(remaining: dict[int, list[int]]) -> None:
        now: dict[tuple[int, int, int], int] = {}
        for line_no, shares in entitle(standing, {n: (b, u) for n, (b, u) in remaining.items()}, Rooms({})):
            for share in shares:
                key = (line_no, share.rule_index, share.payee)
                now[key] = now.get(key, 0) + share.amount_minor
        for key in now.keys() | posted.keys():
            posted[key] = posted.get(key, 0) + (now.get(key, 0) - posted.get(key, 0))

    post(left)
    while any(base or units for base, units in left.values()):
        line_no = dice.choice([n for n, (base, units) in left.items() if base or units])
        base, units = left[line_no]
        left[line_no] = [base - dice.randint(0, base), units - dice.randint(0, units)] if dice.random() < 0.7 else [0, 0]
        post(left)
    assert not any(posted.values())
