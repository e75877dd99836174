"""Plans in sentences: every kind of rule, as an operator reads it."""

from typing import Any

import pytest

from services.ledger.domain.plan import parse
from services.ledger.telling import tell


def plan(**more: Any) -> dict[str, Any]:
    rules = more.pop("rules", [{"id": "r", "kind": "generation", "generation": 1, "rate": "10%"}])
    return {"plan": "p", "version": 3, "currency": "CNY", "tiers": ["low", "high"], "points": ["stars"], "rules": rules} | more


LATER = " It is available on completion of the order."
CLOSED = " It is available on the closing of the month."


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"kind": "self", "rate": "2.5%"}, "The buyer earns 2.5%." + LATER),
        ({"kind": "generation", "generation": 1, "rate": "10%"}, "Whoever brought the buyer earns 10%." + LATER),
        (
            {"kind": "generation", "generation": 2, "rates": {"high": "5%"}, "rate": None, "release": {"days": 7}},
            "Whoever brought the one who brought the buyer earns high 5%, others nothing. It is available 7 days"
            " after completion of the order.",
        ),
        (
            {"kind": "generation", "generation": 3, "fixed_minor": 123456, "per": "order", "release": {"on": "at_once"}},
            "The person 3 levels above the buyer earns 1,234.56 CNY once an order. It is available at once.",
        ),
        (
            {"kind": "generation", "generation": 2, "rates": {"low": "1%", "high": "2%"}, "skip_unqualified": True, "depth": 5},
            "Of the people above the buyer whose tier has an amount, the 2nd earns low 1%, high 2%, others nothing. Others are passed over,"
            " up to 5 levels above the buyer." + LATER,
        ),
        (
            {"kind": "differential", "rates": {"low": "5%", "high": "8%"}, "buyer": "deducts", "depth": 2},
            "Going up from the buyer, 2 levels at most, everybody earns the amount of their tier less the highest amount met below them:"
            " low 5%, high 8%, others nothing. The buyer's own tier counts as earned below, and is not paid." + LATER,
        ),
        (
            {"kind": "peer", "rates": {"high": "5%"}, "times": 2, "depth": 4},
            "Above the first person of a tier above the buyer, each of the next 2 people of the same tier earns by"
            " that tier: high 5%, others"
            " nothing. No further up than 4 levels above the buyer." + LATER,
        ),
        (
            {"kind": "attributed", "role": "creator", "rate": "10%", "with_referrer": "split", "referrer_share": "40%"},
            "Whoever the order names as creator earns 10%; several share it by their weights. Whoever brought the"
            " buyer has 40% of that, they"
            " the rest." + LATER,
        ),
        (
            {"kind": "attributed", "role": "guide", "fixed_minor": 30, "with_referrer": "exclusive"},
            "Whoever the order names as guide earns 0.30 CNY for each unit; several share it by their weights. Where somebody does, nobody"
            " earns as the buyer's upline on that line." + LATER,
        ),
        (
            {"kind": "pool", "role": "partner", "split": "seats", "of_total": 4, "rate": "1%", "cap_minor": {"order": 500, "period": 9000}},
            "All who hold the role partner share 1%, each one of 4 equal parts. Nobody earns more by it than 5.00"
            " CNY from one order and 90.00"
            " CNY in one month." + LATER,
        ),
        (
            {"kind": "triggered", "on": "group_formed", "fixed_minor": 1000, "per": "group", "release": {"on": "group_formed", "days": 1}},
            "Whoever opened the group that an order joins earns 10.00 CNY once a group. It is available 1 day"
            " after the forming of the group,"
            " or, without a group, 1 day after completion of the order.",
        ),
        (
            {"kind": "triggered", "on": "invite", "to": {"buyer": 500, "referrer": 800}, "when": {"min_order_minor": 2000}},
            "When an order binds its buyer to somebody for life, the buyer gets 5.00 CNY and whoever brought them"
            " gets 8.00 CNY. Only in orders"
            " of 20.00 CNY or more." + LATER,
        ),
        (
            {"kind": "triggered", "on": "upgrade", "tier": "high", "to": {"referrer": 800}, "when": {"kinds": ["gift_pack"]}},
            "When an order raises its buyer to high, whoever brought the buyer gets 8.00 CNY. Only for gift packs." + LATER,
        ),
        (
            {"kind": "triggered", "on": "task", "task": "分享", "to": {"member": 5}, "most": 3, "asset": "stars"},
            "For the task 分享, the member gets 5 stars, 3 times at most for each member. It is available when the task is done.",
        ),
        (
            {"kind": "counted", "at": 3, "fixed_minor": 1000, "repeat": True, "most": 10, "asset": "stars"},
            "For every 3 people they bring who have an order that counts and is not refunded, the inviter earns"
            " 1,000 stars, 10 times at most." + LATER,
        ),
        (
            {"kind": "counted", "at": 1, "fixed_minor": 100},
            "Once they have brought one person who has an order that counts and is not refunded, the inviter earns 1.00 CNY." + LATER,
        ),
        (
            {"kind": "pool", "per": "period", "tiers": ["low", "high"], "split": "volume", "volume": "team", "rate": "1%"},
            "When a month is closed, 1% of everything bought in it goes to everybody of tier low or high, by what"
            " they and everybody below them"
            " bought in it." + CLOSED,
        ),
        (
            {"kind": "pool", "per": "period", "role": "partner", "of_total": 100, "rate": "1%", "release": {"days": 15}},
            "When a month is closed, 1% of everything bought in it goes to all who hold the role partner, by their"
            " weights out of 100. It is"
            " available 15 days after the closing of the month.",
        ),
        (
            {"kind": "volume", "brackets": [{"from_minor": 0, "rate": "1%"}, {"from_minor": 1000000, "rate": "3%"}]},
            "When a month is closed, what somebody and everybody below them bought in it gives their rate: from"
            " 0.00 CNY 1%, from 10,000.00 CNY"
            " 3%. By it everybody earns on what they bought themselves, and, on what each person they brought and"
            " that person's people bought,"
            " the difference between their rate and that person's." + CLOSED,
        ),
        (
            {"kind": "rank", "board": "direct", "places_minor": [10000, 5000], "at_least": 100000},
            "When a month is closed, people are ranked by what the people they brought bought: 100.00 CNY for"
            " place 1, 50.00 CNY for place 2."
            " Who has less than 1,000.00 CNY is not ranked, and those who tie share their places." + CLOSED,
        ),
    ],
)
def test_a_rule_is_told(rule: dict[str, Any], sentence: str) -> None:
    told = tell(parse(plan(rules=[{"id": "r"} | {key: value for key, value in rule.items() if value is not None}])))
    assert f"Rule r: {sentence}" in told


