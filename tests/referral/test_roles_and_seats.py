"""Roles, seats for a time, and tiers that orders give and take: deciders first, then the same through gRPC and PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2
from fenrun.referral.v1 import referral_pb2 as rp
from google.rpc import error_details_pb2

from services.kernel.decider import NotLoaded, Repeated
from services.referral.domain import facts as f
from services.referral.domain.decide import EndRole, GrantRole, UpgradeMember, decide
from services.referral.domain.roster import Member, Roster
from tests.given import Client, day, line, reason
from tests.referral.test_decide import Story, enroll, upgrade

SEATED = f.PlanPublished(("member", "manager"), False, 0, None, {"manager": 1})
GRANTED = f.Evidence(f.EvidenceKind.SEAT_GRANTED, "", "")


def grant(grant_id: str, member: str, from_us: int = 10, until_us: int | None = None) -> GrantRole:
    return GrantRole(f.RoleGranted(grant_id, member, "region", "sh", 1, from_us, until_us), 5)


def end(grant_id: str, ended_us: int = 20) -> EndRole:
    return EndRole(f.RoleEnded(grant_id, "", ended_us, "moved"), ended_us)


def seat(upgrade_id: str, member: str, until_us: int | None, at_us: int = 3, evidence: f.Evidence = GRANTED) -> UpgradeMember:
    return UpgradeMember(f.MemberUpgraded(upgrade_id, member, "manager", evidence, until_us), at_us)


def promoted(member: str, tier: str, kind: f.TierChangeKind = f.TierChangeKind.PROMOTED) -> f.OrderMeant:
    return f.OrderMeant((f.TierChanged(member, kind, tier),))


# ---------------------------------------------------------------- deciders


def test_a_role_is_granted_once_and_ended_once_and_ends_with_the_earlier_of_its_ends() -> None:
    story = Story().given(enroll("A"), grant("g", "A", until_us=50), end("g", 20))
    assert story.roster.roles["g"].until_us == 20
    assert isinstance(decide(story.roster, grant("g", "A", until_us=50)), Repeated)
    assert isinstance(decide(story.roster, end("g", 20)), Repeated)
    assert story.refused(grant("g", "A")) == "ID_REUSED"
    assert story.refused(end("g", 21)) == "ID_REUSED"
    assert Story().given(enroll("A"), grant("g", "A", until_us=15), end("g", 20)).roster.roles["g"].until_us == 15


def test_a_role_needs_somebody_who_holds_it_for_some_time() -> None:
    story = Story().given(enroll("A"))
    assert story.refused(grant("g", "nobody")) == "MEMBER_UNKNOWN"
    assert story.refused(grant("g", "A", from_us=10, until_us=10)) == "MALFORMED"
    assert story.refused(end("g")) == "ROLE_GRANT_UNKNOWN"
    assert story.given(grant("g", "A", from_us=10)).refused(end("g", 9)) == "DATED_TOO_EARLY"


def test_of_the_last_seat_the_second_is_refused_until_the_first_has_ended_or_its_holder_moved_on() -> None:
    story = Story(SEATED).given(enroll("A"), enroll("B"), seat("s1", "A", until_us=10))
    assert story.refused(seat("s2", "B", None, at_us=9)) == "SEATS_TAKEN"
    assert story.when(seat("s2", "B", None, at_us=10)).fact.tier == "manager"
    # Who holds the seat may be granted it again, and what is earned takes no seat.
    assert story.when(seat("s3", "A", until_us=20, at_us=4)).fact.expires_us == 20
    imported = f.Evidence(f.EvidenceKind.IMPORT, "", "")
    assert story.when(seat("s4", "B", None, evidence=imported)).fact.tier == "manager"
    story.given(upgrade("u", "A", "member", imported))
    assert story.when(seat("s2", "B", None, at_us=9)).fact.tier == "manager"


@pytest.mark.parametrize(("until_us", "evidence"), [(3, GRANTED), (2, GRANTED), (9, f.Evidence(f.EvidenceKind.VOLUME, "", ""))])
def test_only_a_granted_seat_ends_and_only_after_it_began(until_us: int, evidence: f.Evidence) -> None:
    assert Story().given(enroll("A")).refused(seat("s", "A", until_us, at_us=3, evidence=evidence)) == "MALFORMED"


def test_after_a_seat_the_tier_before_it_counts() -> None:
    story = Story().given(enroll("A"), upgrade("u1", "A", "member"), seat("s", "A", until_us=10))
    assert [story.roster.tier_at("A", at)[0] for at in (9, 10)] == ["manager", "member"]
    later = UpgradeMember(f.MemberUpgraded("u2", "A", "manager", GRANTED), 11)
    assert story.when(later).decision.previous_tier == "member"


@pytest.mark.parametrize(("renewed_us", "until_us"), [(5, 20), (5, 8), (12, 20)], ids=["longer", "shorter", "after it ended"])
def test_a_renewed_seat_leads_back_to_the_tier_before_the_first_one(renewed_us: int, until_us: int) -> None:
    """Else whoever renews a seat before it ends would keep its tier, and what it earns, for ever."""
    imported = f.Evidence(f.EvidenceKind.IMPORT, "", "")
    story = Story().given(enroll("A"), upgrade("u1", "A", "member", imported), seat("s1", "A", until_us=10))
    story.given(seat("s2", "A", until_us=until_us, at_us=renewed_us))
    assert [story.roster.tier_at("A", at)[0] for at in (until_us - 1, until_us)] == ["manager", "member"]


def test_a_tier_for_good_says_which_seat_it_came_from_and_is_led_back_to() -> None:
    story = Story().given(enroll("A"), seat("s1", "A", until_us=10))
    assert story.when(upgrade("u1", "A", "member")).decision.previous_tier == "manager"
    story.given(upgrade("u1", "A", "member"), seat("s2", "A", until_us=20))
    assert story.roster.tier_at("A", 20)[0] == "member"


def test_what_an_order_does_to_tiers_is_taken_in() -> None:
    story = Story().given(enroll("A"), seat("s", "A", until_us=10))
    story.tell("order/O1", promoted("A", "manager"))
    assert (story.member("A").tier_position, story.roster.seats) == (4, {})
    story.tell("order/O1", promoted("A", "manager", f.TierChangeKind.FROZEN))
    assert story.roster.tier_at("A", 1) == ("", 0) and story.member("A").tier == "manager"
    story.given(upgrade("u", "A", "member"))
    assert story.roster.tier_at("A", 1)[0] == "member" and story.roster.frozen == {}
    story.tell("order/O2", f.OrderMeant((f.TierChanged("A", f.TierChangeKind.DEMOTED, "", 0), f.BindingReleased("O2", "A"))))
    assert story.member("A").tier == "" and not story.member("A").locked


@pytest.mark.parametrize(
    ("known", "command"),
    [
        ({}, grant("g", "A")),
        ({"facts": {"role/g": None}}, grant("g", "A")),
        ({}, end("g")),
        ({"facts": {"upgrade/s": None}, "members": {"A": Member(1)}, "seat_tiers": {"member"}}, seat("s", "A", None)),
    ],
    ids=["the grant", "the member", "what is ended", "the seats of the tier"],
)
def test_roles_and_seats_that_were_not_loaded_are_never_taken_for_absent(known: dict[str, Any], command: Any) -> None:
    with pytest.raises(NotLoaded):
        decide(Roster(complete=False, plans=[SEATED], **known), command)


def test_a_role_s_end_is_known_apart_from_its_grant() -> None:
    """Loaded with the grant alone, whether it has ended already is not known."""
    story = Story().given(enroll("A"), grant("g", "A"))
    granted = story.roster.facts["role/g"]
    with pytest.raises(NotLoaded):
        decide(Roster(complete=False, facts={"role/g": granted}), end("g"))
    [draft] = decide(Roster(complete=False, facts={"role/g": granted, "role_end/g": None}), end("g"))  # type: ignore[misc]  # drafts
    assert draft.fact.member_id == "A"


# ---------------------------------------------------------------- through the API

PLAN = """
plan: seated
version: 1
currency: GBP
tiers: [member, manager]
seats: {manager: 1}
effective: {from: "2000-01-01T00:00:00Z"}
rules:
  - {id: own, kind: self, rates: {member: 1%, manager: 10%}}
