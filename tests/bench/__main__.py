"""`python -m tests.bench`: sets up, runs every case once a round, checks the books after each run, and writes docs/performance.md.
With `--peers` it runs others beside Fenrun instead, for the peers' part of that file."""

import argparse
import contextlib
import multiprocessing
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import database, grow, machine, peers, picture, pieces, report, retail, shop
from tests.bench.cases import BATCH_200, CASES, COMPARED, ORDERS, PEERS, PGLEDGER, RATIOS, READING, UNITS
from tests.bench.goals import Results, goals, rate
from tests.bench.load import Case
from tests.bench.machine import ROOT
from tests.bench.report import Row
from tests.bench.running import IMPORT, KEYS, REPLAY, REPLAY_IMPORT, START, Bench, opened

DOCUMENT, PICTURE = ROOT / "docs" / "performance.md", "performance.svg"
QUICK_ORDER_LINES = 20_000


def begins(bench: Bench, how: str, directory: Path, commit: str) -> list[str]:
    described = [*machine.described(bench.owner, directory), ("code", commit)]
    return [f"Measured on {datetime.now(UTC):%Y-%m-%d}: {how}.", "", *(f"- {what}: {text}" for what, text in described)]


def rows(found: Results, cases: Sequence[Case]) -> list[Row]:
    return [Row(case.title, UNITS.get(case.call, "orders"), found.runs[case.key]) for case in cases if case.key in found.runs]


def titled(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"### {title}", "", *lines] if lines else []


def section(found: Results, files: retail.Retail | None) -> list[str]:
    """What is written between the markers, after what begins it. What was not measured is left out."""
    lines = titled("Goals", goals(found))
    for title, cases in (("Orders", ORDERS), ("Reading", READING), ("For comparison", COMPARED)):
        lines += titled(title, report.rates(rows(found, cases)))
    ratios = [(title, rate(over, under)(found)) for title, over, under in RATIOS]
    lines += titled("Ratios, round by round", report.ratios([(title, values) for title, values in ratios if values]))
    others = []
    if START in found.runs:
        others.append(Row("fenrun serve, warm data directory, to the first answer", "starts", found.runs[START]))
    if files and IMPORT in found.runs:
        others.append(Row(f"import of {files.lines:,} rows, {files.orders:,} orders", "rows", found.runs[IMPORT]))
        others.append(Row(f"replay of an import, {found.runs[REPLAY_IMPORT][0].items:,} entries", "entries", found.runs[REPLAY_IMPORT]))
    if REPLAY in found.runs:
        sizes = [run.items for run in found.runs[REPLAY]]
        others.append(Row(f"replay of the program above, {min(sizes):,} to {max(sizes):,} entries", "entries", found.runs[REPLAY]))
    lines += titled("Start, import and replay", report.rates(others))
    for what, taken in found.pieces.items():
        lines += titled(f"Where the microseconds of {what} go", pieces.told(taken))
    lines += titled("The import, audited", report.audits(found.audits) if found.audits else [])
    told = [one for one in found.growth if one.orders]
    lines += titled("Bytes on disk for a one-line order with three payees", report.growth(told) if told else [])
    return lines + titled("Growth", grow.curve(found.steps))


def peers_section(found: Results) -> list[str]:
    ratios = [(f"RecordOrders of 200 over {case.title}", rate(BATCH_200, case)(found)) for case in PEERS if case is not BATCH_200]
    rated = report.rates(rows(found, PEERS))
    return ["", *rated, "", *report.ratios([(title, values) for title, values in ratios if values])]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measures throughput and latency; writes docs/performance.md."
    )
    parser.add_argument("--rounds", type=int, default=5, help="each runs every case once (default 5)")
    parser.add_argument("--quick", action="store_true", help="one short round, printed and not written: a smoke test")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/online-retail", help="the files of Online Retail")
    parser.add_argument("--only", action="append", choices=KEYS, help="run this case alone, printed and not written; may be repeated")
    parser.add_argument("--output", type=Path, help="write to this file, also what would only be printed, and the picture beside it")
    parser.add_argument("--seconds", type=float, help="how long a run is measured (default 4; 1 with --quick)")
    parser.add_argument("--grow", type=int, default=0, metavar="ENTRIES", help="also grow a program to so many entries")
    parser.add_argument("--pgledger", type=Path, metavar="FILE", help="pgledger.sql, as it lies in a copy of its repository")
    parser.add_argument("--peers", action="store_true", help="others beside Fenrun on the same orders, and nothing else")
    return parser.parse_args()


