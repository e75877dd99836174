"""Orders: paid, completed, refunded, voided, released. Rules: frozen per line, entitlement on what remains, every role reversed, debt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from services.kernel.decider import Answer, Draft, Entry, repeated
from services.kernel.refusals import (
    BindingCycle,
    CurrencyMismatch,
    DatedTooEarly,
    GroupClosed,
    GroupUnknown,
    LineUnknown,
    Malformed,
    MemberUnknown,
    NoPlanInForce,
    OrderUnknown,
    RefundExceedsPaid,
    SelfBinding,
)
from services.kernel.times import DAY_US, to_text
from services.ledger.domain import corrections, counting, periods
from services.ledger.domain.books import Ahead, Books, Member, Order, claw_back, settle, stream_of
from services.ledger.domain.commands import CompleteOrder, RecordOrder, RefundOrder, ReleaseDue
from services.ledger.domain.engine import ENGINES, TOLD_APART, Remaining, Rooms, Standing, lives, plain
from services.ledger.domain.facts import (
    Account,
    Attribution,
    BindingLock,
    CapRoom,
    Count,
    DueChange,
    GroupFailed,
    GroupFormed,
    GroupJoined,
    GroupOpened,
    LineShares,
    OrderCompletedDecision,
    OrderPaid,
    OrderPaidDecision,
    OrderRefunded,
    OrderRefundedDecision,
    OrderReleased,
    OrderReleasedDecision,
    OrderVoided,
    PeriodCorrected,
    Person,
    Posting,
    RewardReleased,
    Share,
    TierChange,
    TierChangeKind,
)
from services.ledger.domain.plan import Plan, PlanVersion
from services.ledger.domain.rules import GroupFormed as OpenerRule
from services.ledger.domain.rules import Release

# The most that one posting can hold, int64 in the log. A fixed amount times a quantity may be more.
MOST_BOOKED = 2**63 - 1
# As in engine.py.
_tuple = tuple.__new__
AT_ONCE = Release("at_once", 0)

# ---------------------------------------------------------------- paid


def record(books: Books, command: RecordOrder) -> Answer:
    """Who earns what from a paid order. The first one locks its buyer to the touch that counts."""
    fact = command.fact
    recorded = books.stream(f"order/{fact.order_id}")
    if recorded:
        again = repeated(recorded[0], f"order {fact.order_id!r}", fact, command.occurred_us)
        assert again is not None
        return again
    remaining = {line.line_no: (line.base_minor, line.quantity) for line in fact.lines}
    if len(remaining) != len(fact.lines):
        raise Malformed("order.lines", "two lines have the same line_no")
    buyer = books.member(fact.member_id)
    if buyer is None:
        raise MemberUnknown(fact.member_id)
    if fact.currency != books.currency:
        raise CurrencyMismatch(books.currency, fact.currency)
    version = books.plan_in_force(command.occurred_us)
    if version is None:
        raise NoPlanInForce(to_text(command.occurred_us))
    plan = version.plan
    lock = None
    if fact.referrer_id and books.member(fact.referrer_id) is None:
        raise MemberUnknown(fact.referrer_id, "referrer_id")
    if not buyer.locked:
        lock = _lock(books, fact, buyer, plan)
        buyer = buyer._replace(locked=True, referrer_id=lock.referrer_id, binding_position=books.position + 1)
    group_first = bool(fact.group_id) and not _joined(books, fact.group_id)
    people = path(books, fact.member_id, buyer, plan.depth, command.occurred_us)
    if not plan.is_plain or fact.attributions or any(line.attributions for line in fact.lines):
        people += _in_roles(books, fact, plan, command.occurred_us)
    if plan.is_plain:
        lines = plain(plan, people, fact.lines, remaining)
        postings = _plain_accrual(people, lines, fact.currency)
        if postings and postings[0].amount_minor < -MOST_BOOKED:
            raise _too_much(plan, lines)
        decision = OrderPaidDecision(
            books.engine_version, version.position, lock, people, tuple(lines), postings, "", (), (), (), group_first, ()
        )
        return _told(fact, decision, command.occurred_us)
    invited = lock is not None and bool(lock.referrer_id)
    standing = Standing(plan, people, fact, command.occurred_us, invited=invited, group_first=group_first)
    ahead = Ahead(books)
    period_id = ""
    counts: list[Count] = []
    tier_changes: list[TierChange] = []
    rewards: list[Share] = []
    if plan.counts:
        counted = _counted(books, version, fact, command.occurred_us, standing, invited)
        period_id = counted.period_id
        counts = counting.moved(counted, standing, None, remaining, ahead)
        tier_changes = _promotions(books, plan, counted, counts, ahead, people)
        standing.promoted = next((change.tier for change in tier_changes if change.member_id == fact.member_id), "")
        rewards = _rewards(plan, counted, standing, None, remaining, ahead)
    rooms = Rooms(None, lambda rule, payee: _room(plan, rule, people[payee - 1].member_id, command.occurred_us, ahead))
    lines = _with_whole(ENGINES[books.engine_version](standing, remaining, rooms, None), rewards)
    # {asset: {(payee, at once): amount}}, money first.
    earned: dict[str, dict[tuple[int, bool], int]] = {"": {}}
    for _, shares in lines:
        for rule_index, payee, amount in shares:
            mine = earned.setdefault(plan.rules[rule_index].asset, {})
            slot = (payee, payee > 0 and rule_index in plan.at_once_rules)
            mine[slot] = mine.get(slot, 0) + amount
    counts += _capped(plan, people, lines, command.occurred_us)
    postings, due = accrual(ahead, people, earned, fact.currency, command.occurred_us)
    if any(posting.amount_minor < -MOST_BOOKED for posting in postings):
        raise _too_much(plan, lines)
    decision = OrderPaidDecision(
        books.engine_version,
        version.position,
        lock,
        people,
        tuple(lines),
        postings,
        period_id,
        tuple(CapRoom(rule, payee, room) for (rule, payee), room in rooms.asked.items()) if rooms.asked else (),
        tuple(counts),
        tuple(tier_changes),
        group_first,
        due,
    )
    return _told(fact, decision, command.occurred_us)


def _told(fact: OrderPaid, decision: OrderPaidDecision, occurred_us: int) -> list[Draft]:
    drafts = [Draft(f"order/{fact.order_id}", fact, decision, occurred_us)]
    if fact.group_id:
        drafts.append(Draft(f"group/{fact.group_id}", GroupJoined(fact.group_id, fact.order_id), None, occurred_us))
    return drafts


def _too_much(plan: Plan, lines: Sequence[LineShares]) -> Malformed:
    """Why an order that costs more than can be booked is refused: the rule that costs most of it."""
    costs: dict[int, int] = {}
    for _, shares in lines:
        for rule_index, _, amount in shares:
            costs[rule_index] = costs.get(rule_index, 0) + amount
    index = max(costs, key=lambda one: costs[one])
    name = f"rules[{index}] ({plan.rules[index].id}) of plan {plan.plan_id} version {plan.version}"
    problem = f"{name} comes to {costs[index]} for this order; the rules may come to at most {MOST_BOOKED} together"
    return Malformed(f"rules[{index}]", problem)


def _lock(books: Books, fact: OrderPaid, buyer: Member, plan: Plan) -> BindingLock:
    """The lifetime lock falls to the touch that counts; to the code on the order where the plan says so."""
    if plan.touch != "order" or not fact.referrer_id:
        return BindingLock(fact.member_id, buyer.referrer_id, buyer.touch_position)
    if fact.referrer_id == fact.member_id:
        raise SelfBinding(fact.member_id)
    if books.stands_above(fact.member_id, of=fact.referrer_id):
        raise BindingCycle(fact.member_id, fact.referrer_id)
    return BindingLock(fact.member_id, fact.referrer_id, books.position + 1)


def _joined(books: Books, group_id: str) -> list[str]:
    """The orders that joined a group so far. Raises GroupUnknown, GroupClosed."""
    entries = books.stream(f"group/{group_id}")
    if not entries:
        raise GroupUnknown(group_id)
    for entry in entries:
        if isinstance(entry.fact, GroupFormed | GroupFailed):
            raise GroupClosed(group_id, "failed" if isinstance(entry.fact, GroupFailed) else "formed")
    return [entry.fact.order_id for entry in entries if isinstance(entry.fact, GroupJoined)]


def path(books: Books, buyer_id: str, buyer: Member, depth: int, at_us: int) -> tuple[Person, ...]:
    """The buyer and the locked people above, nearest first, at most `depth` of them. An open binding ends it: a touch pays nobody."""
    people = [_person(books, buyer_id, buyer, at_us)]
    current = buyer
    while len(people) <= depth and current.locked and current.referrer_id:
        above_id = current.referrer_id
        above = books.member(above_id)
        assert above is not None, "a binding names only enrolled members"
        people.append(_person(books, above_id, above, at_us))
        current = above
    return tuple(people)


def _person(
    books: Books, member_id: str, member: Member, at_us: int, role: str = "", scope: str = "", role_position: int = 0, weight: int = 0
) -> Person:
    """As they stand, and as what they are looked at if that is for a role. A binding to nobody is none: its position is 0."""
    tier, tier_position, locked, referrer_id, binding, _ = member
    if member_id in books.standings:
        tier, tier_position = books.tier_at(member_id, member, at_us)
    binding = binding if locked and referrer_id else 0
    return _tuple(Person, (member_id, tier, binding, tier_position, role, scope, role_position, weight))


def _in_roles(books: Books, fact: OrderPaid, plan: Plan, at_us: int) -> tuple[Person, ...]:
    """Everybody whom the plan looks at for a role: named on the order, found by place, holding it everywhere; the opener of the group."""
    found: list[Person] = []
    seen: set[Attribution] = set()
    for one in (*fact.attributions, *(one for line in fact.lines for one in line.attributions)):
        if one.member_id and books.member(one.member_id) is None:
            raise MemberUnknown(one.member_id, "attributions.member_id")
        if one in seen or one.role not in plan.attributed_roles:
            continue
        seen.add(one)
        if one.member_id:
            found.append(_in_role(books, one.member_id, one.role, "", 0, 1, at_us))
        else:
            found += [
                _in_role(books, grant.member_id, one.role, one.scope, grant.position, grant.weight, at_us)
                for grant in books.holders(one.role, one.scope, at_us)
            ]
    for role in sorted(plan.pool_roles):
        found += [
            _in_role(books, grant.member_id, role, "", grant.position, grant.weight, at_us) for grant in books.holders(role, "", at_us)
        ]
    if fact.group_id and any(isinstance(rule, OpenerRule) for rule in plan.rules):
        opened = books.stream(f"group/{fact.group_id}")[0].fact
        assert isinstance(opened, GroupOpened), "a group's stream begins with its opening"
        found.append(_in_role(books, opened.opener_id, "opener", "", 0, 1, at_us))
    return tuple(found)


def _in_role(books: Books, member_id: str, role: str, scope: str, position: int, weight: int, at_us: int) -> Person:
    member = books.member(member_id)
    assert member is not None, "roles are granted only to enrolled members"
    return _person(books, member_id, member, at_us, role, scope, position, weight)


def _counted(books: Books, version: PlanVersion, fact: OrderPaid, paid_us: int, standing: Standing, invited: bool) -> counting.Order:
    """The order as counting sees it, its volumes in the first period that is not closed."""
    plan = version.plan
    period_id = ""
    if plan.period_rules:
        period = periods.period_of(plan, paid_us)
        while books.is_closed(period.period_id) and plan.period != "campaign":
            period = periods.period_of(plan, period.ends_us)
        period_id = "" if books.is_closed(period.period_id) else period.period_id
    return counting.Order(plan, fact, paid_us, [person.member_id for person in standing.path[1:]], period_id, invited)


def _promotions(
    books: Books, plan: Plan, order: counting.Order, counts: Sequence[Count], ahead: Ahead, people: Sequence[Person]
) -> list[TierChange]:
    if not plan.promotions:
        return []
    read = counting.Moved(ahead, counts)
    path = {person.member_id: person for person in people if not person.role}
    changes = []
    for member_id in counting.looked_at(plan, order):
        person = path[member_id]
        tier = counting.met(plan, member_id, person.tier, order.day, read)
        if tier:
            member = books.member(member_id)
            assert member is not None, "who stands on the path is a member"
            behind = books.tier_behind(member_id, member, order.paid_us)
            changes.append(TierChange(member_id, TierChangeKind.PROMOTED, tier, *behind))
    return changes


def _room(plan: Plan, rule_index: int, member_id: str, paid_us: int, ahead: Ahead) -> int | None:
    """What a cap by period leaves a payee; None: there is none."""
    rule = plan.rules[rule_index]
    if rule.cap_period_minor is None:
        return None
    period = periods.period_of(plan, paid_us)
    return rule.cap_period_minor - ahead.counter(counting.Key(counting.cap_counter(rule.id), period.period_id, member_id))


def _capped(plan: Plan, people: Sequence[Person], lines: Iterable[LineShares], paid_us: int) -> list[Count]:
    """What shares, or changes of shares, add to what was earned by rules that are capped by period."""
    if not plan.capped_rules:
        return []
    earned: dict[tuple[str, str], int] = {}
    for _, shares in lines:
        for rule_index, payee, amount in shares:
            if payee and rule_index in plan.capped_rules:
                key = (counting.cap_counter(plan.rules[rule_index].id), people[payee - 1].member_id)
                earned[key] = earned.get(key, 0) + amount
    period_id = periods.period_of(plan, paid_us).period_id if earned else ""
    return [Count(counter, period_id, member_id, amount) for (counter, member_id), amount in earned.items() if amount]


def _rewards(
    plan: Plan, order: counting.Order, standing: Standing, before: Remaining | None, after: Remaining, ahead: Ahead
) -> list[Share]:
    """`counted`: what the inviter is owed with the invitees they have now, less what they were owed before."""
    shares = []
    for index, rule in plan.counted_rules:
        invitees, change = counting.qualified(order, standing, rule, before, after, ahead)
        amount = rule.owed(invitees + change) - rule.owed(invitees)
        if amount:
            shares.append(Share(index, 2, amount))
    return shares


def _with_whole(lines: list[LineShares], whole: Sequence[Share]) -> list[LineShares]:
    """The lines, with more shares of the order as a whole."""
    if not whole:
        return lines
    if lines and lines[-1].line_no == 0:
        return [*lines[:-1], LineShares(0, (*lines[-1].shares, *whole))]
    return [*lines, LineShares(0, tuple(whole))]


def _plain_accrual(people: Sequence[Person], lines: Sequence[LineShares], currency: str) -> tuple[Posting, ...]:
    """As accrual, where all is money, nothing is paid at once and nobody is there twice."""
    earned: dict[int, int] = {}
    for _, shares in lines:
        for _, payee, amount in shares:
            earned[payee] = earned.get(payee, 0) + amount
    if not earned:
        return ()
    postings = [_tuple(Posting, (Account.COMMISSION, "", -sum(earned.values()), currency))]
    for payee in sorted(earned):
        if payee:
            postings.append(_tuple(Posting, (Account.PENDING, people[payee - 1].member_id, earned[payee], currency)))
        else:
            postings.append(_tuple(Posting, (Account.BREAKAGE, "", earned[payee], currency)))
    return tuple(postings)


def accrual(
    ahead: Ahead, people: Sequence[Person], earned: Mapping[str, Mapping[tuple[int, bool], int]], currency: str, occurred_us: int
) -> tuple[tuple[Posting, ...], tuple[DueChange, ...]]:
    """Postings of what is earned now, {asset: {(payee, at once): amount}}: for each asset the company's, then each payee's.

    What is paid at once to somebody held is pending, and due at once.
    """
    postings: list[Posting] = []
    due: dict[tuple[str, int, str], int] = {}
    for asset, mine in earned.items():
        name = asset or currency
        pool = left = 0
        moved: dict[tuple[Account, str], int] = {}
        for (payee, at_once), amount in sorted(mine.items()):
            pool += amount
            if not payee:
                left = amount
                continue
            member_id = people[payee - 1].member_id
            held = at_once and ahead.books.is_held(member_id)
            if held:
                slot = (member_id, occurred_us, asset)
                due[slot] = due.get(slot, 0) + amount
            if held or not at_once:
                key = (Account.PENDING, member_id)
                moved[key] = moved.get(key, 0) + amount
                continue
            for account, part in settle(ahead.balance(member_id, asset), amount):
                _add(moved, account, member_id, part)
                ahead.moves(member_id, asset, account, part)
        if pool:
            postings.append(Posting(Account.COMMISSION, "", -pool, name))
        if left:
            postings.append(Posting(Account.BREAKAGE, "", left, name))
        postings += [Posting(account, member_id, amount, name) for (account, member_id), amount in moved.items() if amount]
    dues = tuple(DueChange(member_id, due_us, amount, asset) for (member_id, due_us, asset), amount in due.items())
    return tuple(postings), dues


# ---------------------------------------------------------------- completed


def complete(books: Books, command: CompleteOrder) -> Answer:
    """From now the release waits only for its days: what each share still entitles to becomes due."""
    order = known(books, command.fact.order_id)
    if order.completed is not None:
        again = repeated(order.completed, f"completion of order {command.fact.order_id!r}", command.fact, command.occurred_us)
        assert again is not None
        return again
    not_before("completed_at", order, command.occurred_us)
    plan = books.plan_at(order.decision.plan_position).plan
    changes = newly_due(order, plan, completed_us=command.occurred_us)
    return [Draft(order.paid.stream, command.fact, OrderCompletedDecision(changes), command.occurred_us)]


def newly_due(order: Order, plan: Plan, completed_us: int | None = None, formed_us: int | None = None) -> tuple[DueChange, ...]:
    """What becomes due because an order is completed, or its group is formed, at a time."""
    when: dict[int, int | None] = {}
    due: dict[tuple[str, int, str], int] = {}
    for rule_index, payee, amount in order.entitlements():
        if not payee or not amount:
            continue
        rule = plan.rules[rule_index]
        if rule_index not in when:
            when[rule_index] = _due_us(order, plan, rule.release, completed_us, formed_us)
        due_us = when[rule_index]
        if due_us is not None:
            key = (order.decision.people[payee - 1].member_id, due_us, rule.asset)
            due[key] = due.get(key, 0) + amount
    return tuple(DueChange(member_id, due_us, amount, asset) for (member_id, due_us, asset), amount in due.items() if amount > 0)


def _due_us(order: Order, plan: Plan, release: Release, completed_us: int | None, formed_us: int | None) -> int | None:
    """When shares that are released so fall due because of what happened; None if not because of that."""
    happened_us = formed_us if release.on == "group_formed" and order.fact.group_id else completed_us
    if happened_us is None or release.on == "at_once":
        return None
    if release.on == "period_close":
        happened_us = periods.period_of(plan, happened_us).ends_us
    return happened_us + release.days * DAY_US


# ---------------------------------------------------------------- refunded, voided


def refund(books: Books, command: RefundOrder) -> Answer:
    """Takes from every payee what the refunded part no longer entitles to, by the rates, people and engine frozen with the order."""
    fact = command.fact
    order = known(books, fact.order_id)
    key = f"refund {fact.refund_id!r} of order {fact.order_id!r}"
    again = repeated(order.refunds.get(fact.refund_id), key, fact, command.occurred_us)
    if again:
        return replace(again, more=corrections_by(books, order, fact.refund_id))
    not_before("refunded_at", order, command.occurred_us)
    refunded = _refunded(order, command)
    after = {
        line_no: (base - refunded[line_no][0], units - refunded[line_no][1]) if line_no in refunded else (base, units)
        for line_no, (base, units) in order.remaining().items()
    }
    if order.voided:
        after = order.remaining()
    plan = books.plan_at(order.decision.plan_position).plan
    released = _lock_released(books, order, plan) if _empties(order, refunded) else ""
    return reverse(Ahead(books), order, plan, after, fact, command.occurred_us, list(refunded), released)


def corrections_by(books: Books, order: Order, refund_id: str = "") -> tuple[Entry, ...]:
    """The correction of a closed period that a recorded refund of an order, or (no id) its being voided, brought about, if it did."""
    if not order.decision.period_id or not books.is_closed(order.decision.period_id):
        return ()
    corrected = PeriodCorrected(order.decision.period_id, order.fact.order_id, refund_id)
    return tuple(entry for entry in books.stream(f"period/{corrected.period_id}") if entry.fact == corrected)


def void(ahead: Ahead, order: Order, group_id: str, occurred_us: int) -> list[Draft]:
    """Takes back all that an order earned: its group failed."""
    plan = ahead.books.plan_at(order.decision.plan_position).plan
    fact = OrderVoided(order.fact.order_id, group_id)
    nothing = dict.fromkeys(order.lines, (0, 0))
    return reverse(ahead, order, plan, nothing, fact, occurred_us, list(order.lines), _lock_released(ahead.books, order, plan))


def _lock_released(books: Books, order: Order, plan: Plan) -> str:
    """The buyer, where nothing of the order that locked them remains and the plan releases the lock then; else empty."""
    buyer = order.fact.member_id
    if plan.on_full_refund != "release" or not order.decision.binding_locked:
        return ""
    member = books.member(buyer)
    return buyer if member is not None and member.binding_position == order.paid.position else ""


def reverse(
    ahead: Ahead,
    order: Order,
    plan: Plan,
    after: Remaining,
    fact: OrderRefunded | OrderVoided,
    occurred_us: int,
    concerned: Sequence[int],
    released_member_id: str,
) -> list[Draft]:
    """The entry that brings an order to what remains of it, and the correction of its period if that is closed."""
    decided, before = order.decision, order.remaining()
    standing = standing_of(order, plan)
    counted = counted_of(order, plan, standing)
    counts = counting.moved(counted, standing, before, after, ahead)
    frozen = {(room.rule_index, room.payee): room.room_minor for room in decided.rooms}
    now = dict(ENGINES[decided.engine_version](standing, after, Rooms(frozen), None))
    rewards = _rewards(plan, counted, standing, before, after, ahead)
    lines = []
    for line_no in dict.fromkeys([*concerned, *order.lines]):
        shares = _difference(order.entitled(line_no), now[line_no])
        if shares or line_no in concerned:
            lines.append(LineShares(line_no, tuple(shares)))
    # What counted rules gave stays until the count says otherwise.
    whole = {key: amount for key, amount in order.whole.items() if key[0] not in dict(plan.counted_rules)}
    shares = [*_difference(whole, now.get(0, ())), *rewards]
    if shares:
        lines.append(LineShares(0, tuple(shares)))
    counts += _capped(plan, decided.people, lines, order.paid.occurred_us)
    changes: dict[tuple[int, Release | None, str], int] = {}
    for _, changed in lines:
        for rule_index, payee, amount in changed:
            rule = plan.rules[rule_index]
            slot = (payee, rule.release if payee else None, rule.asset)
            changes[slot] = changes.get(slot, 0) + amount
    postings, due = _reversal(ahead, order, plan, changes)
    tier_changes = _evidence_gone(ahead.books, order, plan, before, after, occurred_us)
    ahead.counts(counts)
    decision = OrderRefundedDecision(
        decided.engine_version, tuple(lines), due, postings, released_member_id, tuple(counts), tuple(tier_changes)
    )
    drafts = [Draft(order.paid.stream, fact, decision, occurred_us)]
    period_id = decided.period_id
    if period_id and ahead.books.is_closed(period_id):
        refund_id = fact.refund_id if isinstance(fact, OrderRefunded) else ""
        volumes = [count for count in counts if count.bucket == period_id and count.counter.startswith("rule:")]
        correction = corrections.correct(ahead, PeriodCorrected(period_id, order.fact.order_id, refund_id), volumes)
        if correction is not None:
            drafts.append(Draft(f"period/{period_id}", *correction, occurred_us))
    return drafts


def standing_of(order: Order, plan: Plan) -> Standing:
    """What was frozen with an order, as the engine takes it."""
    decided = order.decision
    promoted = (change.tier for change in decided.tier_changes if change.member_id == order.fact.member_id)
    return Standing(
        plan,
        decided.people,
        order.fact,
        order.paid.occurred_us,
        invited=decided.binding_locked is not None and bool(decided.binding_locked.referrer_id),
        promoted=next(promoted, ""),
        group_first=decided.group_first,
    )


def counted_of(order: Order, plan: Plan, standing: Standing) -> counting.Order:
    above = [person.member_id for person in standing.path[1:]]
    return counting.Order(plan, order.fact, order.paid.occurred_us, above, order.decision.period_id, standing.invited)


def _refunded(order: Order, command: RefundOrder) -> dict[int, tuple[int, int]]:
    """{line: (base, units) refunded} for the lines a refund names. Raises LineUnknown, RefundExceedsPaid, Malformed."""
    found: dict[int, tuple[int, int]] = {}
    for refunded in command.fact.lines:
        if not refunded.base_minor and not refunded.quantity:
            raise Malformed("refund.lines", f"line {refunded.line_no} refunds nothing: base_minor and quantity are both 0")
        base, units = found.get(refunded.line_no, (0, 0))
        found[refunded.line_no] = (base + refunded.base_minor, units + refunded.quantity)
    for line_no, (base, units) in found.items():
        state = order.lines.get(line_no)
        if state is None:
            raise LineUnknown(command.fact.order_id, line_no)
        if base > state.remaining_base:
            raise RefundExceedsPaid(command.fact.order_id, line_no, "base_minor", state.remaining_base, base)
        if units > state.remaining_quantity:
            raise RefundExceedsPaid(command.fact.order_id, line_no, "quantity", state.remaining_quantity, units)
    return found


def _empties(order: Order, refunded: Mapping[int, tuple[int, int]]) -> bool:
    return not any(
        line.remaining_base > refunded.get(line_no, (0, 0))[0] or line.remaining_quantity > refunded.get(line_no, (0, 0))[1]
        for line_no, line in order.lines.items()
    )


def _evidence_gone(books: Books, order: Order, plan: Plan, before: Remaining, after: Remaining, occurred_us: int) -> list[TierChange]:
    """What the plan says of tiers that rest on an order of which nothing remains."""
    if plan.on_evidence_refunded == "keep" or not _anything(order, before) or _anything(order, after):
        return []
    changes = []
    for evidence in books.tiers_resting_on(order.fact.order_id):
        member = books.member(evidence.member_id)
        standing = books.standings.get(evidence.member_id)
        if member is None or (standing is not None and standing.frozen):
            continue
        # Of a seat that has ended the tier before it counts, and rests on what gave that.
        _, rests_on = books.tier_at(evidence.member_id, member, occurred_us)
        if rests_on != evidence.position:
            continue
        if plan.on_evidence_refunded == "freeze":
            changes.append(TierChange(evidence.member_id, TierChangeKind.FROZEN, evidence.tier, evidence.tier, evidence.position))
            continue
        back = (evidence.previous_tier, evidence.tier, evidence.position, evidence.previous_position)
        changes.append(TierChange(evidence.member_id, TierChangeKind.DEMOTED, *back))
    return changes


def _anything(order: Order, remaining: Remaining) -> bool:
    return any(lives(line, *remaining[line.line_no]) for line in order.fact.lines)


def _difference(before: Mapping[tuple[int, int], int], after: Iterable[Share]) -> list[Share]:
    changed = {key: -amount for key, amount in before.items()}
    for rule_index, payee, amount in after:
        changed[(rule_index, payee)] = changed.get((rule_index, payee), 0) + amount
    return [Share(rule_index, payee, amount) for (rule_index, payee), amount in changed.items() if amount]


class _Slot(NamedTuple):
    """Where pending shares of one member wait: for a due time, or for what makes them due. Both: a hold stopped what is paid at once."""

    member_id: str
    release: Release | None
    due_us: int | None
    asset: str


def _reversal(
    ahead: Ahead, order: Order, plan: Plan, changes: Mapping[tuple[int, Release | None, str], int]
) -> tuple[tuple[Posting, ...], tuple[DueChange, ...]]:
    """Where each change is taken from: pending while the share is not released, then available, then debt."""
    apart = order.decision.engine_version >= TOLD_APART
    postings: dict[str, dict[tuple[Account, str], int]] = {}
    for _, _, asset in changes:
        postings[asset] = {(Account.COMMISSION, ""): -sum(amount for key, amount in changes.items() if key[2] == asset)}
    due: dict[tuple[str, int, str], int] = {}
    pending = _pending(order, plan)
    for (payee, release, asset), amount in changes.items():
        if not payee:
            _add(postings[asset], Account.BREAKAGE, "", amount)
            continue
        assert release is not None
        member_id = order.decision.people[payee - 1].member_id
        due_us = order.due_us(release, plan)
        left = amount
        at_once, released = release.on == "at_once", (member_id, due_us or 0, asset) in order.released
        slot = _Slot(member_id, release if due_us is None or (apart and at_once and not released) else None, due_us, asset)
        stood = pending.get(slot, 0)
        # Of what was paid at once, or released, waits only what a hold stopped.
        if (stood > 0 or not (at_once or released)) if apart else order.waits(member_id, release, due_us, asset):
            # What is pending here never falls below nothing: a counted reward may be another order's; and before they were told apart,
            # what was paid at once shared its due time with what waits.
            pending[slot] = stood + amount
            left = max(0, stood + amount) - max(0, stood)
            _add(postings[asset], Account.PENDING, member_id, left)
            if due_us is not None:
                key = (member_id, due_us, asset)
                due[key] = due.get(key, 0) + left
            left = amount - left
        if left > 0 and ahead.books.is_held(member_id):
            # A hold stops what would come to a member, never what is taken back.
            _add(postings[asset], Account.PENDING, member_id, left)
            key = (member_id, due_us if due_us is not None else order.paid.occurred_us, asset)
            due[key] = due.get(key, 0) + left
        elif left:
            balance = ahead.balance(member_id, asset)
            for account, part in settle(balance, left) if left > 0 else claw_back(balance, -left):
                _add(postings[asset], account, member_id, part)
                ahead.moves(member_id, asset, account, part)
    dues = tuple(DueChange(member_id, due_us, amount, asset) for (member_id, due_us, asset), amount in due.items() if amount)
    return tuple(one for asset, moved in postings.items() for one in _postings(moved, asset or order.fact.currency)), dues


def _pending(order: Order, plan: Plan) -> dict[_Slot, int]:
    """What an order entitles to by where it waits; what it has pending there is that, where it is more than nothing."""
    found = {_Slot(member_id, None, due_us, asset): amount for (member_id, due_us, asset), amount in order.due.items()}
    if order.decision.engine_version >= TOLD_APART and plan.pays_at_once:
        for member_id, due_us, asset in order.due:
            if due_us == order.paid.occurred_us:
                stopped = order.stopped(plan, member_id, asset)
                found[_Slot(member_id, None, due_us, asset)] -= stopped
                found[_Slot(member_id, AT_ONCE, due_us, asset)] = stopped
    for rule_index, payee, amount in order.entitlements():
        rule = plan.rules[rule_index]
        if payee and rule.release.on != "at_once" and order.due_us(rule.release, plan) is None:
            slot = _Slot(order.decision.people[payee - 1].member_id, rule.release, None, rule.asset)
            found[slot] = found.get(slot, 0) + amount
    return found


# ---------------------------------------------------------------- released


def release(books: Books, command: ReleaseDue) -> Answer:
    """Moves what is due and not held to available, one entry for each order or other source. Nothing due: no entry."""
    ahead = Ahead(books)
    drafts = []
    for source, dues in books.releasable(command.occurred_us, command.limit):
        postings: dict[str, dict[tuple[Account, str], int]] = {}
        for member_id, _, amount, asset in dues:
            moved = postings.setdefault(asset, {})
            _add(moved, Account.PENDING, member_id, -amount)
            for account, part in settle(ahead.balance(member_id, asset), amount):
                _add(moved, account, member_id, part)
                ahead.moves(member_id, asset, account, part)
        decision = OrderReleasedDecision(
            tuple(due._replace(amount_minor=-due.amount_minor) for due in dues),
            tuple(one for asset, moved in postings.items() for one in _postings(moved, asset or books.currency)),
        )
        stream = stream_of(source)
        fact = RewardReleased(source) if "/" in source else OrderReleased(source)
        drafts.append(Draft(stream, fact, decision, command.occurred_us))
    return drafts


def known(books: Books, order_id: str) -> Order:
    """Raises OrderUnknown."""
    order = books.order(order_id)
    if order is None:
        raise OrderUnknown(order_id)
    return order


def not_before(field: str, order: Order, occurred_us: int) -> None:
    if occurred_us < order.paid.occurred_us:
        raise DatedTooEarly(field, to_text(order.paid.occurred_us), to_text(occurred_us))


def _add(postings: dict[tuple[Account, str], int], account: Account, member_id: str, amount: int) -> None:
    postings[(account, member_id)] = postings.get((account, member_id), 0) + amount


def _postings(amounts: Mapping[tuple[Account, str], int], asset: str) -> tuple[Posting, ...]:
    return tuple(Posting(account, member_id, amount, asset) for (account, member_id), amount in amounts.items() if amount)
