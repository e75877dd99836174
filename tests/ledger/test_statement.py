"""Statements: over random stories and periods they are the log; what does not add up is not printed; hostile names stay text."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import grpc
import psycopg
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.log.v1 import log_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner, Result

from services.__main__ import app
from services.composition import RunningServer
from services.console.client import Call, Connection
from services.ledger.cli.adding_up import COUNTS_AS, DoesNotAddUp, Statement, check, fetch
from services.ledger.cli.statement_page import ENGLISH, WORDS
from services.ledger.codec import MOVING
from tests.given import Client, day, line, money, reason
from tests.ledger.stories import log_of, tell_stories
from tests.stateful.grpc_driver import _postings

PLAN = """
plan: two-level
version: 1
currency: GBP
profile: none
points: [stars]
effective: {from: "2000-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: own, kind: self, rate: 1%}
  - {id: stars, kind: generation, generation: 1, fixed_minor: 20, per: order, asset: stars, release: {on: at_once}}
"""
HOSTILE = "<img|src=x|onerror=alert(1)>"
REASON = "</td></table><script>alert('goodwill')</script> & \x1b[31m补偿"
Run = Callable[..., Result]


@pytest.fixture
def shop(client: Client) -> Client:
    """mei brought bo, who bought and gave back; she had a payout and was given something by hand."""
    client.publish(PLAN)
    client.enroll("mei")
    client.enroll("bo", "mei")
    client.order("O1", "bo", line(1, 100_000), at=2)
    client.order(HOSTILE, "bo", line(1, 7_000), at=3)
    client.order("=HYPERLINK(1)", "mei", line(1, 5_000), at=3)
    client.complete("O1", at=3)
    client.release(as_of=15)
    client.payout("P1", "mei", 6_000, at=16)
    client.refund("R1", "O1", (1, 1, 100_000), at=20)
    client.deposit("d1", "mei", log_pb2.DEPOSIT_KIND_PAID_IN, 50_000, at=21)
    client.ledger.PostAdjustment(
        lp.PostAdjustmentRequest(
            program_id=client.program_id,
            adjustment_id="@SUM",
            member_id="mei",
            kind=log_pb2.ADJUSTMENT_KIND_CORRECTION,
            amount=money(300),
            reason=REASON,
            requested_by="ann",
            approved_by="bob",
            posted_at=day(22),
        )
    )
    return client


@pytest.fixture
def run(shop: Client, server: RunningServer) -> Run:
    where = ("-P", shop.program_id, "--target", server.address)
    environment = {"COLUMNS": "80", "FENRUN_PROGRAM": None, "FENRUN_TARGET": None}
    return lambda *words: CliRunner().invoke(app, ["statement", *words, *where], env=environment)


@pytest.fixture
def fetched(shop: Client, server: RunningServer) -> Statement:
    return fetch(Call(Connection(server.address, at_home=True), shop.program_id, False), "mei", None, None)


# ---------------------------------------------------------------- random stories


def test_statements_of_any_period_are_the_log_and_add_up(
    channel: grpc.Channel, fresh_program_id: Callable[[], str], server: RunningServer
) -> None:
    """Every posting of the member recorded in the period, in order, with its rules; both ends are the balances as of there."""
    connection, generator, kinds = Connection(server.address, at_home=True), Random(1), Counter[str]()
    for client, oracle in tell_stories(channel, fresh_program_id, "as of", 5):
        call, entries = Call(connection, client.program_id, False), log_of(client)
        for member in oracle.members():
            for _ in range(5):
                first, last = sorted(generator.sample(range(len(entries)), 2))
                from_, to = (entries[at].recorded_at.ToDatetime(UTC) for at in (first, last))
                found = fetch(call, member, *generator.choice(((from_, to), (None, to), (from_, None), (None, None))))
                after = first if found.from_ else 0
                upto = last if found.to else len(entries)
                assert (found.after, found.last) == (after, upto)
                expected = [
                    (f"{entry.position}.{number}", posting.account, posting.amount_minor, posting.asset, entry.hash)
                    for entry in entries[after:upto]
                    for number, posting in enumerate(_postings(entry), start=1)
                    if posting.member_id == member
                ]
                told = [(one.posting, one.entry_hash) for one in found.postings]
                assert [(p.posting_id, p.account, p.amount.minor_units, p.amount.currency, h) for p, h in told] == expected
                for one in found.postings:
                    kinds[one.posting.type] += 1
                    by_rule = COUNTS_AS.get(one.posting.type) in ("accrued", "reversed") or one.posting.type == "period.corrected.v1"
                    assert bool(one.shares) == bool(one.plan_id) == by_rule, one
                for position, ends in ((after, found.opening), (upto, found.closing)):
                    for asset, figures in ends.items():
                        request = lp.GetBalanceRequest(program_id=client.program_id, member_id=member, asset=asset, position=position)
                        balance = client.ledger.GetBalance(request).balance
                        assert figures == {name: getattr(balance, f"{name}_minor") * (-1 if name == "debt" else 1) for name in figures}
    assert len(kinds) >= 7 and kinds["order.refunded.v1"] > 3, kinds


def test_a_long_statement_is_read_in_parts(client: Client, server: RunningServer) -> None:
    """More entries than are read at a time, two assets in each, and deposits between them."""
    client.publish(PLAN)
    client.enroll("mei")
    client.enroll("bo", "mei")
    for number in range(450):
        client.order(f"O{number}", "bo", line(1, 1_000), at=2)
        if number % 150 == 0:
            client.deposit(f"d{number}", "mei", log_pb2.DEPOSIT_KIND_PAID_IN, 100, at=2)
    found = fetch(Call(Connection(server.address, at_home=True), client.program_id, False), "mei", None, None)
    assert (len(found.of("GBP")), len(found.of("stars"))) == (453, 450)
    assert (found.closing["GBP"]["pending"], found.closing["GBP"]["deposit"]) == (45_000, 300)


def test_periods_tasks_and_failed_groups_name_the_rules_they_came_from(client: Client, server: RunningServer) -> None:
    client.publish(
        """
plan: more
version: 1
currency: GBP
profile: none
points: [stars]
tiers: [gold]
effective: {from: "2000-01-01T00:00:00Z"}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: share, kind: triggered, on: task, task: share, to: {member: 5}, asset: stars, release: {on: at_once}}
  - {id: fund, kind: pool, per: period, tiers: [gold], split: volume, rate: 1%}
