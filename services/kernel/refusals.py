"""Every reason a command can be refused for. A refusal is an answer, not a fault; `runtime/serving.py` maps each to a status.

The names are the contract's (`fenrun.type.v1.ErrorReason`). The metadata of each stands in `error_reason.proto`.
"""

from typing import Any, ClassVar


class Refusal(Exception):
    """A rule of the books says no. `str()` is one sentence for a person, `metadata` the values that matter, as text."""

    reason: ClassVar[str]

    def __init__(self, sentence: str, **metadata: str | int) -> None:
        super().__init__(sentence)
        self.metadata = {key: str(value) for key, value in metadata.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        # By default a copy in another process would be made of the sentence, as if that were what the sentence is made of.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[Refusal], args: tuple[Any, ...], fields: dict[str, Any]) -> Refusal:
    refusal = kind.__new__(kind, *args)
    refusal.__dict__.update(fields)
    return refusal


class Malformed(Refusal):
    """`field` names what is wrong with the input."""

    reason = "MALFORMED"

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence, field=field)
        self.field = field


class ProgramUnknown(Refusal):
    reason = "PROGRAM_UNKNOWN"

    def __init__(self, program_id: str) -> None:
        super().__init__(f"there is no program {program_id!r}; create it first", program_id=program_id)


class IdReused(Refusal):
    reason = "ID_REUSED"

    def __init__(self, key: str, position: int, field: str, recorded: object, given: object) -> None:
        super().__init__(
            f"{key} is recorded at position {position} with other content: {field} is {recorded!r} there and {given!r} here",
            id=key,
            position=position,
            field=field,
            recorded=str(recorded),
            given=str(given),
        )


class MemberUnknown(Refusal):
    reason = "MEMBER_UNKNOWN"

    def __init__(self, member_id: str, field: str = "member_id") -> None:
        super().__init__(f"{field}: no member {member_id!r} is enrolled", member_id=member_id, field=field)


class SelfBinding(Refusal):
    reason = "SELF_BINDING"

    def __init__(self, member_id: str) -> None:
        super().__init__(f"member {member_id!r} cannot bring themselves", member_id=member_id)


class BindingCycle(Refusal):
    reason = "BINDING_CYCLE"

    def __init__(self, member_id: str, referrer_id: str) -> None:
        super().__init__(
            f"{referrer_id!r} stands below {member_id!r} already; binding would close a circle",
            member_id=member_id,
            referrer_id=referrer_id,
        )


class BindingNotLocked(Refusal):
    reason = "BINDING_NOT_LOCKED"

    def __init__(self, member_id: str) -> None:
        super().__init__(f"the binding of {member_id!r} is not locked yet; record a touch instead", member_id=member_id)


class ApproverIsRequester(Refusal):
    reason = "APPROVER_IS_REQUESTER"

    def __init__(self, requested_by: str) -> None:
        super().__init__(f"{requested_by!r} asked and cannot approve; a second person must", requested_by=requested_by)


class TierUnknown(Refusal):
    reason = "TIER_UNKNOWN"

    def __init__(self, tier: str, known: tuple[str, ...]) -> None:
        super().__init__(f"the plan in force has no tier {tier!r}; it has {', '.join(known) or 'none'}", tier=tier, known=",".join(known))


class NoPlanInForce(Refusal):
    reason = "NO_PLAN_IN_FORCE"

    def __init__(self, at: str) -> None:
        super().__init__(f"no published plan is in force at {at}", at=at)


class PlanUnknown(Refusal):
    reason = "PLAN_UNKNOWN"

    def __init__(self, sentence: str, plan_id: str = "") -> None:
        super().__init__(sentence, plan_id=plan_id)


class PlanInvalid(Refusal):
    """`path` points into the document, such as rules[1].rate."""

    reason = "PLAN_INVALID"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"plan document, {path}: {problem}", path=path, problem=problem)


