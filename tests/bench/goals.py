"""What Fenrun is to reach, what it reached, and whether that holds: every figure is made of the runs, and a ratio within each round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench import cases
from tests.bench.auditing import Audited
from tests.bench.grow import Step
from tests.bench.load import Case, Measured
from tests.bench.pieces import Pieces
from tests.bench.report import Growth, spread, table
from tests.bench.running import IMPORT, REPLAY, START


@dataclass(frozen=True)
class Results:
    """Everything that was measured; what was not is missing or empty. Each list has one of each round."""

    runs: dict[str, list[Measured]] = field(default_factory=dict)
    audits: Sequence[Sequence[Audited]] = ()
    growth: Sequence[Growth] = ()
    steps: Sequence[Step] = ()
    # By what they are the pieces of.
    pieces: Mapping[str, Pieces] = field(default_factory=dict)

    def of(self, key: str) -> list[Measured]:
        return self.runs.get(key, [])


Reached = Callable[[Results], Sequence[float]]


@dataclass(frozen=True)
class Goal:
    """`limit` is the least when `least`, else the most, in `unit`; empty: a ratio."""

    what: str
    limit: float
    reached: Reached
    least: bool = True
    unit: str = ""
    digits: int = 2

    def holds(self, median: float) -> bool:
        return median >= self.limit if self.least else median <= self.limit


def rate(over: Case, under: Case) -> Reached:
    """One case's items a second over another's."""
    return lambda found: [a.per_s / b.per_s for a, b in zip(found.of(over.key), found.of(under.key), strict=False)]


def p99(over: Case, under: Case) -> Reached:
    return lambda found: [a.percentile_ms(99) / b.percentile_ms(99) for a, b in zip(found.of(over.key), found.of(under.key), strict=False)]


def alone(found: Results) -> list[float]:
    """An order that nobody disturbs, over a call that does nothing and a commit of one row."""
    return [
        order.percentile_ms(50) / (noop.percentile_ms(50) + commit.percentile_ms(50))
        for order, noop, commit in zip(*(found.of(case.key) for case in (cases.UNARY[1], cases.NOOP_1, cases.COMMIT)), strict=False)
    ]


def per_core(items: int, wall_s: float, processor_s: float) -> float:
    """Items a second and core in use; one core at least, for who waits has not been quick."""
    return items / max(wall_s, processor_s)


def replayed(found: Results) -> list[float]:
    return [per_core(run.items, run.seconds, run.usage.server_s + run.usage.database_s) for run in found.of(REPLAY)]


def verified(found: Results) -> list[float]:
    verify = [audited for audits in found.audits for audited in audits if audited.title.endswith("verify")]
    return [per_core(audited.entries, audited.wall_s, audited.processor_s) for audited in verify]


def disk(found: Results) -> list[float]:
    return [sum(total for total, _ in one.tables.values()) / one.orders for one in found.growth if one.orders]


def grown(of: Callable[[Step], Sequence[float]]) -> Reached:
    """Of the program at its largest."""
    return lambda found: of(found.steps[-1]) if found.steps else []


def megabytes(mib: float) -> float:
    return mib * 2**20 / 1e6


READS = tuple(
    goal
    for name, case in cases.READS.items()
    for goal in (
        Goal(f"{name} over a no-op call, 64 in flight", 0.7, rate(case, cases.NOOP_64)),
        Goal(f"{name}: p99 beside writers over p99 without", 3, p99(cases.BESIDE[name], case), least=False),
    )
)
GROWN = (
    Goal(
        "growth: RecordOrders of 200, many entries and members over few",
        0.9,
        grown(lambda step: [a.per_s / b.per_s for a, b in zip(step.batches, step.few_batches, strict=True)]),
    ),
    Goal(
        "growth: p99 of RecordOrder, 64 in flight, few over many",
        0.9,
        grown(lambda step: [b.percentile_ms(99) / a.percentile_ms(99) for a, b in zip(step.unary, step.few_unary, strict=True)]),
    ),
    Goal(
        "growth: memory of the server",
        400,
        grown(lambda step: [megabytes(mib) for mib in step.server_mib]),
        least=False,
        unit="MB",
        digits=0,
    ),
    Goal(
        "growth: memory of the server, at the first step over at the last",
        0.9,
        lambda found: [a / b for a, b in zip(found.steps[0].server_mib, found.steps[-1].server_mib, strict=True)] if found.steps else [],
    ),
)
GOALS = (
    Goal("RecordOrders of 200 over PostgreSQL's bare set-based call of 200", 1.1, rate(cases.BATCH_200, cases.BARE)),
    Goal("RecordOrders of 200 over pgledger, hot account", 25, rate(cases.BATCH_200, cases.PGLEDGER), digits=1),
    Goal("StreamOrders of 200 over RecordOrders of 200, 8 under way", 0.9, rate(cases.STREAM_4, cases.BATCH_200)),
    Goal("RecordOrder over a no-op call, 64 in flight", 0.6, rate(cases.UNARY[64], cases.NOOP_64)),
    Goal("RecordOrder to two servers over one, 64 in flight", 1, rate(cases.TWO_SERVERS, cases.UNARY[64])),
    Goal("RecordOrder alone: p50 over that of a no-op call and a commit", 1.5, alone, least=False),
    Goal("1,000 programs over one, 64 in flight", 0.8, rate(cases.PROGRAMS, cases.UNARY[64])),
    Goal("import of Online Retail", 40_000, lambda found: [run.per_s for run in found.of(IMPORT)], unit="lines/s", digits=0),
    Goal("cost of an order, deep agents over two levels", 3, rate(cases.BATCH, cases.AGENTS), least=False),
    Goal("cost of an order, the rich plan over two levels", 3, rate(cases.BATCH, cases.RICH), least=False),
    *READS,
    Goal("replay", 30_000, replayed, unit="entries/s a core", digits=0),
    Goal("audit verify", 28_000, verified, unit="entries/s a core", digits=0),
    *GROWN,
    # No slower; the rest is noise.
    Goal("10,000 ancestors over 10", 0.95, rate(cases.DEEP, cases.SHALLOW)),
    Goal("disk for a one-line order, three payees", 1200, disk, least=False, unit="bytes", digits=0),
    Goal(
        "cold start to the first answer",
        1.5,
        lambda found: [run.percentile_ms(50) / 1000 for run in found.of(START)],
        least=False,
        unit="s",
    ),
)


def goals(found: Results) -> list[str]:
    """The table: what, the goal, what was reached, and whether the median holds. What was not measured is named below it."""
    rows, missing = [], []
    for goal in GOALS:
        values = goal.reached(found)
        if not values:
            missing.append(goal.what)
            continue
        limit = f"at {'least' if goal.least else 'most'} {goal.limit:,g} {goal.unit}".strip()
        rows.append((goal.what, limit, spread(values, goal.digits), "yes" if goal.holds(statistics.median(values)) else "no"))
    told = table(("what", "goal", "reached", "held"), rows) if rows else []
    return [*told, *(["", f"Not measured: {'; '.join(missing)}."] if rows and missing else [])]
