"""Orders: paid, completed, refunded, released. SCHEMES: frozen per line, entitlement on what remains, every role reversed, debt."""

from collections.abc import Iterable

from services.kernel.decider import Answer, Draft, repeated
from services.kernel.refusals import (
    CurrencyMismatch,
    DatedTooEarly,
    LineUnknown,
    Malformed,
    MemberUnknown,
    NoPlanInForce,
    OrderUnknown,
    RefundExceedsPaid,
)
from services.kernel.times import DAY_US, to_text
from services.ledger.domain.books import NOTHING, Balance, Books, Member, Order
from services.ledger.domain.commands import CompleteOrder, RecordOrder, RefundOrder, ReleaseDue
from services.ledger.domain.engine import ENGINE_VERSION, ENGINES, entitle
from services.ledger.domain.facts import (
    Account,
    BindingLock,
    DueChange,
    LineShares,
    OrderCompletedDecision,
    OrderPaidDecision,
    OrderRefundedDecision,
    OrderReleased,
    OrderReleasedDecision,
    Person,
    Posting,
    Share,
)
from services.ledger.domain.plan import Rule


def record(books: Books, command: RecordOrder) -> Answer:
    """Who earns what from a paid order. The first one locks its buyer to the touch that counts."""
    fact = command.fact
    stream = f"order/{fact.order_id}"
    recorded = books.stream(stream)
    if recorded:
        again = repeated(recorded[0], f"order {fact.order_id!r}", fact, command.occurred_us)
        assert again is not None
        return again
    numbers = {line.line_no for line in fact.lines}
    if len(numbers) != len(fact.lines):
        raise Malformed("order.lines", "two lines have the same line_no")
    buyer = books.member(fact.member_id)
    if buyer is None:
        raise MemberUnknown(fact.member_id)
    if fact.currency != books.currency:
        raise CurrencyMismatch(books.currency, fact.currency)
    version = books.plan_in_force(command.occurred_us)
    if version is None:
        raise NoPlanInForce(to_text(command.occurred_us))
    lock = None
    if not buyer.locked:
        lock = BindingLock(fact.member_id, buyer.referrer_id, buyer.touch_position)
        buyer = buyer._replace(locked=True, binding_position=books.position + 1)
    people = path(books, fact.member_id, buyer, version.plan.depth)
    rules = version.plan.rules
    earned = [0] * (len(people) + 1)
    lines = []
    for line in fact.lines:
        shares = entitle(rules, people, line, line.base_minor)
        for _, payee, amount in shares:
            earned[payee] += amount
        lines.append(LineShares(line.line_no, tuple(shares)))
    asset = fact.currency
    pool = sum(earned)
    postings = []
    if pool:
        postings.append(Posting(Account.COMMISSION, "", -pool, asset))
        if earned[0]:
            postings.append(Posting(Account.BREAKAGE, "", earned[0], asset))
        postings += [
            Posting(Account.PENDING, person.member_id, amount, asset) for person, amount in zip(people, earned[1:], strict=True) if amount
        ]
    decision = OrderPaidDecision(ENGINE_VERSION, version.position, lock, people, tuple(lines), tuple(postings))
    return [Draft(stream, fact, decision, command.occurred_us)]


def path(books: Books, buyer_id: str, buyer: Member, depth: int) -> tuple[Person, ...]:
    """The buyer and the locked people above, nearest first, at most `depth` of them. An open binding ends it: a touch pays nobody."""
    people = [_person(buyer_id, buyer)]
    current = buyer
    while len(people) <= depth and current.locked and current.referrer_id:
        above_id = current.referrer_id
        above = books.member(above_id)
        assert above is not None, "a binding names only enrolled members"
        people.append(_person(above_id, above))
        current = above
    return tuple(people)


def _person(member_id: str, member: Member) -> Person:
    """A binding to nobody is no binding to anybody: its position is 0."""
    bound = member.locked and member.referrer_id
    return Person(member_id, member.tier, member.binding_position if bound else 0, member.tier_position)


