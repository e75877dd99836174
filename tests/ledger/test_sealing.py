"""Sealing the books: what is sealed never changes, and what comes too late for it is booked later and points back."""

import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2

from services.composition import RunningServer
from services.kernel.decider import Draft, NotLoaded, Repeated
from services.kernel.refusals import Refusal
from services.kernel.times import DAY_US
from services.ledger.domain import commands as c
from services.ledger.domain import facts as f
from services.ledger.domain.booking import Seal, adjusts, booked_us
from services.ledger.domain.books import Books
from services.ledger.domain.decide import decide
from tests.given import Client, day, line, reason
from tests.ledger.test_cli import invoke
from tests.ledger.test_decide import Story, complete, order, refund
from tests.oracle.facts import SealBooks
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, RandomDrawing
from tests.stateful.driver import tell
from tests.stateful.grpc_driver import GrpcDriver, nanoseconds
from tests.stateful.grpc_driver import _postings as postings_of

HOUR_US = DAY_US // 24


def seal(seal_id: str = "jan", through_us: int = 10 * DAY_US, at_us: int = 12 * DAY_US, why: str = "month end") -> c.SealBooks:
    return c.SealBooks(f.BooksSealed(seal_id, through_us, why, "zhao"), at_us)


def sealed(story: Story, command: c.SealBooks) -> f.BooksSealedDecision:
    [draft] = story.when(command)
    assert isinstance(draft.decision, f.BooksSealedDecision)
    return draft.decision


def test_what_occurred_before_is_sealed_and_what_was_recorded_of_the_time_after_is_not() -> None:
    story = Story().given(order("O1", "C", 10_000, day=1), order("O2", "C", 5_000, day=11))
    decision = sealed(story, seal())
    # B brought C: 10 % of the first order. Nobody is locked above B, so that the other rule's 5 % stay with the company.
    assert decision.totals == (
        f.AccountTotal(f.Account.PENDING, "CNY", 1_000),
        f.AccountTotal(f.Account.COMMISSION, "CNY", -1_500),
        f.AccountTotal(f.Account.BREAKAGE, "CNY", 500),
    )
    assert (decision.from_us, decision.entries) == (None, 6)


def test_the_next_seal_takes_in_what_came_too_late_for_the_first() -> None:
    story = Story().given(order("O1", "C", 10_000, day=1), seal(), refund("R1", (1, 10, 10_000), day=9))
    decision = sealed(story, seal("feb", 20 * DAY_US, 21 * DAY_US))
    assert (decision.from_us, decision.totals) == (10 * DAY_US, ())


def test_a_seal_told_again_is_answered_with_the_first_one_for_ever() -> None:
    story = Story().given(seal(), order("O1", "C", day=2), seal("feb", 20 * DAY_US, 21 * DAY_US))
    answer = decide(story.books, seal())
    assert isinstance(answer, Repeated)
    assert answer.entry.decision.totals == ()


