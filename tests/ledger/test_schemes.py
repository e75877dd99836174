"""The deciders of schemes, given / when / then: groups, caps, periods, promotions, counted rewards, tasks, points, accounts apart."""

from typing import Any

import pytest

from services.kernel.decider import Repeated
from services.kernel.refusals import Refusal
from services.kernel.times import DAY_US
from services.ledger.domain import commands as c
from services.ledger.domain import facts as f
from services.ledger.domain.decide import decide
from tests.ledger.test_decide import TWO_LEVEL, Story, complete, payout, postings, refund, release

FIRST = {"id": "first", "kind": "generation", "generation": 1, "rate": "10%"}


def plan(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**TWO_LEVEL, "tiers": ["member", "manager", "director"], "rules": list(rules), **more}


def sold(order_id: str, buyer: str, base: int, day: int = 1, quantity: int = 10, **more: Any) -> c.RecordOrder:
    """An order of one line of goods."""
    line = f.OrderLine(1, base, quantity, "", "", f.LineKind.GOODS)
    return c.RecordOrder(f.OrderPaid(order_id, buyer, "CNY", (line,), **more), day * DAY_US)


def named(role: str, member_id: str = "", scope: str = "") -> tuple[f.Attribution, ...]:
    return (f.Attribution(role, member_id, scope),)


def refusal(story: Story, command: c.Command) -> str:
    with pytest.raises(Refusal) as caught:
        decide(story.books, command)
    return caught.value.reason


def points(story: Story, member: str) -> dict[str, int]:
    return {name: value for name, value in story.books.balance(member, "points")._asdict().items() if value}


def close(period_id: str, day: int) -> c.ClosePeriod:
    return c.ClosePeriod(f.PeriodClosed(period_id), day * DAY_US)


# ---------------------------------------------------------------- group buying


def opened(*rules: dict[str, Any]) -> Story:
    return Story(plan(*rules)).given(c.OpenGroup(f.GroupOpened("G", "A"), DAY_US))


OPENER = {"id": "opener", "kind": "triggered", "on": "group_formed", "rate": "2%"}
STARTER = {"id": "starter", "kind": "triggered", "on": "group_formed", "fixed_minor": 500, "per": "group"}


def test_what_waits_for_the_group_is_due_when_it_is_formed_and_not_before() -> None:
    """C and B join A's group: A has 2 % of both, and 5.00 once, for the group; C's referrer waits for completion as always."""
    story = opened(FIRST, OPENER, STARTER).given(sold("O1", "C", 10_000, group_id="G"), sold("O2", "B", 20_000, group_id="G"))
    assert [share for _, shares in story.books.streams["order/O1"][0].decision.lines for share in shares] == [
        f.Share(0, 2, 1000),
        f.Share(1, 3, 200),
        f.Share(2, 3, 500),
    ]
    assert story.money("A") == {"pending": 200 + 500 + 400 + 2000, "accrued": 3100}
    story.given(complete("O1", 2))
    assert story.when(release(60)) != [] and story.books.due == {(9 * DAY_US, "O1", "B", ""): 1000}
    story.given(c.FormGroup(f.GroupFormed("G"), 3 * DAY_US), release(3))
    assert story.money("A") == {"pending": 2000, "available": 1100, "accrued": 3100}


def test_a_failed_group_voids_all_that_its_orders_earned_for_anybody() -> None:
    story = opened(FIRST, OPENER, STARTER).given(sold("O1", "C", 10_000, group_id="G"), sold("O2", "B", 20_000, group_id="G"))
    story.given(complete("O2", 2), release(30), c.FailGroup(f.GroupFailed("G", "too few"), 31 * DAY_US))
    for member in "ABC":
        held = story.books.balance(member)
        assert held.accrued == held.reversed and held.pending + held.available + held.reserved + held.paid + held.debt == 0
    # The money is given back later: nothing more is taken from anybody.
    assert postings(story.when(refund("R", (1, 10, 10_000), day=32))) == []