def main() -> None:
    told = options()
    if told.pgledger and not told.pgledger.is_file():
        sys.exit(f"{told.pgledger} is no file")
    rounds = 1 if told.quick else told.rounds
    times_s = (0.5, told.seconds or 1.0) if told.quick else (1.0, told.seconds or 4.0)
    keys = [case.key for case in PEERS] if told.peers else [key for key in KEYS if not told.only or key in told.only]
    if PGLEDGER.key in keys and not told.pgledger:
        keys.remove(PGLEDGER.key)
        print("pgledger: skipped, `--pgledger FILE` says where its SQL is; it comes with no package", flush=True)
    if IMPORT in keys and not (told.data / "orders.csv.gz").is_file():
        keys.remove(IMPORT)
        print(f"import: skipped, {told.data} has no files of Online Retail", flush=True)
    cases = [case for case in dict.fromkeys((*CASES, *PEERS)) if case.key in keys]
    began, commit = time.monotonic(), machine.commit()
    # So that a bench that is stopped stops its server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    with contextlib.ExitStack() as closing:
        scratch = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="fenrun-bench-")))
        client = closing.enter_context(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        with opened(scratch, client, times_s) as bench:
            if IMPORT in keys:
                data = told.data.resolve()
                bench.retail = retail.cut(data, QUICK_ORDER_LINES, scratch / "retail") if told.quick else retail.survey(data)
            print(f"server: process {bench.where.server_pid}; opening the books", flush=True)
            bench.open_books([shop.TREE, *(case.shop for case in cases)])
            calls = {case.call for case in cases}
            if "bare" in calls:
                database.prepare(bench.owner)
            if "pgledger" in calls:
                peers.prepare_pgledger(bench.where.dsn, told.pgledger)
            bench.warm_up(cases)
            for number in range(rounds):
                bench.round(number, keys)
            if told.peers:
                bench.replay(shop.TREE.program)
            taken = dict[str, pieces.Pieces]()
            if not told.peers and not told.only:
                bench.settle()
                dsn = bench.where.dsn
                taken = {
                    "an order, in a batch of 500,": pieces.run(dsn, shop.TREE, rounds),
                    "an order, 64 at once, all of one program,": pieces.run(dsn, shop.TREE, rounds, pieces.CALLERS),
                    "an order, 64 at once, each of another program,": pieces.run(dsn, shop.SMALL, rounds, pieces.CALLERS, pieces.CALLERS),
                    "a replayed entry, a one-line order,": pieces.replay(dsn, shop.TREE.program, rounds),
                }
            how = [f"rounds: {rounds}, a run: {times_s[1]:g} s after {times_s[0]:g} s of warm-up"]
            header = begins(bench, "{}", scratch, commit)
        steps = grow.run(told.grow, rounds, client, scratch, times_s) if told.grow else []
    how += [f"minutes in all: {(time.monotonic() - began) / 60:.0f}", *["a smoke test"] * told.quick]
    found = Results(bench.runs, bench.audits, bench.growth, steps, taken)
    lines = [header[0].format(", ".join(how)), *header[1:], *(peers_section(found) if told.peers else section(found, bench.retail))]
    print("", *lines, "", sep="\n")
    output = told.output or (None if told.quick or told.only else DOCUMENT)
    if not output:
        return
    if not told.peers and (drawn := picture.panels(found)):
        output.with_name(PICTURE).write_text(picture.draw("Fenrun: RecordOrder by calls in flight", drawn), encoding="utf-8")
        lines += ["", f"![Throughput and latency over calls in flight{', and growth' if steps else ''}]({PICTURE})"]
    report.replace_section(output, "\n".join(lines), "peers" if told.peers else "bench")


if __name__ == "__main__":
    main()