@pytest.mark.parametrize(
    ("command", "why", "sentence"),
    [
        (seal("jan", 9 * DAY_US), "ID_REUSED", "through_us"),
        (seal("jan", why="year end"), "ID_REUSED", "'month end'"),
        (seal("x", 10 * DAY_US), "SEALED_ALREADY", "sealed through 1970-01-11T00:00:00Z; the next seal goes further"),
        (seal("x", 9 * DAY_US), "SEALED_ALREADY", "1970-01-10T00:00:00Z does not"),
        (seal("x", 13 * DAY_US), "MALFORMED", "what is to come cannot be sealed"),
        (seal("x", 11 * DAY_US + 1), "MALFORMED", "not on a quarter of an hour"),
        (seal("x", 11 * DAY_US + HOUR_US // 2 + HOUR_US // 6, 13 * DAY_US), "MALFORMED", "not on a quarter of an hour"),
    ],
)
def test_a_seal_is_refused_for_each_of_its_reasons(command: c.SealBooks, why: str, sentence: str) -> None:
    story = Story().given(seal())
    with pytest.raises(Refusal) as caught:
        decide(story.books, command)
    assert (caught.value.reason, sentence in str(caught.value)) == (why, True), caught.value


def test_midnight_of_every_zone_can_be_sealed_through_and_so_can_the_time_of_the_seal() -> None:
    story = Story()
    for number, minutes in enumerate((-8 * 60, 0, 5 * 60 + 45), 1):
        at_us = number * 10 * DAY_US + minutes * 60_000_000
        story.given(seal(f"s{number}", at_us, at_us))


def test_books_that_were_not_loaded_for_a_seal_do_not_pretend_that_nothing_was_booked() -> None:
    books = Books(complete=False, seals=None, booked=None, streams={"books/jan": []})
    with pytest.raises(NotLoaded):
        decide(books, seal())


def test_an_entry_is_booked_when_it_occurred_or_when_the_period_that_is_open_began() -> None:
    jan, feb = Seal("jan", None, 100, 5), Seal("feb", 100, 200, 9)
    seals = [jan, feb]
    cases = {
        # (position, occurred): (booked, adjusts)
        (4, 50): (50, None),  # before there was any seal
        (6, 99): (100, jan),
        (6, 100): (100, None),
        (6, 150): (150, None),
        (10, 50): (200, jan),  # the period it happened in, though another was sealed since
        (10, 150): (200, feb),
        (10, 200): (200, None),
        (10, 999): (999, None),
        (7, -5): (100, jan),
    }
    assert {key: (booked_us(*key, seals), adjusts(*key, seals)) for key in cases} == cases


def test_a_late_fact_earns_what_it_would_have_earned_in_time() -> None:
    """Facts are never refused or changed for being late: the seal is nothing to the engine."""
    [late] = Story().given(seal()).when(order("O1", "C", day=2))
    [in_time] = Story().when(order("O1", "C", day=2))
    assert (late.decision.lines, late.decision.postings) == (in_time.decision.lines, in_time.decision.postings)
    assert (late.fact, late.occurred_us) == (in_time.fact, 2 * DAY_US)


@pytest.mark.parametrize("randomness", range(60))
def test_the_trial_balance_of_a_sealed_period_by_booking_date_is_what_was_sealed_for_ever(randomness: int) -> None:
    """Random orders, refunds, completions, releases and corrections, many of them late, with seals between."""
    generator = Random(randomness)
    story, written = Story(), list[tuple[int, Draft]]()
    today, sealed_through, ids = 3, 0, 0

    def tell_(command: c.Command) -> None:
        try:
            answer = decide(story.books, command)
        except Refusal:
            return
        assert isinstance(answer, list)
        for draft in answer:
            written.append((story.tell(draft.stream, draft.fact, draft.decision, draft.occurred_us).position, draft))

    for _ in range(60):
        today, ids = today + generator.randint(0, 1), ids + 1
        when = max(0, today - generator.choice((0, 0, 1, 5, 20)))
        some = f"O{generator.randint(1, ids)}"
        if generator.random() < 0.12 and today - 2 > sealed_through:
            sealed_through = generator.randint(sealed_through + 1, today)
            tell_(seal(f"S{ids}", sealed_through * DAY_US, today * DAY_US))
            continue
        kind = f.AdjustmentKind.CORRECTION
        tell_(
            generator.choice(
                (
                    order(f"O{ids}", "C", generator.randint(1, 99_999), day=when),
                    order(f"O{ids}", "B", generator.randint(1, 99_999), day=when),
                    refund(f"R{ids}", (1, 0, generator.randint(1, 50_000)), order_id=some, day=when),
                    complete(some, when),
                    c.ReleaseDue(when * DAY_US, 5),
                    c.PostAdjustment(
                        f.AdjustmentPosted(f"J{ids}", "A", kind, generator.randint(-999, 999), "CNY", "x", "p", "q"), when * DAY_US
                    ),
                )
            )
        )
    assert story.books.seals is not None
    seals = list(story.books.seals)
    assert seals
    for position, draft in written:
        if not isinstance(draft.fact, f.BooksSealed):
            continue
        through_us, sums, entries = draft.fact.through_us, Counter[tuple[f.Account, str]](), 5
        for at, other in written:
            if booked_us(at, other.occurred_us, seals) < through_us:
                entries += 1
                for posting in getattr(other.decision, "postings", ()):
                    sums[posting.account, posting.asset] += posting.amount_minor
        assert {(t.account, t.asset): t.amount_minor for t in draft.decision.totals} == {key: n for key, n in sums.items() if n}, position
        assert draft.decision.entries == entries
        assert sum(total.amount_minor for total in draft.decision.totals) == 0


# ---------------------------------------------------------------- on the server


@pytest.fixture
def shop(client: Client) -> Client:
    """C, brought by B, brought by A, buys on day 2; the books are sealed through day 10 on day 12; half comes back, dated on day 9."""
    client.publish()
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
        client.enroll(member, referrer)
    client.order("O1", "C", line(1, 20_000), at=2)
    client.order("O2", "C", line(1, 1_000), at=11)
    client.seal("jan", through=10, at=12)
    client.refund("R1", "O1", (1, 0, 10_000), at=9)
    return client


def test_a_late_refund_adjusts_the_open_period_and_points_back(shop: Client) -> None:
    postings = shop.ledger.ListPostings(lp.ListPostingsRequest(program_id=shop.program_id, member_id="B")).postings
    told = [(one.stream, one.amount.minor_units, one.occurred_at, one.booked_at, one.adjusts.seal_id) for one in postings]
    assert told == [
        ("order/O1", 2_000, day(2), day(2), ""),
        ("order/O2", 100, day(11), day(11), ""),
        ("order/O1", -1_000, day(9), day(10), "jan"),
    ]
    assert not postings[0].HasField("adjusts")
    assert (postings[2].adjusts.through, postings[2].adjusts.HasField("from")) == (day(10), False)
    explained = shop.ledger.Explain(lp.ExplainRequest(program_id=shop.program_id, posting_id=postings[2].posting_id))
    assert (explained.booked_at, explained.adjusts) == (day(10), postings[2].adjusts)
    assert any("after the books were sealed through 2026-01-10T00:00:00Z (seal jan" in text for text in explained.sentences)
    in_time = shop.ledger.Explain(lp.ExplainRequest(program_id=shop.program_id, posting_id=postings[0].posting_id))
    assert (in_time.booked_at, in_time.HasField("adjusts")) == (day(2), False)


def test_a_second_seal_shows_how_the_accounts_moved_in_its_period(shop: Client) -> None:
    shop.seal("feb", through=20, at=20)
    jan, feb = shop.ledger.ListSeals(lp.ListSealsRequest(program_id=shop.program_id)).seals

    def amounts(rows: Any) -> dict[str, int]:
        return {log_pb2.Account.Name(row.account)[8:].lower(): row.balance.minor_units for row in rows}

    assert amounts(jan.balances) == amounts(jan.movements) == {"pending": 2_000, "commission": -3_000, "breakage": 1_000}
    assert amounts(feb.balances) == {"pending": 1_100, "commission": -1_650, "breakage": 550}
    assert amounts(feb.movements) == {"pending": -900, "commission": 1_350, "breakage": -450}
    assert getattr(feb.period, "from") == jan.period.through == day(10)
    entries = shop.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id=shop.program_id)).entries
    assert {entry.hash for entry in entries if entry.type == "books.sealed.v1"} == {jan.entry_hash, feb.entry_hash}
    assert shop.differences() == []


