"""OpsService over gRPC: programs, the raw log, projections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2 as pb
from fenrun.ops.v1 import ops_pb2_grpc

from services.kernel.decider import Draft
from services.kernel.refusals import IdReused, Malformed, Refusal, TokenInvalid, Unavailable
from services.ops import projections
from services.ops.projections import Registered, Result
from services.runtime import eventlog, tokens
from services.runtime.eventlog import Connection
from services.runtime.replaying import Progress, Sync, Threads
from services.runtime.serving import (
    Context,
    Told,
    actor,
    bidirectional,
    check_fresh,
    formed,
    page_size,
    recorded,
    status_of,
    streaming,
    unary,
    validate,
    within,
)
from services.runtime.stored import entry_message, timestamp
from services.runtime.watching import Watchers
from services.runtime.writer import Connect, Writer

WATCH_CHUNK = 500
# Clients take messages of 4 MiB unless told otherwise.
LARGEST_PAGE_BYTES = 2 * 1024 * 1024
# A log of so many entries is folded in a process of its own: as long as a thread folds, callers wait for it by turns, and what it takes of
# memory a server does not give back. To begin a process takes longer than to fold a shorter one.
LONG = 20_000
# Appends of other processes are found by looking; our own wake the watchers at once.
WATCH_POLL_S = 0.2


class OpsTransport(ops_pb2_grpc.OpsServiceServicer):
    def __init__(
        self,
        connect: Connect,
        dsn: str,
        writer: Writer,
        registered: Sequence[Registered],
        facts: Mapping[str, Told],
        watchers: Watchers,
        now_us: Callable[[], int],
        beside: bool,
    ) -> None:
        """`beside`: long logs are folded in a process of their own."""
        self._connect = connect
        self._writer = writer
        self._registered = registered
        self._facts = facts
        self._watchers = watchers
        self.stopping = watchers.stopping
        self._now_us = now_us
        self._beside = beside
        self._threads = Threads(dsn, "fenrun-projections")

    @unary
    async def CreateProgram(self, request: pb.CreateProgramRequest, context: Context) -> pb.CreateProgramResponse:
        now_us = self._now_us()
        fact = log_pb2.ProgramCreated(currency=request.currency).SerializeToString(deterministic=True)
        draft = Draft(f"program/{request.program_id}", None, None, now_us)
        before = eventlog.beginning(request.program_id, request.currency)
        first = eventlog.store(before, draft, 1, ("program.created.v1", fact, b""), actor(context), now_us)
        async with self._connect() as connection:
            created = await eventlog.create_program(connection, first, request.currency)
            recorded = (await eventlog.head(connection, request.program_id)).currency
            [stored] = await eventlog.at(connection, request.program_id, [1])
        if recorded != request.currency:
            raise IdReused(f"program {request.program_id!r}", 1, "currency", recorded, request.currency)
        response = pb.CreateProgramResponse()
        response.receipt.program_id = stored.program_id
        response.receipt.position = 1
        response.receipt.recorded_at.CopyFrom(timestamp(stored.recorded_us))
        response.receipt.entry_hash = stored.hash
        response.receipt.already_recorded = not created
        response.receipt.consistency_token = tokens.make(stored.program_id, 1)
        return response

    @unary
    async def RecordFacts(self, request: pb.RecordFactsRequest, context: Context) -> pb.RecordFactsResponse:
        record = await self._record(request.program_id, request.facts, actor(context))
        return pb.RecordFactsResponse(results=await record())

    @bidirectional
    async def StreamFacts(self, request: pb.StreamFactsRequest, context: Context) -> Callable[[], Awaitable[pb.StreamFactsResponse]]:
        record = await self._record(request.program_id, request.facts, actor(context))

        async def answer() -> pb.StreamFactsResponse:
            return pb.StreamFactsResponse(results=await record())

        return answer

    async def _record(self, program_id: str, facts: Iterable[pb.Fact], who: str) -> Callable[[], Awaitable[list[pb.FactResult]]]:
        """Reads facts; gives what submits those that are well formed, in order, and answers each as its own rpc would."""
        kinds = [fact.WhichOneof("fact") or "" for fact in facts]
        commands = await formed(zip(kinds, facts, strict=True), lambda told: self._command(program_id, *told))

        async def record() -> list[pb.FactResult]:
            results = []
            for kind, answer in zip(kinds, await recorded(self._writer, program_id, commands, who), strict=True):
                if isinstance(answer, Refusal):
                    results.append(pb.FactResult(error=status_of(answer)))
                else:
                    responses: dict[str, Any] = {kind: self._facts[kind].response(answer)}
                    results.append(pb.FactResult(**responses))
            return results

        return record

    def _command(self, program_id: str, kind: str, fact: pb.Fact) -> object:
        if kind not in self._facts:
            validate(fact)
            raise Malformed(kind, f"{kind} is not served here")
        request = getattr(fact, kind)
        if request.program_id and request.program_id != program_id:
            raise Malformed(f"{kind}.program_id", f"is {request.program_id!r}, the call is about {program_id!r}")
        request.program_id = program_id
        validate(request, f"{kind}.")
        return self._facts[kind].command(request)

    @unary
    async def GetProgram(self, request: pb.GetProgramRequest, context: Context) -> pb.GetProgramResponse:
        async with self._connect() as connection:
            head = await eventlog.head(connection, request.program_id)
        return pb.GetProgramResponse(
            program_id=head.program_id,
            currency=head.currency,
            head_position=head.position,
            head_hash=head.hash,
            consistency_token=tokens.make(head.program_id, head.position),
        )

    @unary
    async def ReadEntries(self, request: pb.ReadEntriesRequest, context: Context) -> pb.ReadEntriesResponse:
        after, limit = request.after_position, page_size(request.page_size)
        if request.page_token:
            call, stream, last = tokens.parts(request.page_token, "page_token", (str, str, int))
            if (call, stream) != ("entries", request.stream):
                raise TokenInvalid("page_token")
            after = int(last)
        async with self._connect() as connection:
            await check_fresh(connection, request.program_id, request.consistency)
            messages, more = await self._messages(connection, request.program_id, after, limit, request.stream)
        token = tokens.make("entries", request.stream, messages[-1].position) if more else ""
        return pb.ReadEntriesResponse(entries=messages, next_page_token=token)

    async def _messages(
        self, connection: Connection, program_id: str, after: int, limit: int, stream: str = ""
    ) -> tuple[list[log_pb2.Entry], bool]:
        """Up to `limit` entries, fewer where they are large, and whether there may be more."""
        found = await eventlog.read(connection, program_id, after, limit, stream)
        more, size = len(found) == limit, 0
        for count, stored in enumerate(found):
            size += len(stored.fact) + len(stored.decision) + 300
            if size > LARGEST_PAGE_BYTES and count:
                found, more = found[:count], True
                break
        hashes = {stored.position: stored.hash for stored in found}
        before = [stored.position - 1 for stored in found if stored.position > 1 and stored.position - 1 not in hashes]
        if before:
            hashes |= {stored.position: stored.hash for stored in await eventlog.at(connection, program_id, before)}
        return [entry_message(stored, hashes.get(stored.position - 1, bytes(32))) for stored in found], more

    @streaming
    async def WatchEntries(self, request: pb.WatchEntriesRequest, context: Context) -> AsyncIterator[pb.WatchEntriesResponse]:
        after = request.after_position
        async with self._connect() as connection:
            within(after, (await eventlog.head(connection, request.program_id)).position)
        news = self._watchers.join(request.program_id)
        try:
            while True:
                if self._watchers.stopping.is_set():
                    raise Unavailable("the server is stopping; watch again from the last position seen")
                news.clear()
                async with self._connect() as connection:
                    messages, _ = await self._messages(connection, request.program_id, after, WATCH_CHUNK)
                if messages:
                    after = messages[-1].position
                    yield pb.WatchEntriesResponse(entries=messages)
                    continue
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), WATCH_POLL_S)
        finally:
            self._watchers.leave(request.program_id, news)

    @unary
    async def ListProjections(self, request: pb.ListProjectionsRequest, context: Context) -> pb.ListProjectionsResponse:
        async with self._connect() as connection:
            await eventlog.head(connection, request.program_id)
        kept = await self._threads.run(lambda sync: projections.kept(sync, request.program_id, self._registered))
        return pb.ListProjectionsResponse(
            projections=[
                pb.Projection(
                    name=one.view,
                    inline=not one.followed_as,
                    position=one.position,
                    rows=one.rows,
                    followed_as=one.followed_as,
                    quarantined_count=one.quarantined_count,
                    quarantined=[pb.QuarantinedEntry(position=position, error=error) for position, error in one.quarantined],
                )
                for one in kept
            ]
        )

    @streaming
    async def VerifyProjections(
        self, request: pb.VerifyProjectionsRequest, context: Context
    ) -> AsyncIterator[pb.VerifyProjectionsResponse]:
        given = (request.program_id, self._registered, tuple(request.projections))
        beside = await self._is_long(request.program_id)

        def work(sync: Sync, progress: Callable[[int, int], None]) -> list[Result]:
            return projections.verify(sync, *given, progress)

        following = self._threads.follow_beside(projections.verify, given) if beside else self._threads.follow(work)
        async with contextlib.aclosing(following) as steps:
            async for step in steps:
                if isinstance(step, Progress):
                    progress = pb.VerificationProgress(position=step.position, head_position=step.head_position)
                    yield pb.VerifyProjectionsResponse(progress=progress)
                    continue
                for result in step:
                    yield pb.VerifyProjectionsResponse(
                        result=pb.VerificationResult(
                            projection=result.projection,
                            position=result.position,
                            equal=result.equal,
                            rows=result.rows,
                            differences=result.differences,
                            quarantined_count=result.quarantined_count,
                        )
                    )

    async def _is_long(self, program_id: str) -> bool:
        """Whether a log is folded in a process of its own."""
        if not self._beside:
            return False
        async with self._connect() as connection:
            return (await eventlog.head(connection, program_id)).position >= LONG

    @unary
    async def RebuildProjection(self, request: pb.RebuildProjectionRequest, context: Context) -> pb.RebuildProjectionResponse:
        given = (request.program_id, self._registered, request.projection)
        if await self._is_long(request.program_id):
            position, rows, replaced = await self._threads.run_beside(projections.rebuild, given)
        else:
            position, rows, replaced = await self._threads.run(lambda sync: projections.rebuild(sync, *given))
        return pb.RebuildProjectionResponse(position=position, rows=rows, rows_replaced=replaced)
