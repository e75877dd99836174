"""Commands about figures: leaderboards, one member's statistics, cohorts."""

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.console import terminal
from services.console.client import Call, Lazy, command, reason
from services.console.terminal import Column

if TYPE_CHECKING:
    import grpc
    from fenrun.statistics.v1 import statistics_pb2 as pb
    from fenrun.type.v1 import type_pb2 as types
else:
    grpc = Lazy("grpc")
    pb = Lazy("fenrun.statistics.v1.statistics_pb2")
    types = Lazy("fenrun.type.v1.type_pb2")

app = typer.Typer()
# How long a command waits for the statistics to come as far as the log.
PATIENCE_S = 60
MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")

Board = Literal["invites", "paid-invites", "own-volume", "direct-volume", "team-volume", "income"]
Now = Annotated[bool, typer.Option("--now", help="The figures as they are, without waiting for the latest entries of the log.")]


def parse_month(text: str) -> str:
    if text and not MONTH.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a month; write 2026-03")
    return text


@command(app)
def leaderboard(
    call: Call,
    by: Annotated[Board, typer.Option(help="What counts.")] = "team-volume",
    month: Annotated[str, typer.Option(metavar="MONTH", help="Only this month in UTC, such as 2026-03.", callback=parse_month)] = "",
    top: Annotated[int, typer.Option(help="How many places.", min=1, max=1000)] = 10,
    rule: Annotated[str, typer.Option(help="With --by income: only what this rule of the plan gives.")] = "",
    points: Annotated[str, typer.Option(help="With --by income: points of this name instead of money.")] = "",
    now: Now = False,
) -> None:
    """Who brought, sold or earned the most. Equal values share a rank."""
    board = pb.Board.Value(f"BOARD_{by.replace('-', '_').upper()}")
    request = pb.ListLeaderboardRequest(program_id=call.program, board=board, month=month, limit=top, rule_id=rule, asset=points)
    found = _fresh(call.statistics.ListLeaderboard, request, now)
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    counted = by.endswith("invites") or points
    header = points or by.replace("-", " ")
    value = Column(header, "number") if counted else Column(f"{header} {call.currency}", money=call.currency)
    terminal.table([Column("rank", "number"), Column("member"), value], [(one.rank, one.member_id, one.value) for one in found.places])
    _as_of(found.position)


@command(app)
def stats(call: Call, member: Annotated[str, typer.Argument(help="The member's id.")], now: Now = False) -> None:
    """All figures of one member: invites, volumes and income, in all and by month."""
    found = _fresh(call.statistics.GetMemberStatistics, pb.GetMemberStatisticsRequest(program_id=call.program, member_id=member), now)
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    money = call.currency
    amounts = [Column(name, money=money) for name in ("own", "direct", "team", "income")]
    everything = [found.in_all, *found.months]
    terminal.say(f"{member}: volumes and income in {money}", "")
    terminal.table(
        [Column("month"), Column("invites", "number"), Column("paid", "number"), *amounts],
        [
            (
                one.month or "in all",
                one.invites,
                one.paid_invites,
                *(one.own_volume_minor, one.direct_volume_minor, one.team_volume_minor, one.income_minor),
            )
            for one in everything
        ],
    )
    by_rule = [(one.month or "in all", income) for one in everything for income in one.income_by_rule]
    if by_rule:
        terminal.say("")
        terminal.table(
            [Column("month"), Column("rule"), Column(f"income {money}", money=money), Column("points", "number", keep=False), Column("of")],
            [
                (month, income.rule_id, None, income.amount, income.asset)
                if income.asset
                else (month, income.rule_id, income.amount, None, "")
                for month, income in by_rule
            ],
        )
    _as_of(found.position)


@command(app)
def cohorts(call: Call, now: Now = False) -> None:
    """Members by the month they were locked to somebody: how many bought in each month since, and how much."""
    found = _fresh(call.statistics.ListCohorts, pb.ListCohortsRequest(program_id=call.program), now)
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    rows: list[tuple[Any, ...]] = []
    for cohort in found.cohorts:
        for one in cohort.months or [pb.CohortMonth()]:
            rows.append((cohort.month, cohort.members, one.month, one.buyers, one.volume_minor))
    terminal.table(
        [
            Column("cohort"),
            Column("members", "number"),
            Column("month"),
            Column("buyers", "number"),
            Column(f"volume {call.currency}", money=call.currency),
        ],
        rows,
    )
    _as_of(found.position)


def _as_of(position: int) -> None:
    terminal.say("", f"as of position {position}")


def _fresh(rpc: Callable[[Any], Any], request: Any, now: bool) -> Any:
    """The answer once it includes everything committed before; a server that has just been started may have some catching up to do."""
    if not now:
        request.consistency.CopyFrom(types.ReadConsistency(fully_consistent=True))
    until = time.monotonic() + PATIENCE_S
    told = False
    while True:
        try:
            return rpc(request)
        except grpc.RpcError as error:
            if reason(error) != "NOT_FRESH_ENOUGH" or time.monotonic() > until:
                raise
        if not told:
            terminal.notice("the statistics are catching up with the log; --now shows them as they are")
            told = True
