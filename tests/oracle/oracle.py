"""The ledger once more, deliberately plain and slow, to compare the real one with.

Written from the documents alone (the schemes, docs/accounts.md, docs/plan-format.md, the contract), without a look at the services.
It keeps one thing, the list of accepted facts, and works every answer out from the whole of it. It posts nothing and keeps no balance:
an entitlement is HALF_UP(rate x what remains), and available and debt are the two sides of one net figure, so a mistake in the order of
postings, or in a difference between two entitlements, cannot be made here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import assert_never

from tests.oracle.facts import (
    ADJUST_CORRECTION,
    ADJUST_WRITE_OFF,
    DAY_NS,
    EVIDENCE_PAID_ORDER,
    KIND_GOODS,
    Adjust,
    Balance,
    Company,
    Complete,
    ConfirmPayout,
    Correct,
    CreateProgram,
    Detail,
    Enroll,
    Fact,
    FailPayout,
    LiftHold,
    Lock,
    Member,
    Order,
    OrderState,
    Outcome,
    PlaceHold,
    PublishPlan,
    Refund,
    Released,
    ReleaseDue,
    RequestPayout,
    Told,
    Touch,
    Upgrade,
)
from tests.oracle.form import meaningful, well_formed
from tests.oracle.plan import Plan, PlanInvalid, read_plan

_RELEASES_PER_CALL = 500


def half_up(exact: Fraction) -> int:
    """A whole number of minor units, the half rounded away from zero."""
    rounded = math.floor(abs(exact) + Fraction(1, 2))
    return rounded if exact >= 0 else -rounded


@lru_cache(maxsize=100_000)
def entitlement(rate: Fraction, base_minor: int) -> int:
    """HALF_UP(rate x base): what a rate gives on what remains of a line."""
    return half_up(rate * base_minor)


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
class Frozen:
    """What an order is paid under for ever: the plan, and the buyer with the locked upline (member, tier, binding and tier positions)."""

    plan_position: int
    plan: Plan
    people: tuple[tuple[str, str, int, int], ...]


@dataclass(frozen=True)
class Part:
    """One rule on one line, on a given base: payee (empty: nobody), their entitlement, and the pool it comes out of."""

    line_no: int
    rule_id: str
    payee: str
    amount: int
    pool: int
    days: int


class Oracle:
    """The books of one program. Writes answer an Outcome; reads take the position as of which to answer (None: now)."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.log: list[Fact] = [CreateProgram(currency)]
        self._answers: dict[tuple[str, ...], tuple[object, Outcome]] = {}
        self._frozen: dict[int, Frozen] = {}
        self._balances: tuple[int, dict[str, Balance]] = (0, {})

    def fork(self) -> Oracle:
        """Books that hold the same and go on by themselves."""
        other = Oracle(self.currency)
        other.log, other._answers, other._frozen = list(self.log), dict(self._answers), dict(self._frozen)
        return other

    # ------------------------------------------------------------------------------------------------------------- writes: plan

    def publish_plan(self, fact: PublishPlan) -> Outcome:
        """Counts once by plan id and version; versions go 1, 2, 3."""
        if not well_formed(fact):
            return Outcome("refused", "MALFORMED")
        try:
            plan = read_plan(fact.document)
        except PlanInvalid:
            return Outcome("refused", "PLAN_INVALID")
        if plan.effective_until is not None and plan.effective_until <= (plan.effective_from or fact.published_at):
            return Outcome("refused", "PLAN_INVALID")

        def faults() -> Iterator[str]:
            if plan.version != 1 + sum(known.plan_id == plan.plan_id for _, _, known in self.plans()):
                yield "PLAN_VERSION_OUT_OF_ORDER"
            if plan.currency != self.currency:
                yield "CURRENCY_MISMATCH"

        canonical = json.dumps(plan.content, sort_keys=True, separators=(",", ":"))
        detail = {"plan_id": plan.plan_id, "version": plan.version, "content_hash": hashlib.sha256(canonical.encode()).hexdigest()}
        return self._record(("plan", plan.plan_id, str(plan.version)), (canonical, fact.published_at), fact, faults(), detail)

    # --------------------------------------------------------------------------------------------------------- writes: referral

    def enroll(self, fact: Enroll) -> Outcome:
        """Counts once by member id. The referrer, if any, is the first touch."""

        def faults() -> Iterator[str]:
            if fact.referrer_id == fact.member_id:
                yield "SELF_BINDING"
            elif fact.referrer_id and not self._enrolled(fact.referrer_id):
                yield "MEMBER_UNKNOWN"

        return self._record(("member", fact.member_id), fact, fact, faults())

    def touch(self, fact: Touch) -> Outcome:
        """Counts once by touch id. While the binding is open it becomes the candidate, as the newest plan says."""
        counts = self._touch_counts(len(self.log), fact.member_id)

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id) or not self._enrolled(fact.referrer_id):
                yield "MEMBER_UNKNOWN"
            if fact.member_id == fact.referrer_id:
                yield "SELF_BINDING"
            elif counts and self._closes_cycle(fact.member_id, fact.referrer_id):
                yield "BINDING_CYCLE"

        return self._record(("touch", fact.touch_id), fact, fact, faults(), {"counts": counts})

    def upgrade(self, fact: Upgrade) -> Outcome:
        """Counts once by upgrade id. The first one locks the binding."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            plan = self.plan_in_force(fact.upgraded_at)
            if plan is None:
                yield "NO_PLAN_IN_FORCE"
            elif fact.tier not in plan[1].tiers:
                yield "TIER_UNKNOWN"
            names_order = fact.evidence_kind == EVIDENCE_PAID_ORDER and fact.evidence_order_id
            if names_order and self._order(fact.evidence_order_id) is None:
                yield "ORDER_UNKNOWN"

        detail = {"previous_tier": self.tier(fact.member_id), "binding_locked": self._lock_now(fact.member_id)}
        return self._record(("upgrade", fact.upgrade_id), fact, fact, faults(), detail)

    def correct(self, fact: Correct) -> Outcome:
        """Counts once by correction id. Moves a locked binding, for later orders only."""
        binding = self._bindings(len(self.log)).get(fact.member_id, Binding())

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id) or (fact.new_referrer_id and not self._enrolled(fact.new_referrer_id)):
                yield "MEMBER_UNKNOWN"
            if not binding.locked:
                yield "BINDING_NOT_LOCKED"
            if fact.requested_by == fact.approved_by:
                yield "APPROVER_IS_REQUESTER"
            if fact.new_referrer_id == fact.member_id:
                yield "SELF_BINDING"
            elif fact.new_referrer_id and self._closes_cycle(fact.member_id, fact.new_referrer_id):
                yield "BINDING_CYCLE"

        return self._record(("correction", fact.correction_id), fact, fact, faults(), {"previous_referrer_id": binding.referrer_id})

    # ----------------------------------------------------------------------------------------------------------- writes: orders

    def order(self, fact: Order) -> Outcome:
        """Counts once by order id. The buyer's first one locks their binding, and is already paid along it."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            if fact.currency != self.currency:
                yield "CURRENCY_MISMATCH"
            if self.plan_in_force(fact.paid_at) is None:
                yield "NO_PLAN_IN_FORCE"

        lock = self._lock_now(fact.member_id)
        content = replace(fact, lines=tuple(replace(line, kind=line.kind or KIND_GOODS) for line in fact.lines))
        outcome = self._record(("order", fact.order_id), content, fact, faults(), {"binding_locked": lock})
        if outcome.kind != "accepted":
            return outcome
        parts = self._parts(fact, at=len(self.log))
        detail = {"earnings": _per_payee(parts), "breakage": sum(part.pool - part.amount for part in parts), "binding_locked": lock}
        return self._remember(("order", fact.order_id), content, replace(outcome, detail=detail))

    def complete(self, fact: Complete) -> Outcome:
        """Counts once by order id. From now the release waits only for its days."""

        def faults() -> Iterator[str]:
            order = self._order(fact.order_id)
            if order is None:
                yield "ORDER_UNKNOWN"
            elif fact.completed_at < order.paid_at:
                yield "DATED_TOO_EARLY"

        return self._record(("completion", fact.order_id), fact, fact, faults())

    def refund(self, fact: Refund) -> Outcome:
        """Counts once by refund id and order id. All of it or nothing."""
        order = self._order(fact.order_id)

        def faults() -> Iterator[str]:
            if order is None:
                yield "ORDER_UNKNOWN"
                return
            if fact.refunded_at < order.paid_at:
                yield "DATED_TOO_EARLY"
            remaining = self._remaining(order, len(self.log))
            if any(line.line_no not in remaining for line in fact.lines):
                yield "LINE_UNKNOWN"
            for line_no, (base, quantity) in remaining.items():
                asked = [line for line in fact.lines if line.line_no == line_no]
                if sum(line.base_minor for line in asked) > base or sum(line.quantity for line in asked) > quantity:
                    yield "REFUND_EXCEEDS_PAID"
                    return

        key = ("refund", fact.refund_id, fact.order_id)
        outcome = self._record(key, fact, fact, faults())
        if outcome.kind != "accepted" or order is None:
            return outcome
        before = _per_payee(self._parts(order, at=len(self.log) - 1))
        after = _per_payee(self._parts(order, at=len(self.log)))
        taken = {payee: amount - after.get(payee, 0) for payee, amount in before.items() if amount != after.get(payee, 0)}
        return self._remember(key, fact, replace(outcome, detail={"reversed": taken}))

    def orders(self, facts: Sequence[Order]) -> list[Outcome]:
        """A batch is its facts one by one."""
        return [self.order(fact) for fact in facts]

    def follow_ups(self, facts: Sequence[Complete | Refund]) -> list[Outcome]:
        """A batch is its facts one by one."""
        return [self.complete(fact) if isinstance(fact, Complete) else self.refund(fact) for fact in facts]

    # --------------------------------------------------------------------------------------------------- writes: release, holds

    def release_due(self, fact: ReleaseDue) -> Outcome:
        """Releases every (order, payee, due time) due by then and not held: whole orders, the earliest due first."""
        if not well_formed(fact):
            return Outcome("refused", "MALFORMED")
        held = self._held()
        due: dict[str, dict[tuple[str, int], int]] = {}
        for order in self._all_orders(len(self.log)):
            for (payee, due_at), amount in self._waiting(order).items():
                if due_at <= fact.as_of and amount > 0 and ("member", payee) not in held and ("order", order.order_id) not in held:
                    due.setdefault(order.order_id, {})[payee, due_at] = amount
        queue = sorted(due, key=lambda order_id: (min(due_at for _, due_at in due[order_id]), order_id))
        now = queue[: fact.max_orders or _RELEASES_PER_CALL]
        for order_id in now:
            self.log.append(Released(order_id, frozenset(due[order_id])))
        amount = sum(sum(due[order_id].values()) for order_id in now)
        return Outcome("accepted", detail={"orders_released": len(now), "amount": amount, "more": len(queue) > len(now)})

    def place_hold(self, fact: PlaceHold) -> Outcome:
        """Counts once by hold id. On a member or on an order."""

        def faults() -> Iterator[str]:
            if fact.member_id and not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            if fact.order_id and self._order(fact.order_id) is None:
                yield "ORDER_UNKNOWN"

        return self._record(("hold", fact.hold_id), fact, fact, faults())

    def lift_hold(self, fact: LiftHold) -> Outcome:
        """Counts once by hold id."""

        def faults() -> Iterator[str]:
            if not any(isinstance(known, PlaceHold) and known.hold_id == fact.hold_id for known in self.log):
                yield "HOLD_UNKNOWN"

        return self._record(("lift", fact.hold_id), fact, fact, faults())

    # ---------------------------------------------------------------------------------------------------------- writes: payouts

    def request_payout(self, fact: RequestPayout) -> Outcome:
        """Counts once by payout id. Reserves at most what is available."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            if fact.currency != self.currency:
                yield "CURRENCY_MISMATCH"
            if fact.amount_minor > self.balance(fact.member_id).available:
                yield "PAYOUT_EXCEEDS_AVAILABLE"

        return self._record(("payout", fact.payout_id), fact, fact, faults())

    def confirm_payout(self, fact: ConfirmPayout) -> Outcome:
        """Counts once by payout id. Never after it failed."""
        return self._record(("payout paid", fact.payout_id), fact, fact, self._closing_faults(fact.payout_id))

    def fail_payout(self, fact: FailPayout) -> Outcome:
        """Counts once by payout id. Never after it was paid."""
        return self._record(("payout failed", fact.payout_id), fact, fact, self._closing_faults(fact.payout_id))

    def adjust(self, fact: Adjust) -> Outcome:
        """Counts once by adjustment id. A correction either way, or debt forgiven."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            if fact.currency != self.currency:
                yield "CURRENCY_MISMATCH"
            if fact.requested_by == fact.approved_by:
                yield "APPROVER_IS_REQUESTER"
            if fact.kind == ADJUST_WRITE_OFF and fact.amount_minor > self.balance(fact.member_id).debt:
                yield "WRITE_OFF_EXCEEDS_DEBT"

        return self._record(("adjustment", fact.adjustment_id), fact, fact, faults())

    # -------------------------------------------------------------------------------------------------------------------- reads

    def plans(self, end: int | None = None) -> list[tuple[int, PublishPlan, Plan]]:
        """Every published version with its position, oldest first."""
        return [
            (position, fact, read_plan(fact.document))
            for position, fact in enumerate(self.log[:end], start=1)
            if isinstance(fact, PublishPlan)
        ]

    def plan_in_force(self, at: int, end: int | None = None) -> tuple[int, Plan] | None:
        """The newest version, by its place in the log, that is in force at that time."""
        found = [(position, plan) for position, fact, plan in self.plans(end) if plan.in_force(fact.published_at, at)]
        return found[-1] if found else None

    def members(self) -> list[str]:
        """Every member, by id."""
        return sorted(fact.member_id for fact in self.log if isinstance(fact, Enroll))

    def order_ids(self) -> list[str]:
        """Every order, oldest first."""
        return [order.order_id for order in self._all_orders(len(self.log))]

    def balance(self, member_id: str, position: int | None = None) -> Balance:
        """Where a member's money stood right after an entry."""
        return self._balances_at(len(self.log) if position is None else position).get(member_id, Balance())

    def balances(self) -> dict[str, Balance]:
        """Every member's balance now."""
        return {member_id: self.balance(member_id) for member_id in self.members()}

    def _balances_at(self, end: int) -> dict[str, Balance]:
        """Everybody's money right after an entry; kept until the oracle is asked about another entry.

        Nobody ever has both something available and a debt: every way in settles debt first, every way out takes what is available first.
        So the two are the sides of one figure: what was released and adjusted, less what is reserved and paid.
        """
        if self._balances[0] == end:
            return self._balances[1]
        accrued, entitled, pending, adjusted, reserved, paid = (Counter[str]() for _ in range(6))
        for order in self._all_orders(end):
            for part in self._parts(order, at=self._order_position(order)):
                accrued[part.payee] += part.amount
            for part, released in self._parts_with_release(order, end):
                entitled[part.payee] += part.amount
                pending[part.payee] += 0 if released else part.amount
        for fact in self.log[:end]:
            if isinstance(fact, Adjust):
                adjusted[fact.member_id] += fact.amount_minor
            if isinstance(fact, RequestPayout):
                state = self._payout_state(fact.payout_id, end)
                reserved[fact.member_id] += fact.amount_minor if state == "open" else 0
                paid[fact.member_id] += fact.amount_minor if state == "paid" else 0
        balances: dict[str, Balance] = {}
        for member_id in self.members():
            net = entitled[member_id] - pending[member_id] + adjusted[member_id] - reserved[member_id] - paid[member_id]
            balances[member_id] = Balance(
                pending=pending[member_id],
                available=max(net, 0),
                reserved=reserved[member_id],
                paid=paid[member_id],
                debt=max(-net, 0),
                accrued=accrued[member_id],
                reversed=accrued[member_id] - entitled[member_id],
                adjusted=adjusted[member_id],
            )
        self._balances = (end, balances)
        return balances

    def company(self) -> Company:
        """The company's accounts now."""
        parts = [part for order in self._all_orders(len(self.log)) for part in self._parts(order, at=len(self.log))]
        adjustments = [fact for fact in self.log if isinstance(fact, Adjust)]
        return Company(
            commission=-sum(part.pool for part in parts),
            breakage=sum(part.pool - part.amount for part in parts),
            adjustment=-sum(fact.amount_minor for fact in adjustments if fact.kind == ADJUST_CORRECTION),
            write_off=-sum(fact.amount_minor for fact in adjustments if fact.kind == ADJUST_WRITE_OFF),
        )

    def trial_balance(self) -> dict[str, int]:
        """Every account with its sign in the book, the members' summed up."""
        balances, company = self.balances().values(), self.company()
        return {
            "pending": sum(balance.pending for balance in balances),
            "available": sum(balance.available for balance in balances),
            "reserved": sum(balance.reserved for balance in balances),
            "paid": sum(balance.paid for balance in balances),
            "debt": -sum(balance.debt for balance in balances),
            "commission": company.commission,
            "breakage": company.breakage,
            "adjustment": company.adjustment,
            "write_off": company.write_off,
        }

    def entries(self) -> list[tuple[str, str]]:
        """Type and stream of every entry, oldest first, as docs/log.md names them; the program's own id does not matter here."""
        return [_type_and_stream(fact) for fact in self.log]

    def check_itself(self) -> None:
        """The books sum to zero. Raises AssertionError if not."""
        assert sum(self.trial_balance().values()) == 0

    def binding(self, member_id: str, position: int | None = None) -> Binding:
        """Who brought a member: locked or open, and to whom."""
        return self._bindings(len(self.log) if position is None else position)[member_id]

    def tier(self, member_id: str, position: int | None = None) -> str:
        """The tier of the newest upgrade; empty: none."""
        return self._tier(member_id, len(self.log) if position is None else position)[0]

    def member(self, member_id: str) -> Member:
        """A member with everything about them."""
        enrolled = next(fact for fact in self.log if isinstance(fact, Enroll) and fact.member_id == member_id)
        bindings = self._bindings(len(self.log))
        tier, tier_position = self._tier(member_id, len(self.log))
        return Member(
            member_id=member_id,
            enrolled_at=enrolled.enrolled_at,
            tier=tier,
            locked=bindings[member_id].locked,
            referrer_id=bindings[member_id].referrer_id,
            binding_position=bindings[member_id].position,
            tier_position=tier_position,
            direct_count=sum(binding.locked and binding.referrer_id == member_id for binding in bindings.values()),
        )

    def upline(self, member_id: str) -> list[str]:
        """The locked path up, nearest first."""
        return self._upline(member_id, len(self.log))

    def order_state(self, order_id: str) -> OrderState:
        """What remains of an order, and what that entitles to."""
        order = self._order(order_id)
        assert order is not None
        frozen = self._freeze(order)
        about = [
            position
            for position, fact in enumerate(self.log, start=1)
            if isinstance(fact, Order | Complete | Refund | Released) and fact.order_id == order_id
        ]
        entitlements: dict[tuple[int, str, str], int] = {}
        for part in self._parts(order, at=len(self.log)):
            for who, amount in ((part.payee, part.amount), ("", part.pool - part.amount)):
                if amount:
                    entitlements[part.line_no, part.rule_id, who] = amount
        completed = self._completion(order_id, len(self.log))
        return OrderState(
            paid_at=order.paid_at,
            completed_at=0 if completed is None else completed,
            plan_position=frozen.plan_position,
            people=frozen.people,
            lines=self._remaining(order, len(self.log)),
            entitlements=entitlements,
            positions=tuple(about),
        )

    # ------------------------------------------------------------------------------------------------------------- facts, once

    def _record(self, key: tuple[str, ...], content: object, fact: Told, faults: Iterator[str], detail: Detail | None = None) -> Outcome:
        """Looks at the form, then the id (told before, it is repeated or reused), then what else is wrong; else it is recorded."""
        if not well_formed(fact):
            return Outcome("refused", "MALFORMED")
        if key in self._answers:
            recorded, answer = self._answers[key]
            return replace(answer, kind="repeated") if recorded == content else Outcome("refused", "ID_REUSED")
        wrong = [*([] if meaningful(fact) else ["MALFORMED"]), *faults]
        if wrong:
            return Outcome("refused", wrong[0], also=tuple(wrong[1:]))
        self.log.append(fact)
        return self._remember(key, content, Outcome("accepted", position=len(self.log), detail=detail or {}))

    def _remember(self, key: tuple[str, ...], content: object, answer: Outcome) -> Outcome:
        self._answers[key] = (content, answer)
        return answer

    # ------------------------------------------------------------------------------------------------------------------ bindings

    def _enrolled(self, member_id: str) -> bool:
        return any(isinstance(fact, Enroll) and fact.member_id == member_id for fact in self.log)

    def _bindings(self, end: int) -> dict[str, Binding]:
        """Every member's binding right after an entry, walked from the first one."""
        bindings: dict[str, Binding] = {}
        touch = "last"
        for position, fact in enumerate(self.log[:end], start=1):
            if isinstance(fact, PublishPlan):
                touch = read_plan(fact.document).touch
            elif isinstance(fact, Enroll):
                bindings[fact.member_id] = Binding(referrer_id=fact.referrer_id, touch_position=position if fact.referrer_id else 0)
            elif isinstance(fact, Touch):
                was = bindings[fact.member_id]
                if _counts(was, touch):
                    bindings[fact.member_id] = Binding(referrer_id=fact.referrer_id, touch_position=position)
            elif isinstance(fact, Order | Upgrade):
                was = bindings[fact.member_id]
                if not was.locked:
                    by_order = fact.order_id if isinstance(fact, Order) else ""
                    bindings[fact.member_id] = replace(was, locked=True, position=position, locking_order=by_order)
            elif isinstance(fact, Correct):
                bindings[fact.member_id] = Binding(locked=True, referrer_id=fact.new_referrer_id, position=position)
            elif isinstance(fact, Refund):
                order = self._order(fact.order_id)
                assert order is not None
                was = bindings[order.member_id]
                releases = self._freeze(order).plan.on_full_refund == "release"
                if releases and was.locking_order == order.order_id and self._emptied(order, position):
                    bindings[order.member_id] = replace(was, locked=False, position=0, locking_order="")
        return bindings

    def _touch_counts(self, end: int, member_id: str) -> bool:
        plans = self.plans(end)
        return _counts(self._bindings(end).get(member_id, Binding()), plans[-1][2].touch if plans else "last")

    def _closes_cycle(self, member_id: str, referrer_id: str) -> bool:
        """Whether the member already stands somewhere above the one who would be their referrer."""
        bindings = self._bindings(len(self.log))
        above = referrer_id
        while above in bindings:
            if above == member_id:
                return True
            above = bindings[above].referrer_id
        return False

    def _lock_now(self, member_id: str) -> Lock | None:
        """The lock that an order or upgrade of this member would let fall now."""
        binding = self._bindings(len(self.log)).get(member_id, Binding())
        return None if binding.locked else Lock(member_id, binding.referrer_id, binding.touch_position)

    def _tier(self, member_id: str, end: int) -> tuple[str, int]:
        found = ("", 0)
        for position, fact in enumerate(self.log[:end], start=1):
            if isinstance(fact, Upgrade) and fact.member_id == member_id:
                found = (fact.tier, position)
        return found

    def _upline(self, member_id: str, end: int) -> list[str]:
        bindings = self._bindings(end)
        path: list[str] = []
        while bindings[member_id].locked and bindings[member_id].referrer_id:
            member_id = bindings[member_id].referrer_id
            path.append(member_id)
        return path

    # -------------------------------------------------------------------------------------------------- orders and entitlements

    def _all_orders(self, end: int) -> list[Order]:
        return [fact for fact in self.log[:end] if isinstance(fact, Order)]

    def _order(self, order_id: str) -> Order | None:
        return next((order for order in self._all_orders(len(self.log)) if order.order_id == order_id), None)

    def _order_position(self, order: Order) -> int:
        return self.log.index(order) + 1

    def _freeze(self, order: Order) -> Frozen:
        """What the order is paid under: kept once worked out, for what is recorded before it never changes."""
        position = self._order_position(order)
        if position not in self._frozen:
            plan = self.plan_in_force(order.paid_at, position)
            assert plan is not None
            bindings = self._bindings(position)
            people: list[tuple[str, str, int, int]] = []
            looks_up = max(rule.generation for rule in plan[1].rules)
            for member_id in [order.member_id, *self._upline(order.member_id, position)][: 1 + looks_up]:
                tier, tier_position = self._tier(member_id, position)
                bound_to_somebody = bindings[member_id].locked and bindings[member_id].referrer_id != ""
                people.append((member_id, tier, bindings[member_id].position if bound_to_somebody else 0, tier_position))
            self._frozen[position] = Frozen(plan[0], plan[1], tuple(people))
        return self._frozen[position]

    def _remaining(self, order: Order, end: int) -> dict[int, tuple[int, int]]:
        """line_no -> (base, quantity) not refunded yet."""
        left = {line.line_no: (line.base_minor, line.quantity) for line in order.lines}
        for fact in self.log[:end]:
            if isinstance(fact, Refund) and fact.order_id == order.order_id:
                for back in fact.lines:
                    base, quantity = left[back.line_no]
                    left[back.line_no] = (base - back.base_minor, quantity - back.quantity)
        return left

    def _emptied(self, order: Order, end: int) -> bool:
        """Whether an order is refunded in full: neither money nor units remain on any line."""
        return not any(base or quantity for base, quantity in self._remaining(order, end).values())

    def _parts(self, order: Order, at: int) -> list[Part]:
        """What every rule gives on every line, on the base that remained right after an entry."""
        return parts_of(order, self._freeze(order), self._remaining(order, at))

    # --------------------------------------------------------------------------------------------------- release, holds, payouts

    def _completion(self, order_id: str, end: int) -> int | None:
        found = (fact.completed_at for fact in self.log[:end] if isinstance(fact, Complete) and fact.order_id == order_id)
        return next(found, None)

    def _parts_with_release(self, order: Order, end: int) -> list[tuple[Part, bool]]:
        """Every part of an order, and whether it has been released."""
        completed_at = self._completion(order.order_id, end)
        released: set[tuple[str, int]] = set()
        for fact in self.log[:end]:
            if isinstance(fact, Released) and fact.order_id == order.order_id:
                released |= fact.parts
        parts = self._parts(order, end)
        return [(part, completed_at is not None and (part.payee, completed_at + part.days * DAY_NS) in released) for part in parts]

    def _waiting(self, order: Order) -> dict[tuple[str, int], int]:
        """(payee, due time) -> what the order will release to them then."""
        completed_at = self._completion(order.order_id, len(self.log))
        waiting: dict[tuple[str, int], int] = {}
        if completed_at is not None:
            for part, released in self._parts_with_release(order, len(self.log)):
                if part.payee and not released:
                    key = (part.payee, completed_at + part.days * DAY_NS)
                    waiting[key] = waiting.get(key, 0) + part.amount
        return waiting

    def _held(self) -> set[tuple[str, str]]:
        """The members and orders under a hold that has not been lifted."""
        lifted = {fact.hold_id for fact in self.log if isinstance(fact, LiftHold)}
        holds = [fact for fact in self.log if isinstance(fact, PlaceHold) and fact.hold_id not in lifted]
        return {("member", hold.member_id) if hold.member_id else ("order", hold.order_id) for hold in holds}

    def _payout_state(self, payout_id: str, end: int) -> str:
        """unknown, open, paid or failed."""
        state = "unknown"
        for fact in self.log[:end]:
            if isinstance(fact, RequestPayout | ConfirmPayout | FailPayout) and fact.payout_id == payout_id:
                state = "paid" if isinstance(fact, ConfirmPayout) else "failed" if isinstance(fact, FailPayout) else "open"
        return state

    def _closing_faults(self, payout_id: str) -> Iterator[str]:
        state = self._payout_state(payout_id, len(self.log))
        if state == "unknown":
            yield "PAYOUT_UNKNOWN"
        elif state != "open":
            yield "PAYOUT_CLOSED"