def test_late_entries_are_listed_by_the_seal_they_adjust_and_in_pages(shop: Client) -> None:
    shop.seal("feb", through=20, at=20)
    shop.enroll("D", "C", at=3)  # late too, but it moves nothing
    shop.refund("R2", "O1", (1, 0, 1_000), at=8)
    shop.refund("R3", "O2", (1, 0, 1_000), at=15)
    shop.order("O3", "C", line(1, 500), at=25)

    def listed(seal_id: str = "", page_size: int = 0) -> list[lp.LateEntry]:
        request = lp.ListLateEntriesRequest(program_id=shop.program_id, seal_id=seal_id, page_size=page_size)
        found: list[lp.LateEntry] = []
        while True:
            page = shop.ledger.ListLateEntries(request)
            assert len(page.entries) <= (page_size or 100)
            found += page.entries
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    late = listed()
    assert [(one.type, one.adjusts.seal_id, one.booked_at) for one in late] == [
        ("order.refunded.v1", "jan", day(10)),
        ("order.refunded.v1", "jan", day(20)),
        ("order.refunded.v1", "feb", day(20)),
    ]
    assert [one.adjusts.seal_id for one in listed("jan")] == ["jan", "jan"]
    assert [one.adjusts.seal_id for one in listed("feb")] == ["feb"]
    assert listed(page_size=1) == late
    assert [(p.member_id, p.amount_minor) for p in late[2].postings] == [("", 150), ("B", -100), ("", -50)]


