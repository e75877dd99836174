"""Referral's deciders, given / when / then. No database, no clock."""

from dataclasses import replace
from typing import Any

import pytest

from services.kernel.decider import Draft, Entry, NotLoaded, Repeated
from services.kernel.refusals import Refusal
from services.referral.domain import facts as f
from services.referral.domain.decide import Command, CorrectBinding, EnrollMember, RecordTouch, UpgradeMember, decide
from services.referral.domain.roster import Member, Roster, evolve

PLAN = f.PlanPublished(("member", "manager"), False, 0, None)


class Story:
    """Given: facts told one after another. When: a command."""

    def __init__(self, plan: f.PlanPublished | None = PLAN) -> None:
        self.roster = Roster()
        if plan:
            self.tell("plan/x", plan)

    def tell(self, stream: str, fact: Any, decision: Any = None, occurred_us: int = 0) -> None:
        position = self.roster.position + 1
        evolve(self.roster, Entry(position, stream, 1, occurred_us, position, bytes(32), fact, decision))

    def when(self, command: Command) -> Draft:
        answer = decide(self.roster, command)
        assert isinstance(answer, list)
        [draft] = answer
        return draft

    def given(self, *commands: Command) -> "Story":
        for command in commands:
            draft = self.when(command)
            self.tell(draft.stream, draft.fact, draft.decision, draft.occurred_us)
        return self

    def member(self, member_id: str) -> Member:
        found = self.roster.members[member_id]
        assert found is not None
        return found

    def refused(self, command: Command) -> str:
        with pytest.raises(Refusal) as caught:
            decide(self.roster, command)
        return caught.value.reason


def enroll(member: str, referrer: str = "") -> EnrollMember:
    return EnrollMember(f.MemberEnrolled(member, referrer), 1)


def touch(touch_id: str, member: str, referrer: str) -> RecordTouch:
    return RecordTouch(f.MemberTouched(touch_id, member, referrer, "link"), 2)


def upgrade(upgrade_id: str, member: str, tier: str = "manager", evidence: f.Evidence | None = None) -> UpgradeMember:
    return UpgradeMember(f.MemberUpgraded(upgrade_id, member, tier, evidence or f.Evidence(f.EvidenceKind.SEAT_GRANTED, "", "")), 3)


def correct(correction_id: str, member: str, referrer: str, asked: str = "ann", approved: str = "bob") -> CorrectBinding:
    return CorrectBinding(f.BindingCorrected(correction_id, member, referrer, "typo", asked, approved), 4)


def family() -> Story:
    """A brought B, B brought C, D came alone."""
    return Story().given(enroll("A"), enroll("B", "A"), enroll("C", "B"), enroll("D"))


def test_enrolment_with_a_referrer_is_the_first_touch_and_locks_nothing() -> None:
    member = family().member("B")
    assert (member.referrer_id, member.locked, member.touch_position) == ("A", False, 3)


def test_the_last_touch_before_the_first_order_wins() -> None:
    story = family().given(touch("t1", "C", "D"), touch("t2", "C", "A"))
    story.tell("order/O1", f.OrderLocked("O1", f.BindingLock("C", "A", 7)))
    assert story.when(touch("t3", "C", "D")).decision == f.TouchDecision(False)
    story.given(touch("t3", "C", "D"))
    assert story.member("C")[3:6] == (True, "A", 8)


def test_a_plan_may_keep_the_first_touch() -> None:
    story = Story(replace(PLAN, first_touch=True)).given(enroll("A"), enroll("B"), enroll("C", "B"))
    assert story.when(touch("t1", "C", "A")).decision == f.TouchDecision(False)


def test_the_first_upgrade_locks_as_a_first_order_would() -> None:
    story = family()
    draft = story.when(upgrade("u1", "B"))
    assert draft.decision == f.UpgradeDecision("", f.BindingLock("B", "A", 3))
    story.given(upgrade("u1", "B"))
    assert story.when(upgrade("u2", "B", "member")).decision == f.UpgradeDecision("manager", None)