def test_a_group_is_closed_once_and_a_failed_one_takes_no_orders() -> None:
    story = opened(FIRST).given(c.FailGroup(f.GroupFailed("G", "too few"), 3 * DAY_US))
    assert refusal(story, c.FormGroup(f.GroupFormed("G"), 4 * DAY_US)) == "GROUP_CLOSED"
    assert refusal(story, sold("O1", "C", 100, group_id="G")) == "GROUP_CLOSED"
    assert refusal(story, sold("O1", "C", 100, group_id="H")) == "GROUP_UNKNOWN"
    assert isinstance(decide(story.books, c.FailGroup(f.GroupFailed("G", "too few"), 3 * DAY_US)), Repeated)
    formed = opened(FIRST).given(c.FormGroup(f.GroupFormed("G"), 3 * DAY_US))
    assert refusal(formed, sold("O1", "C", 100, group_id="G")) == "GROUP_CLOSED"


def test_a_failed_group_opens_the_lock_again_where_the_plan_says_so() -> None:
    story = Story(plan(FIRST, binding={"on_full_refund": "release"})).given(c.OpenGroup(f.GroupOpened("G", "A"), DAY_US))
    story.given(sold("O1", "C", 10_000, group_id="G"), c.FailGroup(f.GroupFailed("G", "too few"), 3 * DAY_US))
    [draft] = story.when(sold("O2", "C", 100))
    assert draft.decision.binding_locked == f.BindingLock("C", "B", 5)


# ---------------------------------------------------------------- caps, releases, points


def test_a_cap_leaves_the_rest_as_breakage_and_a_refund_takes_the_capped_part_last() -> None:
    """10 % of 100.00 capped at 6.00: a refund of a third leaves 6.67, still 6.00; of two thirds 3.33."""
    story = Story(plan({**FIRST, "cap_minor": {"order": 600}}))
    assert postings(story.when(sold("O1", "C", 10_000))) == [("COMMISSION", "", -1000), ("BREAKAGE", "", 400), ("PENDING", "B", 600)]
    story.given(sold("O1", "C", 10_000), refund("R1", (1, 0, 3333)))
    assert story.money("B") == {"pending": 600, "accrued": 600}
    story.given(refund("R2", (1, 0, 3333)))
    assert story.money("B") == {"pending": 333, "accrued": 600, "reversed": 267}


def test_the_room_a_period_leaves_is_frozen_with_the_order_and_freed_by_its_refund() -> None:
    story = Story(plan({**FIRST, "cap_minor": {"period": 1500}}))
    story.given(sold("O1", "C", 10_000), sold("O2", "C", 10_000), sold("O3", "C", 10_000))
    assert [entry.decision.rooms for entry in (story.books.streams[f"order/O{n}"][0] for n in (1, 2, 3))] == [
        (f.CapRoom(0, 2, 1500),),
        (f.CapRoom(0, 2, 500),),
        (f.CapRoom(0, 2, 0),),
    ]
    story.given(refund("R1", (1, 10, 10_000)))
    assert story.money("B") == {"pending": 500, "accrued": 1500, "reversed": 1000}
    assert postings(story.when(sold("O4", "C", 10_000)))[-1] == ("PENDING", "B", 1000)
    # Another period has room of its own.
    assert postings(story.when(sold("O5", "C", 30_000, day=40)))[-1] == ("PENDING", "B", 1500)


@pytest.mark.parametrize(("cap", "gained"), [({"period": 1500}, 0), ({"order": 1500}, 1)])
def test_under_a_cap_by_period_whoever_had_no_room_frozen_gains_nothing_by_a_refund(cap: dict[str, int], gained: int) -> None:
    """By weights 1, 3, 3 a pool of 4 goes 0, 2, 2, for 0.57, 1.71, 1.71; one of 3 goes 1, 1, 1, for 0.43, 1.29, 1.29."""
    story = Story(plan({"id": "fund", "kind": "pool", "role": "partner", "rate": "10%", "cap_minor": cap}))
    for member, weight in (("A", 1), ("B", 3), ("C", 3)):
        story.tell(f"member/{member}", f.RoleGranted(f"g-{member}", member, "partner", "", weight, 0, None))
    story.given(sold("O1", "C", 40))
    assert [story.money(member).get("pending", 0) for member in "ABC"] == [0, 2, 2]
    story.given(refund("R1", (1, 0, 10)))
    assert [story.money(member).get("pending", 0) for member in "ABC"] == [gained, 1, 1]


