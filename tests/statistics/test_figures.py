"""The figures folded purely: what each kind of entry changes, and how volume climbs."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fenrun.log.v1 import log_pb2
from google.protobuf.message import Message

from services.kernel.decider import Entry
from services.runtime.stored import Stored
from services.statistics import codec, projection
from services.statistics.domain.facts import Changed, Corrected, Enrolled, Fact, Locked, Paid, PlanPublished, Rule, Share
from services.statistics.domain.figures import Earning, Figures, Latest, Volume, fold, latest, month_of
from services.statistics.domain.places import Placement, climb
from services.statistics.projection import folding
from tests.given import DAY_ONE, day

DAY_ONE_US = int(DAY_ONE.timestamp()) * 1_000_000
MARCH = 65  # a day of the story
PLAN = PlanPublished((Rule("first", ""), Rule("gift", "points")))


def told(*facts: Fact | tuple[Fact, int]) -> Figures:
    """The figures after these facts, at positions 1, 2, …; each on day 2, or on the day given."""
    figures = Figures()
    for position, one in enumerate(facts, start=1):
        fact, on_day = (one, 2) if isinstance(one, Fact) else one
        fold(figures, entry(position, fact, on_day))
    return figures


def entry(position: int, fact: Any, on_day: int = 2) -> Entry:
    return Entry(position, "", 1, DAY_ONE_US + (on_day - 1) * 86_400_000_000, 0, b"", fact, None)


def order(name: str, buyer: str, base_minor: int, *shares: Share, lock: Locked | None = None, payees: Sequence[str] = ()) -> Paid:
    return Paid(f"order/{name}", 1, tuple(payees), shares, buyer, base_minor, lock)


def refund(name: str, base_minor: int | None, *shares: Share, released: str = "") -> Changed:
    return Changed(f"order/{name}", base_minor, shares, released)


def test_months_are_calendar_months_in_utc() -> None:
    assert month_of(0) == "1970-01"
    assert month_of(-1) == "1969-12"
    assert [month_of(DAY_ONE_US + microseconds) for microseconds in (31 * 86_400_000_000 - 1, 31 * 86_400_000_000)] == [
        "2026-01",
        "2026-02",
    ]
    assert month_of(-62_135_596_800_000_000) == "0001-01"


def test_volume_climbs_to_everybody_above() -> None:
    figures = told(PLAN, Locked("B", "A"), order("o", "C", 500, lock=Locked("C", "B")))
    expected = {"C": Volume(500, 0, 0), "B": Volume(0, 500, 500), "A": Volume(0, 0, 500)}
    assert figures.volumes() == {(member, "2026-01"): volume for member, volume in expected.items()}


def test_those_who_lock_later_get_nothing_of_an_earlier_order() -> None:
    """B was not yet locked to A when C bought."""
    figures = told(PLAN, order("o", "C", 500, lock=Locked("C", "B")), Locked("B", "A"), order("p", "C", 70))
    assert figures.volumes()["B", "2026-01"] == Volume(0, 570, 570)
    assert figures.volumes()["A", "2026-01"] == Volume(0, 0, 70)


def test_a_correction_counts_for_later_orders_and_not_for_refunds_of_earlier_ones() -> None:
    """B moves from A to Z with C below: what C bought before, and what comes back of it, stays with A."""
    figures = told(
        PLAN,
        Locked("B", "A"),
        order("before", "C", 500, lock=Locked("C", "B")),
        Corrected("B", "Z"),
        order("after", "C", 70),
        refund("before", 300),
    )
    assert figures.volumes()["A", "2026-01"] == Volume(0, 0, 200)
    assert figures.volumes()["Z", "2026-01"] == Volume(0, 0, 70)
    assert figures.volumes()["B", "2026-01"] == Volume(0, 270, 270)
    assert figures.members["B"].referrer_id == "Z"
    assert figures.members["B"].locked_month == "2026-01"


@pytest.mark.parametrize("randomness", range(30))
def test_volume_is_everybodys_who_stood_above_when_an_order_was_recorded(randomness: int) -> None:
    """However orders, refunds of them, and moves of buyers and of those above them, follow each other."""
    chance = random.Random(randomness)
    people = [f"m{number}" for number in range(7)]
    above: dict[str, str] = {}
    facts: list[Fact] = [PLAN]
    # Of each order who buys, and who stood above them when it was recorded.
    stood: list[list[str]] = []
    expected: dict[tuple[str, str], list[int]] = {}
    for number in range(60):
        buyer = chance.randrange(len(people))
        referrer = chance.choice([*people[:buyer], ""])  # no circle, whatever the order of moves
        kind = chance.choice(["order", "order", "order that locks", "correction", "refund", "refund"])
        if kind == "refund":
            if stood:
                of = chance.randrange(len(stood))
                _note(expected, stood[of], -1)
                facts.append(refund(str(of), 1))
            continue
        if kind != "order":
            above[people[buyer]] = referrer
        if kind == "correction":
            facts.append(Corrected(people[buyer], referrer))
            continue
        lock = Locked(people[buyer], referrer) if kind == "order that locks" else None
        facts.append(order(str(len(stood)), people[buyer], 1000 + number, lock=lock))
        path = [people[buyer]]
        while path[-1]:
            path.append(above.get(path[-1], ""))
        stood.append(path[:-1])
        _note(expected, path[:-1], 1000 + number)
    assert told(*facts).volumes() == {key: Volume(*volume) for key, volume in expected.items()}


def _note(volumes: dict[tuple[str, str], list[int]], path: Sequence[str], amount: int) -> None:
    for level, member in enumerate(path):
        volume = volumes.setdefault((member, "2026-01"), [0, 0, 0])
        for figure in ((0,), (1, 2), (2,))[min(level, 2)]:
            volume[figure] += amount


def test_a_refund_counts_in_the_month_of_the_order() -> None:
    figures = told(PLAN, order("o", "C", 500, lock=Locked("C", "")), (refund("o", 200), MARCH))
    assert figures.volumes() == {("C", "2026-01"): Volume(300)}


def test_an_order_stands_until_all_of_it_is_refunded() -> None:
    story: list[Fact] = [PLAN, order("o", "C", 500, lock=Locked("C", "A")), order("free", "C", 0)]
    assert told(*story).members["C"].paid
    assert told(*story, refund("o", 200)).members["C"].paid
    assert not told(*story, refund("o", 200), refund("o", 300), refund("o", 0)).members["C"].paid


def test_a_voided_order_leaves_nothing() -> None:
    shares = (Share(0, 1, 50),)
    undone = (Share(0, 1, -40),)
    figures = told(
        PLAN,
        order("o", "C", 500, *shares, lock=Locked("C", "A"), payees=["A"]),
        refund("o", 100, Share(0, 1, -10)),
        refund("o", None, *undone),
    )
    assert set(figures.volumes().values()) == {Volume()}
    assert set(figures.income().values()) == {0}
    assert not figures.members["C"].paid


def test_a_released_binding_is_nobodys_invite_and_later_orders_climb_no_more() -> None:
    figures = told(PLAN, order("o", "C", 500, lock=Locked("C", "A")), refund("o", 500, released="C"), order("p", "C", 70))
    assert not figures.members["C"].locked
    assert figures.volumes()["A", "2026-01"] == Volume()


def test_income_is_kept_by_rule_and_asset_without_breakage() -> None:
    shares = (Share(0, 1, 50), Share(0, 2, 7), Share(1, 1, 3), Share(0, 0, 99))
    figures = told(PLAN, order("o", "C", 500, *shares, payees=["A", "B"]), (refund("o", 200, Share(0, 1, -20)), MARCH))
    expected = {("A", "", "first"): 30, ("B", "", "first"): 7, ("A", "points", "gift"): 3}
    assert figures.income() == {(Earning(*key), "2026-01"): amount for key, amount in expected.items()}


@pytest.mark.parametrize(
    "fact",
    [
        refund("never", 1),
        refund("o", 501),
        refund("o", 1, Share(0, 3, -1)),
        order("p", "C", 1, Share(2, 1, 1), payees=["A"]),
        order("p", "C", 1, Share(0, 2, 1), payees=["A"], lock=Locked("C", "Z")),
        Paid("order/p", 99, ("A",), (Share(0, 1, 1),), "C", 1),
    ],
)
def test_what_cannot_be_folded_changes_nothing(fact: Fact) -> None:
    """A rebuild goes past such an entry and on with the same figures."""
    story = (PLAN, Enrolled("C"), order("o", "C", 500, lock=Locked("C", "A"), payees=["A", "B"]))
    figures = told(*story)
    with pytest.raises((LookupError, ValueError)):
        fold(figures, entry(4, fact))
    assert figures == told(*story)


# ---------------------------------------------------------------- climbing


@pytest.mark.parametrize("randomness", range(40))
def test_volume_climbs_as_if_each_order_were_walked_up_alone(randomness: int) -> None:
    """Bindings move at random, members with people below them too; orders are of any time, in any order."""
    chance = random.Random(randomness)
    people = [f"m{number}" for number in range(12)]
    histories: dict[str, list[tuple[int, str]]] = {}
    for position in range(1, 60):
        moved = chance.randrange(len(people))
        # Only to somebody before them in the list: no circle, whatever the order of moves.
        referrer = chance.choice([*people[:moved], ""])
        histories.setdefault(people[moved], []).append((position, referrer))
    placements = {
        Placement(chance.choice(people), chance.randrange(70), chance.choice(["2026-01", "2026-02"])): chance.randrange(-50, 100)
        for _ in range(200)
    }
    expected: dict[tuple[str, str], int] = {}
    for (member, position, month), amount in placements.items():
        while member := next((to for since, to in reversed(histories.get(member, [])) if since <= position), ""):
            expected[member, month] = expected.get((member, month), 0) + amount
    assert climb(histories, placements) == expected


def test_a_circle_is_an_error_and_no_endless_climb() -> None:
    with pytest.raises(ValueError, match="above themselves"):
        climb({"A": [(1, "B")], "B": [(2, "A")]}, {Placement("A", 3, "2026-01"): 1})


def test_an_upline_of_any_depth_is_climbed() -> None:
    """Deeper than Python's stack."""
    histories = {f"m{number}": [(number, f"m{number - 1}")] for number in range(1, 3000)}
    teams = climb(histories, {Placement("m2999", 5000, "2026-01"): 1, Placement("m2998", 5001, "2026-01"): 1})
    assert len(teams) == 2999
    assert set(teams.values()) == {1, 2}


