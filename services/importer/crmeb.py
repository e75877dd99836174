"""CRMEB: eb_user, eb_user_brokerage (PHP) or eb_user_brokerage_record (Java), eb_user_extract, eb_store_order, as a Mall.

The two editions share names and little else. PHP writes times as Unix seconds, and its balance holds what is still frozen; Java writes
them as text, and what is frozen joins the balance when it thaws. Amounts are decimals in yuan in both.
"""

from datetime import timezone
from pathlib import Path

from services.importer.exports import (
    Column,
    Entry,
    Mall,
    Member,
    Order,
    Table,
    Withdrawal,
    find,
    flag,
    instants,
    local_time,
    number,
    read,
    someone,
    unix_milliseconds,
    unix_seconds,
    whole,
    yuan,
)
from services.importer.files import Unreadable

# A prefix is one word: eb_wechat_user is another table than eb_user.
NAMES = {
    "members": r"([a-z0-9]+_)?user",
    "php": r"([a-z0-9]+_)?user_brokerage",
    "java": r"([a-z0-9]+_)?user_brokerage_record",
    "withdrawals": r"([a-z0-9]+_)?user_extract",
    "orders": r"([a-z0-9]+_)?store_order",
}
TITLES = {"members": "eb_user", "withdrawals": "eb_user_extract", "orders": "eb_store_order"}
# Types of eb_user_brokerage whose link_id is the id of an order. The others name a member, or an order of a paid membership.
ORDER_TYPES = {
    "brokerage",
    "one_brokerage",
    "two_brokerage",
    "self_brokerage",
    "staff_brokerage",
    "agent_brokerage",
    "division_brokerage",
    "pink_master_brokerage",
}
WITHDRAWAL_TYPES = {"extract", "extract_money", "extract_fail"}
STATES = {1: "paid", 0: "open", -1: "refused"}
# Who an order will pay, and the column that says how much.
SHARES = {
    "spread_uid": "one_brokerage",
    "spread_two_uid": "two_brokerage",
    "staff_id": "staff_brokerage",
    "agent_id": "agent_brokerage",
    "division_id": "division_brokerage",
}
REFUNDED = 2


def load(directory: Path, offset: timezone, as_of_us: int | None) -> Mall:
    """Raises Unreadable."""
    paths = find(directory, NAMES)
    if ("php" in paths) == ("java" in paths):
        both = "both eb_user_brokerage.csv and eb_user_brokerage_record.csv; leave that of your edition"
        neither = "no eb_user_brokerage.csv (PHP, 4.4 or later) or eb_user_brokerage_record.csv (Java)"
        raise Unreadable(f"{directory} has {both if 'php' in paths else neither}")
    for table, title in TITLES.items():
        if table not in paths:
            raise Unreadable(f"{directory} has no {title}.csv or {title}.csv.gz")
    return _php(paths, directory, as_of_us) if "php" in paths else _java(paths, directory, offset, as_of_us)