def test_what_is_paid_at_once_settles_debts_first_and_is_taken_back_from_available() -> None:
    story = Story(plan({**FIRST, "release": {"on": "at_once"}})).given(sold("O1", "C", 10_000))
    assert story.money("B") == {"available": 1000, "accrued": 1000}
    story.given(payout("P", "B", 1000), refund("R1", (1, 10, 10_000)))
    assert story.money("B") == {"reserved": 1000, "debt": -1000, "accrued": 1000, "reversed": 1000}
    assert postings(story.when(sold("O2", "C", 15_000)))[1:] == [("DEBT", "B", 1000), ("AVAILABLE", "B", 500)]


def test_shares_released_at_period_close_fall_due_when_the_period_of_completion_ends() -> None:
    story = Story(plan({**FIRST, "release": {"on": "period_close", "days": 3}}, zone="+08:00")).given(
        sold("O1", "C", 1000), complete(day=5)
    )
    assert list(story.books.due) == [(31 * DAY_US - 8 * 3600 * 1_000_000 + 3 * DAY_US, "O1", "B", "")]


def test_points_have_accounts_of_their_own_and_cannot_be_paid_out() -> None:
    rule = {**FIRST, "rate": "1%", "asset": "points", "release": {"on": "at_once"}}
    story = Story(plan(FIRST | {"id": "money"}, rule, points=["points"])).given(sold("O1", "C", 10_000))
    assert points(story, "B") == {"available": 100, "accrued": 100} and story.money("B") == {"pending": 1000, "accrued": 1000}
    assert refusal(story, c.RequestPayout(f.PayoutRequested("P", "B", 50, "points"), 21 * DAY_US)) == "CURRENCY_MISMATCH"
    spent = f.AdjustmentPosted("J", "B", f.AdjustmentKind.CORRECTION, -60, "points", "a cup", "ann", "bob")
    story.given(c.PostAdjustment(spent, 5 * DAY_US), refund("R", (1, 10, 10_000)))
    assert points(story, "B") == {"debt": -60, "accrued": 100, "reversed": 100, "adjusted": -60}
    unknown = f.AdjustmentPosted("K", "B", f.AdjustmentKind.CORRECTION, 60, "stars", "why", "ann", "bob")
    assert refusal(story, c.PostAdjustment(unknown, 5 * DAY_US)) == "ASSET_UNKNOWN"


# ---------------------------------------------------------------- roles and the code on the order


def test_a_place_finds_its_holders_as_of_the_payment_and_a_vacant_one_is_breakage() -> None:
    story = Story(plan({"id": "region", "kind": "attributed", "role": "region", "rate": "2%"}))
    story.tell("member/A", f.RoleGranted("g1", "A", "region", "sh", 2, 0, 10 * DAY_US))
    story.tell("member/B", f.RoleGranted("g2", "B", "region", "sh", 1, 5 * DAY_US, None))
    at = {day: postings(story.when(sold("O", "C", 500, day=day, attributions=named("region", scope="sh")))) for day in (1, 6, 12)}
    assert at[1] == [("COMMISSION", "", -10), ("PENDING", "A", 10)]
    # 10 by weights 2 and 1: 6.67 and 3.33.
    assert at[6] == [("COMMISSION", "", -10), ("PENDING", "A", 7), ("PENDING", "B", 3)]
    assert at[12] == [("COMMISSION", "", -10), ("PENDING", "B", 10)]
    story.tell("member/B", f.RoleEnded("g2", 12 * DAY_US))
    vacant = story.when(sold("O", "C", 500, day=12, attributions=named("region", scope="sh")))
    assert postings(vacant) == [("COMMISSION", "", -10), ("BREAKAGE", "", 10)]
    assert refusal(story, sold("O", "C", 500, attributions=named("region", "nobody"))) == "MEMBER_UNKNOWN"