promotions:
  - {tier: member, any: [{metric: own_volume, at_least: 5000}]}
on_evidence_refunded: freeze
"""


@pytest.fixture
def shop(client: Client) -> Client:
    client.publish(PLAN)
    for member in ("ann", "bob", "cho"):
        client.enroll(member)
    return client


def member(client: Client, member_id: str) -> Any:
    return client.referral.GetMember(rp.GetMemberRequest(program_id=client.program_id, member_id=member_id)).member


def roles(client: Client, **more: Any) -> list[tuple[str, str, str]]:
    found, token = [], ""
    while True:
        request = rp.ListRolesRequest(program_id=client.program_id, page_size=1, page_token=token, **more)
        page = client.referral.ListRoles(request)
        found += [(one.role, one.scope, one.grant_id) for one in page.roles]
        token = page.next_page_token
        if not token:
            return found


def test_roles_are_listed_by_role_and_place_in_pages_and_as_of_a_time(shop: Client) -> None:
    for grant_id, who, role, scope in (
        ("g1", "bob", "store", "b"),
        ("g2", "ann", "region", "sh"),
        ("g3", "ann", "store", "a"),
        ("g4", "cho", "partner", ""),
    ):
        shop.role(grant_id, who, role, scope, at=3)
    again = shop.role("g1", "bob", "store", "b", at=3)
    assert again.receipt.already_recorded
    shop.end_role("g2", at=9)
    assert roles(shop) == [("partner", "", "g4"), ("region", "sh", "g2"), ("store", "a", "g3"), ("store", "b", "g1")]
    assert roles(shop, member_id="ann") == [("region", "sh", "g2"), ("store", "a", "g3")]
    assert roles(shop, at=day(9)) == [("partner", "", "g4"), ("store", "a", "g3"), ("store", "b", "g1")]
    assert roles(shop, at=day(2)) == []
    with pytest.raises(grpc.RpcError) as caught:
        shop.end_role("g9")
    assert reason(caught.value)[1] == "ROLE_GRANT_UNKNOWN"
    assert shop.differences() == []


def test_of_two_who_race_for_the_last_seat_one_gets_it(shop: Client) -> None:
    def try_for(who: str) -> str:
        try:
            shop.seat(f"s-{who}", who, "manager", at=2)
            return "granted"
        except grpc.RpcError as error:
            return reason(error)[1]

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(try_for, ("ann", "bob", "cho"))) == ["SEATS_TAKEN", "SEATS_TAKEN", "granted"]
    assert shop.differences() == []


def told_seat(upgrade_id: str, who: str, at: float, until: float | None = None) -> ops_pb2.Fact:
    request = rp.UpgradeMemberRequest(
        upgrade_id=upgrade_id,
        member_id=who,
        tier="manager",
        upgraded_at=day(at),
        evidence=log_pb2.Evidence(kind=log_pb2.EVIDENCE_KIND_SEAT_GRANTED),
        expires_at=None if until is None else day(until),
    )
    return ops_pb2.Fact(upgrade_member=request)


def told_role(grant_id: str, who: str, weight: int = 0, until: float | None = None) -> ops_pb2.Fact:
    request = rp.GrantRoleRequest(
        grant_id=grant_id,
        member_id=who,
        role="guide",
        weight=weight,
        effective_from=day(2),
        effective_until=None if until is None else day(until),
        granted_at=day(2),
    )
    return ops_pb2.Fact(grant_role=request)


def in_bulk(client: Client, *facts: ops_pb2.Fact) -> list[str]:
    """What became of each: recorded, again, or the reason it was refused for."""
    answers = client.ops.RecordFacts(ops_pb2.RecordFactsRequest(program_id=client.program_id, facts=facts)).results
    return [_became(answer) for answer in answers]


def _became(answer: ops_pb2.FactResult) -> str:
    kind = answer.WhichOneof("result")
    if kind == "error":
        info = error_details_pb2.ErrorInfo()
        next(detail for detail in answer.error.details if detail.Is(info.DESCRIPTOR)).Unpack(info)
        return str(info.reason)
    assert kind is not None
    return "again" if getattr(answer, kind).receipt.already_recorded else "recorded"


def test_seats_in_one_batch_see_those_before_them(shop: Client) -> None:
    """The batch is loaded as of its earliest grant: a seat that has ended by one of them may still be held at another."""
    shop.seat("s0", "ann", "manager", at=1, until=5)
    assert in_bulk(
        shop,
        told_seat("s1", "bob", 6, until=8),
        told_seat("s2", "cho", 4),
        told_seat("s3", "cho", 7),
        told_seat("s4", "cho", 8),
        told_seat("s4", "cho", 8),
        told_seat("s5", "ann", 9),
    ) == ["recorded", "SEATS_TAKEN", "SEATS_TAKEN", "recorded", "again", "SEATS_TAKEN"]
    assert shop.differences() == []


def test_a_plan_published_later_counts_the_seats_granted_before_it(client: Client) -> None:
    client.publish(PLAN.replace("seats: {manager: 1}\n", ""))
    for who in ("ann", "bob", "cho"):
        client.enroll(who)
    client.seat("s1", "ann", "manager", at=2)
    client.seat("s2", "bob", "manager", at=2, until=9)
    client.publish(PLAN.replace("version: 1", "version: 2").replace("manager: 1}", "manager: 2}", 1), at=3)
    with pytest.raises(grpc.RpcError) as caught:
        client.seat("s3", "cho", "manager", at=8)
    assert reason(caught.value) == (grpc.StatusCode.FAILED_PRECONDITION, "SEATS_TAKEN", {"tier": "manager", "quota": "2"})
    client.seat("s3", "cho", "manager", at=9)
    assert client.differences() == []


def test_roles_in_bulk_count_once_and_a_weight_left_out_is_one(shop: Client) -> None:
    assert in_bulk(
        shop,
        told_role("g1", "ann"),
        told_role("g1", "ann", weight=1),
        told_role("g1", "ann", weight=2),
        told_role("g2", "nobody"),
        told_role("g3", "bob", until=2),
        told_role("g4", "bob", weight=7, until=3),
    ) == ["recorded", "again", "ID_REUSED", "MEMBER_UNKNOWN", "MALFORMED", "recorded"]
    listed = shop.referral.ListRoles(rp.ListRolesRequest(program_id=shop.program_id)).roles
    assert [(one.grant_id, one.weight, one.HasField("effective_until")) for one in listed] == [("g1", 1, False), ("g4", 7, True)]
    assert shop.differences() == []


def test_a_role_ends_once_and_never_before_it_began(shop: Client) -> None:
    shop.role("g1", "ann", "guide", at=5)
    with pytest.raises(grpc.RpcError) as caught:
        shop.end_role("g1", at=4)
    assert reason(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "DATED_TOO_EARLY")
    first, again = shop.end_role("g1", at=9).receipt, shop.end_role("g1", at=9).receipt
    assert (again.position, again.already_recorded) == (first.position, True)
    with pytest.raises(grpc.RpcError) as caught:
        shop.end_role("g1", at=10)
    assert reason(caught.value)[:2] == (grpc.StatusCode.ALREADY_EXISTS, "ID_REUSED")
    with pytest.raises(grpc.RpcError) as caught:
        shop.referral.GrantRole(
            rp.GrantRoleRequest(
                program_id=shop.program_id,
                grant_id="g2",
                member_id="ann",
                role="guide",
                effective_from=day(2),
                effective_until=day(2),
                granted_at=day(2),
            )
        )
    assert reason(caught.value) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED", {"field": "effective_until"})


def test_a_page_of_roles_belongs_to_its_own_list(shop: Client) -> None:
    shop.role("g1", "ann", "guide")
    shop.role("g2", "ann", "guide")
    token = shop.referral.ListRoles(rp.ListRolesRequest(program_id=shop.program_id, page_size=1)).next_page_token
    for other in ({"member_id": "ann"}, {"at": day(3)}):
        with pytest.raises(grpc.RpcError) as caught:
            shop.referral.ListRoles(rp.ListRolesRequest(program_id=shop.program_id, page_token=token, **other))
        assert reason(caught.value)[1] == "TOKEN_INVALID"


def test_a_seat_that_ended_counts_as_the_tier_before_it_in_orders_and_frees_its_place(shop: Client) -> None:
    shop.upgrade("u1", "ann", "member")
    shop.seat("s1", "ann", "manager", at=2, until=10)
    assert member(shop, "ann").tier_expires_at == day(10)
    assert [earning.amount.minor_units for earning in shop.order("O1", "ann", line(1, 1000), at=9).earnings] == [100]
    assert [earning.amount.minor_units for earning in shop.order("O2", "ann", line(1, 1000), at=10).earnings] == [10]
    shop.seat("s2", "bob", "manager", at=10)
    assert shop.differences() == []


def test_a_renewed_seat_ends_for_orders_too(shop: Client) -> None:
    shop.upgrade("u1", "ann", "member")
    shop.seat("s1", "ann", "manager", at=2, until=10)
    assert shop.seat("s2", "ann", "manager", at=9, until=20).previous_tier == "member"
    assert [earning.amount.minor_units for earning in shop.order("O1", "ann", line(1, 1000), at=19).earnings] == [100]
    assert [earning.amount.minor_units for earning in shop.order("O2", "ann", line(1, 1000), at=20).earnings] == [10]
    assert shop.differences() == []


def test_a_promotion_and_its_freezing_are_seen_on_the_member_and_in_their_history(shop: Client) -> None:
    told = shop.order("O1", "bob", line(1, 5000), at=2)
    assert [(one.member_id, one.tier) for one in told.tier_changes] == [("bob", "member")]
    assert (member(shop, "bob").tier, member(shop, "bob").tier_position) == ("member", told.receipt.position)
    shop.refund("R1", "O1", (1, 1, 5000), at=3)
    assert member(shop, "bob").tier == "member" and member(shop, "bob").tier_frozen
    events = shop.referral.ListBindingHistory(rp.ListBindingHistoryRequest(program_id=shop.program_id, member_id="bob")).events
    assert [event.WhichOneof("event") for event in events] == ["enrolled", "locked_by_order", "tier_changed", "tier_changed"]
    assert [event.tier_changed.change.kind for event in events[2:]] == [log_pb2.TIER_CHANGE_KIND_PROMOTED, log_pb2.TIER_CHANGE_KIND_FROZEN]
    assert shop.order("O2", "bob", line(1, 100), at=4).earnings == []
    shop.upgrade("u9", "bob", "member", at=5)
    assert not member(shop, "bob").tier_frozen
    assert shop.differences() == []


def history(client: Client, member_id: str, page_size: int) -> list[rp.BindingEvent]:
    found: list[rp.BindingEvent] = []
    token = ""
    while True:
        request = rp.ListBindingHistoryRequest(program_id=client.program_id, member_id=member_id, page_size=page_size, page_token=token)
        page = client.referral.ListBindingHistory(request)
        assert len(page.events) <= page_size
        found += page.events
        token = page.next_page_token
        if not token:
            return found


def test_a_page_of_history_is_never_longer_than_asked_for_though_an_entry_may_lock_and_promote(shop: Client) -> None:
    shop.order("O1", "bob", line(1, 5000), at=2)
    shop.role("g1", "bob", "store", "b", at=3)
    shop.end_role("g1", at=4)
    whole = history(shop, "bob", 100)
    assert [event.WhichOneof("event") for event in whole] == ["enrolled", "locked_by_order", "tier_changed", "role_granted", "role_ended"]
    assert whole[1].position == whole[2].position
    assert (whole[3].role_granted.weight, whole[4].role_ended.member_id) == (1, "bob")
    for page_size in (1, 2, 3, 4, 5):
        assert history(shop, "bob", page_size) == whole


def test_a_group_that_fails_takes_back_the_lock_and_the_tier_its_order_gave(client: Client) -> None:
    client.publish(PLAN.replace("freeze", "demote") + "binding: {on_full_refund: release}\n")
    client.enroll("ann")
    client.enroll("bob", "ann")
    client.open_group("G1", "bob", at=2)
    client.order("O1", "bob", line(1, 5000), at=2, group="G1")
    assert (member(client, "bob").tier, member(client, "bob").locked) == ("member", True)
    client.fail_group("G1", at=3)
    assert (member(client, "bob").tier, member(client, "bob").locked, member(client, "bob").referrer_id) == ("", False, "ann")
    kinds = ["enrolled", "locked_by_order", "tier_changed", "released_by_refund_of_order_id", "tier_changed"]
    events = history(client, "bob", 1)
    assert [event.WhichOneof("event") for event in events] == kinds
    assert (events[3].released_by_refund_of_order_id, events[4].tier_changed.order_id) == ("O1", "O1")
    assert events[4].tier_changed.change.kind == log_pb2.TIER_CHANGE_KIND_DEMOTED
    assert client.differences() == []
