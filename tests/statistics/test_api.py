"""Statistics through the real server and PostgreSQL: boards, one member, cohorts, freshness, verifying, rebuilding, quarantine."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import grpc
import psycopg
import pytest
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2 as op
from fenrun.statistics.v1 import statistics_pb2 as pb
from fenrun.type.v1 import type_pb2

from services.runtime import following, tokens
from services.statistics import projection
from services.statistics.projection import NAME
from tests.given import LATEST, Client, line, reason
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, RandomDrawing
from tests.stateful.driver import tell
from tests.stateful.grpc_driver import GrpcDriver
from tests.statistics.model import Model, places

FEBRUARY, MARCH = 32, 60  # days of the story


@pytest.fixture
def shop(client: Client) -> Client:
    """A brought B, B brought C and D; all are locked by an order of 10.00 in January."""
    client.publish()
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B"), ("D", "B")):
        client.enroll(member, referrer)
        client.order(f"first-{member}", member, line(1, 1000))
    return client


@contextmanager
def nobody_follows(dsn: str, program_id: str) -> Iterator[None]:
    """While the block lasts somebody else holds the lease of a program, who does nothing."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "insert into fenrun.followed values (%s, %s, 0, 'nobody', 'infinity')"
            " on conflict (program_id, projection) do update set holder = 'nobody', held_until = 'infinity'",
            [program_id, NAME],
        )
        try:
            yield
        finally:
            connection.execute("update fenrun.followed set held_until = '-infinity' where program_id = %s", [program_id])


def keep(monkeypatch: pytest.MonkeyPatch, sources: int, placements: int) -> None:
    monkeypatch.setattr(projection, "SOURCES_KEPT", sources)
    monkeypatch.setattr(projection, "PLACEMENTS_KEPT", placements)


def whole_log(client: Client) -> list[log_pb2.Entry]:
    entries: list[log_pb2.Entry] = []
    request = op.ReadEntriesRequest(program_id=client.program_id, page_size=1000)
    while True:
        page = client.ops.ReadEntries(request)
        entries += page.entries
        if not page.next_page_token:
            return entries
        request.page_token = page.next_page_token


# ---------------------------------------------------------------- figures


def test_boards_of_a_small_shop(shop: Client) -> None:
    shop.order("more", "C", line(1, 500), at=FEBRUARY)
    assert shop.board(pb.BOARD_INVITES) == [(1, "B", 2), (2, "A", 1)]
    assert shop.board(pb.BOARD_OWN_VOLUME) == [(1, "C", 1500), (2, "A", 1000), (2, "B", 1000), (2, "D", 1000)]
    assert shop.board(pb.BOARD_DIRECT_VOLUME) == [(1, "B", 2500), (2, "A", 1000)]
    assert shop.board(pb.BOARD_TEAM_VOLUME) == [(1, "A", 3500), (2, "B", 2500)]
    assert shop.board(pb.BOARD_INCOME) == [(1, "B", 250), (2, "A", 225)]
    assert shop.board(pb.BOARD_INCOME, rule_id="second") == [(1, "A", 125)]
    assert shop.board(pb.BOARD_INCOME, rule_id="third") == []
    assert shop.board(pb.BOARD_TEAM_VOLUME, "2026-02") == [(1, "A", 500), (1, "B", 500)]
    assert shop.board(pb.BOARD_TEAM_VOLUME, "2026-03") == []
    assert shop.board(pb.BOARD_OWN_VOLUME, limit=2) == [(1, "C", 1500), (2, "A", 1000)]


def test_after_two_who_share_a_rank_comes_the_one_after_the_next(client: Client) -> None:
    client.publish()
    for member, base in (("zoe", 500), ("ann", 500), ("Ann", 499), ("bob", 900)):
        client.enroll(member)
        client.order(f"o-{member}", member, line(1, base))
    assert client.board(pb.BOARD_OWN_VOLUME) == [(1, "bob", 900), (2, "ann", 500), (2, "zoe", 500), (4, "Ann", 499)]


