"""Commands of the operator: programs, the raw log, and the projections made from it."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import Call, Failed, Lazy, command
from services.console.terminal import Column

if TYPE_CHECKING:
    import grpc
    from fenrun.log.v1 import log_pb2 as log
    from fenrun.ops.v1 import ops_pb2 as pb
else:
    grpc = Lazy("grpc")
    log = Lazy("fenrun.log.v1.log_pb2")
    pb = Lazy("fenrun.ops.v1.ops_pb2")

app = typer.Typer()
program_app = typer.Typer(help="Programs: each has its own log, plan and books.", no_args_is_help=True)
projections_app = typer.Typer(help="What is made from the log: compare it, put it right.", no_args_is_help=True)
app.add_typer(program_app, name="program")
app.add_typer(projections_app, name="projections")

# What is in the bytes of an entry, by its stored name (log.proto). A decision has the fact's name and "Decision", or is a movement.
FACTS = {
    "program.created.v1": "ProgramCreated",
    "plan.published.v1": "PlanPublished",
    "member.enrolled.v1": "MemberEnrolled",
    "member.touched.v1": "MemberTouched",
    "member.upgraded.v1": "MemberUpgraded",
    "member.binding_corrected.v1": "BindingCorrected",
    "order.paid.v1": "OrderPaid",
    "order.completed.v1": "OrderCompleted",
    "order.refunded.v1": "OrderRefunded",
    "order.released.v1": "OrderReleased",
    "payout.requested.v1": "PayoutRequested",
    "payout.paid.v1": "PayoutPaid",
    "payout.failed.v1": "PayoutFailed",
    "adjustment.posted.v1": "AdjustmentPosted",
    "hold.placed.v1": "HoldPlaced",
    "hold.lifted.v1": "HoldLifted",
    "books.sealed.v1": "BooksSealed",
    "member.named.v1": "MemberNamed",
    "member.erased.v1": "MemberErased",
}
# How long `entries --follow` waits for a server that has gone away.
FOLLOW_PATIENCE_S = 30


# ---------------------------------------------------------------- programs


@command(program_app, "create", program=False)
def create_program(
    call: Call,
    program: Annotated[str, typer.Argument(help="Its id, for ever.")],
    currency: Annotated[str, typer.Option(help="ISO 4217 code of its books, such as CNY.")],
) -> None:
    """Opens the books of a program. Safe to repeat."""
    response = call.ops.CreateProgram(pb.CreateProgramRequest(program_id=program, currency=currency))
    call.wrote(response, response.receipt, f"program {program} in {currency}")


@command(program_app, "show")
def show_program(call: Call) -> None:
    """The currency of a program and the head of its log."""
    found = call.ops.GetProgram(pb.GetProgramRequest(program_id=call.program))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    terminal.say(f"program   {found.program_id}", f"currency  {found.currency}")
    terminal.say(f"head      {found.head_position}", f"hash      {found.head_hash.hex()}")


# ---------------------------------------------------------------- the log


@command(app)
def entries(
    call: Call,
    after: Annotated[int, typer.Option(help="Only entries after this position.", min=0)] = 0,
    stream: Annotated[str, typer.Option(help="Only this stream, such as order/O1.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each new entry as it is committed.")] = False,
    limit: Annotated[int | None, typer.Option(help="At most this many.", min=1)] = None,
) -> None:
    """The log, an entry a line: position, when it happened, type, stream, hash. With --json: JSON lines, facts and decisions in full."""
    found: Iterator[log.Entry]
    if follow:
        found = (entry for entry in _watched(call, after) if stream in ("", entry.stream))
    else:
        request = pb.ReadEntriesRequest(program_id=call.program, after_position=after, stream=stream)
        found = call.pages(call.ops.ReadEntries, request, "entries", limit)
    for number, entry in enumerate(found, 1):
        if call.as_json:
            terminal.print_json_lines([entry_json(entry)])
        else:
            at, kind = terminal.when(entry.occurred_at), entry.type.removesuffix(".v1")
            terminal.say(f"{entry.position:>8}  {at}  {kind:<16}  {entry.stream:<20}  {entry.hash.hex()[:8]}")
        if follow:
            terminal.flush()
        if number == limit:
            return


def _watched(call: Call, after: int) -> Iterator["log.Entry"]:
    """Every entry after a position, for ever: nothing missed and nothing twice, also when the server restarts."""
    lost_at: float | None = None
    while True:
        try:
            for answer in call.ops.WatchEntries(pb.WatchEntriesRequest(program_id=call.program, after_position=after)):
                lost_at = None
                for entry in answer.entries:
                    yield entry
                    after = entry.position
        except grpc.RpcError as error:
            status: Any = error
            now = time.monotonic()
            lost_at = lost_at or now
            if status.code() is not grpc.StatusCode.UNAVAILABLE or now - lost_at > FOLLOW_PATIENCE_S:
                raise
        time.sleep(0.5)
        call.connection.reopen()


def entry_json(entry: "log.Entry") -> dict[str, Any]:
    """An entry with its fact and decision opened; of a type this version does not know, the bytes in hex."""
    shown = terminal.plain(entry)
    name = FACTS.get(entry.type)
    if name:
        shown["fact"] = terminal.plain(getattr(log, name).FromString(entry.fact))
        decision = getattr(log, f"{name}Decision", log.MovementDecision)
        shown["decision"] = terminal.plain(decision.FromString(entry.decision)) if entry.decision else None
    return shown


# ---------------------------------------------------------------- projections


@command(projections_app, "list")
def list_projections(call: Call) -> None:
    """The projections kept for a program, and how far each has come."""
    found = call.ops.ListProjections(pb.ListProjectionsRequest(program_id=call.program))
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    terminal.table(
        [Column("projection"), Column("kept"), Column("position", "number"), Column("rows", "number")],
        [(one.name, "with the log" if one.inline else "after the log", one.position, one.rows) for one in found.projections],
    )
    for projection in dict.fromkeys(one.followed_as for one in found.projections if one.quarantined_count):
        one = next(one for one in found.projections if one.followed_as == projection)
        terminal.say("", f"{projection} leaves out what it cannot fold ({one.quarantined_count}); a rebuild tries again:")
        terminal.say(*(f"position {entry.position}: {entry.error}" for entry in one.quarantined))


@command(projections_app, "rebuild")
def rebuild_projection(call: Call, name: Annotated[str, typer.Argument(help="As `projections list` names it.")]) -> None:
    """Folds the log from zero and puts right every live row that differs. Safe to repeat."""
    response = call.ops.RebuildProjection(pb.RebuildProjectionRequest(program_id=call.program, projection=name))
    if call.as_json:
        return terminal.print_json(terminal.plain(response))
    terminal.say(f"{name}: {response.rows} rows at position {response.position}, {response.rows_replaced} were wrong and are replaced")


@command(projections_app, "verify")
def verify_projections(call: Call, names: Annotated[list[str] | None, typer.Argument(help="Left out: all.")] = None) -> None:
    """Folds the log from zero and compares with the live rows; changes nothing. Exit status 1 if anything differs."""
    _verify(call, names or [])


@command(app)
def replay(call: Call) -> None:
    """Replays the whole history: hashes, numbering, every projection, byte for byte. Exit status 1 if anything differs."""
    _verify(call, [])


def _verify(call: Call, names: list[str]) -> None:
    results = list(_verified(call, names))
    if call.as_json:
        terminal.print_json({"equal": all(result.equal for result in results), "results": [terminal.plain(result) for result in results]})
    else:
        terminal.table(
            [Column("projection"), Column("position", "number"), Column("rows", "number"), Column("result")],
            [(one.projection, one.position, one.rows, _outcome(one)) for one in results],
        )
        terminal.say(*(f"{one.projection}: {difference}" for one in results for difference in one.differences))
    wrong = [result.projection for result in results if not result.equal]
    if wrong:
        raise Failed(f"{', '.join(wrong)}: not what the log says")


def _outcome(result: "pb.VerificationResult") -> str:
    left_out = f", {result.quarantined_count} left out" if result.quarantined_count else ""
    return ("equal" if result.equal else "DIFFERS") + left_out


def _verified(call: Call, names: list[str]) -> Iterator["pb.VerificationResult"]:
    with terminal.progress("entries") as advance:
        for step in call.ops.VerifyProjections(pb.VerifyProjectionsRequest(program_id=call.program, projections=names)):
            if step.HasField("progress"):
                advance(step.progress.position, step.progress.head_position)
            else:
                yield step.result
