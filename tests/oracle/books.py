"""What a log of accepted facts amounts to: walked fact by fact, deliberately plain. It never refuses; oracle.py does that before.

Nothing is posted from account to account. Available and debt are the two sides of one net figure per member and asset: every way in
settles debt first, every way out takes what is available first. An entitlement is worked out anew from what remains; only what is still
pending is kept apart, by source (an order, a period, a task, an opening), payee, asset and time of release.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import assert_never, cast

from tests.oracle.facts import (
    ADJUST_CORRECTION,
    DAY_NS,
    DEPOSIT_PAID_IN,
    EVIDENCE_PAID_ORDER,
    EVIDENCE_SEAT_GRANTED,
    KIND_GIFT_PACK,
    TIER_DEMOTED,
    TIER_FROZEN,
    TIER_PROMOTED,
    Adjust,
    Balance,
    ClosePeriod,
    Company,
    Complete,
    ConfirmPayout,
    Correct,
    CreateProgram,
    Detail,
    EndRole,
    Enroll,
    Fact,
    FailGroup,
    FailPayout,
    FormGroup,
    GrantRole,
    LiftHold,
    Lock,
    MoveDeposit,
    OpenBalance,
    OpenGroup,
    Order,
    PeriodResult,
    PlaceHold,
    PublishPlan,
    RecordTask,
    Refund,
    Released,
    RequestPayout,
    SealBooks,
    TierChanged,
    Touch,
    TransferStock,
    Upgrade,
)
from tests.oracle.periods import People, Period, period_at, period_named, rule_for_period
from tests.oracle.plan import Condition, Plan, Release, Rule, day_number, read_plan
from tests.oracle.shares import Holder, Remaining, Scene, Share, a_match_lives, any_lives, counted, lives, shares_of

US = 1000
Earned = Mapping[tuple[str, str], int]  # (payee, asset) -> amount


@dataclass(frozen=True)
class Binding:
    """Who brought a member. Open: referrer_id is the candidate.

    locking_order is the order whose recording let the lock fall; empty when an upgrade did, or once the binding was corrected.
    """

    locked: bool = False
    referrer_id: str = ""
    touch_position: int = 0
    position: int = 0
    locking_order: str = ""


@dataclass(frozen=True)
class Standing:
    """The tier somebody was put into, why, and what they had before."""

    tier: str
    position: int
    order_id: str = ""  # the order it rests on
    seat: bool = False
    expires_at: int = 0
    frozen: bool = False
    before: Standing | None = None

    def at(self, time: int) -> Standing | None:
        """What counts at a time: a seat that has expired gives way to what was before."""
        if self.expires_at and self.expires_at <= time:
            return self.before.at(time) if self.before else None
        return self


@dataclass(frozen=True)
class Who:
    """Somebody on the path of an order, as they stood."""

    member_id: str
    tier: str
    binding_position: int
    tier_position: int


@dataclass
class Source:
    """What is still pending from something: (payee, asset, when) -> amount. `when` is a time, or what the rule says of it."""

    stream: str
    since: int  # when what is given at once is due, where a hold stops it
    pending: Counter[tuple[str, str, object]] = field(default_factory=Counter)
    released: set[tuple[str, str, object]] = field(default_factory=set)

    def copied(self) -> Source:
        """One that goes on by itself."""
        other = copy(self)
        other.pending, other.released = Counter(self.pending), set(self.released)
        return other


@dataclass
class OrderBook:
    """An order, what was frozen with it and what became of it."""

    order: Order
    position: int
    plan_position: int
    plan: Plan
    people: tuple[Who, ...]
    source: Source
    told_remaining: dict[int, tuple[int, int]]
    scene: Scene
    period_id: str = ""
    completed_at: int | None = None
    voided: bool = False
    shares: dict[tuple[int, str, str], int] = field(default_factory=dict)
    positions: list[int] = field(default_factory=list)

    @property
    def remaining(self) -> dict[int, tuple[int, int]]:
        """What remains of each line for the rules: of an order whose group failed, nothing."""
        return dict.fromkeys(self.told_remaining, (0, 0)) if self.voided else self.told_remaining

    def inviter(self) -> str:
        """The person at level 1; empty: nobody."""
        return self.people[1].member_id if len(self.people) > 1 else ""

    def alive(self) -> bool:
        """Whether something remains of it."""
        return any_lives(self.order, self.remaining)

    def volume(self) -> int:
        """The base that remains of all its lines."""
        return sum(base for base, _ in self.remaining.values())

    def copied(self) -> OrderBook:
        """One that goes on by itself."""
        other = copy(self)
        other.source, other.told_remaining, other.shares = self.source.copied(), dict(self.told_remaining), dict(self.shares)
        other.positions = list(self.positions)
        return other


@dataclass
class GroupBook:
    """A group buy: open, formed or failed."""

    fact: OpenGroup
    state: str = "open"
    closed_at: int = 0
    order_ids: list[str] = field(default_factory=list)


@dataclass
class PeriodBook:
    """A closed period: who stood how, and what its rules give now."""

    period: Period
    closed_at: int
    plan_position: int
    plan: Plan
    people: People
    source: Source
    results: tuple[PeriodResult, ...] = ()
    positions: list[int] = field(default_factory=list)


class Books:
    """The books after some facts. `apply` takes the next one and tells what the answer to it says besides."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.entries: list[tuple[str, str]] = []
        self.history: list[dict[tuple[str, str], Balance]] = [{}]
        self.company_history: list[dict[tuple[str, str], int]] = [{}]
        self.plans: list[tuple[int, PublishPlan, Plan]] = []
        self.members: dict[str, Enroll] = {}
        self.bindings: dict[str, Binding] = {}
        self.standings: dict[str, Standing | None] = {}
        self.grants: dict[str, GrantRole] = {}
        self.ends: dict[str, int] = {}
        self.groups: dict[str, GroupBook] = {}
        self.orders: dict[str, OrderBook] = {}
        self.periods: dict[str, PeriodBook] = {}
        self.rewards: dict[str, Source] = {}
        self.tasks_paid: Counter[tuple[str, str]] = Counter()
        self.holds: dict[str, PlaceHold] = {}
        self.lifted: set[str] = set()
        self.sealed_through: int | None = None
        self.payouts: dict[str, tuple[RequestPayout, str]] = {}
        self.net, self.accrued, self.reversed, self.adjusted = (Counter[tuple[str, str]]() for _ in range(4))
        self.reserved, self.paid = Counter[str](), Counter[str]()
        self.deposits, self.margins = Counter[str](), Counter[str]()
        self.company: Counter[tuple[str, str]] = Counter()  # (account, asset)

    def copied(self) -> Books:
        """Books that hold the same and go on by themselves."""
        other = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | list | set):
                setattr(other, name, copy(value))
        other.orders = {key: book.copied() for key, book in self.orders.items()}
        other.groups = {key: replace(book, order_ids=list(book.order_ids)) for key, book in self.groups.items()}
        other.rewards = {key: source.copied() for key, source in self.rewards.items()}
        other.periods = {
            key: replace(book, positions=list(book.positions), source=other.rewards[book.source.stream])
            for key, book in self.periods.items()
        }
        return other

    @property
    def position(self) -> int:
        """The last entry."""
        return len(self.entries)

    def apply(self, fact: Fact) -> Detail:
        """Takes a fact in."""
        match fact:
            case CreateProgram():
                self._enter("program.created.v1", "program")
            case PublishPlan():
                plan = read_plan(fact.document)
                self.plans.append((self.position + 1, fact, plan))
                self._enter("plan.published.v1", f"plan/{plan.plan_id}")
            case Enroll():
                self.members[fact.member_id] = fact
                touched = self.position + 1 if fact.referrer_id else 0
                self.bindings[fact.member_id] = Binding(referrer_id=fact.referrer_id, touch_position=touched)
                self._enter("member.enrolled.v1", f"member/{fact.member_id}")
            case Touch():
                if self.touch_counts(fact.member_id):
                    self.bindings[fact.member_id] = Binding(referrer_id=fact.referrer_id, touch_position=self.position + 1)
                self._enter("member.touched.v1", f"member/{fact.member_id}")
            case Upgrade():
                return self._upgrade(fact)
            case Correct():
                self.bindings[fact.member_id] = Binding(locked=True, referrer_id=fact.new_referrer_id, position=self.position + 1)
                self._enter("member.binding_corrected.v1", f"member/{fact.member_id}")
            case GrantRole():
                self.grants[fact.grant_id] = fact
                self._enter("member.role_granted.v1", f"member/{fact.member_id}")
            case EndRole():
                self.ends[fact.grant_id] = fact.ended_at
                self._enter("member.role_ended.v1", f"member/{self.grants[fact.grant_id].member_id}")
            case Order():
                return self._order(fact)
            case Complete():
                book = self.orders[fact.order_id]
                book.completed_at = fact.completed_at
                self._enter_order("order.completed.v1", book)
            case Refund():
                return self._refund(fact)
            case OpenGroup():
                self.groups[fact.group_id] = GroupBook(fact)
                self._enter("group.opened.v1", f"group/{fact.group_id}")
            case FormGroup():
                return self._form_group(fact)
            case FailGroup():
                return self._fail_group(fact)
            case RecordTask():
                return self._task(fact)
            case ClosePeriod():
                return self._close_period(fact)
            case SealBooks():
                self.sealed_through = fact.through
                self._enter("books.sealed.v1", f"books/{fact.seal_id}")
            case Released():
                self._release(fact)
            case PlaceHold():
                self.holds[fact.hold_id] = fact
                self._enter("hold.placed.v1", f"hold/{fact.hold_id}")
            case LiftHold():
                self.lifted.add(fact.hold_id)
                self._enter("hold.lifted.v1", f"hold/{fact.hold_id}")
            case RequestPayout():
                self.payouts[fact.payout_id] = (fact, "open")
                self.reserved[fact.member_id] += fact.amount_minor
                self.net[fact.member_id, self.currency] -= fact.amount_minor
                self._enter("payout.requested.v1", f"payout/{fact.payout_id}")
            case ConfirmPayout() | FailPayout():
                self._close_payout(fact)
            case Adjust():
                self.net[fact.member_id, self.currency] += fact.amount_minor
                self.adjusted[fact.member_id, self.currency] += fact.amount_minor
                contra = "adjustment" if fact.kind == ADJUST_CORRECTION else "write_off"
                self.company[contra, self.currency] -= fact.amount_minor
                self._enter("adjustment.posted.v1", f"adjustment/{fact.adjustment_id}")
            case MoveDeposit():
                amount = fact.amount_minor if fact.kind == DEPOSIT_PAID_IN else -fact.amount_minor
                self.deposits[fact.member_id] += amount
                self.company["clearing", self.currency] -= amount
                self._enter("deposit.moved.v1", f"deposit/{fact.deposit_id}")
            case TransferStock():
                margin = sum(line.quantity * (line.unit_price_minor - line.unit_cost_minor) for line in fact.lines)
                self.margins[fact.from_member_id] += margin
                self.company["clearing", self.currency] -= margin
                self._enter("stock.transferred.v1", f"stock/{fact.transfer_id}")
                return {"margin": margin}
            case OpenBalance():
                self._open_balance(fact)
            case _:
                assert_never(fact)
        return {}

    def _enter(self, kind: str, stream: str) -> int:
        """The next entry; whatever moved since the last one moved with it."""
        self.entries.append((kind, stream))
        pending: Counter[tuple[str, str]] = Counter()
        for source in self.sources():
            for (payee, asset, _), amount in source.pending.items():
                pending[payee, asset] += amount
        money = {(member_id, self.currency) for member_id in self.members}
        self.company_history.append(dict(self.company))
        self.history.append({key: self._balance(*key, pending[key]) for key in {*self.net, *self.accrued, *pending, *money}})
        return self.position

    def _enter_order(self, kind: str, book: OrderBook) -> int:
        position = self._enter(kind, f"order/{book.order.order_id}")
        book.positions.append(position)
        return position

    # ---------------------------------------------------------------------------------------------------------------- balances

    def sources(self) -> Iterator[Source]:
        """Everything that something may be released from."""
        yield from (book.source for book in self.orders.values())
        yield from self.rewards.values()

    def _balance(self, member_id: str, asset: str, pending: int) -> Balance:
        key, money = (member_id, asset), asset == self.currency
        return Balance(
            pending=pending,
            available=max(self.net[key], 0),
            reserved=self.reserved[member_id] if money else 0,
            paid=self.paid[member_id] if money else 0,
            debt=max(-self.net[key], 0),
            accrued=self.accrued[key],
            reversed=self.reversed[key],
            adjusted=self.adjusted[key],
            deposit=self.deposits[member_id] if money else 0,
            margin=self.margins[member_id] if money else 0,
        )

    def balance(self, member_id: str, asset: str, position: int | None = None) -> Balance:
        """Where somebody's money of an asset stood right after an entry."""
        return self.history[self.position if position is None else position].get((member_id, asset), Balance())

    def company_accounts(self, asset: str, position: int | None = None) -> Company:
        """The company's accounts of an asset right after an entry."""
        names = ("commission", "breakage", "adjustment", "write_off", "clearing", "opening")
        company = self.company_history[self.position if position is None else position]
        return Company(**{name: company.get((name, asset), 0) for name in names})

    def assets(self) -> list[str]:
        """The program's currency, then all points that a published plan declares."""
        return [self.currency, *sorted({points for _, _, plan in self.plans for points in plan.points})]

    def _asset(self, rule: Rule) -> str:
        return rule.asset or self.currency

    def _give(self, source: Source, changes: Mapping[tuple[str, str, object], int]) -> dict[tuple[str, str], int]:
        """Books changes of what a source gives, by payee, asset and time of release; what each payee has more now.

        What is given at once, or more of what was released, waits while the payee is held. What is taken back comes from what waits first.
        """
        sums: Counter[tuple[str, str]] = Counter()
        for key, change in changes.items():
            payee, asset, when = key
            sums[payee, asset] += change
            waits = when != "at once" and key not in source.released
            stopped = change > 0 and ("member", payee) in self.held()
            if waits or stopped or source.pending[key]:
                pending = source.pending[key] + change
                source.pending[key] = max(pending, 0)
                self.net[payee, asset] += min(pending, 0)
            else:
                self.net[payee, asset] += change
        return {key: change for key, change in sums.items() if change}

    def _cost(self, asset: str, pool: int, breakage: int) -> None:
        self.company["commission", asset] -= pool
        self.company["breakage", asset] += breakage

    # ------------------------------------------------------------------------------------------------------------ plans, people

    def plan_in_force(self, at: int) -> tuple[int, Plan] | None:
        """The newest version, by its place in the log, that is in force at that time."""
        found = [(position, plan) for position, fact, plan in self.plans if plan.in_force(fact.published_at, at)]
        return found[-1] if found else None

    def touch_counts(self, member_id: str) -> bool:
        """Whether a touch would now become what a lock falls to."""
        binding = self.bindings.get(member_id, Binding())
        keeps_first = bool(self.plans) and self.plans[-1][2].touch == "first"
        return not binding.locked and not (keeps_first and binding.referrer_id)

    def code_counts(self, order: Order) -> bool:
        """Whether the code on an order decides whom its buyer is locked to."""
        found = self.plan_in_force(order.paid_at)
        open_still = not self.bindings.get(order.member_id, Binding()).locked
        return bool(order.referrer_id) and open_still and found is not None and found[1].touch == "order"

    def closes_cycle(self, member_id: str, referrer_id: str) -> bool:
        """Whether the member already stands somewhere above the one who would be their referrer."""
        above = referrer_id
        while above in self.bindings:
            if above == member_id:
                return True
            above = self.bindings[above].referrer_id
        return False

    def upline(self, member_id: str) -> list[str]:
        """The locked path up, nearest first."""
        path: list[str] = []
        while self.bindings[member_id].locked and self.bindings[member_id].referrer_id:
            member_id = self.bindings[member_id].referrer_id
            path.append(member_id)
        return path

    def standing(self, member_id: str, at: int) -> Standing | None:
        """The tier that somebody stands in at a time, as the log has it now."""
        newest = self.standings.get(member_id)
        return newest.at(at) if newest else None

    def tier(self, member_id: str, at: int) -> str:
        """The tier that counts at a time; empty: none, or frozen."""
        standing = self.standing(member_id, at)
        return "" if standing is None or standing.frozen else standing.tier

    def _lock(self, member_id: str, order: Order | None = None) -> Lock | None:
        """Lets the lock fall with the next entry, if it is still open."""
        was = self.bindings[member_id]
        if was.locked:
            return None
        if order is not None and self.code_counts(order):
            was = Binding(referrer_id=order.referrer_id, touch_position=self.position + 1)
        by_order = order.order_id if order else ""
        self.bindings[member_id] = replace(was, locked=True, position=self.position + 1, locking_order=by_order)
        return Lock(member_id, was.referrer_id, was.touch_position)

    def behind(self, member_id: str) -> Standing | None:
        """What a seat for a time, or a promotion, leads back to: never another seat for a time, which is given up."""
        newest = self.standings.get(member_id)
        while newest is not None and newest.expires_at and not newest.frozen:
            newest = newest.before
        return replace(newest, seat=False) if newest else None

    def _unsaid(self, before: Standing | None) -> Standing | None:
        """An upgrade by hand does not say what gave the tier before it: that tier, should it come back, rests on nothing."""
        return replace(before, position=0, order_id="") if before else None

    def _upgrade(self, fact: Upgrade) -> Detail:
        standing = self.standing(fact.member_id, fact.upgraded_at)
        if fact.expires_at or (fact.evidence_kind == EVIDENCE_PAID_ORDER and fact.evidence_order_id):
            standing = self.behind(fact.member_id)
        lock = self._lock(fact.member_id)
        self.standings[fact.member_id] = Standing(
            tier=fact.tier,
            position=self.position + 1,
            order_id=fact.evidence_order_id if fact.evidence_kind == EVIDENCE_PAID_ORDER else "",
            seat=fact.evidence_kind == EVIDENCE_SEAT_GRANTED,
            expires_at=fact.expires_at,
            before=self.behind(fact.member_id) if fact.expires_at else self._unsaid(self.behind(fact.member_id)),
        )
        self._enter("member.upgraded.v1", f"member/{fact.member_id}")
        return {"previous_tier": "" if standing is None or standing.frozen else standing.tier, "binding_locked": lock}

    def holders(self, role: str, scope: str, at: int) -> tuple[Holder, ...]:
        """Those who hold a role at a place (empty: everywhere) at a time, in the order granted."""
        return tuple(
            Holder(grant.member_id, grant.weight or 1)
            for grant_id, grant in self.grants.items()
            if (grant.role, grant.scope) == (role, scope)
            and grant.effective_from <= at
            and (grant.effective_until == 0 or at < grant.effective_until)
            and at < self.ends.get(grant_id, at + 1)
        )

    def seats_are_taken(self, plan: Plan, fact: Upgrade) -> bool:
        """Whether others stand in as many seats of a tier, granted by hand, as the plan has."""
        found = [self.standing(member_id, fact.upgraded_at) for member_id in self.members if member_id != fact.member_id]
        taken = sum(standing is not None and standing.seat and standing.tier == fact.tier for standing in found)
        return fact.tier in plan.seats and taken >= plan.seats[fact.tier]

    # ------------------------------------------------------------------------------------------------------------------- orders

    def _order(self, fact: Order) -> Detail:
        found = self.plan_in_force(fact.paid_at)
        assert found is not None
        plan_position, plan = found
        lock = self._lock(fact.member_id, fact)
        group = self.groups.get(fact.group_id)
        people = tuple(self._who(member_id, fact.paid_at) for member_id in (fact.member_id, *self.upline(fact.member_id)))
        book = OrderBook(
            order=fact,
            position=self.position + 1,
            plan_position=plan_position,
            plan=plan,
            people=people,
            source=Source(f"order/{fact.order_id}", fact.paid_at),
            told_remaining={line.line_no: (line.base_minor, line.quantity) for line in fact.lines},
            scene=Scene(
                plan=plan,
                order=fact,
                path=tuple((who.member_id, who.tier) for who in people),
                at_place={place: self.holders(*place, fact.paid_at) for place in _places(plan, fact)},
                opener=group.fact.opener_id if group else "",
                first_in_group=group is not None and not group.order_ids,
                locked_to=lock.referrer_id if lock else "",
                earned=self._earned_in_period(plan, fact.paid_at),
            ),
            period_id=self._counts_in(plan, fact.paid_at),
        )
        owed = {rule.rule_id: self._owed(rule, book.inviter()) for rule in plan.rules if rule.kind == "counted"}
        self.orders[fact.order_id] = book
        changes = self._promote(book)
        own = [change.tier for change in changes if change.member_id == fact.member_id]
        book.scene = replace(book.scene, promoted_to=own[0] if own else "")
        gave = self._settle(book, owed)
        for key, amount in gave[0].items():
            self.accrued[key] += amount
        self._enter_order("order.paid.v1", book)
        if group is not None:
            group.order_ids.append(fact.order_id)
            self._enter("group.joined.v1", f"group/{fact.group_id}")
        return {**self._earnings(gave[0], "earnings"), **self._breakage(gave[1]), "binding_locked": lock, "tier_changes": tuple(changes)}

    def _who(self, member_id: str, at: int) -> Who:
        binding, standing = self.bindings[member_id], self.standing(member_id, at)
        bound = binding.position if binding.locked and binding.referrer_id else 0
        return Who(member_id, self.tier(member_id, at), bound, standing.position if standing and not standing.frozen else 0)

    def _earned_in_period(self, plan: Plan, paid_at: int) -> dict[tuple[str, str], int]:
        """(rule id, member) -> what rules capped by period have given in the period of paid_at by the orders so far."""
        earned: Counter[tuple[str, str]] = Counter()
        for book in self.orders.values():
            capped = {rule.rule_id for rule in book.plan.rules if rule.cap_period is not None}
            same = period_at(book.plan, book.order.paid_at).period_id == period_at(plan, paid_at).period_id
            for (_, rule_id, payee), amount in book.shares.items():
                if same and rule_id in capped and payee:
                    earned[rule_id, payee] += amount
        return dict(earned)

    def _counts_in(self, plan: Plan, paid_at: int) -> str:
        """The period an order counts in: that of paid_at, or the next one that is not closed."""
        if not plan.rules_by_period():
            return ""
        period = period_at(plan, paid_at)
        while period.period_id in self.periods:
            if plan.period == "campaign":
                return ""
            period = period_at(plan, period.end)
        return period.period_id

    def _owed(self, rule: Rule, inviter: str) -> int:
        """What a counted rule owes an inviter now."""
        qualified = {
            book.order.member_id for book in self.orders.values() if inviter and book.inviter() == inviter and _looks_at(book, rule)
        }
        return counted(rule, len(qualified))

    def shares(self, book: OrderBook) -> list[Share]:
        """What every rule gives from an order on what remains of it."""
        return shares_of(book.scene, book.remaining)

    def _settle(self, book: OrderBook, owed: Mapping[str, int]) -> tuple[dict[tuple[str, str], int], Counter[str]]:
        """Brings what an order gives to what it gives now; its counted rules owed `owed` before. Changes by payee, and of breakage."""
        rules = {rule.rule_id: rule for rule in book.plan.rules}
        now = {(share.line_no, share.rule.rule_id, share.payee): share.amount for share in self.shares(book)}
        for rule_id, before in owed.items():
            key = (0, rule_id, book.inviter())
            now[key] = book.shares.get(key, 0) + self._owed(rules[rule_id], book.inviter()) - before
        changes: Counter[tuple[str, str, object]] = Counter()
        pools: Counter[str] = Counter()
        breakage: Counter[str] = Counter()
        for key in {*now, *book.shares}:
            rule, change = rules[key[1]], now.get(key, 0) - book.shares.get(key, 0)
            pools[self._asset(rule)] += change
            if key[2]:
                when = "at once" if rule.release.on == "at_once" else rule.release
                changes[key[2], self._asset(rule), when] += change
            else:
                breakage[self._asset(rule)] += change
        for asset, pool in pools.items():
            self._cost(asset, pool, breakage[asset])
        book.shares = {key: amount for key, amount in now.items() if amount}
        return self._give(book.source, changes), breakage

    def _refund(self, fact: Refund) -> Detail:
        book = self.orders[fact.order_id]
        remaining = dict(book.told_remaining)
        for back in fact.lines:
            base, quantity = remaining[back.line_no]
            remaining[back.line_no] = (base - back.base_minor, quantity - back.quantity)
        return self._take_back(book, remaining, fact.refunded_at, "order.refunded.v1")

    def _take_back(self, book: OrderBook, remaining: dict[int, tuple[int, int]] | None, at: int, kind: str) -> Detail:
        """Less remains of an order: by a refund, or (None) nothing for the rules, by the failure of its group."""
        owed = {rule.rule_id: self._owed(rule, book.inviter()) for rule in book.plan.rules if rule.kind == "counted"}
        was_alive = book.alive()
        book.voided, book.told_remaining = book.voided or remaining is None, remaining or book.told_remaining
        binding, emptied = self.bindings[book.order.member_id], self.emptied(book.told_remaining)
        if book.plan.on_full_refund == "release" and binding.locking_order == book.order.order_id and (emptied or book.voided):
            self.bindings[book.order.member_id] = replace(binding, locked=False, position=0, locking_order="")
        changes = self._lose_evidence(book, at) if was_alive and not book.alive() else []
        took = self._settle(book, owed)[0]
        for key, amount in took.items():
            self.reversed[key] -= amount
        self._enter_order(kind, book)
        detail = {**self._earnings({key: -amount for key, amount in took.items()}, "reversed"), "tier_changes": tuple(changes)}
        return {**detail, **self._correct_period(book)}

    def emptied(self, remaining: Remaining) -> bool:
        """Whether an order is refunded in full: neither money nor units remain on any line."""
        return not any(base or quantity for base, quantity in remaining.values())

    def _earnings(self, earned: Earned, name: str) -> dict[str, object]:
        """Money by member; points by member and kind."""
        return {
            name: {who: amount for (who, asset), amount in earned.items() if asset == self.currency and amount},
            f"{name}_points": {key: amount for key, amount in earned.items() if key[1] != self.currency and amount},
        }

    def _breakage(self, breakage: Counter[str]) -> dict[str, object]:
        points = {asset: amount for asset, amount in breakage.items() if asset != self.currency and amount}
        return {"breakage": breakage[self.currency], "breakage_points": points}

    # -------------------------------------------------------------------------------------------------------------- promotions

    def _promote(self, book: OrderBook) -> list[TierChanged]:
        """Looks at the buyer and those above, as far as any metric reaches, with this order counted in."""
        plan = book.plan
        conditions = [condition for promotion in plan.promotions for condition in promotion.conditions]
        reach = max((condition.depth or condition.metric == "qualified_directs" for condition in conditions), default=-1)
        changes = []
        for who in book.people[: reach + 1]:
            own = plan.tiers.index(who.tier) if who.tier in plan.tiers else -1
            met = [
                plan.tiers.index(promotion.tier)
                for promotion in plan.promotions
                if (all if promotion.needs_all else any)(self._meets(who.member_id, condition, book) for condition in promotion.conditions)
            ]
            if max(met, default=-1) > own:
                tier, before = plan.tiers[max(met)], self.behind(who.member_id)
                standing = before
                self.standings[who.member_id] = Standing(tier, self.position + 1, order_id=book.order.order_id, before=before)
                changes.append(
                    TierChanged(who.member_id, TIER_PROMOTED, tier, "" if standing is None or standing.frozen else standing.tier)
                )
        return changes

    def _meets(self, member_id: str, condition: Condition, by: OrderBook) -> bool:
        """Whether a member meets a condition, counting orders whose plan looks at the same (days or not, and as deep)."""
        today = day_number(by.order.paid_at, by.plan.zone_ns)
        counted_in = []
        for book in self.orders.values():
            named = [known for promotion in book.plan.promotions for known in promotion.conditions]
            alike = any(
                (known.metric, known.depth, known.days is None) == (condition.metric, condition.depth, condition.days is None)
                for known in named
            )
            day = day_number(book.order.paid_at, book.plan.zone_ns)
            if alike and (condition.days is None or today - condition.days < day <= today):
                counted_in.append(book)
        own = [book for book in counted_in if book.order.member_id == member_id]
        match condition.metric:
            case "orders":
                figure = sum(book.alive() for book in own)
            case "own_volume":
                figure = sum(book.volume() for book in own)
            case "team_volume":
                team = [book for book in counted_in if member_id in [who.member_id for who in book.people[: condition.depth + 1]]]
                figure = sum(book.volume() for book in team)
            case "qualified_directs":
                figure = len({book.order.member_id for book in counted_in if book.inviter() == member_id and book.alive()})
            case _:
                figure = sum(any(line.kind == KIND_GIFT_PACK and lives(line, book.remaining) for line in book.order.lines) for book in own)
        return figure >= condition.at_least

    def _lose_evidence(self, book: OrderBook, at: int) -> list[TierChanged]:
        """Nothing of an order is alive any more: what its plan says happens to the tiers that rest on it."""
        changes = []
        for member_id in sorted(self.members):
            standing = self.standing(member_id, at)
            if standing is None or standing.order_id != book.order.order_id or standing.frozen or book.plan.on_evidence_refunded == "keep":
                continue
            if book.plan.on_evidence_refunded == "freeze":
                self.standings[member_id] = replace(standing, frozen=True)
                changes.append(TierChanged(member_id, TIER_FROZEN, standing.tier, standing.tier))
            else:
                before = standing.before.at(at) if standing.before else None
                if before is not None and not before.position:
                    before = replace(before, position=self.position + 1)
                self.standings[member_id] = before
                changes.append(TierChanged(member_id, TIER_DEMOTED, before.tier if before else "", standing.tier))
        return changes

    # ------------------------------------------------------------------------------------------------- groups, tasks, openings

    def _form_group(self, fact: FormGroup) -> Detail:
        group = self.groups[fact.group_id]
        group.state, group.closed_at = "formed", fact.formed_at
        self._enter("group.formed.v1", f"group/{fact.group_id}")
        for order_id in group.order_ids:
            self._enter_order("order.group_formed.v1", self.orders[order_id])
        return {"orders": len(group.order_ids)}

    def _fail_group(self, fact: FailGroup) -> Detail:
        group = self.groups[fact.group_id]
        group.state, group.closed_at = "failed", fact.failed_at
        self._enter("group.failed.v1", f"group/{fact.group_id}")
        took: dict[str, Counter[object]] = {}
        for order_id in group.order_ids:
            detail = self._take_back(self.orders[order_id], None, fact.failed_at, "order.voided.v1")
            for name in ("reversed", "reversed_points", "period_reversed", "period_reversed_points"):
                took.setdefault(name, Counter()).update(cast("dict[object, int]", detail[name]))
        nothing = self._earnings({}, "reversed") | self._earnings({}, "period_reversed")
        found = {name: {key: amount for key, amount in sums.items() if amount} for name, sums in took.items()}
        return {"orders": len(group.order_ids), **nothing, **found}

    def _task(self, fact: RecordTask) -> Detail:
        found = self.plan_in_force(fact.done_at)
        assert found is not None
        source = self.rewards[f"task/{fact.task_id}"] = Source(f"task/{fact.task_id}", fact.done_at)
        upline = self.upline(fact.member_id)
        changes: Counter[tuple[str, str, object]] = Counter()
        for rule in found[1].rules:
            if rule.on != "task" or rule.task != fact.task:
                continue
            if rule.most is not None and self.tasks_paid[rule.rule_id, fact.member_id] >= rule.most:
                continue
            if rule.most is not None:
                self.tasks_paid[rule.rule_id, fact.member_id] += 1
            for who, amount in rule.to.items():
                payee = fact.member_id if who == "member" else upline[0] if upline else ""
                self._cost(self._asset(rule), amount, 0 if payee else amount)
                if payee:
                    changes[payee, self._asset(rule), _due(rule.release, fact.done_at)] += amount
        gave = self._give(source, changes)
        for key, amount in gave.items():
            self.accrued[key] += amount
        self._enter("task.done.v1", f"task/{fact.task_id}")
        return self._earnings(gave, "earnings")

    def _open_balance(self, fact: OpenBalance) -> None:
        key = (fact.member_id, self.currency)
        self.net[key] += fact.available_minor - fact.debt_minor
        self.paid[fact.member_id] += fact.paid_minor
        source = self.rewards[f"opening/{fact.opening_id}"] = Source(f"opening/{fact.opening_id}", fact.opened_at)
        if fact.pending_minor:
            source.pending[(*key, fact.pending_due_at)] += fact.pending_minor
        total = fact.available_minor + fact.pending_minor + fact.paid_minor - fact.debt_minor
        self.adjusted[key] += total
        self.company["opening", self.currency] -= total
        self._enter("balance.opened.v1", f"opening/{fact.opening_id}")

    def _close_payout(self, fact: ConfirmPayout | FailPayout) -> None:
        request = self.payouts[fact.payout_id][0]
        paid = isinstance(fact, ConfirmPayout)
        self.payouts[fact.payout_id] = (request, "paid" if paid else "failed")
        self.reserved[request.member_id] -= request.amount_minor
        if paid:
            self.paid[request.member_id] += request.amount_minor
        else:
            self.net[request.member_id, self.currency] += request.amount_minor
        self._enter("payout.paid.v1" if paid else "payout.failed.v1", f"payout/{fact.payout_id}")

    # ------------------------------------------------------------------------------------------------------------------ periods

    def plan_of_period(self, period_id: str) -> tuple[int, Plan, Period] | None:
        """The version in force when a period began, if it has rules by such periods; else the first that came into force in it and has.

        Else, if its rules counted something all the same, the newest that began before, one whose own end had not come first of all.
        """
        later: list[tuple[int, int, Plan, Period]] = []
        replaced: list[tuple[bool, int, Plan, Period]] = []
        for position, fact, plan in self.plans:
            period = period_named(plan, period_id)
            if period is None or not plan.rules_by_period():
                continue
            if self.plan_in_force(period.start) == (position, plan):
                return position, plan, period
            start = fact.published_at if plan.effective_from is None else plan.effective_from
            if period.start <= start < period.end:
                later.append((start, position, plan, period))
            if start < period.start:
                replaced.append((plan.effective_until is None or period.start < plan.effective_until, position, plan, period))
        if later:
            return min(later, key=lambda one: (one[0], -one[1]))[1:]
        if replaced:
            _, position, plan, period = max(replaced, key=lambda one: one[:2])
            if any(self.volumes(period_id, rule.rule_id) for rule in plan.rules_by_period()):
                return position, plan, period
        return None

    def _close_period(self, fact: ClosePeriod) -> Detail:
        found = self.plan_of_period(fact.period_id)
        assert found is not None
        plan_position, plan, period = found
        last = period.end - US
        roles = {rule.role for rule in plan.rules_by_period() if rule.role}
        people = People(
            tiers={member_id: self.tier(member_id, last) for member_id in sorted(self.members)},
            above={member_id: (self.upline(member_id) or [""])[0] for member_id in self.members},
            holders={role: self.holders(role, "", last) for role in roles},
        )
        source = self.rewards[f"period/{fact.period_id}"] = Source(f"period/{fact.period_id}", fact.closed_at)
        book = PeriodBook(period, fact.closed_at, plan_position, plan, people, source)
        self.periods[fact.period_id] = book
        gave, _ = self._compute(book)
        for key, amount in gave.items():
            self.accrued[key] += amount
        book.positions.append(self._enter("period.closed.v1", f"period/{fact.period_id}"))
        return {"rules": book.results}

    def volumes(self, period_id: str, rule_id: str) -> dict[str, int]:
        """What a rule counts in a period now, by member: base of matching lines, or invites."""
        own: Counter[str] = Counter()
        for book in self.orders.values():
            for rule in book.plan.rules_by_period():
                if rule.rule_id != rule_id or book.period_id != period_id:
                    continue
                if rule.board == "invites":
                    if book.scene.locked_to and a_match_lives(book.scene, rule, book.remaining):
                        own[book.scene.locked_to] += 1
                else:
                    own[book.order.member_id] += sum(
                        book.remaining[line.line_no][0]
                        for line in book.order.lines
                        if rule.when.holds(book.order, line, book.plan.zone_ns) and lives(line, book.remaining)
                    )
        return {member_id: figure for member_id, figure in own.items() if figure}

    def _compute(self, book: PeriodBook) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
        """Brings what a period gives to what it gives now. Changes by payee; and what each rule counts now."""
        changes: Counter[tuple[str, str, object]] = Counter()
        before = {result.rule_id: result for result in book.results}
        results = []
        for rule in book.plan.rules_by_period():
            own = self.volumes(book.period.period_id, rule.rule_id)
            asset = self._asset(rule)
            amounts: Counter[str] = Counter()
            for payee, amount in rule_for_period(rule, book.people, own):
                amounts[payee] += amount
            result = PeriodResult(
                rule.rule_id,
                sum(own.values()),
                {(payee, asset): amount for payee, amount in amounts.items() if payee and amount},
                amounts[""],
            )
            results.append(result)
            was = before.get(rule.rule_id, PeriodResult(rule.rule_id, 0, {}, 0))
            for key in {*result.earnings, *was.earnings}:
                changes[(*key, _due(rule.release, book.closed_at))] += result.earnings.get(key, 0) - was.earnings.get(key, 0)
            pool = sum(result.earnings.values()) - sum(was.earnings.values()) + result.breakage - was.breakage
            self._cost(asset, pool, result.breakage - was.breakage)
        book.results = tuple(results)
        return self._give(book.source, changes), {result.rule_id: result.volume for result in results}

    def _correct_period(self, order: OrderBook) -> Detail:
        """After less remains of an order: the closed period it counts in is computed again over the same people."""
        book = self.periods.get(order.period_id)
        if book is None:
            return self._earnings({}, "period_reversed")
        before = [self.volumes_then(result) for result in book.results]
        gave, _ = self._compute(book)
        if before == [self.volumes_then(result) for result in book.results]:
            return self._earnings({}, "period_reversed")
        for key, amount in gave.items():
            (self.accrued if amount > 0 else self.reversed)[key] += abs(amount)
        position = self._enter("period.corrected.v1", f"period/{book.period.period_id}")
        book.positions.append(position)
        return self._earnings({key: -amount for key, amount in gave.items()}, "period_reversed")

    def volumes_then(self, result: PeriodResult) -> tuple[str, int]:
        """What a rule had counted when a result was computed."""
        return result.rule_id, result.volume

    # ------------------------------------------------------------------------------------------------------------------ release

    def due(self, source: Source) -> dict[tuple[str, str, int], int]:
        """(payee, asset, due time) -> what a source will release then; what waits for something to happen is not there."""
        found: Counter[tuple[str, str, int]] = Counter()
        for key, amount in source.pending.items():
            due_at = self._due_at(source, key[2])
            if due_at is not None and amount:
                found[key[0], key[1], due_at] += amount
        return dict(found)

    def _due_at(self, source: Source, when: object) -> int | None:
        if when == "at once":
            return source.since
        if not isinstance(when, Release):
            return when if isinstance(when, int) else None
        book = self.orders[source.stream.removeprefix("order/")]
        group = self.groups.get(book.order.group_id)
        if when.on == "group_formed" and group is not None:
            start = group.closed_at if group.state == "formed" else None
        elif book.completed_at is None:
            start = None
        elif when.on == "period_close":
            start = period_at(book.plan, book.completed_at).end
        else:
            start = book.completed_at
        return None if start is None else start + when.days * DAY_NS

    def held(self) -> set[tuple[str, str]]:
        """The members and orders under a hold that has not been lifted."""
        holds = [hold for hold_id, hold in self.holds.items() if hold_id not in self.lifted]
        return {("member", hold.member_id) if hold.member_id else ("order", hold.order_id) for hold in holds}

    def _release(self, fact: Released) -> None:
        source = next(source for source in self.sources() if source.stream == fact.source)
        for key in list(source.pending):
            due_at = self._due_at(source, key[2])
            if due_at is not None and (key[0], key[1], due_at) in fact.parts and source.pending[key]:
                self.net[key[0], key[1]] += source.pending[key]
                source.pending[key] = 0
                source.released.add(key)
        if fact.source.startswith("order/"):
            self._enter_order("order.released.v1", self.orders[fact.source.removeprefix("order/")])
        else:
            self._enter("reward.released.v1", fact.source)


def _due(release: Release, since: int) -> object:
    """When something that no order gives is released."""
    return "at once" if release.on == "at_once" else since + release.days * DAY_NS


def _looks_at(book: OrderBook, rule: Rule) -> bool:
    """Whether an order has a living line that the counted rule of this id in its own plan looks at."""
    own = [known for known in book.plan.rules if known.rule_id == rule.rule_id and known.kind == "counted"]
    return any(a_match_lives(book.scene, known, book.remaining) for known in own)


def _places(plan: Plan, order: Order) -> Iterable[tuple[str, str]]:
    """Every (role, place) that a rule of the plan could ask for on this order."""
    named = (*order.attributions, *(one for line in order.lines for one in line.attributions))
    return {*((one.role, one.scope) for one in named if one.scope), *((rule.role, "") for rule in plan.rules if rule.role)}
