"""What members are called, and forgetting it: `fenrun member name`, `erase`, `rewrap-keys`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from services.console import terminal
from services.console.client import At, Call, Failed, Lazy, command, new_id, timestamp

if TYPE_CHECKING:
    from fenrun.referral.v1 import referral_pb2 as pb
else:
    pb = Lazy("fenrun.referral.v1.referral_pb2")

name_app = typer.Typer(help="What members are called, encrypted with a key of their own.", no_args_is_help=True)
Member = Annotated[str, typer.Argument(help="The member's id.")]


@command(name_app, "set")
def set_name(
    call: Call,
    member: Member,
    name: Annotated[str, typer.Argument(help="Left out: a line is read, which leaves no trace in the history of your shell.")] = "",
    naming_id: Annotated[str, typer.Option(help="What makes it count once. Left out: a new one, printed.")] = "",
    at: At = None,
) -> None:
    """Keeps what a member is called."""
    if not name:
        name = typer.prompt(f"name of {member}") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    naming_id = naming_id or new_id("naming")
    request = pb.SetDisplayNameRequest(
        program_id=call.program, naming_id=naming_id, member_id=member, display_name=name, named_at=timestamp(at)
    )
    response = call.referral.SetDisplayName(request)
    call.wrote(response, response.receipt, f"naming {naming_id} of {member}")


@command(name_app, "show")
def show_name(call: Call, member: Member) -> None:
    """What a member is called."""
    found = call.referral.GetDisplayName(pb.GetDisplayNameRequest(program_id=call.program, member_id=member))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    at = terminal.when(found.occurred_at)
    match found.state:
        case pb.NAME_STATE_NAMED:
            terminal.say(found.display_name)
        case pb.NAME_STATE_ERASED:
            terminal.say(f"erased at {at}, position {found.position}")
        case pb.NAME_STATE_LOST:
            terminal.say(f"named at {at}, position {found.position}, and the key is gone: the database was restored without its keys")
        case _:
            terminal.say(f"{member} was never named")


def erase(
    call: Call,
    member: Member,
    reason: Annotated[str, typer.Option(help="Why; no personal data.")],
    by: Annotated[str, typer.Option(help="Who erases.")],
    at: At = None,
) -> None:
    """Destroys the key to a member's name, for good. Binding, orders and balances stay."""
    request = pb.EraseMemberRequest(program_id=call.program, member_id=member, reason=reason, erased_by=by, erased_at=timestamp(at))
    response = call.referral.EraseMember(request)
    call.wrote(response, response.receipt, f"{member} erased")


def rewrap_keys(call: Call) -> None:
    """Wraps all members' keys, of all programs, in the current master key. Exit status 1 if some could not be."""
    found = call.referral.RewrapMemberKeys(pb.RewrapMemberKeysRequest())
    if call.as_json:
        terminal.print_json(terminal.plain(found))
    else:
        terminal.say(f"{found.rewrapped} keys wrapped in master key {found.master_id}; {found.destroyed} of erased members destroyed")
    if found.unreadable:
        raise Failed(f"{found.unreadable} keys are wrapped in master keys that this server was not given")
