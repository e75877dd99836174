"""Every kind of rule against figures worked out by hand from docs/plan-format.md, without any books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest

from tests.oracle.facts import DAY_NS, KIND_FEE, KIND_GIFT_PACK, NS_PER_S, Attribution, Line, Order
from tests.oracle.periods import People, Period, period_at, period_named, rule_for_period
from tests.oracle.plan import Plan, PlanInvalid, read_plan
from tests.oracle.shares import Holder, Scene, counted, shared, shares_of

JAN_1 = 1_767_225_600 * NS_PER_S  # 2026-01-01T00:00:00Z, a Thursday
Given = Mapping[tuple[int, str, str], int]


def plan(*rules: str, top: str = "") -> Plan:
    """A plan of these rules, each in YAML's short form without braces."""
    listed = "\n".join(f"  - {{{rule}}}" for rule in rules)
    return read_plan(f"plan: p\nversion: 1\ncurrency: CNY\ntiers: [member, manager, director, partner]\n{top}\nrules:\n{listed}\n")


def scene(of: Plan, *lines: Line, path: str = "buyer", at: int = JAN_1, **more: object) -> Scene:
    """An order; the path is told as "buyer A/manager B"."""
    people = tuple((name, tier) for name, _, tier in (who.partition("/") for who in path.split()))
    order = Order("O1", people[0][0], at, "CNY", lines or (Line(1, 10_000),))
    for key in ("attributions", "group_id"):
        if key in more:
            order = replace(order, **{key: more.pop(key)})  # type: ignore[arg-type] # each by its own name
    return replace(Scene(of, order, people), **more)  # type: ignore[arg-type]


def given(told: Scene, **left: tuple[int, int]) -> Given:
    """(line, rule, payee) -> amount on what remains; `l2=(50, 1)` says what remains of line 2."""
    remaining = {line.line_no: (line.base_minor, line.quantity) for line in told.order.lines}
    remaining |= {int(name[1:]): what for name, what in left.items()}
    shares = shares_of(told, remaining)
    sums = {(share.line_no, share.rule.rule_id, share.payee): share.amount for share in shares}
    assert len(sums) == len(shares), "a payee twice"
    return sums


# ----------------------------------------------------------------------------------------------------------------- amounts, splits


def test_the_worked_example_of_the_format() -> None:
    """docs/plan-format.md, last section: out of a pool of 5 the missing unit goes to the larger remainder."""
    of = plan("id: d, kind: differential, rates: {member: 5%, manager: 10%, director: 15%}")
    assert given(scene(of, Line(1, 33), path="b A/manager B/director")) == {(1, "d", "A"): 3, (1, "d", "B"): 2}


@pytest.mark.parametrize(
    ("pool", "parts", "whole"),
    [
        ("5", ["5/2", "5/2"], [3, 2, 0]),  # ties to the one named first
        ("10/3", ["10/9", "10/9"], [1, 1, 1]),
        ("2.5", ["1.25"], [2, 1]),  # 2.5 becomes 3
        ("0.4", ["0.4"], [0, 0]),
        ("4.95", ["3.3", "1.65"], [3, 2, 0]),
    ],
)
def test_shared_amounts_add_up_to_the_pool(pool: str, parts: list[str], whole: list[int]) -> None:
    """docs/plan-format.md, Amounts: rounded down, then one each to the largest remainders, breakage last."""
    assert shared(Fraction(pool), [Fraction(part) for part in parts]) == whole


def test_a_fixed_amount_wins_and_zero_means_none() -> None:
    """Amounts: fixed for whom it names, else the rate; per unit; and what nobody earned of the top amount is breakage."""
    rule = "id: g, kind: generation, generation: 1, rates: {manager: 5%, director: 10%}, fixed_minor: {manager: 300, member: 0}"
    line = Line(1, 10_000, quantity=2)
    assert given(scene(plan(rule), line, path="b A/manager")) == {(1, "g", "A"): 600, (1, "g", ""): 400}
    assert given(scene(plan(rule), line, path="b A/director")) == {(1, "g", "A"): 1000}
    assert given(scene(plan(rule), line, path="b A/member")) == {(1, "g", ""): 1000}
    assert given(scene(plan(rule), line, path="b A")) == {(1, "g", ""): 1000}


