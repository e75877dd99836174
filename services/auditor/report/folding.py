"""The second reading: who stands where and what moved, folded from the stored messages by code of its own.

Memory grows with members, days, plan rules, open holds and corrections, and with orders only between payment and last refund.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fenrun.log.v1 import log_pb2 as pb

from services.auditor.report.sampling import Sample
from services.auditor.report.surveying import CannotReport, Survey
from services.ledger.domain.rules import local_ordinal
from services.runtime.stored import microseconds

COMPANY = frozenset(
    {
        *(pb.ACCOUNT_COMMISSION, pb.ACCOUNT_BREAKAGE, pb.ACCOUNT_ADJUSTMENT, pb.ACCOUNT_WRITE_OFF),
        *(pb.ACCOUNT_CLEARING, pb.ACCOUNT_OPENING),
    }
)
# Types that move no money, no binding and no tier. Any other that is not folded is told as unknown.
SILENT = frozenset(
    {
        *("plan.published.v1", "order.completed.v1", "order.group_formed.v1", "member.role_granted.v1", "member.role_ended.v1"),
        *("group.opened.v1", "group.joined.v1", "group.formed.v1", "group.failed.v1"),
    }
)
# Corrections of bindings, unbalanced entries and the like that are listed one by one; all are counted.
LISTED = 200
# Sides of the books that an entry may move, by account number; 0 is not one.
ACCOUNTS = max(pb.Account.values()) + 1


@dataclass(slots=True)
class Flow:
    """What moved on one day in one asset, minor units (of points: points)."""

    sales: int = 0
    refunded: int = 0
    accrued: int = 0
    reversed: int = 0
    released: int = 0
    requested: int = 0
    paid: int = 0
    failed: int = 0
    adjusted: int = 0
    written_off: int = 0
    breakage: int = 0


@dataclass(slots=True)
class RuleTotal:
    """What a rule gave and took back, by the payee's tier at the time of the order; versions of a plan share a rule of the same id."""

    plan_id: str
    rule_id: str
    kind: str
    asset: str
    versions: list[int] = field(default_factory=list)
    accrued: Counter[str] = field(default_factory=Counter)
    reversed: Counter[str] = field(default_factory=Counter)
    breakage: int = 0


class Source(NamedTuple):
    """What gives income, kept while something may still be taken back from it."""

    plan_position: int
    # The buyer's number; -1 for what is no order.
    buyer: int
    base_minor: int
    # (member, tier) of those the shares count.
    payees: tuple[tuple[str, str], ...]
    # Entries that take back and are still to come.
    to_come: int


@dataclass(slots=True)
class Members:
    """Columns, by a member's number in order of enrolment."""

    ids: list[str] = field(default_factory=list)
    # The number of the one who brought them; -1: nobody.
    referrer: list[int] = field(default_factory=list)
    locked: bytearray = field(default_factory=bytearray)
    tier: list[str] = field(default_factory=list)
    frozen: bytearray = field(default_factory=bytearray)
    # Base of their orders less refunds, minor units.
    own: list[int] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    # Given by rules less what was taken back, in the program's currency.
    earned: list[int] = field(default_factory=list)
    # {(asset, account): balance by number}; shorter than the others where the last ones have none.
    balances: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def balance(self, number: int, asset: str, account: int) -> int:
        column = self.balances.get((asset, account), ())
        return column[number] if number < len(column) else 0


@dataclass(frozen=True, slots=True)
class Correction:
    """A locked binding that was moved."""

    position: int
    occurred_us: int
    member_id: str
    from_id: str
    to_id: str
    reason: str
    requested_by: str
    approved_by: str


@dataclass(frozen=True, slots=True)
class Hold:
    hold_id: str
    position: int
    placed_us: int
    member_id: str
    order_id: str
    reason: str


