"""Members and roles as of any position, recorded time or occurred time, folded from the entries about them by the domain's own `evolve`.

Decisions stand as they were taken: a lock that fell to somebody fell to them, whatever else is counted.
"""

from fenrun.referral.v1 import referral_pb2 as pb

from services.kernel.refusals import MemberUnknown
from services.referral import codec
from services.referral.domain.facts import RoleEnded, RoleGranted
from services.referral.domain.roster import Roster, evolve
from services.referral.views import member_message, role_message
from services.runtime import eventlog
from services.runtime.as_of import AsOf
from services.runtime.eventlog import Connection

# Entries folded at a time.
CHUNK = 1000


async def member(connection: Connection, program_id: str, member_id: str, as_of: AsOf) -> pb.Member:
    """One member. Linear in what ever touched their binding, tier or roles. Raises MemberUnknown, also of somebody enrolled later."""
    roster, after = Roster(), 0
    while positions := await _touching(connection, program_id, member_id, after, as_of.position):
        for stored in await eventlog.at(connection, program_id, positions):
            if as_of.counts(stored):
                evolve(roster, codec.read(stored))
        # Facts are for deciding; a long history must not be held in memory.
        roster.facts.clear()
        after = positions[-1]
    found = roster.members.get(member_id)
    if found is None:
        raise MemberUnknown(member_id)
    seat, frozen = roster.seats.get(member_id), member_id in roster.frozen
    until_us = seat.until_us if seat else None
    if not frozen and until_us is not None and as_of.occurred_us is not None and as_of.occurred_us >= until_us:
        tier, tier_position = roster.tier_at(member_id, as_of.occurred_us)
        found, until_us = found._replace(tier=tier, tier_position=tier_position), None
    return member_message((member_id, *found), until_us, frozen)


async def _touching(connection: Connection, program_id: str, member_id: str, after: int, last: int) -> list[int]:
    cursor = await connection.execute(
        "select position from referral.binding_events where program_id = %s and member_id = %s and position > %s and position <= %s"
        " order by position limit %s",
        [program_id, member_id, after, last, CHUNK],
    )
    return [position for (position,) in await cursor.fetchall()]


async def upline(connection: Connection, program_id: str, member_id: str, depth: int, as_of: AsOf) -> tuple[list[pb.Member], bool]:
    """The locked path above a member, nearest first, at most `depth`, and whether it goes on. Raises MemberUnknown.

    Never a circle as of a position. Of what had happened by a time only some is counted, so there a path can come back to somebody on it:
    it ends before them, and it ends before somebody who was enrolled later.
    """
    current = await member(connection, program_id, member_id, as_of)
    path, seen = list[pb.Member](), {member_id}
    while current.locked and current.referrer_id and current.referrer_id not in seen:
        try:
            current = await member(connection, program_id, current.referrer_id, as_of)
        except MemberUnknown:
            break
        if len(path) == depth:
            return path, True
        path.append(current)
        seen.add(current.member_id)
    return path, False


async def roles(
    connection: Connection,
    program_id: str,
    member_id: str,
    at_us: int | None,
    as_of: AsOf,
    after: tuple[str, str, int],
    limit: int,
) -> tuple[list[pb.Role], tuple[str, str, int] | None]:
    """Roles as `views.roles` gives them, of up to `limit` grants after a key, and the key to go on after (None: there are no more).

    What the book did not hold is left out: grants, and ends told later.
    """
    cursor = await connection.execute(
        "select grant_id, role, scope, position from referral.roles where program_id = %s and (role, scope, position) > (%s, %s, %s)"
        " and (%s = '' or member_id = %s) and position <= %s order by role, scope, position limit %s",
        [program_id, *after, member_id, member_id, as_of.position, limit],
    )
    rows = await cursor.fetchall()
    granted = {stored.position: stored for stored in await eventlog.at(connection, program_id, sorted(row[3] for row in rows))}
    ended: dict[str, int] = {}
    for stored in await eventlog.facts(connection, program_id, [f"role_end/{row[0]}" for row in rows]):
        fact = codec.read(stored).fact
        if as_of.counts(stored) and isinstance(fact, RoleEnded):
            ended[fact.grant_id] = fact.ended_us
    found = []
    for grant_id, _, _, position in rows:
        grant = codec.read(granted[position]).fact
        assert isinstance(grant, RoleGranted)
        until_us = min((us for us in (grant.until_us, ended.get(grant_id)) if us is not None), default=None)
        in_effect = at_us is None or (grant.from_us <= at_us and (until_us is None or at_us < until_us))
        if as_of.counts(granted[position]) and in_effect:
            held = (grant.grant_id, grant.member_id, grant.role, grant.scope, grant.weight, grant.from_us)
            found.append(role_message((*held, until_us, position)))
    return found, rows[-1][1:] if len(rows) == limit else None