def test_per_order_counts_once_on_the_first_line_that_matches_and_lives() -> None:
    """Amounts: and moves on when that line is gone."""
    told = scene(
        plan("id: s, kind: self, fixed_minor: 70, per: order, when: {skus: [A]}"), Line(4, 5), Line(2, 9, sku="A"), Line(1, 9, sku="A")
    )
    assert given(told) == {(2, "s", "buyer"): 70}
    assert given(told, l2=(0, 1)) == {(1, "s", "buyer"): 70}
    assert given(told, l2=(0, 1), l1=(0, 0)) == {}


def test_a_line_without_base_lives_by_its_units() -> None:
    """What remains: base 0 from the start and units left; a base refunded to nothing is dead though units are left."""
    told = scene(plan("id: s, kind: self, fixed_minor: 10"), Line(1, 0, quantity=3), Line(2, 100, quantity=3))
    assert given(told) == {(1, "s", "buyer"): 30, (2, "s", "buyer"): 30}
    assert given(told, l1=(0, 1), l2=(0, 3)) == {(1, "s", "buyer"): 10}


def test_caps_cut_in_the_order_of_the_lines() -> None:
    """Amounts: per order and per period; what is cut off is breakage, and room comes back with a refund of an earlier line."""
    told = scene(
        plan("id: s, kind: self, rate: 10%, cap_minor: {order: 120, period: 500}", top="period: month"), Line(2, 1000), Line(1, 1000)
    )
    assert given(told) == {(2, "s", "buyer"): 100, (1, "s", "buyer"): 20, (1, "s", ""): 80}
    assert given(told, l2=(300, 1)) == {(2, "s", "buyer"): 30, (1, "s", "buyer"): 90, (1, "s", ""): 10}
    assert given(replace(told, earned={("s", "buyer"): 470})) == {(2, "s", "buyer"): 30, (2, "s", ""): 70, (1, "s", ""): 100}
    assert given(replace(told, earned={("s", "buyer"): 570})) == {(2, "s", ""): 100, (1, "s", ""): 100}


# -------------------------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ("{}", True),
        ("{kinds: [fee]}", False),
        ("{skus: [A1], categories: [tea]}", True),
        ("{stores: [S9]}", False),
        ("{stores: [S1]}", True),
        ("{regions: [m7]}", True),
        ("{weekdays: [thu]}", False),  # 2026-01-01T22:00Z is Friday in +08:00
        ("{weekdays: [fri], days: [2, 8]}", True),
        ("{from: '2026-01-01T22:00:00Z', until: '2026-01-01T22:00:00.000001Z'}", True),
        ("{until: '2026-01-01T22:00:00Z'}", False),
        ("{min_order_minor: 1001}", False),
        ("{min_order_minor: 1000}", True),
    ],
)
def test_a_rule_looks_at_lines_that_meet_all_its_conditions(when: str, holds: bool) -> None:
    """Conditions: a store by place (the order's), a region by member (the line's own, against another of the order's)."""
    line = Line(1, 1000, sku="A1", category="tea", attributions=(Attribution("region", "m7"),))
    at = JAN_1 + 22 * 3600 * NS_PER_S
    told = scene(
        plan(f"id: s, kind: self, rate: 10%, when: {when}", top='zone: "+08:00"'),
        line,
        at=at,
        attributions=(Attribution("store", scope="S1"), Attribution("region", scope="R1")),
    )
    assert given(told) == ({(1, "s", "buyer"): 100} if holds else {})


