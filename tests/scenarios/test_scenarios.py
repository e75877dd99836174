"""Every scheme from enrolment to replay, as a story with figures worked out by hand; player.py tells the format.

Three things are tested apart from each other: that the arithmetic written beside a figure is right (by a calculator that knows nothing of
the engine), that the server arrives at the figure, and that every rule and every scheme name is reached by some story.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.log.v1 import log_pb2

from services.ledger.documents import read_document
from services.ledger.domain.plan import parse
from tests.given import Client, reason
from tests.scenarios.player import (
    CURRENCY,
    DAY_ONE,
    HERE,
    PRESETS,
    Player,
    Step,
    assets_of,
    document_of,
    figures,
    load,
    scenario_files,
    step_name,
)

ROOT = HERE.parents[1]
# Every kind of scheme, row by row.
RULES = ("self", "generation", "differential", "peer", "attributed", "pool", "volume", "counted", "triggered", "rank")
# The names shops know schemes by, and what else is said for the same.
NAMES = (
    *(
        "分享赚钱",
        "三级分销",
        "二级分销",
        "自购省钱",
        "S2B2C",
        "礼包",
        "会员/经理/总监/合伙人",
        "级差",
        "极差",
        "平级推荐",
        "微商",
        "卡位",
        "囤货",
    ),
    *(
        "保证金",
        "拼团",
        "网红带货",
        "直播",
        "门店导购",
        "社区团购",
        "商家联盟",
        "异业联盟",
        "城市合伙人",
        "合伙人分红",
        "区域分红",
        "团队奖",
    ),
    *("团队差额", "邀请N人送礼", "拉人红包", "分享积分", "双边奖励", "推荐排行榜", "裂变拉新"),
)
# What every story goes through, whatever its scheme.
JOURNEY = {"enroll", "touch", "order", "complete", "refund", "release", "payout", "confirm", "balances", "trial"}
# Entries that give or take by rules; every other entry only moves what was given.
DECIDED = {"order.paid.v1", "order.refunded.v1", "order.voided.v1", "task.done.v1", "period.closed.v1", "period.corrected.v1"}

each_scenario = pytest.mark.parametrize("path", scenario_files(), ids=lambda path: path.stem)


# ---------------------------------------------------------------- the server arrives at the figures


@each_scenario
def test_a_scenario_plays_to_the_fen(path: Path, channel: grpc.Channel, fresh_program_id: Callable[[], str]) -> None:
    """Steps in order; then the books' sums, orders refunded in full that owe nobody, debts of all who were paid, explanations, replay."""
    scenario = load(path)
    player = Player(Client.of_new_program(channel, fresh_program_id(), CURRENCY))
    player.publish(document_of(scenario), scenario.get("published_at", DAY_ONE))
    for number, step in enumerate(scenario["steps"], start=1):
        try:
            player.play(step)
        except (AssertionError, grpc.RpcError) as error:
            raise AssertionError(f"{path.name} step {number}, {step}: {error}") from error
    assert_conserved(player)
    assert_emptied_orders_owe_nobody(player)
    assert_everybody_paid_came_to_owe(player)
    assert_explained(player)
    assert player.client.differences() == []
    before = player.trial_balance(CURRENCY)
    assert list(player.again()) == []
    assert player.trial_balance(CURRENCY) == before


def assert_conserved(player: Player) -> None:
    """Every asset sums to zero, and for every member what came in stands somewhere."""
    for asset in player.assets:
        trial = player.trial_balance(asset)
        assert sum(trial.values()) == 0, (asset, trial)
        for member in player.members:
            has = dict.fromkeys(("pending", "available", "reserved", "paid", "debt", "accrued", "reversed", "adjusted"), 0)
            has |= player.accounts(member, asset)
            stands = has["pending"] + has["available"] + has["reserved"] + has["paid"] - has["debt"]
            assert has["accrued"] - has["reversed"] + has["adjusted"] == stands, (member, asset, has)


