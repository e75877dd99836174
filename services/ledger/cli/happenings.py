"""What happens beside orders and is rewarded: group buys, tasks, the end of a period."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import At, Call, Lazy, command, timestamp
from services.console.terminal import when
from services.ledger.cli.words import Member, Reason, amounts, earnings, losses

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb
else:
    pb = Lazy("fenrun.ledger.v1.ledger_pb2")

app = typer.Typer()
group_app = typer.Typer(help="Group buys (拼团): opened, then formed or failed.", no_args_is_help=True)
period_app = typer.Typer(help="Periods: pools, team volume and ranks, computed when one is closed.", no_args_is_help=True)
app.add_typer(group_app, name="group")
app.add_typer(period_app, name="period")

GroupId = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id.")]
PeriodId = Annotated[str, typer.Argument(metavar="PERIOD", help="2026-03-08, 2026-W11, 2026-03, or PLAN.VERSION for a campaign.")]


# ---------------------------------------------------------------- groups


@command(group_app, "open")
def open_group(call: Call, group: GroupId, opener: Annotated[str, typer.Option(help="Who opened it.")], at: At = None) -> None:
    """Opens a group; orders join it with --group. Counts once by its id; to repeat it, repeat --at too."""
    request = pb.OpenGroupRequest(program_id=call.program, group_id=group, opener_id=opener, opened_at=timestamp(at))
    response = call.ledger.OpenGroup(request)
    call.wrote(response, response.receipt, f"group {group} of {opener}")


@command(group_app)
def form(call: Call, group: GroupId, at: At = None) -> None:
    """The group is complete: what waits for that becomes due."""
    response = call.ledger.FormGroup(pb.FormGroupRequest(program_id=call.program, group_id=group, formed_at=timestamp(at)))
    call.wrote(response, response.receipt, f"group {group} formed with {_orders(response.orders)}")


@command(group_app, "fail")
def fail_group(call: Call, group: GroupId, reason: Reason, at: At = None) -> None:
    """The group fell through: all that its orders earned for anybody is taken back."""
    request = pb.FailGroupRequest(program_id=call.program, group_id=group, reason=reason, failed_at=timestamp(at))
    response = call.ledger.FailGroup(request)
    if call.wrote(response, response.receipt, f"group {group} failed with {_orders(response.orders)}"):
        losses(response.reversed, response.period_reversed)


def _orders(number: int) -> str:
    return "one order" if number == 1 else f"{number} orders"


@command(group_app, "show")
def show_group(call: Call, group: GroupId) -> None:
    """Where a group stands, and its orders."""
    found = call.ledger.GetGroup(pb.GetGroupRequest(program_id=call.program, group_id=group))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    terminal.say(f"group      {found.group_id}", f"opener     {found.opener_id}", f"state      {found.state}")
    terminal.say(f"opened     {when(found.opened_at)}", f"closed     {when(found.closed_at) or 'not yet'}")
    terminal.paragraph(", ".join(found.order_ids) or "none yet", first="orders     ", then=" " * 11)


# ---------------------------------------------------------------- tasks


@command(app)
def task(
    call: Call,
    member: Member,
    done: Annotated[str, typer.Argument(metavar="TASK", help="What was done, as the plan names it.")],
    task_id: Annotated[str, typer.Option(help="What makes it count once: a second id would be done twice.")],
    at: At = None,
) -> None:
    """A task that the plan rewards was done. To repeat it, repeat --at too."""
    request = pb.RecordTaskRequest(program_id=call.program, task_id=task_id, member_id=member, task=done, done_at=timestamp(at))
    response = call.ledger.RecordTask(request)
    if call.wrote(response, response.receipt, f"task {task_id}: {done} by {member}"):
        earnings(response.earnings, "earns")


# ---------------------------------------------------------------- periods


@command(period_app)
def close(call: Call, period: PeriodId, at: At = None) -> None:
    """Computes what a period that is over gives, once; asked again it says what it gave. To repeat it, repeat --at too."""
    response = call.ledger.ClosePeriod(pb.ClosePeriodRequest(program_id=call.program, period_id=period, closed_at=timestamp(at)))
    if call.wrote(response, response.receipt, f"period {period} closed"):
        _rules(response.rules)


@command(period_app, "show")
def show_period(call: Call, period: PeriodId) -> None:
    """What a closed period gave, with every correction since."""
    found = call.ledger.GetPeriod(pb.GetPeriodRequest(program_id=call.program, period_id=period))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    terminal.say(f"period     {found.period_id}", f"from       {when(found.starts_at)}", f"until      {when(found.ends_at)}")
    terminal.say(f"closed     {when(found.closed_at)}", f"plan       position {found.plan_position}")
    terminal.say(f"entries    {', '.join(map(str, found.positions))}", "")
    _rules(found.rules)


def _rules(rules: Any) -> None:
    rows = [
        ([rule.rule_id, str(rule.volume), member], amount.minor_units, amount.currency)
        for rule in rules
        for member, amount in (*((one.member_id, one.amount) for one in rule.earnings), ("breakage", rule.breakage))
        if amount.minor_units
    ]
    if rows:
        amounts(["rule", "volume (minor)", "member"], "amount", rows)
    else:
        terminal.say("nobody earns anything")