def test_the_first_override_that_holds_and_names_the_rule_gives_all_amounts() -> None:
    """Conditions: also past one that holds and does not name it."""
    top = "overrides:\n  - {when: {skus: [A]}, rules: {t: {rate: 1%}}}\n  - {when: {skus: [A]}, rules: {s: {fixed_minor: 7}}}\n"
    top += "  - {rules: {s: {rate: 9%}}}"
    told = scene(plan("id: s, kind: self, rate: 10%", "id: t, kind: self, rate: 2%", top=top), Line(1, 100, sku="A"), Line(2, 100))
    assert given(told) == {(1, "s", "buyer"): 7, (1, "t", "buyer"): 1, (2, "s", "buyer"): 9, (2, "t", "buyer"): 2}


# ------------------------------------------------------------------------------------------------------------------------- rules


def test_generation_counts_people_or_only_those_with_an_amount() -> None:
    """Rules: plain counting leaves breakage, skip_unqualified goes on up, within depth."""
    plain = plan("id: g, kind: generation, generation: 2, rates: {manager: 5%}")
    skips = plan("id: g, kind: generation, generation: 2, rates: {manager: 5%}, skip_unqualified: true, depth: 4")
    path = "b A/manager B/member C D/manager E/manager"
    assert given(scene(plain, path=path)) == {(1, "g", ""): 500}
    assert given(scene(skips, path=path)) == {(1, "g", "D"): 500}
    assert given(scene(skips, path="b A/manager B C D E/manager")) == {(1, "g", ""): 500}
    assert given(scene(plain, path="b/manager")) == {(1, "g", ""): 500}


DIFFERENTIAL = "id: d, kind: differential, rates: {manager: 5%, director: 8%, partner: 12%}"


@pytest.mark.parametrize(
    ("buyer", "path", "expected"),
    [
        ("out", "b/director A/manager B/member C/director D/manager E/partner", {"A": 500, "C": 300, "E": 400}),
        ("out", "b A/director B/manager", {"A": 800, "": 400}),
        ("earns", "b/manager A/director", {"b": 500, "A": 300, "": 400}),
        ("deducts", "b/manager A/director", {"A": 300, "": 400}),
        ("deducts", "b/partner A/partner", {}),
        ("out", "b", {"": 1200}),
    ],
)
def test_differential_pays_each_higher_tier_less_what_was_met(buyer: str, path: str, expected: dict[str, int]) -> None:
    """Rules: out, earns and deducts; what nobody reaches is breakage."""
    told = scene(plan(f"{DIFFERENTIAL}, buyer: {buyer}"), path=path)
    assert given(told) == {(1, "d", who): amount for who, amount in expected.items()}


def test_differential_stops_at_its_depth() -> None:
    """Rules: depth 1 looks at level 1 alone."""
    assert given(scene(plan(f"{DIFFERENTIAL}, depth: 1"), path="b A/manager B/partner")) == {(1, "d", "A"): 500, (1, "d", ""): 700}


@pytest.mark.parametrize(
    ("more", "path", "expected"),
    [
        ("", "b A/manager B/director C/manager D/manager E/director", {"C": 500, "E": 200}),
        (", times: 2", "b A/manager B/director C/manager D/manager E/manager", {"C": 500, "D": 500, "": 400}),
        (", depth: 2", "b A/manager B C/manager", {"": 700}),
        ("", "b/manager A/manager", {"": 700}),  # the buyer is not on levels 1 to depth
        ("", "b", {"": 700}),
    ],
)
def test_peers_are_the_next_of_a_tier_after_its_first(more: str, path: str, expected: dict[str, int]) -> None:
    """Rules: each tier has `times` seats, a vacant one is breakage also where nobody came first."""
    told = scene(plan(f"id: p, kind: peer, rates: {{manager: 5%, director: 2%}}{more}"), path=path)
    assert given(told) == {(1, "p", who): amount for who, amount in expected.items()}