def test_the_lock_falls_to_the_code_on_the_order_where_the_plan_says_so() -> None:
    story = Story(plan(FIRST, binding={"touch": "order"}))
    [draft] = story.when(sold("O1", "C", 1000, referrer_id="A"))
    assert draft.decision.binding_locked == f.BindingLock("C", "A", story.books.position + 1)
    assert postings([draft])[-1] == ("PENDING", "A", 100)
    assert story.when(sold("O1", "C", 1000))[0].decision.binding_locked.referrer_id == "B"
    assert refusal(story, sold("O1", "C", 1000, referrer_id="C")) == "SELF_BINDING"
    assert refusal(story, sold("O1", "A", 1000, referrer_id="C")) == "BINDING_CYCLE"
    assert refusal(story, sold("O1", "C", 1000, referrer_id="nobody")) == "MEMBER_UNKNOWN"
    last_touch = Story(plan(FIRST))
    assert last_touch.when(sold("O1", "C", 1000, referrer_id="A"))[0].decision.binding_locked.referrer_id == "B"


# ---------------------------------------------------------------- promotions


TEAM = {"metric": "team_volume", "at_least": 5000, "depth": 2}
PROMOTIONS: list[dict[str, Any]] = [
    {"tier": "member", "any": [{"metric": "orders", "at_least": 2}]},
    {"tier": "manager", "all": [{"metric": "own_volume", "at_least": 1000, "days": 3}, {"metric": "gift_packs", "at_least": 1}]},
    {"tier": "director", "any": [{"metric": "qualified_directs", "at_least": 1}, TEAM]},
]


def changes(story: Story, command: c.Command) -> list[tuple[str, str, str, str]]:
    [draft] = story.when(command)
    return [(one.member_id, one.kind.name, one.previous_tier, one.tier) for one in draft.decision.tier_changes]


def test_the_order_that_meets_the_conditions_promotes_straight_to_the_highest_tier_met() -> None:
    story = Story(plan(FIRST, promotions=PROMOTIONS[:2])).given(sold("O1", "C", 100))
    assert changes(story, sold("O2", "C", 100)) == [("C", "PROMOTED", "", "member")]
    pack = f.OrderLine(1, 950, 1, "", "", f.LineKind.GIFT_PACK)
    pack_order = c.RecordOrder(f.OrderPaid("O2", "C", "CNY", (pack,)), 3 * DAY_US)
    assert changes(story, pack_order) == [("C", "PROMOTED", "", "manager")]
    # A day later the first order has left the window of three days.
    assert changes(story, c.RecordOrder(pack_order.fact, 4 * DAY_US)) == [("C", "PROMOTED", "", "member")]


def test_an_order_promotes_those_above_by_their_directs_and_their_teams() -> None:
    story = Story(plan(FIRST, promotions=PROMOTIONS))
    # C's order makes a qualified direct of B's; A is not B's referrer for life yet.
    assert changes(story, sold("O1", "C", 100)) == [("B", "PROMOTED", "", "director")]
    story = Story(plan(FIRST, promotions=[{"tier": "director", "any": [TEAM]}]))
    story.given(sold("O0", "B", 2000), sold("O1", "C", 2000))
    assert changes(story, sold("O2", "C", 1000)) == [("B", "PROMOTED", "", "director"), ("A", "PROMOTED", "", "director")]


@pytest.mark.parametrize(
    ("policy", "tier", "after"),
    [("keep", "member", []), ("demote", "", [("C", "DEMOTED", "member", "")]), ("freeze", "", [("C", "FROZEN", "member", "member")])],
)
def test_a_tier_whose_order_is_refunded_in_full_goes_as_the_plan_says(policy: str, tier: str, after: list[tuple[str, ...]]) -> None:
    own = {"id": "own", "kind": "self", "rates": {"member": "10%"}}
    story = Story(plan(own, promotions=PROMOTIONS[:1], on_evidence_refunded=policy))
    story.given(sold("O1", "C", 100), sold("O2", "C", 100), refund("R1", (1, 0, 99), order_id="O2"))
    assert changes(story, refund("R2", (1, 10, 1), order_id="O2")) == after
    story.given(refund("R2", (1, 10, 1), order_id="O2"))
    [draft] = story.when(sold("O3", "C", 100))
    assert draft.decision.people[0].tier == tier
    if policy == "freeze":
        # A new promotion thaws: two orders again.
        assert [(one.kind.name, one.tier) for one in draft.decision.tier_changes] == [("PROMOTED", "member")]


def test_a_tier_rests_on_its_newest_evidence_alone() -> None:
    story = Story(plan(FIRST, promotions=PROMOTIONS[:1], on_evidence_refunded="demote"))
    story.given(sold("O1", "C", 100), sold("O2", "C", 100))
    story.tell("member/C", f.MemberUpgraded("C", "manager", None, "member"))
    assert changes(story, refund("R", (1, 10, 100), order_id="O2")) == []