promotions:
  - {tier: gold, any: [{metric: own_volume, at_least: 10000}]}
"""
    )
    client.enroll("mei")
    client.enroll("bo", "mei")
    client.open_group("g1", "bo", at=2)
    client.order("O1", "mei", line(1, 20_000), at=3)
    client.order("O2", "bo", line(1, 5_000), at=3, group="g1")
    client.fail_group("g1", at=5)
    client.task("t1", "mei", "share", at=4)
    client.close_period("2026-01", at=40)
    client.refund("R1", "O1", (1, 1, 5_000), at=45)
    client.release(as_of=90)
    found = fetch(Call(Connection(server.address, at_home=True), client.program_id, False), "mei", None, None)
    told = [(one.posting.type, one.posting.stream, one.about, [share.rule_id for share in one.shares]) for one in found.postings]
    assert told[:6] == [
        ("order.paid.v1", "order/O2", "", ["first"]),
        ("order.voided.v1", "order/O2", "g1", ["first"]),
        ("task.done.v1", "task/t1", "share", ["share"]),
        ("period.closed.v1", "period/2026-01", "", ["fund"]),
        ("period.corrected.v1", "period/2026-01", "O1", ["fund"]),
        ("reward.released.v1", "period/2026-01", "", []),
    ]
    assert {one.plan_id for one in found.postings[:5]} == {"more"}


def test_pages_of_postings_hold_everything_also_where_entries_move_money_and_points(shop: Client) -> None:
    """A page counts entries; none is cut in two between its assets, and none is left out at the end of a page."""
    found, token = list[str](), ""
    while True:
        request = lp.ListPostingsRequest(program_id=shop.program_id, member_id="mei", page_size=1, page_token=token)
        page = shop.ledger.ListPostings(request)
        assert len({posting.position for posting in page.postings}) == 1
        found += [posting.posting_id for posting in page.postings]
        token = page.next_page_token
        if not token:
            break
    expected = [
        f"{entry.position}.{number}"
        for entry in log_of(shop)
        for number, posting in enumerate(_postings(entry), start=1)
        if posting.member_id == "mei" and posting.account != log_pb2.ACCOUNT_DEPOSIT
    ]
    assert found == expected


# ---------------------------------------------------------------- what does not add up


def spoil_amount(statement: Statement) -> None:
    statement.postings[0].posting.amount.minor_units += 1


def spoil_balance(statement: Statement) -> None:
    statement.postings[0].posting.balance_after.minor_units += 1


def spoil_closing(statement: Statement) -> None:
    statement.closing["GBP"]["deposit"] += 1


def spoil_gross(statement: Statement) -> None:
    statement.opening["GBP"]["accrued"] += 1
    statement.closing["GBP"]["accrued"] += 1


def spoil_kind(statement: Statement) -> None:
    statement.postings[0].posting.type = "adjustment.posted.v1"


def spoil_rule(statement: Statement) -> None:
    statement.postings[0].shares[0].amount_minor += 1


def lose_first(statement: Statement) -> None:
    del statement.postings[0]


def lose_last(statement: Statement) -> None:
    del statement.postings[-1]


def lose_asset(statement: Statement) -> None:
    del statement.opening["stars"], statement.closing["stars"]


def swap(statement: Statement) -> None:
    statement.postings.reverse()


def overreach(statement: Statement) -> None:
    statement.last -= 1


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (spoil_amount, "pending after entry 5 comes to 100.01 GBP, and the books have 100.00 GBP"),
        (spoil_balance, "pending after entry 5 comes to 100.00 GBP, and the books have 100.01 GBP"),
        (spoil_closing, "deposit comes to 500.00 GBP, and closes at 500.01 GBP"),
        (spoil_gross, "at its opening 0.01 GBP were earned, and the accounts hold 0.00 GBP"),
        (spoil_kind, "accrued comes to"),
        (spoil_rule, "the rules of entry 5 come to 100.01 GBP, its postings to 100.00 GBP"),
        (lose_first, "pending after entry 6"),
        (lose_last, "comes to"),
        (lose_asset, "postings without an opening"),
        (swap, "not in the order of the log"),
        (overreach, "outside its period"),
    ],
)
def test_a_statement_that_does_not_add_up_is_refused(fetched: Statement, spoil: Callable[[Statement], None], problem: str) -> None:
    check(fetched)
    spoiled = deepcopy(fetched)
    spoil(spoiled)
    with pytest.raises(DoesNotAddUp, match="does not add up and is not printed") as refused:
        check(spoiled)
    assert problem in str(refused.value)


@pytest.mark.parametrize("as_format", ["table", "csv", "json", "html"])
def test_nothing_is_printed_when_the_views_differ_from_the_log(shop: Client, run: Run, dsn: str, as_format: str, tmp_path: Path) -> None:
    """Somebody with the owner's rights makes a member richer, in a way that the row's own constraints let pass."""
    spoil = (
        "update ledger.balances set available = available + 1, accrued = accrued + 1 where program_id = %s and member_id = 'mei'"
        " and asset = 'GBP'"
    )
    with psycopg.connect(dsn) as owner:
        owner.execute(spoil, [shop.program_id])
    output = tmp_path / "statement"
    refused = run("mei", "--format", as_format, *(() if as_format == "table" else ("-o", str(output))))
    assert refused.exit_code == 1
    assert refused.stdout == "" and not output.exists()
    assert "available comes to 0.00 GBP, and closes at 0.01 GBP" in refused.stderr and "fenrun projections verify" in refused.stderr


# ---------------------------------------------------------------- its forms


def test_the_table_fits_80_columns_and_says_where_each_posting_came_from(run: Run) -> None:
    shown = run("mei")
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "\x1b" not in shown.stdout
    lines = [" ".join(told.split()) for told in shown.stdout.splitlines()]
    assert any(told.startswith("5.3 ") and "order O1: first pending 100.00 100.00" in told for told in lines)
    assert any("refund O1 (R1): first" in told for told in lines)
    assert any("payout requested P1" in told for told in lines)
    assert "deposit 0.00 500.00 500.00" in lines
    assert "available 0 20 20" in lines  # stars, in a table of their own
    assert run("mei", "--asset", "moons").stderr == f"fenrun: mei has nothing of moons in {shop_of(run)}\n"


def shop_of(run: Run) -> str:
    return str(json.loads(run("mei", "--json").stdout)["program_id"])


def test_a_period_opens_where_the_one_before_closed(run: Run, shop: Client) -> None:
    middle = log_of(shop)[7].recorded_at.ToDatetime(UTC).isoformat()
    before, after, whole = (json.loads(run("mei", *span, "--json").stdout) for span in (("--to", middle), ("--from", middle), ()))
    assert before["closing"] == after["opening"] and before["closing"]["position"] == 7
    assert before["postings"] + after["postings"] == whole["postings"]
    assert (before["from"], before["to"]) == (None, middle)
    nothing = run("mei", "--to", "2001-01-01")
    assert "no postings of GBP" in nothing.stdout
    assert run("mei", "--from", "2026-02-01", "--to", "2026-02-01").exit_code == 2
    assert "MEMBER_UNKNOWN" in run("nobody").stderr


def test_csv_has_every_posting_in_whole_money_and_no_formula(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("mei", "--format", "csv").stdout)))
    assert [row["section"] for row in rows] == sorted((row["section"] for row in rows), key=["opening", "posting", "closing"].index)
    first = next(row for row in rows if row["section"] == "posting")
    assert (first["stream"], first["plan"], first["rules"], first["amount"], first["balance"]) == (
        "order/O1",
        "two-level:1",
        "first",
        "100.00",
        "100.00",
    )
    for asset in ("GBP", "stars"):
        for account in ("pending", "available", "reserved", "debt", "deposit"):
            ours = [row for row in rows if (row["asset"], row["account"]) == (asset, account)]
            opening, *postings, closing = (float(row["balance"] if row["section"] != "posting" else row["amount"]) for row in ours)
            assert round(opening + sum(postings) - closing, 6) == 0
    texts = [row[name] for row in rows for name in ("stream", "about", "rules", "plan")]
    assert not any(text.startswith(("=", "+", "-", "@")) for text in texts)


class Page(HTMLParser):
    """What a browser makes of a page: elements, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text, self.policy = Counter[str](), Counter[str](), "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"] or ""

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_fetches_nothing_runs_nothing_and_shows_hostile_names_as_they_are(run: Run, tmp_path: Path, language: str) -> None:
    output = tmp_path / "mei.html"
    written = run("mei", "--format", "html", "--language", language, "-o", str(output))
    assert written.exit_code == 0, written.output
    text = output.read_text(encoding="utf-8")
    page = Page(text)
    assert "without checkpoint and proofs: " in written.stderr and "CHECKPOINT_UNKNOWN" in written.stderr
    assert not set(page.tags) & {"script", "img", "link", "iframe", "object", "a", "base", "form", "svg"}
    assert set(page.attributes) <= {"lang", "charset", "http-equiv", "content", "class"}
    assert "default-src 'none'" in page.policy
    assert not any(reference in text for reference in ("url(", "http:", "https:", "@import"))
    assert HOSTILE in page.text and "<script>alert('goodwill')</script>" in page.text
    words = WORDS[language]
    assert all(name in page.text for name in (words.title, words.figures["pending"], words.facts["order.refunded.v1"], words.equation))
    assert "1,050.00" not in page.text and "100.00" in page.text
    assert run("mei", "--format", "html", "--language", language).stdout.startswith("<!DOCTYPE html>")


