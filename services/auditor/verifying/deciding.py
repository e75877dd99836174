"""Every decision taken again, from the fact alone, by the pure engine over the past; and compared byte for byte with what is stored.

The state is folded with the domain's own `evolve`. A command that drafts several entries is taken again once, and all of its drafts must
stand in the log, next to each other.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fenrun.log.v1 import log_pb2

from services.auditor.verifying.differing import shown, where
from services.auditor.verifying.history import ROWS_READ, BundleBooks, BundleRoster, History
from services.auditor.verifying.report import Bad, Finding
from services.kernel.decider import Draft, Entry, Repeated
from services.kernel.refusals import Refusal
from services.ledger import codec as ledger_codec
from services.ledger.domain import books as ledger_books
from services.ledger.domain import commands
from services.ledger.domain import decide as ledger_decide
from services.ledger.domain.engine import ENGINES
from services.referral import codec as referral_codec
from services.referral.domain import decide as referral_decide
from services.referral.domain import facts as referral_facts
from services.referral.domain import roster as referral_roster
from services.runtime.stored import Stored, entry_of

CHECK = "decisions"
Command = Callable[[Any, int], Any]
# Entries, and what was drafted for each.
Drafted = list[tuple[Stored, Draft]]

# The command that told each fact. Releases find their facts themselves and are taken again source by source.
LEDGER: dict[str, Command] = {
    "plan.published.v1": commands.PublishPlan,
    "order.paid.v1": commands.RecordOrder,
    "order.completed.v1": commands.CompleteOrder,
    "order.refunded.v1": commands.RefundOrder,
    "payout.requested.v1": commands.RequestPayout,
    "payout.paid.v1": commands.ConfirmPayout,
    "payout.failed.v1": commands.FailPayout,
    "adjustment.posted.v1": commands.PostAdjustment,
    "hold.placed.v1": commands.PlaceHold,
    "hold.lifted.v1": commands.LiftHold,
    "group.opened.v1": commands.OpenGroup,
    "group.formed.v1": commands.FormGroup,
    "group.failed.v1": commands.FailGroup,
    "task.done.v1": commands.RecordTask,
    "period.closed.v1": commands.ClosePeriod,
    "deposit.moved.v1": commands.MoveDeposit,
    "stock.transferred.v1": commands.TransferStock,
    "balance.opened.v1": commands.OpenBalance,
    "books.sealed.v1": commands.SealBooks,
}
REFERRAL: dict[str, Command] = {
    "member.enrolled.v1": referral_decide.EnrollMember,
    "member.touched.v1": referral_decide.RecordTouch,
    "member.upgraded.v1": referral_decide.UpgradeMember,
    "member.binding_corrected.v1": referral_decide.CorrectBinding,
    "member.role_granted.v1": referral_decide.GrantRole,
    "member.role_ended.v1": referral_decide.EndRole,
    "member.named.v1": referral_decide.NameMember,
    "member.erased.v1": referral_decide.EraseMember,
}
RELEASES = ("order.released.v1", "reward.released.v1")
PROGRAM = "program.created.v1"
# Entries whose decision names the engine that took it; what follows on them is decided by the same one.
BY_ENGINE = frozenset({"order.paid.v1", "task.done.v1", "period.closed.v1"})
# Entries that never come alone: a command about something else drafted them.
FOLLOWING = frozenset({"group.joined.v1", "order.group_formed.v1", "order.voided.v1", "period.corrected.v1"})


@dataclass(slots=True)
class State:
    """What the log says up to a position, as far as deciding looks."""

    books: BundleBooks
    roster: BundleRoster

    @classmethod
    def empty(cls, history: History) -> "State":
        return cls(BundleBooks(history), BundleRoster(history))

    def fold(self, row: Stored) -> None:
        """Takes in one entry as it is recorded."""
        self._evolve(row, ledger_codec.read_to_fold(row), whole=False)

    def take(self, row: Stored, draft: Draft) -> None:
        """Takes in an entry that was just found to be what its draft says, without reading its bytes again."""
        if row.type in REFERRAL or row.type == PROGRAM:
            self._evolve(row, ledger_codec.read(row), whole=True)
        else:
            self._evolve(row, entry_of(row, draft.fact, draft.decision), whole=True)

    def _evolve(self, row: Stored, entry: Entry, whole: bool) -> None:
        ledger_books.evolve(self.books, entry)
        self.books.grew(entry, whole)
        decision = entry.decision
        if row.type == "order.paid.v1" and decision.binding_locked is None and not decision.tier_changes:
            self.roster.position = row.position  # it means nothing to referral, and most orders are so
        elif row.type in referral_codec.READERS:
            referral_roster.evolve(self.roster, referral_codec.read(row))
        else:
            self.roster.position = row.position


def fold(state: State, row: Stored) -> None:
    """As `State.fold`. Raises Bad where the entry cannot be folded: its bytes or what it refers to make no sense."""
    try:
        state.fold(row)
    except Exception as error:  # whatever forged bytes bring about is a finding, not a crash
        raise Bad(_finding(row, "the entry makes no sense after those before it", "an entry that folds", _told(error))) from error


def decide(state: State, first: int, last: int, history: History, progress: Callable[[int], None]) -> tuple[int, str]:
    """Takes again the decisions of the commands told at `first` to `last`; the state is as it was before `first`.

    Gives how many entries, and a sentence where the bundle ends in the middle of what the last command drafted.

    What a command before `first` drafted is left to whoever checks that command; what the last one drafted is looked at beyond `last`.
    Raises Bad.
    """
    # What was drafted again and is not compared yet: deciding and comparing by turns takes an eighth longer than one after the other.
    drafted: Drafted = []
    try:
        answer = _decide(state, first, last, history, progress, drafted)
    finally:
        # Whatever is wrong with an entry, one before it that is not what was decided comes first.
        _compare_all(drafted)
    return answer


def _decide(state: State, first: int, last: int, history: History, progress: Callable[[int], None], drafted: Drafted) -> tuple[int, str]:
    taken = 0
    expected: list[Draft] = []
    head: Stored | None = None
    for row in history.rows(first, history.entries):
        if row.type not in FOLLOWING:
            _nothing_missing(expected, row, head)
            if row.position > last:
                return taken, ""
            drafts = _drafts(state, row)
            draft, expected, head = drafts[0], drafts[1:], row
        elif head is None and first > 1:
            fold(state, row)
            continue
        elif not expected:
            raise Bad(_finding(row, f"{row.type} stands without a command that brings it about", "another entry", row.stream))
        else:
            draft = expected.pop(0)
        drafted.append((row, draft))
        try:
            state.take(row, draft)
        except Exception as error:
            raise Bad(_finding(row, "the entry makes no sense after those before it", "an entry that folds", _told(error))) from error
        if len(drafted) == ROWS_READ:
            _compare_all(drafted)
        taken += 1
        progress(row.position)
    if not expected:
        return taken, ""
    assert head is not None
    types = ", ".join(_written(draft)[0] for draft in expected)
    return taken, f"The bundle ends within a command: what {head.type} at {head.position} brings about goes on with {types} after the end."


def _nothing_missing(expected: list[Draft], row: Stored, head: Stored | None) -> None:
    if expected and head is not None:
        wanted = f"{_written(expected[0])[0]} of {expected[0].stream}"
        problem = f"what {head.type} at {head.position} brings about is missing"
        raise Bad(_finding(row, problem, wanted, f"{row.type} of {row.stream}"))


def _drafts(state: State, row: Stored) -> list[Draft]:
    """What the command that told an entry's fact drafts now. Raises Bad."""
    if row.type == PROGRAM:
        return [_opening(row)]
    if (row.type not in LEDGER and row.type not in REFERRAL and row.type not in RELEASES) or row.position == 1:
        wanted = PROGRAM if row.position == 1 else "a type that docs/log.md names"
        raise Bad(_finding(row, f"an entry of type {row.type!r} cannot stand here", wanted, row.type))
    try:
        answer = _answer(state, row)
    except Bad:
        raise
    except Refusal as refusal:
        raise Bad(_finding(row, "the engine refuses what is recorded", "a refusal", f"{refusal.reason}: {refusal}")) from refusal
    except Exception as error:  # as in fold
        raise Bad(_finding(row, "the decision cannot be taken again", "a decision", _told(error))) from error
    if isinstance(answer, Repeated):
        problem = "a fact counts once, and this one is recorded already"
        raise Bad(_finding(row, problem, f"only the entry at {answer.entry.position}", f"{row.type} again"))
    return answer


