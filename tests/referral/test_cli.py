"""Referral's commands about roles, seats and what became of a tier, run against the server at 80 columns."""

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from services.__main__ import app
from services.composition import RunningServer
from tests.given import Client, line
from tests.referral.test_roles_and_seats import PLAN

Run = Callable[..., Result]


@pytest.fixture
def run(client: Client, server: RunningServer) -> Run:
    """A command about a program of its own in which ann and bo are enrolled and there is one seat for a manager."""
    client.publish(PLAN)
    client.enroll("ann")
    client.enroll("bo")
    where = ("-P", client.program_id, "--target", server.address)
    environment = {"COLUMNS": "80", "FENRUN_PROGRAM": None, "FENRUN_TARGET": None}
    return lambda *words: CliRunner().invoke(app, [*words, *where], env=environment)


def said(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [" ".join(shown.split()) for shown in result.stdout.splitlines()]


def test_roles_are_granted_ended_and_listed_within_80_columns(run: Run) -> None:
    place = ("--place", "310000-pudong", "--weight", "2", "--from", "2026-02-01", "--until", "2026-12-31", "--at", "2026-01-31")
    assert said(run("role", "grant", "ann", "region", *place, "--grant-id", "grant-of-the-region"))[0].startswith(
        "ann is region at 310000-pudong, grant grant-of-the-region: recorded at position "
    )
    said(run("role", "grant", "bo", "partner", "--from", "2026-02-01", "--at", "2026-01-31", "--grant-id", "g2"))
    end = ("role", "end", "g2", "--reason", "left", "--at", "2026-03-01")
    assert "recorded at position" in said(run(*end))[0]
    assert "was recorded already" in said(run(*end))[0]
    listed = run("role", "list")
    assert max(map(len, listed.stdout.splitlines())) <= 80
    assert "partner bo 1 2026-02-01T00:00:00Z 2026-03-01T00:00:00Z" in said(listed)
    assert "region grant-of-the-region" in said(listed)
    of_ann = json.loads(run("role", "list", "--member", "ann", "--json").stdout)
    assert [(role["grant_id"], role["scope"], role["weight"]) for role in of_ann["roles"]] == [("grant-of-the-region", "310000-pudong", 2)]
    assert [role["grant_id"] for role in json.loads(run("role", "list", "--at", "2026-03-01", "--json").stdout)["roles"]] == [
        "grant-of-the-region"
    ]
    refused = run("role", "end", "g9", "--reason", "left")
    assert refused.exit_code == 1 and "ROLE_GRANT_UNKNOWN" in refused.stderr


def test_a_seat_says_when_it_ends_and_who_comes_too_late(run: Run) -> None:
    seat = ("manager", "--evidence", "seat_granted", "--at", "2026-02-02")
    said(run("member", "upgrade", "ann", *seat, "--expires", "2026-04-01", "--upgrade-id", "u1"))
    assert "tier manager, position 5, a seat until 2026-04-01T00:00:00Z" in said(run("member", "show", "ann"))
    shown = said(run("member", "history", "ann"))
    assert shown[-1].endswith("upgrade u1 from no tier to manager (seat granted until 2026-04-01T00:00:00Z), locked to nobody")
    refused = run("member", "upgrade", "bo", *seat)
    assert refused.exit_code == 1 and "SEATS_TAKEN" in refused.stderr
    refused = run("member", "upgrade", "bo", "manager", "--expires", "2026-04-01", "--at", "2026-02-02")
    assert refused.exit_code == 1 and "SEAT_GRANTED" in refused.stderr


def test_what_orders_did_to_a_tier_is_told_in_words(client: Client, run: Run) -> None:
    client.order("O1", "bo", line(1, 5000), at=2)
    client.refund("R1", "O1", (1, 1, 5000), at=3)
    told = [shown.split("Z ", 1)[1] for shown in said(run("member", "history", "bo"))]
    assert told[-2:] == ["promoted from no tier to member with order O1", "member frozen: nothing remains of order O1"]
    assert "frozen: it earns nothing until the next upgrade" in " ".join(said(run("member", "show", "bo")))


def test_a_member_and_roles_are_shown_as_of_another_time(run: Run) -> None:
    said(run("member", "upgrade", "ann", "manager", "--evidence", "seat_granted", "--at", "2026-02-02", "--expires", "2026-04-01"))
    shown = said(run("member", "show", "ann", "--occurred-by", "2026-03-31"))
    assert "tier manager, position 5, a seat until 2026-04-01T00:00:00Z" in shown
    assert "as of position 5, of what had happened by 2026-03-31T00:00:00Z" in shown
    assert "tier none" in said(run("member", "show", "ann", "--occurred-by", "2026-04-01"))
    assert "tier none" in said(run("member", "show", "ann", "--as-of", "4"))
    assert "MEMBER_UNKNOWN" in run("member", "show", "bo", "--as-of", "3").stderr
    assert said(run("member", "upline", "ann", "--as-of", "4")) == ["ann is locked to nobody"]
    said(run("role", "grant", "ann", "region", "--from", "2026-02-01", "--at", "2026-01-31", "--grant-id", "g1"))
    assert [len(said(run("role", "list", "--as-of", position))) for position in ("5", "6")] == [1, 2]