def test_both_languages_name_every_kind_of_entry_and_every_figure() -> None:
    for words in WORDS.values():
        assert set(words.facts) == set(MOVING)
        assert words.figures.keys() == ENGLISH.figures.keys()
        assert len(words.columns) == 8


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--format", "pdf"), "table, csv, json or html"),
        (("--language", "fr"), "en or zh"),
        (("-o", "x"), "a table goes to the terminal"),
    ],
)
def test_what_a_statement_cannot_be_is_a_sentence(run: Run, words: tuple[str, ...], problem: str) -> None:
    refused = run("mei", *words)
    assert refused.exit_code == 2
    assert problem in " ".join(refused.stderr.replace("│", " ").split())


def test_a_file_that_cannot_be_written_is_a_sentence(run: Run, tmp_path: Path) -> None:
    refused = run("mei", "--json", "-o", str(tmp_path / "no" / "such"))
    assert (refused.exit_code, refused.stderr.endswith("cannot be written: No such file or directory\n")) == (1, True)


def test_a_period_that_ends_before_it_begins_is_refused_by_the_server_too(shop: Client) -> None:
    request = lp.GetStatementRequest(program_id=shop.program_id, member_id="mei", to=day(2))
    getattr(request, "from").CopyFrom(day(2))
    with pytest.raises(grpc.RpcError) as caught:
        list(shop.ledger.GetStatement(request))
    assert reason(caught.value)[1] == "MALFORMED"
    ahead = Timestamp()
    ahead.FromDatetime(datetime(2100, 1, 1, tzinfo=UTC))
    request = lp.GetStatementRequest(program_id=shop.program_id, member_id="mei")
    getattr(request, "from").CopyFrom(ahead)
    opening, closing = shop.ledger.GetStatement(request)
    assert opening.opening == closing.closing
