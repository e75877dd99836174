"""Simulating a draft over gRPC and PostgreSQL, and at the command line."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.ops.v1 import ops_pb2
from typer.testing import CliRunner, Result

from services import __main__ as fenrun
from services.composition import RunningServer
from services.ledger import simulating
from services.ledger.cli.simulating import hundredths, percent
from services.runtime.replaying import Sync
from tests.given import TWO_LEVEL, Client, day, line, reason
from tests.golden.make import SCHEMES, play_schemes
from tests.oracle.facts import DAY_NS, PublishPlan
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, START, RandomDrawing
from tests.stateful.driver import agree, tell
from tests.stateful.grpc_driver import GrpcDriver

ONE_LEVEL = """
plan: one-level
version: 40
currency: GBP
tiers: [member, manager]
rules:
  - {id: first, kind: generation, generation: 1, rate: 12%}
"""


@pytest.fixture
def story(client: Client) -> Client:
    """A brought B, B brought C; C buys for 100.00 on day 2 and on day 10, and half of the first comes back."""
    client.publish()
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
        client.enroll(member, referrer)
    client.upgrade("u1", "B", "manager")
    client.order("O1", "C", line(1, 10_000), at=2)
    client.complete("O1")
    client.release()
    client.payout("P1", "B", 700)
    client.refund("R1", "O1", (1, 0, 5_000))
    client.order("O2", "C", line(1, 10_000), at=10)
    return client


def simulate(client: Client, document: str, **window: Any) -> tuple[list[Any], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """(totals, rows by rule, rows by member); progress came first and reached the head."""
    request = lp.SimulatePlanRequest(program_id=client.program_id, document=document, **window)
    steps = list(client.ledger.SimulatePlan(request))
    kinds = [str(step.WhichOneof("step")) for step in steps]
    assert kinds == sorted(kinds, key=("progress", "total", "by_rule", "by_member").index)
    done = [step.progress for step in steps if step.HasField("progress")]
    assert done and done[-1].position == done[-1].head_position == head(client)
    by_rule = [step.by_rule for step in steps if step.HasField("by_rule")]
    by_member = [step.by_member for step in steps if step.HasField("by_member")]
    rows = [[(row.key, row.recorded_minor, row.simulated_minor) for row in found] for found in (by_rule, by_member)]
    return [step.total for step in steps if step.HasField("total")], rows[0], rows[1]


def head(client: Client) -> int:
    return client.ops.GetProgram(ops_pb2.GetProgramRequest(program_id=client.program_id)).head_position


def test_a_draft_is_compared_and_nothing_is_recorded(story: Client) -> None:
    before = head(story)
    [total], by_rule, by_member = simulate(story, ONE_LEVEL)
    assert total == lp.SimulationTotal(asset="GBP", orders=2, refunds=1, base_minor=15_000, recorded_minor=2250, simulated_minor=1800)
    assert by_rule == [("first", 1500, 1800), ("second", 750, 0)]
    assert by_member == [("A", 750, 0), ("B", 1500, 1800)]
    assert head(story) == before and story.differences() == []


def test_only_orders_of_the_window_count(story: Client) -> None:
    window = {"from": day(5), "to": day(11)}
    [total], _, by_member = simulate(story, ONE_LEVEL, **window)
    assert (total.orders, total.refunds, total.base_minor, by_member) == (1, 0, 10_000, [("A", 500, 0), ("B", 1000, 1200)])
    assert simulate(story, ONE_LEVEL, to=day(10))[2] == [("A", 250, 0), ("B", 500, 600)]


def test_the_plan_in_force_and_an_empty_program_differ_in_nothing(story: Client, channel: grpc.Channel) -> None:
    [total], by_rule, by_member = simulate(story, TWO_LEVEL)
    assert total.recorded_minor == total.simulated_minor == 2250
    assert all(recorded == simulated for _, recorded, simulated in [*by_rule, *by_member])
    empty = Client.of_new_program(channel, f"{story.program_id}-empty")
    [total], by_rule, by_member = simulate(empty, TWO_LEVEL)
    assert total == lp.SimulationTotal(asset="GBP")
    assert (by_rule, by_member) == ([("first", 0, 0), ("second", 0, 0)], [])


def test_the_recorded_side_is_what_the_accounts_hold(story: Client) -> None:
    _, _, by_member = simulate(story, ONE_LEVEL)
    for member, recorded, _ in by_member:
        held = story.balance(member)
        assert held["accrued"] - held["reversed"] == recorded


@pytest.mark.parametrize(
    ("document", "window", "code", "why"),
    [
        ("rules: 7", {}, grpc.StatusCode.INVALID_ARGUMENT, "PLAN_INVALID"),
        (ONE_LEVEL.replace("GBP", "CNY"), {}, grpc.StatusCode.FAILED_PRECONDITION, "CURRENCY_MISMATCH"),
        (ONE_LEVEL, {"from": day(3), "to": day(3)}, grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED"),
    ],
)
def test_what_cannot_be_simulated_is_refused(story: Client, document: str, window: Any, code: grpc.StatusCode, why: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        simulate(story, document, **window)
    assert reason(caught.value)[:2] == (code, why)


def test_an_unknown_program_is_refused(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(client.ledger.SimulatePlan(lp.SimulatePlanRequest(program_id="nowhere", document=ONE_LEVEL)))
    assert reason(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "PROGRAM_UNKNOWN")


@pytest.fixture
def schemes(client: Client) -> Client:
    """Every kind of rule, groups, tasks, a closed period and its corrections, promotions, seats and roles, in one story."""
    play_schemes(client)
    return client


def test_a_story_of_every_scheme_differs_in_nothing_under_its_own_plan(schemes: Client) -> None:
    totals, by_rule, by_member = simulate(schemes, SCHEMES)
    assert all(recorded == simulated for _, recorded, simulated in (*by_rule, *by_member))
    for total in totals:
        assert (total.recorded_minor, total.recorded_breakage_minor) == (total.simulated_minor, total.simulated_breakage_minor), total
        assert not total.refused
    assert [total.asset for total in totals] == ["GBP", "points"]
    earned = {member: amount for member, amount, _ in by_member}
    assert len(earned) == 8
    for window in ({"from": day(64)}, {"to": day(66)}, {"from": day(62), "to": day(65.5)}):
        assert all(recorded == simulated for rows in simulate(schemes, SCHEMES, **window)[1:] for _, recorded, simulated in rows)


def test_letting_orders_go_changes_no_figure(schemes: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = (
        SCHEMES.replace("director: 15%", "director: 12%")
        .replace("minor: 200, per", "minor: 350, per")
        .replace("least: 30000", "least: 9000")
    )
    lean = simulate(schemes, draft)
    monkeypatch.setattr(simulating, "_returning", lambda *_: None)
    assert simulate(schemes, draft) == lean
    assert any(recorded != simulated for _, recorded, simulated in lean[1])


def published_by(draw: RandomDrawing, oracle: Oracle) -> PublishPlan:
    """The first plan drawn that can be published and pays money alone: what is compared below is money."""
    while True:
        plan = replace(draw.plan(valid=True), published_at=START - 2 * DAY_NS)
        if "points" not in plan.document and tell(oracle.fork(), plan).kind == "accepted":
            return plan


@pytest.mark.parametrize("randomness", range(12))
def test_a_random_story_differs_in_nothing_under_its_own_plan(channel: grpc.Channel, client: Client, randomness: int) -> None:
    """Facts of every kind, repeated, reused and refused ones among them; one plan."""
    books, oracle = GrpcDriver(channel, f"{client.program_id}-story", CURRENCY), Oracle(CURRENCY)
    draw = RandomDrawing(Random(randomness), oracle)
    plan = published_by(draw, oracle)
    for fact in (*(fact for fact in draw.opening() if not isinstance(fact, PublishPlan)), plan):
        assert agree(fact, tell(oracle, fact), tell(books, fact))
    for _ in range(40):
        fact = draw.trade()
        tell(oracle, fact)
        tell(books, fact)
    told = Client.of(channel, books.program_id)
    [total], by_rule, by_member = simulate(told, plan.document)
    assert all(recorded == simulated for _, recorded, simulated in (*by_rule, *by_member))
    assert total.recorded_breakage_minor == total.simulated_breakage_minor and not total.refused
    balances = books.balances()
    assert {member: recorded for member, recorded, _ in by_member} == {
        member: held.accrued - held.reversed for member, held in balances.items() if held.accrued != held.reversed
    }


def test_a_simulation_ends_when_its_caller_leaves(story: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def forever(connection: Sync, *_: object) -> dict[str, int]:
        try:
            connection.execute("select pg_sleep(60)")
        finally:
            ended.set()
        return {}

    monkeypatch.setattr(simulating, "_returning", forever)
    call: Any = story.ledger.SimulatePlan(lp.SimulatePlanRequest(program_id=story.program_id, document=ONE_LEVEL))
    assert next(call).progress.head_position == head(story)
    assert not ended.is_set()
    call.cancel()
    assert ended.wait(10)


# ---------------------------------------------------------------- the command line


@pytest.fixture
def run(story: Client, server: RunningServer, tmp_path: Path) -> Any:
    """`fenrun plan simulate` with a draft, on the story, in a terminal of 80 columns."""
    draft = tmp_path / "draft.yaml"

    def call(*options: str, document: str = ONE_LEVEL, program: str = story.program_id) -> Result:
        draft.write_text(document, encoding="utf-8")
        asked = ["plan", "simulate", str(draft), "-P", program, "--target", server.address, *options]
        return CliRunner().invoke(fenrun.app, asked, env={"COLUMNS": "80"})

    return call


def test_the_command_shows_totals_rules_and_people(run: Any) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "all that is recorded",
        "2 orders, 1 refund; base after refunds 150.00 GBP",
        "",
        "GBP                recorded  simulated  difference",
        "people                22.50      18.00       -4.50",
        "breakage               0.00       0.00        0.00",
        "together              22.50      18.00       -4.50",
        "people, of base      15.00%     12.00%      -3.00%",
        "together, of base    15.00%     12.00%      -3.00%",
        "",
        "rule    recorded  simulated  difference",
        "first      15.00      18.00        3.00",
        "second      7.50       0.00       -7.50",
        "",
        "person  recorded  simulated  difference",
        "A           7.50       0.00       -7.50",
        "B          15.00      18.00        3.00",
    ]


def test_the_command_gives_json_and_a_picture(run: Any, tmp_path: Path) -> None:
    picture = tmp_path / "difference.svg"
    result = run("--json", "--from", "2026-01-05", "--picture", str(picture))
    found = json.loads(result.stdout)
    assert found["by_member"][1:] == [{"key": "B", "asset": "GBP", "recorded_minor": 1000, "simulated_minor": 1200}]
    assert found["totals"][0]["base_minor"] == 10_000
    assert picture.read_text(encoding="utf-8").startswith("<?xml")
    assert json.loads(run("--json", "--top", "0").stdout)["by_member"] == []


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_simulated(run: Any) -> None:
    result = run("--picture", "/nowhere/difference.svg")
    assert result.exit_code == 1
    assert result.stderr == "fenrun: cannot write /nowhere/difference.svg: there is no such directory\n"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 7, "0.00%"), (1, 3, "33.33%"), (2, 3, "66.67%"), (-1, 8, "-12.50%"), (1, 10**9, "0.00%"), (15, 10, "150.00%")],
)
def test_shares_of_the_base_have_two_decimals(part: int, whole: int, text: str) -> None:
    assert percent(hundredths(part, whole)) == text


def test_a_refused_draft_is_one_sentence(run: Any) -> None:
    result = run(document="rules: 7")
    assert result.exit_code == 1
    assert "PLAN_INVALID" in result.stderr and "Traceback" not in result.output


def test_long_ids_and_large_amounts_stay_within_eighty_columns(run: Any, story: Client) -> None:
    story.enroll("x" * 100, "C", at=1)
    story.enroll("y", "x" * 100, at=1)
    story.upgrade("u2", "x" * 100, "manager")
    story.order("O9", "y", line(1, 10**12))
    result = run(document=ONE_LEVEL.replace("id: first", f"id: {'r' * 100}"))
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "1200000000.00" in result.stdout.replace(",", "") and "r…" in result.stdout
