"""Real orders: a year of a real shop goes in through `fenrun import`, killed or not, and the books are the same and balance."""

import random
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from fenrun.ops.v1 import ops_pb2

from services import composition
from tests.given import Client
from tests.importer.retail import books, ended, finish, free_port, history, importing, needs_data, prepare, rejections, serving

SLICE = "2010-12-07T00:00:00Z"
EVERYTHING = "9999"


def imported_once(directory: Path, until: str, server: composition.RunningServer, program_id: str, timeout_s: int) -> int:
    unmatched = prepare(directory / "files", until)
    rejected = directory / "rejected.csv"
    with grpc.insecure_channel(server.address) as channel:
        process = importing(directory / "files", server.address, program_id, rejected)
        with ended(process):
            summary = finish(process, timeout_s)
        assert summary["rejected_rows"] == unmatched
        client = Client.of(channel, program_id)
        found = rejections(rejected)
        assert len(found) == unmatched
        assert {row["reason"] for row in found} == {"ORDER_UNKNOWN"}
        assert {row["file"] for row in found} == {"refunds.csv"}
        assert all(row["id"].split("/")[1].startswith("before-") for row in found)
        assert sum(client.trial_balance().values()) == 0
        assert client.trial_balance()["pending"] > 0
        assert client.differences() == []
        again = importing(directory / "files", server.address, program_id, rejected)
        before = list(history(client))
        with ended(again):
            summary = finish(again, timeout_s)
        assert sum(counts["recorded"] for counts in summary["facts"].values()) == 0
        assert list(history(client)) == before
    return len(before)


@needs_data
def test_the_first_days_of_online_retail_go_in_and_the_books_balance(
    tmp_path: Path, server: composition.RunningServer, fresh_program_id: Callable[[], str]
) -> None:
    """Every refund of an order that is not there is refused by name and changes nothing; a second run records nothing."""
    imported_once(tmp_path, SLICE, server, fresh_program_id(), 120)


@needs_data
@pytest.mark.long
def test_all_of_online_retail_goes_in_and_the_books_balance(
    tmp_path: Path, server: composition.RunningServer, fresh_program_id: Callable[[], str]
) -> None:
    """4,372 members, 18,532 orders, 6,278 upgrades, 3,848 refunds, 15,794 completions, and the program and its plan."""
    entries = imported_once(tmp_path, EVERYTHING, server, fresh_program_id(), 900)
    assert entries + 1 == 4_372 + 18_532 + 6_278 + 3_848 + 15_794 + 2


def reached(process: "subprocess.Popen[str]", target: str, program_id: str, position: int) -> bool:
    """Waits until that many entries are in the log; whether they came before the import was over."""
    with grpc.insecure_channel(target) as channel:
        client = Client.of(channel, program_id)
        while process.poll() is None:
            with suppress(grpc.RpcError):  # the program is created by the import
                if client.ops.GetProgram(ops_pb2.GetProgramRequest(program_id=program_id)).head_position >= position:
                    return True
            time.sleep(0.005)
    return False


def killed_at_random(directory: Path, until: str, kills: int, timeout_s: int) -> None:
    """One import undisturbed; one whose server is killed -9 at random lengths of the log, and the importer once: all are started again."""
    dice = random.SystemRandom()
    prepare(directory / "files", until)
    calm_port, calm_rejected = free_port(), directory / "calm.csv"
    calm = serving(directory / "calm", calm_port)
    with ended(calm), grpc.insecure_channel(f"127.0.0.1:{calm_port}") as channel:
        undisturbed = importing(directory / "files", f"127.0.0.1:{calm_port}", "killed", calm_rejected)
        with ended(undisturbed):
            finish(undisturbed, timeout_s)
        client = Client.of(channel, "killed")
        facts, balances = list(history(client)), books(client)
    port, rejected = free_port(), directory / "rejected.csv"
    target = f"127.0.0.1:{port}"
    server = serving(directory / "data", port)
    process = importing(directory / "files", target, "killed", rejected)
    share = len(facts) // (kills + 1)  # one more than kills: the last of them comes while the import goes on, too
    killed = 0
    try:
        for number in range(kills):
            if not reached(process, target, "killed", dice.randrange(number * share, (number + 1) * share)):
                break
            server.kill()
            server.communicate()
            killed += 1
            if number == 0:
                process.kill()
                process.communicate()
                process = importing(directory / "files", target, "killed", rejected)
            server = serving(directory / "data", port)
        assert killed, "the import was over before the first kill"
        finish(process, timeout_s)
        with grpc.insecure_channel(target) as channel:
            client = Client.of(channel, "killed")
            assert client.differences() == []
            assert list(history(client)) == facts
            assert books(client) == balances
        assert rejected.read_bytes() == calm_rejected.read_bytes()
    finally:
        process.kill()
        process.communicate()
        server.kill()
        server.communicate()


@needs_data
def test_an_import_killed_at_any_point_ends_in_the_same_books(tmp_path: Path) -> None:
    """kill -9 of server and importer, restart, run again: the same facts in the same order, the same decisions, the same balances."""
    killed_at_random(tmp_path, "2010-12-10T00:00:00Z", kills=3, timeout_s=120)


@needs_data
@pytest.mark.long
def test_the_whole_import_killed_at_many_points_ends_in_the_same_books(tmp_path: Path) -> None:
    """As above, over the whole year, with twelve kills."""
    killed_at_random(tmp_path, EVERYTHING, kills=12, timeout_s=900)
