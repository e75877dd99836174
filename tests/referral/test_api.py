"""Referral over gRPC and PostgreSQL: bindings and tiers as callers see them, and what they do to orders."""

import grpc
import pytest
from fenrun.referral.v1 import referral_pb2 as rp

from tests.given import Client, line, reason


@pytest.fixture
def family(client: Client) -> Client:
    """A brought B, B brought C and D, D brought E; everybody has bought once, top first."""
    client.publish()
    for number, (member, referrer) in enumerate((("A", ""), ("B", "A"), ("C", "B"), ("D", "B"), ("E", "D"))):
        client.enroll(member, referrer)
        client.order(f"first-{number}", member, line(1, 0))
    return client


def refused(call: object) -> str:
    assert isinstance(call, grpc.RpcError)
    return reason(call)[1]


def test_the_upline_is_the_locked_path_nearest_first(family: Client) -> None:
    answer = family.referral.GetUpline(rp.GetUplineRequest(program_id=family.program_id, member_id="E"))
    assert ([member.member_id for member in answer.members], answer.more) == (["D", "B", "A"], False)
    answer = family.referral.GetUpline(rp.GetUplineRequest(program_id=family.program_id, member_id="E", max_depth=2))
    assert ([member.member_id for member in answer.members], answer.more) == (["D", "B"], True)


def test_the_downline_comes_level_by_level_in_pages(family: Client) -> None:
    found, token = [], ""
    while True:
        request = rp.ListDownlineRequest(program_id=family.program_id, member_id="A", max_depth=3, page_size=2, page_token=token)
        page = family.referral.ListDownline(request)
        found += [(one.depth, one.member.member_id) for one in page.members]
        token = page.next_page_token
        if not token:
            break
    assert found == [(1, "B"), (2, "C"), (2, "D"), (3, "E")]
    member = family.referral.GetMember(rp.GetMemberRequest(program_id=family.program_id, member_id="B"))
    assert (member.direct_count, member.member.locked, member.member.referrer_id) == (2, True, "A")


def test_a_page_token_of_another_call_is_refused(family: Client) -> None:
    page = family.referral.ListDownline(rp.ListDownlineRequest(program_id=family.program_id, member_id="B", page_size=1))
    for request in (
        rp.ListDownlineRequest(program_id=family.program_id, member_id="A", page_token=page.next_page_token),
        rp.ListDownlineRequest(program_id=family.program_id, member_id="B", page_token=page.next_page_token + "x"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            family.referral.ListDownline(request)
        assert refused(caught.value) == "TOKEN_INVALID"


def test_an_open_touch_is_in_nobodys_downline(client: Client) -> None:
    client.publish()
    client.enroll("A")
    client.enroll("B", "A")
    answer = client.referral.ListDownline(rp.ListDownlineRequest(program_id=client.program_id, member_id="A"))
    assert list(answer.members) == []


def test_the_whole_history_of_a_binding_can_be_read(family: Client) -> None:
    """Enrolment, touch, lock by order, a touch too late, upgrade, correction: all there, oldest first."""
    family.enroll("F", "A")
    family.touch("t1", "F", "B")
    family.order("o-f", "F", line(1, 0))
    assert not family.touch("t2", "F", "C").counts
    family.upgrade("u1", "F", "manager")
    family.correct("c1", "F", "C")
    events = family.referral.ListBindingHistory(rp.ListBindingHistoryRequest(program_id=family.program_id, member_id="F")).events
    assert [event.WhichOneof("event") for event in events] == ["enrolled", "touched", "locked_by_order", "touched", "upgraded", "corrected"]
    assert (events[1].touched.counts, events[3].touched.counts) == (True, False)
    assert events[2].locked_by_order.lock.referrer_id == "B"
    assert (events[5].corrected.previous_referrer_id, events[5].corrected.correction.referrer_id) == ("B", "C")
    pages = family.referral.ListBindingHistory(rp.ListBindingHistoryRequest(program_id=family.program_id, member_id="F", page_size=4))
    assert len(pages.events) == 4
    rest = family.referral.ListBindingHistory(
        rp.ListBindingHistoryRequest(program_id=family.program_id, member_id="F", page_size=4, page_token=pages.next_page_token)
    )
    assert list(pages.events) + list(rest.events) == list(events)


def test_a_correction_counts_for_later_orders_only(family: Client) -> None:
    """An earlier order and its later refund stay with the old upline."""
    family.order("before", "C", line(1, 10_000))
    family.correct("c1", "C", "D")
    family.order("after", "C", line(1, 10_000))
    assert family.balance("D") == {"pending": 1000, "accrued": 1000}
    assert family.balance("B") == {"pending": 1500, "accrued": 1500}
    family.refund("r", "before", (1, 1, 10_000))
    assert family.balance("B") == {"pending": 500, "accrued": 1500, "reversed": 1000}
    assert family.differences() == []


def test_an_order_right_after_an_upgrade_sees_it(client: Client) -> None:
    client.publish(
        """
plan: tiered
version: 1
currency: GBP
tiers: [会员, 经理]
effective: {from: "2000-01-01T00:00:00Z"}
rules: [{id: first, kind: generation, generation: 1, rates: {会员: 1%, 经理: 5%}}]
"""
    )
    client.enroll("A")
    client.enroll("B", "A")
    client.upgrade("u1", "A", "会员")
    assert client.order("o1", "B", line(1, 1000)).earnings[0].amount.minor_units == 10
    client.upgrade("u2", "A", "经理")
    assert client.order("o2", "B", line(1, 1000)).earnings[0].amount.minor_units == 50


@pytest.mark.parametrize(
    ("member", "referrer", "expected"), [("A", "A", "SELF_BINDING"), ("A", "E", "BINDING_CYCLE"), ("A", "X", "MEMBER_UNKNOWN")]
)
def test_a_correction_that_breaks_the_tree_is_refused(family: Client, member: str, referrer: str, expected: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        family.correct("c1", member, referrer)
    assert refused(caught.value) == expected
