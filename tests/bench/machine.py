"""Processor time by whom, from /proc (this benchmark and the embedded PostgreSQL are for Linux), and what the figures were measured on."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import time
import timeit
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psycopg
from google.protobuf.internal import api_implementation

ROOT = Path(__file__).resolve().parents[2]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# proc_stat(5), columns of the line "cpu": user nice system idle iowait irq softirq steal. What is stolen from us is a stranger's.
BUSY_COLUMNS = (0, 1, 2, 5, 6, 7)
# proc_pid_stat(5), counted from the state, which follows the name: ppid, and utime stime cutime cstime.
PARENT, TIMES = 1, slice(11, 15)
# No process has this id: for a meter without a database to watch.
NOBODY = -1


@dataclass(frozen=True)
class Usage:
    """Processor seconds by whom, over some seconds of the clock."""

    wall_s: float
    server_s: float
    database_s: float
    client_s: float
    strangers_s: float

    def percent(self, seconds: float) -> float:
        """Of one core; two busy cores are 200."""
        return 100 * seconds / self.wall_s


class Meter:
    """Reads how much time the servers, the database, the client and everybody have used. `client`: this process, or also its children."""

    def __init__(self, server_pids: Collection[int], database_pid: int, children: bool = False) -> None:
        self._server_pids, self._database_pid, self._children = server_pids, database_pid, children
        self.restart()

    def restart(self) -> None:
        self._began = self._read()

    def usage(self) -> Usage:
        wall, busy, server, database, client = (now - then for now, then in zip(self._read(), self._began, strict=True))
        return Usage(wall, server, database, client, max(0.0, busy - server - database - client))

    def _read(self) -> tuple[float, ...]:
        with open("/proc/stat", encoding="ascii") as file:
            columns = file.readline().split()[1:]
        busy = sum(int(columns[column]) for column in BUSY_COLUMNS) / TICKS_PER_S
        client = time.process_time()
        if self._children:
            client += children_s()
        stats = _stats()
        server = sum(_of_tree(stats, pid) for pid in self._server_pids)
        return time.perf_counter(), busy, server, _of_tree(stats, self._database_pid), client


def children_s() -> float:
    """Processor seconds of all children that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stats() -> dict[int, list[str]]:
    """The columns of /proc/PID/stat after the name, of every process."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path("/proc", name, "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(name)] = text.rpartition(")")[2].split()
    return found


def _of_tree(stats: dict[int, list[str]], root: int) -> float:
    """Processor seconds of a process, its descendants, and those of them that have ended and were waited for."""
    members = _members(stats, root)
    return sum(int(column) for pid in members if pid in stats for column in stats[pid][TIMES]) / TICKS_PER_S


def tree_of(root: int) -> set[int]:
    """A process and its living descendants."""
    return _members(_stats(), root)


def _members(stats: dict[int, list[str]], root: int) -> set[int]:
    members = {root}
    size = 0
    while size != len(members):
        size = len(members)
        members |= {pid for pid, columns in stats.items() if int(columns[PARENT]) in members}
    return members


def memory_mib(root: int) -> float:
    """The proportional set size of a process and everything it has started; what has ended meanwhile has none."""
    total = 0
    for pid in tree_of(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def described(owner: psycopg.Connection[tuple[str]], database_directory: Path) -> list[tuple[str, str]]:
    """What a reader must know of the machine and the software, as (what, text). Names no host and no path."""
    version = importlib.metadata.version
    cores = len(os.sched_getaffinity(0))
    return [
        ("machine", f"{_processor()}, {cores} cores, {_memory_gib():.0f} GiB of memory, {_file_system(database_directory)}"),
        (
            "system",
            f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()} ({platform.python_implementation()},"
            f" {python_ns():.0f} ns to make a named tuple and read a field of it)",
        ),
        (
            "database",
            f"PostgreSQL {_shown(owner, 'server_version')}, embedded, on a unix socket; "
            + ", ".join(f"{name} {_shown(owner, name)}" for name in ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers")),
        ),
        (
            "libraries",
            f"grpcio {version('grpcio')}, protobuf {version('protobuf')} ({api_implementation.Type()}), "
            f"psycopg {version('psycopg')} ({psycopg.pq.__impl__})",
        ),
    ]


def python_ns() -> float:
    """How fast this Python is by itself: how it was built makes a difference of half, and no version tells that."""
    setup, number = "from collections import namedtuple; Pair = namedtuple('Pair', 'one other')", 200_000
    return min(timeit.repeat("Pair(1, 2).other", setup, repeat=5, number=number)) / number * 1e9


def _shown(owner: psycopg.Connection[tuple[str]], setting: str) -> str:
    row = owner.execute(f"show {setting}".encode()).fetchone()
    assert row is not None
    return row[0]


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.machine())


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _file_system(directory: Path) -> str:
    """The kind of file system the database is on: on tmpfs an fsync costs nothing."""
    best, kind = 0, "unknown file system"
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in file:
            _, mounted_on, found, *_ = line.split()
            if directory.is_relative_to(mounted_on) and len(mounted_on) >= best:
                best, kind = len(mounted_on), found
    return kind


def commit() -> str:
    """The commit, and whether files differ from it; the file that is written does not count."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ".", ":!docs/performance.md")
        return f"commit {git('rev-parse', '--short=12', 'HEAD')}, {'changed since' if changed else 'clean'}"
    except (OSError, subprocess.CalledProcessError):
        return "commit unknown"
