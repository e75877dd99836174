"""The ledger over gRPC and PostgreSQL: the same story once more, and what only the API has (as of, pages, explanations, error details)."""

from typing import Any

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2
from fenrun.type.v1 import type_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.given import TWO_LEVEL, Client, day, line, money, reason
from tests.ledger.stories import log_of


@pytest.fixture
def story(client: Client) -> Client:
    """Worked case: A brought B, B brought C; C's order of 179.03 and 89.96 is released, B is paid, line 2 comes back in three parts."""
    client.publish()
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
        client.enroll(member, referrer)
    client.upgrade("u1", "B", "manager")
    client.order("O1", "C", line(1, 17903), line(2, 8996, 3))
    client.complete("O1")
    client.release()
    client.payout("P1", "B", 2690)
    client.confirm("P1")
    for number, base in enumerate((2999, 2999, 2998)):
        client.refund(f"R{number}", "O1", (2, 1, base))
    return client


def head(client: Client) -> int:
    return client.ops.GetProgram(ops_pb2.GetProgramRequest(program_id=client.program_id)).head_position


def test_the_worked_case_ends_in_a_debt_of_nine_and_the_next_release_settles_it(story: Client) -> None:
    assert story.balance("B") == {"paid": 2690, "debt": 900, "accrued": 2690, "reversed": 900}
    assert story.balance("A") == {"available": 895, "accrued": 1345, "reversed": 450}
    story.order("O2", "C", line(1, 12_000), at=30)
    story.complete("O2", at=31)
    story.release(60)
    assert story.balance("B") == {"available": 300, "paid": 2690, "accrued": 3890, "reversed": 900}
    assert sum(story.trial_balance().values()) == 0
    assert story.differences() == []


def test_a_balance_can_be_asked_as_of_a_position_and_as_of_a_time(story: Client) -> None:
    postings = story.ledger.ListPostings(lp.ListPostingsRequest(program_id=story.program_id, member_id="B")).postings
    released = next(posting for posting in postings if posting.type == "order.released.v1")
    assert story.balance("B", position=released.position) == {"available": 2690, "accrued": 2690}
    assert story.balance("B", position=released.position - 1) == {"pending": 2690, "accrued": 2690}
    assert story.balance("B", recorded_at=released.recorded_at) == {"available": 2690, "accrued": 2690}
    assert story.balance("B", position=0) == {}
    with pytest.raises(grpc.RpcError) as caught:
        story.balance("B", position=head(story) + 1)
    assert reason(caught.value)[:2] == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_BEYOND_HEAD")


def test_postings_come_in_pages_and_add_up_to_the_balances(story: Client) -> None:
    pages, token = [], ""
    while True:
        request = lp.ListPostingsRequest(program_id=story.program_id, member_id="B", page_size=2, page_token=token)
        answer = story.ledger.ListPostings(request)
        pages.append(list(answer.postings))
        token = answer.next_page_token
        if not token:
            break
    postings = [posting for page in pages for posting in page]
    assert len(pages) > 2
    assert [posting.position for posting in postings] == sorted(posting.position for posting in postings)
    sums: dict[int, int] = {}
    for posting in postings:
        sums[posting.account] = sums.get(posting.account, 0) + posting.amount.minor_units
        assert posting.balance_after.minor_units == sums[posting.account]
    assert sums == {1: 0, 2: 0, 3: 0, 4: 2690, 5: -900}


def test_explain_tells_rate_base_rounding_and_what_it_reversed(story: Client) -> None:
    postings = story.ledger.ListPostings(lp.ListPostingsRequest(program_id=story.program_id, member_id="B")).postings
    accrued, reversed_ = postings[0], postings[-1]
    answer = story.ledger.Explain(lp.ExplainRequest(program_id=story.program_id, posting_id=accrued.posting_id))
    assert [(s.line_no, s.rule_id, s.tier, s.rate, s.base_minor, s.exact_minor, s.amount_minor) for s in answer.shares] == [
        (1, "first", "manager", "0.1", 17903, "1790.3", 1790),
        (2, "first", "manager", "0.1", 8996, "899.6", 900),
    ]
    assert [person.member_id for person in answer.people] == ["C", "B", "A"]
    assert (answer.plan.plan_id, answer.plan.version) == ("two-level", 1)
    answer = story.ledger.Explain(lp.ExplainRequest(program_id=story.program_id, posting_id=reversed_.posting_id))
    [share] = answer.shares
    assert (share.entitled_before_minor, share.entitled_after_minor, share.amount_minor, share.base_minor) == (300, 0, -300, 0)
    assert answer.because_of == [accrued.position]
    assert answer.posting.account == log_pb2.ACCOUNT_DEBT


