"""A stream of messages, each answered: what is read ahead, what waits for its turn, and what ends it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from fenrun.ops.v1 import ops_pb2, ops_pb2_grpc
from google.rpc import status_pb2

from services.runtime.serving import TO_BE_REPEATED, Context, bidirectional

SHORTLY_S = 30.0
Call = Any


class Scripted:
    """Reads and records nothing but the names of programs; `wait` is what recording a program waits for."""

    def __init__(self, **wait: asyncio.Event) -> None:
        self.read: list[str] = []
        self.begun: list[str] = []
        self.recorded: list[str] = []
        self.wait = wait
        self.news = asyncio.Condition()
        self.stopping = asyncio.Event()

    @bidirectional
    async def StreamFacts(
        self, request: ops_pb2.StreamFactsRequest, context: Context
    ) -> Callable[[], Awaitable[ops_pb2.StreamFactsResponse]]:
        await self._note(self.read, request.program_id)

        async def record() -> ops_pb2.StreamFactsResponse:
            await self._note(self.begun, request.program_id)
            if request.program_id in self.wait:
                await self.wait[request.program_id].wait()
            code = TO_BE_REPEATED if request.program_id == "away" else grpc.StatusCode.NOT_FOUND.value[0]
            if code != TO_BE_REPEATED:
                self.recorded.append(request.program_id)
            return ops_pb2.StreamFactsResponse(results=[ops_pb2.FactResult(error=status_pb2.Status(code=code))])

        return record

    async def _note(self, names: list[str], name: str) -> None:
        async with self.news:
            names.append(name)
            self.news.notify_all()

    async def until(self, seen: Callable[[], bool]) -> None:
        async with self.news:
            await self.news.wait_for(seen)


def message(program_id: str) -> ops_pb2.StreamFactsRequest:
    return ops_pb2.StreamFactsRequest(program_id=program_id, facts=[ops_pb2.Fact()])


def told(tell: Callable[[Call, Scripted], Awaitable[None]], *waiting: str) -> Scripted:
    """A service that was told something over a real connection."""

    async def story() -> Scripted:
        service = Scripted(**{name: asyncio.Event() for name in waiting})
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            service.StreamFacts, ops_pb2.StreamFactsRequest.FromString, ops_pb2.StreamFactsResponse.SerializeToString
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("fenrun.ops.v1.OpsService", {"StreamFacts": handler})])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await asyncio.wait_for(tell(ops_pb2_grpc.OpsServiceStub(channel).StreamFacts(), service), SHORTLY_S)
        finally:
            await server.stop(None)
        return service

    return asyncio.run(story())


def test_the_next_message_is_read_while_one_is_recorded_and_recorded_after_it() -> None:
    async def tell(call: Call, service: Scripted) -> None:
        for name in ("a", "b", "c"):
            await call.write(message(name))
        await call.done_writing()
        await service.until(lambda: len(service.read) == 2)
        assert service.recorded == []
        service.wait["a"].set()
        assert len([answer async for answer in call]) == 3

    service = told(tell, "a")
    assert service.read == service.recorded == ["a", "b", "c"]


def test_an_answer_does_not_wait_for_another_message() -> None:
    async def tell(call: Call, service: Scripted) -> None:
        for name in ("a", "b"):
            await call.write(message(name))
            assert (await call.read()).results
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    assert told(tell).recorded == ["a", "b"]


@pytest.mark.parametrize(
    ("second", "answered", "code"),
    [
        pytest.param("a b", ["a"], grpc.StatusCode.INVALID_ARGUMENT, id="what cannot be read is said in its turn"),
        pytest.param("away", ["a", "away"], grpc.StatusCode.UNAVAILABLE, id="what is to be repeated is answered first"),
    ],
)
def test_nothing_is_recorded_after_a_message_that_is_not(second: str, answered: list[str], code: grpc.StatusCode) -> None:
    async def tell(call: Call, service: Scripted) -> None:
        for name in ("a", second, "c"):
            await call.write(message(name))
        await call.done_writing()
        await service.until(lambda: "a" in service.read)
        service.wait["a"].set()
        for _ in answered:
            assert (await call.read()).results
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
        assert ended.value.code() is code

    assert told(tell, "a").recorded == ["a"]


def test_who_leaves_leaves_nothing_to_do() -> None:
    async def tell(call: Call, service: Scripted) -> None:
        await call.write(message("a"))
        await service.until(lambda: service.begun == ["a"])
        assert beside() == {"reading ahead", "stopping"}
        call.cancel()
        while beside():
            await asyncio.sleep(0.01)

    def beside() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()} & {"reading ahead", "stopping"}

    assert told(tell, "a").recorded == []


def test_a_stream_that_is_over_is_not_to_be_repeated_because_the_server_stops() -> None:
    async def tell(call: Call, service: Scripted) -> None:
        await call.write(message("a"))
        await call.done_writing()
        await service.until(lambda: service.begun == ["a"])
        while "reading ahead" in {task.get_name() for task in asyncio.all_tasks()}:
            await asyncio.sleep(0.01)
        service.stopping.set()
        service.wait["a"].set()
        assert (await call.read()).results
        assert await call.read() is grpc.aio.EOF

    assert told(tell, "a").recorded == ["a"]


@pytest.mark.parametrize("told_before", [0, 1, 2])
def test_a_server_that_stops_ends_a_stream_once_what_it_records_is_answered(told_before: int) -> None:
    async def tell(call: Call, service: Scripted) -> None:
        names = ["a", "b"][:told_before]
        for name in names:
            await call.write(message(name))
        await service.until(lambda: (service.read, service.begun) == (names, names[:1]))
        service.stopping.set()
        for name in names:
            service.wait[name].set()
        answers = [await call.read() for _ in names[:1]]
        assert all(answer.results for answer in answers)
        with pytest.raises(grpc.aio.AioRpcError, match="the server is stopping") as ended:
            await call.read()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE

    assert told(tell, "a", "b").recorded == ["a", "b"][: min(told_before, 1)]
