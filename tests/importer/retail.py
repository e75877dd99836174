"""The Online Retail data as an import, whole or the first days of it, and servers to send it to."""

import csv
import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fenrun.ledger.v1 import ledger_pb2
from fenrun.ops.v1 import ops_pb2

from tests.given import Client

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FENRUN_ONLINE_RETAIL", ROOT.parent / "shared" / "data" / "online-retail"))
PLAN = """
plan: two-level
version: 1
currency: GBP
tiers: [member, manager, director, partner]
release: {days: 14}
rules:
  - {id: own, kind: self, rates: {director: 1%, partner: 2.5%}}
  - {id: first, kind: generation, generation: 1, rate: 10%}
  - {id: second, kind: generation, generation: 2, rate: 5%}
"""
TIMES = {"members": "joined_at", "orders": "paid_at", "upgrades": "upgraded_at", "refunds": "refunded_at"}

needs_data = pytest.mark.skipif(
    not (DATA / "orders.csv.gz").exists(), reason="the Online Retail data is not here; FENRUN_ONLINE_RETAIL says where it is"
)


def rows(name: str) -> tuple[list[str], list[list[str]]]:
    with gzip.open(DATA / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        return next(reader), list(reader)


def prepare(directory: Path, until: str) -> int:
    """Writes an import of everything before `until`, all unmatched refunds among the others; gives how many rows these are."""
    directory.mkdir()
    unmatched = rows("unmatched_refunds")[1]
    for name, column in TIMES.items():
        header, found = rows(name)
        at = header.index(column)
        kept = [row for row in found if row[at] < until]
        if name == "refunds":
            kept = sorted([*kept, *unmatched], key=lambda row: row[at])
        with (directory / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *kept])
    (directory / "plan.yaml").write_text(PLAN, encoding="utf-8")
    return len(unmatched)


def importing(directory: Path, target: str, program: str, rejected: Path) -> "subprocess.Popen[str]":
    """`fenrun import`, started."""
    command = [sys.executable, "-m", "services", "import", str(directory), "--program", program, "--target", target, "--json"]
    command += ["--plan", str(directory / "plan.yaml"), "--currency", "GBP", "--complete-after", "30"]
    command += ["--retry-for", "60", "--rejected", str(rejected), "--no-progress"]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[str]", timeout_s: int) -> dict[str, Any]:
    """Waits for an import; its summary."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    summary: dict[str, Any] = json.loads(out)
    return summary


def rejections(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def history(client: Client) -> Iterator[tuple[Any, ...]]:
    """Every entry but what differs from run to run: when it was recorded, and so its hash."""
    token = ""
    while True:
        page = client.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id=client.program_id, page_size=1000, page_token=token))
        for entry in page.entries[1:] if not token else page.entries:  # the program's own entry is dated when it is created
            yield (
                entry.position,
                entry.stream,
                entry.stream_version,
                entry.type,
                entry.occurred_at.ToNanoseconds(),
                entry.fact,
                entry.decision,
            )
        token = page.next_page_token
        if not token:
            return


def books(client: Client) -> list[bytes]:
    """Every member's balance, by member."""
    found, token = [], ""
    while True:
        page = client.ledger.ListBalances(ledger_pb2.ListBalancesRequest(program_id=client.program_id, page_size=1000, page_token=token))
        found += [balance.SerializeToString(deterministic=True) for balance in page.balances]
        token = page.next_page_token
        if not token:
            return found


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def serving(data_dir: Path, port: int) -> "subprocess.Popen[bytes]":
    """`fenrun serve` on its own embedded database, started and answering."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FENRUN_")}
    command = [sys.executable, "-m", "services", "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", str(data_dir)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        deadline = time.monotonic() + 60
        while True:
            try:
                grpc.channel_ready_future(channel).result(timeout=1)
                return process
            except grpc.FutureTimeoutError:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                assert time.monotonic() < deadline, "the server does not answer"


@contextmanager
def ended(process: "subprocess.Popen[Any]") -> Iterator[None]:
    """Whatever happens inside, the process does not outlive it."""
    try:
        yield
    finally:
        process.kill()
        process.communicate()