def test_peers_of_a_rule_follow_the_first_who_earns_by_it() -> None:
    """Rules: on the income of that person, in whole units; without such a person there is no pool."""
    rules = (DIFFERENTIAL, "id: p, kind: peer, rates: {manager: 10%, director: 10%, partner: 10%}, of: d, base: income")
    told = scene(plan(*rules), Line(1, 9_990), path="b A/director B/manager C/manager D/director E/director")
    # A earns 8 % of 99.90 = 7.99; B and C earn nothing, so no manager came first and no partner; D is A's peer
    assert given(told) == {(1, "d", "A"): 799, (1, "d", ""): 400, (1, "p", "D"): 80}
    on_line = plan(DIFFERENTIAL, "id: p, kind: peer, rates: {manager: 1%, director: 1%}, of: d")
    assert given(scene(on_line, path="b A/director B/manager C/manager D/director"))[1, "p", ""] == 100
    of_self = plan("id: s, kind: self, rate: 1%", "id: p, kind: peer, rates: {manager: 1%}, of: s")
    assert given(scene(of_self, path="b/manager A/director B/manager")) == {(1, "s", "b"): 100, (1, "p", "B"): 100}


CREATOR = "id: c, kind: attributed, role: creator, rate: 10%"


def test_attributed_pays_whoever_the_order_names() -> None:
    """Rules: the line's own names count before the order's; without any there is no pool; nobody at the place is breakage."""
    lines = (Line(1, 1000), Line(2, 1000, attributions=(Attribution("creator", scope="studio"),)), Line(3, 1000))
    told = scene(plan(CREATOR), *lines, attributions=(Attribution("creator", "x"),))
    assert given(told) == {(1, "c", "x"): 100, (2, "c", ""): 100, (3, "c", "x"): 100}
    held = replace(told, at_place={("creator", "studio"): (Holder("y", 1), Holder("z", 2))})
    assert given(held) == {(1, "c", "x"): 100, (2, "c", "y"): 33, (2, "c", "z"): 67, (3, "c", "x"): 100}
    assert given(scene(plan(CREATOR), path="b A")) == {}


def test_an_exclusive_creator_shuts_out_those_above_on_that_line() -> None:
    """Rules: generation, differential and peer have no pool there; self has; a place that nobody holds shuts out nobody."""
    told = scene(
        plan(
            f"{CREATOR}, with_referrer: exclusive",
            "id: g, kind: generation, generation: 1, rate: 1%",
            DIFFERENTIAL,
            "id: s, kind: self, rate: 1%",
        ),
        Line(1, 100, attributions=(Attribution("creator", "x"),)),
        Line(2, 100, attributions=(Attribution("creator", scope="empty"),)),
        path="b A/partner",
    )
    assert given(told) == {
        (1, "c", "x"): 10,
        (1, "s", "b"): 1,
        (2, "c", ""): 10,
        (2, "g", "A"): 1,
        (2, "d", "A"): 12,
        (2, "s", "b"): 1,
    }


