"""Commands about members: who brought whom, for life, and who stands in which tier."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.console import terminal
from services.console.client import AsOf, At, Call, Lazy, OccurredBy, ask_as_of, command, new_id, parse_time, timestamp, told_as_of
from services.console.terminal import Column, when
from services.referral import naming_cli

if TYPE_CHECKING:
    from fenrun.log.v1 import log_pb2 as log
    from fenrun.referral.v1 import referral_pb2 as pb
else:
    log = Lazy("fenrun.log.v1.log_pb2")
    pb = Lazy("fenrun.referral.v1.referral_pb2")

app = typer.Typer()
member_app = typer.Typer(help="Members: enrolment, the lifetime lock, tiers.", no_args_is_help=True)
role_app = typer.Typer(help="Roles: who leads a region, a store, a group; who is a partner.", no_args_is_help=True)
app.add_typer(member_app, name="member")
app.add_typer(role_app, name="role")
member_app.add_typer(naming_cli.name_app, name="name")
command(member_app, "erase")(naming_cli.erase)
command(member_app, "rewrap-keys", program=False)(naming_cli.rewrap_keys)

Member = Annotated[str, typer.Argument(help="The member's id.")]


@command(member_app)
def enroll(
    call: Call, member: Member, referrer: Annotated[str, typer.Option(help="Who brought them. Left out: nobody.")] = "", at: At = None
) -> None:
    """Adds a member, with the one who brought them."""
    response = call.referral.EnrollMember(
        pb.EnrollMemberRequest(program_id=call.program, member_id=member, referrer_id=referrer, enrolled_at=timestamp(at))
    )
    call.wrote(response, response.receipt, f"member {member}, brought by {referrer or 'nobody'}")


@command(member_app)
def touch(
    call: Call,
    member: Member,
    referrer: Annotated[str, typer.Argument(help="Whose link or code they followed.")],
    channel: Annotated[str, typer.Option(help="Where, in the shop's own words: link, poster, live room.")] = "",
    touch_id: Annotated[str, typer.Option(help="What makes it count once. Left out: a new one, printed.")] = "",
    at: At = None,
) -> None:
    """Records that a member followed someone's link or code."""
    touch_id = touch_id or new_id("touch")
    response = call.referral.RecordTouch(
        pb.RecordTouchRequest(
            program_id=call.program, touch_id=touch_id, member_id=member, referrer_id=referrer, touched_at=timestamp(at), channel=channel
        )
    )
    counts = "a lock would fall to them" if response.counts else "not counted: already locked, or the plan keeps the first touch"
    call.wrote(response, response.receipt, f"touch {touch_id} of {member} by {referrer}; {counts}")


@command(member_app)
def upgrade(
    call: Call,
    member: Member,
    tier: Annotated[str, typer.Argument(help="As the plan in force names it.")],
    order: Annotated[str, typer.Option(help="The paid order that is the evidence.")] = "",
    evidence: Annotated[str, typer.Option(help="Without --order: volume, seat_granted or import.")] = "import",
    expires: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="A seat for a time, with seat_granted.")] = None,
    note: Annotated[str, typer.Option(help="For the auditor; no personal data.")] = "",
    upgrade_id: Annotated[str, typer.Option(help="What makes it count once. Left out: a new one, printed.")] = "",
    at: At = None,
) -> None:
    """Puts a member into a tier, with evidence. The first upgrade locks the binding."""
    name = "EVIDENCE_KIND_" + ("paid_order" if order else evidence).replace("-", "_").upper()
    if name not in list(log.EvidenceKind.keys()) or (not order and name == "EVIDENCE_KIND_PAID_ORDER"):
        raise typer.BadParameter("--evidence is volume, seat_granted or import; a paid order is given with --order")
    upgrade_id = upgrade_id or new_id("upgrade")
    response = call.referral.UpgradeMember(
        pb.UpgradeMemberRequest(
            program_id=call.program,
            upgrade_id=upgrade_id,
            member_id=member,
            tier=tier,
            upgraded_at=timestamp(at),
            evidence=log.Evidence(kind=log.EvidenceKind.Value(name), order_id=order, note=note),
            expires_at=timestamp(expires) if expires else None,
        )
    )
    moved = f"from {response.previous_tier or 'no tier'} to {tier}"
    if call.wrote(response, response.receipt, f"upgrade {upgrade_id} of {member} {moved}") and response.HasField("binding_locked"):
        terminal.say(f"{member} is locked for life to {response.binding_locked.referrer_id or 'nobody'}")


