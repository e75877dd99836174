"""Why a posting has its amount: the shares behind it, re-derived from the frozen plan and people, told in numbers and in sentences."""

from collections.abc import Sequence

from fenrun.ledger.v1 import ledger_pb2 as pb
from fenrun.log.v1 import log_pb2

from services.kernel.decider import Entry
from services.kernel.refusals import PostingUnknown
from services.kernel.times import to_text
from services.ledger import codec
from services.ledger.domain.books import Order, fold_order
from services.ledger.domain.facts import (
    Account,
    AdjustmentPosted,
    LineShares,
    OrderPaid,
    OrderRefunded,
    OrderReleased,
    PayoutFailed,
    PayoutPaid,
    PayoutRequested,
    Person,
    Posting,
)
from services.ledger.domain.plan import PlanVersion, Rule
from services.ledger.views import postings_of
from services.runtime import eventlog
from services.runtime.currency import to_major
from services.runtime.eventlog import Connection
from services.runtime.stored import entry_message


async def explain(connection: Connection, program_id: str, posting_id: str, plans: Sequence[PlanVersion]) -> pb.ExplainResponse:
    """The whole story of one posting. Raises PostingUnknown."""
    position, number = (int(part) for part in posting_id.split("."))
    found = await eventlog.at(connection, program_id, [position - 1, position])
    if not found or found[-1].position != position:
        raise PostingUnknown(posting_id)
    stored = found[-1]
    entry = codec.read(stored)
    postings = postings_of(entry)
    if number > len(postings):
        raise PostingUnknown(posting_id)
    posting = postings[number - 1]
    answer = pb.ExplainResponse(
        entry=entry_message(stored, found[0].hash if position > 1 else bytes(32)),
        posting=log_pb2.Posting(
            account=posting.account.value,  # type: ignore[arg-type]  # same numbers
            member_id=posting.member_id,
            amount_minor=posting.amount_minor,
            asset=posting.asset,
        ),
    )
    answer.sentences.append(_opening(posting, entry))
    history = [codec.read(one) for one in await eventlog.streams(connection, program_id, [entry.stream])]
    earlier = [one for one in history if one.position < position]
    match entry.fact:
        case OrderPaid() | OrderRefunded():
            _explain_shares(answer, entry, posting, earlier, plans)
        case OrderReleased():
            order = fold_order(earlier)
            assert order is not None and order.completed is not None
            answer.because_of.extend([order.paid.position, order.completed.position])
            completed = to_text(order.completed.occurred_us)
            answer.sentences.append(f"Order {entry.fact.order_id} was completed at {completed} (entry {order.completed.position}).")
            for due in entry.decision.due:
                if due.member_id == posting.member_id:
                    amount = to_major(-due.amount_minor, posting.asset)
                    answer.sentences.append(f"{amount} of it fell due at {to_text(due.due_us)}; debts are settled first.")
        case PayoutRequested():
            answer.sentences.append(f"Payout {entry.fact.payout_id} was requested: the amount is reserved until it is paid or fails.")
        case PayoutPaid():
            answer.because_of.append(earlier[0].position)
            answer.sentences.append(
                f"Payout {entry.fact.payout_id} was paid" + (f", reference {entry.fact.reference}." if entry.fact.reference else ".")
            )
        case PayoutFailed():
            answer.because_of.append(earlier[0].position)
            answer.sentences.append(f"Payout {entry.fact.payout_id} failed: {entry.fact.reason}. Debts are settled first.")
        case AdjustmentPosted():
            fact = entry.fact
            answer.sentences.append(
                f"Adjustment {fact.adjustment_id}: {fact.reason}. Asked by {fact.requested_by}, approved by {fact.approved_by}."
            )
    return answer


def _opening(posting: Posting, entry: Entry) -> str:
    whose = f"{posting.member_id}'s" if posting.member_id else "the company's"
    amount = to_major(posting.amount_minor, posting.asset)
    account = posting.account.name.lower().replace("_", " ")
    return f"Entry {entry.position} ({entry.stream}) moved {whose} {account} by {amount} {posting.asset} at {to_text(entry.occurred_us)}."


