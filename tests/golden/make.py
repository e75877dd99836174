"""Writes a golden history of the current version: `python -m tests.golden.make NAME STORY…`. A history once committed is never made again.

It plays stories through gRPC, then keeps the entries as they are stored and every row of every view. Together the histories reach every
type of entry: v1 was made of `plain`, v2 of `plain schemes`, v3 of `sealing`, v4 of `names`, v5 of `instants` by engine 1, and v6 of the
same by engine 2. With names their keys are kept.
"""

import base64
import json
import secrets
import sys
import tempfile
from pathlib import Path

import grpc
import psycopg
from fenrun.ledger.v1 import ledger_pb2 as lp
from fenrun.log.v1 import log_pb2
from fenrun.ops.v1 import ops_pb2
from pydantic import SecretStr

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
    """Orders and all that follows on them, every account of theirs, both plan versions, the awkward corners."""
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


SCHEMES = """
plan: schemes
version: 1
currency: GBP
tiers: [member, manager, director]
points: [points]
zone: "+08:00"
effective: {from: "2025-01-01T00:00:00Z"}
binding: {touch: order, on_full_refund: release}
release: {days: 7}
rules:
  - {id: own, kind: self, rate: 1%, asset: points, release: {on: at_once}}
  - {id: first, kind: generation, generation: 1, rates: {manager: 6%}, fixed_minor: {member: 300}, skip_unqualified: true}
  - id: ladder
    kind: differential
    rates: {member: 5%, manager: 10%, director: 15%}
    buyer: deducts
    cap_minor: {order: 900, period: 2000}
  - {id: peer, kind: peer, of: ladder, base: income, rates: {director: 10%}}
  - {id: equal, kind: peer, rates: {manager: 1%}, times: 2}
  - {id: creator, kind: attributed, role: creator, rate: 5%, with_referrer: split, referrer_share: 40%}
  - {id: region, kind: attributed, role: region, rate: 2%}
  - {id: fund, kind: pool, role: partner, rate: 1%, split: seats, of_total: 3}
  - {id: opener, kind: triggered, on: group_formed, fixed_minor: 200, per: group}
  - {id: invite, kind: triggered, on: invite, to: {buyer: 50, referrer: 100}, asset: points}
  - {id: rise, kind: triggered, on: upgrade, tier: member, to: {buyer: 10, referrer: 20}}
  - {id: share, kind: triggered, on: task, task: share, to: {member: 5, referrer: 3}, asset: points, most: 2}
  - {id: five, kind: counted, at: 2, fixed_minor: 1000, repeat: true, most: 3}
  - {id: yearly, kind: pool, per: period, role: partner, rate: 1%, split: shares, of_total: 4}
  - {id: team, kind: volume, brackets: [{from_minor: 0, rate: 0.5%}, {from_minor: 20000, rate: 1.5%}]}
  - {id: board, kind: rank, board: invites, places_minor: [500, 300, 100]}
overrides:
  - {when: {days: [8]}, rules: {creator: {rate: 10%}}}
promotions:
  - {tier: member, any: [{metric: own_volume, at_least: 5000, days: 30}, {metric: gift_packs, at_least: 1}]}
  - {tier: manager, all: [{metric: team_volume, at_least: 30000, depth: 2}, {metric: qualified_directs, at_least: 1}]}
seats: {director: 2}
granted: [director]
on_evidence_refunded: demote
"""


def play_schemes(client: Client) -> None:
    """What plans can hold besides people on a path: every type of entry that `play` does not reach."""
    client.publish(SCHEMES, at=60)
    for member, referrer in (
        ("fay", ""),
        ("gus", "fay"),
        ("hal", "gus"),
        ("ida", "hal"),
        ("jon", "hal"),
        ("kim", ""),
        ("lee", ""),
        ("moe", ""),
    ):
        client.enroll(member, referrer, at=60)
    for grant, member, role, scope, weight in (
        ("g1", "kim", "region", "sh", 2),
        ("g2", "lee", "region", "sh", 1),
        ("g3", "fay", "partner", "", 2),
        ("g4", "kim", "partner", "", 1),
    ):
        client.role(grant, member, role, scope, weight, at=60)
    client.seat("s1", "fay", "director", at=60)
    client.seat("s2", "gus", "director", at=60, until=75)
    client.upgrade("u3", "hal", "manager", at=60)
    client.order("q1", "ida", line(1, 20_000), at=61, attributions=[("creator", "moe", ""), ("region", "", "sh")])
    client.order(
        "q2", "jon", line(1, 9_999, 3), line(2, 500, 1, kind=log_pb2.LINE_KIND_GIFT_PACK), at=67, attributions=[("creator", "moe", "")]
    )
    client.order("q3", "moe", line(1, 4_000), at=62, referrer="jon")
    client.end_role("g2", at=63)
    client.order("q4", "ida", line(1, 3_333), at=76, attributions=[("region", "", "sh")])
    client.complete("q1", at=70)
    client.complete("q2", at=70)
    client.refund("w1", "q2", (2, 1, 500), at=71)
    client.task("k1", "ida", "share", at=64)
    client.task("k2", "ida", "nothing", at=64)
    client.open_group("fit", "gus", at=64)
    client.open_group("flop", "gus", at=64)
    client.order("q5", "lee", line(1, 6_000), at=65, group="fit", referrer="gus")
    client.order("q6", "kim", line(1, 7_000), at=65, group="flop")
    client.order("q7", "gus", line(1, 1_000), at=65, group="flop")
    client.form_group("fit", at=66)
    client.fail_group("flop", at=66)
    client.complete("q5", at=67)
    client.release(90)
    client.close_period("2026-03", at=95)
    client.release(110)
    client.payout("p9", "fay", 100, at=111)
    client.confirm("p9", at=112)
    client.refund("w2", "q1", (1, 1, 20_000), at=113)
    client.refund("w3", "q3", (1, 1, 4_000), at=113)
    client.deposit("d1", "hal", log_pb2.DEPOSIT_KIND_PAID_IN, 10_000, at=114)
    client.deposit("d2", "hal", log_pb2.DEPOSIT_KIND_RETURNED, 4_000, at=115)
    client.deposit("d3", "hal", log_pb2.DEPOSIT_KIND_FORFEITED, 1_000, at=116)
    client.stock("x1", "gus", "hal", ("S1", 10, 500, 620), at=117)
    client.open_balance("b1", "moe", available=500, pending=300, due=120, paid=900, at=118)
    client.release(121)