def test_a_split_gives_the_referrer_a_part_of_the_pool() -> None:
    """Rules: 40 % of 0.15 are 0.06, the rest by weight; without anybody at level 1 their part is breakage."""
    rule = plan(f"{CREATOR}, with_referrer: split, referrer_share: 40%")
    named = (Attribution("creator", "x"), Attribution("creator", "y"))
    # 10 % of 149 are 14.9, the pool 15; the holders have 4.47 each, the referrer 5.96: 4, 4, 5 and two units to A and x
    assert given(scene(rule, Line(1, 149), path="b A", attributions=named)) == {(1, "c", "x"): 5, (1, "c", "y"): 4, (1, "c", "A"): 6}
    assert given(scene(rule, Line(1, 149), path="b", attributions=named)) == {(1, "c", "x"): 5, (1, "c", "y"): 4, (1, "c", ""): 6}


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("split: shares", {"x": 25, "y": 75}),
        ("split: shares, of_total: 10", {"x": 10, "y": 30, "": 60}),
        ("split: shares, of_total: 2", {"x": 25, "y": 75}),
        ("split: seats", {"x": 50, "y": 50}),
        ("split: seats, of_total: 3", {"x": 34, "y": 33, "": 33}),  # 33.33 three times: the missing unit goes to the one named first
    ],
)
def test_a_pool_on_lines_is_split_by_shares_or_seats(split: str, expected: dict[str, int]) -> None:
    """Rules: out of what is held or of_total; what is not held is breakage; without holders all of it is."""
    told = scene(plan(f"id: f, kind: pool, role: partner, rate: 1%, {split}"), at_place={("partner", ""): (Holder("x", 1), Holder("y", 3))})
    assert given(told) == {(1, "f", who): amount for who, amount in expected.items()}
    assert given(replace(told, at_place={})) == {(1, "f", ""): 100}


def test_an_invite_pays_both_sides_while_a_matching_line_lives() -> None:
    """Rules: a lock that falls to somebody; shares of the order as a whole."""
    rule = plan("id: i, kind: triggered, on: invite, to: {buyer: 500, referrer: 1000}, when: {categories: [tea]}")
    told = scene(rule, Line(1, 100), Line(2, 100, category="tea"), path="b A", locked_to="A")
    assert given(told) == {(0, "i", "b"): 500, (0, "i", "A"): 1000}
    assert given(told, l2=(0, 1)) == {}
    assert given(replace(told, locked_to="")) == {}


def test_an_upgrade_pays_for_the_tier_it_names() -> None:
    """Rules: the buyer promoted by this order; without anybody at level 1 the referrer's part is breakage."""
    rule = plan(
        "id: u, kind: triggered, on: upgrade, tier: director, to: {buyer: 5, referrer: 10}",
        "id: a, kind: triggered, on: upgrade, to: {buyer: 1}",
    )
    assert given(scene(rule, promoted_to="director")) == {(0, "u", "buyer"): 5, (0, "u", ""): 10, (0, "a", "buyer"): 1}
    assert given(scene(rule, promoted_to="manager")) == {(0, "a", "buyer"): 1}
    assert given(scene(rule)) == {}


def test_a_group_pays_its_opener() -> None:
    """Rules: on the lines; per group only on the order that joined first; an order without a group has no pool."""
    rule = plan(
        "id: r, kind: triggered, on: group_formed, rate: 5%",
        "id: g, kind: triggered, on: group_formed, fixed_minor: 300, per: group",
        "id: o, kind: triggered, on: group_formed, fixed_minor: 20, per: order",
    )
    lines = (Line(1, 1000), Line(2, 500))
    first = scene(rule, *lines, opener="x", first_in_group=True)
    assert given(first) == {(1, "r", "x"): 50, (2, "r", "x"): 25, (1, "g", "x"): 300, (1, "o", "x"): 20}
    assert given(replace(first, first_in_group=False)) == {(1, "r", "x"): 50, (2, "r", "x"): 25, (1, "o", "x"): 20}
    assert given(scene(rule, *lines)) == {}


@pytest.mark.parametrize(
    ("more", "owed"),
    [
        ("", [0, 0, 9, 9, 9, 9, 9, 9]),
        (", repeat: true", [0, 0, 9, 9, 9, 18, 18, 27]),
        (", repeat: true, most: 2", [0, 0, 9, 9, 9, 18, 18, 18]),
    ],
)
def test_counted_owes_for_each_full_number_of_invitees(more: str, owed: list[int]) -> None:
    """Rules: fixed x (n ÷ at rounded down), once without repeat, at most `most` times."""
    rule = plan(f"id: n, kind: counted, at: 3, fixed_minor: 9{more}").rules[0]
    assert [counted(rule, n) for n in (0, 2, 3, 4, 5, 6, 8, 9)] == owed


