"""`python -m tests.bench`: sets up, runs every case once a round, checks the books after each run, and writes docs/performance.md."""

import argparse
import contextlib
import multiprocessing
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import psycopg
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc

from services.audit import signing
from services.runtime.embedded import EmbeddedPostgres, last_log_lines
from tests.bench import auditing, load, machine, report, retail, shop
from tests.bench.auditing import Audited
from tests.bench.load import Case, Measured, Where
from tests.bench.machine import ROOT, Meter
from tests.bench.report import Growth, Ratio, Row

UNARY_64 = Case("unary-64", "RecordOrder, 64 in flight", "unary", 64)
UNARY_1 = Case("unary-1", "RecordOrder, 1 in flight", "unary", 1)
BATCH = Case("batch", "RecordOrders of 500, 4 in flight", "batch", 4, 500)
STREAM_1 = Case("stream-1", "StreamOrders of 200, 1 stream", "stream", 1, 200)
STREAM_4 = Case("stream-4", "StreamOrders of 200, 4 streams", "stream", 4, 200)
AGENTS = Case("agents", "RecordOrders of 500, 4 in flight, deep agents: 9 payees over a chain of 10", "batch", 4, 500, shop.AGENTS)
AGENTS_UNARY = Case("agents-unary", "RecordOrder, 64 in flight, deep agents", "unary", 64, 1, shop.AGENTS)
RICH = Case("rich", "RecordOrders of 500, 4 in flight, the rich plan: 13 payees over a chain of 10", "batch", 4, 500, shop.RICH)
RICH_UNARY = Case("rich-unary", "RecordOrder, 64 in flight, the rich plan", "unary", 64, 1, shop.RICH)
NOOP_64 = Case("noop-64", "Health/Check, 64 in flight", "health", 64)
NOOP_1 = Case("noop-1", "Health/Check, 1 in flight", "health", 1)
COMMIT = Case("commit", "PostgreSQL: commit of one row, 1 connection", "commit", 1)
CASES = (UNARY_64, UNARY_1, BATCH, STREAM_1, STREAM_4, AGENTS, AGENTS_UNARY, RICH, RICH_UNARY, NOOP_64, NOOP_1, COMMIT)
IMPORT, REPLAY = "import", "replay"
KEYS = (*(case.key for case in CASES), IMPORT, REPLAY)
# Comes with each import, to check it.
REPLAY_IMPORT = "replay-import"
RATIOS = (
    ("RecordOrder over Health/Check, 64 in flight", UNARY_64, NOOP_64),
    ("RecordOrder over Health/Check, 1 in flight", UNARY_1, NOOP_1),
    ("RecordOrders of 500 over RecordOrder, 64 in flight", BATCH, UNARY_64),
    ("RecordOrders of 500 over commits of one row", BATCH, COMMIT),
    ("cost of an order under deep agents over the two-level plan, batches of 500", BATCH, AGENTS),
    ("cost of an order under deep agents over the two-level plan, 64 in flight", UNARY_64, AGENTS_UNARY),
    ("cost of an order under the rich plan over the two-level plan, batches of 500", BATCH, RICH),
    ("cost of an order under the rich plan over the two-level plan, 64 in flight", UNARY_64, RICH_UNARY),
)

QUICK_ORDER_LINES = 20_000
KEY_FILE = "checkpoint.key"
START_S = 60
STOP_S = 20
REPLAY_S = 600
SCHEMAS = ["fenrun", "ledger", "referral", "divided"]
SIZES = """
select n.nspname || '.' || c.relname, pg_total_relation_size(c.oid), pg_indexes_size(c.oid)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%s) and c.relkind in ('r', 'm')
"""


