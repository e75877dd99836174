"""What statistics answers from its tables: plain SQL in, messages of the contract out.

Call it inside a snapshot, so that all of an answer is of one position.
"""

from collections.abc import Sequence

from fenrun.statistics.v1 import statistics_pb2 as pb

from services.kernel.refusals import MemberUnknown
from services.runtime.eventlog import Connection
from services.statistics.domain.figures import IN_ALL

VOLUMES = {
    pb.BOARD_OWN_VOLUME: "own_minor",
    pb.BOARD_DIRECT_VOLUME: "direct_minor",
    pb.BOARD_TEAM_VOLUME: "team_minor",
}


async def leaderboard(
    connection: Connection, program_id: str, board: pb.Board.ValueType, month: str, rule_id: str, asset: str, limit: int
) -> list[pb.LeaderboardPlace]:
    """The first places of a board, the highest value first and equal ones by member id."""
    parameters: list[object] = [program_id, month]
    match board:
        case pb.BOARD_INVITES | pb.BOARD_PAID_INVITES:
            paid = " and paid" if board == pb.BOARD_PAID_INVITES else ""
            found = (
                "select referrer_id as member_id, count(*) as value from statistics.members where program_id = %s"
                f" and (%s = '' or locked_month = %s) and locked and referrer_id <> ''{paid} group by referrer_id"
            )
            parameters.append(month)
        case pb.BOARD_INCOME:
            found = (
                "select member_id, sum(amount)::bigint as value from statistics.income where program_id = %s and month = %s and asset = %s"
                " and (%s = '' or rule_id = %s) group by member_id"
            )
            parameters += [asset, rule_id, rule_id]
        case _:
            found = f"select member_id, {VOLUMES[board]} as value from statistics.volumes where program_id = %s and month = %s"
    cursor = await connection.execute(
        f"select member_id, value from ({found}) f where value > 0 order by value desc, member_id limit %s".encode(), [*parameters, limit]
    )
    return ranked(await cursor.fetchall())


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
    months: dict[str, pb.MemberFigures] = {IN_ALL: pb.MemberFigures()}

    def of(month: str) -> pb.MemberFigures:
        return months.setdefault(month, pb.MemberFigures(month=month))

    cursor = await connection.execute(
        "select month, own_minor, direct_minor, team_minor from statistics.volumes where program_id = %s and member_id = %s", key
    )
    for month, own, direct, team in await cursor.fetchall():
        figures = of(month)
        figures.own_volume_minor, figures.direct_volume_minor, figures.team_volume_minor = own, direct, team
    cursor = await connection.execute(
        "select locked_month, count(*), count(*) filter (where paid) from statistics.members"
        " where program_id = %s and referrer_id = %s and locked and referrer_id <> '' group by locked_month",
        key,
    )
    for month, invites, paid in await cursor.fetchall():
        for each in (of(month), months[IN_ALL]):
            each.invites += invites
            each.paid_invites += paid
    cursor = await connection.execute(
        "select month, rule_id, asset, amount from statistics.income where program_id = %s and member_id = %s and amount <> 0"
        " order by asset, rule_id",
        key,
    )
    for month, rule_id, asset, amount in await cursor.fetchall():
        figures = of(month)
        figures.income_by_rule.add(rule_id=rule_id, asset=asset, amount=amount)
        if not asset:
            figures.income_minor += amount
    in_all = months.pop(IN_ALL)
    # What was refunded in full leaves a row of nothing.
    empty = [month for month, figures in months.items() if figures == pb.MemberFigures(month=month)]
    return in_all, [months[month] for month in sorted(months.keys() - set(empty), reverse=True)]


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
        " join statistics.volumes v on v.program_id = m.program_id and v.member_id = m.member_id"
        " where m.program_id = %s and m.locked and m.referrer_id <> '' and v.month > '' and v.month >= m.locked_month and v.own_minor > 0"
        " group by 1, 2 order by 1, 2",
        [program_id],
    )
    for locked_month, month, buyers, volume_minor in await cursor.fetchall():
        found[locked_month].months.add(month=month, buyers=buyers, volume_minor=volume_minor)
    return list(found.values())
