"""Tasks that a plan rewards: something was done, no order is needed."""

from services.kernel.decider import Answer, Draft, repeated
from services.kernel.refusals import MemberUnknown, NoPlanInForce
from services.kernel.times import DAY_US, to_text
from services.ledger.domain import counting
from services.ledger.domain.books import Ahead, Books, settle
from services.ledger.domain.commands import RecordTask
from services.ledger.domain.engine import ENGINE_VERSION
from services.ledger.domain.facts import Account, Count, DueChange, LineShares, Posting, Share, TaskDoneDecision
from services.ledger.domain.orders import path
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
    postings: list[Posting] = []
    for index, rule in rules_of(plan, fact.task):
        if rule.most is not None:
            key = counting.Key(counting.task_counter(rule.id), "", fact.member_id)
            if ahead.counter(key) >= rule.most:
                continue
            counts.append(Count(*key, 1))
        given = [(1, rule.buyer_minor), (2 if len(people) > 1 else 0, rule.referrer_minor)]
        mine = [Share(index, payee, amount) for payee, amount in given if amount]
        shares += mine
        asset = plan.asset_of(rule)
        postings.append(Posting(Account.COMMISSION, "", -sum(share.amount_minor for share in mine), asset))
        for _, payee, amount in mine:
            if not payee:
                postings.append(Posting(Account.BREAKAGE, "", amount, asset))
                continue
            member_id = people[payee - 1].member_id
            if rule.release.on == "at_once" and not books.is_held(member_id):
                for account, part in settle(ahead.balance(member_id, rule.asset), amount):
                    postings.append(Posting(account, member_id, part, asset))
                    ahead.moves(member_id, rule.asset, account, part)
                continue
            # There is nothing to complete: a task is done when it is done.
            slot = (member_id, command.occurred_us + rule.release.days * DAY_US, rule.asset)
            due[slot] = due.get(slot, 0) + amount
            postings.append(Posting(Account.PENDING, member_id, amount, asset))
    decision = TaskDoneDecision(
        ENGINE_VERSION,
        version.position,
        people,
        (LineShares(0, tuple(shares)),) if shares else (),
        tuple(DueChange(member_id, due_us, amount, asset) for (member_id, due_us, asset), amount in due.items()),
        tuple(postings),
        tuple(counts),
    )
    return [Draft(stream, fact, decision, command.occurred_us)]


def rules_of(plan: Plan, task: str) -> list[tuple[int, Triggered]]:
    """The rules that reward a task."""
    return [
        (index, rule) for index, rule in enumerate(plan.rules) if isinstance(rule, Triggered) and rule.on == "task" and rule.task == task
    ]