def test_an_upgrade_locks_and_the_invite_has_not_paid(client: Client) -> None:
    client.publish()
    client.enroll("A")
    client.enroll("B", "A")
    client.upgrade("u", "B", "manager", at=FEBRUARY)
    assert client.board(pb.BOARD_INVITES, "2026-02") == [(1, "A", 1)]
    assert client.board(pb.BOARD_PAID_INVITES) == []
    client.order("o", "B", line(1, 100), at=MARCH)
    assert client.board(pb.BOARD_PAID_INVITES, "2026-02") == [(1, "A", 1)], "in the month of the lock"


def test_a_refund_takes_from_the_month_of_the_order_in_every_figure(shop: Client) -> None:
    shop.refund("half", "first-C", (1, 0, 400), at=MARCH)
    january = shop.figures("B").months[-1]
    assert (january.month, january.direct_volume_minor, january.team_volume_minor, january.income_minor) == ("2026-01", 1600, 1600, 160)
    assert shop.board(pb.BOARD_PAID_INVITES) == [(1, "B", 2), (2, "A", 1)]
    shop.refund("rest", "first-C", (1, 0, 600), at=MARCH)
    assert shop.board(pb.BOARD_PAID_INVITES) == [(1, "A", 1), (1, "B", 1)]
    assert shop.board(pb.BOARD_INVITES) == [(1, "B", 2), (2, "A", 1)], "the lock stays"
    assert [one.month for one in shop.figures("B").months] == ["2026-01"]
    assert list(shop.figures("C").months) == [], "nothing is left of the only month"


def test_a_correction_moves_the_invite_and_later_orders_alone(shop: Client) -> None:
    shop.enroll("Z")
    shop.correct("k", "B", "Z", at=3)
    shop.order("later", "C", line(1, 70), at=4)
    shop.refund("r", "first-C", (1, 0, 300), at=5)
    assert shop.board(pb.BOARD_INVITES) == [(1, "B", 2), (2, "Z", 1)]
    assert shop.board(pb.BOARD_TEAM_VOLUME) == [(1, "A", 2700), (2, "B", 1770), (3, "Z", 70)]
    assert shop.board(pb.BOARD_DIRECT_VOLUME) == [(1, "B", 1770), (2, "A", 1000)]
    assert shop.differences() == []


def test_all_figures_of_one_member(shop: Client) -> None:
    shop.order("more", "C", line(1, 500), at=FEBRUARY)
    found = shop.figures("B")
    assert (found.member_id, [one.month for one in found.months]) == ("B", ["2026-02", "2026-01"])
    february, january = found.months
    assert (found.in_all.invites, found.in_all.paid_invites, found.in_all.own_volume_minor) == (2, 2, 1000)
    assert (found.in_all.direct_volume_minor, found.in_all.team_volume_minor, found.in_all.income_minor) == (2500, 2500, 250)
    assert [(one.rule_id, one.asset, one.amount) for one in found.in_all.income_by_rule] == [("first", "", 250)]
    assert (february.invites, february.own_volume_minor, february.direct_volume_minor, february.income_minor) == (0, 0, 500, 50)
    assert (january.invites, january.own_volume_minor, january.direct_volume_minor, january.income_minor) == (2, 1000, 2000, 200)


def test_a_member_without_anything_has_figures_of_nothing(shop: Client) -> None:
    shop.enroll("quiet")
    found = shop.figures("quiet")
    assert (found.in_all, list(found.months)) == (pb.MemberFigures(), [])