class Bench:
    """A running server with its books open, and what has been measured on it."""

    def __init__(
        self,
        where: Where,
        client: ProcessPoolExecutor,
        scratch: Path,
        owner: psycopg.Connection[tuple[Any, ...]],
        times_s: tuple[float, float],
    ) -> None:
        self.where, self.owner = where, owner
        self._client, self._scratch, self._times_s = client, scratch, times_s
        self._channel = grpc.insecure_channel(where.address)
        self.runs: dict[str, list[Measured]] = {}
        self.growth: list[Growth] = []
        self.audits: list[list[Audited]] = []
        self.retail: retail.Retail | None = None

    def close(self) -> None:
        self._channel.close()

    def open_books(self) -> None:
        for one in shop.SHOPS:
            firsts, facts = shop.open_books(self._channel, one)
            books = shop.Books.of(self._channel, one)
            # The program, its plan, what was told of its members, and the first orders.
            if sum(books.accounts.values()) or books.position != 2 + facts + firsts.told:
                raise shop.Lost(f"the books after the first orders: {books}")

    def warm_up(self, cases: Sequence[Case]) -> None:
        """Every case for a moment, so that connections are open, statements prepared and code is hot; statistics before and after."""
        self.owner.execute("analyze")
        for number, case in enumerate(cases):
            self._load(case, f"warm{number}", (0.0, self._times_s[0]))
        self.owner.execute("analyze")

    def round(self, number: int, keys: Sequence[str]) -> None:
        """Every case once, each round beginning with another one, so that none always follows the same; then a replay proves the lot."""
        self.growth.append(Growth())
        turning = [key for key in keys if key != REPLAY]
        shift = number % max(1, len(turning))
        for key in (*turning[shift:], *turning[:shift], *(key for key in keys if key == REPLAY)):
            if key == IMPORT and self.retail:
                program = f"{key}-r{number}"
                self._note(number, key, retail.run(self.retail, self.where, program, self._scratch, self.owner))
                self._note(number, REPLAY_IMPORT, self._replay(program))
                self.audits.append(auditing.run(self.where, program, self._scratch, self._scratch / KEY_FILE))
                for audited in self.audits[-1]:
                    rate = audited.entries / audited.wall_s
                    print(f"round {number + 1}  {audited.title:20} {rate:>9,.0f}/s   {audited.memory_mib:,.0f} MiB", flush=True)
            elif key == REPLAY:
                self._note(number, key, self._replay(shop.TREE.program))
                for other in (shop.AGENTS, shop.RICH):
                    self._replay(other.program)
            elif key != IMPORT:
                [case] = [case for case in CASES if case.key == key]
                self._note(number, key, self._load(case, f"{key}-r{number}", self._times_s))

    def _note(self, number: int, key: str, measured: Measured) -> None:
        self.runs.setdefault(key, []).append(measured)
        rates = f"{measured.per_s:>9,.0f}/s"
        if measured.latencies_s:
            rates += f"   p50 {measured.percentile_ms(50):7.2f} ms   p99 {measured.percentile_ms(99):7.2f} ms"
        strangers = measured.usage.percent(measured.usage.strangers_s)
        print(f"round {number + 1}  {key:13} {rates:54} strangers {strangers:3.0f} %", flush=True)

    def _load(self, case: Case, name: str, times_s: tuple[float, float]) -> Measured:
        if not case.records:
            return self._client.submit(load.run, case, self.where, name, *times_s).result()
        books, sizes = shop.Books.of(self._channel, case.shop), self._sizes()
        measured = self._client.submit(load.run, case, self.where, name, *times_s).result()
        shop.Books.of(self._channel, case.shop).check_after(case.shop, books, measured.told, measured.base_minor, self.owner)
        if self.growth and case.shop is shop.TREE:
            self.growth[-1].add(sizes, self._sizes(), measured.told)
        return measured

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """{table: (bytes in all, bytes of its indexes)}."""
        return {name: (total, indexes) for name, total, indexes in self.owner.execute(SIZES, [SCHEMAS]).fetchall()}

    def _replay(self, program: str) -> Measured:
        """The log folded from its first entry and compared with every live row. Raises Lost when one differs."""
        meter = Meter(self.where.server_pid, self.where.database_pid)
        request = ops_pb2.VerifyProjectionsRequest(program_id=program)
        steps = ops_pb2_grpc.OpsServiceStub(self._channel).VerifyProjections(request, timeout=REPLAY_S)
        results = [step.result for step in steps if step.WhichOneof("step") == "result"]
        usage = meter.usage()
        differing = [f"{result.projection}: {text}" for result in results for text in result.differences]
        if differing or not results or not all(result.equal for result in results):
            raise shop.Lost(f"a replay of {program} differs: {differing}")
        return Measured(usage.wall_s, usage, max(result.position for result in results))


