"""What statistics answers from its tables: plain SQL in, messages of the contract out.

Call it inside a snapshot, so that all of an answer is of one position.
"""

from collections.abc import Sequence

from fenrun.statistics.v1 import statistics_pb2 as pb

from services.kernel.refusals import MemberUnknown
from services.runtime.eventlog import Connection

# Of a month, and of all.
VOLUMES = {
    pb.BOARD_OWN_VOLUME: ("own_minor", "own_all_minor"),
    pb.BOARD_DIRECT_VOLUME: ("direct_minor", "direct_all_minor"),
    pb.BOARD_TEAM_VOLUME: ("team_minor", "team_all_minor"),
}


async def leaderboard(
    connection: Connection, program_id: str, board: pb.Board.ValueType, month: str, rule_id: str, asset: str, limit: int
) -> list[pb.LeaderboardPlace]:
    """The first places of a board, the highest value first and equal ones by member id."""
    parameters: list[object]
    match board:
        case pb.BOARD_INVITES | pb.BOARD_PAID_INVITES:
            paid = " and paid" if board == pb.BOARD_PAID_INVITES else ""
            found = (
                "select referrer_id as member_id, count(*) as value from statistics.members where program_id = %s"
                f" and (%s = '' or locked_month = %s) and locked and referrer_id <> ''{paid} group by referrer_id"
            )
            parameters = [program_id, month, month]
        case pb.BOARD_INCOME:
            which = "program_id = %s and asset = %s and (%s = '' or rule_id = %s)"
            rows, parameters = _of_month("income", ("amount", "amount_all"), which, [program_id, asset, rule_id, rule_id], month)
            found = f"select member_id, sum(value)::bigint as value from ({rows}) r group by member_id"
        case _:
            found, parameters = _of_month("volumes", VOLUMES[board], "program_id = %s", [program_id], month)
    cursor = await connection.execute(
        f"select member_id, value from ({found}) f where value > 0 order by value desc, member_id limit %s".encode(), [*parameters, limit]
    )
    return ranked(await cursor.fetchall())


def _of_month(table: str, columns: tuple[str, str], which: str, parameters: list[object], month: str) -> tuple[str, list[object]]:
    """A query for (member, value) in a month, '' for all, and its parameters. A month is some members' last and others' before that."""
    of_month, in_all = columns
    if not month:
        return f"select member_id, {in_all} as value from statistics.{table} where {which}", parameters
    each = (
        f"select member_id, {of_month} as value from statistics.{name} where {which} and month = %s" for name in (table, f"earlier_{table}")
    )
    return " union all ".join(each), [*parameters, month] * 2


def ranked(rows: Sequence[tuple[str, int]]) -> list[pb.LeaderboardPlace]:
    """(member, value), the highest first, as places: equal values share the rank of the first of them."""
    places: list[pb.LeaderboardPlace] = []
    for number, (member_id, value) in enumerate(rows, start=1):
        rank = places[-1].rank if places and places[-1].value == value else number
        places.append(pb.LeaderboardPlace(rank=rank, member_id=member_id, value=value))
    return places


async def member(connection: Connection, program_id: str, member_id: str) -> tuple[pb.MemberFigures, list[pb.MemberFigures]]:
    """One member's figures, in all and by month, the newest first. Raises MemberUnknown."""
    key = [program_id, member_id]
    cursor = await connection.execute("select from statistics.members where program_id = %s and member_id = %s", key)
    if await cursor.fetchone() is None:
        raise MemberUnknown(member_id)
    months: dict[str, pb.MemberFigures] = {}
    in_all = pb.MemberFigures()

    def of(month: str) -> pb.MemberFigures:
        return months.setdefault(month, pb.MemberFigures(month=month))

    cursor = await connection.execute(
        "select month, own_minor, direct_minor, team_minor, own_all_minor, direct_all_minor, team_all_minor from statistics.volumes"
        " where program_id = %s and member_id = %s union all select month, own_minor, direct_minor, team_minor, null, null, null"
        " from statistics.earlier_volumes where program_id = %s and member_id = %s",
        [*key, *key],
    )
    for month, *of_month, own_all, direct_all, team_all in await cursor.fetchall():
        _volumes(of(month), *of_month)
        if own_all is not None:
            _volumes(in_all, own_all, direct_all, team_all)
    cursor = await connection.execute(
        "select locked_month, count(*), count(*) filter (where paid) from statistics.members"
        " where program_id = %s and referrer_id = %s and locked and referrer_id <> '' group by locked_month",
        key,
    )
    for month, invites, paid in await cursor.fetchall():
        for each in (of(month), in_all):
            each.invites += invites
            each.paid_invites += paid
    cursor = await connection.execute(
        "select month, rule_id, asset, amount, amount_all from statistics.income where program_id = %s and member_id = %s"
        " union all select month, rule_id, asset, amount, 0 from statistics.earlier_income where program_id = %s and member_id = %s"
        " order by asset, rule_id",
        [*key, *key],
    )
    for month, rule_id, asset, amount, amount_all in await cursor.fetchall():
        for each, income in ((of(month), amount), (in_all, amount_all)):
            if income:
                each.income_by_rule.add(rule_id=rule_id, asset=asset, amount=income)
                if not asset:
                    each.income_minor += income
    # What was refunded in full leaves a row of nothing.
    empty = [month for month, figures in months.items() if figures == pb.MemberFigures(month=month)]
    return in_all, [months[month] for month in sorted(months.keys() - set(empty), reverse=True)]


def _volumes(figures: pb.MemberFigures, own_minor: int, direct_minor: int, team_minor: int) -> None:
    figures.own_volume_minor, figures.direct_volume_minor, figures.team_volume_minor = own_minor, direct_minor, team_minor


async def cohorts(connection: Connection, program_id: str) -> list[pb.Cohort]:
    """Recruits by the month of their lock, the oldest first, with what they bought from then on."""
    cursor = await connection.execute(
        "select locked_month, count(*) from statistics.members"
        " where program_id = %s and locked and referrer_id <> '' group by 1 order by 1",
        [program_id],
    )
    found = {month: pb.Cohort(month=month, members=members) for month, members in await cursor.fetchall()}
    cursor = await connection.execute(
        "select m.locked_month, v.month, count(*), sum(v.own_minor)::bigint from statistics.members m"
        " join (select member_id, month, own_minor from statistics.volumes where program_id = %s"
        " union all select member_id, month, own_minor from statistics.earlier_volumes where program_id = %s) v"
        " on v.member_id = m.member_id"
        " where m.program_id = %s and m.locked and m.referrer_id <> '' and v.month >= m.locked_month and v.own_minor > 0"
        " group by 1, 2 order by 1, 2",
        [program_id, program_id, program_id],
    )
    for locked_month, month, buyers, volume_minor in await cursor.fetchall():
        found[locked_month].months.add(month=month, buyers=buyers, volume_minor=volume_minor)
    return list(found.values())