def test_a_seat_for_a_time_counts_as_the_tier_before_it_once_it_has_ended() -> None:
    story = Story(plan({"id": "own", "kind": "self", "rates": {"member": "1%", "director": "10%"}}))
    story.tell("member/C", f.MemberUpgraded("C", "member", None))
    story.tell("member/C", f.MemberUpgraded("C", "director", None, "member", "", 10 * DAY_US))
    assert [postings(story.when(sold("O", "C", 1000, day=day)))[-1][2] for day in (9, 10)] == [100, 10]


# ---------------------------------------------------------------- counted, triggered


def test_a_counted_reward_follows_the_invitees_who_qualify_now() -> None:
    """At two invitees 10.00, and again at four. B1, B2, B3, B4 are brought by A."""
    story = Story(plan(FIRST, {"id": "count", "kind": "counted", "at": 2, "fixed_minor": 1000, "repeat": True}))
    for number in range(1, 5):
        story.tell(f"member/B{number}", f.MemberEnrolled(f"B{number}", "A"))
    earned = []
    for number in range(1, 5):
        story.given(sold(f"O{number}", f"B{number}", 1000))
        earned.append(story.books.balance("A").accrued - 100 * number)
    assert earned == [0, 1000, 1000, 2000]
    # A second order of the same invitee adds nobody.
    assert f.Share(1, 2, 1000) not in [share for _, shares in story.when(sold("O5", "B1", 1000))[0].decision.lines for share in shares]
    # B1's order gave no reward, yet without B1 there are three: one reward goes, from available or as debt; O4's is still pending.
    story.given(refund("R1", (1, 10, 1000), order_id="O1"))
    assert story.money("A") == {"pending": 2300, "debt": -1000, "accrued": 2400, "reversed": 1100}
    for number in (2, 3, 4):
        story.given(refund(f"R{number}", (1, 10, 1000), order_id=f"O{number}"))
    held = story.books.balance("A")
    assert held.accrued == held.reversed and held.pending + held.available + held.debt == 0
    assert story.books.counters == {}


def test_a_counted_reward_that_waits_on_an_order_refunded_in_full_is_released_by_completing_that_order() -> None:
    """Three brought, 10.00 for each two. O2 brought the reward about and is refunded, but two are left: it stays, pending, until O3 is
    refunded as well, and then it is owed back. Completing O2 all the same releases it, and that settles the debt."""
    story = Story(plan(FIRST, {"id": "count", "kind": "counted", "at": 2, "fixed_minor": 1000, "repeat": True}))
    for number in range(1, 4):
        story.tell(f"member/B{number}", f.MemberEnrolled(f"B{number}", "A"))
        story.given(sold(f"O{number}", f"B{number}", 1000))
    story.given(refund("R2", (1, 10, 1000), order_id="O2"))
    assert story.money("A") == {"pending": 1200, "accrued": 1300, "reversed": 100}
    story.given(refund("R3", (1, 10, 1000), order_id="O3"), release(60))
    assert story.money("A") == {"pending": 1100, "debt": -1000, "accrued": 1300, "reversed": 1200}
    story.given(complete("O2", 31), release(60))
    assert story.money("A") == {"pending": 100, "accrued": 1300, "reversed": 1200}


def test_both_sides_of_an_invite_are_rewarded_while_something_of_the_order_remains() -> None:
    invite = {"id": "both", "kind": "triggered", "on": "invite", "to": {"buyer": 500, "referrer": 1000}}
    story = Story(plan(FIRST, invite)).given(sold("O1", "C", 1000))
    assert story.money("C") == {"pending": 500, "accrued": 500} and story.money("B") == {"pending": 1100, "accrued": 1100}
    story.given(refund("R1", (1, 9, 999)))
    assert story.money("C") == {"pending": 500, "accrued": 500}
    story.given(refund("R2", (1, 1, 1)))
    assert story.money("C") == {"accrued": 500, "reversed": 500}
    # No second order is an invite.
    assert postings(story.when(sold("O2", "C", 1000))) == [("COMMISSION", "", -100), ("PENDING", "B", 100)]