def test_what_is_wrong_with_a_seal_is_told_with_its_reason(shop: Client) -> None:
    refused = []
    calls: list[Callable[[], object]] = [
        lambda: shop.seal("x", through=10, at=12),
        lambda: shop.seal("x", through=14, at=13),
        lambda: shop.seal("jan", through=11, at=12),
        lambda: shop.ledger.ListLateEntries(lp.ListLateEntriesRequest(program_id=shop.program_id, seal_id="x")),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        refused.append(reason(caught.value)[1])
    assert refused == ["SEALED_ALREADY", "MALFORMED", "ID_REUSED", "SEAL_UNKNOWN"]
    again = shop.seal("jan", through=10, at=12)
    assert again.receipt.already_recorded
    assert [one.period.seal_id for one in shop.ledger.ListSeals(lp.ListSealsRequest(program_id=shop.program_id)).seals] == ["jan"]


def test_the_command_line_seals_and_says_what_came_too_late(shop: Client, server: RunningServer) -> None:
    def run(*words: str) -> str:
        result = invoke(*words, "-P", shop.program_id, "--target", server.address)
        assert result.exit_code == 0, result.output
        return result.stdout

    said = run(
        "books", "seal", "--through", "2026-02-01", "--reason", "month end", "--by", "zhao", "--seal-id", "feb", "--at", "2026-02-02"
    )
    assert "seal feb: recorded at position" in said
    assert "from 2026-01-10T00:00:00Z through 2026-02-01T00:00:00Z" in said
    assert "commission" in run("books", "seals")
    late = run("books", "late", "--seal", "jan")
    assert "order.refunded O1" in late
    assert "B pending" in late
    assert run("books", "late", "--seal", "feb") == "nothing came too late\n"
    assert "adjusts the period sealed as jan" in run("statement", "B", "--format", "html")
    assert "调整已结账期间 jan" in run("statement", "B", "--format", "html", "--language", "zh")
    assert json.loads(run("statement", "B", "--json"))["postings"][2]["posting"]["adjusts"]["seal_id"] == "jan"
    assert '"seal_id": "jan"' in run("books", "seals", "--json")


@pytest.mark.parametrize("randomness", [0, 1, 2, 4])
def test_the_servers_seals_are_the_oracles_and_late_entries_are_what_the_log_says(
    channel: grpc.Channel, fresh_program_id: Callable[[], str], randomness: int
) -> None:
    """Random stories with a seal after every few facts: sums from the log, by booking date, are the totals that were sealed."""
    client, oracle = GrpcDriver(channel, fresh_program_id(), CURRENCY), Oracle(CURRENCY)
    draw = RandomDrawing(Random(randomness), oracle)
    told = draw.opening()
    for fact in told:
        tell(oracle, fact)
        tell(client, fact)
    for number in range(60):
        fact = draw.seal_books() if number % 10 == 9 else draw.trade()
        expected, got = tell(oracle, fact), tell(client, fact)
        if isinstance(fact, SealBooks):
            assert got == expected
    client.check_itself()
    stub = Client.of(channel, client.program_id)
    seals = stub.ledger.ListSeals(lp.ListSealsRequest(program_id=client.program_id)).seals
    late = stub.ledger.ListLateEntries(lp.ListLateEntriesRequest(program_id=client.program_id, page_size=1000)).entries
    periods = [(one.period.position, nanoseconds(one.period.through), one.period.seal_id) for one in seals]
    expected_late = []
    for entry in client._entries():
        occurred = nanoseconds(entry.occurred_at)
        missed = [seal_id for position, through, seal_id in periods if position < entry.position and occurred < through]
        if missed and postings_of(entry):
            expected_late.append((entry.position, missed[0]))
    assert expected_late
    assert [(one.position, one.adjusts.seal_id) for one in late] == expected_late
