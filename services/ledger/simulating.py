"""Simulating a draft on a recorded log: what `domain/simulating.py` is given, read at one moment. Changes nothing.

Runs in a thread of its own on its own connection (`runtime/replaying.py`).
"""

from collections.abc import Callable

from services.kernel.refusals import CurrencyMismatch, ProgramUnknown
from services.ledger import codec
from services.ledger.domain.plan import Plan
from services.ledger.domain.simulating import Report, Simulation
from services.runtime.replaying import CHUNK, Sync, entries

# What comes back to an order, by its stored name.
RETURNING = ("order.refunded.v1", "order.voided.v1", "order.group_formed.v1")
# What a simulation looks at.
TYPES = (
    *RETURNING,
    "program.created.v1",
    "plan.published.v1",
    "member.enrolled.v1",
    "member.touched.v1",
    "member.upgraded.v1",
    "member.binding_corrected.v1",
    "member.role_granted.v1",
    "member.role_ended.v1",
    "order.paid.v1",
    "group.opened.v1",
    "group.joined.v1",
    "group.formed.v1",
    "group.failed.v1",
    "task.done.v1",
    "period.closed.v1",
    "period.corrected.v1",
)


def simulate(
    connection: Sync, program_id: str, draft: Plan, from_us: int | None, to_us: int | None, progress: Callable[[int, int], None]
) -> Report:
    """Replays the log as of one moment under a draft. Raises ProgramUnknown, CurrencyMismatch."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read read only")
        row = connection.execute("select currency, head_position from fenrun.programs where program_id = %s", [program_id]).fetchone()
        if row is None:
            raise ProgramUnknown(program_id)
        currency, head = str(row[0]), int(row[1])
        if draft.currency != currency:
            raise CurrencyMismatch(currency, draft.currency)
        progress(0, head)
        simulation = Simulation(draft, from_us, to_us, _returning(connection, program_id, head))
        told = 0
        for stored in entries(connection, program_id, head, TYPES):
            simulation.add(codec.read(stored))
            if stored.position >= told + CHUNK:
                told = stored.position
                progress(told, head)
        progress(head, head)
        return simulation.report()


def _returning(connection: Sync, program_id: str, last: int) -> dict[str, int]:
    """{stream: entries that come back to it} of orders: all others are let go as soon as they are read."""
    found = connection.execute(
        "select stream, count(*) from fenrun.entries where program_id = %s and position <= %s and type = any(%s::text[]) group by stream",
        [program_id, last, list(RETURNING)],
    )
    return {str(stream): int(count) for stream, count in found}