def test_a_peer_is_told_by_whom_it_follows() -> None:
    rules = [
        {"id": "ladder", "kind": "differential", "rates": {"high": "10%"}},
        {"id": "p", "kind": "peer", "of": "ladder", "base": "income", "rates": {"high": "10%"}, "depth": 2},
    ]
    assert tell(parse(plan(rules=rules)))[-1] == (
        "Rule p: Above the first person of a tier who earns by rule ladder, the next person of the same tier earns"
        " by that tier, of what that"
        " first person earns by it: high 10%, others nothing. No further up than 2 levels above the buyer." + LATER
    )


def test_conditions_are_told_in_the_plans_zone() -> None:
    when = {
        "kinds": ["goods", "fee"],
        "skus": ["B", "A"],
        "categories": ["茶"],
        "stores": ["s1"],
        "regions": ["330100", "310000"],
        "from": "2026-02-28T16:00:00Z",
        "until": "2026-03-31T16:00:00Z",
        "weekdays": ["sat", "mon"],
        "days": [1, 2, 3, 11, 22, 28],
        "min_order_minor": 100,
    }
    [told] = [
        one for one in tell(parse(plan(zone="+08:00", rules=[{"id": "r", "kind": "self", "rate": "1%", "when": when}]))) if "Rule" in one
    ]
    assert (
        "Only for goods and fees, for product A or B, for category 茶, for store s1, for region 310000 or 330100, paid from 2026-03-01"
        " 00:00 (+08:00), paid before 2026-04-01 00:00 (+08:00), on Mondays and Saturdays, on the 1st, 2nd, 3rd, 11th,"
        " 22nd and 28th of a month, in"
        " orders of 1.00 CNY or more."
    ) in told


def test_the_frame_overrides_promotions_and_seats_are_told() -> None:
    told = tell(
        parse(
            plan(
                currency="JPY",
                profile="cn-common",
                waivers={"gift-pack-entry": "counsel"},
                effective={"from": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"},
                binding={"touch": "order", "on_full_refund": "release"},
                overrides=[{"when": {"days": [8]}, "rules": {"r": {"fixed_minor": 300}}}],
                promotions=[
                    {"tier": "low", "any": [{"metric": "gift_packs", "at_least": 1}, {"metric": "orders", "at_least": 3, "days": 30}]},
                    {
                        "tier": "high",
                        "all": [
                            {"metric": "qualified_directs", "at_least": 1},
                            {"metric": "team_volume", "at_least": 5000, "depth": 1},
                            {"metric": "own_volume", "at_least": 100, "days": 7},
                        ],
                    },
                ],
                granted=["high"],
                seats={"high": 3},
                on_evidence_refunded="freeze",
            )
        )
    )
    assert told[:6] == [
        "Plan p, version 3: for orders paid from 2026-01-01 00:00 (UTC) and before 2027-01-01 00:00 (UTC), in JPY.",
        "It is checked against the profile cn-common.",
        "Waived, gift-pack-entry: counsel",
        "Tiers, lowest first: low, high.",
        "A buyer is bound for life by their first paid order or first upgrade, to the code on that order, or else"
        " to the last link or code they"
        " followed before.",
        "If the order that bound them is refunded in full, they are free again.",
    ]
    assert told[-6:] == [
        "Exception 1: Instead, by these amounts: r 300 JPY for each unit. Only on the 8th of a month.",
        "Tier low: reached with one order of a gift pack, or 3 orders of one's own within 30 days.",
        "Tier high: reached with one person brought who ordered and purchases of 5,000 JPY by oneself and those up"
        " to one level below and own"
        " purchases of 100 JPY within 7 days.",
        "Given by hand only: high.",
        "No more than 3 seats of high granted by hand at a time.",
        "When all of an order is refunded, whoever rose by it keeps the title and earns nothing by it until they rise again.",
    ]
