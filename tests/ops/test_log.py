"""The raw log over gRPC, and the projections made from it: read, watch, verify, rebuild."""

import asyncio
import threading
from typing import Any

import grpc
import psycopg
import pytest
from fenrun.ops.v1 import ops_pb2 as op

from services import composition
from services.kernel.chain import entry_hash
from services.ops import projections, transport
from services.ops.projections import Registered
from services.runtime import replaying
from services.runtime.settings import Settings
from services.statistics import codec, projection
from tests.given import Client, line, reason


@pytest.fixture
def shop(client: Client) -> Client:
    client.publish()
    for member, referrer in (("A", ""), ("B", "A"), ("C", "B")):
        client.enroll(member, referrer)
    for number in range(5):
        client.order(f"o{number}", "C", line(1, 1000 + number))
    client.complete("o1")
    return client


def read(client: Client, **more: Any) -> op.ReadEntriesResponse:
    return client.ops.ReadEntries(op.ReadEntriesRequest(program_id=client.program_id, **more))


def test_entries_come_in_pages_and_chain(shop: Client) -> None:
    """Anybody can recompute every hash from what the API shows."""
    entries: list[Any] = []
    token = ""
    while True:
        page = read(shop, page_size=4, page_token=token)
        entries += page.entries
        token = page.next_page_token
        if not token:
            break
    assert [entry.position for entry in entries] == list(range(1, 12))
    previous = bytes(32)
    for e in entries:
        assert e.previous_hash == previous
        times = (e.occurred_at.ToMicroseconds(), e.recorded_at.ToMicroseconds())
        previous = entry_hash(previous, e.program_id, e.position, e.stream, e.stream_version, e.type, *times, e.actor, e.fact, e.decision)
        assert e.hash == previous


def test_one_stream_can_be_read_alone(shop: Client) -> None:
    assert [entry.type for entry in read(shop, stream="order/o1").entries] == ["order.paid.v1", "order.completed.v1"]


def test_a_watch_shows_the_past_then_each_new_entry_and_is_resumed_where_it_broke(shop: Client) -> None:
    seen: list[int] = []
    for _ in range(2):
        after = seen[-1] if seen else 0
        call = shop.ops.WatchEntries(op.WatchEntriesRequest(program_id=shop.program_id, after_position=after), timeout=20)
        expected = read(shop, page_size=1000).entries[-1].position + 3
        writer = threading.Thread(target=lambda base=expected: [shop.order(f"new-{base}-{n}", "C", line(1, 1)) for n in range(3)])
        writer.start()
        for answer in call:
            seen += [entry.position for entry in answer.entries]
            if seen[-1] >= expected:
                break
        call.cancel()
        writer.join()
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == 11 + 6


def test_a_watch_from_beyond_the_head_is_refused(shop: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(shop.ops.WatchEntries(op.WatchEntriesRequest(program_id=shop.program_id, after_position=999)))
    assert reason(caught.value)[:2] == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_BEYOND_HEAD")


def test_a_program_opens_once(shop: Client) -> None:
    again = shop.ops.CreateProgram(op.CreateProgramRequest(program_id=shop.program_id, currency="GBP"))
    assert (again.receipt.already_recorded, again.receipt.position) == (True, 1)
    with pytest.raises(grpc.RpcError) as caught:
        shop.ops.CreateProgram(op.CreateProgramRequest(program_id=shop.program_id, currency="USD"))
    assert reason(caught.value)[1:] == (
        "ID_REUSED",
        {"id": f"program '{shop.program_id}'", "position": "1", "field": "currency", "recorded": "GBP", "given": "USD"},
    )


SPOILS = [
    (
        "ledger.balances",
        "update ledger.balances set pending = pending + 1, accrued = accrued + 1 where program_id = %s and member_id = 'B'",
    ),
    ("ledger.balances", "delete from ledger.balances where program_id = %s and member_id = 'B'"),
    (
        "ledger.balance_history",
        "update ledger.balance_history set pending = pending + 1, accrued = accrued + 1 where program_id = %s and position = 6",
    ),
    ("ledger.balance_history", "delete from ledger.balance_history where program_id = %s and position = 7"),
    (
        "ledger.balance_history",
        "insert into ledger.balance_history"
        " select program_id, member_id, asset, position + 1000000, pending, available, reserved, paid, debt, accrued, reversed, adjusted"
        " from ledger.balance_history where program_id = %s and position = 6",
    ),
    ("ledger.company", "update ledger.company set balance = balance + 5 where program_id = %s"),
    ("ledger.members", "insert into ledger.members values (%s, 'ghost', '', 0, false, '', 0, 0)"),
    ("ledger.due", "update ledger.due set amount_minor = amount_minor + 1 where program_id = %s"),
    ("ledger.holds", "insert into ledger.holds values (%s, 'ghost', 'A', '')"),
    ("referral.members", "update referral.members set referrer_id = 'C' where program_id = %s and member_id = 'B'"),
    ("referral.binding_events", "delete from referral.binding_events where program_id = %s and member_id = 'A'"),
]


@pytest.mark.parametrize(("projection", "spoil"), SPOILS, ids=[f"{name}-{sql.split()[0]}" for name, sql in SPOILS])
def test_a_spoiled_view_is_found_and_rebuilt_and_the_old_rows_kept(shop: Client, dsn: str, projection: str, spoil: str) -> None:
    """Only the spoiled projection differs; after the rebuild none does, and writers go on as before."""
    with psycopg.connect(dsn) as connection:
        changed = connection.execute(spoil.encode(), [shop.program_id]).rowcount
    assert changed > 0
    assert {difference.split(":")[0] for difference in shop.differences()} == {projection}
    rebuilt = shop.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection=projection))
    assert rebuilt.rows_replaced == changed
    assert shop.differences() == []
    with psycopg.connect(dsn) as connection:
        kept = connection.execute("select count(*) from fenrun.replaced_rows where program_id = %s", [shop.program_id]).fetchone()
    assert kept == (0 if spoil.startswith("delete") else changed,)
    shop.order("later", "C", line(1, 5000))
    assert shop.differences() == []


