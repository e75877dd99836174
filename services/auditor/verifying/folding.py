"""Decisions and laws, each from the first entry on, and what else goes over the entries: in this process one after the other, or shared out
to all processors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.auditor.verifying import deciding
from services.auditor.verifying.deciding import State
from services.auditor.verifying.history import History
from services.auditor.verifying.laws import Laws
from services.auditor.verifying.processes import Children, Say
from services.auditor.verifying.report import Bad, Finding

# Entries that one process decides again before it ends: a fork costs less than deciding a hundred.
LARGEST_SHARE, SMALLEST_SHARE = 16_384, 1_000
# How often a worker says how far it has come, in entries.
SAY_EVERY = 500
Progress = Callable[[str, int, int], None]
# What else goes over the entries once they are folded, by its name; what it gives must be picklable.
Work = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Lawful:
    """What folding by the laws gave."""

    finding: Finding | None
    postings: int
    members: int
    currency: str
    plans: dict[int, str]
    totals: dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Folded:
    findings: list[Finding]
    decided: int
    note: str
    laws: Lawful
    # What each of the rest gave; nothing where a law is broken.
    rest: list[Any]


def _lawful(history: History, say: Say) -> Lawful:
    laws, finding = Laws(history.stream), None
    for entry in history.read(1, history.entries):
        try:
            laws.add(entry)
        except Bad as bad:
            finding = bad.finding
        except Exception as error:  # whatever forged bytes bring about is a finding, not a crash
            problem = f"the entry cannot be read: {type(error).__name__}: {error}"
            finding = Finding("balances", entry.position, problem)
        if finding is not None:
            break
        if entry.position % SAY_EVERY == 0:
            say(entry.position)
    return Lawful(finding, laws.postings, laws.members, laws.currency, laws.plans, laws.totals())


def _decided(state: State, first: int, last: int, history: History, say: Say) -> tuple[int, str, Finding | None]:
    """(entries decided again, a note, the first that does not hold)"""

    def told(position: int) -> None:
        if position % SAY_EVERY == 0:
            say(SAY_EVERY)

    try:
        return *deciding.decide(state, first, last, history, told), None
    except Bad as bad:
        return 0, "", bad.finding


def alone(history: History, progress: Progress, rest: Mapping[str, Work]) -> Folded:
    """In this process, one after the other."""
    done = 0

    def say(more: int) -> None:
        nonlocal done
        done += more
        progress("decisions", done, history.entries)

    decided, note, finding = _decided(State.empty(history), 1, history.entries, history, say)
    laws = _lawful(history, lambda position: progress("laws", position, history.entries))
    given = [work() for work in rest.values()] if laws.finding is None else []
    return Folded([one for one in (finding, laws.finding) if one is not None], decided, note, laws, given)


def in_processes(history: History, processes: int, progress: Progress, rest: Mapping[str, Work]) -> Folded:
    """This process folds the log as it is recorded; at the end of each share it forks one that decides the next share again, from exactly
    the state that the share began with. So each decision is taken once, and each entry folded twice, however many processors there are.
    """
    done = 0

    def told(key: Any, more: int) -> None:
        nonlocal done
        if key != "laws":
            done += more
            progress("decisions", done, history.entries)

    def room() -> None:
        while len(children) >= processes:
            children.poll(None)

    share = max(SMALLEST_SHARE, min(LARGEST_SHARE, history.entries // (4 * processes)))
    children = Children(told)
    state, finding = State.empty(history), None
    try:
        children.start("laws", partial(_lawful, history))
        for first in range(1, history.entries + 1, share):
            room()
            if any(key != "laws" and answer[2] for key, answer in children.answers.items()):
                break  # what comes after the first bad position is of no use
            last = min(first + share - 1, history.entries)
            children.start(first, partial(_decided, state, first, last, history))
            if last == history.entries:
                break
            try:
                for row in history.rows(first, last):
                    deciding.fold(state, row)
                    if row.position % SAY_EVERY == 0:
                        children.poll()
            except Bad as bad:
                finding = bad.finding
                break
        for name, work in rest.items():
            room()
            children.start(name, partial(_quietly, work))
        children.wait_for_all()
    finally:
        children.stop()
    laws: Lawful = children.answers.pop("laws")
    given = [children.answers.pop(name) for name in rest]
    found = [answer[2] for answer in children.answers.values() if answer[2] is not None]
    if finding is not None:
        found.append(finding)
    first_found = min(found, key=lambda one: one.rank, default=None)
    decided = sum(answer[0] for answer in children.answers.values())
    note = next((answer[1] for answer in children.answers.values() if answer[1]), "")
    findings = [one for one in (first_found, laws.finding) if one is not None]
    return Folded(findings, decided, note, laws, given if laws.finding is None else [])


def _quietly(work: Work, _: Say) -> Any:
    return work()
