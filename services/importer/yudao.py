"""yudao (ruoyi-vue-pro, its mall): trade_brokerage_user, _record, _withdraw, trade_order and trade_order_item, as a Mall.

Amounts are integers in fen, times are written in the database's zone. What is frozen stands beside the balance, in a column of its own,
and a commission that is taken back is its own row set to cancelled: nothing is written against it.
"""

from datetime import timezone
from pathlib import Path
from typing import Any

from services.importer.exports import (
    Column,
    Entry,
    Mall,
    Member,
    Order,
    Row,
    Withdrawal,
    find,
    flag,
    instants,
    local_time,
    number,
    read,
    someone,
    whole,
)
from services.importer.files import Unreadable

# Other modules have an order and a user table too, so a prefix other than the module's own is not guessed.
NAMES = {
    "members": r"(trade_)?brokerage_user",
    "entries": r"(trade_)?brokerage_record",
    "withdrawals": r"(trade_)?brokerage_withdraw",
    "orders": r"(trade_)?order",
    "items": r"(trade_)?order_item",
    "accounts": r"member_user",
}
TITLES = {
    "members": "trade_brokerage_user",
    "entries": "trade_brokerage_record",
    "withdrawals": "trade_brokerage_withdraw",
    "orders": "trade_order",
    "items": "trade_order_item",
}
# biz_type: 1 an order's item, 2 a withdrawal, 3 a withdrawal refused.
OF_ORDER, WITHDRAWS = 1, (2, 3)
# status of a record.
WAITING, SETTLED, CANCELLED = 0, 1, 2
# The mall itself counts a withdrawal as paid from its approval on. One that failed (21) is neither paid nor given back.
STATES = {0: "open", 10: "paid", 11: "paid", 20: "refused", 21: "open"}
ORDER_CANCELLED, ORDER_REFUNDED, ITEM_REFUNDED = 40, 20, 20