# ---------------------------------------------------------------- what is read of the log


def read(type_name: str, fact: Message, decision: Message | None = None) -> Any:
    decided = decision.SerializeToString() if decision else b""
    return codec.read(Stored("p", 1, "s", 1, type_name, None, 0, 0, "", fact.SerializeToString(), decided, b"")).fact


def test_a_type_that_is_not_known_is_skipped() -> None:
    assert read("moon.landed.v1", log_pb2.ProgramCreated()) is None


def test_an_upgrade_that_locks_nothing_is_skipped() -> None:
    assert read("member.upgraded.v1", log_pb2.MemberUpgraded(member_id="A"), log_pb2.MemberUpgradedDecision()) is None


def test_shares_of_the_order_as_a_whole_are_shares_like_others() -> None:
    decided = log_pb2.OrderPaidDecision(plan_position=3, people=[log_pb2.Person(member_id="A")])
    for line_no, amount in ((0, 5), (1, 7)):
        decided.lines.add(line_no=line_no).shares.add(rule_index=1, payee=1, amount_minor=amount)
    paid = read("order.paid.v1", log_pb2.OrderPaid(order_id="o", member_id="C", lines=[log_pb2.OrderLine(base_minor=9)]), decided)
    assert paid == Paid("order/o", 3, ("A",), (Share(1, 1, 5), Share(1, 1, 7)), "C", 9)