class PlanVersionOutOfOrder(Refusal):
    reason = "PLAN_VERSION_OUT_OF_ORDER"

    def __init__(self, plan_id: str, expected: int, given: int) -> None:
        super().__init__(
            f"the next version of plan {plan_id!r} is {expected}, not {given}", plan_id=plan_id, expected=expected, given=given
        )


class OrderUnknown(Refusal):
    reason = "ORDER_UNKNOWN"

    def __init__(self, order_id: str) -> None:
        super().__init__(f"no order {order_id!r} is recorded", order_id=order_id)


class LineUnknown(Refusal):
    reason = "LINE_UNKNOWN"

    def __init__(self, order_id: str, line_no: int) -> None:
        super().__init__(f"order {order_id!r} has no line {line_no}", order_id=order_id, line_no=line_no)


class RefundExceedsPaid(Refusal):
    reason = "REFUND_EXCEEDS_PAID"

    def __init__(self, order_id: str, line_no: int, field: str, remaining: int, given: int) -> None:
        super().__init__(
            f"order {order_id!r} line {line_no}: {field} {given} is more than the {remaining} that remain",
            order_id=order_id,
            line_no=line_no,
            field=field,
            remaining=remaining,
            given=given,
        )


class CurrencyMismatch(Refusal):
    reason = "CURRENCY_MISMATCH"

    def __init__(self, expected: str, given: str) -> None:
        super().__init__(f"the program's books are in {expected}, not {given}", expected=expected, given=given)


class PayoutExceedsAvailable(Refusal):
    reason = "PAYOUT_EXCEEDS_AVAILABLE"

    def __init__(self, member_id: str, available: int, given: int) -> None:
        super().__init__(
            f"{member_id!r} has {available} available, a payout of {given} is more", member_id=member_id, available=available, given=given
        )


class PayoutUnknown(Refusal):
    reason = "PAYOUT_UNKNOWN"

    def __init__(self, payout_id: str) -> None:
        super().__init__(f"no payout {payout_id!r} was requested", payout_id=payout_id)


class PayoutClosed(Refusal):
    reason = "PAYOUT_CLOSED"

    def __init__(self, payout_id: str, state: str) -> None:
        super().__init__(f"payout {payout_id!r} is closed as {state}", payout_id=payout_id, state=state)


class WriteOffExceedsDebt(Refusal):
    reason = "WRITE_OFF_EXCEEDS_DEBT"

    def __init__(self, member_id: str, debt: int, given: int) -> None:
        super().__init__(f"{member_id!r} owes {debt}, a write-off of {given} is more", member_id=member_id, debt=debt, given=given)


class HoldUnknown(Refusal):
    reason = "HOLD_UNKNOWN"

    def __init__(self, hold_id: str) -> None:
        super().__init__(f"no hold {hold_id!r} was placed", hold_id=hold_id)


class PostingUnknown(Refusal):
    reason = "POSTING_UNKNOWN"

    def __init__(self, posting_id: str) -> None:
        super().__init__(f"there is no posting {posting_id}", posting_id=posting_id)


class ProjectionUnknown(Refusal):
    reason = "PROJECTION_UNKNOWN"

    def __init__(self, projection: str, known: list[str]) -> None:
        super().__init__(f"there is no projection {projection!r}; there are {', '.join(known)}", projection=projection)


class TokenInvalid(Refusal):
    reason = "TOKEN_INVALID"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is not one this server gave for this call", field=field)


class NotFreshEnough(Refusal):
    reason = "NOT_FRESH_ENOUGH"

    def __init__(self, position: int, head: int) -> None:
        super().__init__(f"position {position} was asked for and {head} is reached; repeat the call", position=position, head=head)


class PositionBeyondHead(Refusal):
    reason = "POSITION_BEYOND_HEAD"

    def __init__(self, position: int, head: int) -> None:
        super().__init__(f"position {position} is beyond the head of the log, {head}", position=position, head=head)


class DatedTooEarly(Refusal):
    reason = "DATED_TOO_EARLY"

    def __init__(self, field: str, earliest: str, given: str) -> None:
        super().__init__(
            f"{field} {given} is before {earliest}, when what it follows happened", field=field, earliest=earliest, given=given
        )


