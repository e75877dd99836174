"""What referral answers from its views and the log: plain SQL in, messages of the contract out."""

from collections.abc import Iterable, Sequence
from typing import Any

from fenrun.log.v1 import log_pb2
from fenrun.referral.v1 import referral_pb2 as pb

from services.kernel.refusals import MemberUnknown
from services.referral.application import MEMBER_COLUMNS
from services.runtime import eventlog
from services.runtime.eventlog import Connection
from services.runtime.stored import Stored, timestamp

# The columns of a member on a path, where the table goes by another name.
ABOVE = ", ".join("m." + name for name in MEMBER_COLUMNS.split(", "))


# What makes a tier count otherwise than it stands there; `m` is the member.
STANDING = (
    "(select s.until_us from referral.seats s where s.program_id = %s and s.member_id = m.member_id) as until_us,"
    " exists (select from referral.frozen_tiers f where f.program_id = %s and f.member_id = m.member_id) as frozen"
)

# Where the log stands, seen by the same statement.
HEAD = "(select head_position from fenrun.programs where program_id = %s) as head"


def member_message(row: Sequence[Any], until_us: int | None = None, frozen: bool = False) -> pb.Member:
    """A row of referral.members, in MEMBER_COLUMNS' order."""
    member_id, enrolled_us, tier, tier_position, locked, referrer_id, binding_position, _ = row
    return pb.Member(
        member_id=member_id,
        enrolled_at=timestamp(enrolled_us),
        tier=tier,
        locked=locked,
        referrer_id=referrer_id,
        binding_position=binding_position,
        tier_position=tier_position,
        tier_expires_at=None if until_us is None else timestamp(until_us),
        tier_frozen=frozen,
    )