def test_cohorts_are_recruits_by_the_month_of_their_lock(shop: Client) -> None:
    """A came alone and is nobody's recruit; E is locked in February and never buys."""
    shop.enroll("E", "A")
    shop.upgrade("u", "E", "manager", at=FEBRUARY)
    for number in range(2):
        shop.order(f"more-{number}", "C", line(1, 500), at=MARCH)
    shop.order("regretted", "D", line(1, 500), at=FEBRUARY)
    shop.refund("r", "regretted", (1, 0, 500), at=MARCH)
    found = shop.statistics.ListCohorts(pb.ListCohortsRequest(program_id=shop.program_id, consistency=LATEST))
    assert [
        (cohort.month, cohort.members, [(one.month, one.buyers, one.volume_minor) for one in cohort.months]) for cohort in found.cohorts
    ] == [("2026-01", 3, [("2026-01", 3, 3000), ("2026-03", 1, 1000)]), ("2026-02", 1, [])]


def test_what_comes_and_goes_within_one_batch_leaves_what_the_log_leaves(shop: Client, dsn: str) -> None:
    """A new member buys, returns all of it and is moved, all before anybody follows; the same for a member who is there."""
    with nobody_follows(dsn, shop.program_id):
        shop.enroll("E", "C")
        for member, base in (("E", 500), ("C", 70)):
            shop.order(f"brief-{member}", member, line(1, base), at=FEBRUARY)
            shop.refund(f"r-{member}", f"brief-{member}", (1, 0, base), at=FEBRUARY)
        shop.correct("k", "E", "A", at=FEBRUARY)
    assert shop.board(pb.BOARD_TEAM_VOLUME, "2026-02") == []
    assert shop.board(pb.BOARD_INVITES, "2026-02") == [(1, "A", 1)]
    assert shop.differences() == []


@pytest.mark.parametrize("randomness", range(3))
def test_months_may_come_in_any_order(shop: Client, randomness: int) -> None:
    """Batch by batch, with refunds of any month: what a month's board says, what a member's months say, and what all months come to."""
    random = Random(randomness)
    volumes, told = Counter[tuple[str, str]]({(member, "2026-01"): 1000 for member in "ABCD"}), list[tuple[str, str, str]]()
    for number in range(40):
        if told and random.random() < 0.2:
            order_id, buyer, month = told.pop(random.randrange(len(told)))
            shop.refund(f"back-{order_id}", order_id, (1, 0, 60), at=200)
            volumes[buyer, month] -= 60
        else:
            on_day, buyer = random.choice([(5, "2026-01"), (35, "2026-02"), (65, "2026-03"), (95, "2026-04")]), random.choice("CD")
            shop.order(f"o-{number}", buyer, line(1, 100 + number), at=on_day[0])
            told.append((f"o-{number}", buyer, on_day[1]))
            volumes[buyer, on_day[1]] += 100 + number
        if random.random() < 0.5:
            shop.figures("A")
    assert shop.differences() == []
    months = {month for _, month in volumes}
    for member in "CD":
        found = shop.figures(member)
        assert {one.month: one.own_volume_minor for one in found.months} == {month: volumes[member, month] for month in months}
        assert found.in_all.own_volume_minor == sum(volumes[member, month] for month in months)
    for month in months:
        team = volumes["C", month] + volumes["D", month]
        assert shop.board(pb.BOARD_DIRECT_VOLUME, month)[0][1:] == ("B", team)
        assert next(place for place in shop.board(pb.BOARD_TEAM_VOLUME, month) if place[1] == "B")[2] == team
        earned = sum(one.income_minor for one in shop.figures("B").months if one.month == month)
        assert next(place for place in shop.board(pb.BOARD_INCOME, month) if place[1] == "B")[2] == earned > 0
    figures = shop.figures("B")
    assert figures.in_all.income_minor == sum(one.income_minor for one in figures.months)


# Orders and changes of volume that are kept while a whole log is folded: more than there are, none, a few.
KEPT = ((10_000, 10_000), (0, 0), (5, 7))