# ----------------------------------------------------------------------------------------------------------------------- periods


@pytest.mark.parametrize(
    ("period", "zone", "at", "name", "days"),
    [
        ("day", "+00:00", 0, "2026-01-01", (0, 1)),
        ("week", "+00:00", 0, "2026-W01", (-3, 4)),
        ("month", "+00:00", 0, "2026-01", (0, 31)),
        ("month", "+00:00", -1, "2025-12", (-31, 0)),
        ("week", "+00:00", -4, "2025-W52", (-10, -3)),
    ],
)
def test_periods_have_names_and_ends(period: str, zone: str, at: int, name: str, days: tuple[int, int]) -> None:
    """Rules for a period: days, ISO weeks from Monday, months; found again by name."""
    read = plan("id: s, kind: self, rate: 1%", top=f'period: {period}\nzone: "{zone}"')
    expected = Period(name, JAN_1 + days[0] * DAY_NS, JAN_1 + days[1] * DAY_NS)
    assert period_at(read, JAN_1 + at * DAY_NS) == expected == period_named(read, name)
    assert period_named(read, "2026-13") is None


def test_a_period_begins_in_the_plans_zone() -> None:
    """Rules for a period: 16:00 UTC is the next day in +08:00."""
    read = plan("id: s, kind: self, rate: 1%", top='period: day\nzone: "+08:00"')
    sixteen = JAN_1 + 16 * 3600 * NS_PER_S
    assert period_at(read, sixteen - 1000).period_id == "2026-01-01"
    assert period_at(read, sixteen) == Period("2026-01-02", sixteen, sixteen + DAY_NS)


PEOPLE = People(
    tiers={"a": "partner", "b": "member", "c": "partner", "d": ""},
    above={"a": "", "b": "a", "c": "a", "d": "c"},
    holders={"partner": (Holder("c", 1), Holder("a", 3))},
)
OWN = {"a": 1000, "b": 5000, "d": 4000}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("kind: pool, per: period, rate: 1%, role: partner, split: shares", {"a": 75, "c": 25}),
        ("kind: pool, per: period, rate: 1%, role: partner, split: seats, of_total: 4", {"a": 25, "c": 25, "": 50}),
        ("kind: pool, per: period, rate: 1%, tiers: [partner, member], split: seats", {"a": 34, "b": 33, "c": 33}),
        ("kind: pool, per: period, rate: 1%, tiers: [partner], split: volume", {"a": 100}),
        ("kind: pool, per: period, rate: 1%, tiers: [partner], split: volume, volume: team", {"a": 71, "c": 29}),  # 10000 and 4000
        ("kind: pool, per: period, rate: 1%, role: nobody, split: seats", {"": 100}),
        ("kind: pool, per: period, rate: 1%, tiers: [manager], split: volume", {"": 100}),
        # brackets: a 10000 -> 3 %, b 5000 -> 1 %, c 4000 -> 1 %, d 4000 -> 1 %; a: 30 + 5000 x 2 % + 4000 x 2 %; c: 4000 x 0
        ("kind: volume, brackets: [{from_minor: 100, rate: 1%}, {from_minor: 10000, rate: 3%}]", {"a": 210, "b": 50, "d": 40}),
        ("kind: volume, brackets: [{from_minor: 100, rate: 1%}], tiers: [member]", {"b": 50}),
        ("kind: volume, brackets: [{from_minor: 4001, rate: 1%}]", {"a": 10 + 40, "b": 50}),  # 4000 x (1 % - 0 %)
        ("kind: rank, board: own, places_minor: [100, 50, 20, 10]", {"b": 100, "d": 50, "a": 20, "": 10}),
        ("kind: rank, board: own, places_minor: [100, 50], at_least: 5000", {"b": 100, "": 50}),
        ("kind: rank, board: direct, places_minor: [100]", {"a": 100}),  # a: b 5000 and c 0; c: d 4000
        ("kind: rank, board: team, places_minor: [100, 50, 25]", {"a": 100, "b": 50, "c": 13, "d": 12}),  # c and d tie on the third
    ],
)
def test_rules_by_period(rule: str, expected: dict[str, int]) -> None:
    """Rules for a period: pools, 团队差额 and ranks over a tree a(b, c(d)) with own volumes of 10, 50 and 40."""
    sums: dict[str, int] = {}
    for payee, amount in rule_for_period(plan(f"id: r, {rule}", top="period: month").rules[0], PEOPLE, OWN):
        sums[payee] = sums.get(payee, 0) + amount
    assert {who: amount for who, amount in sums.items() if amount} == expected