def test_a_voided_order_is_taken_back_whole() -> None:
    decided = log_pb2.OrderRefundedDecision(binding_released_member_id="C")
    assert read("order.voided.v1", log_pb2.OrderVoided(order_id="o"), decided) == Changed("order/o", None, (), "C")


def test_a_period_counts_in_the_month_it_begins_and_is_corrected_there() -> None:
    decided = log_pb2.PeriodClosedDecision(plan_position=1, starts_at=day(40), people=[log_pb2.PeriodPerson(member_id="A")])
    decided.shares.add(rule_index=0, payee=1, amount_minor=500)
    corrected = log_pb2.PeriodCorrectedDecision(shares=[log_pb2.Share(rule_index=0, payee=1, amount_minor=-120)])
    figures = told(
        PLAN,
        (read("period.closed.v1", log_pb2.PeriodClosed(period_id="2026-02"), decided), MARCH),
        (read("period.corrected.v1", log_pb2.PeriodCorrected(period_id="2026-02"), corrected), MARCH + 40),
    )
    assert figures.income() == {(Earning("A", "", "first"), "2026-02"): 380}
    assert figures.volumes() == {}


def test_a_task_gives_income_and_no_volume() -> None:
    decided = log_pb2.TaskDoneDecision(plan_position=1, people=[log_pb2.Person(member_id="A")])
    decided.lines.add(line_no=0).shares.add(rule_index=1, payee=1, amount_minor=10)
    figures = told(PLAN, read("task.done.v1", log_pb2.TaskDone(task_id="t", member_id="A"), decided))
    assert figures.income()[Earning("A", "points", "gift"), "2026-01"] == 10
    assert figures.volumes() == {}