@command(member_app)
def correct(
    call: Call,
    member: Member,
    reason: Annotated[str, typer.Option(help="Why.")],
    requested_by: Annotated[str, typer.Option(help="Who asked.")],
    approved_by: Annotated[str, typer.Option(help="Who approved: somebody else.")],
    referrer: Annotated[str | None, typer.Option(help="The new one above them.")] = None,
    nobody: Annotated[bool, typer.Option("--nobody", help="Nobody above them any more.")] = False,
    correction_id: Annotated[str, typer.Option(help="What makes it count once. Left out: a new one, printed.")] = "",
    at: At = None,
) -> None:
    """Moves a locked binding, for later orders only."""
    if (referrer is None) != nobody or referrer == "":
        raise typer.BadParameter("say who is above them now: --referrer MEMBER, or --nobody")
    correction_id = correction_id or new_id("correction")
    response = call.referral.CorrectBinding(
        pb.CorrectBindingRequest(
            program_id=call.program,
            correction_id=correction_id,
            member_id=member,
            new_referrer_id=referrer or "",
            corrected_at=timestamp(at),
            reason=reason,
            requested_by=requested_by,
            approved_by=approved_by,
        )
    )
    moved = f"from {response.previous_referrer_id or 'nobody'} to {referrer or 'nobody'}"
    call.wrote(response, response.receipt, f"correction {correction_id} of {member} {moved}")


@command(role_app)
def grant(
    call: Call,
    member: Member,
    role: Annotated[str, typer.Argument(help="region, store, guide, leader, partner, …")],
    place: Annotated[str, typer.Option(help="A region's or store's code. Left out: everywhere.")] = "",
    weight: Annotated[int, typer.Option(help="Shares of the role.", min=1)] = 1,
    from_: Annotated[Any, typer.Option("--from", parser=parse_time, metavar="TIME", help="Orders paid from then on. Default: now.")] = None,
    until: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="And before then. Left out: open end.")] = None,
    grant_id: Annotated[str, typer.Option(help="What makes it count once. Left out: a new one, printed.")] = "",
    at: At = None,
) -> None:
    """Gives a member a role, at a place or everywhere."""
    grant_id = grant_id or new_id("grant")
    request = pb.GrantRoleRequest(
        program_id=call.program,
        grant_id=grant_id,
        member_id=member,
        role=role,
        scope=place,
        weight=weight,
        effective_from=timestamp(from_),
        effective_until=timestamp(until) if until else None,
        granted_at=timestamp(at),
    )
    response = call.referral.GrantRole(request)
    call.wrote(response, response.receipt, f"{member} is {role}{f' at {place}' if place else ''}, grant {grant_id}")


