"""Facts of every kind in bulk: one call, one order, each answered for itself."""

from collections.abc import Iterator

from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2
from google.rpc import error_details_pb2, status_pb2

from tests.given import Client, day, line


def story(client: Client) -> list[ops_pb2.Fact]:
    """Ann brings Bob; Bob buys, becomes manager by that order, and Cho, whom he brought, buys after it; one order is nonsense."""
    facts = [ops_pb2.Fact() for _ in range(8)]
    for fact, (member, referrer) in zip(facts, (("ann", ""), ("bob", "ann"), ("cho", "bob")), strict=False):
        fact.enroll_member.member_id, fact.enroll_member.referrer_id = member, referrer
        fact.enroll_member.enrolled_at.CopyFrom(day(1))
    facts[3].record_order.order.CopyFrom(client.told_order("o1", "bob", line(1, 1000)))
    facts[4].upgrade_member.upgrade_id, facts[4].upgrade_member.member_id, facts[4].upgrade_member.tier = "u1", "bob", "manager"
    facts[4].upgrade_member.upgraded_at.CopyFrom(day(2))
    facts[4].upgrade_member.evidence.kind = log_pb2.EVIDENCE_KIND_PAID_ORDER
    facts[4].upgrade_member.evidence.order_id = "o1"
    facts[5].record_order.order.CopyFrom(client.told_order("o2", "nobody", line(1, 1000)))
    facts[6].record_order.order.CopyFrom(client.told_order("o3", "cho", line(1, 2000)))
    facts[7].complete_order.completion.order_id = "o3"
    facts[7].complete_order.completion.completed_at.CopyFrom(day(3))
    return facts


def reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return str(info.reason)


def test_facts_of_both_services_are_recorded_in_the_order_given(client: Client) -> None:
    """The upgrade names an order of the same call, the order after it sees the tier; the refused one harms nobody."""
    client.publish()
    facts = story(client)
    request = ops_pb2.RecordFactsRequest(program_id=client.program_id, facts=facts)
    results = client.ops.RecordFacts(request).results
    kinds = [fact.WhichOneof("fact") for fact in facts]
    assert [result.WhichOneof("result") for result in results] == [*kinds[:5], "error", *kinds[6:]]
    assert reason(results[5].error) == "MEMBER_UNKNOWN"
    earned = {earning.member_id: earning.amount.minor_units for earning in results[6].record_order.recorded.earnings}
    assert earned == {"bob": 200, "ann": 100}
    positions = [getattr(result, result.WhichOneof("result") or "") for result in results if result.WhichOneof("result") != "error"]
    assert len(positions) == 7
    assert client.differences() == []
    again = client.ops.RecordFacts(request).results
    assert again[3].record_order.recorded.receipt.already_recorded
    assert again[3].record_order.recorded.receipt.position == results[3].record_order.recorded.receipt.position


def test_a_stream_answers_each_message_in_turn(client: Client) -> None:
    client.publish()

    def messages() -> Iterator[ops_pb2.StreamFactsRequest]:
        for fact in story(client):
            yield ops_pb2.StreamFactsRequest(program_id=client.program_id, facts=[fact])

    answers = list(client.ops.StreamFacts(messages()))
    assert [len(answer.results) for answer in answers] == [1] * 8
    assert client.balance("bob") == {"pending": 200, "accrued": 200}


def test_a_fact_of_another_program_or_of_no_kind_is_malformed(client: Client) -> None:
    client.publish()
    facts = story(client)[:1]
    facts[0].enroll_member.program_id = "another"
    results = client.ops.RecordFacts(ops_pb2.RecordFactsRequest(program_id=client.program_id, facts=[*facts, ops_pb2.Fact()])).results
    assert [reason(result.error) for result in results] == ["MALFORMED", "MALFORMED"]
    assert "another" in results[0].error.message
