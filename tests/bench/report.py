"""Figures to text: the section of docs/performance.md between the markers. Tables are padded, so that they read as text too."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.auditing import Audited
from tests.bench.load import Measured

# Around the part of that name.
BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"
# Percent of a core that others may take before a figure is marked.
QUIET_PERCENT = 30


@dataclass(frozen=True)
class Row:
    """One case in all its runs. `unit` is what `per_s` counts."""

    title: str
    unit: str
    runs: Sequence[Measured]


@dataclass
class Growth:
    """Bytes that one round's orders added to each table: (in all, of them indexes)."""

    tables: dict[str, tuple[int, int]] = field(default_factory=dict)
    orders: int = 0

    def add(self, before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], orders: int) -> None:
        for name, now in after.items():
            then, so_far = before.get(name, (0, 0)), self.tables.get(name, (0, 0))
            self.tables[name] = (so_far[0] + now[0] - then[0], so_far[1] + now[1] - then[1])
        self.orders += orders


def spread(values: Sequence[float], digits: int = 0) -> str:
    """12,345 (11,900–12,800): the median, the least and the most."""
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least}–{most})" if len(values) > 1 else middle


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(head), line(rule), *(line(row) for row in rows)]


def rates(rows: Sequence[Row]) -> list[str]:
    """Nothing without rows."""
    head = ("case", "a second", "of", "p50 ms", "p99 ms", "server", "PostgreSQL", "client", "behind s", "strangers %")
    return table(head, [_rate(row) for row in rows]) if rows else []


def _rate(row: Row) -> tuple[str, ...]:
    def used(seconds: Callable[[Measured], float]) -> str:
        percent = statistics.median(run.usage.percent(seconds(run)) for run in row.runs)
        each_us = statistics.median(1e6 * seconds(run) / run.items for run in row.runs)
        return f"{percent:.0f} %, {each_us:,.0f} µs"

    strangers = [run.usage.percent(run.usage.strangers_s) for run in row.runs]
    behind = [run.behind_s for run in row.runs if run.behind_s is not None]
    timed = all(run.latencies_s for run in row.runs)
    return (
        row.title,
        spread([run.per_s for run in row.runs]) + (" †" if max(strangers) > QUIET_PERCENT else ""),
        row.unit,
        spread([run.percentile_ms(50) for run in row.runs], 1) if timed else "",
        spread([run.percentile_ms(99) for run in row.runs], 1) if timed else "",
        used(lambda run: run.usage.server_s),
        used(lambda run: run.usage.database_s),
        used(lambda run: run.usage.client_s),
        spread(behind, 1) if behind else "",
        spread(strangers),
    )


def audits(rounds: Sequence[Sequence[Audited]]) -> list[str]:
    """One row for each command, over all rounds."""
    head = ("command", "entries", "seconds", "entries a second", "cores busy", "memory at most, MiB")
    return table(head, [_audit(runs) for runs in zip(*rounds, strict=True)])


def _audit(runs: Sequence[Audited]) -> tuple[str, ...]:
    return (
        runs[0].title,
        f"{runs[0].entries:,}",
        spread([run.wall_s for run in runs], 1),
        spread([run.entries / run.wall_s for run in runs]),
        spread([run.processor_s / run.wall_s for run in runs], 1),
        spread([run.memory_mib for run in runs]),
    )


def ratios(found: Sequence[tuple[str, Sequence[float]]]) -> list[str]:
    """(title, one case's rate over another's, round by round, so that both saw the same machine)."""
    return table(("ratio", "round by round"), [(title, spread(values, 2)) for title, values in found]) if found else []


def growth(rounds: Sequence[Growth]) -> list[str]:
    last = rounds[-1].tables
    names = sorted((name for name in last if any(one.tables[name][0] for one in rounds)), key=lambda name: -last[name][0])

    def row(title: str, of: Sequence[str]) -> tuple[str, str, str]:
        total, indexes = ([sum(one.tables[name][part] for name in of) / one.orders for one in rounds] for part in (0, 1))
        return title, spread(total), spread(indexes)

    return table(("table", "bytes an order", "of these indexes"), [*(row(name, [name]) for name in names), row("in all", names)])


def replace_section(path: Path, section: str, part: str) -> None:
    """Puts the section between the markers of a part; the prose around it stays. A file without markers gets them at its end."""
    begins, ends = BEGIN.format(part), END.format(part)
    before, begin, rest = (path.read_text(encoding="utf-8") if path.exists() else "").partition(begins)
    _, end, after = rest.partition(ends)
    if begin and not end:
        raise ValueError(f"{path.name} has {begins} and no {ends} after it")
    if not begin:
        before = before.rstrip("\n") + "\n\n" if before.strip() else ""
        after = "\n"
    path.write_text(f"{before}{begins}\n\n{section.strip()}\n\n{ends}{after}", encoding="utf-8")