def test_a_task_is_paid_as_often_as_the_plan_says_and_told_once() -> None:
    rule = {"id": "share", "kind": "triggered", "on": "task", "task": "分享", "to": {"member": 5}, "asset": "points", "most": 2}
    story = Story(plan(FIRST, rule, points=["points"]))
    for number in range(1, 4):
        story.given(c.RecordTask(f.TaskDone(f"t{number}", "C", "分享"), number * DAY_US))
    assert points(story, "C") == {"pending": 10, "accrued": 10}
    story.given(release(30))
    assert points(story, "C") == {"available": 10, "accrued": 10}
    assert isinstance(decide(story.books, c.RecordTask(f.TaskDone("t1", "C", "分享"), DAY_US)), Repeated)
    assert story.when(c.RecordTask(f.TaskDone("t9", "C", "nothing known"), DAY_US))[0].decision.postings == ()


# ---------------------------------------------------------------- periods

FUND = {"id": "fund", "kind": "pool", "per": "period", "role": "partner", "rate": "1%", "split": "shares", "of_total": 4}
BOARD = {"id": "board", "kind": "rank", "board": "own", "places_minor": [100, 50, 25]}


def partners(document: dict[str, Any]) -> Story:
    story = Story(document)
    story.tell("member/A", f.RoleGranted("g1", "A", "partner", "", 2, 0, None))
    story.tell("member/B", f.RoleGranted("g2", "B", "partner", "", 1, 0, None))
    return story


def test_a_period_is_closed_once_after_its_end_under_the_plan_it_began_with() -> None:
    story = partners(plan(FUND)).given(sold("O1", "C", 10_000), sold("O2", "C", 4_000))
    assert refusal(story, close("1970-01", 30)) == "PERIOD_NOT_OVER"
    assert refusal(story, close("January", 40)) == "PERIOD_UNKNOWN"
    # 1 % of 140.00 is 1.40, of four parts two, one and one that nobody holds.
    story.given(close("1970-01", 31))
    assert story.money("A") == {"pending": 70, "accrued": 70} and story.money("B") == {"pending": 35, "accrued": 35}
    assert isinstance(decide(story.books, close("1970-01", 99)), Repeated)


def test_an_order_paid_in_a_closed_period_counts_in_the_next_one_that_is_open() -> None:
    story = partners(plan(FUND)).given(sold("O1", "C", 10_000), close("1970-01", 31), close("1970-02", 60))
    [draft] = story.when(sold("O2", "C", 8_000, day=20))
    assert draft.decision.period_id == "1970-03"


def test_a_refund_before_the_close_changes_the_period_and_one_after_it_is_a_correction() -> None:
    story = partners(plan(FUND, BOARD)).given(sold("O1", "C", 10_000), sold("O2", "B", 6_000), refund("R1", (1, 0, 2_000), day=20))
    story.given(close("1970-01", 31))
    # 1 % of 140.00; C has 80.00 and the first place, B 60.00 and the second.
    assert [story.books.balance(member).accrued for member in "ABC"] == [70, 35 + 50, 100]
    drafts = story.when(refund("R2", (1, 0, 4_000), day=40))
    assert [type(draft.fact).__name__ for draft in drafts] == ["OrderRefunded", "PeriodCorrected"]
    story.given(refund("R2", (1, 0, 4_000), day=40))
    # Now C has 40.00 and B is first: 1 % of 100.00 is 1.00.
    assert [story.books.balance(member).accrued - story.books.balance(member).reversed for member in "ABC"] == [50, 25 + 100, 50]
    story.given(refund("R3", (1, 10, 4_000), day=41), refund("R4", (1, 10, 6_000), order_id="O2", day=42))
    assert [story.books.balance(member).accrued - story.books.balance(member).reversed for member in "ABC"] == [0, 0, 0]


def test_what_a_correction_takes_back_after_a_payout_is_debt() -> None:
    story = partners(plan(FUND)).given(sold("O1", "C", 10_000), close("1970-01", 31), release(60), payout("P", "A", 50, 61))
    story.given(refund("R", (1, 10, 10_000), day=62))
    assert story.money("A") == {"reserved": 50, "debt": -50, "accrued": 50, "reversed": 50}