def test_explain_knows_a_plan_that_was_published_after_it_was_asked(story: Client) -> None:
    """Plans that stand before an entry are kept with the program."""

    def explained(member_id: str) -> lp.ExplainResponse:
        postings = story.ledger.ListPostings(lp.ListPostingsRequest(program_id=story.program_id, member_id=member_id)).postings
        last = [posting for posting in postings if posting.type == "order.paid.v1"][-1]
        return story.ledger.Explain(lp.ExplainRequest(program_id=story.program_id, posting_id=last.posting_id))

    before = explained("B")
    assert before.plan.version == 1
    story.publish(TWO_LEVEL.replace("version: 1", "version: 2").replace("2000-01-01", "2026-02-01"), at=40)
    story.order("O9", "C", line(1, 10000), at=41)
    after = explained("B")
    assert (after.plan.version, after.plan.position) == (2, after.entry.position - 1)
    answer = story.ledger.Explain(lp.ExplainRequest(program_id=story.program_id, posting_id=f"{before.entry.position}.1"))
    assert answer.plan == before.plan


def test_every_posting_of_every_entry_can_be_explained(story: Client) -> None:
    """Also the company's, and those of payouts and adjustments; shares of orders add up to the payee's or the company's posting."""
    story.ledger.PostAdjustment(adjustment(story, "J1", 100))
    entries = story.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id=story.program_id, page_size=1000)).entries
    explained, refused = 0, set()
    for entry in entries:
        for number in range(1, 10):
            try:
                answer = story.ledger.Explain(lp.ExplainRequest(program_id=story.program_id, posting_id=f"{entry.position}.{number}"))
            except grpc.RpcError as error:
                refused.add(reason(error)[1])
                break
            explained += 1
            assert answer.entry == entry
            assert answer.sentences
            if entry.type == "order.paid.v1":
                total = sum(share.amount_minor for share in answer.shares)
                assert abs(answer.posting.amount_minor) == total
    assert refused == {"POSTING_UNKNOWN"}
    assert explained == 3 + 4 + 2 + 2 + 3 * 3 + 2


def adjustment(client: Client, adjustment_id: str, minor: int, **more: Any) -> lp.PostAdjustmentRequest:
    return lp.PostAdjustmentRequest(
        program_id=client.program_id,
        adjustment_id=adjustment_id,
        member_id="B",
        kind=log_pb2.ADJUSTMENT_KIND_CORRECTION,
        amount=money(minor),
        reason="goodwill",
        requested_by="ann",
        approved_by="bob",
        posted_at=day(40),
        **more,
    )


def test_an_order_shows_what_remains_of_it(story: Client) -> None:
    found = story.ledger.GetOrder(lp.GetOrderRequest(program_id=story.program_id, order_id="O1"))
    assert [(x.line_no, x.remaining_base_minor, x.remaining_quantity) for x in found.lines] == [(1, 17903, 1), (2, 0, 0)]
    assert {(e.rule_id, e.member_id): e.amount_minor for e in found.lines[0].entitlements} == {("first", "B"): 1790, ("second", "A"): 895}
    assert found.completed_at == day(3)
    assert len(found.positions) == 6