def test_what_is_wrong_with_the_history_is_the_same_however_few_entries_are_folded_at_a_time(
    shop: Client, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong, missing, before the first entry, beyond the last, and in between where no entry moved anything."""
    with psycopg.connect(dsn) as connection:
        for change in (
            "update ledger.balance_history set pending = pending + 1, accrued = accrued + 1 where program_id = %s and position = 6",
            "delete from ledger.balance_history where program_id = %s and position = 9 and member_id = 'B'",
            *(
                "insert into ledger.balance_history select program_id, member_id, asset, "
                f"{position}, pending, available, reserved, paid, debt, accrued, reversed, adjusted"
                " from ledger.balance_history where program_id = %s and position = 8 and member_id = 'B'"
                for position in (0, 3, 2_000_000)
            ),
        ):
            assert connection.execute(change.encode(), [shop.program_id]).rowcount > 0
    at_once = sorted(shop.differences())
    assert len(at_once) >= 5
    for chunk in (1, 2, 3):
        monkeypatch.setattr(replaying, "CHUNK", chunk)
        monkeypatch.setattr(projections, "CHUNK", chunk)
        assert sorted(shop.differences()) == at_once


def test_a_rebuild_corrects_a_server_that_remembers_the_spoiled_row(shop: Client, dsn: str) -> None:
    """The server has loaded a wrong referrer and pays by it; once the view is rebuilt it pays the right one, though nothing came."""
    shop.enroll("ghost")
    # Of what was known of C nothing is kept across a release, which looks at everything.
    shop.release(as_of=3)
    with psycopg.connect(dsn) as connection:
        connection.execute("update ledger.members set referrer_id = 'ghost' where program_id = %s and member_id = 'C'", [shop.program_id])

    def paid(order_id: str) -> list[str]:
        return [earning.member_id for earning in shop.order(order_id, "C", line(1, 1000)).earnings]

    assert paid("spoiled") == ["ghost"]
    shop.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection="ledger.members"))
    assert paid("rebuilt") == ["B"]
    assert shop.differences() == []


def test_a_changed_entry_is_found_by_the_chain(shop: Client, dsn: str) -> None:
    """Only somebody who takes the trigger away can change an entry; the replay names the position."""
    with psycopg.connect(dsn) as connection:
        connection.execute("alter table fenrun.entries disable trigger entries_are_for_ever")
        connection.execute("update fenrun.entries set actor = 'mallory' where program_id = %s and position = 8", [shop.program_id])
        connection.execute("alter table fenrun.entries enable trigger entries_are_for_ever")
    differences = shop.differences()
    assert len(differences) == 1
    assert differences[0].startswith("log: position 8: hash")


def test_an_entry_that_skips_a_version_of_its_stream_is_named(shop: Client, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("alter table fenrun.entries disable trigger entries_are_for_ever")
        skipping = "update fenrun.entries set stream_version = 3 where program_id = %s and stream = 'order/o1' and stream_version = 2"
        assert connection.execute(skipping, [shop.program_id]).rowcount == 1
        connection.execute("alter table fenrun.entries enable trigger entries_are_for_ever")
    hashed, numbered = shop.differences()
    assert hashed.startswith("log: position 11: hash")
    assert numbered == "log: position 11: order/o1 has version 3, expected 2"


def test_a_stream_that_is_left_out_is_not_read_again(shop: Client, dsn: str) -> None:
    service = Registered(codec.read, projection.folding, projection.VIEWS, projection.NAME, True)
    with psycopg.connect(dsn) as connection:
        found = [projections.first_of(connection, shop.program_id, service, left_out)("order/o1") for left_out in ({6}, {7})]
        assert [entry and (entry.position, entry.fact.buyer_id) for entry in found] == [(7, "C"), None]
        assert projections.first_of(connection, shop.program_id, service, ())("order/none") is None


def test_a_long_log_is_folded_in_a_process_of_its_own(shop: Client, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a thread: what is wrong is found and rebuilt, what is not there is named."""
    monkeypatch.setattr(transport, "LONG", 1)
    monkeypatch.setattr(replaying.Threads, "run", lambda *_: pytest.fail("a thread folds it"))
    with psycopg.connect(dsn) as connection:
        connection.execute("update ledger.company set balance = balance + 5 where program_id = %s", [shop.program_id])

    def story(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            beside = Client.of(channel, shop.program_id)
            wrong = beside.differences()
            assert {difference.split(":")[0] for difference in wrong} == {"ledger.company"}
            steps = beside.ops.VerifyProjections(op.VerifyProjectionsRequest(program_id=shop.program_id))
            progress = [(step.progress.position, step.progress.head_position) for step in steps if step.HasField("progress")]
            assert progress == [(11, 11)]
            rebuilt = beside.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection="ledger.company"))
            assert rebuilt.rows_replaced == len(wrong)
            assert beside.differences() == []
            rebuild = op.RebuildProjectionRequest(program_id=shop.program_id, projection="x")
            verify = op.VerifyProjectionsRequest(program_id=shop.program_id, projections=["x"])
            nowhere = op.VerifyProjectionsRequest(program_id="nowhere")
            for ask, expected in (
                (lambda: beside.ops.RebuildProjection(rebuild), "PROJECTION_UNKNOWN"),
                (lambda: list(beside.ops.VerifyProjections(verify)), "PROJECTION_UNKNOWN"),
                (lambda: list(beside.ops.VerifyProjections(nowhere)), "PROGRAM_UNKNOWN"),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    ask()
                assert reason(caught.value)[1] == expected

    async def serve() -> None:
        async with composition.server(Settings(dsn=dsn), dsn, "127.0.0.1:0", beside=True) as address:
            await asyncio.to_thread(story, address)

    asyncio.run(serve())


def test_a_fact_that_does_not_read_any_more_is_named_by_its_position(shop: Client, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("alter table fenrun.entries disable trigger entries_are_for_ever")
        connection.execute("update fenrun.entries set fact = '\\xff' where program_id = %s and position = 8", [shop.program_id])
        connection.execute("alter table fenrun.entries enable trigger entries_are_for_ever")
    found = [difference for difference in shop.differences() if difference.startswith("log: position 8")]
    assert "hash" in found[0]
    assert "order.paid.v1 cannot be folded: DecodeError" in found[1]


def test_projections_are_listed_with_their_rows(shop: Client) -> None:
    found = shop.ops.ListProjections(op.ListProjectionsRequest(program_id=shop.program_id)).projections
    assert {one.name: one.rows for one in found}["ledger.members"] == 3
    inline = [one for one in found if one.inline]
    assert {one.position for one in inline} == {11}
    assert {one.name.split(".")[0] for one in inline} == {"ledger", "referral"}


def test_an_unknown_projection_is_named(shop: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shop.ops.RebuildProjection(op.RebuildProjectionRequest(program_id=shop.program_id, projection="log"))
    assert reason(caught.value)[1] == "PROJECTION_UNKNOWN"


def test_the_service_acts_as_the_role_that_cannot_change_the_log(server: composition.RunningServer) -> None:
    with psycopg.connect(composition.service_dsn(server.dsn)) as connection:
        row = connection.execute("select current_user").fetchone()
        assert row == (composition.SERVICE_ROLE,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("update fenrun.entries set actor = 'mallory'")
