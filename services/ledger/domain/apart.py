"""What is booked apart from commission: deposits (保证金), stock sold on between agents (囤货), balances carried over from elsewhere."""

from services.kernel.decider import Answer, Draft, Repeated, repeated
from services.kernel.refusals import CurrencyMismatch, DepositExceedsHeld, Malformed, MemberUnknown
from services.ledger.domain.books import Books
from services.ledger.domain.commands import MoveDeposit, OpenBalance, TransferStock
from services.ledger.domain.facts import Account, BalanceOpenedDecision, DepositKind, DueChange, Movement, Posting

# Margins beyond this would not fit where amounts are kept.
LARGEST_MARGIN = 10**15


def move_deposit(books: Books, command: MoveDeposit) -> Answer:
    """A deposit comes in, goes back, or is kept by the company for a breach."""
    fact = command.fact
    stream = f"deposit/{fact.deposit_id}"
    again = _before(books, stream, f"deposit {fact.deposit_id!r}", command)
    if again:
        return again
    if fact.amount_minor <= 0:
        raise Malformed("amount", f"a deposit moves by a positive amount, not {fact.amount_minor}")
    _known(books, fact.member_id, "member_id", fact.currency)
    amount = fact.amount_minor
    if fact.kind is not DepositKind.PAID_IN:
        held = books.held_apart(fact.member_id, fact.currency, Account.DEPOSIT)
        if amount > held:
            raise DepositExceedsHeld(fact.member_id, held, amount)
        amount = -amount
    postings = (
        Posting(Account.CLEARING, "", -amount, fact.currency),
        Posting(Account.DEPOSIT, fact.member_id, amount, fact.currency),
    )
    return [Draft(stream, fact, Movement(postings), command.occurred_us)]


def transfer_stock(books: Books, command: TransferStock) -> Answer:
    """The one who sells gains the margin; nobody earns commission."""
    fact = command.fact
    stream = f"stock/{fact.transfer_id}"
    again = _before(books, stream, f"stock transfer {fact.transfer_id!r}", command)
    if again:
        return again
    if fact.from_member_id == fact.to_member_id:
        raise Malformed("to_member_id", "stock is sold on to somebody else")
    _known(books, fact.from_member_id, "from_member_id", fact.currency)
    _known(books, fact.to_member_id, "to_member_id", fact.currency)
    margin = sum(line.quantity * (line.unit_price_minor - line.unit_cost_minor) for line in fact.lines)
    if abs(margin) > LARGEST_MARGIN:
        raise Malformed("lines", f"a margin of {margin} is beyond {LARGEST_MARGIN} minor units")
    postings = [Posting(Account.CLEARING, "", -margin, fact.currency), Posting(Account.MARGIN, fact.from_member_id, margin, fact.currency)]
    return [Draft(stream, fact, Movement(tuple(postings) if margin else ()), command.occurred_us)]


def open_balance(books: Books, command: OpenBalance) -> Answer:
    """What a member had elsewhere, in the other system's own figures."""
    fact = command.fact
    stream = f"opening/{fact.opening_id}"
    again = _before(books, stream, f"opening {fact.opening_id!r}", command)
    if again:
        return again
    if not (fact.available_minor or fact.pending_minor or fact.paid_minor or fact.debt_minor):
        raise Malformed("available_minor", "an opening carries something over: available, pending, paid or debt")
    if fact.available_minor and fact.debt_minor:
        raise Malformed("debt_minor", "who owes has nothing available")
    if bool(fact.pending_minor) != (fact.pending_due_us is not None):
        raise Malformed("pending_due_at", "is given with pending_minor, and only with it")
    _known(books, fact.member_id, "member_id", fact.currency)
    held = books.balance(fact.member_id)
    if fact.available_minor and held.debt:
        raise Malformed("available_minor", f"{fact.member_id!r} owes {-held.debt} here already; post an adjustment instead")
    if fact.debt_minor and held.available:
        raise Malformed("debt_minor", f"{fact.member_id!r} has {held.available} available here already; post an adjustment instead")
    moved = [
        (Account.PENDING, fact.pending_minor),
        (Account.AVAILABLE, fact.available_minor),
        (Account.PAID, fact.paid_minor),
        (Account.DEBT, -fact.debt_minor),
    ]
    postings = [Posting(Account.OPENING, "", -sum(amount for _, amount in moved), fact.currency)]
    postings += [Posting(account, fact.member_id, amount, fact.currency) for account, amount in moved]
    due = () if fact.pending_due_us is None else (DueChange(fact.member_id, fact.pending_due_us, fact.pending_minor),)
    decision = BalanceOpenedDecision(due, tuple(posting for posting in postings if posting.amount_minor))
    return [Draft(stream, fact, decision, command.occurred_us)]


def _before(books: Books, stream: str, key: str, command: MoveDeposit | TransferStock | OpenBalance) -> Repeated | None:
    entries = books.stream(stream)
    return repeated(entries[0] if entries else None, key, command.fact, command.occurred_us)


def _known(books: Books, member_id: str, field: str, currency: str) -> None:
    if books.member(member_id) is None:
        raise MemberUnknown(member_id, field)
    if currency != books.currency:
        raise CurrencyMismatch(books.currency, currency)