def test_malformed_input_lists_every_field(client: Client) -> None:
    order = client.told_order("a b", "C", line(0, -1), currency="gbp")
    with pytest.raises(grpc.RpcError) as caught:
        client.ledger.RecordOrder(lp.RecordOrderRequest(program_id=client.program_id, order=order))
    assert reason(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # a client's RpcError is a Call too
    assert status is not None
    bad = error_details_pb2.BadRequest()
    next(detail for detail in status.details if detail.Is(bad.DESCRIPTOR)).Unpack(bad)
    fields = {violation.field for violation in bad.field_violations}
    assert fields == {"order.order_id", "order.currency", "order.lines[0].line_no", "order.lines[0].base_minor"}


def test_a_read_waits_for_nothing_but_knows_when_it_is_too_early(story: Client) -> None:
    receipt = story.order("O9", "C", line(1, 100)).receipt
    fresh = type_pb2.ReadConsistency(at_least_as_fresh=receipt.consistency_token)
    assert story.balance("C", consistency=fresh) == {}
    for token, expected in (("nonsense", "TOKEN_INVALID"), (receipt.consistency_token[:-4], "TOKEN_INVALID")):
        with pytest.raises(grpc.RpcError) as caught:
            story.balance("C", consistency=type_pb2.ReadConsistency(at_least_as_fresh=token))
        assert reason(caught.value)[1] == expected


def test_a_batch_answers_each_order_for_itself(story: Client) -> None:
    """A good one, the same again, the same id with other content, an unknown buyer, a malformed one, another good one."""
    good = story.told_order("O5", "C", line(1, 1000))
    orders = [
        good,
        good,
        story.told_order("O5", "C", line(1, 1001)),
        story.told_order("O6", "nobody", line(1, 1)),
        lp.Order(order_id="O7"),
        story.told_order("O8", "C", line(1, 2000)),
    ]
    results = story.ledger.RecordOrders(lp.RecordOrdersRequest(program_id=story.program_id, orders=orders)).results
    assert [result.WhichOneof("result") for result in results] == ["recorded", "recorded", "error", "error", "error", "recorded"]
    assert [result.recorded.receipt.already_recorded for result in results[:2]] == [False, True]
    assert results[0].recorded.receipt.position == results[1].recorded.receipt.position
    codes = {code.value[0]: code for code in grpc.StatusCode}
    found = [codes[result.error.code].name for result in results[2:5]]
    assert found == ["ALREADY_EXISTS", "NOT_FOUND", "INVALID_ARGUMENT"]


def test_an_unknown_program_is_named(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        Client(f"{client.program_id}-not", client.ledger, client.referral, client.ops, client.statistics).enroll("A")
    assert reason(caught.value) == (grpc.StatusCode.NOT_FOUND, "PROGRAM_UNKNOWN", {"program_id": f"{client.program_id}-not"})


def test_plans_are_found_by_position_by_time_and_by_id(client: Client) -> None:
    published = client.publish()
    for which in ({"position": published.receipt.position}, {"in_force_at": day(5)}, {"latest_of_plan_id": "two-level"}, {}):
        found = client.ledger.GetPlan(lp.GetPlanRequest(program_id=client.program_id, **which))
        assert (found.plan.plan_id, found.position, found.content_hash) == ("two-level", published.receipt.position, published.content_hash)
    with pytest.raises(grpc.RpcError) as caught:
        client.ledger.GetPlan(lp.GetPlanRequest(program_id=client.program_id, latest_of_plan_id="other"))
    assert reason(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "PLAN_UNKNOWN")


def test_two_documents_that_mean_the_same_are_the_same_version(client: Client) -> None:
    """Comments and order of keys do not count; content does."""
    first = client.publish()
    document = "# with a comment\n" + "\n".join(reversed(["currency: GBP", "version: 1"])) + "\n"
    again = client.publish(document + client_document_rest())
    assert again.receipt.already_recorded
    assert again.receipt.position == first.receipt.position
    with pytest.raises(grpc.RpcError) as caught:
        client.publish(document + client_document_rest().replace("10%", "11%"))
    assert reason(caught.value)[1] == "ID_REUSED"


def client_document_rest() -> str:
    return """
plan: two-level
tiers: [member, manager, director, partner]
effective: {from: "2000-01-01T00:00:00Z"}
release: {days: 7}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: second, kind: generation, generation: 2, rate: 5%}
"""


TASKS = """
plan: tasks
version: 1
currency: GBP
effective: {{from: "2026-01-01T00:00:00Z"}}
rules:
  - {{id: task, kind: triggered, on: task, task: "{}", to: {{member: 5}}}}
"""


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u00a0", "\u3000", "\u0378", "\u200b"])
def test_a_task_that_no_plan_can_name_is_refused_not_recorded_and_unpaid(client: Client, sign: str) -> None:
    """One rule for the plan's `task` and the request's, in both places where a task can be told."""
    with pytest.raises(grpc.RpcError) as caught:
        client.publish(TASKS.format(f"sh\\u{ord(sign):04x}are"))
    _, why, metadata = reason(caught.value)
    assert (why, metadata["path"]) == ("PLAN_INVALID", "rules[0].task")
    client.publish(TASKS.format("分享-1"))
    client.enroll("A")
    with pytest.raises(grpc.RpcError) as caught:
        client.task("T1", "A", f"sh{sign}are")
    assert reason(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    assert reason(caught.value)[2]["field"] == "task"
    told = lp.RecordTaskRequest(task_id="T1", member_id="A", task=f"sh{sign}are", done_at=day(2))
    request = ops_pb2.RecordFactsRequest(program_id=client.program_id, facts=[ops_pb2.Fact(record_task=told)])
    [result] = client.ops.RecordFacts(request).results
    assert result.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    client.task("T1", "A", "分享-1")
    assert client.balance("A") == {"pending": 5, "accrued": 5}


def test_a_group_that_fails_late_tells_what_closed_periods_give_less_and_again_when_asked_again(client: Client) -> None:
    client.publish(
        """
plan: fund
version: 1
currency: GBP
profile: none
tiers: [gold]
effective: {from: "2000-01-01T00:00:00Z"}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: fund, kind: pool, per: period, tiers: [gold], split: volume, rate: 1%}
promotions:
  - {tier: gold, any: [{metric: own_volume, at_least: 10000}]}
"""
    )
    client.enroll("mei")
    client.enroll("bo", "mei")
    client.open_group("g1", "bo", at=2)
    client.order("O1", "bo", line(1, 20_000), at=3, group="g1")
    client.order("O2", "bo", line(1, 5_000), at=3, group="g1")
    client.order("O3", "bo", line(1, 10_000), at=3)
    client.close_period("2026-01", at=40)
    failed = client.fail_group("g1", at=45)
    assert [(one.member_id, one.amount.minor_units) for one in failed.reversed] == [("mei", 2_500)]
    assert [(one.member_id, one.amount.minor_units) for one in failed.period_reversed] == [("bo", 250)]
    before = head(client)
    again = client.fail_group("g1", at=45)
    assert (again.orders, again.reversed, again.period_reversed) == (2, failed.reversed, failed.period_reversed)
    assert head(client) == before
    assert client.balance("bo")["pending"] == 100


def test_reads_that_come_together_are_answered_each_for_itself(client: Client, channel: grpc.Channel, fresh_program_id: Any) -> None:
    """Of two programs, with reads among them that are refused, and one that no bigint holds."""
    other = Client.of_new_program(channel, fresh_program_id())
    for one in (client, other):
        one.publish()
        for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
            one.enroll(member, referrer)
    client.order("O1", "C", line(1, 17903))
    other.order("O1", "B", line(1, 4000), line(2, 500))
    other.order("O2", "C", line(1, 100))
    early = type_pb2.ReadConsistency(at_least_as_fresh=other.complete("O2").receipt.consistency_token)

    def balance(program_id: str, member_id: str, **more: Any) -> Any:
        request = lp.GetBalanceRequest(program_id=program_id, member_id=member_id, **more)
        return lambda: client.ledger.GetBalance.future(request)

    def order(program_id: str, order_id: str, **more: Any) -> Any:
        request = lp.GetOrderRequest(program_id=program_id, order_id=order_id, **more)
        return lambda: client.ledger.GetOrder.future(request)

    def explanation(program_id: str, posting_id: str) -> Any:
        return lambda: client.ledger.Explain.future(lp.ExplainRequest(program_id=program_id, posting_id=posting_id))

    def answer(future: Any) -> Any:
        try:
            return future.result()
        except grpc.RpcError as error:
            return reason(error)

    last = head(other)
    reads = [
        *(balance(one.program_id, member) for one in (client, other) for member in ("A", "B", "C", "D")),
        balance("nowhere", "A"),
        balance(other.program_id, "A", consistency=early),
        balance(client.program_id, "A", consistency=early),
        balance(client.program_id, "A", asset="GBP"),
        balance(client.program_id, "A", asset="stars"),
        balance(client.program_id, "D", asset="stars"),
        *(order(one.program_id, order_id) for one in (client, other) for order_id in ("O1", "O2")),
        order("nowhere", "O1"),
        order(other.program_id, "O2", consistency=early),
        *(explanation(other.program_id, f"{position}.1") for position in range(1, last + 2)),
        explanation(client.program_id, "9999999999999999999.1"),
        explanation("nowhere", "1.1"),
    ]
    alone = [answer(read()) for read in reads]
    together = [read() for read in reads for _ in range(4)]
    assert [answer(future) for future in together] == [found for found in alone for _ in range(4)]

    asked = iter(alone)
    balances = [next(asked) for _ in range(8)]
    past = [answer(balance(one.program_id, member, position=head(one))()) for one in (client, other) for member in ("A", "B", "C", "D")]
    assert balances == past, "now is as of the head"
    assert [found.balance.pending_minor for found in balances[:3]] == [0, 1790, 0]
    assert balances[3] == balances[7] == (grpc.StatusCode.NOT_FOUND, "MEMBER_UNKNOWN", balances[3][2])
    assert next(asked)[1] == "PROGRAM_UNKNOWN"
    assert next(asked) == balances[4]
    assert next(asked)[1] == "TOKEN_INVALID"
    assert next(asked) == balances[0]
    assert [next(asked)[1] for _ in range(2)] == ["ASSET_UNKNOWN"] * 2
    first, unknown, *others = (next(asked) for _ in range(4))
    assert (first.order.lines[0].base_minor, unknown[1]) == (17903, "ORDER_UNKNOWN")
    assert [len(one.order.lines) for one in others] == [2, 1]
    assert next(asked)[1] == "PROGRAM_UNKNOWN"
    assert next(asked) == others[1]
    explained = [next(asked) for _ in range(last + 1)]
    entries = {entry.position: entry for entry in log_of(other)}
    for position, found in enumerate(explained, start=1):
        if isinstance(found, lp.ExplainResponse):
            assert found.entry == entries[position]
        else:
            assert found[1] == "POSTING_UNKNOWN"
    assert sum(isinstance(found, lp.ExplainResponse) for found in explained) == 2, "the two orders moved money"
    assert next(asked)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    assert next(asked)[1] == "PROGRAM_UNKNOWN"