def _php(paths: dict[str, Path], directory: Path, as_of_us: int | None) -> Mall:
    time = Column(unix_seconds, None)
    share = Column(yuan, 0, optional=True)
    users = read(
        paths["members"],
        {
            "uid": Column(number),
            "add_time": time,
            "spread_uid": Column(someone, ""),
            "spread_time": time,
            "brokerage_price": Column(yuan),
            "is_promoter": Column(flag, False),
            "agent_level": Column(someone, "", optional=True),
        },
        "uid",
    )
    rows = read(
        paths["php"],
        {
            "id": Column(number),
            "uid": Column(number),
            "link_id": Column(str, ""),
            "type": Column(str, ""),
            "number": Column(yuan),
            "balance": Column(yuan),
            "pm": Column(flag),
            "status": Column(whole, 1),
            "frozen_time": time,
            "add_time": time,
        },
        "id",
    )
    extracts = read(
        paths["withdrawals"],
        {"id": Column(number), "uid": Column(number), "extract_price": Column(yuan), "status": Column(whole), "add_time": time},
        "id",
    )
    orders = read(
        paths["orders"],
        {
            "id": Column(number),
            "pid": Column(someone, "", optional=True),
            "uid": Column(number),
            "paid": Column(flag),
            "pay_time": time,
            "status": Column(whole, 0),
            "refund_status": Column(whole, 0),
            "add_time": time,
            **{payee: Column(someone, "", optional=True) for payee in SHARES},
            **dict.fromkeys(SHARES.values(), share),
        },
        "id",
    )
    first_us, as_of = instants(
        [(users, ["add_time", "spread_time"]), (rows, ["add_time"]), (extracts, ["add_time"]), (orders, ["add_time", "pay_time"])],
        as_of_us,
        directory,
    )
    entries: list[Entry] = []
    earned: dict[str, set[str]] = {}
    for row in rows.rows:
        valid, gives, kind = row["status"] == 1, row["pm"], row["type"]
        of_order = (gives and kind in ORDER_TYPES) or (not gives and kind == "refund")
        amount = row["number"] if gives else -row["number"]
        frozen = valid and gives and row["frozen_time"] is not None and row["frozen_time"] > as_of
        at_us = row["add_time"] or first_us
        entries.append(
            Entry(
                row.line,
                row["uid"],
                amount,
                at_us,
                counts=valid,
                due_us=row["frozen_time"] if frozen else None,
                order=row["link_id"] if of_order else None,
                withdraws=kind in WITHDRAWAL_TYPES,
                shown_minor=row["balance"] if valid else None,
                moves=[(at_us, amount)] if valid else (),
                once=(row["uid"], kind, row["link_id"]) if valid and gives and of_order else None,
            )
        )
        if valid and gives and of_order:
            earned.setdefault(row["link_id"], set()).add(row["uid"])
    found: dict[str, Order] = {}
    for row in orders.rows:
        order = found[row["id"]] = Order(row.line, row["refund_status"] == REFUNDED or row["status"] == -2)
        shares: dict[str, int] = {}
        for payee, column in SHARES.items():
            if row[payee] and row[column] > 0:
                shares[row[payee]] = shares.get(row[payee], 0) + row[column]
        if row["id"] in earned:
            continue
        if row["pid"] in earned:
            # Split off after the whole had paid: the part of it that this one stands for is in its own columns.
            order.elsewhere = {member: amount for member, amount in shares.items() if member in earned[row["pid"]]}
        elif row["paid"] and not order.refunded and row["refund_status"] in (0, 1) and row["status"] in (0, 1):
            order.expected = shares
    for row in orders.rows:  # an order that was split gives nothing itself
        if row["pid"] in found and row["pid"] != row["id"]:
            found[row["pid"]].expected = {}
    return Mall(
        "crmeb",
        "CRMEB PHP",
        {"members": users.path.name, "entries": rows.path.name, "withdrawals": extracts.path.name, "orders": orders.path.name},
        frozen_within=True,
        shows_after=True,
        members={
            row["uid"]: Member(
                row["uid"],
                row.line,
                row["add_time"],
                row["spread_uid"],
                row["spread_time"],
                row["brokerage_price"],
                None,
                row["is_promoter"],
                row["agent_level"],
            )
            for row in users.rows
        },
        entries=entries,
        withdrawals=_withdrawals(extracts, "add_time", first_us),
        orders=found,
        paid_us=_first_paid(orders, "add_time"),
        repeated=_repeated(users, rows, extracts, orders),
        as_of_us=as_of,
        first_us=first_us,
    )


