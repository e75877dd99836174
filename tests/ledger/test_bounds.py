"""The bound on payout held against the engine: no order, drawn at random, ever pays more than the linter says it can."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.kernel.times import DAY_US
from services.ledger.domain import bounds
from services.ledger.domain.bounds import most
from services.ledger.domain.engine import BREAKAGE, Rooms, Standing, entitle
from services.ledger.domain.facts import Attribution, LineKind, OrderLine, OrderPaid, Person
from services.ledger.domain.plan import parse

TIERS = ["low", "mid", "high"]
KINDS = {"goods": LineKind.GOODS, "gift_pack": LineKind.GIFT_PACK, "fee": LineKind.FEE}
NOON = 20_000 * DAY_US + DAY_US // 2

rates = st.integers(0, 300).map(lambda tenths: f"{tenths // 10}.{tenths % 10}%")
by_tier = st.dictionaries(st.sampled_from(TIERS), rates, min_size=1)
conditions = st.fixed_dictionaries(
    {},
    optional={
        "kinds": st.lists(st.sampled_from(list(KINDS)), min_size=1, unique=True),
        "skus": st.lists(st.sampled_from("ABC"), min_size=1, unique=True),
        "categories": st.lists(st.sampled_from("xy"), min_size=1, unique=True),
        "stores": st.just(["s1"]),
        "weekdays": st.lists(st.sampled_from(["mon", "tue", "sun"]), min_size=1, unique=True),
        "days": st.lists(st.integers(1, 31), min_size=1, max_size=20, unique=True),
        "min_order_minor": st.sampled_from([1000, 5000, 20_000]),
    },
)
everybody = st.one_of(rates.map(lambda rate: {"rate": rate}), st.integers(1, 900).map(lambda minor: {"fixed_minor": minor, "per": "order"}))
anybody = st.one_of(everybody, by_tier.map(lambda rates: {"rates": rates}))


def kinds_of_rules(number: int) -> st.SearchStrategy[dict[str, Any]]:
    caps: st.SearchStrategy[dict[str, Any]] = st.one_of(st.just({}), st.integers(1, 2000).map(lambda cap: {"cap_minor": {"order": cap}}))
    seat = st.builds(
        lambda amount, level, cap: {"kind": "generation", "generation": level, **amount, **cap}, anybody, st.integers(1, 3), caps
    )
    own = anybody.map(lambda amount: {"kind": "self", **amount})
    ladder = st.builds(
        lambda rates, buyer: {"kind": "differential", "rates": rates, "buyer": buyer}, by_tier, st.sampled_from(["out", "earns", "deducts"])
    )
    peer = st.builds(lambda rates, times: {"kind": "peer", "rates": rates, "times": times}, by_tier, st.integers(1, 2))
    named = st.builds(
        lambda amount, with_referrer: {"kind": "attributed", "role": "creator", "with_referrer": with_referrer, **amount},
        everybody,
        st.sampled_from(["both", "exclusive"]),
    )
    invite = st.builds(
        lambda minor: {"kind": "triggered", "on": "invite", "to": {"buyer": minor, "referrer": minor}},
        st.integers(1, 500),
    )
    rule = st.one_of(seat, own, ladder, peer, named, invite)
    return st.builds(lambda rule, when: {"id": f"r{number}", **rule, "when": when}, rule, conditions)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    rules = [draw(kinds_of_rules(number)) for number in range(draw(st.integers(1, 4)))]
    ladders = [rule["id"] for rule in rules if rule["kind"] == "differential"]
    if ladders:
        rules.append({"id": "income", "kind": "peer", "of": ladders[0], "base": "income", "rates": draw(by_tier)})
    overridden = [rule for rule in rules if rule["kind"] in ("generation", "attributed", "self")]
    overrides = [
        {"when": draw(conditions), "rules": {rule["id"]: draw(everybody)}} for rule in overridden for _ in range(draw(st.integers(0, 2)))
    ]
    return {"plan": "p", "version": 1, "currency": "CNY", "tiers": TIERS, "rules": rules, "overrides": overrides}


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[Person], OrderPaid, int, bool]:
    people = [Person(f"m{level}", draw(st.sampled_from(["", *TIERS])), 1, 1) for level in range(draw(st.integers(1, 6)))]
    names = [Attribution("creator", "c", "")] if draw(st.booleans()) else []
    names += [Attribution("store", "s1", "")] if draw(st.booleans()) else []
    people += [Person(one.member_id, "", 0, 0, one.role) for one in names]
    lines = tuple(
        OrderLine(
            number,
            draw(st.sampled_from([1, 100, 999, 1000, 5000, 20_000, 123_457])),
            draw(st.integers(1, 5)),
            draw(st.sampled_from("ABCD")),
            draw(st.sampled_from(["x", "y", ""])),
            draw(st.sampled_from(list(KINDS.values()))),
        )
        for number in range(1, draw(st.integers(1, 3)) + 1)
    )
    fact = OrderPaid("O1", "m0", "CNY", lines, tuple(names))
    return people, fact, NOON + draw(st.integers(0, 400)) * DAY_US, draw(st.booleans())


@settings(max_examples=150, deadline=None)
@given(documents(), orders())
def test_no_order_pays_more_than_the_bound(document: dict[str, Any], order: tuple[list[Person], OrderPaid, int, bool]) -> None:
    people, fact, paid_us, invited = order
    plan = parse(document)
    bound = most(plan)
    standing = Standing(plan, people, fact, paid_us, invited=invited)
    whole = {line.line_no: (line.base_minor, line.quantity) for line in fact.lines}
    shares = [share for line in entitle(standing, whole, Rooms({})) for share in line.shares if share.payee != BREAKAGE]
    assume(shares)
    bounded = [share for share in shares if share.rule_index not in bound.unbounded]
    paid = sum(share.amount_minor for share in bounded)
    base = sum(line.base_minor for line in fact.lines)
    # Each share is rounded for itself, up by less than one unit.
    assert paid <= bound.share * base + len(shares)


@pytest.mark.parametrize("at_most", [1, 30, 200, 1000, 10_000])
def test_too_many_order_sizes_to_look_at_leave_an_upper_bound(monkeypatch: pytest.MonkeyPatch, at_most: int) -> None:
    """A document of hundreds of minimum sizes is answered after so many looks, and what was not looked at never makes the bound smaller."""
    rules = [
        {"id": f"fixed-{n}", "kind": "self", "fixed_minor": n + 1, "per": "order", "when": {"min_order_minor": 100 + n}} for n in range(40)
    ] + [{"id": f"rate-{n}", "kind": "generation", "generation": 1, "rate": f"0.{n:02}%"} for n in range(1, 20)]
    overrides = [{"when": {"min_order_minor": 50 * n}, "rules": {"rate-7": {"rate": f"{n % 7}%"}}} for n in range(1, 60)]
    plan = parse({"plan": "p", "version": 1, "currency": "GBP", "rules": rules, "overrides": overrides})
    exact = bounds.most(plan).share
    looks = 0
    pay = bounds._pay

    def counted(*arguments: Any) -> bounds.Pay:
        nonlocal looks
        looks += 1
        return pay(*arguments)

    monkeypatch.setattr(bounds, "MOST_LOOKS", at_most)
    monkeypatch.setattr(bounds, "_pay", counted)
    assert bounds.most(plan).share >= exact
    assert looks <= max(at_most, 3 * len(rules))