def _answer(state: State, row: Stored) -> list[Draft] | Repeated:
    state.books.fresh = row.stream if row.stream_version == 1 else ""
    kind, occurred_us = row.type, row.occurred_us
    if kind in BY_ENGINE:
        state.books.engine_version = _engine(row)
    if kind == "order.paid.v1":
        # Most of a log: what `ledger_codec.read` gives, without a decision to read.
        told = ledger_codec.order_of(log_pb2.OrderPaid.FromString(row.fact))
        return ledger_decide.decide(state.books, commands.RecordOrder(told, occurred_us))
    # Of the decision the engine must know nothing but which one took it: only the fact is read.
    row = row._replace(decision=b"")
    if kind in REFERRAL:
        command = REFERRAL[kind](referral_codec.read(row).fact, occurred_us)
        return referral_decide.decide(state.roster, command)
    if kind in RELEASES:
        return _released(state, row)
    command = LEDGER[kind](ledger_codec.read(row).fact, occurred_us)
    return ledger_decide.decide(state.books, command)


def _engine(row: Stored) -> int:
    version = ledger_codec.engine_of(row.decision)
    if version not in ENGINES:
        known = f"an engine version up to {max(ENGINES)}, the newest of this verifier"
        raise Bad(_finding(row, "the decision names no engine that is known here", known, str(version)))
    return version