def test_team_volume_pays_the_bracket_on_ones_own_and_what_it_is_above_each_leg() -> None:
    """A brought B, B brought C. C 100.00, B 50.00, A 20.00; brackets 1 % from 0, 3 % from 120.00."""
    rule = {"id": "team", "kind": "volume", "brackets": [{"from_minor": 0, "rate": "1%"}, {"from_minor": 12_000, "rate": "3%"}]}
    story = Story(plan(rule)).given(sold("O1", "A", 2_000), sold("O2", "B", 5_000), sold("O3", "C", 10_000), close("1970-01", 31))
    # C 1 % of 100.00. B is at 150.00: 3 % of 50.00 and 2 % of C's 100.00. A is at 170.00: 3 % of 20.00, nothing of B's 150.00.
    assert [story.books.balance(member).accrued for member in "CBA"] == [100, 150 + 200, 60]


def test_those_who_tie_share_the_places_they_take() -> None:
    story = Story(plan(BOARD)).given(sold("O1", "A", 500), sold("O2", "B", 900), sold("O3", "C", 900), close("1970-01", 31))
    # B and C share 100 + 50, A has the third place.
    assert [story.books.balance(member).accrued for member in "ABC"] == [25, 75, 75]


# ---------------------------------------------------------------- accounts apart


def test_deposits_are_held_apart_and_never_more_goes_back_than_was_held() -> None:
    story = Story()

    def move(deposit_id: str, kind: f.DepositKind, amount: int) -> c.MoveDeposit:
        return c.MoveDeposit(f.DepositMoved(deposit_id, "A", kind, amount, "CNY", ""), DAY_US)

    story.given(move("d1", f.DepositKind.PAID_IN, 1000), move("d2", f.DepositKind.FORFEITED, 300))
    assert story.books.held_apart("A", "CNY", f.Account.DEPOSIT) == 700 and story.money("A") == {}
    assert refusal(story, move("d3", f.DepositKind.RETURNED, 701)) == "DEPOSIT_EXCEEDS_HELD"
    assert postings(story.when(move("d3", f.DepositKind.RETURNED, 700))) == [("CLEARING", "", 700), ("DEPOSIT", "A", -700)]


def test_stock_sold_on_is_margin_and_never_commission() -> None:
    lines = (f.StockLine("X", 10, 500, 620), f.StockLine("Y", 1, 100, 90))
    command = c.TransferStock(f.StockTransferred("s1", "A", "C", "CNY", lines), DAY_US)
    assert postings(Story().when(command)) == [("CLEARING", "", -1190), ("MARGIN", "A", 1190)]


def test_what_was_carried_over_is_pending_until_its_day_and_then_released() -> None:
    opening = f.BalanceOpened("o1", "A", "CNY", 500, 300, 9 * DAY_US, 7000, 0, "crmeb")
    story = Story().given(c.OpenBalance(opening, DAY_US))
    assert story.money("A") == {"pending": 300, "available": 500, "paid": 7000, "adjusted": 7800}
    [draft] = story.when(release(9))
    assert (draft.stream, draft.fact) == ("opening/o1", f.RewardReleased("opening/o1"))
    story.given(release(9))
    assert story.money("A") == {"available": 800, "paid": 7000, "adjusted": 7800} and story.books.due == {}


def test_a_hold_keeps_back_also_what_is_paid_at_once() -> None:
    story = Story(plan({**FIRST, "release": {"on": "at_once"}}))
    story.given(c.PlaceHold(f.HoldPlaced("H", "B", "", "odd"), DAY_US), sold("O1", "C", 10_000), sold("O2", "C", 5_000))
    assert story.money("B") == {"pending": 1500, "accrued": 1500}
    story.given(refund("R1", (1, 10, 5_000), order_id="O2"))
    assert story.money("B") == {"pending": 1000, "accrued": 1500, "reversed": 500} and story.when(release(40)) == []
    story.given(c.LiftHold(f.HoldLifted("H", "fine"), 40 * DAY_US), release(40))
    assert story.money("B") == {"available": 1000, "accrued": 1500, "reversed": 500}
    story.given(refund("R2", (1, 10, 10_000), day=41))
    assert story.money("B") == {"accrued": 1500, "reversed": 1500}


