"""What referral answers from its views and the log: plain SQL in, messages of the contract out."""

from collections.abc import Sequence
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


def member_message(row: Sequence[Any]) -> pb.Member:
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
    )


async def member(connection: Connection, program_id: str, member_id: str) -> pb.GetMemberResponse:
    """One member and how many are locked directly to them. Raises MemberUnknown."""
    cursor = await connection.execute(
        f"select {MEMBER_COLUMNS}, (select count(*) from referral.members b where b.program_id = m.program_id"
        " and b.referrer_id = m.member_id and b.locked and b.referrer_id <> '')"
        " from referral.members m where program_id = %s and member_id = %s".encode(),
        [program_id, member_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise MemberUnknown(member_id)
    return pb.GetMemberResponse(member=member_message(row[:-1]), direct_count=row[-1])


async def upline(connection: Connection, program_id: str, member_id: str, depth: int) -> tuple[list[pb.Member], bool]:
    """The locked path above a member, nearest first, at most `depth`, and whether it goes on. Raises MemberUnknown."""
    cursor = await connection.execute(
        f"with recursive path as ("
        f" select {MEMBER_COLUMNS}, 0 as depth from referral.members where program_id = %s and member_id = %s"
        f" union all select {ABOVE}, p.depth + 1 from path p join referral.members m on m.program_id = %s and m.member_id = p.referrer_id"
        f" where p.locked and p.depth <= %s) select {MEMBER_COLUMNS} from path order by depth".encode(),
        [program_id, member_id, program_id, depth],
    )
    rows = await cursor.fetchall()
    if not rows:
        raise MemberUnknown(member_id)
    return [member_message(row) for row in rows[1 : depth + 1]], len(rows) > depth + 1


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
        f" select {MEMBER_COLUMNS}, depth from below where (depth, member_id) > (%s, %s) order by depth, member_id limit %s".encode(),
        [program_id, member_id, program_id, depth, *after, limit],
    )
    return [pb.DownlineMember(member=member_message(row[:-1]), depth=row[-1]) for row in await cursor.fetchall()]


async def history(connection: Connection, program_id: str, member_id: str, after: int, limit: int) -> list[pb.BindingEvent]:
    """Entries that touched a member's binding or tier, oldest first, after a position. Raises MemberUnknown."""
    cursor = await connection.execute(
        "select position from referral.binding_events where program_id = %s and member_id = %s and position > %s"
        " order by position limit %s",
        [program_id, member_id, after, limit],
    )
    positions = [position for (position,) in await cursor.fetchall()]
    if not positions and not after:
        raise MemberUnknown(member_id)
    return [_event(stored) for stored in await eventlog.at(connection, program_id, positions)]


def _event(stored: Stored) -> pb.BindingEvent:
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
        case "order.paid.v1":
            event.locked_by_order.order_id = log_pb2.OrderPaid.FromString(stored.fact).order_id
            event.locked_by_order.lock.CopyFrom(log_pb2.OrderPaidDecision.FromString(stored.decision).binding_locked)
        case "order.refunded.v1":
            event.released_by_refund_of_order_id = log_pb2.OrderRefunded.FromString(stored.fact).order_id
    return event
