"""Tasks that a plan rewards: something was done, no order is needed."""

from services.kernel.decider import Answer, Draft, repeated
from services.kernel.refusals import MemberUnknown, NoPlanInForce
from services.kernel.times import DAY_US, to_text
from services.ledger.domain import counting
from services.ledger.domain.books import Ahead, Books
from services.ledger.domain.commands import RecordTask
from services.ledger.domain.facts import Count, DueChange, LineShares, Share, TaskDoneDecision
from services.ledger.domain.orders import accrual, path
from services.ledger.domain.plan import Plan
from services.ledger.domain.rules import Triggered


def record(books: Books, command: RecordTask) -> Answer:
    """Who earns what from a task done, by the plan in force then. A task the plan does not name earns nothing."""
    fact = command.fact
    stream = f"task/{fact.task_id}"
    entries = books.stream(stream)
    again = repeated(entries[0] if entries else None, f"task {fact.task_id!r}", fact, command.occurred_us)
    if again:
        return again
    member = books.member(fact.member_id)
    if member is None:
        raise MemberUnknown(fact.member_id)
    version = books.plan_in_force(command.occurred_us)
    if version is None:
        raise NoPlanInForce(to_text(command.occurred_us))
    plan, ahead = version.plan, Ahead(books)
    people = path(books, fact.member_id, member, 1, command.occurred_us)
    shares: list[Share] = []
    counts: list[Count] = []
    due: dict[tuple[str, int, str], int] = {}
    # {asset: {(payee, at once): amount}}, money first.
    earned: dict[str, dict[tuple[int, bool], int]] = {"": {}}
    for index, rule in rules_of(plan, fact.task):
        if rule.most is not None:
            key = counting.Key(counting.task_counter(rule.id), "", fact.member_id)
            if ahead.counter(key) >= rule.most:
                continue
            counts.append(Count(*key, 1))
        given = [(1, rule.buyer_minor), (2 if len(people) > 1 else 0, rule.referrer_minor)]
        for payee, amount in given:
            if not amount:
                continue
            shares.append(Share(index, payee, amount))
            at_once = rule.release.on == "at_once" and payee > 0
            mine = earned.setdefault(rule.asset, {})
            mine[(payee, at_once)] = mine.get((payee, at_once), 0) + amount
            if payee and not at_once:
                # There is nothing to complete: a task is done when it is done.
                slot = (people[payee - 1].member_id, command.occurred_us + rule.release.days * DAY_US, rule.asset)
                due[slot] = due.get(slot, 0) + amount
    postings, held_back = accrual(ahead, people, earned, books.currency, command.occurred_us)
    for member_id, due_us, amount, asset in held_back:
        due[(member_id, due_us, asset)] = due.get((member_id, due_us, asset), 0) + amount
    decision = TaskDoneDecision(
        books.engine_version,
        version.position,
        people,
        (LineShares(0, tuple(shares)),) if shares else (),
        tuple(DueChange(member_id, due_us, amount, asset) for (member_id, due_us, asset), amount in due.items()),
        postings,
        tuple(counts),
    )
    return [Draft(stream, fact, decision, command.occurred_us)]


def rules_of(plan: Plan, task: str) -> list[tuple[int, Triggered]]:
    """The rules that reward a task."""
    return [
        (index, rule) for index, rule in enumerate(plan.rules) if isinstance(rule, Triggered) and rule.on == "task" and rule.task == task
    ]