def load(directory: Path, offset: timezone, as_of_us: int | None) -> Mall:
    """Raises Unreadable."""
    paths = find(directory, NAMES)
    for table, title in TITLES.items():
        if table not in paths:
            raise Unreadable(f"{directory} has no {title}.csv or {title}.csv.gz")
    time = Column(local_time(offset), None)
    deleted, tenant = Column(flag, False, optional=True), Column(number, "", optional=True)
    common = {"deleted": deleted, "tenant_id": tenant}
    users = read(
        paths["members"],
        {
            "id": Column(number),
            "bind_user_id": Column(someone, ""),
            "bind_user_time": time,
            "brokerage_enabled": Column(flag, False),
            "brokerage_price": Column(whole, 0),
            "frozen_price": Column(whole, 0),
            "create_time": time,
            **common,
        },
        "id",
    )
    rows = read(
        paths["entries"],
        {
            "id": Column(number),
            "user_id": Column(number),
            "biz_id": Column(str, ""),
            "biz_type": Column(whole),
            "price": Column(whole),
            "total_price": Column(whole, None),
            "status": Column(whole),
            "frozen_days": Column(whole, 0),
            "unfreeze_time": time,
            "create_time": time,
            "update_time": time,
            **common,
        },
        "id",
    )
    withdraws = read(
        paths["withdrawals"],
        {"id": Column(number), "user_id": Column(number), "price": Column(whole), "status": Column(whole), "create_time": time, **common},
        "id",
    )
    orders = read(
        paths["orders"],
        {
            "id": Column(number),
            "user_id": Column(number),
            "status": Column(whole),
            "pay_status": Column(flag),
            "pay_time": time,
            "refund_status": Column(whole, 0, optional=True),
            "create_time": time,
            **common,
        },
        "id",
    )
    items = read(
        paths["items"],
        {
            "id": Column(number),
            "order_id": Column(number),
            "user_id": Column(number),
            "after_sale_status": Column(whole, 0),
            **common,
        },
        "id",
    )
    accounts = None
    if "accounts" in paths:
        columns = {"id": Column(number), "create_time": time, "level_id": Column(someone, "", optional=True), **common}
        accounts = read(paths["accounts"], columns, "id")
    tables = [users, rows, withdraws, orders, items, *([accounts] if accounts else [])]
    for each in tables:
        # Deleted is a mark in these tables; the mall no longer sees such a row.
        each.rows = [row for row in each.rows if not row["deleted"]]
    tenants = {row["tenant_id"] for table in tables for row in table.rows} - {""}
    if len(tenants) > 1:
        raise Unreadable(
            f"the export holds the rows of {len(tenants)} tenants ({', '.join(sorted(tenants)[:5])}); export one, by tenant_id"
        )
    timed = [
        (users, ["create_time", "bind_user_time"]),
        (rows, ["create_time", "update_time"]),
        (withdraws, ["create_time"]),
        (orders, ["create_time", "pay_time"]),
    ]
    first_us, as_of = instants([*timed, *([(accounts, ["create_time"])] if accounts else [])], as_of_us, directory)
    known = {row["id"]: row for row in accounts.rows} if accounts else {}
    members: dict[str, Member] = {}
    for row in users.rows:
        account = known.get(row["id"])
        members[row["id"]] = Member(
            row["id"],
            row.line,
            account["create_time"] if account else row["create_time"],
            row["bind_user_id"],
            row["bind_user_time"],
            row["brokerage_price"],
            row["frozen_price"],
            row["brokerage_enabled"],
            account["level_id"] if account else "",
        )
    for id, row in known.items():
        # Buyers need no row of their own among those who sell.
        members.setdefault(id, Member(id, row.line, row["create_time"], "", None, 0, 0, False, row["level_id"], paths["accounts"].name))
    withdrawals = []
    for row in withdraws.rows:
        if row["status"] not in STATES:
            raise Unreadable(f"{withdraws.path.name} line {row.line}: status {row['status']} is not 0, 10, 11, 20 or 21")
        withdrawals.append(Withdrawal(row.line, row["user_id"], row["price"], row["create_time"] or first_us, STATES[row["status"]]))
    by_id = {row["id"]: row for row in orders.rows}
    found: dict[str, Order] = {}
    for row in items.rows:
        order = by_id.get(row["order_id"])
        if order is not None:
            refunded = row["after_sale_status"] == ITEM_REFUNDED or order["refund_status"] == ORDER_REFUNDED
            found[row["id"]] = Order(row.line, refunded or (order["status"] == ORDER_CANCELLED and order["pay_status"]))
    paid_us: dict[str, int] = {}
    for row in orders.rows:
        at_us = row["pay_time"] or row["create_time"]
        if row["pay_status"] and at_us is not None:
            paid_us[row["user_id"]] = min(at_us, paid_us.get(row["user_id"], at_us))
    files = {role: paths[role].name for role in ("members", "entries", "withdrawals", "orders")}
    return Mall(
        "yudao",
        "yudao",
        files | {"orders": paths["items"].name},
        frozen_within=False,
        shows_after=False,
        members=members,
        entries=[_entry(row, first_us, as_of) for row in rows.rows],
        withdrawals=withdrawals,
        orders=found,
        paid_us=paid_us,
        repeated=[
            (table.path.name, row.line, row["id" if table in (users, accounts) else "user_id"])
            for table in tables
            for row in table.repeated
        ],
        as_of_us=as_of,
        first_us=first_us,
    )


def _entry(row: Row, first_us: int, as_of_us: int) -> Entry:
    status, price, of_order = row["status"], row["price"], row["biz_type"] == OF_ORDER
    created_us = row["create_time"] or first_us
    moves: list[tuple[int, int]] = []
    # A record that freezes moves the balance when it thaws, which is then what unfreeze_time says; one cancelled before never does.
    moved_us: Any = created_us if row["frozen_days"] == 0 else row["unfreeze_time"]
    ended_us = row["update_time"]
    if status == SETTLED:
        moves = [(moved_us or created_us, price)]
    elif status == CANCELLED and moved_us is not None and ended_us is not None and moved_us <= ended_us:
        moves = [(moved_us, price), (ended_us, -price)]
    return Entry(
        row.line,
        row["user_id"],
        price,
        created_us,
        counts=status == SETTLED,
        due_us=(row["unfreeze_time"] or as_of_us) if status == WAITING else None,
        order=row["biz_id"] if of_order else None,
        withdraws=row["biz_type"] in WITHDRAWS,
        shown_minor=row["total_price"],
        moves=moves,
        once=(row["user_id"], row["biz_id"]) if of_order and status != CANCELLED else None,
    )
