"""The plan format: every sentence of docs/plan-format.md, as plans that pass and neighbours that are refused with the place named."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.kernel.money import Rate
from services.kernel.refusals import PlanInvalid
from services.ledger.documents import read_document
from services.ledger.domain.facts import LineKind
from services.ledger.domain.plan import canonical, content_hash, parse
from services.ledger.domain.rules import Seat

DOCS = Path(__file__).resolve().parents[2] / "docs"
GOOD: dict[str, Any] = {
    "plan": "p",
    "version": 1,
    "currency": "CNY",
    "tiers": ["member", "manager"],
    "effective": {"from": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00+08:00"},
    "binding": {"touch": "first", "on_full_refund": "release"},
    "release": {"days": 7},
    "rules": [
        {"id": "own", "kind": "self", "rates": {"manager": "1%"}},
        {"id": "first", "kind": "generation", "generation": 1, "rate": "10%", "when": {"kinds": ["fee"], "skus": ["a"]}},
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good plan with one place changed; None takes it away."""
    document = copy.deepcopy(GOOD)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = document
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


def test_a_good_plan_reads_as_it_says() -> None:
    plan = parse(GOOD)
    assert (plan.plan_id, plan.version, plan.tiers, plan.touch, plan.on_full_refund) == ("p", 1, ("member", "manager"), "first", "release")
    seats = [rule for rule in plan.rules if isinstance(rule, Seat)]
    assert [(rule.id, rule.level, rule.release, rule.amount.top(10_000, 0)) for rule in seats] == [
        ("own", 0, ("completion", 7), 10_000),
        ("first", 1, ("completion", 7), 100_000),
    ]
    assert [rule.amount.denominator for rule in seats] == [100, 100]
    assert plan.rules[0].when.kinds == {LineKind.GOODS, LineKind.GIFT_PACK}
    assert plan.rules[1].when.kinds == {LineKind.FEE}
    assert plan.depth == 1


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "On"])
def test_words_that_yaml_once_took_for_booleans_stay_words(word: str) -> None:
    """`release: {on: at_once}` is what the format asks for, and YAML 1.1 would read the key as true."""
    assert read_document(f"{word}: {word}\nrepeat: true\n") == {word: word, "repeat": True}


@pytest.mark.parametrize("name", ["plan-format.md", "two-level.yaml"])
def test_the_plans_in_the_documents_are_plans(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    document = text.split("```yaml\n")[1].split("```")[0] if name.endswith(".md") else text
    assert parse(read_document(document)).rules


REFUSED = [
    ("plan", None, "plan", "is missing"),
    ("plan", "a b", "plan", "printable ASCII"),
    ("version", 0, "version", "from 1"),
    ("version", True, "version", "whole number"),
    ("version", "1", "version", "whole number"),
    ("currency", "cny", "currency", "ISO 4217"),
    ("tiers", ["member", "member"], "tiers", "twice"),
    ("tiers", "member", "tiers", "list of names"),
    ("effective.from", "2026-01-01", "effective.from", "quoted time"),
    ("effective.until", "2025-01-01T00:00:00Z", "effective.until", "is not after"),
    ("effective.form", "x", "effective.form", "not a key"),
    ("binding.touch", "best", "binding.touch", "last, first"),
    ("release.days", -1, "release.days", "from 0"),
    ("release.days", 1.5, "release.days", "float"),
    ("rules", [], "rules", "none"),
    ("rules", {}, "rules", "expected a list"),
    ("rules.0.id", "first", "rules[1].id", "used twice"),
    ("rules.0.kind", "pyramid", "rules[0].kind", "self, generation"),
    ("rules.0.kind", None, "rules[0].kind", "is missing"),
    ("rules.0.rate", "1%", "rules[0]", "either rate"),
    ("rules.0.rates", None, "rules[0]", "either rate"),
    ("rules.0.rates", {}, "rules[0].rates", "names no tier"),
    ("rules.0.rates", {"emperor": "1%"}, "rules[0].rates.emperor", "not one of the plan's tiers"),
    ("rules.1.rate", 0.1, "rules[1].rate", "a float is never exact"),
    ("rules.1.rate", 10, "rules[1].rate", "percentage in text"),
    ("rules.1.rate", "10", "rules[1].rate", "not a rate"),
    ("rules.1.rate", "-1%", "rules[1].rate", "not a rate"),
    ("rules.1.rate", "100.1%", "rules[1].rate", "more than 100%"),
    ("rules.1.rate", "1.0123456789%", "rules[1].rate", "not a rate"),
    ("rules.1.rate", "١%", "rules[1].rate", "not a rate"),
    ("rules.1.generation", None, "rules[1].generation", "is missing"),
    ("rules.1.generation", 101, "rules[1].generation", "from 1 to 100"),
    ("rules.0.generation", 1, "rules[0].generation", "not a key"),
    ("rules.1.when.kinds", ["toys"], "rules[1].when.kinds", "goods"),
    ("rules.1.when.colour", ["red"], "rules[1].when.colour", "not a key"),
    ("ruels", [], "ruels", "not a key"),
]


@pytest.mark.parametrize(("path", "value", "place", "problem"), REFUSED, ids=[f"{p}={v}" for p, v, *_ in REFUSED])
def test_what_the_format_does_not_know_is_refused_with_its_place(path: str, value: Any, place: str, problem: str) -> None:
    with pytest.raises(PlanInvalid) as caught:
        parse(changed(path, value))
    assert caught.value.metadata["path"] == place
    assert problem in caught.value.metadata["problem"]


@pytest.mark.parametrize("document", [None, [], "text", 5, {1: 2}], ids=repr)
def test_a_document_that_is_no_mapping_is_refused(document: Any) -> None:
    with pytest.raises(PlanInvalid):
        parse(document)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "written twice"),
        ("a: [1\n", "is not YAML"),
        ("? {x: 1}\n: 2\n", "is not text"),
        ("1: 2\n", "is not text"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("a: &x [1]\nb: *x\n", "alias"),
    ],
    ids=["twice", "broken", "mapping as key", "number as key", "python", "deep", "alias"],
)
def test_yaml_with_surprises_is_refused(text: str, problem: str) -> None:
    with pytest.raises(PlanInvalid) as caught:
        read_document(text)
    assert problem in str(caught.value)


def test_tiers_are_named_in_any_script() -> None:
    document = {**changed("tiers", ["会员", "经理"]), "rules": [{"id": "own", "kind": "self", "rates": {"经理": "1%"}}]}
    [rule] = parse(document).rules
    assert isinstance(rule, Seat)
    assert rule.amount.rate_of("经理") == Rate.of_percent("1%")
    with pytest.raises(PlanInvalid):
        parse(changed("tiers", ["a b"]))


def test_times_may_be_written_without_quotes() -> None:
    """YAML would make a naive date of them; here they stay the text they are."""
    text = yaml.safe_dump(GOOD).replace("'2026-01-01T00:00:00Z'", "2026-01-01T00:00:00Z")
    assert parse(read_document(text)) == parse(GOOD)


def test_the_content_hash_does_not_depend_on_how_the_document_is_written() -> None:
    reordered = dict(reversed(list(GOOD.items())))
    assert content_hash(canonical(reordered)) == content_hash(canonical(GOOD))
    assert content_hash(canonical(changed("version", 2))) != content_hash(canonical(GOOD))
