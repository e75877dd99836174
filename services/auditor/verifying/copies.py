"""What a bundle says a second time for people's convenience: plans, tables, the trial balance. It must say what the entries say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fenrun.log.v1 import log_pb2
from google.protobuf.message import DecodeError

from services.auditor import tables
from services.auditor.bundle import TRIAL_BALANCE, Manifest, parse_json, read_whole
from services.auditor.verifying.history import History
from services.auditor.verifying.report import Finding

# Bytes; a row is about a hundred, and there is one for each account that anything was posted to.
LARGEST_TRIAL_BALANCE = 64 << 20


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


def tables_told(manifest: Manifest) -> list[str]:
    """The tables that a bundle has."""
    return [name for name in tables.NAMES if any(file.path == name for file in manifest.files)]


class Compared(NamedTuple):
    """The first segment, from 0, of which a table tells something else; `note`: why they were not compared."""

    segment: int
    finding: Finding | None
    note: str = ""


def check_tables(bundle: Path, manifest: Manifest, history: History, segments: Sequence[int]) -> Compared:
    """The tables against the entries of some segments."""
    if not tables.installed():
        told = " and ".join(tables_told(manifest))
        return Compared(0, None, f"{told} not compared with the entries: pyarrow is not installed (pip install 'fenrun[parquet]').")
    try:
        counts = tables.groups(bundle)
    except ValueError as problem:
        return Compared(0, Finding("copies", None, str(problem)))
    for name, count in counts.items():
        if count != len(manifest.segments):
            return Compared(0, Finding("copies", None, f"{name} has a row group for each segment", str(len(manifest.segments)), str(count)))
    for number in segments:
        segment = manifest.segments[number]
        try:
            difference = tables.difference(bundle, number, list(history.read(segment.first_position, segment.last_position)))
        except (DecodeError, ValueError) as error:  # bytes that are no message, an account that is none
            unread = f"the entries from {segment.first_position} on cannot be read as rows: {type(error).__name__}: {error}"
            return Compared(number, Finding("copies", None, unread))
        if difference is not None:
            name, position, expected, found = difference
            return Compared(number, Finding("copies", position, f"{name} says something else than the entries", expected, found))
    return Compared(0, None)


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
