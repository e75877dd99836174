"""Simulating a draft: recorded facts told again under it, beside the books; what would have been earned instead. Records nothing.

Two sides are folded entry by entry. The recorded side adds up what decisions gave, as they stand in the log. The other side is a *shadow*:
complete Books in which the draft is in force for everything paid in the window, and in which facts are decided again.

- Up to the first fact that the draft decides, the shadow takes the recorded decisions as they are; from there on it takes its own.
- Who is bound to whom, touches, upgrades and roles come from the log as told. Promotions and demotions that recorded orders and refunds
  brought are the recorded plan's doing: in the shadow the draft's own count instead.
- Completions, releases, holds, payouts, adjustments, deposits, stock and openings say when money moves, not what is earned: left out.
- What the draft would refuse is counted and left out, and the rest goes on: an upgrade to a tier it does not name, the closing of a
  period it does not know.
- A shadow entry stands at the position of the recorded entry that told its fact, so that bindings, roles and evidence, which are known by
  position, mean the same on both sides.

Counted is what was paid in the window, with all that followed on it whenever that was, tasks done in it, and periods that began in it.
Of everything else only the *difference* counts, on the simulated side: what a promotion by the draft changes in an order paid later.

Memory: members, counters and periods, and of orders only those that a later entry comes back to (`returning`). That is safe because a log
never tells a fact twice: an order that no refund and no group comes back to is not looked at again. Measured on 20,000 orders of two lines
by 2,000 members, each order completed, every tenth refunded (44,002 entries; entries per second of processor time, reading included):

| plan                                                           |       entries/s | memory | with every order kept |
| two generations                                                | 13,200 – 15,300 |  7 MiB |                60 MiB |
| caps by period, differential, counted, promotions over 30 days |   4,200 – 5,000 | 22 MiB |                89 MiB |
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from services.kernel.decider import Draft, Entry, altered
from services.kernel.refusals import Refusal
from services.kernel.times import EARLIEST_US
from services.ledger.domain import commands as c
from services.ledger.domain import facts as f
from services.ledger.domain.books import Books, evolve, tier_changes
from services.ledger.domain.decide import decide
from services.ledger.domain.plan import Plan, PlanVersion

# Where the draft stands in the shadow: behind every version of the log, however long that is.
DRAFT_POSITION = 2**63 - 1
# Facts that are told by others, as they are.
AS_TOLD = (f.ProgramCreated, f.MemberEnrolled, f.MemberTouched, f.BindingCorrected, f.RoleGranted, f.RoleEnded)
# Facts that come with another one, whose decision tells them again.
DERIVED = (f.GroupJoined, f.OrderGroupFormed, f.OrderVoided, f.PeriodCorrected)
CAUSES = (f.OrderPaid, f.OrderRefunded, f.GroupOpened, f.GroupFormed, f.GroupFailed, f.TaskDone, f.PeriodClosed)
# Facts that come back to an order; `returning` counts them.
RETURNING = (f.OrderRefunded, f.OrderVoided, f.OrderGroupFormed)


class Total(NamedTuple):
    """One asset. Orders, refunds, base (in the program's currency, less what was refunded or voided) and refused facts have none."""

    asset: str
    orders: int
    refunds: int
    base_minor: int
    recorded_minor: int
    simulated_minor: int
    recorded_breakage_minor: int
    simulated_breakage_minor: int
    refused: int


class Row(NamedTuple):
    """What a rule gave people, or a member earned, in one asset."""

    key: str
    asset: str
    recorded_minor: int
    simulated_minor: int


@dataclass(frozen=True, slots=True)
class Report:
    # The program's currency, then points that anything was given in.
    totals: tuple[Total, ...]
    # The draft's rules in their order, then those of the versions it stands in for, then others that differ.
    by_rule: tuple[Row, ...]
    # Who earned or differs, the largest difference first, then by id.
    by_member: tuple[Row, ...]


class Source(NamedTuple):
    """What shares refer to: the plan whose rules they count, the people they count. `inside`: counted in full."""

    plan: Plan
    members: tuple[str, ...]
    inside: bool


@dataclass(slots=True)
class Earned:
    """Shares summed up. The asset is empty for money."""

    by_rule: dict[tuple[str, str], int] = field(default_factory=dict)
    by_member: dict[tuple[str, str], int] = field(default_factory=dict)
    breakage: dict[str, int] = field(default_factory=dict)

    def add(self, source: Source, shares: Iterable[f.Share], sign: int) -> None:
        for rule_index, payee, amount in shares:
            rule = source.plan.rules[rule_index]
            if not payee:
                self.breakage[rule.asset] = self.breakage.get(rule.asset, 0) + sign * amount
                continue
            by_rule, by_member = (rule.id, rule.asset), (source.members[payee - 1], rule.asset)
            self.by_rule[by_rule] = self.by_rule.get(by_rule, 0) + sign * amount
            self.by_member[by_member] = self.by_member.get(by_member, 0) + sign * amount


class Simulation:
    """Give it every entry of a log, in order, and then ask for the report.

    `returning` says how many refunds, voidings and group formations the log holds for an order's stream (none: left out), so that the
    others can be let go at once; None keeps them all.
    """

    def __init__(
        self, draft: Plan, from_us: int | None = None, to_us: int | None = None, returning: Mapping[str, int] | None = None
    ) -> None:
        # In force where it is asked to be, whatever its own `effective` says.
        self._draft = PlanVersion(draft, DRAFT_POSITION, EARLIEST_US if from_us is None else from_us, to_us, b"")
        self._shadow = Books(plans=[self._draft], booked=None)
        self._left = None if returning is None else dict(returning)
        # From the first fact on that the draft decides, the two sides may differ.
        self._diverged = False
        self._plans: dict[int, PlanVersion] = {}
        # As recorded, promotions included.
        self._tiers: dict[str, str] = {}
        self._sources: dict[str, Source] = {}
        self._shadow_sources: dict[str, Source] = {}
        # Of orders that count and may come back: what remains of their base.
        self._remaining: dict[str, int] = {}
        self._recorded, self._simulated = Earned(), Earned()
        self._rules: dict[tuple[str, str], None] = dict.fromkeys((rule.id, rule.asset) for rule in draft.rules)
        self._orders = self._refunds = self._base_minor = self._refused = 0

    @property
    def streams_held(self) -> int:
        """Streams the shadow still holds: what memory grows by."""
        return len(self._shadow.streams)

    def add(self, entry: Entry) -> None:
        """Takes in the next entry of the log."""
        fact = entry.fact
        if isinstance(fact, (*CAUSES, *DERIVED)):
            self._diverged = self._diverged or self._concerns(entry)
            self._record(entry)
            if self._diverged:
                self._tell_again(entry)
            else:
                self._take_over(entry)
            self._let_go(entry)
        elif isinstance(fact, AS_TOLD):
            evolve(self._shadow, entry)
        elif isinstance(fact, f.MemberUpgraded):
            self._upgrade(entry, fact)
        elif isinstance(fact, f.PlanPublished):
            evolve(self._shadow, entry)
            version = self._plans[entry.position] = self._shadow.plans.pop()
            self._shadow.plans.remove(self._draft)
            self._shadow.plans += [*self._beside(version), self._draft]
        for change in tier_changes(entry):
            if change.kind is not f.TierChangeKind.FROZEN:
                self._tiers[change.member_id] = change.tier

    def _beside(self, version: PlanVersion) -> list[PlanVersion]:
        """A recorded version as it is in force where the draft is: one that would come into force meanwhile waits for the draft's end, as
        closing a period also asks what came into force in it."""
        if not self._draft.in_force(version.effective_from_us):
            return [version]
        ends_us = self._draft.effective_until_us
        if ends_us is None or not (version.effective_until_us is None or ends_us < version.effective_until_us):
            return []
        return [replace(version, effective_from_us=ends_us)]

    # ------------------------------------------------------------ as recorded

    def _concerns(self, entry: Entry) -> bool:
        """Whether the draft decides this fact, or may."""
        match entry.fact:
            case f.OrderPaid() | f.TaskDone():
                return self._draft.in_force(entry.occurred_us)
            case f.PeriodClosed():
                decision, draft = entry.decision, self._draft
                ends_later = draft.effective_until_us is None or decision.starts_us < draft.effective_until_us
                return (draft.effective_from_us < decision.ends_us and ends_later) or draft.in_force(self._began_us(decision))
        return False

    def _record(self, entry: Entry) -> None:
        """Adds up what the entry gave."""
        fact, decision, stream = entry.fact, entry.decision, entry.stream
        match fact:
            case f.OrderPaid():
                source = self._source(entry, self._draft.in_force(entry.occurred_us))
                if source.inside:
                    base = sum(line.base_minor for line in fact.lines)
                    self._orders += 1
                    self._base_minor += base
                    self._remaining[stream] = base
            case f.OrderRefunded() | f.OrderVoided():
                source = self._sources[stream]
                self._refunds += int(source.inside and isinstance(fact, f.OrderRefunded))
                # Of a voided order nothing remains that a refund could take.
                left = self._remaining.pop(stream, 0)
                taken = min(left, sum(line.base_minor for line in fact.lines)) if isinstance(fact, f.OrderRefunded) else left
                self._base_minor -= taken
                if left > taken:
                    self._remaining[stream] = left - taken
            case f.TaskDone():
                source = self._source(entry, self._draft.in_force(entry.occurred_us))
            case f.PeriodClosed():
                source = self._source(entry, self._draft.in_force(self._began_us(decision)))
            case f.PeriodCorrected():
                source = self._sources[stream]
            case _:
                return
        if not self._diverged:
            # Nothing inside comes before the draft decides anything, and what is outside is the same on both sides.
            assert not source.inside
            self._shadow_sources[stream] = source
            return
        for shares in shares_of(decision):
            if source.inside:
                self._recorded.add(source, shares, 1)
            else:
                self._simulated.add(source, shares, -1)

    def _began_us(self, decision: f.PeriodClosedDecision) -> int:
        """When the version that closed a period began to count for it: where none was in force at the beginning, one that came into force
        in it."""
        return max(decision.starts_us, self._plans[decision.plan_position].effective_from_us)

    def _source(self, entry: Entry, inside: bool) -> Source:
        """What a recorded decision's shares refer to, kept for what may follow on it."""
        plan = self._plans[entry.decision.plan_position].plan
        source = self._sources[entry.stream] = Source(plan, _ids(entry.decision.people), inside)
        if inside:
            self._rules.update(dict.fromkeys((rule.id, rule.asset) for rule in plan.rules))
        return source

    # ------------------------------------------------------------ in the shadow

    def _take_over(self, entry: Entry) -> None:
        """The recorded decision, while nothing differs."""
        self._evolve(entry._replace(decision=_without_money(entry.decision)))

    def _tell_again(self, entry: Entry) -> None:
        """Decides a fact anew."""
        if isinstance(entry.fact, DERIVED):
            return
        lock = entry.decision.binding_locked if isinstance(entry.fact, f.OrderPaid) else None
        if lock is not None:
            self._open(lock)
        # What is decided next stands where the fact stood.
        self._shadow.position = entry.position - 1
        try:
            drafts = decide(self._shadow, _command(entry))
            assert isinstance(drafts, list), "a log tells no fact twice"
        except Refusal:
            self._refused += 1
            if lock is not None:
                self._lock(lock, entry.position)
            if isinstance(entry.fact, f.OrderRefunded):
                self._release(entry.decision.binding_released_member_id)
            return
        for draft in drafts:
            decision = draft.decision
            if isinstance(draft.fact, f.OrderRefunded):
                decision = decision._replace(binding_released_member_id=entry.decision.binding_released_member_id)
            told = Entry(entry.position, draft.stream, 0, draft.occurred_us, entry.recorded_us, b"", draft.fact, _without_money(decision))
            source = self._shadow_source(draft)
            if source is not None:
                for shares in shares_of(decision):
                    self._simulated.add(source, shares, 1)
            self._evolve(told)

    def _shadow_source(self, draft: Draft) -> Source | None:
        """What the shares of a draft refer to; None where it has none."""
        if isinstance(draft.fact, f.OrderPaid | f.TaskDone | f.PeriodClosed):
            plan = self._shadow.plan_at(draft.decision.plan_position).plan
            self._shadow_sources[draft.stream] = Source(plan, _ids(draft.decision.people), True)
        return self._shadow_sources.get(draft.stream)

    def _evolve(self, entry: Entry) -> None:
        """Takes an entry into the shadow. Counters, once counted, are not looked at again."""
        evolve(self._shadow, entry)
        if getattr(entry.decision, "counts", ()):
            self._shadow.streams[entry.stream][-1] = entry._replace(decision=altered(entry.decision, counts=()))

    def _let_go(self, entry: Entry) -> None:
        """Forgets a stream that nothing comes back to."""
        fact, stream = entry.fact, entry.stream
        if isinstance(fact, f.TaskDone):
            done = True
        elif self._left is None:
            return
        elif isinstance(fact, f.OrderPaid):
            done = stream not in self._left
        elif isinstance(fact, RETURNING):
            self._left[stream] -= 1
            done = not self._left[stream]
        else:
            return
        if done:
            for held in (self._shadow.streams, self._sources, self._shadow_sources, self._remaining, self._left or {}):
                held.pop(stream, None)
            self._shadow.evidence.pop(stream.removeprefix("order/"), None)

    def _upgrade(self, entry: Entry, fact: f.MemberUpgraded) -> None:
        """An upgrade as told, unless the draft does not name its tier. The tier before it is the one the shadow knows."""
        member = self._shadow.members.get(fact.member_id)
        if self._draft.in_force(entry.occurred_us) and fact.tier not in self._draft.plan.tiers:
            self._refused += 1
            # From here on tiers differ.
            self._diverged = True
            if fact.binding_locked is not None:
                self._lock(fact.binding_locked, entry.position)
        elif member is not None and member.tier != self._tiers.get(fact.member_id, ""):
            evolve(self._shadow, entry._replace(fact=replace(fact, previous_tier=member.tier)))
        else:
            evolve(self._shadow, entry)
        self._tiers[fact.member_id] = fact.tier

    # ------------------------------------------------------------ bindings, as told

    def _open(self, lock: f.BindingLock) -> None:
        """So that the order locks its buyer to whom it locked them, whatever touch counts for the draft."""
        self._change(lock.member_id, locked=False, referrer_id=lock.referrer_id, touch_position=lock.touch_position)

    def _lock(self, lock: f.BindingLock, position: int) -> None:
        self._change(lock.member_id, locked=True, referrer_id=lock.referrer_id, binding_position=position)

    def _release(self, member_id: str) -> None:
        if member_id:
            self._change(member_id, locked=False, binding_position=0)

    def _change(self, member_id: str, **changes: Any) -> None:
        member = self._shadow.members[member_id]
        assert member is not None, "complete books know every member"
        self._shadow.members[member_id] = member._replace(**changes)

    # ------------------------------------------------------------ the answer

    def report(self) -> Report:
        currency = self._shadow.currency or self._draft.plan.currency
        recorded, simulated = self._recorded, self._simulated
        by_rule = [
            Row(key, asset, recorded.by_rule.get((key, asset), 0), simulated.by_rule.get((key, asset), 0))
            for key, asset in {**self._rules, **dict.fromkeys(key for key, amount in simulated.by_rule.items() if amount)}
        ]
        by_member = [
            Row(key, asset, recorded.by_member.get((key, asset), 0), simulated.by_member.get((key, asset), 0))
            for key, asset in {**recorded.by_member, **simulated.by_member}
        ]
        by_member = [row for row in by_member if row.recorded_minor or row.simulated_minor]
        by_member.sort(key=lambda row: (-abs(row.simulated_minor - row.recorded_minor), row.key, row.asset))
        given = [row.asset for row in (*by_rule, *by_member) if row.recorded_minor or row.simulated_minor]
        given += [asset for earned in (recorded, simulated) for asset, amount in earned.breakage.items() if amount]
        totals = [
            Total(
                asset or currency,
                self._orders,
                self._refunds,
                self._base_minor,
                sum(row.recorded_minor for row in by_rule if row.asset == asset),
                sum(row.simulated_minor for row in by_rule if row.asset == asset),
                recorded.breakage.get(asset, 0),
                simulated.breakage.get(asset, 0),
                self._refused,
            )
            for asset in dict.fromkeys(["", *given])
        ]
        return Report(tuple(totals), _named(by_rule, currency), _named(by_member, currency))


def _named(rows: Sequence[Row], currency: str) -> tuple[Row, ...]:
    return tuple(row if row.asset else row._replace(asset=currency) for row in rows)


def shares_of(decision: Any) -> list[Sequence[f.Share]]:
    """The shares of any decision: by line (line 0 is the order as a whole), or of a period."""
    return [*(shares for _, shares in getattr(decision, "lines", ())), getattr(decision, "shares", ())]


def _ids(people: Iterable[f.Person | f.PeriodPerson]) -> tuple[str, ...]:
    return tuple(person.member_id for person in people)


def _without_money(decision: Any) -> Any:
    """A decision as far as what is earned goes: nothing is paid out here, so postings and dates would only take room."""
    if isinstance(decision, f.OrderPaidDecision):
        return decision._replace(postings=())
    if isinstance(decision, f.OrderRefundedDecision | f.TaskDoneDecision | f.PeriodClosedDecision | f.PeriodCorrectedDecision):
        return decision._replace(postings=(), due=())
    return decision._replace(due=()) if isinstance(decision, f.OrderCompletedDecision) else decision


def _command(entry: Entry) -> c.Command:
    """The command that tells a fact again."""
    fact, at_us = entry.fact, entry.occurred_us
    match fact:
        case f.OrderPaid():
            # Whom the code on the order bound is told already.
            return c.RecordOrder(fact._replace(referrer_id="") if fact.referrer_id else fact, at_us)
        case f.OrderRefunded():
            return c.RefundOrder(fact, at_us)
        case f.GroupOpened():
            return c.OpenGroup(fact, at_us)
        case f.GroupFormed():
            return c.FormGroup(fact, at_us)
        case f.GroupFailed():
            return c.FailGroup(fact, at_us)
        case f.TaskDone():
            return c.RecordTask(fact, at_us)
        case f.PeriodClosed():
            return c.ClosePeriod(fact, at_us)
    raise AssertionError(f"{type(fact).__name__} is not told again")