async def member(connection: Connection, program_id: str, member_id: str) -> pb.GetMemberResponse:
    """One member and how many are locked directly to them. Raises MemberUnknown."""
    cursor = await connection.execute(
        f"select {MEMBER_COLUMNS}, (select count(*) from referral.members b where b.program_id = m.program_id"
        f" and b.referrer_id = m.member_id and b.locked and b.referrer_id <> ''), {HEAD}, {STANDING}"
        " from referral.members m where program_id = %s and member_id = %s".encode(),
        [program_id, program_id, program_id, program_id, member_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise MemberUnknown(member_id)
    *columns, direct_count, head, until_us, frozen = row
    return pb.GetMemberResponse(member=member_message(columns, until_us, frozen), direct_count=direct_count, as_of_position=head)


async def upline(connection: Connection, program_id: str, member_id: str, depth: int) -> pb.GetUplineResponse:
    """The locked path above a member, nearest first, at most `depth`. Raises MemberUnknown."""
    cursor = await connection.execute(
        f"with recursive path as ("
        f" select {MEMBER_COLUMNS}, 0 as depth from referral.members where program_id = %s and member_id = %s"
        f" union all select {ABOVE}, p.depth + 1 from path p join referral.members m on m.program_id = %s and m.member_id = p.referrer_id"
        f" where p.locked and p.depth <= %s) select {MEMBER_COLUMNS}, {HEAD}, {STANDING} from path m order by depth".encode(),
        [program_id, member_id, program_id, depth, program_id, program_id, program_id],
    )
    rows = await cursor.fetchall()
    if not rows:
        raise MemberUnknown(member_id)
    members = [member_message(row[:-3], *row[-2:]) for row in rows[1 : depth + 1]]
    return pb.GetUplineResponse(members=members, more=len(rows) > depth + 1, as_of_position=rows[0][-3])


async def downline(
    connection: Connection, program_id: str, member_id: str, depth: int, after: tuple[int, str], limit: int
) -> list[pb.DownlineMember]:
    """Those locked below a member down to `depth`, level by level and by id, after a (level, id). Raises MemberUnknown."""
    cursor = await connection.execute("select from referral.members where program_id = %s and member_id = %s", [program_id, member_id])
    if await cursor.fetchone() is None:
        raise MemberUnknown(member_id)
    cursor = await connection.execute(
        f"with recursive below as ("
        f" select {MEMBER_COLUMNS}, 1 as depth from referral.members where program_id = %s and referrer_id = %s"
        f" and locked and referrer_id <> ''"
        f" union all select {ABOVE}, b.depth + 1 from below b join referral.members m on m.program_id = %s and m.referrer_id = b.member_id"
        f" and m.locked and m.referrer_id <> '' where b.depth < %s)"
        f" select {MEMBER_COLUMNS}, depth, {STANDING} from below m where (depth, member_id) > (%s, %s)"
        " order by depth, member_id limit %s".encode(),
        [program_id, member_id, program_id, depth, program_id, program_id, *after, limit],
    )
    return [pb.DownlineMember(member=member_message(row[:-3], *row[-2:]), depth=row[-3]) for row in await cursor.fetchall()]


async def roles(
    connection: Connection, program_id: str, member_id: str, at_us: int | None, after: tuple[str, str, int], limit: int
) -> list[pb.Role]:
    """Roles by name, place and order of granting, after such a key; of one member or (empty) of all, in effect at a time or (None) all."""
    cursor = await connection.execute(
        "select grant_id, member_id, role, scope, weight, from_us, until_us, position from referral.roles"
        " where program_id = %s and (role, scope, position) > (%s, %s, %s) and (%s = '' or member_id = %s)"
        " and (%s::bigint is null or (from_us <= %s and (until_us is null or until_us > %s))) order by role, scope, position limit %s",
        [program_id, *after, member_id, member_id, at_us, at_us, at_us, limit],
    )
    return [role_message(row) for row in await cursor.fetchall()]


def role_message(row: Sequence[Any]) -> pb.Role:
    """A row of referral.roles."""
    grant_id, holder, role, scope, weight, from_us, until_us, position = row
    return pb.Role(
        grant_id=grant_id,
        member_id=holder,
        role=role,
        scope=scope,
        weight=weight,
        effective_from=timestamp(from_us),
        effective_until=None if until_us is None else timestamp(until_us),
        position=position,
    )


async def history(
    connection: Connection, program_id: str, member_id: str, after: tuple[int, int], limit: int
) -> tuple[list[pb.BindingEvent], tuple[int, int]]:
    """What touched a member's binding, tier or roles, oldest first, and where the last of it stands: (position, which of that entry's).

    `after` is such a place, counted from 1; (0, 0) is the beginning. Raises MemberUnknown.
    """
    cursor = await connection.execute(
        # One more than asked for: all of the first entry's may have been given.
        "select position from referral.binding_events where program_id = %s and member_id = %s and position >= %s"
        " order by position limit %s",
        [program_id, member_id, after[0], limit + 1],
    )
    positions = [position for (position,) in await cursor.fetchall()]
    if not positions and after == (0, 0):
        raise MemberUnknown(member_id)
    found = [
        (event, (stored.position, number))
        for stored in await eventlog.at(connection, program_id, positions)
        for number, event in enumerate(_events(stored, member_id), 1)
        if (stored.position, number) > after
    ][:limit]
    return [event for event, _ in found], found[-1][1] if found else after


def _events(stored: Stored, member_id: str) -> list[pb.BindingEvent]:
    """What an entry did to one member: an order may lock them and promote them."""
    event = pb.BindingEvent(position=stored.position, occurred_at=timestamp(stored.occurred_us), recorded_at=timestamp(stored.recorded_us))
    match stored.type:
        case "member.enrolled.v1":
            event.enrolled.ParseFromString(stored.fact)
        case "member.touched.v1":
            event.touched.touch.ParseFromString(stored.fact)
            event.touched.counts = log_pb2.MemberTouchedDecision.FromString(stored.decision).counts
        case "member.upgraded.v1":
            event.upgraded.upgrade.ParseFromString(stored.fact)
            event.upgraded.decision.ParseFromString(stored.decision)
        case "member.binding_corrected.v1":
            event.corrected.correction.ParseFromString(stored.fact)
            decided = log_pb2.BindingCorrectedDecision.FromString(stored.decision)
            event.corrected.previous_referrer_id = decided.previous_referrer_id
        case "member.role_granted.v1":
            event.role_granted.ParseFromString(stored.fact)
        case "member.role_ended.v1":
            event.role_ended.ParseFromString(stored.fact)
        case "order.paid.v1":
            paid = log_pb2.OrderPaidDecision.FromString(stored.decision)
            order_id = log_pb2.OrderPaid.FromString(stored.fact).order_id
            if paid.binding_locked.member_id == member_id:
                event.locked_by_order.order_id = order_id
                event.locked_by_order.lock.CopyFrom(paid.binding_locked)
            return _with_tier_changes(event, order_id, paid.tier_changes, member_id)
        case "order.refunded.v1":
            return _reversed(event, log_pb2.OrderRefunded.FromString(stored.fact).order_id, stored, member_id)
        case "order.voided.v1":
            return _reversed(event, log_pb2.OrderVoided.FromString(stored.fact).order_id, stored, member_id)
    return [event]


def _reversed(event: pb.BindingEvent, order_id: str, stored: Stored, member_id: str) -> list[pb.BindingEvent]:
    decided = log_pb2.OrderRefundedDecision.FromString(stored.decision)
    if decided.binding_released_member_id == member_id:
        event.released_by_refund_of_order_id = order_id
    return _with_tier_changes(event, order_id, decided.tier_changes, member_id)


def _with_tier_changes(
    event: pb.BindingEvent, order_id: str, changes: Iterable[log_pb2.TierChange], member_id: str
) -> list[pb.BindingEvent]:
    events = [event] if event.WhichOneof("event") else []
    for change in changes:
        if change.member_id == member_id:
            changed = pb.BindingEvent(position=event.position, occurred_at=event.occurred_at, recorded_at=event.recorded_at)
            changed.tier_changed.order_id = order_id
            changed.tier_changed.change.CopyFrom(change)
            events.append(changed)
    return events
