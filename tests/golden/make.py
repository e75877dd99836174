"""Writes the golden history of the current version: `python -m tests.golden.make NAME`. A history once committed is never made again.

It plays a story that reaches every type of entry through gRPC, then keeps the entries as they are stored and every row of every view.
"""

import json
import sys
import tempfile
from pathlib import Path

import grpc
import psycopg
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2

from services import composition
from services.ledger.projection import VIEWS as LEDGER_VIEWS
from services.ops.projections import live_rows
from services.referral.projection import VIEWS as REFERRAL_VIEWS
from services.runtime.settings import Settings
from tests.given import Client, day, line, money

HERE = Path(__file__).resolve().parent
PLANS = [
    """
plan: golden
version: 1
currency: GBP
tiers: [member, manager, director]
effective: {from: "2025-01-01T00:00:00Z", until: "2026-02-01T00:00:00Z"}
binding: {touch: last, on_full_refund: release}
release: {days: 7}
rules:
  - {id: own, kind: self, rates: {manager: 1.25%, director: 2%}}
  - {id: first, kind: generation, generation: 1, rate: 10%, when: {kinds: [goods, gift_pack], categories: [tea]}}
  - {id: second, kind: generation, generation: 2, rates: {member: 3%, manager: 5%}, release: {days: 14}}
""",
    """
plan: golden
version: 2
currency: GBP
tiers: [member, manager, director]
effective: {from: "2026-01-20T00:00:00Z"}
rules:
  - {id: first, kind: generation, generation: 1, rate: 12.345678901%}
""",
]


def play(client: Client) -> None:
    """Every type of entry, every account, both plan versions, the awkward corners."""
    for document in PLANS:
        client.publish(document)
    for member, referrer in (("ann", ""), ("bob", "ann"), ("cho", "bob"), ("dee", ""), ("eve", "dee")):
        client.enroll(member, referrer)
    client.touch("t1", "cho", "dee")
    client.touch("t2", "cho", "bob")
    client.upgrade("u1", "bob", "manager")
    client.upgrade("u2", "ann", "member")
    tea = {"category": "tea", "sku": "A1"}
    client.order("o1", "cho", line(1, 3335, 3, **tea), line(2, 8996, 2, **tea), line(3, 1000, 1, kind=log_pb2.LINE_KIND_FEE), at=2)
    client.touch("t3", "cho", "dee", at=3)
    client.refund("r1", "o1", (1, 1, 1112), at=3)
    client.complete("o1", at=4)
    client.refund("r2", "o1", (1, 1, 1112), (2, 0, 1), at=5)
    client.ledger.PlaceHold(lp.PlaceHoldRequest(program_id=client.program_id, hold_id="h1", member_id="bob", reason="?", placed_at=day(6)))
    client.ledger.PlaceHold(lp.PlaceHoldRequest(program_id=client.program_id, hold_id="h2", order_id="o1", reason="?", placed_at=day(6)))
    client.ledger.LiftHold(lp.LiftHoldRequest(program_id=client.program_id, hold_id="h2", reason="!", lifted_at=day(7)))
    client.release(30)
    client.ledger.LiftHold(lp.LiftHoldRequest(program_id=client.program_id, hold_id="h1", reason="!", lifted_at=day(31)))
    client.release(31)
    client.payout("p1", "bob", 400, at=32)
    client.payout("p2", "bob", 100, at=32)
    client.confirm("p1", at=33)
    client.refund("r3", "o1", (1, 1, 1111), (2, 2, 8995), at=34)
    fail = lp.FailPayoutRequest(program_id=client.program_id, payout_id="p2", reason="account closed", failed_at=day(35))
    client.ledger.FailPayout(fail)
    for number, (kind, amount) in enumerate(
        (
            (log_pb2.ADJUSTMENT_KIND_CORRECTION, 50),
            (log_pb2.ADJUSTMENT_KIND_WRITE_OFF, 20),
            (log_pb2.ADJUSTMENT_KIND_CORRECTION, -30),
        )
    ):
        client.ledger.PostAdjustment(
            lp.PostAdjustmentRequest(
                program_id=client.program_id,
                adjustment_id=f"j{number}",
                member_id="bob",
                kind=kind,
                amount=money(amount),
                reason="goodwill",
                requested_by="ann",
                approved_by="zed",
                posted_at=day(36),
            )
        )
    client.correct("c1", "bob", "dee", at=37)
    client.order("o2", "cho", line(1, 99_999), at=40)
    client.order("o3", "eve", line(1, 5000, 1, **tea), at=2)
    client.refund("r1", "o3", (1, 1, 5000), at=41)
    client.order("o4", "eve", line(1, 0), at=42)


def main(version: str) -> None:
    directory = HERE / version
    directory.mkdir()
    with tempfile.TemporaryDirectory() as data, composition.start(Settings(dsn=None, data_dir=Path(data) / "data")) as server:
        with grpc.insecure_channel(server.address) as channel:
            client = Client.of_new_program(channel, "golden")
            play(client)
            assert client.differences() == []
            entries = client.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id="golden", page_size=1000)).entries
        with psycopg.connect(server.dsn) as connection:
            rows = {
                view.name: sorted([*key, *rest] for key, rest in live_rows(connection, "golden", view))
                for view in (*LEDGER_VIEWS, *REFERRAL_VIEWS)
            }
    with (directory / "entries.hex").open("w", encoding="ascii") as file:
        file.writelines(entry.SerializeToString(deterministic=True).hex() + "\n" for entry in entries)
    (directory / "views.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
