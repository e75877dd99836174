"""What every rpc does around its own work: validate, time, answer refusals in one table's terms, log one line."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc
import protovalidate
import psycopg
import structlog
from fenrun.type.v1 import type_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from services.kernel.decider import Entry
from services.kernel.refusals import Malformed, NotFreshEnough, PositionBeyondHead, Refusal, TokenInvalid, Unavailable
from services.kernel.times import EARLIEST_US, LATEST_US
from services.runtime import tokens
from services.runtime.eventlog import Connection, Head, head
from services.runtime.gathering import Pace
from services.runtime.stored import moment_fields
from services.runtime.writer import DATABASE_LOST, Outcome, Writer, answer_to

log = structlog.get_logger()
DOMAIN = "fenrun"
# A status travels in the trailing metadata, twice: as text and as details. gRPC clients refuse more than 8 KiB of metadata, and then the
# caller gets RESOURCE_EXHAUSTED instead of the reason.
LONGEST_MESSAGE, LONGEST_VALUE, MOST_VIOLATIONS = 500, 150, 8

# The one table from reasons to status codes.
INVALID, MISSING, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
CODES = {
    "MALFORMED": INVALID,
    "PROGRAM_UNKNOWN": MISSING,
    "ID_REUSED": grpc.StatusCode.ALREADY_EXISTS,
    "MEMBER_UNKNOWN": MISSING,
    "SELF_BINDING": PRECONDITION,
    "BINDING_CYCLE": grpc.StatusCode.ABORTED,
    "BINDING_NOT_LOCKED": PRECONDITION,
    "APPROVER_IS_REQUESTER": PRECONDITION,
    "TIER_UNKNOWN": PRECONDITION,
    "NO_PLAN_IN_FORCE": PRECONDITION,
    "PLAN_UNKNOWN": MISSING,
    "PLAN_INVALID": INVALID,
    "PLAN_VERSION_OUT_OF_ORDER": PRECONDITION,
    "ORDER_UNKNOWN": MISSING,
    "LINE_UNKNOWN": PRECONDITION,
    "REFUND_EXCEEDS_PAID": PRECONDITION,
    "CURRENCY_MISMATCH": PRECONDITION,
    "PAYOUT_EXCEEDS_AVAILABLE": PRECONDITION,
    "PAYOUT_UNKNOWN": MISSING,
    "PAYOUT_CLOSED": PRECONDITION,
    "WRITE_OFF_EXCEEDS_DEBT": PRECONDITION,
    "HOLD_UNKNOWN": MISSING,
    "POSTING_UNKNOWN": MISSING,
    "PROJECTION_UNKNOWN": MISSING,
    "TOKEN_INVALID": INVALID,
    "NOT_FRESH_ENOUGH": grpc.StatusCode.UNAVAILABLE,
    "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "POSITION_BEYOND_HEAD": grpc.StatusCode.OUT_OF_RANGE,
    "DATED_TOO_EARLY": PRECONDITION,
    "GROUP_UNKNOWN": MISSING,
    "GROUP_CLOSED": PRECONDITION,
    "PERIOD_UNKNOWN": PRECONDITION,
    "PERIOD_NOT_OVER": PRECONDITION,
    "ROLE_GRANT_UNKNOWN": MISSING,
    "SEATS_TAKEN": PRECONDITION,
    "PLAN_FORBIDDEN": PRECONDITION,
    "PLAN_CHANGED": PRECONDITION,
    "DEPOSIT_EXCEEDS_HELD": PRECONDITION,
    "ASSET_UNKNOWN": PRECONDITION,
    "CHECKPOINT_UNKNOWN": MISSING,
    "SEALED_ALREADY": PRECONDITION,
    "SEAL_UNKNOWN": MISSING,
    "MEMBER_ERASED": PRECONDITION,
    "MASTER_KEY_MISSING": PRECONDITION,
}
# Of a result within an answer: the code of what is to be repeated.
TO_BE_REPEATED: int = grpc.StatusCode.UNAVAILABLE.value[0]

# What the contract says in patterns, said for people.
IN_WORDS = {
    "does not match regex pattern `^[!-.0-~]{1,100}$`": "must be 1 to 100 printable ASCII characters without space and slash",
    "does not match regex pattern `^[!-.0-~]{0,100}$`": "must be at most 100 printable ASCII characters without space and slash",
    "does not match regex pattern `^[^\\p{Z}\\p{C}]{1,100}$`": "must be 1 to 100 printable characters without space",
    "does not match regex pattern `^[A-Z]{3}$`": "must be a three-letter ISO 4217 code, such as CNY",
    "does not match regex pattern `^([A-Z]{3}|[a-z][a-z0-9_-]{0,39})$`": "must be an ISO 4217 code, such as CNY, or the name of points",
    "does not match regex pattern `^[a-z][a-z0-9_-]{0,39}$`": "must be a role's name: a-z, digits, _ and -, beginning with a letter",
}

_validator = protovalidate.Validator()

Request = TypeVar("Request", bound=Message, contravariant=True)
Response = TypeVar("Response", covariant=True)
Item = TypeVar("Item")
Context = grpc.aio.ServicerContext[Any, Any]


class Violations(Malformed):
    """Several fields of one request are malformed: (field path, description) each."""

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        super().__init__(violations[0][0], "; ".join(f"{field}: {problem}" for field, problem in violations))
        self.violations = violations


def validate(message: Message, prefix: str = "") -> None:
    """Checks a message against the rules its .proto states. Raises Violations."""
    found = _validator.collect_violations(message)
    if found:
        raise Violations([(prefix + _path(violation), IN_WORDS.get(text := violation.proto.message, text)) for violation in found])


def _path(violation: protovalidate.Violation) -> str:
    text = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        text += f".{element.field_name}" if text else element.field_name
        subscript = getattr(element, "subscript", None)
        if subscript is not None and getattr(subscript, "field", "") == "index":
            text += f"[{subscript.value}]"
    return text or "request"


def moment(field: str, value: Timestamp) -> int:
    """A time from a request in microseconds. Raises Malformed for what a microsecond or the calendar cannot hold."""
    seconds, nanos = value.seconds, value.nanos
    if nanos % 1000:
        raise Malformed(field, f"{field} has {nanos} nanoseconds; times are taken to the microsecond")
    if not EARLIEST_US <= seconds * 1_000_000 < LATEST_US or not 0 <= nanos < 1_000_000_000:
        raise Malformed(field, f"{field} is not between the years 1 and 8999")
    return seconds * 1_000_000 + nanos // 1000


def status_of(refusal: Refusal) -> status_pb2.Status:
    """The refusal as google.rpc.Status: one ErrorInfo, and BadRequest for malformed input. Long texts and lists are cut short."""
    values = {key: clipped(value, LONGEST_VALUE) for key, value in refusal.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=values)
    details = [_any(info)]
    if isinstance(refusal, Malformed):
        listed = refusal.violations if isinstance(refusal, Violations) else [(refusal.field, str(refusal))]
        bad = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=clipped(field, LONGEST_VALUE), description=clipped(text, LONGEST_VALUE))
                for field, text in listed[:MOST_VIOLATIONS]
            ]
        )
        details.append(_any(bad))
    return status_pb2.Status(code=CODES[refusal.reason].value[0], message=clipped(str(refusal), LONGEST_MESSAGE), details=details)


def clipped(text: str, longest: int) -> str:
    """The text in at most so many bytes of UTF-8; half a surrogate pair, which YAML and JSON may bring, as an escape."""
    encoded = text.encode(errors="backslashreplace")
    return encoded.decode() if len(encoded) <= longest else encoded[: longest - 3].decode(errors="ignore") + "…"


def _any(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


async def abort(context: Context, refusal: Refusal) -> None:
    """Ends the call with a refusal's status and details."""
    status = status_of(refusal)
    await context.abort(CODES[refusal.reason], status.message, (("grpc-status-details-bin", status.SerializeToString()),))


