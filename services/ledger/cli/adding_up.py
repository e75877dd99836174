"""A statement as the server tells it, and whether it adds up. Nothing is shown of one that does not."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from services.console import terminal
from services.console.client import Call, Failed, Lazy, timestamp
from services.runtime.currency import to_major

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb
    from fenrun.log.v1 import log_pb2 as log
else:
    pb = Lazy("fenrun.ledger.v1.ledger_pb2")
    log = Lazy("fenrun.log.v1.log_pb2")

# With their sign in the book: of what is owed back below zero.
EARNED = ("pending", "available", "reserved", "paid", "debt")
APART = ("deposit", "margin")
GROSS = ("accrued", "reversed", "adjusted")
# What an entry's net counts as, by its stored name; docs/accounts.md. A correction of a period goes by its sign.
COUNTS_AS = {
    "order.paid.v1": "accrued",
    "task.done.v1": "accrued",
    "period.closed.v1": "accrued",
    "order.refunded.v1": "reversed",
    "order.voided.v1": "reversed",
    "adjustment.posted.v1": "adjusted",
    "balance.opened.v1": "adjusted",
}
Figures = Counter[str]


class DoesNotAddUp(Failed):
    """Whatever is wrong is not the caller's fault: the views and the log do not say the same."""

    def __init__(self, member: str, problem: str) -> None:
        super().__init__(f"the statement of {member} does not add up and is not printed: {problem}; see `fenrun projections verify`")


@dataclass
class Statement:
    """One member's, over the entries after `after` and up to `last`; figures are minor units by asset."""

    program_id: str
    member_id: str
    from_: datetime | None
    to: datetime | None
    after: int = 0
    last: int = 0
    opening: dict[str, Figures] = field(default_factory=dict)
    closing: dict[str, Figures] = field(default_factory=dict)
    postings: list["pb.StatementPosting"] = field(default_factory=list)

    def of(self, asset: str) -> list["pb.StatementPosting"]:
        return [one for one in self.postings if one.posting.amount.currency == asset]

    def by_entry(self, asset: str) -> Iterator[list["pb.StatementPosting"]]:
        return (list(ones) for _, ones in groupby(self.of(asset), key=lambda one: one.posting.position))

    def shown(self, asset: str) -> list[str]:
        """The figures of an asset in the order they are shown; deposits and margins only where there are any."""
        apart = [name for name in APART if any(account_of(one) == name for one in self.of(asset)) or self.opening[asset][name]]
        return [*EARNED, "net", *GROSS, *apart]


def account_of(one: "pb.StatementPosting") -> str:
    return terminal.word(log.Account, one.posting.account)


def figures_of(balance: "pb.Balance") -> Figures:
    names = (*EARNED, *APART, *GROSS)
    return Figures({name: getattr(balance, f"{name}_minor") * (-1 if name == "debt" else 1) for name in names})


def fetch(call: Call, member: str, from_: datetime | None, to: datetime | None) -> Statement:
    """A statement that adds up. Raises DoesNotAddUp."""
    request = pb.GetStatementRequest(program_id=call.program, member_id=member, to=timestamp(to) if to else None)
    if from_ is not None:
        getattr(request, "from").CopyFrom(timestamp(from_))
    found = Statement(call.program, member, from_, to)
    ended = False
    for step in call.ledger.GetStatement(request):
        match step.WhichOneof("step"):
            case "opening":
                found.after = step.opening.position
                found.opening = {one.currency: figures_of(one) for one in step.opening.balances}
            case "postings":
                found.postings.extend(step.postings.postings)
            case "closing":
                found.last, ended = step.closing.position, True
                found.closing = {one.currency: figures_of(one) for one in step.closing.balances}
    if not ended:
        raise DoesNotAddUp(member, "it ends without a closing")
    check(found)
    return found


def check(statement: Statement) -> None:
    """Opening + postings = closing for every figure of every asset, each balance on the way included. Raises DoesNotAddUp."""

    def must(holds: bool, problem: str) -> None:
        if not holds:
            raise DoesNotAddUp(statement.member_id, problem)

    positions = [one.posting.position for one in statement.postings]
    must(positions == sorted(positions), "its entries are not in the order of the log")
    must(all(statement.after < position <= statement.last for position in positions), "it has entries from outside its period")
    must(statement.opening.keys() == statement.closing.keys(), "it opens and closes in different assets")
    must({one.posting.amount.currency for one in statement.postings} <= statement.opening.keys(), "it has postings without an opening")
    for asset, opening in statement.opening.items():

        def money(minor: int, asset: str = asset) -> str:
            return f"{to_major(minor, asset)} {asset}"

        running = Figures(opening)
        for entry in statement.by_entry(asset):
            where = f"entry {entry[0].posting.position}"
            take(running, entry)
            for one in entry:
                name, told = account_of(one), one.posting.balance_after.minor_units
                must(running[name] == told, f"{name} after {where} comes to {money(running[name])}, and the books have {money(told)}")
            net = sum(one.posting.amount.minor_units for one in entry if account_of(one) in EARNED)
            for one in entry:
                by_rule = sum(share.amount_minor for share in one.shares)
                must(not one.shares or by_rule == net, f"the rules of {where} come to {money(by_rule)}, its postings to {money(net)}")
        closing = statement.closing[asset]
        for name in (*EARNED, *APART, *GROSS):
            must(running[name] == closing[name], f"{name} comes to {money(running[name])}, and closes at {money(closing[name])}")
        for moment, ends in (("opening", opening), ("closing", closing)):
            earned = ends["accrued"] - ends["reversed"] + ends["adjusted"]
            held = sum(ends[name] for name in EARNED)
            must(earned == held, f"at its {moment} {money(earned)} were earned, and the accounts hold {money(held)}")


def take(running: Figures, entry: list["pb.StatementPosting"]) -> None:
    """Moves the figures of one asset by one entry."""
    net = 0
    for one in entry:
        running[account_of(one)] += one.posting.amount.minor_units
        net += one.posting.amount.minor_units if account_of(one) in EARNED else 0
    kind = entry[0].posting.type
    figure = COUNTS_AS.get(kind, "")
    if kind == "period.corrected.v1":
        figure = "accrued" if net > 0 else "reversed"
    if figure:
        running[figure] += -net if figure == "reversed" else net


# ---------------------------------------------------------------- what every form of a statement shows


def figures(names: list[str], opening: Figures, closing: Figures) -> list[tuple[str, int, int]]:
    """(name, at the opening, at the closing); net is what the accounts of what was earned come to."""
    return [
        (name, *(sum(ends[one] for one in EARNED) if name == "net" else ends[name] for ends in (opening, closing)))  # type: ignore[misc]
        for name in names
    ]


def rules_of(one: "pb.StatementPosting", asset: str) -> str:
    """The rules by name, with what each gave where there are several."""
    if len(one.shares) == 1:
        return str(one.shares[0].rule_id)
    return ", ".join(f"{share.rule_id} {to_major(share.amount_minor, asset)}" for share in one.shares)
