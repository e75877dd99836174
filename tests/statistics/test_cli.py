"""`fenrun leaderboard`, `stats` and `cohorts`: what people read, and what programs read."""

import json
from typing import Any

import pytest
from fenrun.statistics.v1 import statistics_pb2 as pb
from typer.testing import CliRunner

from services import composition
from services.__main__ import app
from tests.given import Client, line

FEBRUARY = 32  # a day of the story


@pytest.fixture
def shop(client: Client) -> Client:
    """A brought B and C, whose names are as long as names get."""
    client.publish()
    long = "c" * 30
    for member, referrer in (("A", ""), ("B", "A"), (long, "A")):
        client.enroll(member, referrer)
        client.order(f"o-{member}", member, line(1, 123_456_789))
    client.order("later", "B", line(1, 100), at=FEBRUARY)
    return client


@pytest.fixture
def fenrun(server: composition.RunningServer, shop: Client) -> Any:
    def run(*words: str, status: int = 0) -> str:
        arguments = [*words, "-P", shop.program_id, "--target", server.address]
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80", "TERM": "dumb"})
        assert result.exit_code == status, result.output
        assert all(len(told) <= 80 for told in result.output.splitlines()), result.output
        return result.output

    return run


def test_a_leaderboard_for_people(fenrun: Any) -> None:
    assert fenrun("leaderboard", "--by", "own-volume", "--top", "2").splitlines() == [
        "rank  member  own volume GBP",
        "   1  B         1,234,568.89",
        "   2  A         1,234,567.89",
        "",
        "as of position 9",
    ]
    assert fenrun("leaderboard", "--by", "invites", "--month", "2026-01").splitlines()[1] == "   1  A             2"
    assert fenrun("leaderboard", "--month", "2026-02").splitlines()[1] == "   1  A                  1.00"
    assert "A" not in fenrun("leaderboard", "--by", "income", "--points", "stars").splitlines()[1:2]


def test_a_leaderboard_for_programs(fenrun: Any) -> None:
    found = json.loads(fenrun("leaderboard", "--by", "income", "--rule", "first", "--json"))
    assert found == {"position": 9, "places": [{"rank": 1, "member_id": "A", "value": 24_691_368}]}


def test_the_figures_of_a_member(fenrun: Any) -> None:
    told = fenrun("stats", "A")
    assert "2026-02" in told
    assert "in all         2     2  1,234,567.89  2,469,136.78  2,469,136.78  246,913.68" in told
    found = json.loads(fenrun("stats", "A", "--json"))
    assert found["in_all"]["team_volume_minor"] == 246_913_678
    assert [one["month"] for one in found["months"]] == ["2026-02", "2026-01"]
    assert list(found) == [field.name for field in pb.GetMemberStatisticsResponse.DESCRIPTOR.fields]


def test_cohorts(fenrun: Any) -> None:
    assert fenrun("cohorts").splitlines() == [
        "cohort   members  month    buyers    volume GBP",
        "2026-01        2  2026-01       2  2,469,135.78",
        "2026-01        2  2026-02       1          1.00",
        "",
        "as of position 9",
    ]
    assert json.loads(fenrun("cohorts", "--now", "--json"))["cohorts"][0]["members"] == 2


def test_what_cannot_be_answered_is_said_in_a_sentence(fenrun: Any) -> None:
    assert fenrun("stats", "nobody", status=1) == "fenrun: member_id: no member 'nobody' is enrolled (MEMBER_UNKNOWN)\n"
    assert "write 2026-03" in fenrun("leaderboard", "--month", "March", status=2)
    assert "goes with the board INCOME alone" in fenrun("leaderboard", "--rule", "first", status=1)


def test_followed_projections_are_listed_as_such(fenrun: Any) -> None:
    fenrun("cohorts")
    kept = {told.split()[0]: told for told in fenrun("projections", "list").splitlines()}
    assert "after the log" in kept["statistics.volumes"]
    assert "with the log" in kept["ledger.members"]
    assert "equal" in next(told for told in fenrun("projections", "verify").splitlines() if told.startswith("statistics.volumes"))