def unary(method: Callable[[Any, Request, Context], Awaitable[Response]]) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Wraps an rpc that takes one message and gives one: it only has to do its work or raise a Refusal."""
    return _answering(method, validate)


def _answering(
    method: Callable[[Any, Request, Context], Awaitable[Response]], check: Callable[[Request], None]
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    @functools.wraps(method)
    async def call(service: Any, request: Request, context: Context) -> Response:
        began = time.perf_counter_ns()
        outcome = "OK"
        try:
            check(request)
            return await method(service, request, context)
        except Refusal as refusal:
            outcome = refusal.reason
            await abort(context, refusal)
            raise AssertionError("abort always raises") from None
        except grpc.aio.AbortError:
            raise
        except (*DATABASE_LOST, psycopg.DataError) as error:
            answer = answer_to(error)
            outcome = answer.reason
            log.warning("rpc.database", rpc=method.__name__, program_id=getattr(request, "program_id", ""), error=type(error).__name__)
            await abort(context, answer)
            raise AssertionError("abort always raises") from None
        except Exception as error:
            outcome = "INTERNAL"
            log.exception("rpc.failed", rpc=method.__name__, program_id=getattr(request, "program_id", ""), error=type(error).__name__)
            await context.abort(grpc.StatusCode.INTERNAL, "an internal error; it has been logged")
            raise AssertionError("abort always raises") from None
        finally:
            _line(method.__name__, request, outcome, began)

    return call


def bidirectional(
    method: Callable[[Any, Request, Context], Awaitable[Callable[[], Awaitable[Response]]]],
) -> Callable[[Any, AsyncIterator[Request], Context], AsyncIterator[Response]]:
    """Wraps an rpc in which each message of the caller gets one answer, with a result for each thing told, in order. The method reads a
    message and gives what records it; while that goes on, the next message is read.

    The first message that fails ends the stream. So does one of which something is to be repeated, once it is answered: what follows may
    rest on it, and keeps its place after it. And so does the service's `stopping`, an event, between two messages.
    """

    @functools.wraps(method)
    async def record(read: Any, _request: Request, _context: Context) -> Response:
        if isinstance(read, Exception):
            raise read
        response: Response = await read()
        return response

    answer = _answering(record, lambda _: None)

    @functools.wraps(method)
    async def call(service: Any, requests: AsyncIterator[Request], context: Context) -> AsyncIterator[Response]:
        messages = aiter(requests)

        async def read() -> tuple[Request, Any] | None:
            try:
                request = await anext(messages)
            except StopAsyncIteration:
                return None
            try:
                validate(request)
                return request, await method(service, request, context)
            except Exception as error:
                # It is for the answer to say, after the answers before it.
                return request, error

        reading = asyncio.create_task(read(), name="reading ahead")
        stopping = asyncio.create_task(service.stopping.wait(), name="stopping")
        try:
            while True:
                await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
                found = reading.result() if reading.done() else None
                if reading.done() and found is None:
                    return
                if found is None or stopping.done():
                    await abort(context, Unavailable("the server is stopping; repeat what was not answered"))
                    raise AssertionError("abort always raises")
                reading = asyncio.create_task(read(), name="reading ahead")
                request, rest = found
                response: Any = await answer(rest, request, context)
                yield response
                if any(result.error.code == TO_BE_REPEATED for result in response.results):
                    await abort(context, Unavailable("of the message before this something is to be repeated; repeat it first"))
        finally:
            reading.cancel()
            stopping.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    return call


def streaming(
    method: Callable[[Any, Request, Context], AsyncIterator[Response]],
) -> Callable[[Any, Request, Context], AsyncIterator[Response]]:
    """Wraps an rpc that takes one message and gives many."""

    @functools.wraps(method)
    async def call(service: Any, request: Request, context: Context) -> AsyncIterator[Response]:
        began = time.perf_counter_ns()
        outcome = "OK"
        try:
            validate(request)
            async for response in method(service, request, context):
                yield response
        except Refusal as refusal:
            outcome = refusal.reason
            await abort(context, refusal)
        except grpc.aio.AbortError:
            raise
        except (*DATABASE_LOST, psycopg.DataError) as error:
            answer = answer_to(error)
            outcome = answer.reason
            log.warning("rpc.database", rpc=method.__name__, program_id=getattr(request, "program_id", ""), error=type(error).__name__)
            await abort(context, answer)
        except Exception as error:
            outcome = "INTERNAL"
            log.exception("rpc.failed", rpc=method.__name__, program_id=getattr(request, "program_id", ""), error=type(error).__name__)
            await context.abort(grpc.StatusCode.INTERNAL, "an internal error; it has been logged")
        finally:
            _line(method.__name__, request, outcome, began)

    return call


def _line(rpc: str, request: Message, outcome: str, began_ns: int) -> None:
    elapsed_us = (time.perf_counter_ns() - began_ns) // 1000
    log.debug("rpc.done", rpc=rpc, program_id=getattr(request, "program_id", ""), outcome=outcome, elapsed_us=elapsed_us)


async def formed(told: Iterable[Item], command_of: Callable[[Item], Any]) -> list[Any]:
    """The command of each, or the Refusal of what is not well formed."""
    found, pace = list[Any](), Pace()
    for one in told:
        await pace.step()
        try:
            found.append(command_of(one))
        except Refusal as refusal:
            found.append(refusal)
    return found


async def recorded(writer: Writer, program_id: str, commands: Sequence[Any], who: str) -> list[Outcome | Refusal]:
    """Submits what is well formed, in order, and answers each for itself."""
    submitted = iter(await writer.submit_all(program_id, [one for one in commands if not isinstance(one, Refusal)], who))
    return [one if isinstance(one, Refusal) else next(submitted) for one in commands]


class Told(NamedTuple):
    """One kind of fact that a service is told: how its request becomes a command, and an outcome its response."""

    command: Callable[[Any], Any]
    response: Callable[[Outcome], Message]


def actor(context: Context) -> str:
    """Who calls, as the `fenrun-actor` metadata says; "anonymous" when it does not."""
    for key, value in context.invocation_metadata() or ():
        if key == "fenrun-actor":
            text = value.decode() if isinstance(value, bytes) else value
            if len(text) > 100 or not text.isprintable():
                raise Malformed("metadata fenrun-actor", "fenrun-actor must be at most 100 printable characters")
            return text
    return "anonymous"


def receipt(outcome: Outcome, entry: Entry) -> Any:
    """The fields of the fenrun.type.v1.Receipt of one entry of an outcome. Within another message they take half the time of one."""
    return {
        "program_id": outcome.program_id,
        "position": entry.position,
        "recorded_at": moment_fields(entry.recorded_us),
        "entry_hash": entry.hash,
        "already_recorded": outcome.repeated,
        "consistency_token": tokens.make(outcome.program_id, entry.position),
    }


async def check_fresh(connection: Connection, program_id: str, consistency: type_pb2.ReadConsistency) -> Head:
    """The head, when it is as fresh as asked. Raises ProgramUnknown, NotFreshEnough, TokenInvalid.

    Inline views are changed in the transaction of the log and read from the same server, so the head is all there is to check.
    """
    now, _ = await asked_for(connection, program_id, consistency)
    return now


async def asked_for(connection: Connection, program_id: str, consistency: type_pb2.ReadConsistency) -> tuple[Head, int]:
    """(head, position that an answer must include; 0: any answer will do). Raises ProgramUnknown, NotFreshEnough, TokenInvalid."""
    now = await head(connection, program_id)
    return now, must_include(program_id, consistency, now.position)


def must_include(program_id: str, consistency: type_pb2.ReadConsistency, head_position: int) -> int:
    """The position that an answer must include; 0: any answer will do. Raises NotFreshEnough, TokenInvalid."""
    if consistency.WhichOneof("requirement") != "at_least_as_fresh":
        return head_position if consistency.fully_consistent else 0
    token_program, position = tokens.parts(consistency.at_least_as_fresh, "consistency.at_least_as_fresh", (str, int))
    assert isinstance(position, int)
    if token_program != program_id:
        raise TokenInvalid("consistency.at_least_as_fresh")
    if position > head_position:
        raise NotFreshEnough(position, head_position)
    return position


def within(position: int, head_position: int) -> int:
    """A position asked for, if the log reaches it. Raises PositionBeyondHead."""
    if position > head_position:
        raise PositionBeyondHead(position, head_position)
    return position


def page_size(asked: int) -> int:
    """Rows on a page: what was asked for, 100 when nothing was."""
    return asked or 100