def complete(books: Books, command: CompleteOrder) -> Answer:
    """From now the release waits only for its days: what each share still entitles to becomes due."""
    order = _known(books, command.fact.order_id)
    if order.completed is not None:
        again = repeated(order.completed, f"completion of order {command.fact.order_id!r}", command.fact, command.occurred_us)
        assert again is not None
        return again
    _not_before("completed_at", order, command.occurred_us)
    rules = books.plan_at(order.decision.plan_position).plan.rules
    due: dict[tuple[str, int], int] = {}
    for line in order.lines.values():
        for (rule_index, payee), amount in line.entitled.items():
            if payee and amount:
                days = rules[rule_index].release_days
                key = (order.decision.people[payee - 1].member_id, command.occurred_us + days * DAY_US)
                due[key] = due.get(key, 0) + amount
    changes = tuple(DueChange(member_id, due_us, amount) for (member_id, due_us), amount in due.items())
    return [Draft(order.paid.stream, command.fact, OrderCompletedDecision(changes), command.occurred_us)]


def refund(books: Books, command: RefundOrder) -> Answer:
    """Takes from every payee what the refunded part no longer entitles to, by the rates, people and engine frozen with the order."""
    fact = command.fact
    order = _known(books, fact.order_id)
    key = f"refund {fact.refund_id!r} of order {fact.order_id!r}"
    again = repeated(order.refunds.get(fact.refund_id), key, fact, command.occurred_us)
    if again:
        return again
    _not_before("refunded_at", order, command.occurred_us)
    remaining = _remaining_after(order, command)
    plan = books.plan_at(order.decision.plan_position).plan
    people, asset = order.decision.people, order.fact.currency
    engine = ENGINES[order.decision.engine_version]
    lines = []
    # {(payee, release days): change}; the payee 0 is breakage.
    changes: dict[tuple[int, int], int] = {}
    for line_no, base_minor in remaining.items():
        state = order.lines[line_no]
        shares = _difference(state.entitled, engine(plan.rules, people, state.line, base_minor))
        for rule_index, payee, amount in shares:
            slot = (payee, plan.rules[rule_index].release_days if payee else 0)
            changes[slot] = changes.get(slot, 0) + amount
        lines.append(LineShares(line_no, tuple(shares)))
    postings, due = _reversal(books, order, changes, plan.rules)
    released = ""
    buyer = order.fact.member_id
    if plan.on_full_refund == "release" and order.decision.binding_locked and _empties(order, command, remaining):
        member = books.member(buyer)
        if member is not None and member.binding_position == order.paid.position:
            released = buyer
    decision = OrderRefundedDecision(order.decision.engine_version, tuple(lines), due, _postings(postings, asset), released)
    return [Draft(order.paid.stream, fact, decision, command.occurred_us)]


def _remaining_after(order: Order, command: RefundOrder) -> dict[int, int]:
    """{line: base that remains} for the lines a refund names. Raises LineUnknown, RefundExceedsPaid, Malformed."""
    bases: dict[int, int] = {}
    quantities: dict[int, int] = {}
    for refunded in command.fact.lines:
        if not refunded.base_minor and not refunded.quantity:
            raise Malformed("refund.lines", f"line {refunded.line_no} refunds nothing: base_minor and quantity are both 0")
        bases[refunded.line_no] = bases.get(refunded.line_no, 0) + refunded.base_minor
        quantities[refunded.line_no] = quantities.get(refunded.line_no, 0) + refunded.quantity
    for line_no, base in bases.items():
        state = order.lines.get(line_no)
        if state is None:
            raise LineUnknown(command.fact.order_id, line_no)
        if base > state.remaining_base:
            raise RefundExceedsPaid(command.fact.order_id, line_no, "base_minor", state.remaining_base, base)
        if quantities[line_no] > state.remaining_quantity:
            raise RefundExceedsPaid(command.fact.order_id, line_no, "quantity", state.remaining_quantity, quantities[line_no])
    return {line_no: order.lines[line_no].remaining_base - base for line_no, base in bases.items()}


def _empties(order: Order, command: RefundOrder, remaining: dict[int, int]) -> bool:
    left = sum(line.remaining_quantity for line in order.lines.values()) - sum(line.quantity for line in command.fact.lines)
    return left == 0 and not any(remaining.get(line_no, line.remaining_base) for line_no, line in order.lines.items())


