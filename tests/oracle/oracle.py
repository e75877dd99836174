"""The ledger once more, deliberately plain and slow, to compare the real one with.

Written from the documents alone (the schemes, docs/accounts.md, docs/plan-format.md, the contract), without a look at the services.
It keeps one thing, the list of accepted facts, and works every answer out from the whole of it (books.py walks it): here stands what is
refused and why, and what is answered. The amounts themselves are in shares.py (orders) and periods.py.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from tests.oracle.books import Binding, Books
from tests.oracle.facts import (
    ADJUST_WRITE_OFF,
    DEPOSIT_PAID_IN,
    EVIDENCE_PAID_ORDER,
    EVIDENCE_SEAT_GRANTED,
    KIND_GOODS,
    Adjust,
    Balance,
    ClosePeriod,
    Company,
    Complete,
    ConfirmPayout,
    Correct,
    CreateProgram,
    EndRole,
    Enroll,
    Fact,
    FailGroup,
    FailPayout,
    FormGroup,
    GrantRole,
    GroupState,
    LiftHold,
    Member,
    MoveDeposit,
    OpenBalance,
    OpenGroup,
    Order,
    OrderState,
    Outcome,
    PeriodState,
    PlaceHold,
    PublishPlan,
    RecordTask,
    Refund,
    Released,
    ReleaseDue,
    RequestPayout,
    SealBooks,
    Told,
    Touch,
    TransferStock,
    Upgrade,
    happened_at,
)
from tests.oracle.form import meaningful, well_formed
from tests.oracle.plan import Plan, PlanInvalid, read_plan

_RELEASES_PER_CALL = 100


class Oracle:
    """The books of one program. Writes answer an Outcome; reads take the position as of which to answer (None: now)."""

    walks = Books  # how the log is walked

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.log: list[Fact] = []
        self.books = self.walks(currency)
        self._answers: dict[tuple[str, ...], tuple[object, Outcome]] = {}
        self._take(CreateProgram(currency))

    def fork(self) -> Oracle:
        """Books that hold the same and go on by themselves."""
        other = type(self)(self.currency)
        other.log, other._answers, other.books = list(self.log), dict(self._answers), self.books.copied()
        return other

    def again(self) -> Oracle:
        """Books told the same facts from the first one on."""
        other = type(self)(self.currency)
        for fact in self.log[1:]:
            other._take(fact)
        return other

    def _take(self, fact: Fact) -> tuple[int, dict[str, object]]:
        """Writes a fact into the log: its position, and what the answer says besides."""
        self.log.append(fact)
        position = self.books.position + 1
        return position, dict(self.books.apply(fact))

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

        canonical = json.dumps(plan.content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
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
        counts = self.books.touch_counts(fact.member_id)

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id, fact.referrer_id):
                yield "MEMBER_UNKNOWN"
            if fact.member_id == fact.referrer_id:
                yield "SELF_BINDING"
            elif counts and self.books.closes_cycle(fact.member_id, fact.referrer_id):
                yield "BINDING_CYCLE"

        return self._record(("touch", fact.touch_id), fact, fact, faults(), {"counts": counts})

    def upgrade(self, fact: Upgrade) -> Outcome:
        """Counts once by upgrade id. The first one locks the binding; a seat may be for a time, and there may be only so many."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            plan = self.plan_in_force(fact.upgraded_at)
            if plan is None:
                yield "NO_PLAN_IN_FORCE"
            elif fact.tier not in plan[1].tiers:
                yield "TIER_UNKNOWN"
            elif fact.evidence_kind == EVIDENCE_SEAT_GRANTED and self.books.seats_are_taken(plan[1], fact):
                yield "SEATS_TAKEN"
            names_order = fact.evidence_kind == EVIDENCE_PAID_ORDER and fact.evidence_order_id
            if names_order and self._order(fact.evidence_order_id) is None:
                yield "ORDER_UNKNOWN"

        return self._record(("upgrade", fact.upgrade_id), fact, fact, faults())

    def correct(self, fact: Correct) -> Outcome:
        """Counts once by correction id. Moves a locked binding, for later orders only."""
        binding = self.books.bindings.get(fact.member_id, Binding())

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id) or (fact.new_referrer_id and not self._enrolled(fact.new_referrer_id)):
                yield "MEMBER_UNKNOWN"
            if not binding.locked:
                yield "BINDING_NOT_LOCKED"
            if fact.requested_by == fact.approved_by:
                yield "APPROVER_IS_REQUESTER"
            if fact.new_referrer_id == fact.member_id:
                yield "SELF_BINDING"
            elif fact.new_referrer_id and self.books.closes_cycle(fact.member_id, fact.new_referrer_id):
                yield "BINDING_CYCLE"

        return self._record(("correction", fact.correction_id), fact, fact, faults(), {"previous_referrer_id": binding.referrer_id})

    def grant_role(self, fact: GrantRole) -> Outcome:
        """Counts once by grant id."""
        faults = [] if self._enrolled(fact.member_id) else ["MEMBER_UNKNOWN"]
        content = replace(fact, weight=fact.weight or 1)
        return self._record(("grant", fact.grant_id), content, fact, iter(faults))

    def end_role(self, fact: EndRole) -> Outcome:
        """Counts once by grant id. For later orders only."""

        def faults() -> Iterator[str]:
            grant = self.books.grants.get(fact.grant_id)
            if grant is None:
                yield "ROLE_GRANT_UNKNOWN"
            elif fact.ended_at < grant.effective_from:
                yield "DATED_TOO_EARLY"

        return self._record(("role end", fact.grant_id), fact, fact, faults())

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
            named = (*fact.attributions, *(one for line in fact.lines for one in line.attributions))
            others = [fact.referrer_id, *(one.member_id for one in named)]
            if not self._enrolled(*filter(None, others)):
                yield "MEMBER_UNKNOWN"
            group = self.books.groups.get(fact.group_id)
            if fact.group_id and group is None:
                yield "GROUP_UNKNOWN"
            if group is not None and group.state != "open":
                yield "GROUP_CLOSED"
            if self.books.code_counts(fact):
                if fact.referrer_id == fact.member_id:
                    yield "SELF_BINDING"
                elif self.books.closes_cycle(fact.member_id, fact.referrer_id):
                    yield "BINDING_CYCLE"

        content = replace(fact, lines=tuple(replace(line, kind=line.kind or KIND_GOODS) for line in fact.lines))
        return self._record(("order", fact.order_id), content, fact, faults())

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
            remaining = self.books.orders[fact.order_id].told_remaining
            if any(line.line_no not in remaining for line in fact.lines):
                yield "LINE_UNKNOWN"
            for line_no, (base, quantity) in remaining.items():
                asked = [line for line in fact.lines if line.line_no == line_no]
                if sum(line.base_minor for line in asked) > base or sum(line.quantity for line in asked) > quantity:
                    yield "REFUND_EXCEEDS_PAID"
                    return

        return self._record(("refund", fact.refund_id, fact.order_id), fact, fact, faults())

    def orders(self, facts: Sequence[Order]) -> list[Outcome]:
        """A batch is its facts one by one."""
        return [self.order(fact) for fact in facts]

    def follow_ups(self, facts: Sequence[Complete | Refund]) -> list[Outcome]:
        """A batch is its facts one by one."""
        return [self.complete(fact) if isinstance(fact, Complete) else self.refund(fact) for fact in facts]

    # -------------------------------------------------------------------------------------------------- writes: groups, periods

    def open_group(self, fact: OpenGroup) -> Outcome:
        """Counts once by group id."""
        return self._record(("group", fact.group_id), fact, fact, iter([] if self._enrolled(fact.opener_id) else ["MEMBER_UNKNOWN"]))

    def form_group(self, fact: FormGroup) -> Outcome:
        """Counts once by group id. What its orders earn and waits for that becomes due."""
        return self._record(("group formed", fact.group_id), fact, fact, self._group_faults(fact.group_id, fact.formed_at))

    def fail_group(self, fact: FailGroup) -> Outcome:
        """Counts once by group id. All that its orders earned is taken back."""
        return self._record(("group failed", fact.group_id), fact, fact, self._group_faults(fact.group_id, fact.failed_at))

    def _group_faults(self, group_id: str, at: int) -> Iterator[str]:
        group = self.books.groups.get(group_id)
        if group is None:
            yield "GROUP_UNKNOWN"
            return
        if group.state != "open":
            yield "GROUP_CLOSED"
        paid = [self.books.orders[order_id].order.paid_at for order_id in group.order_ids]
        if at < max([group.fact.opened_at, *paid]):
            yield "DATED_TOO_EARLY"

    def record_task(self, fact: RecordTask) -> Outcome:
        """Counts once by task id."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            if self.plan_in_force(fact.done_at) is None:
                yield "NO_PLAN_IN_FORCE"

        return self._record(("task", fact.task_id), fact, fact, faults())

    def close_period(self, fact: ClosePeriod) -> Outcome:
        """Counts once by period, whenever it is asked again."""

        def faults() -> Iterator[str]:
            found = self.books.plan_of_period(fact.period_id)
            if found is None:
                yield "PERIOD_UNKNOWN"
                yield "NO_PLAN_IN_FORCE"
            elif fact.closed_at < found[2].end:
                yield "PERIOD_NOT_OVER"

        return self._record(("period", fact.period_id), fact.period_id, fact, faults())

    def seal_books(self, fact: SealBooks) -> Outcome:
        """Counts once by seal id. Each goes further than the one before; what it seals is all that happened before, late or not."""

        def faults() -> Iterator[str]:
            last = self.books.sealed_through
            if last is not None and fact.through <= last:
                yield "SEALED_ALREADY"

        detail = {"sealed_from": self.books.sealed_through, **self.booked_before(fact.through)} if well_formed(fact) else None
        return self._record(("seal", fact.seal_id), fact, fact, faults(), detail)

    def booked_before(self, through: int) -> dict[str, object]:
        """How many entries told before a time there are, and what these alone moved: the log is walked once more, all of it."""
        entries, balances = 0, Counter[tuple[str, str]]()
        books = type(self)(self.currency)
        for told in self.log[1:]:
            before, position = books.accounts(), books.position()
            books._take(told)
            if happened_at(told) < through:  # type: ignore[arg-type]  # only the first fact is the program's own
                entries += books.position() - position
                balances.update(books.accounts())
                balances.subtract(before)
        return {"entries": entries, "balances": {account: amount for account, amount in balances.items() if amount}}

    def accounts(self) -> Counter[tuple[str, str]]:
        """(asset, account) -> what stands there."""
        return Counter({(asset, account): held for asset in self.assets() for account, held in self.trial_balance(asset).items()})

    # --------------------------------------------------------------------------------------------------- writes: release, holds

    def release_due(self, fact: ReleaseDue) -> Outcome:
        """Releases every (source, payee, asset, due time) due by then and not held: whole sources, the earliest due first."""
        if not well_formed(fact):
            return Outcome("refused", "MALFORMED")
        held = self._held()
        due: dict[str, dict[tuple[str, str, int], int]] = {}
        for source in self.books.sources():
            if source.stream.startswith("order/") and ("order", source.stream.removeprefix("order/")) in held:
                continue
            for key, amount in self.books.due(source).items():
                if key[2] <= fact.as_of and ("member", key[0]) not in held:
                    due.setdefault(source.stream, {})[key] = amount
        queue = sorted(due, key=lambda stream: (min(due_at for _, _, due_at in due[stream]), stream))
        now = queue[: fact.max_orders or _RELEASES_PER_CALL]
        for stream in now:
            self._take(Released(stream, frozenset(due[stream]), fact.as_of))
        amount = sum(amount for stream in now for (_, asset, _), amount in due[stream].items() if asset == self.currency)
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
            hold = self.books.holds.get(fact.hold_id)
            if hold is None:
                yield "HOLD_UNKNOWN"
            elif fact.lifted_at < hold.placed_at:
                yield "DATED_TOO_EARLY"

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

    # ------------------------------------------------------------------------------------- writes: accounts of their own, openings

    def move_deposit(self, fact: MoveDeposit) -> Outcome:
        """Counts once by deposit id. At most what is held goes out."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            if fact.currency != self.currency:
                yield "CURRENCY_MISMATCH"
            if fact.kind != DEPOSIT_PAID_IN and fact.amount_minor > self.books.deposits[fact.member_id]:
                yield "DEPOSIT_EXCEEDS_HELD"

        return self._record(("deposit", fact.deposit_id), fact, fact, faults())

    def transfer_stock(self, fact: TransferStock) -> Outcome:
        """Counts once by transfer id."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.from_member_id, fact.to_member_id):
                yield "MEMBER_UNKNOWN"
            if fact.currency != self.currency:
                yield "CURRENCY_MISMATCH"

        return self._record(("transfer", fact.transfer_id), fact, fact, faults())

    def open_balance(self, fact: OpenBalance) -> Outcome:
        """Counts once by opening id."""

        def faults() -> Iterator[str]:
            if not self._enrolled(fact.member_id):
                yield "MEMBER_UNKNOWN"
            if fact.currency != self.currency:
                yield "CURRENCY_MISMATCH"
            held = self.balance(fact.member_id)
            if (fact.available_minor and held.debt) or (fact.debt_minor and held.available):
                yield "MALFORMED"

        return self._record(("opening", fact.opening_id), fact, fact, faults())

    # -------------------------------------------------------------------------------------------------------------------- reads

    def plans(self) -> list[tuple[int, PublishPlan, Plan]]:
        """Every published version with its position, oldest first."""
        return self.books.plans

    def plan_in_force(self, at: int) -> tuple[int, Plan] | None:
        """The newest version, by its place in the log, that is in force at that time."""
        return self.books.plan_in_force(at)

    def members(self) -> list[str]:
        """Every member, by id."""
        return sorted(self.books.members)

    def order_ids(self) -> list[str]:
        """Every order, oldest first."""
        return list(self.books.orders)

    def group_ids(self) -> list[str]:
        """Every group, oldest first."""
        return list(self.books.groups)

    def period_ids(self) -> list[str]:
        """Every closed period, oldest first."""
        return list(self.books.periods)

    def position(self) -> int:
        """The last entry."""
        return self.books.position

    def assets(self) -> list[str]:
        """The program's currency, then all points."""
        return self.books.assets()

    def balance(self, member_id: str, position: int | None = None, asset: str = "") -> Balance:
        """Where a member's money stood right after an entry."""
        return self.books.balance(member_id, asset or self.currency, position)

    def balances(self, asset: str = "") -> dict[str, Balance]:
        """Every member's balance now."""
        return {member_id: self.balance(member_id, asset=asset) for member_id in self.members()}

    def company(self, asset: str = "", position: int | None = None) -> Company:
        """The company's accounts right after an entry, or now."""
        return self.books.company_accounts(asset or self.currency, position)

    def trial_balance(self, asset: str = "", position: int | None = None) -> dict[str, int]:
        """Every account with its sign in the book, the members' summed up; right after an entry, or now."""
        balances = [self.balance(member_id, position, asset) for member_id in self.members()]
        return {
            "pending": sum(balance.pending for balance in balances),
            "available": sum(balance.available for balance in balances),
            "reserved": sum(balance.reserved for balance in balances),
            "paid": sum(balance.paid for balance in balances),
            "debt": -sum(balance.debt for balance in balances),
            "deposit": sum(balance.deposit for balance in balances),
            "margin": sum(balance.margin for balance in balances),
            **asdict(self.company(asset, position)),
        }

    def entries(self) -> list[tuple[str, str]]:
        """Type and stream of every entry, oldest first, as docs/log.md names them; the program's own id does not matter here."""
        return self.books.entries

    def check_itself(self) -> None:
        """The books sum to zero for every asset, and the same facts give the same books. Raises AssertionError if not."""
        again = self.again()
        for asset in self.assets():
            assert sum(self.trial_balance(asset).values()) == 0
            assert again.trial_balance(asset) == self.trial_balance(asset)
        assert again.entries() == self.entries()

    def binding(self, member_id: str) -> Binding:
        """Who brought a member: locked or open, and to whom."""
        return self.books.bindings[member_id]

    def tier(self, member_id: str, at: int) -> str:
        """The tier that counts at a time; empty: none."""
        return self.books.tier(member_id, at)

    def member(self, member_id: str) -> Member:
        """A member with everything about them."""
        binding, standing = self.books.bindings[member_id], self.books.standings.get(member_id)
        return Member(
            member_id=member_id,
            enrolled_at=self.books.members[member_id].enrolled_at,
            tier=standing.tier if standing else "",
            locked=binding.locked,
            referrer_id=binding.referrer_id,
            binding_position=binding.position,
            tier_position=standing.position if standing else 0,
            direct_count=sum(other.locked and other.referrer_id == member_id for other in self.books.bindings.values()),
            tier_expires_at=standing.expires_at if standing else 0,
            tier_frozen=standing.frozen if standing else False,
        )

    def upline(self, member_id: str) -> list[str]:
        """The locked path up, nearest first."""
        return self.books.upline(member_id)

    def order_state(self, order_id: str) -> OrderState:
        """What remains of an order, and what that entitles to."""
        book = self.books.orders[order_id]
        return OrderState(
            paid_at=book.order.paid_at,
            completed_at=book.completed_at or 0,
            plan_position=book.plan_position,
            people=tuple((who.member_id, who.tier, who.binding_position, who.tier_position) for who in book.people),
            lines=book.told_remaining,
            entitlements=book.shares,
            positions=tuple(book.positions),
        )

    def group_state(self, group_id: str) -> GroupState:
        """A group and its orders."""
        group = self.books.groups[group_id]
        return GroupState(group.fact.opener_id, group.state, tuple(group.order_ids), group.fact.opened_at, group.closed_at)

    def period_state(self, period_id: str) -> PeriodState:
        """A closed period as of now."""
        book = self.books.periods[period_id]
        return PeriodState(book.period.start, book.period.end, book.closed_at, book.plan_position, book.results, tuple(book.positions))

    # ------------------------------------------------------------------------------------------------------------- facts, once

    def _record(self, key: tuple[str, ...], content: object, fact: Told, faults: Iterator[str], detail: object = None) -> Outcome:
        """Looks at the form, then the id (told before, it is repeated or reused), then what else is wrong; else it is recorded."""
        if not well_formed(fact):
            return Outcome("refused", "MALFORMED")
        if key in self._answers:
            recorded, answer = self._answers[key]
            return replace(answer, kind="repeated") if recorded == content else Outcome("refused", "ID_REUSED")
        wrong = [*([] if meaningful(fact) else ["MALFORMED"]), *faults]
        if wrong:
            return Outcome("refused", wrong[0], also=tuple(wrong[1:]))
        position, told = self._take(fact)
        if isinstance(detail, dict):
            told |= detail
        answer = Outcome("accepted", position=position, detail=told)
        self._answers[key] = (content, answer)
        return answer

    def _enrolled(self, *member_ids: str) -> bool:
        return all(member_id in self.books.members for member_id in member_ids)

    def _order(self, order_id: str) -> Order | None:
        book = self.books.orders.get(order_id)
        return book.order if book else None

    def _held(self) -> set[tuple[str, str]]:
        return self.books.held()

    def _closing_faults(self, payout_id: str) -> Iterator[str]:
        state = self.books.payouts[payout_id][1] if payout_id in self.books.payouts else "unknown"
        if state == "unknown":
            yield "PAYOUT_UNKNOWN"
        elif state != "open":
            yield "PAYOUT_CLOSED"