def assert_emptied_orders_owe_nobody(player: Player) -> None:
    """Any split of a full refund ends at exactly zero for every role, on every line. One order at least is so refunded."""
    emptied = []
    for order_id in player.refunded:
        order = player.client.ledger.GetOrder(lp.GetOrderRequest(program_id=player.client.program_id, order_id=order_id))
        if any(line.remaining_base_minor for line in order.lines):
            continue
        emptied.append(order_id)
        left = [share for line in order.lines for share in line.entitlements if share.amount_minor and share.rule_id not in player.counting]
        assert left == [], order_id
    assert emptied, "no order is refunded in full"


def assert_everybody_paid_came_to_owe(player: Player) -> None:
    """Whoever was paid, in whatever role, lost something to a refund after it and owed that."""
    for member in player.payees:
        debts = [
            posting for posting in player.postings(member) if posting.account == log_pb2.ACCOUNT_DEBT and posting.amount.minor_units < 0
        ]
        assert debts, f"{member} was paid and never owed anything"


def assert_explained(player: Player) -> None:
    """Explain answers for every posting of every entry that touched a member; the shares it gives add up to what the entry gave or took."""
    positions: dict[int, None] = {}
    for member in player.members:
        for posting in player.postings(member):
            explained = explain(player, posting.posting_id)
            assert explained is not None, posting
            assert (explained.posting.member_id, explained.posting.amount_minor) == (member, posting.amount.minor_units)
            positions[posting.position] = None
    for position in positions:
        entry: list[lp.ExplainResponse] = []
        while (found := explain(player, f"{position}.{len(entry) + 1}")) is not None:
            entry.append(found)
        for explained in entry:
            told = explained.posting
            assert explained.sentences
            if explained.entry.type not in DECIDED:
                continue
            if told.account == log_pb2.ACCOUNT_COMMISSION:
                continue
            moved = sum(
                one.posting.amount_minor
                for one in entry
                if (one.posting.member_id, one.posting.asset) == (told.member_id, told.asset)
                and (told.member_id or one.posting.account == told.account)
            )
            shares = [share for share in explained.shares if share.asset == told.asset]
            assert all(share.amount_minor == share.entitled_after_minor - share.entitled_before_minor for share in shares)
            assert sum(share.amount_minor for share in shares) == moved, (explained.entry.type, told, shares)


def explain(player: Player, posting_id: str) -> lp.ExplainResponse | None:
    try:
        return player.client.ledger.Explain(lp.ExplainRequest(program_id=player.client.program_id, posting_id=posting_id))
    except grpc.RpcError as error:
        if reason(error)[1] == "POSTING_UNKNOWN":
            return None
        raise


# ---------------------------------------------------------------- the figures are right on paper

NUMBER = r"\d[\d,]*(?:\.\d+)?"
FORMULA = re.compile(rf"({NUMBER}(?: %)?(?: (?:\+|−|×|÷|of) {NUMBER}(?: %)?)+) = ({NUMBER})")


def number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def worth(formula: str) -> Fraction:
    """What "10 % of 179.03" or "3.30 + 1.65" comes to, exactly."""
    total, sign = Fraction(0), 1
    for part in re.split(r" (\+|−) ", formula):
        if part in "+−":
            sign = 1 if part == "+" else -1
            continue
        factors = re.split(r" (×|÷|of) ", part)
        product = Fraction(1)
        for operator, factor in zip(["×", *factors[1::2]], factors[::2], strict=True):
            value = number(factor.removesuffix(" %")) / (100 if factor.endswith(" %") else 1)
            product = product / value if operator == "÷" else product * value
        total += sign * product
    return total


def expected_figures(step: Step) -> Iterator[tuple[str, str, int]]:
    """(whose, asset, amount) of everything a step expects to be given, taken or kept."""
    for expected in (step, *(step.get("rules") or {}).values()):
        for key in ("earns", "loses", "period_loses"):
            for (member, asset), amount in figures(expected.get(key)).items():
                yield member, asset, amount
        for asset, amount in assets_of(expected.get("breakage")).items():
            yield "breakage", asset, amount
    if step.get("margin"):
        yield step["stock"]["from"], CURRENCY, step["margin"]