@command(role_app)
def end(
    call: Call,
    grant: Annotated[str, typer.Argument(metavar="GRANT", help="The id it was granted with.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    at: At = None,
) -> None:
    """Ends a role, for orders paid from then on."""
    response = call.referral.EndRole(pb.EndRoleRequest(program_id=call.program, grant_id=grant, ended_at=timestamp(at), reason=reason))
    call.wrote(response, response.receipt, f"role grant {grant} ended")


@command(role_app, "list")
def list_roles(
    call: Call,
    member: Annotated[str, typer.Option(help="Of one member.")] = "",
    at: Annotated[Any, typer.Option(parser=parse_time, metavar="TIME", help="Only those in effect then.")] = None,
    as_of: AsOf = None,
    occurred_by: OccurredBy = None,
) -> None:
    """Who holds which role, by role and place."""
    request = pb.ListRolesRequest(program_id=call.program, member_id=member, at=timestamp(at) if at else None)
    ask_as_of(request, as_of, occurred_by)
    found = list(call.pages(call.referral.ListRoles, request, "roles"))
    if call.as_json:
        return terminal.print_json({"roles": [terminal.plain(one) for one in found]})
    terminal.table(
        [Column("role"), Column("place"), Column("member"), Column("weight", "number"), Column("from"), Column("until"), Column("grant")],
        [(one.role, one.scope, one.member_id, one.weight, when(one.effective_from), _until(one), one.grant_id) for one in found],
    )


def _until(role: "pb.Role") -> str:
    return when(role.effective_until) if role.HasField("effective_until") else ""


# ---------------------------------------------------------------- reading


@command(member_app)
def show(call: Call, member: Member, as_of: AsOf = None, occurred_by: OccurredBy = None) -> None:
    """One member: tier, binding, how many they brought; or the first two as of another time."""
    request = pb.GetMemberRequest(program_id=call.program, member_id=member)
    ask_as_of(request, as_of, occurred_by)
    found = call.referral.GetMember(request)
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    one = found.member
    above = one.referrer_id or "nobody"
    bound = f"locked to {above}, position {one.binding_position}" if one.locked else f"open; a lock would fall to {above}"
    terminal.say(
        f"member    {one.member_id}",
        f"enrolled  {when(one.enrolled_at)}",
        f"tier      {_tier(one)}",
        f"binding   {bound}",
    )
    if as_of is None and occurred_by is None:
        terminal.say(f"brought   {found.direct_count} directly")
    else:
        terminal.say(f"as of     {told_as_of(found.as_of_position, occurred_by).removeprefix('at ')}")


def _tier(member: "pb.Member") -> str:
    if not member.tier:
        return "none"
    until = f", a seat until {when(member.tier_expires_at)}" if member.HasField("tier_expires_at") else ""
    frozen = ", frozen: it earns nothing until the next upgrade" if member.tier_frozen else ""
    return f"{member.tier}, position {member.tier_position}{until}{frozen}"


@command(member_app)
def upline(
    call: Call,
    member: Member,
    depth: Annotated[int, typer.Option(help="Levels up; 0: as far as 100.", min=0)] = 0,
    as_of: AsOf = None,
    occurred_by: OccurredBy = None,
) -> None:
    """The locked path from a member up, nearest first."""
    request = pb.GetUplineRequest(program_id=call.program, member_id=member, max_depth=depth)
    ask_as_of(request, as_of, occurred_by)
    found = call.referral.GetUpline(request)
    if call.as_json:
        return terminal.print_json(terminal.plain(found))
    if not found.members:
        return terminal.say(f"{member} is locked to nobody")
    terminal.table(
        [Column("level", "number"), Column("member"), Column("tier"), Column("lock", "number")],
        [(level, one.member_id, one.tier, one.binding_position) for level, one in enumerate(found.members, 1)],
    )
    if found.more:
        terminal.notice("the path goes on above; ask with a larger --depth")


@command(member_app)
def downline(
    call: Call,
    member: Member,
    depth: Annotated[int | None, typer.Option(help="Levels down. Default: 1, as a tree 100.", min=1, max=100)] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Draw it.")] = False,
) -> None:
    """Those locked to a member, level by level."""
    request = pb.ListDownlineRequest(program_id=call.program, member_id=member, max_depth=depth or (100 if tree else 1))
    found = list(call.pages(call.referral.ListDownline, request, "members"))
    if call.as_json:
        return terminal.print_json({"member_id": member, "members": [terminal.plain(one) for one in found]})
    if tree:
        return _draw(member, found)
    terminal.table(
        [Column("level", "number"), Column("member"), Column("tier"), Column("brought by"), Column("enrolled")],
        [(one.depth, one.member.member_id, one.member.tier, one.member.referrer_id, when(one.member.enrolled_at)) for one in found],
    )


def _draw(member: str, found: list[Any]) -> None:
    """A parent always comes before its children: the list goes level by level."""
    from rich.text import Text
    from rich.tree import Tree

    branches = {member: Tree(Text(member))}
    for one in found:
        label = Text(one.member.member_id).append(f" {one.member.tier}" if one.member.tier else "", style="dim")
        branches[one.member.member_id] = branches[one.member.referrer_id].add(label)
    terminal.console().print(branches[member])


@command(member_app)
def history(call: Call, member: Member) -> None:
    """Everything that ever touched a member's binding or tier, oldest first."""
    request = pb.ListBindingHistoryRequest(program_id=call.program, member_id=member)
    found = list(call.pages(call.referral.ListBindingHistory, request, "events"))
    if call.as_json:
        return terminal.print_json({"member_id": member, "events": [terminal.plain(event) for event in found]})
    for event in found:
        terminal.say(f"{event.position:>8}  {when(event.occurred_at)}  {_happened(event)}")


def _happened(event: "pb.BindingEvent") -> str:
    match event.WhichOneof("event"):
        case "enrolled":
            return f"enrolled, brought by {event.enrolled.referrer_id or 'nobody'}"
        case "touched":
            touch = event.touched.touch
            return f"touch {touch.touch_id} by {touch.referrer_id}" + ("" if event.touched.counts else ", which does not count")
        case "upgraded":
            fact, decision = event.upgraded.upgrade, event.upgraded.decision
            lock = f", locked to {decision.binding_locked.referrer_id or 'nobody'}" if decision.HasField("binding_locked") else ""
            until = f"until {when(fact.expires_at)}" if fact.HasField("expires_at") else ""
            because = " ".join(filter(None, (terminal.word(log.EvidenceKind, fact.evidence.kind), fact.evidence.order_id, until)))
            return f"upgrade {fact.upgrade_id} from {decision.previous_tier or 'no tier'} to {fact.tier} ({because}){lock}"
        case "corrected":
            fixed = event.corrected.correction
            who = f"asked by {fixed.requested_by}, approved by {fixed.approved_by}: {fixed.reason}"
            return f"moved from {event.corrected.previous_referrer_id or 'nobody'} to {fixed.referrer_id or 'nobody'}, {who}"
        case "locked_by_order":
            return f"locked to {event.locked_by_order.lock.referrer_id or 'nobody'} by order {event.locked_by_order.order_id}"
        case "tier_changed":
            change = event.tier_changed.change
            if change.kind == log.TIER_CHANGE_KIND_FROZEN:
                return f"{change.tier} frozen: nothing remains of order {event.tier_changed.order_id}"
            kind = terminal.word(log.TierChangeKind, change.kind)
            return f"{kind} from {change.previous_tier or 'no tier'} to {change.tier or 'no tier'} with order {event.tier_changed.order_id}"
        case "role_granted":
            granted = event.role_granted
            return f"role {granted.role}{f' at {granted.scope}' if granted.scope else ''}, weight {granted.weight} ({granted.grant_id})"
        case "role_ended":
            return f"role grant {event.role_ended.grant_id} ended: {event.role_ended.reason}"
        case "released_by_refund_of_order_id":
            return f"lock released: order {event.released_by_refund_of_order_id} was refunded in full"
        case _:
            return "something this version does not know"
