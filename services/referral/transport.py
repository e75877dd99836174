"""ReferralService over gRPC: requests become commands, outcomes become replies. No rule of binding lives here."""

from fenrun.referral.v1 import referral_pb2 as pb
from fenrun.referral.v1 import referral_pb2_grpc

from services.kernel.refusals import TokenInvalid
from services.referral import codec, keeping, past, views
from services.referral.domain import facts as f
from services.referral.domain.decide import (
    CorrectBinding,
    EndRole,
    EnrollMember,
    EraseMember,
    GrantRole,
    NameMember,
    RecordTouch,
    UpgradeMember,
)
from services.referral.names import MasterKeys
from services.runtime import eventlog, tokens
from services.runtime.as_of import as_asked
from services.runtime.serving import Context, Told, actor, check_fresh, moment, page_size, receipt, unary
from services.runtime.writer import Connect, Outcome, Writer

HIGHEST_UPLINE = 100


class ReferralTransport(referral_pb2_grpc.ReferralServiceServicer):
    def __init__(self, connect: Connect, writer: Writer, master: MasterKeys | None) -> None:
        self._connect = connect
        self._writer = writer
        # None: names can be neither kept nor read, and all else works.
        self._master = master

    @unary
    async def EnrollMember(self, request: pb.EnrollMemberRequest, context: Context) -> pb.EnrollMemberResponse:
        return enroll_response(await self._writer.submit(request.program_id, enroll_member(request), actor(context)))

    @unary
    async def RecordTouch(self, request: pb.RecordTouchRequest, context: Context) -> pb.RecordTouchResponse:
        return touch_response(await self._writer.submit(request.program_id, record_touch(request), actor(context)))

    @unary
    async def UpgradeMember(self, request: pb.UpgradeMemberRequest, context: Context) -> pb.UpgradeMemberResponse:
        return upgrade_response(await self._writer.submit(request.program_id, upgrade_member(request), actor(context)))

    @unary
    async def CorrectBinding(self, request: pb.CorrectBindingRequest, context: Context) -> pb.CorrectBindingResponse:
        fact = f.BindingCorrected(
            request.correction_id,
            request.member_id,
            request.new_referrer_id,
            request.reason,
            request.requested_by,
            request.approved_by,
        )
        command = CorrectBinding(fact, moment("corrected_at", request.corrected_at))
        outcome = await self._writer.submit(request.program_id, command, actor(context))
        [entry] = outcome.entries
        return pb.CorrectBindingResponse(receipt=receipt(outcome, entry), previous_referrer_id=entry.decision.previous_referrer_id)

    @unary
    async def GrantRole(self, request: pb.GrantRoleRequest, context: Context) -> pb.GrantRoleResponse:
        return grant_response(await self._writer.submit(request.program_id, grant_role(request), actor(context)))

    @unary
    async def EndRole(self, request: pb.EndRoleRequest, context: Context) -> pb.EndRoleResponse:
        ended_us = moment("ended_at", request.ended_at)
        command = EndRole(f.RoleEnded(request.grant_id, "", ended_us, request.reason), ended_us)
        outcome = await self._writer.submit(request.program_id, command, actor(context))
        return pb.EndRoleResponse(receipt=receipt(outcome, outcome.entries[0]))

    @unary
    async def ListRoles(self, request: pb.ListRolesRequest, context: Context) -> pb.ListRolesResponse:
        limit = page_size(request.page_size)
        at_us = moment("at", request.at) if request.HasField("at") else None
        async with self._connect() as connection, eventlog.snapshot(connection):
            now = await check_fresh(connection, request.program_id, request.consistency)
            as_of = await as_asked(connection, now, request)
            about, after = f"{request.member_id}:{at_us}:{as_of.asked}", ("", "", 0)
            if request.page_token:
                call, of, role, scope, position = tokens.parts(request.page_token, "page_token", (str, str, str, str, int))
                if (call, of) != ("roles", about):
                    raise TokenInvalid("page_token")
                after = (str(role), str(scope), int(position))
            if as_of.asked:
                found, last = await past.roles(connection, request.program_id, request.member_id, at_us, as_of, after, limit)
            else:
                found = await views.roles(connection, request.program_id, request.member_id, at_us, after, limit)
                last = (found[-1].role, found[-1].scope, found[-1].position) if len(found) == limit else None
        token = tokens.make("roles", about, *last) if last else ""
        return pb.ListRolesResponse(roles=found, next_page_token=token, as_of_position=as_of.position)

    @unary
    async def GetMember(self, request: pb.GetMemberRequest, context: Context) -> pb.GetMemberResponse:
        async with self._connect() as connection:
            now = await check_fresh(connection, request.program_id, request.consistency)
            as_of = await as_asked(connection, now, request)
            if not as_of.asked:
                return await views.member(connection, request.program_id, request.member_id)
            member = await past.member(connection, request.program_id, request.member_id, as_of)
        return pb.GetMemberResponse(member=member, as_of_position=as_of.position)

    @unary
    async def GetUpline(self, request: pb.GetUplineRequest, context: Context) -> pb.GetUplineResponse:
        depth = request.max_depth or HIGHEST_UPLINE
        async with self._connect() as connection:
            now = await check_fresh(connection, request.program_id, request.consistency)
            as_of = await as_asked(connection, now, request)
            if not as_of.asked:
                return await views.upline(connection, request.program_id, request.member_id, depth)
            members, more = await past.upline(connection, request.program_id, request.member_id, depth, as_of)
        return pb.GetUplineResponse(members=members, more=more, as_of_position=as_of.position)

    @unary
    async def ListDownline(self, request: pb.ListDownlineRequest, context: Context) -> pb.ListDownlineResponse:
        depth, limit = request.max_depth or 1, page_size(request.page_size)
        about = f"{request.member_id}:{depth}"
        after = (0, "")
        if request.page_token:
            call, of, level, last = tokens.parts(request.page_token, "page_token", (str, str, int, str))
            if (call, of) != ("downline", about):
                raise TokenInvalid("page_token")
            after = (int(level), str(last))
        async with self._connect() as connection:
            await check_fresh(connection, request.program_id, request.consistency)
            found = await views.downline(connection, request.program_id, request.member_id, depth, after, limit)
        token = tokens.make("downline", about, found[-1].depth, found[-1].member.member_id) if len(found) == limit else ""
        return pb.ListDownlineResponse(members=found, next_page_token=token)

    @unary
    async def ListBindingHistory(self, request: pb.ListBindingHistoryRequest, context: Context) -> pb.ListBindingHistoryResponse:
        after, limit = (0, 0), page_size(request.page_size)
        if request.page_token:
            call, of, position, number = tokens.parts(request.page_token, "page_token", (str, str, int, int))
            if (call, of) != ("history", request.member_id):
                raise TokenInvalid("page_token")
            after = (int(position), int(number))
        async with self._connect() as connection:
            await check_fresh(connection, request.program_id, request.consistency)
            events, last = await views.history(connection, request.program_id, request.member_id, after, limit)
        token = tokens.make("history", request.member_id, *last) if len(events) == limit else ""
        return pb.ListBindingHistoryResponse(events=events, next_page_token=token)

    # ------------------------------------------------------------ names

    @unary
    async def SetDisplayName(self, request: pb.SetDisplayNameRequest, context: Context) -> pb.SetDisplayNameResponse:
        named_us = moment("named_at", request.named_at)
        async with self._connect() as connection:
            await eventlog.head(connection, request.program_id)
            fact = await keeping.named(
                connection, self._master, request.program_id, request.member_id, request.naming_id, request.display_name
            )
        outcome = await self._writer.submit(request.program_id, NameMember(fact, named_us), actor(context))
        return pb.SetDisplayNameResponse(receipt=receipt(outcome, outcome.entries[0]))

    @unary
    async def GetDisplayName(self, request: pb.GetDisplayNameRequest, context: Context) -> pb.GetDisplayNameResponse:
        async with self._connect() as connection, eventlog.snapshot(connection):
            await check_fresh(connection, request.program_id, request.consistency)
            return await keeping.display_name(connection, self._master, request.program_id, request.member_id)

    @unary
    async def EraseMember(self, request: pb.EraseMemberRequest, context: Context) -> pb.EraseMemberResponse:
        fact = f.MemberErased(request.member_id, request.reason, request.erased_by)
        outcome = await self._writer.submit(request.program_id, EraseMember(fact, moment("erased_at", request.erased_at)), actor(context))
        return pb.EraseMemberResponse(receipt=receipt(outcome, outcome.entries[0]))

    @unary
    async def RewrapMemberKeys(self, request: pb.RewrapMemberKeysRequest, context: Context) -> pb.RewrapMemberKeysResponse:
        async with self._connect() as connection:
            return await keeping.rewrap(connection, self._master)