def _released(state: State, row: Stored) -> list[Draft]:
    """One source's release. Which sources a release took first, and how many, is no decision about money; that nothing held went is."""
    source = ledger_books.source_of(row.stream)
    held = next((hold for hold in state.books.holds.values() if hold.order_id and hold.order_id == source), None)
    if held is not None:
        raise Bad(_finding(row, "a hold stops what is released", f"nothing while hold {held.hold_id!r} stands", row.type))
    state.books.sources_due = [source]
    try:
        drafts = ledger_decide.decide(state.books, commands.ReleaseDue(row.occurred_us, 1))
    finally:
        state.books.sources_due = None
    assert isinstance(drafts, list)
    if not drafts or not drafts[0].decision.due:
        raise Bad(_finding(row, "nothing of this source is due", "no entry", row.type))
    return drafts


def _opening(row: Stored) -> Draft:
    """The program's own entry is told, not decided; it stands first and nowhere else."""
    stream = f"program/{row.program_id}"
    if row.position != 1 or row.stream != stream or row.decision:
        raise Bad(_finding(row, "a program is opened once, by the first entry", f"{stream} at position 1", f"{row.stream}"))
    return Draft(stream, ledger_codec.read(row).fact, None, row.occurred_us)


def _written(draft: Draft) -> tuple[str, bytes, bytes]:
    """(type, fact, decision) as the service that decides would store it."""
    if type(draft.fact).__module__ == referral_facts.__name__:
        return referral_codec.write(draft)
    return ledger_codec.write(draft)


def _compare_all(drafted: Drafted) -> None:
    """Compares what was drafted with what is recorded, and forgets it. Raises Bad with the first that differs."""
    for row, draft in drafted:
        _compare(row, draft)
    drafted.clear()


def _compare(row: Stored, draft: Draft) -> None:
    if row.type == PROGRAM:
        fact = log_pb2.ProgramCreated(currency=draft.fact.currency).SerializeToString(deterministic=True)
        written = (PROGRAM, fact, b"")
    else:
        written = _written(draft)
    if (draft.stream, draft.occurred_us, *written) == (row.stream, row.occurred_us, row.type, row.fact, row.decision):
        return
    told: tuple[tuple[str, object, object], ...] = (
        ("stream", draft.stream, row.stream),
        ("type", written[0], row.type),
        ("time it occurred", draft.occurred_us, row.occurred_us),
    )
    for name, wanted, there in told:
        if wanted != there:
            raise Bad(_finding(row, f"the {name} is not what the command gives", str(wanted), str(there)))
    for what, bytes_wanted, bytes_there in (("fact", written[1], row.fact), ("decision", written[2], row.decision)):
        if bytes_wanted != bytes_there:
            place, expected, found = where(row.type, what, bytes_wanted, bytes_there)
            raise Bad(_finding(row, f"{place} of {row.stream} is not what the engine decides", expected, found))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(str(error))}"


def _finding(row: Stored, problem: str, expected: str, found: str) -> Finding:
    return Finding(CHECK, row.position, problem, expected, found)


def every_type() -> Iterable[str]:
    """The types of entries that are decided again."""
    return {PROGRAM, *LEDGER, *REFERRAL, *RELEASES, *FOLLOWING}