def test_whom_an_attribution_shuts_out_stays_out_whatever_is_refunded() -> None:
    """1 % of 1.00 is 0.01 for A, 1 % of 0.40 nothing: B, at level 1, has nothing then either."""
    creator = {"id": "creator", "kind": "attributed", "role": "creator", "rate": "1%", "with_referrer": "exclusive"}
    story = Story(plan(creator, FIRST)).given(sold("O1", "C", 100, attributions=named("creator", "A")))
    assert story.money("A") == {"pending": 1, "accrued": 1} and story.money("B") == {}
    story.given(refund("R1", (1, 0, 60)))
    assert story.money("A") == {"accrued": 1, "reversed": 1} and story.money("B") == {}
    # A creator whose cap for the period is used up earns nothing, and the referrer nothing either: the line is still the creator's.
    capped = Story(plan({**creator, "cap_minor": {"period": 1}}, FIRST))
    for order_id in ("O1", "O2"):
        capped.given(sold(order_id, "C", 100, attributions=named("creator", "A")))
    assert capped.money("A") == {"pending": 1, "accrued": 1} and capped.money("B") == {}
    # Without a creator the referrer earns as always.
    assert postings(story.when(sold("O2", "C", 100))) == [("COMMISSION", "", -10), ("PENDING", "B", 10)]


def test_a_promotion_over_a_seat_leads_back_to_the_tier_before_the_seat() -> None:
    """Otherwise a demotion would make a seat for a time one for good."""
    story = Story(
        plan(FIRST, promotions=[{"tier": "director", "any": [{"metric": "orders", "at_least": 1}]}], on_evidence_refunded="demote")
    )
    story.tell("member/C", f.MemberUpgraded("C", "member", None))
    story.tell("member/C", f.MemberUpgraded("C", "manager", None, "member", "", 10 * DAY_US, 6))
    story.given(sold("O1", "C", 1000, day=5), refund("R", (1, 10, 1000), day=20))
    member = story.books.members["C"]
    assert member is not None and (member.tier, member.tier_position) == ("member", 6) and story.books.standings == {}


def test_what_was_paid_at_once_is_not_taken_from_what_waits_for_the_same_moment() -> None:
    """Goods that are delivered when they are paid: both shares fall due then."""
    now = {**FIRST, "id": "now", "release": {"on": "at_once"}}
    story = Story(plan(now, {**FIRST, "rate": "5%"}, release={"days": 0})).given(sold("O1", "C", 10_000), complete(day=1))
    story.given(refund("R1", (1, 10, 10_000), day=5))
    assert story.money("B") == {"accrued": 1500, "reversed": 1500} and story.books.due == {}


def test_a_gain_by_a_late_refund_is_taken_back_from_where_it_went() -> None:
    """B is second and held when C's refund makes B first; then B's own order goes back."""
    board = {**BOARD, "places_minor": [1000, 500], "release": {"on": "at_once"}}
    story = Story(plan(board)).given(sold("O1", "C", 3000), sold("O2", "B", 2000), close("1970-01", 31))
    story.given(c.PlaceHold(f.HoldPlaced("H", "B", "", "odd"), 32 * DAY_US), refund("R1", (1, 10, 3000), day=33))
    assert story.money("B") == {"pending": 500, "available": 500, "accrued": 1000}
    story.given(refund("R2", (1, 10, 2000), order_id="O2", day=34))
    held = story.books.balance("B")
    assert (held.pending, held.available, held.debt) == (0, 0, 0) and held.accrued == held.reversed


def test_a_board_of_invites_alone_counts_the_one_who_brought_the_buyer() -> None:
    story = Story(plan({**BOARD, "board": "invites"})).given(sold("O1", "C", 100), close("1970-01", 31))
    assert story.money("B") == {"pending": 100, "accrued": 100}


def test_a_task_of_two_rules_is_one_posting_for_each_payee() -> None:
    rules = [{"id": f"r{n}", "kind": "triggered", "on": "task", "task": "t", "to": {"member": 5 * n, "referrer": n}} for n in (1, 2)]
    story = Story(plan(FIRST, *rules)).given(sold("O1", "C", 0))
    told = story.when(c.RecordTask(f.TaskDone("t1", "C", "t"), 2 * DAY_US))
    assert postings(told) == [("COMMISSION", "", -18), ("PENDING", "C", 15), ("PENDING", "B", 3)]