def _explain_shares(
    answer: pb.ExplainResponse, entry: Entry, posting: Posting, earlier: Sequence[Entry], plans: Sequence[PlanVersion]
) -> None:
    """Orders and refunds: line by line and rule by rule, with what the line entitled to before and after."""
    before, after = fold_order(earlier), fold_order([*earlier, entry])
    assert after is not None
    version = next(one for one in plans if one.position == after.decision.plan_position)
    people = after.decision.people
    answer.plan.CopyFrom(
        pb.ExplainedPlan(
            plan_id=version.plan.plan_id, version=version.plan.version, position=version.position, content_hash=version.content_hash
        )
    )
    answer.people.extend(log_pb2.Person(member_id=m, tier=t, binding_position=b, tier_position=p) for m, t, b, p in people)
    answer.sentences.append(
        f"Decided by plan {version.plan.plan_id} version {version.plan.version} (entry {version.position}),"
        " in force when the order was paid."
    )
    for number, person in enumerate(people):
        answer.sentences.append(_standing(number, person, people))
    if isinstance(entry.fact, OrderRefunded):
        answer.because_of.append(after.paid.position)
    accounts = [(p.account.name.lower(), p.amount_minor) for p in entry.decision.postings if p.member_id == posting.member_id]
    if posting.member_id and len(accounts) > 1:
        whole = sum(amount for _, amount in accounts)
        parts = ", ".join(f"{to_major(amount, posting.asset)} {account}" for account, amount in accounts)
        answer.sentences.append(
            f"For {posting.member_id} the entry comes to {to_major(whole, posting.asset)} in all: {parts}."
            " What is not released is taken from pending, the rest from available as far as it reaches; what is missing becomes debt."
        )
    for line_shares in entry.decision.lines:
        _explain_line(answer, line_shares, posting, people, version.plan.rules, before, after)


def _standing(number: int, person: Person, people: Sequence[Person]) -> str:
    place = "bought" if number == 0 else f"stands {number} above the buyer"
    tier = f"tier {person.tier} (entry {person.tier_position})" if person.tier else "no tier"
    bound = ""
    if number + 1 < len(people):
        bound = f", bound to {people[number + 1].member_id} (entry {person.binding_position})"
    return f"{person.member_id} {place}: {tier}{bound}."


def _explain_line(
    answer: pb.ExplainResponse,
    line_shares: LineShares,
    posting: Posting,
    people: Sequence[Person],
    rules: Sequence[Rule],
    before: Order | None,
    after: Order,
) -> None:
    line_no, shares = line_shares
    remaining = after.lines[line_no].remaining_base
    for rule_index, payee, amount in shares:
        concerns_everybody = posting.account is Account.COMMISSION
        concerns_breakage = posting.account is Account.BREAKAGE and not payee
        concerns_payee = bool(payee) and people[payee - 1].member_id == posting.member_id
        if not (concerns_everybody or concerns_breakage or concerns_payee):
            continue
        rule = rules[rule_index]
        person = people[payee - 1] if payee else None
        rate = rule.rate_of(person.tier) if person else rule.top
        entitled_before = before.lines[line_no].entitled.get((rule_index, payee), 0) if before else 0
        entitled_after = entitled_before + amount
        answer.shares.append(
            pb.ExplainedShare(
                line_no=line_no,
                rule_id=rule.id,
                generation=rule.seat,
                tier=person.tier if person else "",
                rate=rate.decimal,
                base_minor=remaining,
                exact_minor=rate.exactly_of(remaining),
                entitled_before_minor=entitled_before,
                entitled_after_minor=entitled_after,
                amount_minor=amount,
            )
        )
        base, asset = to_major(remaining, posting.asset), posting.asset
        if person:
            text = (
                f"Line {line_no}, rule {rule.id}: {rate.percent} of {base} is {rate.exactly_of(remaining)} minor units, "
                f"rounded half up {to_major(entitled_after, asset)}"
            )
        else:
            text = (
                f"Line {line_no}, rule {rule.id}: the pool is {rule.top.percent} of {base}, {to_major(rule.top.of(remaining), asset)}; "
                f"nobody qualified for {to_major(entitled_after, asset)} of it, which is breakage"
            )
        if before:
            text += f"; before it was {to_major(entitled_before, asset)}, so the change is {to_major(amount, asset)}"
        answer.sentences.append(text + ".")