def parts_of(order: Order, frozen: Frozen, remaining: Mapping[int, tuple[int, int]]) -> list[Part]:
    """What every rule gives on every line of an order, under what was frozen with it and on what remains of it."""
    parts: list[Part] = []
    for line in order.lines:
        base = remaining[line.line_no][0]
        for rule in frozen.plan.rules:
            if rule.matches(line):
                payee, amount = "", 0
                if rule.generation < len(frozen.people):
                    payee, tier = frozen.people[rule.generation][:2]
                    amount = entitlement(rule.rate_for(tier), base)
                parts.append(Part(line.line_no, rule.rule_id, payee, amount, entitlement(rule.top_rate(), base), rule.days))
    return parts


def _type_and_stream(fact: Fact) -> tuple[str, str]:
    match fact:
        case CreateProgram():
            return "program.created.v1", "program"
        case PublishPlan():
            return "plan.published.v1", f"plan/{read_plan(fact.document).plan_id}"
        case Enroll():
            return "member.enrolled.v1", f"member/{fact.member_id}"
        case Touch():
            return "member.touched.v1", f"member/{fact.member_id}"
        case Upgrade():
            return "member.upgraded.v1", f"member/{fact.member_id}"
        case Correct():
            return "member.binding_corrected.v1", f"member/{fact.member_id}"
        case Order():
            return "order.paid.v1", f"order/{fact.order_id}"
        case Complete():
            return "order.completed.v1", f"order/{fact.order_id}"
        case Refund():
            return "order.refunded.v1", f"order/{fact.order_id}"
        case Released():
            return "order.released.v1", f"order/{fact.order_id}"
        case PlaceHold():
            return "hold.placed.v1", f"hold/{fact.hold_id}"
        case LiftHold():
            return "hold.lifted.v1", f"hold/{fact.hold_id}"
        case RequestPayout():
            return "payout.requested.v1", f"payout/{fact.payout_id}"
        case ConfirmPayout():
            return "payout.paid.v1", f"payout/{fact.payout_id}"
        case FailPayout():
            return "payout.failed.v1", f"payout/{fact.payout_id}"
        case Adjust():
            return "adjustment.posted.v1", f"adjustment/{fact.adjustment_id}"
        case _:
            assert_never(fact)


def _counts(binding: Binding, touch: str) -> bool:
    return not binding.locked and (touch == "last" or not binding.referrer_id)


def _per_payee(parts: Sequence[Part]) -> dict[str, int]:
    """Who earns what over all lines and rules; those who earn nothing are left out."""
    sums: dict[str, int] = {}
    for part in parts:
        if part.payee and part.amount:
            sums[part.payee] = sums.get(part.payee, 0) + part.amount
    return sums
