"""Corners of groups, periods and plans that somebody hostile found, through the real server."""

from datetime import UTC, datetime

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2
from fenrun.statistics.v1 import statistics_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from tests.given import Client, line, reason

CAMPAIGN = """
plan: camp
version: {version}
currency: GBP
period: campaign
effective: {{from: "2026-01-01T00:00:00Z", until: "2026-02-01T00:00:00Z"}}
rules:
  - {{id: bonus, kind: volume, brackets: [{{from_minor: 0, rate: {rate}}}]}}
"""

BY_PERIOD = """
plan: ends
version: 1
currency: GBP
zone: "+08:00"
period: {period}
effective: {{from: "0001-01-01T00:00:00Z"}}
rules:
  - {{id: bonus, kind: volume, brackets: [{{from_minor: 0, rate: 1%}}]}}
"""


def at(year: int, month: int, day: int) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime(year, month, day, tzinfo=UTC))
    return moment


def test_a_campaign_that_a_second_version_replaced_can_still_be_closed(client: Client) -> None:
    """Version 2 corrects a running campaign, with the same dates: what was sold under version 1 counts in camp.1, and is paid out."""
    client.publish(CAMPAIGN.format(version=1, rate="1%"))
    client.enroll("ann")
    client.order("O1", "ann", line(1, 100_000), at=5)
    client.publish(CAMPAIGN.format(version=2, rate="2%"), at=6)
    client.order("O2", "ann", line(1, 100_000), at=7)
    client.close_period("camp.1", 60)
    assert client.balance("ann") == {"pending": 1000, "accrued": 1000}
    client.close_period("camp.2", 60)
    assert client.balance("ann") == {"pending": 3000, "accrued": 3000}
    assert client.differences() == []


def test_a_month_whose_plan_was_replaced_from_its_beginning_on_can_still_be_closed(client: Client) -> None:
    """The version that counted what was sold came into force with the month; the one that replaced it has no rules by period."""
    client.publish(BY_PERIOD.format(period="month").replace("0001-01-01", "2026-01-01").replace("+08:00", "+00:00"))
    client.enroll("ann")
    client.order("O1", "ann", line(1, 100_000), at=5)
    plain = 'plan: ends\nversion: 2\ncurrency: GBP\neffective: {from: "2026-01-01T00:00:00Z"}\n'
    client.publish(plain + "rules:\n  - {id: first, kind: generation, generation: 1, rate: 1%}\n", at=6)
    client.close_period("2026-01", 60)
    assert client.balance("ann") == {"pending": 1000, "accrued": 1000}


MONTHLY = BY_PERIOD.format(period="month").replace("0001-01-01", "2026-01-01").replace("+08:00", "+00:00")
REPLACING = """
plan: ends
version: 2
currency: GBP
{period}
effective: {{from: "2026-01-15T00:00:00Z"}}
rules:
  - {rule}
"""


@pytest.mark.parametrize(
    ("period", "rule"),
    [
        ("", "{id: first, kind: generation, generation: 1, rate: 1%}"),
        ("period: week", "{id: weekly, kind: volume, brackets: [{from_minor: 0, rate: 2%}]}"),
    ],
)
def test_a_month_begun_under_a_version_that_a_back_dated_one_replaced_can_be_closed(client: Client, period: str, rule: str) -> None:
    """The plan with rules by the month is in force since January; in February another is published that begins in the middle of January."""
    client.publish(MONTHLY)
    client.enroll("ann")
    client.order("O1", "ann", line(1, 100_000), at=35)
    client.publish(REPLACING.format(period=period, rule=rule), at=36)
    client.order("O2", "ann", line(1, 50_000), at=37)
    assert client.close_period("2026-02", 70).receipt.position
    assert client.balance("ann") == {"pending": 1000, "accrued": 1000}
    # Late refunds correct it as they correct any.
    client.refund("R1", "O1", (1, 1, 100_000), at=75)
    assert client.balance("ann") == {"accrued": 1000, "reversed": 1000}
    assert client.differences() == []


def test_what_was_sold_late_under_a_plan_that_has_ended_can_be_closed(client: Client) -> None:
    """An order of January that comes in after January was closed counts in February, and the plan it was sold under ended in between."""
    client.publish(MONTHLY.replace('"2026-01-01T00:00:00Z"', '"2026-01-01T00:00:00Z", until: "2026-02-01T00:00:00Z"'))
    client.enroll("ann")
    client.close_period("2026-01", 40)
    client.order("O1", "ann", line(1, 100_000), at=5)
    client.close_period("2026-02", 70)
    assert client.balance("ann") == {"pending": 1000, "accrued": 1000}


def test_a_month_in_which_a_replaced_version_counted_nothing_is_still_no_period_to_close(client: Client) -> None:
    """A board without sales would book its prizes as breakage."""
    client.publish(MONTHLY.replace("kind: volume, brackets: [{from_minor: 0, rate: 1%}]", "kind: rank, board: own, places_minor: [500]"))
    client.enroll("ann")
    client.publish(REPLACING.format(period="", rule="{id: first, kind: generation, generation: 1, rate: 1%}"), at=20)
    with pytest.raises(grpc.RpcError) as caught:
        client.close_period("2026-02", 70)
    assert reason(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "PERIOD_UNKNOWN")
    assert not any(client.trial_balance().values())


@pytest.mark.parametrize(("period", "period_id"), [("month", "0999-12"), ("week", "1000-W01"), ("day", "0999-12-31")])
def test_periods_before_the_year_1000_have_four_digits(client: Client, period: str, period_id: str) -> None:
    """What an order counted in can be closed, whatever the year."""
    client.publish(BY_PERIOD.format(period=period))
    client.enroll("ann")
    told = ledger_pb2.Order(order_id="O1", member_id="ann", paid_at=at(999, 12, 31), currency="GBP", lines=[line(1, 100_000)])
    client.ledger.RecordOrder(ledger_pb2.RecordOrderRequest(program_id=client.program_id, order=told))
    client.close_period(period_id, 60)
    assert client.balance("ann") == {"pending": 1000, "accrued": 1000}


@pytest.mark.parametrize(("period", "period_id"), [("month", "0001-01"), ("week", "0001-W01"), ("day", "0001-01-01")])
def test_statistics_take_in_the_first_period_of_the_calendar(client: Client, period: str, period_id: str) -> None:
    """East of Greenwich it begins before the year 1; its income counts in January of the year 1 and is not put into quarantine."""
    client.publish(BY_PERIOD.format(period=period))
    client.enroll("ann")
    told = ledger_pb2.Order(order_id="O1", member_id="ann", paid_at=at(1, 1, 1), currency="GBP", lines=[line(1, 100_000)])
    client.ledger.RecordOrder(ledger_pb2.RecordOrderRequest(program_id=client.program_id, order=told))
    client.close_period(period_id, 60)
    assert client.board(statistics_pb2.BOARD_INCOME, "0001-01") == [(1, "ann", 1000)]
    assert client.differences() == []