def _java(paths: dict[str, Path], directory: Path, offset: timezone, as_of_us: int | None) -> Mall:
    time = Column(local_time(offset), None)
    users = read(
        paths["members"],
        {
            "uid": Column(number),
            "create_time": time,
            "spread_uid": Column(someone, ""),
            "spread_time": time,
            "brokerage_price": Column(yuan),
            "is_promoter": Column(flag, False),
        },
        "uid",
    )
    rows = read(
        paths["java"],
        {
            "id": Column(number),
            "uid": Column(number),
            "link_id": Column(str, ""),
            "link_type": Column(str, ""),
            "type": Column(whole),
            "price": Column(yuan),
            "balance": Column(yuan, 0),
            "status": Column(whole),
            "thaw_time": Column(unix_milliseconds, None),
            "create_time": time,
            "update_time": time,
            "brokerage_level": Column(str, "", optional=True),
        },
        "id",
    )
    extracts = read(
        paths["withdrawals"],
        {"id": Column(number), "uid": Column(number), "extract_price": Column(yuan), "status": Column(whole), "create_time": time},
        "id",
    )
    orders = read(
        paths["orders"],
        {
            "id": Column(number),
            "order_id": Column(str),
            "uid": Column(number),
            "paid": Column(flag),
            "pay_time": time,
            "refund_status": Column(whole, 0),
            "create_time": time,
        },
        "id",
    )
    first_us, as_of = instants(
        [
            (users, ["create_time", "spread_time"]),
            (rows, ["create_time", "update_time"]),
            (extracts, ["create_time"]),
            (orders, ["create_time", "pay_time"]),
        ],
        as_of_us,
        directory,
    )
    entries = []
    for row in rows.rows:
        # type: 1 gives, 2 takes. status: 1 the order is paid, 2 frozen, 3 done, 4 void, 5 a withdrawal asked for.
        gives, status, of_order = row["type"] == 1, row["status"], row["link_type"] == "order"
        counts = status == 3 or (status == 5 and not gives)
        amount = row["price"] if gives else -row["price"]
        created_us = row["create_time"] or first_us
        moved_us = (row["update_time"] or created_us) if of_order else created_us
        beside = counts and not gives and row["link_type"] == "yue"
        entries.append(
            Entry(
                row.line,
                row["uid"],
                amount,
                created_us,
                counts=counts,
                due_us=(row["thaw_time"] or as_of) if gives and status == 2 else None,
                unbooked=gives and status == 1,
                order=row["link_id"] if of_order else None,
                withdraws=row["link_type"] in ("withdraw", "extract"),
                beside=beside,
                # The edition writes the wallet's balance into the rows of transfers to it.
                shown_minor=row["balance"] if counts and not beside else None,
                moves=[(moved_us, amount)] if counts else (),
                once=(row["uid"], row["link_id"], row["brokerage_level"]) if of_order and gives and status != 4 else None,
            )
        )
    return Mall(
        "crmeb",
        "CRMEB Java",
        {"members": users.path.name, "entries": rows.path.name, "withdrawals": extracts.path.name, "orders": orders.path.name},
        frozen_within=False,
        shows_after=True,
        members={
            row["uid"]: Member(
                row["uid"],
                row.line,
                row["create_time"],
                row["spread_uid"],
                row["spread_time"],
                row["brokerage_price"],
                None,
                row["is_promoter"],
                "",
            )
            for row in users.rows
        },
        entries=entries,
        withdrawals=_withdrawals(extracts, "create_time", first_us),
        orders={row["order_id"]: Order(row.line, row["refund_status"] == REFUNDED) for row in orders.rows},
        paid_us=_first_paid(orders, "create_time"),
        repeated=_repeated(users, rows, extracts, orders),
        as_of_us=as_of,
        first_us=first_us,
    )


def _withdrawals(extracts: Table, created: str, first_us: int) -> list[Withdrawal]:
    found = []
    for row in extracts.rows:
        if row["status"] not in STATES:
            raise Unreadable(f"{extracts.path.name} line {row.line}: status {row['status']} is not -1, 0 or 1")
        found.append(Withdrawal(row.line, row["uid"], row["extract_price"], row[created] or first_us, STATES[row["status"]]))
    return found


def _first_paid(orders: Table, created: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in orders.rows:
        at_us = row["pay_time"] or row[created]
        if row["paid"] and at_us is not None:
            found[row["uid"]] = min(at_us, found.get(row["uid"], at_us))
    return found


def _repeated(*tables: Table) -> list[tuple[str, int, str]]:
    return [(table.path.name, row.line, row["uid"]) for table in tables for row in table.repeated]
