"""StatisticsService over gRPC: every read waits until the figures are as fresh as asked, and says the position they are of."""

import contextlib
from collections.abc import AsyncIterator

from fenrun.statistics.v1 import statistics_pb2 as pb
from fenrun.statistics.v1 import statistics_pb2_grpc
from fenrun.type.v1 import type_pb2

from services.kernel.refusals import Malformed
from services.runtime import eventlog
from services.runtime.eventlog import Connection
from services.runtime.following import Awaiting, reached
from services.runtime.serving import Context, asked_for, page_size, unary
from services.runtime.writer import Connect
from services.statistics import views
from services.statistics.projection import NAME


class StatisticsTransport(statistics_pb2_grpc.StatisticsServiceServicer):
    def __init__(self, connect: Connect, follower: Awaiting) -> None:
        self._connect = connect
        self._follower = follower

    @contextlib.asynccontextmanager
    async def _at(self, program_id: str, consistency: type_pb2.ReadConsistency) -> AsyncIterator[tuple[Connection, int]]:
        """A snapshot to read from and its position, at least as fresh as asked. Raises ProgramUnknown, NotFreshEnough, TokenInvalid."""
        async with self._connect() as connection:
            _, asked = await asked_for(connection, program_id, consistency)
        if asked:
            await self._follower.await_position(NAME, program_id, asked)
        async with self._connect() as connection, eventlog.snapshot(connection):
            yield connection, await reached(connection, NAME, program_id)

    @unary
    async def ListLeaderboard(self, request: pb.ListLeaderboardRequest, context: Context) -> pb.ListLeaderboardResponse:
        for field in ("rule_id", "asset"):
            if getattr(request, field) and request.board != pb.BOARD_INCOME:
                raise Malformed(field, f"{field} goes with the board INCOME alone")
        async with self._at(request.program_id, request.consistency) as (connection, position):
            limit = page_size(request.limit)
            places = await views.leaderboard(
                connection, request.program_id, request.board, request.month, request.rule_id, request.asset, limit
            )
        return pb.ListLeaderboardResponse(position=position, places=places)

    @unary
    async def GetMemberStatistics(self, request: pb.GetMemberStatisticsRequest, context: Context) -> pb.GetMemberStatisticsResponse:
        async with self._at(request.program_id, request.consistency) as (connection, position):
            in_all, months = await views.member(connection, request.program_id, request.member_id)
        return pb.GetMemberStatisticsResponse(position=position, member_id=request.member_id, in_all=in_all, months=months)

    @unary
    async def ListCohorts(self, request: pb.ListCohortsRequest, context: Context) -> pb.ListCohortsResponse:
        async with self._at(request.program_id, request.consistency) as (connection, position):
            cohorts = await views.cohorts(connection, request.program_id)
        return pb.ListCohortsResponse(position=position, cohorts=cohorts)
