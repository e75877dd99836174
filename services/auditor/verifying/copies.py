"""What a bundle says a second time for people's convenience: plans, tables, the trial balance. It must say what the entries say."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fenrun.log.v1 import log_pb2

from services.auditor import tables
from services.auditor.bundle import TRIAL_BALANCE, Manifest, parse_json, read_whole
from services.auditor.verifying.history import History
from services.auditor.verifying.report import Finding

# Bytes; a row is about a hundred, and there is one for each account that anything was posted to.
LARGEST_TRIAL_BALANCE = 64 << 20
Map = Callable[[Callable[[int], Any], range], Iterator[Any]]


def plan_path(position: int) -> str:
    """By where the version stands in the log: decisions name the plan so, and no plan can choose where its file goes."""
    return f"plans/{position:012d}.json"


def check_plans(bundle: Path, manifest: Manifest, plans: Mapping[int, str]) -> list[Finding]:
    """Each published version has its document as a file of its own. `plans`: {position: document}."""
    wanted = {plan_path(position): document for position, document in plans.items()}
    named = {file.path for file in manifest.under("plans")}
    found = [Finding("copies", None, f"{path} is no published plan version") for path in sorted(named - wanted.keys())]
    for path, document in sorted(wanted.items()):
        try:
            text = read_whole(bundle, path, len(document.encode()))
        except OSError:
            found.append(Finding("copies", None, f"{path} is missing, or longer than the document that was published"))
            continue
        if text != document.encode():
            found.append(Finding("copies", None, f"{path} is not the document that was published"))
    return found


def check_tables(bundle: Path, manifest: Manifest, history: History, over: Map) -> tuple[list[Finding], str]:
    """(findings, a sentence where they were not compared)"""
    there = [name for name in tables.NAMES if any(file.path == name for file in manifest.files)]
    if not there:
        return [], ""
    if not tables.installed():
        return [], f"{' and '.join(there)} not compared with the entries: pyarrow is not installed (pip install 'fenrun[parquet]')."
    try:
        counts = tables.groups(bundle)
    except ValueError as problem:
        return [Finding("copies", None, str(problem))], ""
    segments = manifest.segments
    for name, count in counts.items():
        if count != len(segments):
            return [Finding("copies", None, f"{name} has a row group for each segment", str(len(segments)), str(count))], ""

    def compare(number: int) -> Finding | None:
        segment = segments[number]
        difference = tables.difference(bundle, number, list(history.read(segment.first_position, segment.last_position)))
        if difference is None:
            return None
        name, position, expected, told = difference
        return Finding("copies", position, f"{name} says something else than the entries", expected, told)

    return [finding for finding in over(compare, range(len(segments))) if finding is not None][:1], ""


def check_trial_balance(bundle: Path, currency: str, totals: Mapping[tuple[str, int], int], position: int) -> list[Finding]:
    """The bundle's trial balance against the folded one, in every asset; each sums to zero."""
    found = []
    for asset in {asset for asset, _ in totals}:
        total = sum(balance for (of, _), balance in totals.items() if of == asset)
        if total:
            found.append(Finding("trial balance", None, f"all accounts in {asset} together", "0", str(total)))
    try:
        told = parse_json(read_whole(bundle, TRIAL_BALANCE, LARGEST_TRIAL_BALANCE))
        said = dict[tuple[str, int], int]()
        for row in told["accounts"]:
            told_of: tuple[str, int] = (row["asset"], log_pb2.Account.Value(row["account"]))
            amount = row["balance_minor"]
            if told_of in said:
                raise ValueError(f"{row['account']} in {row['asset']} stands there twice")
            if type(amount) is not int:
                raise TypeError(f"balance_minor is {amount!r}, not a whole number")
            said[told_of] = amount
        head = (told["position"], told["currency"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        return [*found, Finding("trial balance", None, f"{TRIAL_BALANCE} cannot be read: {type(problem).__name__}: {problem}")]
    if head != (position, currency):
        found.append(Finding("trial balance", None, "it is of the last entry", f"{currency} at {position}", f"{head[1]} at {head[0]}"))
    for key in sorted(said.keys() | totals.keys()):
        if said.get(key, 0) != totals.get(key, 0):
            name = log_pb2.Account.Name(key[1])  # type: ignore[arg-type]  # read as one
            found.append(Finding("trial balance", None, f"{name} in {key[0]}", str(totals.get(key, 0)), str(said.get(key, 0))))
    return found
