"""A server to measure and what is measured on it: cases in rounds, the books checked after each run, a replay after each round."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psycopg
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc

from services.audit import signing
from services.runtime.embedded import EmbeddedPostgres, last_log_lines
from tests.bench import auditing, database, load, peers, retail, shop
from tests.bench.auditing import Audited
from tests.bench.cases import CASES, EVENTSOURCING
from tests.bench.load import Case, Kind, Measured, Where
from tests.bench.machine import NOBODY, ROOT, Meter
from tests.bench.report import Growth

IMPORT, REPLAY, START = "import", "replay", "start"
# Comes with each import, to check it.
REPLAY_IMPORT = "replay-import"
KEYS = (*(case.key for case in CASES), START, IMPORT, REPLAY)
KEY_FILE = "checkpoint.key"
START_S = 60
STOP_S = 20
REPLAY_S = 7200
# How long followers may take to catch up with what a run has told, and how often it is looked.
FOLLOW_S, LOOK_S = 600, 0.05
# How often and how long it is looked whether the server and the database rest, and how busy they may be: percent of a core.
RESTS, REST_S, RESTING_PERCENT = 20, 0.25, 15
# Cold starts in one run.
STARTS = 3
SCHEMAS = ["fenrun", "ledger", "referral", "divided"]
SIZES = """
select n.nspname || '.' || c.relname, pg_total_relation_size(c.oid), pg_indexes_size(c.oid)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%s) and c.relkind in ('r', 'm')
"""
BEHIND = "select count(*) from fenrun.followed join fenrun.programs using (program_id) where position < head_position"
RUNS: dict[Kind, Callable[[Case, Where, str, float, float], Measured]] = {
    "commit": database.commits,
    "bare": database.bare,
    "pgledger": peers.pgledger,
    "eventsourcing": peers.eventsourcing,
}


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
        self._shops: list[shop.Shop] = []
        self.runs: dict[str, list[Measured]] = {}
        self.growth: list[Growth] = []
        self.audits: list[list[Audited]] = []
        self.retail: retail.Retail | None = None

    def close(self) -> None:
        self._channel.close()

    def open_books(self, shops: Iterable[shop.Shop]) -> None:
        """Programs, members and first orders."""
        self._shops = [*dict.fromkeys(shops)]
        for one in self._shops:
            shop.open_books(self._channel, one)

    def warm_up(self, cases: Sequence[Case]) -> None:
        """Every case for a moment, so that connections are open, statements prepared and code is hot; statistics before and after."""
        self.owner.execute("analyze")
        for number, case in enumerate(cases):
            self.load(case, f"warm{number}", (0.0, self._times_s[0]))
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
                self._note(number, REPLAY_IMPORT, self.replay(program))
                self.audits.append(auditing.run(self.where, program, self._scratch, self._scratch / KEY_FILE))
                for audited in self.audits[-1]:
                    rate = audited.entries / audited.wall_s
                    print(f"round {number + 1}  {audited.title:20} {rate:>9,.0f}/s   {audited.memory_mib:,.0f} MiB", flush=True)
            elif key == REPLAY:
                self._note(number, key, self.replay(shop.TREE.program))
                self._replay_others()
            elif key == START:
                self._note(number, key, starts(self._scratch / "started"))
            elif key != IMPORT:
                [case] = [case for case in (*CASES, EVENTSOURCING) if case.key == key]
                self._note(number, key, self.load(case, f"{key}-r{number}"))

    def _note(self, number: int, key: str, measured: Measured) -> None:
        self.runs.setdefault(key, []).append(measured)
        rates = f"{measured.per_s:>9,.0f}/s"
        if measured.latencies_s:
            rates += f"   p50 {measured.percentile_ms(50):7.2f} ms   p99 {measured.percentile_ms(99):7.2f} ms"
        strangers = measured.usage.percent(measured.usage.strangers_s)
        print(f"round {number + 1}  {key:14} {rates:54} strangers {strangers:3.0f} %", flush=True)

    def load(self, case: Case, name: str, times_s: tuple[float, float] | None = None) -> Measured:
        """One run, when nobody has anything left to do from the one before. Raises Lost when the books are not what it told."""
        self.settle()
        before, sizes = shop.books(self._channel, case.shop) if case.records else {}, self._sizes()
        run = RUNS.get(case.call, load.run)
        with beside(self.where, self._scratch, case.servers - 1) as where:
            measured = self._client.submit(run, case, where, name, *(times_s or self._times_s)).result()
        if case.records:
            measured.behind_s = self.settle()
            for program, books in shop.books(self._channel, case.shop).items():
                earned = measured.base_minor[program] * case.shop.pool_permille // 1000
                books.check_after(before[program], program, measured.told[program], earned, self.owner)
            if self.growth and case.shop is shop.TREE:
                self.growth[-1].add(sizes, self._sizes(), measured.told.total())
        return measured

    def head(self, program: str) -> int:
        return shop.Books.of(self._channel, program).position

    def settle(self) -> float:
        """Waits until everything that follows the logs has seen their ends, and what tidies up after it has rested; seconds that the first
        of these took."""
        began = time.monotonic()
        while self.owner.execute(BEHIND).fetchone() != (0,):
            if time.monotonic() > began + FOLLOW_S:
                raise RuntimeError(f"followers have not caught up in {FOLLOW_S} s")
            time.sleep(LOOK_S)
        behind_s = time.monotonic() - began
        # Signing checkpoints and vacuuming go on by themselves, the latter for long: a run need not begin with the end of them.
        for _ in range(RESTS):
            meter = Meter([self.where.server_pid], self.where.database_pid)
            time.sleep(REST_S)
            usage = meter.usage()
            if usage.percent(usage.server_s + usage.database_s) < RESTING_PERCENT:
                break
        return behind_s

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """{table: (bytes in all, bytes of its indexes)}."""
        return {name: (total, indexes) for name, total, indexes in self.owner.execute(SIZES, [SCHEMAS]).fetchall()}

    def replay(self, program: str) -> Measured:
        """The log folded from its first entry and compared with every live row. Raises Lost when one differs."""
        meter = Meter([self.where.server_pid], self.where.database_pid)
        request = ops_pb2.VerifyProjectionsRequest(program_id=program)
        steps = ops_pb2_grpc.OpsServiceStub(self._channel).VerifyProjections(request, timeout=REPLAY_S)
        results = [step.result for step in steps if step.WhichOneof("step") == "result"]
        usage = meter.usage()
        differing = [f"{result.projection}: {text}" for result in results for text in result.differences]
        if differing or not results or not all(result.equal for result in results):
            raise shop.Lost(f"a replay of {program} differs: {differing}")
        return Measured(usage.wall_s, usage, max(result.position for result in results))

    def _replay_others(self) -> None:
        programs = [program for one in self._shops if one is not shop.TREE for program in one.programs]
        with ThreadPoolExecutor(shop.OPENERS) as callers:
            list(callers.map(self.replay, programs))


@contextlib.contextmanager
def opened(scratch: Path, client: ProcessPoolExecutor, times_s: tuple[float, float]) -> Iterator[Bench]:
    """A server of its own with an empty database, ready to be measured, while the block lasts. `times_s`: of warm-up, and measured."""
    with serving(scratch) as where, psycopg.connect(where.dsn, autocommit=True) as owner:
        bench = Bench(where, client, scratch, owner, times_s)
        try:
            yield bench
        finally:
            bench.close()


@contextlib.contextmanager
def serving(scratch: Path) -> Iterator[Where]:
    """A durable database and a server, each in a process of its own, while the block lasts."""
    signing.create(scratch / KEY_FILE, "bench.example")
    with EmbeddedPostgres(scratch / "data") as database, _server(database.dsn, scratch, "server.log") as (address, pid):
        yield Where(address, database.dsn, pid, database.pid)


@contextlib.contextmanager
def beside(where: Where, scratch: Path, others: int) -> Iterator[Where]:
    """So many other servers of the same database, while the block lasts."""
    with contextlib.ExitStack() as closing:
        started = [closing.enter_context(_server(where.dsn, scratch, f"beside{number}.log")) for number in range(others)]
        yield replace(where, beside=tuple(started))


@contextlib.contextmanager
def _server(dsn: str, scratch: Path, log_name: str) -> Iterator[tuple[str, int]]:
    """(address, process) of a server of a database, while the block lasts."""
    # Everything on: the tree is kept, and checkpoints of it are signed and published, as often as they are by themselves.
    told = {"DSN": dsn, "DATA_DIR": scratch / "none", "CHECKPOINT_KEY_FILE": scratch / KEY_FILE, "CHECKPOINT_DIR": scratch / "checkpoints"}
    environment = retail.environment(**{f"FENRUN_{name}": str(value) for name, value in told.items()})
    address = _free_address()
    command = [sys.executable, "-m", "services", "serve", "--listen", address]
    with (scratch / log_name).open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _await_ready(server, address, scratch / log_name)
            yield address, server.pid
        finally:
            stop(server)


def stop(server: "subprocess.Popen[bytes]", sent: int = signal.SIGTERM) -> None:
    server.send_signal(sent)
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def _await_ready(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    """Until it listens. Knocking is quicker than a channel, which waits a second after it was refused."""
    host, _, port = address.partition(":")
    deadline = time.monotonic() + START_S
    while True:
        try:
            return socket.create_connection((host, int(port))).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start:\n" + "\n".join(last_log_lines(log, 20))) from None
            time.sleep(LOOK_S / 10)


def starts(directory: Path) -> Measured:
    """`fenrun serve` with its own PostgreSQL, on a data directory that was used before, to its first answer; again and again."""
    directory.mkdir(exist_ok=True)
    if not (directory / "data").exists():
        _start(directory, lambda channel: shop.open_books(channel, shop.tree("started", shop.MEMBERS // 10)))
    meter = Meter((), NOBODY, children=True)
    latencies_s = [_start(directory, lambda channel: shop.Books.of(channel, "started")) for _ in range(STARTS)]
    return Measured(sum(latencies_s), meter.usage(), STARTS, latencies_s)


def _start(directory: Path, call: Callable[[grpc.Channel], object]) -> float:
    """Seconds from the command to the answer."""
    address, log = _free_address(), directory / "server.log"
    command = [sys.executable, "-m", "services", "serve", "--listen", address, "--data-dir", str(directory / "data")]
    with log.open("wb") as said:
        began = time.perf_counter()
        server = subprocess.Popen(command, cwd=ROOT, env=retail.environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            _await_ready(server, address, log)
            with grpc.insecure_channel(address) as channel:
                call(channel)
            return time.perf_counter() - began
        finally:
            stop(server)