class GroupUnknown(Refusal):
    reason = "GROUP_UNKNOWN"

    def __init__(self, group_id: str) -> None:
        super().__init__(f"no group {group_id!r} was opened", group_id=group_id)


class GroupClosed(Refusal):
    reason = "GROUP_CLOSED"

    def __init__(self, group_id: str, state: str) -> None:
        super().__init__(f"group {group_id!r} is closed as {state}", group_id=group_id, state=state)


class PeriodUnknown(Refusal):
    reason = "PERIOD_UNKNOWN"

    def __init__(self, period_id: str, expected: str) -> None:
        super().__init__(f"{period_id!r} is not a period to close: {expected}", period_id=period_id, expected=expected)


class PeriodNotOver(Refusal):
    reason = "PERIOD_NOT_OVER"

    def __init__(self, period_id: str, ends_at: str, given: str) -> None:
        super().__init__(
            f"period {period_id!r} ends at {ends_at}; it cannot be closed at {given}", period_id=period_id, ends_at=ends_at, given=given
        )


class RoleGrantUnknown(Refusal):
    reason = "ROLE_GRANT_UNKNOWN"

    def __init__(self, grant_id: str) -> None:
        super().__init__(f"no role was granted as {grant_id!r}", grant_id=grant_id)


class SeatsTaken(Refusal):
    reason = "SEATS_TAKEN"

    def __init__(self, tier: str, quota: int) -> None:
        super().__init__(f"the plan grants {quota} seats of tier {tier!r}, and all are taken", tier=tier, quota=quota)


class PlanForbidden(Refusal):
    """`rule` is the linter's name for what is wrong; docs/plan-linter.md."""

    reason = "PLAN_FORBIDDEN"

    def __init__(self, rule: str, path: str, problem: str) -> None:
        super().__init__(f"{rule} at {path}: {problem}", rule=rule, path=path, problem=problem)


class PlanChanged(Refusal):
    reason = "PLAN_CHANGED"

    def __init__(self, expected: str, given: str) -> None:
        super().__init__(f"the document hashes to {given}; {expected} was validated", expected=expected, given=given)


class DepositExceedsHeld(Refusal):
    reason = "DEPOSIT_EXCEEDS_HELD"

    def __init__(self, member_id: str, held: int, given: int) -> None:
        super().__init__(f"{held} are held for {member_id!r} as a deposit, {given} is more", member_id=member_id, held=held, given=given)


class AssetUnknown(Refusal):
    reason = "ASSET_UNKNOWN"

    def __init__(self, asset: str, known: list[str]) -> None:
        super().__init__(f"there is no asset {asset!r}; there are {', '.join(known)}", asset=asset, known=",".join(known))


class CheckpointUnknown(Refusal):
    reason = "CHECKPOINT_UNKNOWN"

    def __init__(self, sentence: str, program_id: str, size: int) -> None:
        super().__init__(sentence, program_id=program_id, size=size)


class SealedAlready(Refusal):
    reason = "SEALED_ALREADY"

    def __init__(self, through: str, sealed_through: str) -> None:
        super().__init__(
            f"the books are sealed through {sealed_through}; the next seal goes further, {through} does not",
            through=through,
            sealed_through=sealed_through,
        )


class SealUnknown(Refusal):
    reason = "SEAL_UNKNOWN"

    def __init__(self, seal_id: str) -> None:
        super().__init__(f"the books were not sealed as {seal_id!r}", seal_id=seal_id)


class MemberErased(Refusal):
    reason = "MEMBER_ERASED"

    def __init__(self, member_id: str) -> None:
        super().__init__(f"member {member_id!r} was erased and is not named again", member_id=member_id)


class MasterKeyMissing(Refusal):
    """`master_id` is the key that is needed; empty: any."""

    reason = "MASTER_KEY_MISSING"

    def __init__(self, sentence: str, master_id: str = "") -> None:
        super().__init__(sentence, master_id=master_id)


class Unavailable(Refusal):
    reason = "UNAVAILABLE"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
