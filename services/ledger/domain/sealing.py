"""Sealing the books: the accounting close. (Closing a period for its pools and ranks is another matter: closing.py.)"""

from services.kernel.decider import Answer, Draft, repeated
from services.kernel.refusals import Malformed, SealedAlready
from services.kernel.times import to_text
from services.ledger.domain.booking import QUARTER_US
from services.ledger.domain.books import Books
from services.ledger.domain.commands import SealBooks
from services.ledger.domain.facts import AccountTotal, BooksSealedDecision


def seal(books: Books, command: SealBooks) -> Answer:
    """Everything booked before a time is final, and this is what it comes to."""
    fact = command.fact
    stream = f"books/{fact.seal_id}"
    entries = books.stream(stream)
    again = repeated(entries[0] if entries else None, f"seal {fact.seal_id!r}", fact, command.occurred_us)
    if again:
        return again
    through = to_text(fact.through_us)
    if fact.through_us % QUARTER_US:
        raise Malformed("through", f"through {through} is not on a quarter of an hour, as the midnight of every zone is")
    if fact.through_us > command.occurred_us:
        raise Malformed(
            "through", f"through {through} is after sealed_at, {to_text(command.occurred_us)}: what is to come cannot be sealed"
        )
    last = books.last_seal()
    if last is not None and fact.through_us <= last.through_us:
        raise SealedAlready(through, to_text(last.through_us))
    counted, sums = books.booked_before(fact.through_us)
    totals = tuple(AccountTotal(account, asset, amount) for (asset, account), amount in sorted(sums.items()) if amount)
    decision = BooksSealedDecision(last.through_us if last else None, counted, totals)
    return [Draft(stream, fact, decision, command.occurred_us)]
