"""Referral as the writer sees it: what to load for a batch of commands, and the domain's decide and evolve on that."""

from collections.abc import Collection, Sequence
from pathlib import Path

from services.kernel.decider import Answer, Draft, Entry
from services.referral import codec
from services.referral.domain.decide import (
    Command,
    CorrectBinding,
    EndRole,
    EnrollMember,
    EraseMember,
    GrantRole,
    NameMember,
    RecordTouch,
    UpgradeMember,
    decide,
)
from services.referral.domain.facts import EvidenceKind, PlanPublished
from services.referral.domain.roster import Member, Roster, Seat, evolve
from services.referral.projection import ReferralChanges
from services.runtime import eventlog
from services.runtime.eventlog import Connection, Head, array
from services.runtime.stored import Stored

SQL = Path(__file__).resolve().parent / "sql"
MEMBER_COLUMNS = "member_id, enrolled_us, tier, tier_position, locked, referrer_id, binding_position, touch_position"
# Plan versions kept parsed; beyond it the oldest go.
PLANS_KEPT = 10_000


class Referral:
    """Implements `runtime.writer.Participant`."""

    name = "referral"
    handles: frozenset[type] = frozenset(Command.__args__)

    def __init__(self) -> None:
        # By the hash of the entry that published it.
        self._plans: dict[bytes, PlanPublished] = {}

    def alone(self, command: Command) -> bool:
        return False

    def decide(self, state: Roster, command: Command) -> Answer:
        return decide(state, command)

    def evolve(self, state: Roster, entry: Entry) -> None:
        evolve(state, entry)
        state.versions[entry.stream] = entry.stream_version

    def next_version(self, state: Roster, stream: str) -> int:
        return state.versions.get(stream, 0) + 1

    def write(self, draft: Draft) -> tuple[str, bytes, bytes]:
        return codec.write(draft)

    def read(self, stored: Stored) -> Entry:
        return codec.read(stored)

    def changes(self) -> ReferralChanges:
        return ReferralChanges()

    def people(self, command: Command) -> tuple[str, ...]:
        """The referrer that an enrolment, touch or correction names."""
        if isinstance(command, EnrollMember | RecordTouch | CorrectBinding) and command.fact.referrer_id:
            return (command.fact.referrer_id,)
        return ()

    async def look_up(
        self,
        connection: Connection,
        before: Head,
        head: Head,
        commands: Sequence[Command],
        people: Collection[str],
        kept: Roster,
        folding: Collection[str],
    ) -> None:
        """Nothing: no roster is kept that it could be taken into."""

    def keep(self, state: Roster) -> int:
        """Nothing: members are told of less often than orders."""
        return 0

    async def load(self, connection: Connection, head: Head, commands: Sequence[Command], people: Collection[str], kept: None) -> Roster:
        """The roster as far as these commands look."""
        program_id = head.program_id
        roster = Roster(complete=False, position=head.position, seat_tiers=set())
        plans = {plan.hash: known for plan in head.plans if (known := self._plans.get(plan.hash))}
        if len(plans) < len(head.plans):
            for stored in await eventlog.at(connection, program_id, [plan.position for plan in head.plans if plan.hash not in plans]):
                plans[stored.hash] = self._plans[stored.hash] = codec.read(stored).fact
            while len(self._plans) > PLANS_KEPT:
                del self._plans[next(iter(self._plans))]
        roster.plans = [plans[plan.hash] for plan in head.plans]
        facts: list[str] = []
        members: set[str] = set()
        # Members whose whole path is needed, to see that no circle closes.
        paths: set[str] = set()
        streams: set[str] = set()
        orders: set[str] = set()
        # Grants of seats that some plan counts; of all others there may be as many as there are members.
        seated: list[UpgradeMember] = []
        limited = {tier for plan in roster.plans for tier in plan.seats}
        ended = [command.fact.grant_id for command in commands if isinstance(command, EndRole)]
        if ended:
            # Whose role it is, the grant tells; where it is granted in this batch, its own command names them.
            for stored in await eventlog.facts(connection, program_id, [f"role/{grant_id}" for grant_id in ended]):
                streams.add(stored.stream)
        for command in commands:
            fact = command.fact
            if fact.member_id:
                streams.add(f"member/{fact.member_id}")
                members.add(fact.member_id)
            match command:
                case EnrollMember():
                    roster.facts[f"member/{fact.member_id}"] = None
                    if command.fact.referrer_id:
                        members.add(command.fact.referrer_id)
                case RecordTouch():
                    facts.append(f"touch/{command.fact.touch_id}")
                    paths.add(command.fact.referrer_id)
                case UpgradeMember():
                    facts.append(f"upgrade/{command.fact.upgrade_id}")
                    if command.fact.evidence.kind is EvidenceKind.PAID_ORDER and command.fact.evidence.order_id:
                        orders.add(command.fact.evidence.order_id)
                    if command.fact.evidence.kind is EvidenceKind.SEAT_GRANTED and command.fact.tier in limited:
                        seated.append(command)
                case GrantRole():
                    facts.append(f"role/{command.fact.grant_id}")
                case EndRole():
                    facts += [f"role/{command.fact.grant_id}", f"role_end/{command.fact.grant_id}"]
                case NameMember():
                    facts += [f"naming/{command.fact.naming_id}", f"erasure/{command.fact.member_id}"]
                case EraseMember():
                    facts.append(f"erasure/{command.fact.member_id}")
                case CorrectBinding():
                    facts.append(f"correction/{command.fact.correction_id}")
                    if command.fact.referrer_id:
                        paths.add(command.fact.referrer_id)
        if paths:
            # Members named elsewhere in the batch may come to stand on a path, and then so does all above them.
            paths |= members
        roster.members = dict.fromkeys(members | paths)
        roster.members.update(await self._members(connection, program_id, list(members | paths), whole_paths=bool(paths)))
        if any(isinstance(command, UpgradeMember) for command in commands):
            await self._load_seats(connection, program_id, roster, seated)
        roster.versions = await eventlog.versions(connection, program_id, [*streams, *(f"order/{order_id}" for order_id in orders)])
        roster.orders = {order_id: f"order/{order_id}" in roster.versions for order_id in orders}
        if facts:
            roster.facts.update(dict.fromkeys(facts))
            for stored in await eventlog.facts(connection, program_id, facts):
                roster.facts[stored.fact_id or ""] = codec.read(stored)
        enrolled = [name for name in roster.facts if name.startswith("member/") and name in roster.versions]
        if enrolled:
            for stored in await eventlog.firsts(connection, program_id, enrolled):
                roster.facts[stored.stream] = codec.read(stored)
        return roster

    async def _load_seats(self, connection: Connection, program_id: str, roster: Roster, seated: Sequence[UpgradeMember]) -> None:
        """Seats and frozen tiers of the members at hand, and of the tiers that are asked for all seats that have not ended before."""
        roster.seat_tiers = {command.fact.tier for command in seated}
        earliest_us = min((command.occurred_us for command in seated), default=0)
        cursor = await connection.execute(
            "select member_id, tier, until_us, position, previous_tier, previous_tier_position from referral.seats where program_id = %s"
            " and (member_id = any(%s::text[]) or (tier = any(%s::text[]) and (until_us is null or until_us > %s)))",
            [program_id, array(roster.members), array(roster.seat_tiers), earliest_us],
        )
        roster.seats = {row[0]: Seat(*row[1:]) for row in await cursor.fetchall()}
        cursor = await connection.execute(
            "select member_id, position from referral.frozen_tiers where program_id = %s and member_id = any(%s::text[])",
            [program_id, array(roster.members)],
        )
        roster.frozen = dict(await cursor.fetchall())

    async def _members(self, connection: Connection, program_id: str, members: list[str], whole_paths: bool) -> dict[str, Member]:
        """These members, and everybody above them by the current referrer where whole paths are asked for."""
        select = f"select {MEMBER_COLUMNS} from referral.members where program_id = %s and member_id = any(%s::text[])"
        parameters: list[object] = [program_id, array(members)]
        if whole_paths:
            above = ", ".join("m." + name for name in MEMBER_COLUMNS.split(", "))
            select = (
                f"with recursive path as ({select} union select {above} from path p cross join lateral (select * from referral.members"
                f" where program_id = %s and member_id = p.referrer_id offset 0) m) select {MEMBER_COLUMNS} from path"
            )
            parameters.append(program_id)
        cursor = await connection.execute(select.encode(), parameters)
        return {row[0]: Member(*row[1:]) for row in await cursor.fetchall()}
