"""Where members' keys are kept, and the names that are read with them: referral.member_keys and the log."""

from cryptography.exceptions import InvalidTag
from fenrun.log.v1 import log_pb2
from fenrun.referral.v1 import referral_pb2 as pb

from services.kernel.refusals import MasterKeyMissing, MemberUnknown
from services.referral.domain.facts import MemberNamed
from services.referral.names import Hidden, MasterKeys, hide, new_key, reveal
from services.runtime import eventlog
from services.runtime.eventlog import COLUMNS, Connection
from services.runtime.stored import Stored, timestamp

# Keys rewrapped in one transaction.
CHUNK = 500
NOT_GIVEN = "this server was given no master key, so it keeps and reads no names; set FENRUN_MASTER_KEY_FILE"


async def named(
    connection: Connection, master: MasterKeys | None, program_id: str, member_id: str, naming_id: str, name: str
) -> MemberNamed:
    """The fact that names a member, with the member's key, which is made with their first name.

    Of a member who was erased it says no name: no key may be made for them again. Raises MemberUnknown, MasterKeyMissing.
    """
    if await _erased(connection, program_id, member_id):
        return MemberNamed(naming_id, member_id, b"", b"", b"")
    if master is None:
        raise MasterKeyMissing(NOT_GIVEN)
    key = await _key(connection, master, program_id, member_id)
    if key is None:
        # A key that is never used opens nothing; one made beside another caller's is not kept.
        made = master.wrap(program_id, member_id, new_key())
        await connection.execute(
            "insert into referral.member_keys select program_id, member_id, %s, %s from referral.members"
            " where program_id = %s and member_id = %s on conflict do nothing",
            [master.current.id, made, program_id, member_id],
        )
        key = await _key(connection, master, program_id, member_id)
    if key is None:
        raise MemberUnknown(member_id)
    return MemberNamed(naming_id, member_id, *hide(key, program_id, member_id, naming_id, name))


async def display_name(connection: Connection, master: MasterKeys | None, program_id: str, member_id: str) -> pb.GetDisplayNameResponse:
    """What a member is called. The log says whether they were erased, whatever keys there are. Raises MemberUnknown, MasterKeyMissing."""
    erased = await _erased(connection, program_id, member_id)
    if erased is not None:
        return _response(pb.NAME_STATE_ERASED, erased)
    cursor = await connection.execute(
        f"select {COLUMNS} from fenrun.entries where program_id = %s and stream = %s and type = 'member.named.v1'"
        " order by stream_version desc limit 1".encode(),
        [program_id, f"member/{member_id}"],
        binary=True,
    )
    row = await cursor.fetchone()
    if row is None:
        cursor = await connection.execute("select from referral.members where program_id = %s and member_id = %s", [program_id, member_id])
        if await cursor.fetchone() is None:
            raise MemberUnknown(member_id)
        return pb.GetDisplayNameResponse(state=pb.NAME_STATE_NONE)
    stored = Stored(*row)
    if master is None:
        raise MasterKeyMissing(NOT_GIVEN)
    told = log_pb2.MemberNamed.FromString(stored.fact)
    try:
        key = await _key(connection, master, program_id, member_id)
        if key is None:
            return _response(pb.NAME_STATE_LOST, stored)
        name = reveal(key, program_id, member_id, told.naming_id, Hidden(told.mac, told.nonce, told.ciphertext))
    except InvalidTag:
        # The key is another one than the name was hidden with: made after the first was lost.
        return _response(pb.NAME_STATE_LOST, stored)
    return _response(pb.NAME_STATE_NAMED, stored, name)


def _response(state: pb.NameState.ValueType, stored: Stored, name: str = "") -> pb.GetDisplayNameResponse:
    return pb.GetDisplayNameResponse(state=state, display_name=name, position=stored.position, occurred_at=timestamp(stored.occurred_us))


async def _erased(connection: Connection, program_id: str, member_id: str) -> Stored | None:
    return next(iter(await eventlog.facts(connection, program_id, [f"erasure/{member_id}"])), None)


async def _key(connection: Connection, master: MasterKeys, program_id: str, member_id: str) -> bytes | None:
    cursor = await connection.execute(
        "select master_id, wrapped from referral.member_keys where program_id = %s and member_id = %s", [program_id, member_id]
    )
    row = await cursor.fetchone()
    return None if row is None else master.unwrap(program_id, member_id, *row)


async def rewrap(connection: Connection, master: MasterKeys | None) -> pb.RewrapMemberKeysResponse:
    """Wraps every key in the current master key, and destroys those of erased members. Raises MasterKeyMissing where none was given."""
    if master is None:
        raise MasterKeyMissing(NOT_GIVEN)
    cursor = await connection.execute(
        "delete from referral.member_keys k where exists"
        " (select from fenrun.entries e where e.program_id = k.program_id and e.fact_id = 'erasure/' || k.member_id)"
    )
    answer = pb.RewrapMemberKeysResponse(master_id=master.current.id, destroyed=cursor.rowcount)
    known = [key.id for key in master.keys[1:] if key.id != master.current.id]
    while True:
        async with connection.transaction():
            # Locked, so that an erasure waits for us, or we for it, and nothing that was destroyed is written again.
            cursor = await connection.execute(
                "select program_id, member_id, master_id, wrapped from referral.member_keys where master_id = any(%s::text[])"
                " limit %s for update",
                [eventlog.array(known), CHUNK],
            )
            rows = await cursor.fetchall()
            for program_id, member_id, master_id, wrapped in rows:
                again = master.wrap(program_id, member_id, master.unwrap(program_id, member_id, master_id, wrapped))
                await connection.execute(
                    "update referral.member_keys set master_id = %s, wrapped = %s where program_id = %s and member_id = %s",
                    [master.current.id, again, program_id, member_id],
                )
        answer.rewrapped += len(rows)
        if not rows:
            break
    cursor = await connection.execute("select count(*) from referral.member_keys where master_id <> %s", [master.current.id])
    row = await cursor.fetchone()
    assert row is not None
    answer.unreadable = row[0]
    return answer
