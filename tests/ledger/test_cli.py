"""The ledger's commands, run against the server: what they say at 80 columns, their JSON, and how they end."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.__main__ import app
from services.composition import RunningServer
from services.ledger.cli import plans
from tests.given import Client

PLAN = """# 测试 / A plan to try things with
plan: try
version: 1
currency: GBP
profile: none
points: [stars]
tiers: [gold]
effective: {from: "2026-01-01T00:00:00Z"}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: opener, kind: triggered, on: group_formed, rate: 5%}
  - {id: live, kind: attributed, role: creator, rate: 5%}
  - {id: shop, kind: attributed, role: store, rate: 1%}
  - {id: stars, kind: self, fixed_minor: 20, per: order, asset: stars, release: {on: at_once}}
  - {id: share, kind: triggered, on: task, task: share, to: {member: 5}, asset: stars, release: {on: at_once}}
  - {id: fund, kind: pool, per: period, tiers: [gold], split: volume, rate: 1%}
promotions:
  - {tier: gold, any: [{metric: own_volume, at_least: 10000}]}
"""
FORBIDDEN = PLAN.replace("profile: none", "profile: cn-strict").replace("generation: 1", "generation: 2")
Run = Callable[..., Result]


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "80", "FENRUN_PROGRAM": None, "FENRUN_TARGET": None})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN, encoding="utf-8")
    return path


@pytest.fixture
def run(client: Client, server: RunningServer) -> Run:
    """A command about the program of this test."""
    return lambda *words: invoke(*words, "-P", client.program_id, "--target", server.address)


@pytest.fixture
def shop(run: Run, file: Path) -> Run:
    """mei brought bo; cy is a creator."""
    for words in (
        ("plan", "publish", str(file), "--at", "2026-01-01"),
        ("member", "enroll", "mei", "--at", "2026-01-02"),
        ("member", "enroll", "bo", "--referrer", "mei", "--at", "2026-01-02"),
        ("member", "enroll", "cy", "--at", "2026-01-02"),
    ):
        done = run(*words)
        assert done.exit_code == 0, done.output
    return run


def said(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()), default=0) <= 80
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# ---------------------------------------------------------------- plans, without a server


def test_lint_reads_a_file_without_a_server_and_says_errors_by_its_status(file: Path) -> None:
    assert said(invoke("plan", "lint", str(file)))[-2] == "plan try version 1 may be published: nothing to say"
    file.write_text(FORBIDDEN, encoding="utf-8")
    refused = invoke("plan", "lint", str(file))
    assert refused.exit_code == 1
    assert max(map(len, refused.stdout.splitlines())) <= 80
    assert refused.stdout.splitlines()[0].split() == ["error", "depth-over-limit", "rules[0]"]
    assert "plan try version 1 must not be published: 1 error" in refused.stdout


def test_lint_as_json_is_what_the_contract_says(file: Path) -> None:
    file.write_text(FORBIDDEN, encoding="utf-8")
    refused = invoke("plan", "lint", str(file), "--json")
    found = json.loads(refused.stdout)
    assert refused.exit_code == 1
    assert not found["publishable"]
    assert (found["findings"][0]["severity"], found["findings"][0]["rule"]) == ("SEVERITY_ERROR", "depth-over-limit")


@pytest.mark.parametrize(("text", "problem"), [("plan: [", "is not YAML"), ("a: 1", "plan is missing"), ("", "expected a mapping")])
def test_a_file_that_is_no_plan_is_a_sentence(file: Path, text: str, problem: str) -> None:
    file.write_text(text, encoding="utf-8")
    for command in ("lint", "explain"):
        refused = invoke("plan", command, str(file))
        assert refused.exit_code == 1
        assert problem in refused.stderr.replace(":", "")
        assert "PLAN_INVALID" in refused.stderr


def test_explain_tells_a_file_rule_by_rule(file: Path) -> None:
    lines = said(invoke("plan", "explain", str(file)))
    assert "Rule first: Whoever brought the buyer earns 10%. It is available on completion" in lines
    assert document(invoke("plan", "explain", str(file), "--json"))["plan_id"] == "try"
    assert invoke("plan", "explain", "no-such-file").exit_code == 1


def test_presets_are_listed_and_begin_drafts_that_keep_their_comments(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(plans, "PRESETS", file.parent)
    assert said(invoke("plan", "presets")) == ["plan 测试 / A plan to try things with"]
    assert document(invoke("plan", "presets", "--json")) == [{"preset": "plan", "title": "测试 / A plan to try things with"}]
    draft = tmp_path / "drafts.yml"
    options = ["--preset", "plan", "-o", str(draft), "--plan", "mine", "--currency", "GBP", "--from", "2026-02-01"]
    assert invoke("plan", "new", *options).exit_code == 0
    expected = PLAN.replace("plan: try", "plan: mine").replace("2026-01-01T00:00:00Z", "2026-02-01T00:00:00+00:00")
    assert draft.read_text(encoding="utf-8") == expected
    assert "is there already" in invoke("plan", "new", *options).stderr
    assert "there is no preset 'other'" in invoke("plan", "new", "--preset", "other", "-o", str(tmp_path / "x")).stderr
    assert run("plan", "publish", str(draft)).exit_code == 0


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            'effective: {from: "2026-03-01T00:00:00+08:00", until: "2026-04-01T00:00:00+08:00"}',
            'effective: {from: "2027-01-01T00:00:00+00:00", until: "2027-02-01T00:00:00+00:00"}',
        ),
        ('effective:\n  from: "2026-03-01T00:00:00Z"  # spring', 'effective:\n  from: "2027-01-01T00:00:00+00:00"  # spring'),
        ("", 'effective: {from: "2027-01-01T00:00:00+00:00"}'),
    ],
)
def test_a_draft_of_another_beginning_lasts_as_long(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: str
) -> None:
    monkeypatch.setattr(plans, "PRESETS", file.parent)
    file.write_text(PLAN.replace('effective: {from: "2026-01-01T00:00:00Z"}', written), encoding="utf-8")
    draft = tmp_path / "draft.yml"
    assert invoke("plan", "new", "--preset", "plan", "-o", str(draft), "--from", "2027-01-01").exit_code == 0
    assert expected in draft.read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", sorted(plans.PRESETS.glob("*.yaml")), ids=lambda path: str(path.stem))
def test_every_preset_that_is_shipped_has_a_title_and_may_be_published(preset: Path) -> None:
    lines: Sequence[str] = preset.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert " / " in lines[0]
    linted = invoke("plan", "lint", str(preset))
    assert linted.exit_code == 0, linted.stdout


# ---------------------------------------------------------------- plans, with the server


def test_lint_with_a_program_knows_the_versions_before(shop: Run, file: Path) -> None:
    file.write_text(PLAN.replace("version: 1", "version: 2"), encoding="utf-8")
    assert invoke("plan", "lint", str(file)).exit_code == 0
    refused = shop("plan", "lint", str(file))
    assert refused.exit_code == 1
    assert "versions-overlap" in refused.stdout


def test_publish_shows_warnings_and_takes_only_the_hash_that_is_expected(run: Run, file: Path) -> None:
    file.write_text(PLAN.replace("profile: none\n", ""), encoding="utf-8")
    content = said(run("plan", "lint", str(file)))[-1].removeprefix("content ")
    assert "PLAN_CHANGED" in run("plan", "publish", str(file), "--expect", "00").stderr
    assert run("plan", "publish", str(file), "--expect", "xyz").exit_code == 2
    lines = said(run("plan", "publish", str(file), "--expect", content))
    assert any(line.startswith("warning profile-missing") for line in lines)
    file.write_text(FORBIDDEN.replace("version: 1", "version: 2"), encoding="utf-8")
    refused = run("plan", "publish", str(file))
    assert refused.exit_code == 1
    assert "PLAN_FORBIDDEN" in refused.stderr


def test_a_published_plan_is_explained_by_its_id(shop: Run) -> None:
    assert "Plan try, version 1: for orders paid from 2026-01-01 00:00 (UTC), in GBP." in said(shop("plan", "explain", "try"))


# ---------------------------------------------------------------- what happens


def test_an_order_takes_attributions_a_group_and_a_referrer_and_shows_money_and_points_apart(shop: Run) -> None:
    assert said(shop("group", "open", "g1", "--opener", "mei", "--at", "2026-01-03"))[0].startswith("group g1 of mei: recorded at")
    order = ["order", "record", "--order-id", "O1", "--member", "bo", "--paid-at", "2026-01-04", "--line", "A1:2:179.00"]
    order += ["--group", "g1", "--referrer", "mei", "--attribution", "creator=cy", "--attribution", "store@s-1"]
    lines = said(shop(*order))
    assert lines[1:3] == ["bo is locked for life to mei", "bo is gold now"]
    assert {"mei 26.85 GBP", "cy 8.95 GBP", "bo 20 stars", "breakage 1.79 GBP"} <= set(lines)
    shown = said(shop("order", "show", "O1"))
    assert {"group g1", "creator cy", "store whoever holds s-1", "1 stars bo 20 stars", "1 live cy 8.95 GBP"} <= set(shown)
    assert "neither ROLE=MEMBER nor ROLE@PLACE" in " ".join(shop(*order, "--attribution", "cy").output.split())
    assert said(shop("group", "form", "g1", "--at", "2026-01-05"))[0].startswith("group g1 formed with one order")
    assert {"state formed", "orders O1"} <= set(said(shop("group", "show", "g1")))
    assert document(shop("group", "show", "g1", "--json"))["order_ids"] == ["O1"]


def test_a_group_that_fails_says_who_loses_what(shop: Run) -> None:
    shop("group", "open", "g1", "--opener", "mei", "--at", "2026-01-03")
    shop("order", "record", "--order-id", "O1", "--member", "bo", "--paid-at", "2026-01-04", "--line", "A1:1:10.00", "--group", "g1")
    lines = said(shop("group", "fail", "g1", "--reason", "too few", "--at", "2026-01-05"))
    assert {"mei 1.50 GBP", "bo 20 stars"} <= set(lines)


def test_a_task_and_a_period_say_who_earns_what(shop: Run) -> None:
    assert "bo 5" in said(shop("task", "bo", "share", "--task-id", "t1", "--at", "2026-01-04"))
    shop("order", "record", "--order-id", "O1", "--member", "bo", "--paid-at", "2026-01-04", "--line", "A1:1:179.00")
    assert "fund 17900 bo 1.79" in said(shop("period", "close", "2026-01", "--at", "2026-02-01"))
    shown = said(shop("period", "show", "2026-01"))
    assert {"period 2026-01", "until 2026-02-01T00:00:00Z", "fund 17900 bo 1.79"} <= set(shown)
    assert document(shop("period", "show", "2026-01", "--json"))["rules"][0]["volume"] == 17900
    assert "PERIOD_UNKNOWN" in shop("period", "show", "2026-03").stderr
    refunded = said(shop("refund", "O1", "--refund-id", "R1", "--line", "1:1:179.00", "--at", "2026-02-02"))
    assert "and of periods that were closed:" in refunded


def test_deposits_and_stock_stand_apart_from_commission(shop: Run) -> None:
    assert said(shop("deposit", "in", "mei", "500", "--deposit-id", "d1"))[0].startswith("deposit d1: 500 GBP paid in by mei")
    assert said(shop("deposit", "return", "mei", "100", "--deposit-id", "d2"))[0].startswith("deposit d2: 100 GBP returned to mei")
    assert said(shop("deposit", "forfeit", "mei", "50", "--deposit-id", "d3", "--reason", "breach"))
    assert "DEPOSIT_EXCEEDS_HELD" in shop("deposit", "return", "mei", "351", "--deposit-id", "d4").stderr
    [moved] = said(shop("stock", "transfer", "mei", "bo", "--transfer-id", "s1", "--line", "A1:10:60:75.50"))
    assert moved.startswith("stock s1 from mei to bo, margin 155.00 GBP")
    assert shop("stock", "transfer", "mei", "bo", "--transfer-id", "s2", "--line", "A1:10:60").exit_code == 2
    lines = said(shop("balance", "mei"))
    assert {"accrued 0.00", "deposit 350.00", "margin on stock 155.00"} <= set(lines)


# ---------------------------------------------------------------- points in the books


def test_points_have_books_of_their_own(shop: Run) -> None:
    shop("order", "record", "--order-id", "O1", "--member", "bo", "--paid-at", "2026-01-04", "--line", "A1:1:50.00")
    assert "available 20" in said(shop("balance", "bo", "--asset", "stars"))
    assert "available 0.00" in said(shop("balance", "bo"))
    assert {"available 20", "commission -20", "sum 0"} <= set(said(shop("trial-balance", "--asset", "stars")))
    assert "bo 20 0 20 0 20 0 0 0" in said(shop("trial-balance", "--by", "member", "--asset", "stars"))
    assert "ASSET_UNKNOWN" in shop("balance", "bo", "--asset", "moons").stderr
    statement = shop("statement", "bo", "--asset", "stars")
    assert any("order O1: stars available 20 20" in line for line in said(statement))
    assert document(shop("statement", "bo", "--asset", "stars", "--json"))["closing"]["balances"]["stars"]["available_minor"] == 20


# ---------------------------------------------------------------- as of another time


def test_books_are_shown_as_of_a_position_a_time_and_what_had_happened(shop: Run) -> None:
    shop("order", "record", "--order-id", "O1", "--member", "bo", "--paid-at", "2026-01-04", "--line", "A1:1:50.00")
    shop("order", "record", "--order-id", "O2", "--member", "bo", "--paid-at", "2026-01-03", "--line", "A1:1:10.00")
    told = said(shop("balance", "mei", "--as-of", "6"))
    assert told[0] == "mei at position 6" and "pending 5.00" in told
    assert "pending 1.00" in said(shop("balance", "mei", "--occurred-by", "2026-01-03"))
    told = said(shop("trial-balance", "--as-of", "6", "--occurred-by", "2026-01-03"))
    assert told[0].endswith(" at position 6, of what had happened by 2026-01-03T00:00:00Z") and "pending 0.00" in told
    assert "sum 0.00" in said(shop("trial-balance", "--occurred-by", "2026-01-03"))
    told = said(shop("trial-balance", "--by", "member", "--occurred-by", "2026-01-03"))
    assert "at position 7, of what" in told[0] and any(line.startswith("mei 1.00 ") for line in told)
    assert document(shop("trial-balance", "--by", "member", "--as-of", "6", "--json"))["position"] == 6
    assert "POSITION_BEYOND_HEAD" in shop("balance", "mei", "--at", "99").stderr
    assert shop("balance", "mei", "--as-of", "yesterday").exit_code == 2
    assert shop("balance", "mei", "--as-of", str(2**63)).exit_code == 2