@each_scenario
def test_every_expected_figure_has_its_arithmetic_beside_it(path: Path) -> None:
    """`because` names whoever earns or loses and gives the figure; a refund of all there was may say that. Its sums are right."""
    for step in load(path)["steps"]:
        text = "\n".join(str(line) for line in step.get("because") or ())
        numbers = {number(found) for found in re.findall(NUMBER, text)}
        for whose, asset, amount in expected_figures(step):
            if "refund" in step and "nothing remains" in text:
                continue
            figure = Fraction(abs(amount), 100 if asset == CURRENCY else 1)
            assert figure in numbers, f"{path.name}: where do {whose}'s {float(figure)} come from? {step}"
            assert whose == "breakage" or re.search(rf"\b{re.escape(whose)}\b", text), f"{path.name}: nothing is said of {whose}: {step}"
        for formula, result in FORMULA.findall(text):
            assert worth(formula) == number(result), f"{path.name}: {formula} = {result}"


@pytest.mark.parametrize(
    ("formula", "comes_to"),
    [("10 % of 179.03", "17.903"), ("3.30 + 1.65", "4.95"), ("2 × 3 − 1", "5"), ("2,999.00 × 2.5 %", "74.975"), ("10 ÷ 4 + 1", "3.5")],
)
def test_the_calculator_for_the_arithmetic_calculates(formula: str, comes_to: str) -> None:
    assert worth(formula) == number(comes_to)


# ---------------------------------------------------------------- nothing is left out


@each_scenario
def test_every_scenario_goes_the_whole_way(path: Path) -> None:
    steps = load(path)["steps"]
    assert {step_name(step) for step in steps} >= JOURNEY
    assert load(path)["scenario"] == path.stem


def test_every_kind_of_rule_is_reached_and_none_is_claimed_in_vain() -> None:
    """The kinds a scenario says it covers stand in its plan; together they are all kinds of scheme."""
    covered = set()
    for path in scenario_files():
        scenario = load(path)
        kinds = {rule.get("kind") for rule in read_document(document_of(scenario))["rules"]}
        assert set(scenario["covers"]) <= kinds, path.name
        covered |= set(scenario["covers"])
    assert covered == set(RULES)


def test_every_preset_has_a_scenario_and_is_named_after_its_file() -> None:
    played = {load(path).get("plan") for path in scenario_files()}
    for path in sorted(PRESETS.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        document = read_document(text)
        assert isinstance(document, Mapping)
        assert (document["plan"], document["version"], document["currency"]) == (path.stem, 1, "CNY")
        assert "profile" in document
        assert re.match(r"# .* / .*\n#\n# 谁用 / Who uses it\n", text), f"{path.name} does not begin by telling who uses it"
        assert parse(document).rules
        assert path.stem in played, path.name


def scheme_rows() -> Iterator[list[str]]:
    for line in (ROOT / "docs" / "schemes.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_name_of_a_scheme_stands_in_the_table() -> None:
    names = " ".join(row[0] for row in scheme_rows())
    assert [name for name in NAMES if name not in names] == []


def test_every_file_the_table_of_schemes_names_exists() -> None:
    text = (ROOT / "docs" / "schemes.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []
    reached = {Path(link).name for link in links}
    assert {path.name for path in (*scenario_files(), *PRESETS.glob("*.yaml"))} <= reached, "a file that no scheme leads to"


def test_the_rules_of_a_scheme_stand_in_the_plan_it_names() -> None:
    """Each row: names, rule kinds, preset, scenarios."""
    for names, kinds, preset, scenarios in list(scheme_rows())[1:]:
        documents: list[Any] = [
            read_document((ROOT / "docs" / link).read_text(encoding="utf-8")) for link in re.findall(r"\]\(([^)]+)\)", preset)
        ]
        documents += [read_document(document_of(load(ROOT / "docs" / link))) for link in re.findall(r"\]\(([^)]+)\)", scenarios)]
        held = {rule["kind"] for document in documents for rule in document["rules"]}
        told = set(re.findall(r"`([a-z]+)`", kinds)) & set(RULES)
        assert told <= held, names