def play_sealing(client: Client) -> None:
    """Books sealed twice, with facts that came too late for one or both; amounts in money and in points."""
    client.publish(SCHEMES)
    for member, referrer in (("ann", ""), ("bob", "ann"), ("cho", "bob")):
        client.enroll(member, referrer)
    client.upgrade("u1", "bob", "manager")
    client.order("o1", "cho", line(1, 20_000), at=2)
    client.order("o2", "cho", line(1, 3_333), at=11)
    client.seal("jan", through=10, at=12)
    client.refund("r1", "o1", (1, 0, 5_000), at=9)
    client.order("o3", "cho", line(1, 999), at=3)
    client.seal("feb", through=20.5, at=21)
    client.refund("r2", "o2", (1, 1, 3_333), at=15)
    client.refund("r3", "o1", (1, 0, 5_000), at=9.5)
    client.complete("o3", at=22)
    client.release(40)


def play_names(client: Client) -> None:
    """Names set, set anew and erased."""
    for member in ("ann", "bob", "cho", "dee"):
        client.enroll(member)
    client.name("n1", "ann", "Ann", at=2)
    client.name("n2", "bob", "Robert'; drop table members; --", at=2)
    client.name("n3", "cho", "名" * 100, at=2)
    client.name("n4", "ann", "安娜 🍵", at=3)
    client.erase("bob", at=4)
    client.erase("dee", at=4)


INSTANTS = """
plan: instants
version: 1
currency: GBP
period: day
effective: {from: "2025-01-01T00:00:00Z"}
rules:
  - {id: now, kind: self, rate: 1%, release: {on: at_once}}
  - {id: then, kind: self, rate: 2%}
  - {id: day-now, kind: volume, brackets: [{from_minor: 0, rate: 3%}], release: {on: at_once}}
  - {id: day-then, kind: volume, brackets: [{from_minor: 0, rate: 4%}]}
"""


def play_instants(client: Client) -> None:
    """What was paid at once, and what is due in the very instant of the order or of the closing: refunded while due, held, and released."""
    client.publish(INSTANTS)
    for number, member in enumerate(("ann", "bob", "cho", "dee"), 2):
        client.enroll(member)
        if member in ("bob", "cho"):
            held = lp.PlaceHoldRequest(program_id=client.program_id, hold_id=member, member_id=member, reason="?", placed_at=day(1))
            client.ledger.PlaceHold(held)
        client.order(member, member, line(1, 9_999), at=number)
        client.complete(member, at=number)
        client.close_period(f"2026-01-{number:02}", at=number + 1)
    client.ledger.LiftHold(lp.LiftHoldRequest(program_id=client.program_id, hold_id="cho", reason="!", lifted_at=day(7)))
    for member in ("ann", "bob", "cho"):
        client.refund("half", member, (1, 0, 5_000), at=8)
    client.release(9)
    for member in ("ann", "bob", "cho", "dee"):
        client.refund("rest", member, (1, 1, 4_999 if member != "dee" else 9_999), at=10)


STORIES = {"instants": play_instants, "names": play_names, "plain": play, "schemes": play_schemes, "sealing": play_sealing}


def main(version: str, *stories: str) -> None:
    directory = HERE / version
    directory.mkdir()
    master = base64.b64encode(secrets.token_bytes(32)).decode()
    with (
        tempfile.TemporaryDirectory() as data,
        composition.start(Settings(dsn=None, data_dir=Path(data) / "data", master_key=SecretStr(master))) as server,
    ):
        with grpc.insecure_channel(server.address) as channel:
            client = Client.of_new_program(channel, "golden")
            for story in stories:
                STORIES[story](client)
            assert client.differences() == []
            entries = client.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id="golden", page_size=1000)).entries
        with psycopg.connect(server.dsn) as connection:
            rows = {
                view.name: sorted(list(row) for rows in live_rows(connection, "golden", view) for row in rows)
                for view in (*LEDGER_VIEWS, *REFERRAL_VIEWS)
            }
            keys = connection.execute(
                "select member_id, master_id, encode(wrapped, 'hex') from referral.member_keys where program_id = 'golden' order by 1"
            ).fetchall()
    if keys:
        (directory / "keys.json").write_text(json.dumps({"master_key": master, "member_keys": keys}, indent=1) + "\n", encoding="utf-8")
    with (directory / "entries.hex").open("w", encoding="ascii") as file:
        file.writelines(entry.SerializeToString(deterministic=True).hex() + "\n" for entry in entries)
    (directory / "views.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
