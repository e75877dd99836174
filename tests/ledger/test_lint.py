"""The linter: each finding with a plan that draws it and a neighbour that does not; the bound on payout; versions side by side."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from services.kernel.times import from_text
from services.ledger.domain.bounds import most
from services.ledger.domain.lint import SOURCES, WAIVABLE, lint, refusing
from services.ledger.domain.plan import PlanVersion, parse

DOC = Path(__file__).resolve().parents[2] / "docs" / "plan-linter.md"
FIRST = {"id": "first", "kind": "generation", "generation": 1, "rate": "10%"}
LADDER = {"id": "ladder", "kind": "differential", "rates": {"low": "5%", "high": "10%"}}
BY_TIER = {"id": "first", "kind": "generation", "generation": 1, "rates": {"low": "5%", "high": "8%"}}
INVITE = {"id": "invite", "kind": "triggered", "on": "invite", "to": {"referrer": 800}}
TASK = {"id": "task", "kind": "triggered", "on": "task", "task": "share", "to": {"member": 5}}
COUNTED = {"id": "red", "kind": "counted", "at": 3, "fixed_minor": 300, "when": {"min_order_minor": 2000}}
RANK = {"id": "board", "kind": "rank", "board": "own", "places_minor": [1000], "at_least": 10_000}
POOL = {"id": "fund", "kind": "pool", "per": "period", "role": "partner", "rate": "1%"}
POOL_BY_TIER = {"id": "fund", "kind": "pool", "per": "period", "tiers": ["high"], "rate": "1%"}
VOLUME = {"id": "team", "kind": "volume", "brackets": [{"from_minor": 0, "rate": "1%"}]}
UPGRADE = {"id": "up", "kind": "triggered", "on": "upgrade", "to": {"referrer": 100}, "when": {"min_order_minor": 1000}}
POINTS = {"asset": "points"}
JANUARY = {"from": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"}
PACK = {"metric": "gift_packs", "at_least": 1}
OWN = {"metric": "own_volume", "at_least": 1000}
DIRECTS = {"metric": "qualified_directs", "at_least": 2}


def document(*rules: dict[str, Any], profile: str | None = "cn-strict", **more: Any) -> dict[str, Any]:
    named = {} if profile is None else {"profile": profile}
    points = {"points": ["points"]} if any(rule.get("asset") for rule in rules) else {}
    return {
        "plan": "p",
        "version": 1,
        "currency": "CNY",
        **named,
        **points,
        "tiers": ["low", "high"],
        "rules": list(rules or [FIRST]),
        **more,
    }


def promoted(*conditions: dict[str, Any], tier: str = "low", every: bool = False) -> dict[str, Any]:
    return {"tier": tier, "all" if every else "any": list(conditions)}


def found(drawn: dict[str, Any], *published: PlanVersion) -> set[tuple[str, str]]:
    return {(finding.rule, finding.severity) for finding in lint(parse(drawn), published)}


COMMON: dict[str, Any] = {"profile": "cn-common"}
NONE: dict[str, Any] = {"profile": "none"}
BOTH_TIERS = [promoted(DIRECTS), promoted({**DIRECTS, "at_least": 5}, tier="high")]
# (finding, severity, a plan that draws it, the same with one thing changed that does not)
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("profile-missing", "warning", document(profile=None), document()),
    # ---- who may earn
    ("depth-over-limit", "error", document({**FIRST, "generation": 2}), document()),
    ("depth-over-limit", "error", document({**FIRST, "generation": 3}, **COMMON), document({**FIRST, "generation": 2}, **COMMON)),
    (
        "depth-over-limit",
        "error",
        document({**BY_TIER, "skip_unqualified": True}),
        document({**BY_TIER, "skip_unqualified": True, "depth": 1}),
    ),
    (
        "depth-over-limit",
        "error",
        document({**BY_TIER, "skip_unqualified": True, "depth": 3}, **COMMON),
        document({**BY_TIER, "skip_unqualified": True, "depth": 2}, **COMMON),
    ),
    ("depth-over-limit", "error", document(LADDER), document({**LADDER, "depth": 1})),
    ("depth-over-limit", "error", document(LADDER, **COMMON), document({**LADDER, "depth": 2}, **COMMON)),
    (
        "depth-over-limit",
        "error",
        document(FIRST, {"id": "peer", "kind": "peer", "rates": {"high": "1%"}, "depth": 3}, **COMMON),
        document(FIRST, {"id": "peer", "kind": "peer", "rates": {"high": "1%"}, "depth": 2}, **COMMON),
    ),
    (
        "depth-over-limit",
        "error",
        document({**FIRST, "generation": 3}, **COMMON),
        document({**FIRST, "generation": 3, "rate": "0%"}, **COMMON),
    ),
    ("depth-over-limit", "error", document({**FIRST, "generation": 3}), document({**FIRST, "generation": 3}, **NONE)),
    ("two-levels", "warning", document({**FIRST, "generation": 2}, **COMMON), document(**COMMON)),
    ("team-volume", "error", document(VOLUME), document(VOLUME, **NONE)),
    ("team-volume", "error", document(VOLUME, **COMMON), document(POOL, **COMMON)),
    (
        "team-volume",
        "error",
        document({**POOL, "split": "volume", "volume": "team"}),
        document({**POOL, "split": "volume", "volume": "own"}),
    ),
    ("team-volume", "error", document({**RANK, "board": "team"}, **COMMON), document({**RANK, "board": "direct"}, **COMMON)),
    (
        "promotion-by-team",
        "warning",
        document(promotions=[promoted({"metric": "team_volume", "at_least": 1, "depth": 2})]),
        document(promotions=[promoted({"metric": "team_volume", "at_least": 1, "depth": 1})]),
    ),
    # ---- what may be rewarded
    ("reward-on-fee", "error", document({**FIRST, "when": {"kinds": ["goods", "fee"]}}), document({**FIRST, "when": {"kinds": ["goods"]}})),
    ("reward-on-fee", "error", document({**POOL, "when": {"kinds": ["fee"]}}, **COMMON), document(POOL, **COMMON)),
    (
        "reward-on-fee",
        "warning",
        document({"id": "s", "kind": "self", "fixed_minor": 1, **POINTS, "when": {"kinds": ["fee"]}}),
        document({"id": "s", "kind": "self", "fixed_minor": 1, **POINTS}),
    ),
    ("reward-on-registration", "error", document(FIRST, {**TASK, "task": "register"}), document(FIRST, TASK)),
    (
        "reward-on-registration",
        "error",
        document(FIRST, {**TASK, "task": "注册"}, **COMMON),
        document(FIRST, {**TASK, "task": "分享"}, **COMMON),
    ),
    (
        "reward-on-registration",
        "warning",
        document(FIRST, {**TASK, "task": "sign-up", **POINTS}),
        document(FIRST, {**TASK, "task": "share", **POINTS}),
    ),
    ("reward-on-head-count", "error", document(COUNTED), document({**COUNTED, **POINTS})),
    ("reward-on-head-count", "error", document(COUNTED, **COMMON), document(COUNTED, **NONE)),
    ("reward-on-head-count", "warning", document({**COUNTED, **POINTS}), document()),
    ("reward-on-head-count", "error", document({**RANK, "board": "invites"}, **COMMON), document(RANK, **COMMON)),
    ("reward-on-head-count", "warning", document({**RANK, "board": "invites", **POINTS}), document({**RANK, **POINTS})),
    ("reward-on-head-count", "error", document(INVITE), document({**INVITE, "to": {"buyer": 800}})),
    ("reward-on-head-count", "error", document(INVITE, **COMMON), document({**INVITE, "when": {"min_order_minor": 5000}}, **COMMON)),
    ("reward-on-head-count", "warning", document({**INVITE, "when": {"min_order_minor": 5000}}), document()),
    ("reward-on-head-count", "warning", document({**INVITE, **POINTS}), document({**INVITE, **POINTS, "to": {"buyer": 1}})),
    ("reward-on-head-count", "error", document({**TASK, "to": {"referrer": 5}}, **COMMON), document(TASK, **COMMON)),
    (
        "reward-on-upgrade",
        "warning",
        document(UPGRADE, promotions=BOTH_TIERS),
        document({**UPGRADE, "to": {"buyer": 1}}, promotions=BOTH_TIERS),
    ),
    ("task-in-money", "warning", document(FIRST, TASK, **COMMON), document(FIRST, {**TASK, **POINTS}, **COMMON)),
    # ---- ways in
    (
        "gift-pack-entry",
        "error",
        document(BY_TIER, promotions=[promoted(PACK), BOTH_TIERS[1]]),
        document(BY_TIER, promotions=[promoted(PACK, DIRECTS), BOTH_TIERS[1]]),
    ),
    (
        "gift-pack-entry",
        "error",
        document(BY_TIER, promotions=[promoted(PACK, DIRECTS, every=True), BOTH_TIERS[1]], **COMMON),
        document(BY_TIER, promotions=[promoted(PACK, DIRECTS, every=True), *BOTH_TIERS], **COMMON),
    ),
    (
        "gift-pack-entry",
        "error",
        document(BY_TIER, promotions=[promoted(PACK), BOTH_TIERS[1]], granted=["low"]),
        document(BY_TIER, promotions=[promoted(PACK), BOTH_TIERS[1]], waivers={"gift-pack-entry": "counsel, 2026-03-01"}),
    ),
    (
        "gift-pack-entry",
        "warning",
        document(BY_TIER, promotions=[promoted(PACK), BOTH_TIERS[1]], waivers={"gift-pack-entry": "counsel, 2026-03-01"}),
        document(promotions=[promoted(PACK)]),
    ),
    (
        "entry-by-purchase",
        "warning",
        document(BY_TIER, promotions=[promoted(PACK, OWN), BOTH_TIERS[1]]),
        document(BY_TIER, promotions=[promoted(PACK, OWN, DIRECTS), BOTH_TIERS[1]]),
    ),
    # ---- how much
    ("payout-over-limit", "error", document({**FIRST, "rate": "30.000001%"}), document({**FIRST, "rate": "30%"})),
    ("payout-over-limit", "error", document({**FIRST, "rate": "31%"}), document({**FIRST, "rate": "31%"}, **COMMON)),
    (
        "payout-over-base",
        "error",
        document({**FIRST, "rate": "60%"}, {**POOL, "rate": "41%"}, **NONE),
        document({**FIRST, "rate": "60%"}, **NONE),
    ),
    (
        "payout-over-base",
        "error",
        document({**INVITE, "when": {"min_order_minor": 799}}, **NONE),
        document({**INVITE, "when": {"min_order_minor": 800}}, **NONE),
    ),
    ("payout-not-bounded", "error", document({**FIRST, "fixed_minor": 1}), document({**FIRST, "fixed_minor": 0})),
    (
        "payout-not-bounded",
        "error",
        document({"id": "s", "kind": "self", "fixed_minor": 100, "per": "order"}),
        document({"id": "s", "kind": "self", "fixed_minor": 100, "per": "order", "when": {"min_order_minor": 1000}}),
    ),
    (
        "payout-not-bounded",
        "error",
        document({"id": "s", "kind": "self", "fixed_minor": 100, "when": {"min_order_minor": 1000}}),
        document({"id": "s", "kind": "self", "fixed_minor": 100, "when": {"min_order_minor": 1000}, "cap_minor": {"order": 200}}),
    ),
    ("payout-not-bounded", "error", document({**RANK, "at_least": 999}), document({**RANK, "at_least": 10_000})),
    ("payout-not-bounded", "error", document(FIRST, TASK), document(FIRST, {**TASK, **POINTS})),
    ("payout-not-bounded", "warning", document({**FIRST, "fixed_minor": 1}, **COMMON), document(**COMMON)),
    (
        "payout-not-bounded",
        "warning",
        document({**FIRST, "fixed_minor": 1}, **NONE),
        document({**FIRST, "fixed_minor": 1, **POINTS}, **NONE),
    ),
    # ---- tiers
    ("tier-unreachable", "error", document(BY_TIER, promotions=[promoted(DIRECTS)]), document(BY_TIER, promotions=BOTH_TIERS)),
    ("tier-unreachable", "error", document(BY_TIER, promotions=[promoted(DIRECTS)], **NONE), document(BY_TIER, **NONE)),
    (
        "tier-unreachable",
        "error",
        document(BY_TIER, promotions=[promoted(DIRECTS)]),
        document(BY_TIER, promotions=[promoted(DIRECTS)], granted=["high"]),
    ),
    (
        "tier-unreachable",
        "error",
        document(POOL_BY_TIER, promotions=[promoted(DIRECTS)]),
        document(POOL_BY_TIER, promotions=[promoted(DIRECTS)], seats={"high": 3}),
    ),
    (
        "higher-tier-easier",
        "warning",
        document(promotions=[BOTH_TIERS[0], {**BOTH_TIERS[0], "tier": "high"}]),
        document(promotions=BOTH_TIERS),
    ),
    (
        "higher-tier-easier",
        "warning",
        document(promotions=[promoted({**OWN, "days": 30}), promoted({**OWN, "days": 60}, tier="high")]),
        document(promotions=[promoted({**OWN, "days": 60}), promoted({**OWN, "days": 30}, tier="high")]),
    ),
    (
        "higher-tier-easier",
        "warning",
        document(promotions=[promoted(OWN, DIRECTS, every=True), promoted(OWN, tier="high")]),
        document(promotions=[promoted(OWN, DIRECTS), promoted(OWN, tier="high")]),
    ),
    (
        "higher-tier-earns-less",
        "warning",
        document({**LADDER, "rates": {"low": "5%", "high": "4%"}}, **NONE),
        document({**LADDER, "rates": {"low": "5%", "high": "5%"}}, **NONE),
    ),
    # ---- what does nothing
    ("rule-never-pays", "warning", document({**FIRST, "rate": "0%"}), document()),
    (
        "rule-never-pays",
        "warning",
        document({**FIRST, "rate": "0%"}),
        document({**FIRST, "rate": "0%"}, overrides=[{"when": {"days": [8]}, "rules": {"first": {"rate": "1%"}}}]),
    ),
    ("rule-never-pays", "warning", document({**FIRST, "cap_minor": {"order": 0}}), document({**FIRST, "cap_minor": {"order": 1}})),
    ("rule-never-pays", "warning", document(UPGRADE), document(UPGRADE, promotions=BOTH_TIERS)),
    (
        "rule-never-pays",
        "warning",
        document({**UPGRADE, "tier": "high"}, promotions=[promoted(DIRECTS)]),
        document({**UPGRADE, "tier": "low"}, promotions=[promoted(DIRECTS)]),
    ),
    (
        "rule-never-pays",
        "warning",
        document({**FIRST, "when": {"until": "2026-01-01T00:00:00Z"}}, effective={"from": "2026-01-01T00:00:00Z"}),
        document({**FIRST, "when": {"until": "2026-01-01T00:00:01Z"}}, effective={"from": "2026-01-01T00:00:00Z"}),
    ),
    (
        "rule-never-pays",
        "warning",
        document(overrides=[{"when": {"from": "2026-02-01T00:00:00Z"}, "rules": {"first": {"rate": "1%"}}}], effective=JANUARY),
        document(overrides=[{"when": {"from": "2026-01-31T00:00:00Z"}, "rules": {"first": {"rate": "1%"}}}], effective=JANUARY),
    ),
    (
        "rule-never-pays",
        "warning",
        document({**FIRST, "when": {"regions": ["杭州"]}}),
        document({**FIRST, "when": {"regions": ["330100"]}}),
    ),
    (
        "role-misspelt",
        "warning",
        document({"id": "o", "kind": "attributed", "role": "creater", "rate": "1%"}),
        document({"id": "o", "kind": "attributed", "role": "creator", "rate": "1%"}),
    ),
    ("points-unused", "warning", document(points=["points"]), document({**TASK, **POINTS})),
    ("waiver-unknown", "error", document(waivers={"depth-over-limit": "no"}, **NONE), document(**NONE)),
    (
        "waiver-unused",
        "warning",
        document(waivers={"gift-pack-entry": "counsel"}),
        document(BY_TIER, promotions=[promoted(PACK), BOTH_TIERS[1]], waivers={"gift-pack-entry": "counsel"}),
    ),
]


@pytest.mark.parametrize(("rule", "severity", "drawing", "neighbour"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_a_finding_is_drawn_by_one_plan_and_not_by_its_neighbour(
    rule: str, severity: str, drawing: dict[str, Any], neighbour: dict[str, Any]
) -> None:
    assert (rule, severity) in found(drawing)
    assert (rule, severity) not in found(neighbour)


@pytest.mark.parametrize("case", [case for case in CASES if case[1] == "error"], ids=lambda case: str(case[0]))
def test_an_older_document_without_a_profile_is_advised_and_never_refused(case: tuple[str, str, dict[str, Any], dict[str, Any]]) -> None:
    older = {key: value for key, value in case[2].items() if key != "profile"}
    findings = lint(parse(older), [])
    assert findings
    assert refusing(findings) is None


def test_every_finding_is_in_the_table_in_the_code_and_in_the_document() -> None:
    tabled = {case[0] for case in CASES} | {"versions-overlap", "counted-terms-changed"}
    told = set(re.findall(r"^\| `([a-z-]+)`", DOC.read_text(encoding="utf-8").partition("## Findings")[2], re.MULTILINE))
    assert tabled == set(SOURCES)
    assert told == set(SOURCES)
    assert set(WAIVABLE) <= set(SOURCES)


def test_every_finding_says_what_to_do_in_whole_sentences_and_where() -> None:
    for case in CASES:
        for finding in lint(parse(case[2]), []):
            assert finding.problem[0].isupper() or finding.problem.startswith(("low", "high", "gift", "depth"))
            assert len(finding.problem) < 400
            assert finding.path
            assert finding.source == "" or finding.source == SOURCES[finding.rule]


def test_a_profile_of_none_answers_to_no_law() -> None:
    plan = document({**FIRST, "generation": 5}, VOLUME, {**INVITE, "when": {"min_order_minor": 1000}}, {**COUNTED, "when": {}}, **NONE)
    assert found(plan) == {("payout-not-bounded", "warning")}


# ---------------------------------------------------------------- the bound


GOODS = {"when": {"kinds": ["goods"]}}
PACKS = {"when": {"kinds": ["gift_pack"]}}


@pytest.mark.parametrize(
    ("percent", "rules", "more"),
    [
        ("10", [FIRST], {}),
        ("8", [BY_TIER], {}),
        # Rates of lines that exclude each other do not add up.
        ("12", [{**FIRST, **GOODS}, {**FIRST, "id": "packs", "rate": "12%", **PACKS}], {}),
        ("22", [FIRST, {**FIRST, "id": "packs", "rate": "12%", **PACKS}], {}),
        (
            "13",
            [
                FIRST,
                {**FIRST, "id": "a", "rate": "3%", "when": {"skus": ["A"]}},
                {**FIRST, "id": "b", "rate": "2%", "when": {"skus": ["B"]}},
            ],
            {},
        ),
        ("12", [{**FIRST, "when": {"days": [8]}}, {**FIRST, "id": "b", "rate": "12%", "when": {"days": [9]}}], {}),
        ("22", [{**FIRST, "when": {"days": [8]}}, {**FIRST, "id": "b", "rate": "12%", "when": {"weekdays": ["mon"]}}], {}),
        ("22", [{**FIRST, "when": {"stores": ["a"]}}, {**FIRST, "id": "b", "rate": "12%", "when": {"stores": ["b"]}}], {}),
        # An override takes the place of the rule's own amount, where it certainly holds; at a place it may not.
        ("10", [FIRST], {"overrides": [{"when": {"categories": ["tea"]}, "rules": {"first": {"rate": "4%"}}}]}),
        ("14", [FIRST], {"overrides": [{"when": {"categories": ["tea"]}, "rules": {"first": {"rate": "14%"}}}]}),
        ("10", [FIRST], {"overrides": [{"when": {"stores": ["a"]}, "rules": {"first": {"rate": "4%"}}}]}),
        ("4", [{**FIRST, "when": {"skus": ["A"]}}], {"overrides": [{"when": {"skus": ["A"]}, "rules": {"first": {"rate": "4%"}}}]}),
        # A ladder is one pool; a peer by line has a seat for each tier and time; by income it takes part of what somebody earns.
        ("10", [LADDER], {}),
        ("19", [LADDER, {"id": "p", "kind": "peer", "rates": {"low": "1%", "high": "2%"}, "times": 3}], {}),
        ("11", [LADDER, {"id": "p", "kind": "peer", "of": "ladder", "base": "income", "rates": {"low": "5%", "high": "10%"}}], {}),
        # Whoever is exclusive earns, or those up the chain do.
        ("15", [FIRST, {"id": "c", "kind": "attributed", "role": "creator", "rate": "15%", "with_referrer": "exclusive"}], {}),
        ("10", [FIRST, {"id": "c", "kind": "attributed", "role": "creator", "rate": "5%", "with_referrer": "exclusive"}], {}),
        ("25", [FIRST, {"id": "c", "kind": "attributed", "role": "creator", "rate": "15%"}], {}),
        # Fixed amounts count against the smallest order that brings them; the rate beside them too.
        ("20", [FIRST, {"id": "s", "kind": "self", "fixed_minor": 100, "per": "order", "when": {"min_order_minor": 1000}}], {}),
        ("10", [FIRST, {"id": "s", "kind": "self", "fixed_minor": 100, "asset": "points"}], {}),
        ("15", [FIRST, COUNTED], {}),
        ("11", [FIRST, POOL], {}),
        ("11", [FIRST, VOLUME], {}),
        ("20", [FIRST, RANK], {}),
    ],
)
def test_the_most_a_plan_pays(percent: str, rules: list[dict[str, Any]], more: dict[str, Any]) -> None:
    bound = most(parse(document(*rules, **more)))
    assert not bound.unbounded
    assert bound.share == Fraction(int(percent), 100)
    assert sum(bound.by_rule.values()) == bound.share


def test_a_plan_of_very_many_conditions_is_bounded_in_short_time_and_never_too_low() -> None:
    """What cannot be looked at one by one counts as if it might hold."""
    rules = [
        {**FIRST, "id": f"r{n}", "rate": "0.1%", "when": {"skus": [f"s{n}"], "categories": [f"c{n}"], "days": [n % 31 + 1]}}
        for n in range(300)
    ]
    bound = most(parse(document(*rules)))
    assert 1 <= bound.share * 1000 <= 300


# ---------------------------------------------------------------- versions


def published(start: str, until: str | None = None, plan_id: str = "old") -> PlanVersion:
    plan = parse(document() | {"plan": plan_id})
    return PlanVersion(plan, 2, from_text(start), from_text(until) if until else None, b"")


JAN, FEB, MAR, APR = (f"2026-0{month}-01T00:00:00Z" for month in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("older", "start", "until", "overlaps"),
    [
        (published(JAN), FEB, None, False),  # supersedes
        (published(JAN), FEB, MAR, False),  # a campaign within
        (published(FEB), JAN, FEB, False),  # before it
        (published(FEB), FEB, None, True),  # from the same instant
        (published(FEB), JAN, None, True),  # reaches back
        (published(FEB), JAN, MAR, True),
        (published(JAN, MAR), MAR, None, False),  # follows
        (published(JAN, MAR), FEB, None, True),  # cuts it short
        (published(FEB, MAR), JAN, APR, True),  # covers it
        (published(MAR, APR), JAN, MAR, False),
    ],
)
def test_versions_whose_stated_windows_overlap_are_refused(older: PlanVersion, start: str, until: str | None, overlaps: bool) -> None:
    window = {"from": start} | ({"until": until} if until else {})
    assert (("versions-overlap", "error") in found(document(effective=window), older)) is overlaps


GIFT = {**COUNTED, "repeat": True, "most": 10, "when": {}}


def before(*rules: dict[str, Any], **more: Any) -> PlanVersion:
    """A version in force in January."""
    return PlanVersion(parse(document(*rules, **NONE, **more)), 2, from_text(JAN), None, b"")


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        ({**GIFT, "at": 5}, "at is 5, there 3"),
        ({**GIFT, "fixed_minor": 200}, "fixed_minor is 200, there 300"),
        ({**GIFT, "repeat": False}, "repeat is false, there true"),
        ({key: value for key, value in GIFT.items() if key != "most"}, "most is left out, there 10"),
        ({**GIFT, **POINTS}, "asset is points, there CNY"),
        ({**GIFT, "at": 5, "fixed_minor": 200}, "at is 5, there 3, fixed_minor is 200, there 300"),
        # Each order counts, and is taken out again, by its own conditions; and when it is released does not change how much.
        ({**GIFT, "when": {"min_order_minor": 2000}}, ""),
        ({**GIFT, "release": {"days": 9}}, ""),
        ({**GIFT, "id": "other", "at": 5}, ""),
        ({**FIRST, "id": "red"}, ""),
        (GIFT, ""),
    ],
)
@pytest.mark.parametrize("profile", ["cn-strict", "cn-common", "none", None])
def test_a_counted_rule_that_changes_its_terms_under_the_same_id_is_refused(
    rule: dict[str, Any], changed: str, profile: str | None
) -> None:
    """At every profile, whichever version before had the other terms; an older document is advised."""
    plan = parse(document(FIRST, rule, profile=profile))
    history = [before(GIFT), before(FIRST), before(GIFT)]
    told = [finding for finding in lint(plan, history) if finding.rule == "counted-terms-changed"]
    assert [(one.severity, one.path) for one in told] == ([("error" if profile else "warning", "rules[1]")] if changed else [])
    assert all(f": {changed}. " in one.problem and one.problem.endswith("Give it another id.") for one in told)


def test_a_counted_rule_is_held_against_every_version_before_not_only_the_last() -> None:
    """Orders of any of them may still be refunded."""
    assert ("counted-terms-changed", "error") in found(document(GIFT, **NONE), before({**GIFT, "at": 5}), before(GIFT))