def test_who_came_alone_is_locked_to_nobody_for_good() -> None:
    story = family().given(upgrade("u1", "D"))
    assert story.member("D").locked
    assert story.when(touch("t1", "D", "A")).decision == f.TouchDecision(False)


@pytest.mark.parametrize("referrer", ["B", "C"])
def test_a_circle_of_any_length_is_refused_also_among_open_touches(referrer: str) -> None:
    assert family().refused(touch("t1", "A", referrer)) == "BINDING_CYCLE"


def test_a_correction_moves_a_locked_binding_and_remembers_the_old_one() -> None:
    story = family().given(upgrade("u1", "C"))
    assert story.when(correct("c1", "C", "D")).decision == f.CorrectionDecision("B")
    assert story.given(correct("c1", "C", "D")).member("C").referrer_id == "D"
    assert story.given(correct("c2", "C", "")).member("C")[3:5] == (True, "")


def test_a_release_opens_the_binding_again_with_the_same_candidate() -> None:
    story = family().given(upgrade("u1", "C"))
    story.tell("order/O1", f.BindingReleased("O1", "C"))
    assert story.member("C")[3:6] == (False, "B", 0)


REFUSALS = [
    (enroll("E", "E"), "SELF_BINDING"),
    (enroll("E", "nobody"), "MEMBER_UNKNOWN"),
    (enroll("B", "D"), "ID_REUSED"),
    (touch("t", "nobody", "A"), "MEMBER_UNKNOWN"),
    (touch("t", "A", "nobody"), "MEMBER_UNKNOWN"),
    (touch("t", "A", "A"), "SELF_BINDING"),
    (upgrade("u", "nobody"), "MEMBER_UNKNOWN"),
    (upgrade("u", "A", "emperor"), "TIER_UNKNOWN"),
    (upgrade("u", "A", evidence=f.Evidence(f.EvidenceKind.PAID_ORDER, "O9", "")), "ORDER_UNKNOWN"),
    (correct("c", "nobody", "A"), "MEMBER_UNKNOWN"),
    (correct("c", "C", "A"), "BINDING_NOT_LOCKED"),
    (correct("c", "B", "A", "ann", "ann"), "APPROVER_IS_REQUESTER"),
    (correct("c", "B", "B"), "SELF_BINDING"),
    (correct("c", "B", "nobody"), "MEMBER_UNKNOWN"),
    (correct("c", "B", "C"), "BINDING_CYCLE"),
]


@pytest.mark.parametrize(("command", "reason"), REFUSALS, ids=[f"{number}-{reason}" for number, (_, reason) in enumerate(REFUSALS)])
def test_what_breaks_a_rule_is_refused_by_its_name(command: Command, reason: str) -> None:
    assert family().given(upgrade("u1", "B")).refused(command) == reason


def test_an_upgrade_needs_a_plan_in_force() -> None:
    assert Story(None).given(enroll("A")).refused(upgrade("u", "A")) == "NO_PLAN_IN_FORCE"


AGAIN = [enroll("B", "A"), touch("t1", "C", "D"), upgrade("u1", "B"), correct("c1", "B", "D")]


@pytest.mark.parametrize("command", AGAIN, ids=lambda command: type(command).__name__)
def test_the_same_fact_again_gives_the_first_entry_and_other_content_is_refused(command: Any) -> None:
    story = family().given(touch("t1", "C", "D"), upgrade("u1", "B"), correct("c1", "B", "D"))
    answer = decide(story.roster, command)
    assert isinstance(answer, Repeated)
    assert answer.entry.fact == command.fact
    assert story.refused(replace(command, occurred_us=99)) == "ID_REUSED"


def test_what_was_not_loaded_is_never_taken_for_absent() -> None:
    for command in (enroll("B"), touch("t", "A", "B"), upgrade("u", "A"), correct("c", "A", "B")):
        with pytest.raises(NotLoaded):
            decide(Roster(complete=False), command)