@contextlib.contextmanager
def serving(scratch: Path) -> Iterator[Where]:
    """A durable database and a server, each in a process of its own, while the block lasts."""
    with EmbeddedPostgres(scratch / "data") as database, (scratch / "server.log").open("wb") as log:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "services", "serve", "--listen", address]
        signing.create(scratch / KEY_FILE, "bench.example")
        # Everything on: the tree is kept, and checkpoints of it are signed and published.
        told = {"DSN": database.dsn, "DATA_DIR": scratch / "none", "CHECKPOINT_KEY_FILE": scratch / KEY_FILE}
        told |= {"CHECKPOINT_DIR": scratch / "checkpoints", "CHECKPOINT_SECONDS": 1}
        environment = retail.environment(**{f"FENRUN_{name}": str(value) for name, value in told.items()})
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _await_ready(server, address, scratch / "server.log")
            yield Where(address, database.dsn, server.pid, database.pid)
        finally:
            server.terminate()
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _await_ready(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    with grpc.insecure_channel(address) as channel:
        while True:
            try:
                return grpc.channel_ready_future(channel).result(timeout=0.2)
            except grpc.FutureTimeoutError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the server did not start:\n" + "\n".join(last_log_lines(log, 20))) from None


def section(bench: Bench, how: str, directory: Path, commit: str) -> str:
    """What is written between the markers. What was not measured is left out."""
    runs = bench.runs
    lines = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {how}.",
        "",
        *(f"- {what}: {text}" for what, text in [*machine.described(bench.owner, directory), ("code", commit)]),
    ]

    def rates(title: str, rows: Sequence[Row]) -> None:
        if rows:
            lines.extend(["", f"### {title}", "", *report.rates(rows)])

    rates("Orders", [Row(case.title, "orders", runs[case.key]) for case in CASES if case.records and case.key in runs])
    others = [case for case in CASES if not case.records and case.key in runs]
    rates("For comparison", [Row(case.title, "commits" if case is COMMIT else "calls", runs[case.key]) for case in others])
    found = [Ratio(title, runs[over.key], runs[under.key]) for title, over, under in RATIOS if over.key in runs and under.key in runs]
    if found:
        lines += ["", *report.ratios(found)]
    rows = []
    if bench.retail and IMPORT in runs:
        rows.append(Row(f"import of {bench.retail.lines:,} rows, {bench.retail.orders:,} orders", "rows", runs[IMPORT]))
        rows.append(Row(f"replay of an import, {runs[REPLAY_IMPORT][0].items:,} entries", "entries", runs[REPLAY_IMPORT]))
    if REPLAY in runs:
        sizes = [run.items for run in runs[REPLAY]]
        rows.append(Row(f"replay of the program above, {min(sizes):,} to {max(sizes):,} entries", "entries", runs[REPLAY]))
    rates("Import and replay", rows)
    if bench.audits:
        lines += ["", "### The import, audited", "", *report.audits(bench.audits)]
    if not bench.retail:
        lines += ["", "Import: skipped, the files of Online Retail were not there."]
    grown = [one for one in bench.growth if one.orders]
    if grown:
        lines += ["", "### Bytes on disk for a one-line order with three payees", "", *report.growth(grown)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measures throughput and latency; writes docs/performance.md."
    )
    parser.add_argument("--rounds", type=int, default=5, help="each runs every case once (default 5)")
    parser.add_argument("--quick", action="store_true", help="one short round, printed and not written: a smoke test")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/online-retail", help="the files of Online Retail")
    parser.add_argument("--only", action="append", choices=KEYS, help="run this case alone, printed and not written; may be repeated")
    parser.add_argument("--output", type=Path, help="write to this file, also what would only be printed")
    parser.add_argument("--seconds", type=float, help="how long a run is measured (default 4; 1 with --quick)")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    warm_s, measure_s = (0.5, options.seconds or 1.0) if options.quick else (1.0, options.seconds or 4.0)
    keys = [key for key in KEYS if not options.only or key in options.only]
    began, commit = time.monotonic(), machine.commit()
    # So that a bench that is stopped stops its server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    with contextlib.ExitStack() as closing:
        scratch = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="fenrun-bench-")))
        where = closing.enter_context(serving(scratch))
        client = closing.enter_context(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        owner: psycopg.Connection[Any] = closing.enter_context(psycopg.connect(where.dsn, autocommit=True))
        bench = Bench(where, client, scratch, owner, (warm_s, measure_s))
        closing.callback(bench.close)
        if IMPORT in keys:
            if (options.data / "orders.csv.gz").is_file():
                data = options.data.resolve()
                bench.retail = retail.cut(data, QUICK_ORDER_LINES, scratch / "retail") if options.quick else retail.survey(data)
            else:
                print(f"import: skipped, {options.data} has no files of Online Retail", flush=True)
        print(f"server: process {where.server_pid}; opening the books of {shop.MEMBERS:,} members", flush=True)
        bench.open_books()
        bench.warm_up([case for case in CASES if case.key in keys])
        for number in range(rounds):
            bench.round(number, keys)
        how = (
            f"rounds: {rounds}, a run: {measure_s:g} s after {warm_s:g} s of warm-up, minutes in all: {(time.monotonic() - began) / 60:.0f}"
        )
        text = section(bench, how + ", a smoke test" * options.quick, scratch, commit)
    print("", text, "", sep="\n")
    output = options.output or (None if options.quick or options.only else ROOT / "docs" / "performance.md")
    if output:
        report.replace_section(output, text)


if __name__ == "__main__":
    main()
