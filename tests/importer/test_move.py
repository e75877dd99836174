"""A whole move through `fenrun import --format`: what the books say then, what a second run says, and what a broken one leaves."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc
from fenrun.referral.v1 import referral_pb2

from services import composition
from tests.given import Client
from tests.importer.malls import BO, CAI, DAN, MEI, Export, Php, java, php, yudao
from tests.importer.retail import ROOT, books, ended, free_port, history, rejections, serving

PLAN = """
plan: two-level
version: 1
currency: CNY
tiers: [member, manager, director, partner]
release: {days: 7}
rules:
  - {id: first, kind: generation, generation: 1, rate: 10%}
"""
TIERS = ("--tier", "member", "--promoter-tier", "manager", "--level", "2=director")


def moving(directory: Path, mall: Export, target: str, program: str, *more: str) -> "subprocess.Popen[str]":
    """`fenrun import --format`, started."""
    export = mall.write(directory / "export")
    (directory / "plan.yaml").write_text(PLAN, encoding="utf-8")
    format = "yudao" if "trade_order" in mall.tables else "crmeb"
    command = [sys.executable, "-m", "services", "import", str(export), "-P", program, "--target", target, "--format", format]
    command += ["--rejected", str(directory / "rejected.csv"), "--retry-for", "60", *more]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    )


def moved(directory: Path, mall: Export, target: str, program: str, *more: str) -> dict[str, Any]:
    """The summary of a whole move, creating the program with its plan."""
    prepared = ("--currency", "CNY", "--plan", str(directory / "plan.yaml"), *TIERS, "--json", *more)
    process = moving(directory, mall, target, program, *prepared)
    with ended(process):
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    summary: dict[str, Any] = json.loads(out)
    return summary


def said(directory: Path, mall: Export, target: str, program: str, *more: str) -> tuple[int, str, str]:
    process = moving(directory, mall, target, program, *more)
    with ended(process):
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def balance(client: Client, member: str) -> tuple[int, int, int, int]:
    """(available, pending, paid, debt) of a member."""
    found = client.ledger.GetBalance(ledger_pb2.GetBalanceRequest(program_id=client.program_id, member_id=member)).balance
    return found.available_minor, found.pending_minor, found.paid_minor, found.debt_minor


def bound(client: Client, member: str) -> tuple[bool, str, str]:
    """(locked, referrer, tier) of a member."""
    found = client.referral.GetMember(referral_pb2.GetMemberRequest(program_id=client.program_id, member_id=member)).member
    return found.locked, found.referrer_id, found.tier


@pytest.mark.parametrize(
    ("mall", "mei"), [(php, (500, 400, 500, 0)), (java, (300, 400, 700, 0)), (yudao, (500, 400, 500, 0))], ids=["php", "java", "yudao"]
)
def test_a_mall_moves_with_its_bindings_and_its_own_balances(
    tmp_path: Path,
    server: composition.RunningServer,
    fresh_program_id: Callable[[], str],
    mall: Callable[[], Export],
    mei: tuple[int, int, int, int],
) -> None:
    """Locked as there, in the tiers that were asked for; and a second run records nothing."""
    program = fresh_program_id()
    summary = moved(tmp_path, mall(), server.address, program)
    assert summary["rejected_rows"] == 0
    assert summary["carried"] == {"available_minor": mei[0], "pending_minor": 1200, "paid_minor": mei[2], "debt_minor": 0}
    with grpc.insecure_channel(server.address) as channel:
        client = Client.of(channel, program)
        assert {member: balance(client, member) for member in (MEI, BO, CAI, DAN)} == {
            MEI: mei,
            BO: (0, 800, 0, 0),
            CAI: (0, 0, 0, 0),
            DAN: (0, 0, 0, 0),
        }
        assert bound(client, MEI) == (True, "", "director" if mall is php else "manager")
        assert bound(client, BO) == (True, MEI, "manager")
        assert bound(client, CAI) == (True, BO, "member")
        assert bound(client, DAN) == (False, "", "")
        assert sum(client.trial_balance().values()) == 0
        assert client.differences() == []
        before = list(history(client))
        again = moved(tmp_path, mall(), server.address, program)
        assert sum(counts["recorded"] + counts["rejected"] for counts in again["facts"].values()) == 0
        assert again["carried"] == summary["carried"]
        assert list(history(client)) == before


def test_another_export_adds_nothing_to_what_is_open(
    tmp_path: Path, server: composition.RunningServer, fresh_program_id: Callable[[], str]
) -> None:
    """A day later there is more, and it is frozen until other days: the openings are refused by name, the further ones with them."""
    program = fresh_program_id()
    moved(tmp_path, php(), server.address, program)
    later = php()
    for order, day in ((103, 28), (104, 29)):
        later.order(order, BO, 26, one=100)
        later.move(MEI, "one_brokerage", 100, order, 26, frozen_day=day)
    summary = moved(tmp_path, later, server.address, program)
    assert summary["carried"] == {"available_minor": 0, "pending_minor": 0, "paid_minor": 0, "debt_minor": 0}
    refused = [(row["id"], row["reason"]) for row in rejections(tmp_path / "rejected.csv") if "opening" in row["message"]]
    assert refused == [(MEI, "ID_REUSED"), (BO, "ID_REUSED"), (MEI, "ID_REUSED"), (MEI, "ID_REUSED")]
    with grpc.insecure_channel(server.address) as channel:
        assert balance(Client.of(channel, program), MEI) == (500, 400, 500, 0)


def test_another_export_of_the_same_instant_adds_nothing_either(
    tmp_path: Path, server: composition.RunningServer, fresh_program_id: Callable[[], str]
) -> None:
    """Also where only what is frozen until later differs: the first opening tells of all parts."""
    program, mall, instant = fresh_program_id(), yudao(), ("--as-of", "2026-03-26T00:00:00+08:00")
    moved(tmp_path, mall, server.address, program, *instant)
    mall.record(MEI, 1, 1020, 100, 19, thaw_day=29, status=0)
    summary = moved(tmp_path, mall, server.address, program, *instant)
    assert summary["facts"]["opening"] == {"sent": 2, "recorded": 0, "already_recorded": 1, "rejected": 1}
    assert summary["facts"]["further"] == {"sent": 1, "recorded": 0, "already_recorded": 0, "rejected": 1}
    assert summary["carried"]["pending_minor"] == 800


def test_what_was_frozen_there_is_released_here_on_its_days(
    tmp_path: Path, server: composition.RunningServer, fresh_program_id: Callable[[], str]
) -> None:
    """Each part on its own."""
    program, mall = fresh_program_id(), php()
    mall.order(103, BO, 25, one=100)
    mall.move(MEI, "one_brokerage", 100, 103, 25, frozen_day=29)
    moved(tmp_path, mall, server.address, program, "--release-at", "2026-03-27T00:00:00+08:00")
    with grpc.insecure_channel(server.address) as channel:
        client = Client.of(channel, program)
        assert balance(client, MEI) == (900, 100, 500, 0)
        moved(tmp_path, mall, server.address, program, "--release-at", "2026-03-29T00:00:00+08:00")
        assert balance(client, MEI) == (1000, 0, 500, 0)
        assert client.differences() == []


def test_the_report_fits_a_terminal_and_sends_nothing_when_asked(
    tmp_path: Path, server: composition.RunningServer, fresh_program_id: Callable[[], str]
) -> None:
    """80 columns, also with figures of millions; a program that is not there is not needed."""
    mall = php()
    mall.row("eb_user", BO, "uid")["brokerage_price"] = "12345678.90"
    mall.row("eb_user", DAN, "uid")["spread_uid"] = 99
    code, out, err = said(tmp_path, mall, server.address, fresh_program_id(), "--report-only")
    assert (code, err) == (0, "levels without --level, not carried: 2 (1 member)\n")
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80
    assert "balance                    1  12,345,687.90       17.00  12,345,670.90" in out
    assert "unknown referrer           1" in out
    assert "would be carried" in out
    assert (tmp_path / "report.csv").read_text(encoding="utf-8").splitlines() == [
        "check,member_id,own_minor,rows_minor,difference_minor,file,line,what",
        "balance,2,1234567890,800,1234567090,eb_user.csv,3,the balance column is not what the rows add up to",
        "unknown referrer,4,,,,eb_user.csv,5,referrer 99 is no member",
    ]
    assert not (tmp_path / "rejected.csv").exists()


def test_what_cannot_begin_says_so_in_one_sentence(
    tmp_path: Path, server: composition.RunningServer, fresh_program_id: Callable[[], str]
) -> None:
    """And nothing is sent: no plan in force, no such tier, a currency of no hundredths, an export that does not read."""
    program = fresh_program_id()
    code, _, err = said(tmp_path, php(), server.address, program, "--tier", "member", "--currency", "CNY")
    assert (code, err.partition(";")[0]) == (
        1,
        "fenrun: tiers need a plan, and none is in force at 2026-03-24T16:00:00Z, when the export ends",
    )
    plan = ("--plan", str(tmp_path / "plan.yaml"))
    code, _, err = said(tmp_path, php(), server.address, program, "--tier", "boss", *plan)
    assert (code, err) == (1, "fenrun: the plan two-level 1 has no tier boss; it has member, manager, director, partner\n")
    code, _, err = said(tmp_path, php(), server.address, fresh_program_id(), "--currency", "JPY")
    assert (code, err) == (1, "fenrun: amounts of CRMEB PHP are hundredths, and JPY has none; the program must be in CNY, or in its like\n")
    broken = php()
    broken.row("eb_user", BO, "uid")["brokerage_price"] = "much"
    code, _, err = said(tmp_path, broken, server.address, program)
    assert (code, err.split(": '")[0]) == (1, "fenrun: eb_user.csv line 3: brokerage_price")


@pytest.mark.parametrize("option", ["--tier=member", "--promoter-tier=x", "--level=1=x", "--as-of=2026-01-01", "--report-only"])
def test_options_of_a_mall_need_its_format(option: str, tmp_path: Path) -> None:
    """Rather than being passed over in silence."""
    command = [sys.executable, "-m", "services", "import", str(tmp_path), "-P", "p", "--target", "127.0.0.1:1", option]
    process = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert process.returncode == 2
    assert "go with" in process.stderr


def large(members: int) -> Php:
    """Everybody brought the next one, who bought."""
    mall = php()
    for number in range(5, members):
        mall.user(str(number), 5 + number / members, str(number - 1))
        mall.order(1000 + number, str(number), 8 + number / members, one=number)
        mall.move(str(number - 1), "one_brokerage", number, 1000 + number, 12 + number / members, frozen_day=26 + number % 3)
        mall.order(100_000 + number, str(number), 9 + number / members, one=number)
        mall.move(str(number - 1), "one_brokerage", number, 100_000 + number, 13 + number / members, frozen_day=30)
    return mall


def wait_for(target: str, facts_in: int) -> None:
    """Until so many are recorded."""
    deadline = time.monotonic() + 60
    with grpc.insecure_channel(target) as channel:
        ops = ops_pb2_grpc.OpsServiceStub(channel)
        while time.monotonic() < deadline:
            with suppress(grpc.RpcError):
                if ops.GetProgram(ops_pb2.GetProgramRequest(program_id="killed")).head_position >= facts_in:
                    return
            time.sleep(0.01)
    raise AssertionError(f"{facts_in} facts were never reached")


def test_a_move_killed_at_any_point_ends_in_the_same_books(tmp_path: Path) -> None:
    """kill -9 of server and importer, and the same command again: nothing twice, nothing lost, in the same order."""
    dice, mall = random.SystemRandom(), large(1500)
    port = free_port()
    target = f"127.0.0.1:{port}"
    prepared = ("--currency", "CNY", "--plan", str(tmp_path / "plan.yaml"), *TIERS, "--json")
    server = serving(tmp_path / "data", port)
    process = moving(tmp_path, mall, target, "killed", *prepared)
    try:
        for number, facts_in in enumerate(sorted(dice.sample(range(1, 4000), 3))):
            wait_for(target, facts_in)
            server.kill()
            server.communicate()
            if number == 0:
                process.kill()
                process.communicate()
            server = serving(tmp_path / "data", port)
            if number == 0:
                process = moving(tmp_path, mall, target, "killed", *prepared)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert json.loads(out)["rejected_rows"] == 0
        with grpc.insecure_channel(target) as channel:
            client = Client.of(channel, "killed")
            assert client.differences() == []
            facts, balances = list(history(client)), books(client)
        calm_port = free_port()
        calm = serving(tmp_path / "calm", calm_port)
        with ended(calm):
            moved(tmp_path, mall, f"127.0.0.1:{calm_port}", "killed")
            with grpc.insecure_channel(f"127.0.0.1:{calm_port}") as channel:
                other = Client.of(channel, "killed")
                assert facts == list(history(other))
                assert balances == books(other)
    finally:
        process.kill()
        process.communicate()
        server.kill()
        server.communicate()