@pytest.mark.parametrize("randomness", range(12))
def test_any_story_gives_the_models_figures(
    channel: grpc.Channel, fresh_program_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch, randomness: int
) -> None:
    """Facts of every kind, corrections, releases and refunds among them: every board and month, and the cohorts, are the slow model's; and
    what was folded in batches as it came is what the log gives in one go, however little of it is kept meanwhile."""
    keep(monkeypatch, *KEPT[randomness % len(KEPT)])
    program = fresh_program_id()
    books, oracle = GrpcDriver(channel, program, CURRENCY), Oracle(CURRENCY)
    draw = RandomDrawing(Random(randomness), oracle)
    told = draw.opening()
    for fact in told:
        tell(oracle, fact)
        tell(books, fact)
    for _ in range(80):
        told.append(draw.anything(told))
        tell(oracle, told[-1])
        tell(books, told[-1])
    client = Client.of(channel, program)
    model = Model.of(whole_log(client))
    income = Counter[tuple[str, str]]()
    for (member, _, month), amount in model.income.items():
        income[member, month] += amount
    boards = {
        pb.BOARD_INVITES: model.invites(paid=False),
        pb.BOARD_PAID_INVITES: model.invites(paid=True),
        pb.BOARD_OWN_VOLUME: model.own,
        pb.BOARD_DIRECT_VOLUME: model.direct,
        pb.BOARD_TEAM_VOLUME: model.team,
        pb.BOARD_INCOME: income,
    }
    for month in {"", *(month for values in boards.values() for _, month in values)}:
        for board, values in boards.items():
            assert client.board(board, month) == places(values, month), f"{pb.Board.Name(board)} {month!r}"
    for rule in {rule for _, rule, _ in model.income}:
        only = Counter({(member, month): amount for (member, of, month), amount in model.income.items() if of == rule})
        assert client.board(pb.BOARD_INCOME, rule_id=rule) == places(only, "")
    for member in model.members:
        assert {(one.rule_id, one.amount) for one in client.figures(member).in_all.income_by_rule if not one.asset} == {
            (rule, amount) for (who, rule, month), amount in model.income.items() if who == member and not month and amount
        }
    cohorts = client.statistics.ListCohorts(pb.ListCohortsRequest(program_id=program, consistency=LATEST)).cohorts
    assert {
        cohort.month: (cohort.members, {one.month: (one.buyers, one.volume_minor) for one in cohort.months}) for cohort in cohorts
    } == model.cohorts()
    assert client.differences() == []


# ---------------------------------------------------------------- how fresh


def test_a_read_includes_the_write_whose_token_it_is_given(shop: Client) -> None:
    for number in range(5):
        receipt = shop.order(f"o{number}", "C", line(1, 1)).receipt
        fresh = type_pb2.ReadConsistency(at_least_as_fresh=receipt.consistency_token)
        request = pb.ListLeaderboardRequest(program_id=shop.program_id, board=pb.BOARD_OWN_VOLUME, limit=1, consistency=fresh)
        found = shop.statistics.ListLeaderboard(request)
        assert found.position >= receipt.position
        assert found.places[0].value == 1001 + number