@pytest.mark.parametrize("order", [*itertools.permutations(["2025-12", "2026-01", "2026-02"])])
def test_the_last_month_is_kept_with_all_months_whichever_is_told_first(order: Sequence[str]) -> None:
    amounts = {"2025-12": (1, 10), "2026-01": (2, 20), "2026-02": (4, 40)}
    found, earlier = latest({("A", month): amounts[month] for month in order} | {("B", "2026-01"): (8, 80)})
    assert found == {"A": Latest("2026-02", (4, 40), (7, 70)), "B": Latest("2026-01", (8, 80), (8, 80))}
    assert earlier == {("A", "2025-12"): (1, 10), ("A", "2026-01"): (2, 20)}


# ---------------------------------------------------------------- the whole log in memory


def rows(first: Callable[[str], Entry | None], *facts: Fact) -> dict[str, list[Any]]:
    made = folding(first)
    for position, fact in enumerate(facts, start=1):
        made.add(entry(position, fact))
    return {name: sorted(found) for name, found in made.rows().items()}


STORY: tuple[Fact, ...] = (
    PLAN,
    order("o", "C", 500, Share(0, 1, 50), lock=Locked("C", "A"), payees=["A"]),
    order("other", "D", 70),
    refund("o", 200, Share(0, 1, -20)),
    order("third", "C", 9),
    refund("o", 100, Share(0, 1, -10)),
    refund("o", 200, Share(0, 1, -20)),
)


@pytest.mark.parametrize(("sources", "placements"), [(0, 0), (1, 1), (2, 3), (3, 2), (100, 100)])
def test_however_little_is_kept_the_rows_are_the_same(monkeypatch: pytest.MonkeyPatch, sources: int, placements: int) -> None:
    monkeypatch.setattr(projection, "SOURCES_KEPT", sources)
    monkeypatch.setattr(projection, "PLACEMENTS_KEPT", placements)
    found = rows({"order/o": entry(2, STORY[1])}.get, *STORY)
    assert found["statistics.sources"] == [("order/o", 0)]
    volumes = {"A": (0, 9, 9), "C": (9, 0, 0), "D": (70, 0, 0)}
    assert found["statistics.volumes"] == [(member, "2026-01", *volume, *volume) for member, volume in volumes.items()]
    assert found["statistics.income"] == [("A", "", "first", "2026-01", 0, 0)]
    assert found["statistics.earlier_volumes"] == found["statistics.earlier_income"] == []


@pytest.mark.parametrize(
    "found", [None, entry(9, STORY[1]), entry(2, Enrolled("C"))], ids=["left out", "told of later", "nothing to take back"]
)
def test_what_is_taken_back_must_have_been_told_before(monkeypatch: pytest.MonkeyPatch, found: Entry | None) -> None:
    monkeypatch.setattr(projection, "SOURCES_KEPT", 0)
    with pytest.raises(LookupError, match="order/o is not known"):
        rows(lambda _: found, *STORY)


def test_a_circle_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the entry that happens to be the last before volume climbs."""
    monkeypatch.setattr(projection, "PLACEMENTS_KEPT", 1)
    made = folding(lambda _: None)
    for position, fact in enumerate((Locked("A", "B"), Locked("B", "A"), order("o", "A", 1), order("p", "A", 1)), start=1):
        made.add(entry(position, fact))
    with pytest.raises(ValueError, match="stands above themselves"):
        made.rows()
