"""The import of Online Retail as an operator runs it. The importer is a black box here: a command, and the books it leaves."""

import csv
import gzip
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import psycopg
from fenrun.ledger.v1 import ledger_pb2, ledger_pb2_grpc

from tests.bench.load import Measured, Where
from tests.bench.machine import ROOT, Meter
from tests.bench.shop import CALL_TIMEOUT_S, Lost
from tests.given import TWO_LEVEL

# The files of docs/import-format.md and the column each is in order of.
FILES = {"members": "joined_at", "orders": "paid_at", "upgrades": "upgraded_at", "refunds": "refunded_at"}
COMPLETE_AFTER_DAYS = "30"


@dataclass(frozen=True)
class Retail:
    """The files, and what there is in them."""

    directory: Path
    lines: int
    order_lines: int
    orders: int


def survey(directory: Path) -> Retail:
    counts = {}
    orders = set()
    for name in FILES:
        with gzip.open(directory / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
            counts[name] = 0
            for row in csv.DictReader(file):
                counts[name] += 1
                if name == "orders":
                    orders.add(row["order_id"])
    return Retail(directory, sum(counts.values()), counts["orders"], len(orders))


def cut(directory: Path, order_lines: int, into: Path) -> Retail:
    """The beginning of the files, up to the time of an order line: for a smoke test."""
    into.mkdir()
    with gzip.open(directory / "orders.csv.gz", "rt", encoding="utf-8", newline="") as file:
        until = next(row["paid_at"] for number, row in enumerate(csv.DictReader(file), 1) if number == order_lines)
    for name, time_column in FILES.items():
        with (
            gzip.open(directory / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file,
            gzip.open(into / f"{name}.csv.gz", "wt", encoding="utf-8", newline="") as kept,
        ):
            rows = csv.DictReader(file)
            assert rows.fieldnames
            writer = csv.DictWriter(kept, rows.fieldnames, lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for row in rows if row[time_column] < until)
    return survey(into)


def run(retail: Retail, where: Where, program: str, scratch: Path, owner: psycopg.Connection[tuple[int, ...]]) -> Measured:
    """Imports everything into a new program, the start of the command included. Raises Lost when an order is missing."""
    plan, rejected = scratch / "plan.yaml", scratch / "rejected.csv"
    plan.write_text(TWO_LEVEL, encoding="utf-8")
    command = [sys.executable, "-m", "services", "import", str(retail.directory), "--program", program, "--target", where.address]
    command += ["--plan", str(plan), "--currency", "GBP", "--complete-after", COMPLETE_AFTER_DAYS]
    command += ["--rejected", str(rejected), "--no-progress"]
    meter = Meter([where.server_pid], where.database_pid, children=True)
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    usage = meter.usage()
    if done.returncode:
        raise RuntimeError(f"the import ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    _check(retail, where, program, rejected, owner)
    return Measured(usage.wall_s, usage, retail.lines)


def _check(retail: Retail, where: Where, program: str, rejected: Path, owner: psycopg.Connection[tuple[int, ...]]) -> None:
    counted = owner.execute("select count(*) from fenrun.entries where program_id = %s and type = 'order.paid.v1'", [program]).fetchone()
    kept_out = max(0, len(rejected.read_text(encoding="utf-8").splitlines()) - 1) if rejected.exists() else 0
    if counted != (retail.orders,) or kept_out:
        raise Lost(f"the files have {retail.orders} orders, the log {counted}; {kept_out} rows stayed out")
    with grpc.insecure_channel(where.address) as channel:
        request = ledger_pb2.TrialBalanceRequest(program_id=program)
        found = ledger_pb2_grpc.LedgerServiceStub(channel).TrialBalance(request, timeout=CALL_TIMEOUT_S)
    accounts = [row.balance.minor_units for row in found.accounts]
    if sum(accounts) or not any(accounts):
        raise Lost(f"the trial balance of the import: {accounts}")


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of another Fenrun."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FENRUN_")} | more
