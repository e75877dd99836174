"""Two servers that write to the same programs by turns: each takes in what the other appended, and decides as one server would."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import grpc
import pytest

from services import composition
from services.runtime.settings import Settings
from services.runtime.writer import Writer
from tests.given import TWO_LEVEL, Client, line
from tests.ledger.stories import tell_stories


class ByTurns:
    """A channel that leads to one of several servers, drawn for each call; streams too."""

    def __init__(self, channels: list[grpc.Channel], name: str) -> None:
        self._channels, self._dice = channels, Random(name)

    def __getattr__(self, kind: str) -> Any:
        def calls(*arguments: Any, **options: Any) -> Any:
            stubs = [getattr(channel, kind)(*arguments, **options) for channel in self._channels]
            return lambda *told, **more: self._dice.choice(stubs)(*told, **more)

        return calls


@pytest.fixture(scope="module")
def second(dsn: str) -> Iterator[grpc.Channel]:
    """Another server of the same database."""
    with composition.start(Settings(dsn=dsn)) as running, grpc.insecure_channel(running.address) as channel:
        yield channel


@pytest.fixture
def caught_up(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each time that a writer found others' entries behind what it remembered: whether it took them in."""
    found: list[bool] = []
    original = Writer._caught_up

    async def watched(self: Writer, *arguments: Any) -> Any:
        known = await original(self, *arguments)
        found.append(known is not None)
        return known

    monkeypatch.setattr(Writer, "_caught_up", watched)
    return found


def test_stories_told_to_two_servers_by_turns_are_those_of_one(
    channel: grpc.Channel, second: grpc.Channel, fresh_program_id: Callable[[], str], caught_up: list[bool]
) -> None:
    """Whatever can be told, refused facts among it: every answer is the oracle's, and a replay finds what stands there."""
    both: Any = ByTurns([channel, second], "by turns")
    for client, _ in tell_stories(both, fresh_program_id, "two servers", 6):
        assert client.differences() == []
    assert caught_up.count(True) > 100, "they write by turns, and remember"


def test_what_the_other_server_told_counts_at_once(client: Client, second: grpc.Channel, caught_up: list[bool]) -> None:
    """Of people whom this server remembers: a lock that fell, a correction, a tier, somebody new above; and an order told to both."""
    other = Client.of(second, client.program_id)
    client.publish(TWO_LEVEL.replace("rate: 10%", "rates: {manager: 10%}").replace("rate: 5%", "rates: {manager: 5%}"))
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B"), ("D", "")):
        client.enroll(member, referrer)
    client.upgrade("u1", "B", "manager")

    def earned(recorded: Any) -> dict[str, int]:
        return {one.member_id: one.amount.minor_units for one in recorded.earnings}

    assert earned(client.order("O1", "C", line(1, 10_000))) == {"B": 1000}
    assert earned(other.order("O2", "C", line(1, 10_000))) == {"B": 1000}
    other.upgrade("u2", "A", "manager")
    assert earned(client.order("O3", "C", line(1, 10_000))) == {"B": 1000, "A": 500}
    other.enroll("E", "")
    other.upgrade("u3", "E", "manager")
    other.correct("c1", "C", "E")
    assert earned(client.order("O4", "C", line(1, 10_000))) == {"E": 1000}
    assert client.order("O2", "C", line(1, 10_000)).receipt.already_recorded
    assert other.order("O4", "C", line(1, 10_000)).receipt.already_recorded
    assert earned(other.order("O5", "D", line(1, 10_000))) == {}
    assert earned(client.order("O6", "C", line(1, 10_000))) == {"E": 1000}
    assert caught_up and all(caught_up)
    assert client.differences() == []