def _difference(before: dict[tuple[int, int], int], after: Iterable[Share]) -> list[Share]:
    changed = {key: -amount for key, amount in before.items()}
    for rule_index, payee, amount in after:
        changed[(rule_index, payee)] = changed.get((rule_index, payee), 0) + amount
    return [Share(rule_index, payee, amount) for (rule_index, payee), amount in changed.items() if amount]


def _reversal(
    books: Books, order: Order, changes: dict[tuple[int, int], int], rules: tuple[Rule, ...]
) -> tuple[dict[tuple[Account, str], int], tuple[DueChange, ...]]:
    """Where each change is taken from: pending while the share is not released, then available, then debt."""
    postings: dict[tuple[Account, str], int] = {(Account.COMMISSION, ""): -sum(changes.values())}
    due: dict[tuple[str, int], int] = {}
    balances: dict[str, Balance] = {}
    for (payee, days), amount in changes.items():
        if not payee:
            _add(postings, Account.BREAKAGE, "", amount)
            continue
        member_id = order.decision.people[payee - 1].member_id
        due_us = order.due_us(days)
        if due_us is None or (member_id, due_us) not in order.released:
            _add(postings, Account.PENDING, member_id, amount)
            if due_us is not None:
                due[(member_id, due_us)] = due.get((member_id, due_us), 0) + amount
            continue
        balance = balances.get(member_id) or books.balance(member_id)
        for account, part in settle(balance, amount) if amount > 0 else claw_back(balance, -amount):
            _add(postings, account, member_id, part)
            balance += Balance(available=part) if account is Account.AVAILABLE else Balance(debt=part)
        balances[member_id] = balance
    return postings, tuple(DueChange(member_id, due_us, amount) for (member_id, due_us), amount in due.items() if amount)


def settle(balance: Balance, amount: int) -> list[tuple[Account, int]]:
    """Where incoming money goes: debts first, the rest to available."""
    owed = min(-balance.debt, amount)
    return [(account, part) for account, part in ((Account.DEBT, owed), (Account.AVAILABLE, amount - owed)) if part]


def claw_back(balance: Balance, amount: int) -> list[tuple[Account, int]]:
    """Where money to be taken back comes from: available as far as it reaches, the rest becomes debt."""
    taken = min(balance.available, amount)
    return [(account, -part) for account, part in ((Account.AVAILABLE, taken), (Account.DEBT, amount - taken)) if part]


def release(books: Books, command: ReleaseDue) -> Answer:
    """Moves what is due and not held to available, one entry for each order. Nothing due: no entry."""
    balances: dict[str, Balance] = {}
    drafts = []
    for order_id, dues in books.releasable(command.occurred_us, command.limit):
        postings: dict[tuple[Account, str], int] = {}
        for member_id, _, amount in dues:
            balance = balances.get(member_id) or books.balance(member_id)
            _add(postings, Account.PENDING, member_id, -amount)
            for account, part in settle(balance, amount):
                _add(postings, account, member_id, part)
                balance += Balance(debt=part) if account is Account.DEBT else NOTHING
            balances[member_id] = balance
        decision = OrderReleasedDecision(
            tuple(due._replace(amount_minor=-due.amount_minor) for due in dues), _postings(postings, books.currency)
        )
        drafts.append(Draft(f"order/{order_id}", OrderReleased(order_id), decision, command.occurred_us))
    return drafts


def _known(books: Books, order_id: str) -> Order:
    order = books.order(order_id)
    if order is None:
        raise OrderUnknown(order_id)
    return order


def _not_before(field: str, order: Order, occurred_us: int) -> None:
    if occurred_us < order.paid.occurred_us:
        raise DatedTooEarly(field, to_text(order.paid.occurred_us), to_text(occurred_us))


def _add(postings: dict[tuple[Account, str], int], account: Account, member_id: str, amount: int) -> None:
    postings[(account, member_id)] = postings.get((account, member_id), 0) + amount


def _postings(amounts: dict[tuple[Account, str], int], asset: str) -> tuple[Posting, ...]:
    return tuple(Posting(account, member_id, amount, asset) for (account, member_id), amount in amounts.items() if amount)