# ---------------------------------------------------------------- requests to commands, outcomes to replies


def enroll_member(request: pb.EnrollMemberRequest) -> EnrollMember:
    return EnrollMember(f.MemberEnrolled(request.member_id, request.referrer_id), moment("enrolled_at", request.enrolled_at))


def enroll_response(outcome: Outcome) -> pb.EnrollMemberResponse:
    return pb.EnrollMemberResponse(receipt=receipt(outcome, outcome.entries[0]))


def record_touch(request: pb.RecordTouchRequest) -> RecordTouch:
    fact = f.MemberTouched(request.touch_id, request.member_id, request.referrer_id, request.channel)
    return RecordTouch(fact, moment("touched_at", request.touched_at))


def touch_response(outcome: Outcome) -> pb.RecordTouchResponse:
    [entry] = outcome.entries
    return pb.RecordTouchResponse(receipt=receipt(outcome, entry), counts=entry.decision.counts)


def upgrade_member(request: pb.UpgradeMemberRequest) -> UpgradeMember:
    expires_us = moment("expires_at", request.expires_at) if request.HasField("expires_at") else None
    fact = f.MemberUpgraded(request.upgrade_id, request.member_id, request.tier, codec.evidence_of(request.evidence), expires_us)
    return UpgradeMember(fact, moment("upgraded_at", request.upgraded_at))


def upgrade_response(outcome: Outcome) -> pb.UpgradeMemberResponse:
    [entry] = outcome.entries
    return pb.UpgradeMemberResponse(
        receipt=receipt(outcome, entry),
        previous_tier=entry.decision.previous_tier,
        binding_locked=codec.lock_message(entry.decision.binding_locked),
    )


def grant_role(request: pb.GrantRoleRequest) -> GrantRole:
    fact = f.RoleGranted(
        request.grant_id,
        request.member_id,
        request.role,
        request.scope,
        request.weight or 1,
        moment("effective_from", request.effective_from),
        moment("effective_until", request.effective_until) if request.HasField("effective_until") else None,
    )
    return GrantRole(fact, moment("granted_at", request.granted_at))


def grant_response(outcome: Outcome) -> pb.GrantRoleResponse:
    return pb.GrantRoleResponse(receipt=receipt(outcome, outcome.entries[0]))


# What referral takes in bulk, by the name the contract gives it.
FACTS = {
    "enroll_member": Told(enroll_member, enroll_response),
    "record_touch": Told(record_touch, touch_response),
    "upgrade_member": Told(upgrade_member, upgrade_response),
    "grant_role": Told(grant_role, grant_response),
}