# -------------------------------------------------------------------------------------------------------------------- documents


@pytest.mark.parametrize(
    ("rule", "top"),
    [
        ("id: s, kind: self, rate: 1%, colour: red", ""),
        ("id: s, kind: self, rate: 1%, fixed_minor: -1", ""),
        ("id: s, kind: self, rate: 1%, per: group", ""),
        ("id: s, kind: self, rate: 1%, asset: points", ""),
        ("id: s, kind: self, rate: 1%, cap_minor: {day: 5}", ""),
        ("id: d, kind: differential, rate: 5%", ""),
        ("id: d, kind: differential, rates: {manager: 5%}, buyer: in", ""),
        ("id: d, kind: differential, rates: {manager: 5%}, depth: 101", ""),
        ("id: p, kind: peer, rates: {manager: 5%}, of: later", ""),
        ("id: p, kind: peer, rates: {manager: 5%}, base: income", ""),
        ("id: c, kind: attributed, role: creator, rates: {manager: 5%}", ""),
        ("id: c, kind: attributed, role: creator, rate: 5%, with_referrer: split", ""),
        ("id: c, kind: attributed, role: Creator, rate: 5%", ""),
        ("id: t, kind: triggered, on: task, to: {member: 1}", ""),
        ("id: t, kind: triggered, on: invite, to: {member: 1}", ""),
        ("id: n, kind: counted, at: 0, fixed_minor: 9", ""),
        ("id: r, kind: rank, board: own, places_minor: [1], release: {on: group_formed}", ""),
        ("id: s, kind: self, rate: 1%, release: {on: at_once, days: 1}", ""),
        ("id: r, kind: rank, board: own, places_minor: [1]", "period: campaign"),
        ("id: s, kind: self, rate: 1%, when: {days: [32]}", ""),
        ("id: s, kind: self, rate: 1%, when: {weekdays: [monday]}", ""),
        ("id: s, kind: self, rate: 1%", "zone: Asia/Shanghai"),
        ("id: s, kind: self, rate: 1%", "promotions: [{tier: manager}]"),
        ("id: s, kind: self, rate: 1%", "promotions: [{tier: manager, any: [{metric: luck, at_least: 1}]}]"),
        ("id: s, kind: self, rate: 1%", "overrides: [{rules: {t: {rate: 1%}}}]"),
        ("id: s, kind: self, rate: 1%", "seats: {captain: 1}"),
    ],
)
def test_a_document_that_breaks_the_format_is_not_read(rule: str, top: str) -> None:
    """docs/plan-format.md: keys and words it does not know, and what does not go together."""
    with pytest.raises(PlanInvalid):
        plan(rule, top=top)


def test_lines_are_matched_by_kind() -> None:
    """Conditions: left out, goods and gift packs; fees only when named."""
    told = scene(plan("id: s, kind: self, rate: 10%"), Line(1, 10, kind=KIND_FEE), Line(2, 10, kind=KIND_GIFT_PACK), Line(3, 10, kind=0))
    assert given(told) == {(2, "s", "buyer"): 1, (3, "s", "buyer"): 1}