def test_an_answer_says_the_position_it_is_of(shop: Client, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody follows: as they are, the figures are of before; as fresh as the token, they are not to be had."""
    monkeypatch.setattr(following, "PATIENCE_S", 0.05)
    before = shop.figures("C")
    with nobody_follows(dsn, shop.program_id):
        receipt = shop.order("o", "C", line(1, 1)).receipt
        stale = shop.statistics.GetMemberStatistics(pb.GetMemberStatisticsRequest(program_id=shop.program_id, member_id="C"))
        assert stale == before
        assert stale.position == receipt.position - 1
        fresh = type_pb2.ReadConsistency(at_least_as_fresh=receipt.consistency_token)
        with pytest.raises(grpc.RpcError) as caught:
            shop.statistics.ListCohorts(pb.ListCohortsRequest(program_id=shop.program_id, consistency=fresh))
        metadata = {"position": str(receipt.position), "head": str(before.position)}
        assert reason(caught.value) == (grpc.StatusCode.UNAVAILABLE, "NOT_FRESH_ENOUGH", metadata)
        listed = {one.name: one for one in shop.ops.ListProjections(op.ListProjectionsRequest(program_id=shop.program_id)).projections}
        assert (listed["statistics.volumes"].inline, listed["statistics.volumes"].followed_as) == (False, "statistics")
        assert (listed["statistics.volumes"].position, listed["ledger.due"].position) == (before.position, receipt.position)
        assert shop.differences() == [], "each is compared at its own position"
    monkeypatch.undo()
    assert shop.figures("C").in_all.own_volume_minor == before.in_all.own_volume_minor + 1


def refused(client: Client, request: pb.ListLeaderboardRequest) -> tuple[str, dict[str, str]]:
    with pytest.raises(grpc.RpcError) as caught:
        client.statistics.ListLeaderboard(request)
    return reason(caught.value)[1:]


def test_nonsense_is_refused_and_named(shop: Client) -> None:
    def request(**more: object) -> pb.ListLeaderboardRequest:
        return pb.ListLeaderboardRequest(**{"program_id": shop.program_id, "board": pb.BOARD_INVITES} | more)  # type: ignore[arg-type]

    assert refused(shop, request(program_id="nowhere"))[0] == "PROGRAM_UNKNOWN"
    assert refused(shop, request(month="2026-13")) == ("MALFORMED", {"field": "month"})
    assert refused(shop, request(board=0)) == ("MALFORMED", {"field": "board"})
    assert refused(shop, request(limit=1001)) == ("MALFORMED", {"field": "limit"})
    assert refused(shop, request(rule_id="first")) == ("MALFORMED", {"field": "rule_id"})
    assert refused(shop, request(asset="points")) == ("MALFORMED", {"field": "asset"})
    beyond = type_pb2.ReadConsistency(at_least_as_fresh=tokens.make(shop.program_id, 999))
    assert refused(shop, request(consistency=beyond))[0] == "NOT_FRESH_ENOUGH"
    of_another = type_pb2.ReadConsistency(at_least_as_fresh=tokens.make("other", 1))
    assert refused(shop, request(consistency=of_another)) == ("TOKEN_INVALID", {"field": "consistency.at_least_as_fresh"})
    with pytest.raises(grpc.RpcError) as caught:
        shop.figures("nobody")
    assert reason(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "MEMBER_UNKNOWN")


# ---------------------------------------------------------------- verifying, rebuilding, quarantine

SPOILS = [
    ("statistics.members", "update statistics.members set paid = not paid where program_id = %s and member_id = 'B'"),
    ("statistics.bindings", "delete from statistics.bindings where program_id = %s and member_id = 'C'"),
    ("statistics.sources", "update statistics.sources set remaining_minor = remaining_minor + 1 where program_id = %s"),
    ("statistics.volumes", "update statistics.volumes set team_minor = 1 where program_id = %s"),
    ("statistics.earlier_volumes", "insert into statistics.earlier_volumes values (%s, '2025-12', 'ghost', 1, 0, 0)"),
    ("statistics.income", "insert into statistics.income values (%s, 'ghost', '', 'first', '2026-01', 1, 1)"),
    ("statistics.earlier_income", "insert into statistics.earlier_income values (%s, '2025-12', '', 'first', 'ghost', 1)"),
]


@pytest.mark.parametrize(("projection", "spoil"), SPOILS, ids=[name for name, _ in SPOILS])
def test_a_spoiled_table_is_found_and_rebuilt_and_the_old_rows_kept(shop: Client, dsn: str, projection: str, spoil: str) -> None:
    shop.order("regretted", "D", line(1, 500))
    shop.refund("all-of-it", "regretted", (1, 1, 500))
    shop.figures("A")
    with psycopg.connect(dsn) as connection:
        changed = connection.execute(spoil.encode(), [shop.program_id]).rowcount
    assert changed > 0
    assert {difference.split(":")[0] for difference in shop.differences()} == {projection}
    rebuilt = shop.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection=projection))
    assert rebuilt.rows_replaced == changed
    assert shop.differences() == []
    with psycopg.connect(dsn) as connection:
        kept = connection.execute(
            "select projection, count(*) from fenrun.replaced_rows where program_id = %s group by 1", [shop.program_id]
        )
        assert kept.fetchall() == ([] if spoil.startswith("delete") else [(projection, changed)])
    shop.order("later", "C", line(1, 5000))
    assert shop.board(pb.BOARD_TEAM_VOLUME) == [(1, "A", 8000), (2, "B", 7000)]
    assert shop.differences() == []


def spoil_entry(dsn: str, program_id: str, position: int, fact: bytes) -> bytes:
    """Only somebody who takes the trigger away can do this. Gives the bytes that were there."""
    with psycopg.connect(dsn) as connection:
        key = [program_id, position]
        row = connection.execute("select fact from fenrun.entries where program_id = %s and position = %s", key).fetchone()
        assert row is not None
        connection.execute("alter table fenrun.entries disable trigger entries_are_for_ever")
        connection.execute("update fenrun.entries set fact = %s where program_id = %s and position = %s", [fact, *key])
        connection.execute("alter table fenrun.entries enable trigger entries_are_for_ever")
    return bytes(row[0])


@pytest.mark.parametrize("kept", KEPT)
def test_an_entry_that_cannot_be_folded_goes_into_quarantine_and_the_rest_goes_on(
    shop: Client, dsn: str, monkeypatch: pytest.MonkeyPatch, kept: tuple[int, int]
) -> None:
    """So does the refund of the order it tells of. Once it reads again, a rebuild takes both back in."""
    keep(monkeypatch, *kept)
    with nobody_follows(dsn, shop.program_id):
        poison = shop.order("poison", "C", line(1, 500)).receipt.position
        shop.order("good", "C", line(1, 70))
        refund = shop.refund("r", "poison", (1, 0, 100)).receipt.position
        shop.order("better", "D", line(1, 1))
        fact = spoil_entry(dsn, shop.program_id, poison, b"\xff")
    assert shop.board(pb.BOARD_OWN_VOLUME) == [(1, "C", 1070), (2, "D", 1001), (3, "A", 1000), (3, "B", 1000)]

    listed = shop.ops.ListProjections(op.ListProjectionsRequest(program_id=shop.program_id)).projections
    for one in listed:
        assert one.quarantined_count == (2 if one.followed_as == NAME else 0)
    [first, second] = next(one for one in listed if not one.inline).quarantined
    assert (first.position, second.position) == (poison, refund)
    assert "DecodeError" in first.error
    assert second.error == "LookupError: order/poison is not known"

    results = {
        step.result.projection: step.result
        for step in shop.ops.VerifyProjections(op.VerifyProjectionsRequest(program_id=shop.program_id))
        if step.WhichOneof("step") == "result"
    }
    assert not results["log"].equal
    assert [(one.equal, one.quarantined_count) for name, one in results.items() if name.startswith("statistics.")] == [(True, 2)] * 7

    def rebuild() -> set[int]:
        """How many entries are in quarantine after it."""
        shop.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection="statistics.members"))
        listed = shop.ops.ListProjections(op.ListProjectionsRequest(program_id=shop.program_id)).projections
        return {one.quarantined_count for one in listed if one.followed_as == NAME}

    assert rebuild() == {2}, "it still does not read"
    spoil_entry(dsn, shop.program_id, poison, fact)
    assert shop.differences() == [], "what is in quarantine stays there until it is rebuilt"
    assert shop.board(pb.BOARD_OWN_VOLUME)[0] == (1, "C", 1070)
    assert rebuild() == {0}
    assert shop.board(pb.BOARD_OWN_VOLUME)[0] == (1, "C", 1470)
    assert shop.differences() == []
    shop.refund("r2", "poison", (1, 0, 400))
    assert shop.board(pb.BOARD_OWN_VOLUME)[0] == (1, "C", 1070)