class Fold:
    """Give it every entry in order. `add` raises CannotReport at the first that makes no sense."""

    def __init__(self, survey: Survey, sample: Sample) -> None:
        self._sample, self._taken_back, self._zone_us = sample, survey.taken_back, survey.zone_us
        self.program_id = self.currency = ""
        self.first, self.last = 0, 0
        self.head_hash = bytes(32)
        self.first_us, self.recorded_us = 0, 0
        self.types: Counter[str] = Counter()
        self.members = Members()
        self.numbers: dict[str, int] = {}
        self.totals: Counter[tuple[str, int]] = Counter()
        # {(asset, local day as an ordinal): Flow}
        self.days: dict[tuple[str, int], Flow] = {}
        self.rules: dict[tuple[str, str], RuleTotal] = {}
        self._rules_at: dict[int, list[RuleTotal]] = {}
        self.holds: dict[str, Hold] = {}
        self.corrections: list[Correction] = []
        # Locks that a full refund opened again; positions where one fell twice; (position, asset, sum) of entries that do not balance.
        self.unlocked = 0
        self.locked_twice: list[int] = []
        self.unbalanced: list[tuple[int, str, int]] = []
        self._seats: dict[int, tuple[int, str]] = {}
        # By stream, while something of it is still to be taken back.
        self.sources: dict[str, Source] = {}
        for version in survey.plans:
            self._rules_at[version.position] = [
                self._rule(version.plan.plan_id, version.plan.version, rule.id, rule.kind, version.plan.asset_of(rule))
                for rule in version.plan.rules
            ]
        self._takes: dict[str, Callable[[pb.Entry], None]] = {
            "program.created.v1": self._created,
            "member.enrolled.v1": self._enrolled,
            "member.touched.v1": self._touched,
            "member.upgraded.v1": self._upgraded,
            "member.binding_corrected.v1": self._corrected,
            "order.paid.v1": self._paid,
            "order.refunded.v1": self._refunded,
            "order.voided.v1": self._voided,
            "order.released.v1": self._released,
            "reward.released.v1": self._released,
            "task.done.v1": self._task,
            "period.closed.v1": self._period,
            "period.corrected.v1": self._period_corrected,
            "payout.requested.v1": self._moved,
            "payout.paid.v1": self._moved,
            "payout.failed.v1": self._moved,
            "adjustment.posted.v1": self._moved,
            "deposit.moved.v1": self._moved,
            "stock.transferred.v1": self._moved,
            "balance.opened.v1": self._opened,
            "hold.placed.v1": self._hold_placed,
            "hold.lifted.v1": self._hold_lifted,
        }

    def add(self, entry: pb.Entry) -> None:
        take = self._takes.get(entry.type)
        try:
            if take is not None:
                take(entry)
        except CannotReport:
            raise
        except Exception as problem:  # whatever forged bytes bring about is told, not a crash
            raise CannotReport(f"the entry at position {entry.position} cannot be read: {type(problem).__name__}: {problem}") from None
        self.types[entry.type] += 1
        self.last, self.head_hash, self.recorded_us = entry.position, entry.hash, microseconds(entry.recorded_at)
        if not self.first:
            self.first, self.first_us = entry.position, self.recorded_us
            self.program_id = entry.program_id

    @property
    def unknown(self) -> dict[str, int]:
        """{type: entries} of types that this version does not know; no figure has them."""
        return {name: count for name, count in sorted(self.types.items()) if name not in self._takes and name not in SILENT}

    def finish(self) -> None:
        """Seats that have ended by the time of the last entry count no more."""
        for number, (until_us, fallback) in self._seats.items():
            if until_us <= self.recorded_us:
                self.members.tier[number] = fallback
        self._seats.clear()

    # ------------------------------------------------------------ members

    def _created(self, entry: pb.Entry) -> None:
        self.currency = pb.ProgramCreated.FromString(entry.fact).currency

    def number(self, entry: pb.Entry, member_id: str) -> int:
        found = self.numbers.get(member_id)
        if found is None:
            raise CannotReport(f"the entry at position {entry.position} names {member_id!r}, who was never enrolled")
        return found

    def _referrer(self, entry: pb.Entry, member_id: str) -> int:
        return self.number(entry, member_id) if member_id else -1

    def _enrolled(self, entry: pb.Entry) -> None:
        fact = pb.MemberEnrolled.FromString(entry.fact)
        if fact.member_id in self.numbers:
            raise CannotReport(f"the entry at position {entry.position} enrols {fact.member_id!r} a second time")
        members, referrer = self.members, self._referrer(entry, fact.referrer_id)
        self.numbers[fact.member_id] = len(members.ids)
        members.ids.append(fact.member_id)
        members.referrer.append(referrer)
        members.locked.append(0)
        members.tier.append("")
        members.frozen.append(0)
        for column in (members.own, members.orders, members.earned):
            column.append(0)

    def _touched(self, entry: pb.Entry) -> None:
        if pb.MemberTouchedDecision.FromString(entry.decision).counts:
            fact = pb.MemberTouched.FromString(entry.fact)
            self.members.referrer[self.number(entry, fact.member_id)] = self._referrer(entry, fact.referrer_id)

    def _upgraded(self, entry: pb.Entry) -> None:
        fact, decision = pb.MemberUpgraded.FromString(entry.fact), pb.MemberUpgradedDecision.FromString(entry.decision)
        number = self.number(entry, fact.member_id)
        self._stands(number, fact.tier)
        if fact.HasField("expires_at"):
            self._seats[number] = (microseconds(fact.expires_at), decision.previous_tier)
        self._lock(entry, decision)

    def _stands(self, number: int, tier: str) -> None:
        self.members.tier[number] = tier
        self.members.frozen[number] = 0
        self._seats.pop(number, None)

    def _change_tiers(self, entry: pb.Entry, changes: Iterable[pb.TierChange]) -> None:
        for change in changes:
            number = self.number(entry, change.member_id)
            if change.kind == pb.TIER_CHANGE_KIND_FROZEN:
                self.members.frozen[number] = 1
                self._seats.pop(number, None)
            else:
                self._stands(number, change.tier)

    def _lock(self, entry: pb.Entry, decision: pb.OrderPaidDecision | pb.MemberUpgradedDecision) -> None:
        if decision.HasField("binding_locked"):
            lock = decision.binding_locked
            number = self.number(entry, lock.member_id)
            if self.members.locked[number]:
                self.locked_twice.append(entry.position)
            self.members.locked[number] = 1
            self.members.referrer[number] = self._referrer(entry, lock.referrer_id)

    def _unlock(self, entry: pb.Entry, member_id: str) -> None:
        if member_id:
            self.members.locked[self.number(entry, member_id)] = 0
            self.unlocked += 1

    def _corrected(self, entry: pb.Entry) -> None:
        fact = pb.BindingCorrected.FromString(entry.fact)
        number = self.number(entry, fact.member_id)
        before = pb.BindingCorrectedDecision.FromString(entry.decision).previous_referrer_id
        self.members.referrer[number] = self._referrer(entry, fact.referrer_id)
        self.members.locked[number] = 1
        if len(self.corrections) < LISTED:
            told = (fact.member_id, before, fact.referrer_id, fact.reason, fact.requested_by, fact.approved_by)
            self.corrections.append(Correction(entry.position, microseconds(entry.occurred_at), *told))

    # ------------------------------------------------------------ what gives income, and what takes it back

    def _rule(self, plan_id: str, version: int, rule_id: str, kind: str, asset: str) -> RuleTotal:
        total = self.rules.setdefault((plan_id, rule_id), RuleTotal(plan_id, rule_id, kind, asset))
        total.versions.append(version)
        return total

    def _paid(self, entry: pb.Entry) -> None:
        fact, decision = pb.OrderPaid.FromString(entry.fact), pb.OrderPaidDecision.FromString(entry.decision)
        buyer = self.number(entry, fact.member_id)
        base_minor = sum(line.base_minor for line in fact.lines)
        self.members.own[buyer] += base_minor
        self.members.orders[buyer] += 1
        self._lock(entry, decision)
        self._change_tiers(entry, decision.tier_changes)
        payees = tuple((person.member_id, person.tier) for person in decision.people)
        source = Source(decision.plan_position, buyer, base_minor, payees, self._taken_back.get(entry.stream, 0))
        if source.to_come:
            self.sources[entry.stream] = source
        shares = [share for line in decision.lines for share in line.shares]
        self._give(entry, source, shares, decision.postings)
        self._flow(entry, self.currency).sales += base_minor

    def _task(self, entry: pb.Entry) -> None:
        decision = pb.TaskDoneDecision.FromString(entry.decision)
        payees = tuple((person.member_id, person.tier) for person in decision.people)
        shares = [share for line in decision.lines for share in line.shares]
        self._give(entry, Source(decision.plan_position, -1, 0, payees, 0), shares, decision.postings)

    def _period(self, entry: pb.Entry) -> None:
        decision = pb.PeriodClosedDecision.FromString(entry.decision)
        payees = tuple((person.member_id, person.tier) for person in decision.people)
        source = Source(decision.plan_position, -1, 0, payees, self._taken_back.get(entry.stream, 0))
        if source.to_come:
            self.sources[entry.stream] = source
        self._give(entry, source, decision.shares, decision.postings)

    def _give(self, entry: pb.Entry, source: Source, shares: Sequence[pb.Share], postings: Sequence[pb.Posting]) -> None:
        self._count_shares(entry, source, shares, postings, False)
        for asset, moved in self._post(entry, postings, earned=True).items():
            flow, net = self._flow(entry, asset), sum(moved[pb.ACCOUNT_PENDING : pb.ACCOUNT_DEBT + 1])
            flow.accrued += net
            # What is paid at once was never pending.
            flow.released += net - moved[pb.ACCOUNT_PENDING]
            flow.breakage += moved[pb.ACCOUNT_BREAKAGE]

    def _take_back(self, entry: pb.Entry, base_minor: int | None, shares: Sequence[pb.Share], postings: Sequence[pb.Posting]) -> None:
        """`base_minor`: what goes of an order's base; None: all that is left."""
        source = self.sources.pop(entry.stream, None)
        if source is None:
            raise CannotReport(f"the entry at position {entry.position} takes back from {entry.stream}, which is not there")
        gone = source.base_minor if base_minor is None else base_minor
        if source.to_come > 1:
            self.sources[entry.stream] = source._replace(base_minor=source.base_minor - gone, to_come=source.to_come - 1)
        if source.buyer >= 0:
            self.members.own[source.buyer] -= gone
            self._flow(entry, self.currency).refunded += gone
        self._count_shares(entry, source, shares, postings, True)
        for asset, moved in self._post(entry, postings, earned=True).items():
            flow, net = self._flow(entry, asset), sum(moved[pb.ACCOUNT_PENDING : pb.ACCOUNT_DEBT + 1])
            flow.reversed -= net
            flow.breakage += moved[pb.ACCOUNT_BREAKAGE]

    def _refunded(self, entry: pb.Entry) -> None:
        fact, decision = pb.OrderRefunded.FromString(entry.fact), pb.OrderRefundedDecision.FromString(entry.decision)
        self._reverse(entry, sum(line.base_minor for line in fact.lines), decision)

    def _voided(self, entry: pb.Entry) -> None:
        self._reverse(entry, None, pb.OrderRefundedDecision.FromString(entry.decision))

    def _reverse(self, entry: pb.Entry, base_minor: int | None, decision: pb.OrderRefundedDecision) -> None:
        self._take_back(entry, base_minor, [share for line in decision.lines for share in line.shares], decision.postings)
        self._unlock(entry, decision.binding_released_member_id)
        self._change_tiers(entry, decision.tier_changes)

    def _period_corrected(self, entry: pb.Entry) -> None:
        decision = pb.PeriodCorrectedDecision.FromString(entry.decision)
        self._take_back(entry, 0, decision.shares, decision.postings)
        # A period that is computed again may also give a member more: that is accrued, and nothing is reversed for them.
        nets: Counter[tuple[str, str]] = Counter()
        for posting in decision.postings:
            if posting.account not in COMPANY:
                nets[(posting.member_id, posting.asset)] += posting.amount_minor
        for (_, asset), net in nets.items():
            if net > 0:
                flow = self._flow(entry, asset)
                flow.accrued += net
                flow.reversed += net

    def _count_shares(
        self, entry: pb.Entry, source: Source, shares: Sequence[pb.Share], postings: Sequence[pb.Posting], taking: bool
    ) -> None:
        rules, offered = self._rules_at[source.plan_position], []
        for share in shares:
            total, amount = rules[share.rule_index], share.amount_minor
            if not share.payee:
                total.breakage += amount
                offered.append((share.rule_index, "", total.asset))
                continue
            member_id, tier = source.payees[share.payee - 1]
            if taking and amount < 0:
                total.reversed[tier] -= amount
            else:
                total.accrued[tier] += amount
            offered.append((share.rule_index, member_id, total.asset))
        self._sample.shares(entry, source.plan_position, offered, postings)

    # ------------------------------------------------------------ what only moves money

    def _released(self, entry: pb.Entry) -> None:
        decision = pb.OrderReleasedDecision.FromString(entry.decision)
        self._sample.postings(entry, decision.postings)
        for asset, moved in self._post(entry, decision.postings).items():
            self._flow(entry, asset).released -= moved[pb.ACCOUNT_PENDING]

    def _moved(self, entry: pb.Entry) -> None:
        decision = pb.MovementDecision.FromString(entry.decision)
        self._sample.postings(entry, decision.postings)
        for asset, moved in self._post(entry, decision.postings).items():
            flow = self._flow(entry, asset)
            if entry.type == "payout.requested.v1":
                flow.requested += moved[pb.ACCOUNT_RESERVED]
            elif entry.type == "payout.paid.v1":
                flow.paid += moved[pb.ACCOUNT_PAID]
            elif entry.type == "payout.failed.v1":
                flow.failed -= moved[pb.ACCOUNT_RESERVED]
            else:
                flow.written_off -= moved[pb.ACCOUNT_WRITE_OFF]
                flow.adjusted -= moved[pb.ACCOUNT_ADJUSTMENT]

    def _opened(self, entry: pb.Entry) -> None:
        decision = pb.BalanceOpenedDecision.FromString(entry.decision)
        self._sample.postings(entry, decision.postings)
        for asset, moved in self._post(entry, decision.postings).items():
            self._flow(entry, asset).adjusted -= moved[pb.ACCOUNT_OPENING]

    def _post(self, entry: pb.Entry, postings: Iterable[pb.Posting], earned: bool = False) -> dict[str, list[int]]:
        """Moves balances. Gives {asset: what moved, by account}."""
        found: dict[str, list[int]] = {}
        members, currency = self.members, self.currency
        for posting in postings:
            account, amount, asset = posting.account, posting.amount_minor, posting.asset
            moved = found.get(asset)
            if moved is None:
                moved = found[asset] = [0] * ACCOUNTS
            moved[account] += amount
            self.totals[(asset, account)] += amount
            if account not in COMPANY:
                number = self.number(entry, posting.member_id)
                column = members.balances.setdefault((asset, account), [])
                if number >= len(column):
                    column.extend([0] * (number + 1 - len(column)))
                column[number] += amount
                if earned and asset == currency:
                    members.earned[number] += amount
        for asset, moved in found.items():
            if sum(moved) and len(self.unbalanced) < LISTED:
                self.unbalanced.append((entry.position, asset, sum(moved)))
        return found

    def _flow(self, entry: pb.Entry, asset: str) -> Flow:
        key = (asset, local_ordinal(microseconds(entry.occurred_at), self._zone_us))
        found = self.days.get(key)
        if found is None:
            found = self.days[key] = Flow()
        return found

    # ------------------------------------------------------------ holds

    def _hold_placed(self, entry: pb.Entry) -> None:
        fact = pb.HoldPlaced.FromString(entry.fact)
        placed_us = microseconds(entry.occurred_at)
        self.holds[fact.hold_id] = Hold(fact.hold_id, entry.position, placed_us, fact.member_id, fact.order_id, fact.reason)

    def _hold_lifted(self, entry: pb.Entry) -> None:
        self.holds.pop(pb.HoldLifted.FromString(entry.fact).hold_id, None)
