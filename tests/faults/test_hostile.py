"""Corners of groups, periods and plans that somebody hostile found, through the real server."""

from datetime import UTC, datetime

import pytest
from fenrun.ledger.v1 import ledger_pb2
from fenrun.statistics.v1 import statistics_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from tests.given import Client, line

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
