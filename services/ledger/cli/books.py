"""The books: balances, explanations, the trial balance."""

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import AsOf, Call, Lazy, OccurredBy, ask_as_of, command, position_or_time, told_as_of
from services.console.terminal import Column
from services.ledger.cli.words import Asset, Member, people
from services.runtime.currency import exponent

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb
    from fenrun.log.v1 import log_pb2 as log
else:
    pb = Lazy("fenrun.ledger.v1.ledger_pb2")
    log = Lazy("fenrun.log.v1.log_pb2")

app = typer.Typer()


def net_minor(balance: "pb.Balance") -> int:
    """What a member has earned and kept, paid out or not."""
    return balance.accrued_minor - balance.reversed_minor + balance.adjusted_minor


@command(app)
def balance(
    call: Call,
    member: Member,
    as_of: Annotated[
        Any,
        typer.Option(
            "--as-of", "--at", parser=position_or_time, metavar="POSITION|TIME", help="As the book stood right after this entry, or then."
        ),
    ] = None,
    occurred_by: OccurredBy = None,
    asset: Asset = "",
) -> None:
    """Where a member's money stands, or their points."""
    request = pb.GetBalanceRequest(program_id=call.program, member_id=member, asset=asset)
    ask_as_of(request, as_of, occurred_by)
    answer = call.ledger.GetBalance(request)
    if call.as_json:
        return terminal.print_json(terminal.plain(answer))
    found = answer.balance
    rows: list[tuple[str, int]] = [(name, getattr(found, f"{name}_minor")) for name in ("accrued", "reversed", "adjusted")]
    rows.append(("net", net_minor(found)))
    rows += [(name, getattr(found, f"{name}_minor")) for name in ("pending", "available", "reserved", "paid", "debt")]
    # Accounts apart, which few members have.
    rows += [(name, minor) for name, minor in (("deposit", found.deposit_minor), ("margin on stock", found.margin_minor)) if minor]
    terminal.say(f"{found.member_id} {told_as_of(answer.as_of_position, occurred_by)}")
    terminal.table([Column(""), Column(found.currency, money=found.currency)], rows)


@command(app)
def explain(call: Call, posting: Annotated[str, typer.Argument(help="As `statement` lists it: 128.2")]) -> None:
    """Why a posting has the amount it has."""
    found = call.ledger.Explain(pb.ExplainRequest(program_id=call.program, posting_id=posting))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    terminal.say(*found.sentences, "")
    if found.HasField("plan"):
        terminal.say(f"plan {found.plan.plan_id} version {found.plan.version}, published at position {found.plan.position}")
    if found.because_of:
        terminal.say(f"follows from position {', '.join(map(str, found.because_of))}")
    terminal.say("")
    people(found.people)
    if found.shares:
        currency = found.posting.asset
        terminal.table(
            [
                Column("line", "number"),
                Column("rule"),
                Column("gen", "number"),
                Column("tier"),
                Column("rate", "number"),
                Column("base", money=currency),
                Column("exact", "number"),
                Column("before", money=currency, keep=False),
                Column("after", money=currency),
                Column("amount", money=currency),
            ],
            [
                (
                    one.line_no,
                    one.rule_id,
                    one.generation,
                    one.tier,
                    one.rate,
                    one.base_minor,
                    _major_exact(one.exact_minor, currency),
                    one.entitled_before_minor,
                    one.entitled_after_minor,
                    one.amount_minor,
                )
                for one in found.shares
            ],
            ("", "", "", "", "", None, "", None, None, sum(one.amount_minor for one in found.shares)),
        )


def _major_exact(exact_minor: str, currency: str) -> str:
    """1790.3 minor units of GBP are 17.903."""
    if "/" in exact_minor:
        over, under = exact_minor.split("/")
        return f"{over}/{int(under) * 10 ** exponent(currency)}"
    return f"{Decimal(exact_minor).scaleb(-exponent(currency)):f}" if exact_minor else ""


@command(app, "trial-balance")
def trial_balance(
    call: Call,
    by: Annotated[str, typer.Option(help="account: the company's and the members' accounts. member: a row for each member.")] = "account",
    as_of: AsOf = None,
    occurred_by: OccurredBy = None,
    asset: Asset = "",
) -> None:
    """The books on one page. By account they sum to zero; by member, net is accrued - reversed + adjusted."""
    if by not in ("account", "member"):
        raise typer.BadParameter("--by is account or member")
    if by == "member":
        listing = pb.ListBalancesRequest(program_id=call.program, asset=asset)
        ask_as_of(listing, as_of, occurred_by)
        return _by_member(call, listing, occurred_by, asset)
    request = pb.TrialBalanceRequest(program_id=call.program, asset=asset)
    ask_as_of(request, as_of, occurred_by)
    found = call.ledger.TrialBalance(request)
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    rows: list[tuple[str, int]] = [(terminal.word(log.Account, one.account), one.balance.minor_units) for one in found.accounts]
    terminal.say(f"{call.program} {told_as_of(found.position, occurred_by)}")
    asset = asset or call.currency
    terminal.table([Column("account"), Column(asset, money=asset)], rows, ("sum", sum(amount for _, amount in rows)))


def _by_member(call: Call, request: "pb.ListBalancesRequest", occurred_by: datetime | None, asset: str) -> None:
    positions: list[int] = []

    def page(request: "pb.ListBalancesRequest") -> "pb.ListBalancesResponse":
        answer = call.ledger.ListBalances(request)
        positions.append(answer.position)
        return answer

    found: list[pb.Balance] = list(call.pages(page, request, "balances"))
    names = ("accrued", "reversed", "adjusted", "net", "pending", "available", "reserved", "paid", "debt")
    amounts: list[list[int]] = [[net_minor(one) if name == "net" else getattr(one, f"{name}_minor") for name in names] for one in found]
    totals = [sum(column) for column in zip(*amounts, strict=True)] or [0] * len(names)
    if call.as_json:
        balances = [terminal.plain(one) | {"net_minor": net_minor(one)} for one in found]
        totals_json = {f"{name}_minor": total for name, total in zip(names, totals, strict=True)}
        return terminal.print_json({"balances": balances, "totals": totals_json, "position": positions[-1]})
    asset = asset or call.currency
    terminal.say(f"{call.program} {told_as_of(positions[-1], occurred_by)}")
    # Adjustments are rare: their column is there only where there are any.
    shown = [index for index, name in enumerate(names) if name != "adjusted" or any(row[index] for row in amounts)]
    terminal.table(
        [Column("member"), *(Column(names[index], money=asset, keep=names[index] in ("accrued", "net")) for index in shown)],
        [(one.member_id, *(row[index] for index in shown)) for one, row in zip(found, amounts, strict=True)],
        ("in all", *(totals[index] for index in shown)),
    )
