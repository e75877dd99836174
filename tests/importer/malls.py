"""Small malls that keep their own books as CRMEB and yudao do, and export them: what they earn, freeze, thaw, take back and pay out.

The story is the same in each: mei sells; bo came by mei and cai by bo; bo and cai buy; mei is paid out; dan only looks around.
A test then spoils one thing.
"""

import csv
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

CHINA = timezone(timedelta(hours=8))
MEI, BO, CAI, DAN = "1", "2", "3", "4"


def moment(day: float) -> datetime:
    """A time in March 2026 in Shanghai; halves are noons."""
    return datetime(2026, 3, 1, tzinfo=CHINA) + timedelta(days=day - 1)


def unix(day: float) -> int:
    return int(moment(day).timestamp())


def local(day: float) -> str:
    return f"{moment(day):%Y-%m-%d %H:%M:%S}"


def yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02}"


Rows = list[dict[str, Any]]


class Export:
    """Tables as lists of rows. A cell of None is written as NULL."""

    def __init__(self) -> None:
        self.tables: dict[str, Rows] = {}

    def table(self, name: str) -> Rows:
        return self.tables.setdefault(name, [])

    def row(self, table: str, id: str | int, key: str = "id") -> dict[str, Any]:
        [found] = [row for row in self.tables[table] if str(row[key]) == str(id)]
        return found

    def write(self, directory: Path, null: str = r"\N", bom: bool = False) -> Path:
        directory.mkdir(exist_ok=True)
        for name, rows in self.tables.items():
            with (directory / f"{name}.csv").open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
                out = csv.writer(file)
                out.writerow(rows[0])
                out.writerows([null if cell is None else cell for cell in row.values()] for row in rows)
        return directory


# ---------------------------------------------------------------- CRMEB, PHP


class Php(Export):
    """Amounts go in as fen. Balances hold what is frozen."""

    def user(self, uid: str, day: float, spread: str = "0", spread_day: float | None = None, promoter: int = 1, level: int = 0) -> None:
        self.table("eb_user").append(
            {
                "uid": uid,
                "account": f"u{uid}",
                "nickname": 'A "quoted", name',
                "add_time": unix(day),
                "now_money": "0.00",
                "brokerage_price": "0.00",
                "status": 1,
                "level": 0,
                "agent_level": level,
                "spread_open": 1,
                "spread_uid": spread,
                "spread_time": 0 if spread == "0" else unix(spread_day or day),
                "user_type": "h5",
                "is_promoter": promoter,
                "pay_count": 0,
                "is_del": 0,
            }
        )

    def order(self, id: int, uid: str, day: float, one: int = 0, two: int = 0, status: int = 2, **more: Any) -> None:
        """`one` and `two`: what the buyer's referrer, and theirs, get of it."""
        buyer = self.row("eb_user", uid, "uid")
        first = buyer["spread_uid"]
        second = self.row("eb_user", first, "uid")["spread_uid"] if first != "0" else "0"
        row = {
            "id": id,
            "pid": 0,
            "order_id": f"cp{id:012}",
            "uid": uid,
            "user_address": "Somewhere, 1\nBy the sea",
            "cart_id": "[]",
            "pay_price": "100.00",
            "paid": 1,
            "pay_time": unix(day),
            "add_time": unix(day),
            "status": status,
            "refund_status": 0,
            "refund_price": "0.00",
            "spread_uid": first,
            "spread_two_uid": second,
            "one_brokerage": yuan(one),
            "two_brokerage": yuan(two),
            "is_del": 0,
        }
        self.table("eb_store_order").append(row | more)

    def move(self, uid: str, kind: str, fen: int, link: str | int, day: float, frozen_day: float | None = None) -> None:
        """A commission row, and the balance with it."""
        user, rows = self.row("eb_user", uid, "uid"), self.table("eb_user_brokerage")
        balance = round(float(user["brokerage_price"]) * 100) + fen
        user["brokerage_price"] = yuan(balance)
        rows.append(
            {
                "id": len(rows) + 1,
                "uid": uid,
                "link_id": link,
                "type": kind,
                "title": "…",
                "number": yuan(abs(fen)),
                "balance": yuan(balance),
                "pm": int(fen > 0),
                "mark": "…",
                "status": 1,
                "take": 0,
                "frozen_time": unix(frozen_day) if frozen_day else 0,
                "add_time": unix(day),
            }
        )

    def extract(self, id: int, uid: str, fen: int, day: float, status: int = 1) -> None:
        self.move(uid, "extract", -fen, id, day)
        row = {"id": id, "uid": uid, "extract_type": "bank", "extract_price": yuan(fen), "add_time": unix(day), "status": status}
        self.table("eb_user_extract").append(row)


def php() -> Php:
    """As of the 25th: mei has 5.00, 4.00 frozen until the 27th and 5.00 paid out; bo has 8.00 frozen until the 27th."""
    mall = Php()
    mall.user(MEI, 1, level=2)
    mall.user(BO, 2, MEI)
    mall.user(CAI, 3, BO, spread_day=4, promoter=0)
    mall.user(DAN, 5, promoter=0)
    mall.order(101, BO, 6, one=1000)
    mall.move(MEI, "one_brokerage", 1000, 101, 8, frozen_day=15)
    mall.order(102, CAI, 18, one=800, two=400)
    mall.move(BO, "one_brokerage", 800, 102, 20, frozen_day=27)
    mall.move(MEI, "two_brokerage", 400, 102, 20, frozen_day=27)
    mall.extract(1, MEI, 500, 25)
    return mall


# ---------------------------------------------------------------- CRMEB, Java


class Java(Export):
    def user(self, uid: str, day: float, spread: int | str = 0, promoter: int = 1) -> None:
        self.table("eb_user").append(
            {
                "uid": uid,
                "account": f"u{uid}",
                "brokerage_price": "0.00",
                "level": 0,
                "spread_uid": spread,
                "spread_time": local(day) if spread else None,
                "is_promoter": promoter,
                "create_time": local(day),
                "update_time": local(day),
                "promoter_time": None,
            }
        )

    def order(self, id: int, uid: str, day: float, refund_status: int = 0) -> None:
        self.table("eb_store_order").append(
            {
                "id": id,
                "order_id": f"order{id}",
                "uid": uid,
                "pay_price": "100.00",
                "paid": 1,
                "pay_time": local(day),
                "create_time": local(day),
                "status": 2,
                "refund_status": refund_status,
            }
        )

    def earn(self, uid: str, fen: int, order: int, day: float, status: int, thaw_day: float, level: int = 1) -> None:
        """status: 1 the order is paid, 2 frozen until `thaw_day`, 3 thawed on it, 4 void."""
        rows, user = self.table("eb_user_brokerage_record"), self.row("eb_user", uid, "uid")
        balance = round(float(user["brokerage_price"]) * 100) + fen
        if status == 3:
            user["brokerage_price"] = yuan(balance)
        rows.append(
            {
                "id": len(rows) + 1,
                "uid": uid,
                "link_id": f"order{order}",
                "link_type": "order",
                "type": 1,
                "title": "…",
                "price": yuan(fen),
                "balance": yuan(balance) if status == 3 else "0.00",
                "status": status,
                "frozen_time": 7,
                "thaw_time": unix(thaw_day) * 1000 if status in (2, 3) else 0,
                "create_time": local(day),
                "update_time": local(thaw_day if status == 3 else day),
                "brokerage_level": level,
            }
        )

    def take(self, uid: str, fen: int, link: int, day: float, link_type: str = "withdraw", status: int = 3) -> None:
        """A withdrawal (status 5 while it is asked for), or a transfer to the wallet (link_type yue)."""
        rows, user = self.table("eb_user_brokerage_record"), self.row("eb_user", uid, "uid")
        balance = round(float(user["brokerage_price"]) * 100) - fen
        user["brokerage_price"] = yuan(balance)
        template = dict.fromkeys(self.table("eb_user_brokerage_record")[0])
        rows.append(
            template
            | {
                "id": len(rows) + 1,
                "uid": uid,
                "link_id": link,
                "link_type": link_type,
                "type": 2,
                "price": yuan(fen),
                "balance": "77.77" if link_type == "yue" else yuan(balance),
                "status": status,
                "frozen_time": 0,
                "thaw_time": 0,
                "create_time": local(day),
                "update_time": local(day + 1),
            }
        )
        if link_type != "yue":
            state = 1 if status == 3 else 0
            row = {"id": link, "uid": uid, "extract_price": yuan(fen), "status": state, "create_time": local(day), "fail_time": None}
            self.table("eb_user_extract").append(row)


def java() -> Java:
    """As of the 26th: mei has 3.00, 4.00 frozen until the 27th, 5.00 paid out and 2.00 moved to her wallet; bo 8.00 frozen."""
    mall = Java()
    mall.user(MEI, 1)
    mall.user(BO, 2, MEI)
    mall.user(CAI, 3, BO, promoter=0)
    mall.user(DAN, 5, promoter=0)
    mall.order(101, BO, 6)
    mall.earn(MEI, 1000, 101, 6, status=3, thaw_day=15)
    mall.order(102, CAI, 18)
    mall.earn(BO, 800, 102, 18, status=2, thaw_day=27)
    mall.earn(MEI, 400, 102, 18, status=2, thaw_day=27, level=2)
    mall.take(MEI, 200, 0, 22, link_type="yue")
    mall.take(MEI, 500, 1, 25)
    return mall


# ---------------------------------------------------------------- yudao


class Yudao(Export):
    def common(self, day: float) -> dict[str, Any]:
        return {"creator": "", "create_time": local(day), "updater": None, "update_time": local(day), "deleted": "\x00", "tenant_id": 1}

    def user(self, id: str, day: float, bind: str | None = None, bind_day: float | None = None, enabled: bool = True) -> None:
        self.table("trade_brokerage_user").append(
            {
                "id": id,
                "bind_user_id": bind,
                "bind_user_time": local(bind_day or day) if bind else None,
                "brokerage_enabled": "\x01" if enabled else "\x00",
                "brokerage_time": local(day),
                "brokerage_price": 0,
                "frozen_price": 0,
                **self.common(day),
            }
        )

    def order(self, id: int, user: str, day: float, **more: Any) -> None:
        """With one item of the number id × 10."""
        row = {
            "id": id,
            "no": f"o{id}",
            "user_id": user,
            "status": 30,
            "pay_status": 1,
            "pay_time": local(day),
            "pay_price": 10000,
            "refund_status": 0,
            "brokerage_user_id": None,
        }
        self.table("trade_order").append(row | more | self.common(day))
        item = {"id": id * 10, "user_id": user, "order_id": id, "spu_name": "tea", "count": 1, "pay_price": 10000, "after_sale_status": 0}
        self.table("trade_order_item").append(item | self.common(day))

    def record(self, user: str, kind: int, biz: int, fen: int, day: float, thaw_day: float | None = None, status: int = 1) -> None:
        """kind: 1 an order's item, 2 a withdrawal, 3 one refused. Frozen until `thaw_day`, and then thawed if the status is 1."""
        rows, account = self.table("trade_brokerage_record"), self.row("trade_brokerage_user", user)
        rows.append(
            {
                "id": len(rows) + 1,
                "user_id": user,
                "biz_id": biz,
                "biz_type": kind,
                "title": "…",
                "description": "…",
                "price": fen,
                "total_price": account["brokerage_price"],
                "status": status,
                "frozen_days": 7 if thaw_day else 0,
                "unfreeze_time": local(thaw_day) if thaw_day else None,
                "source_user_level": 1 if kind == 1 else None,
                "source_user_id": None,
                **self.common(day),
                "update_time": local(thaw_day if thaw_day and status == 1 else day),
            }
        )
        if status == 1:
            account["brokerage_price"] += fen
        elif status == 0:
            account["frozen_price"] += fen

    def withdraw(self, id: int, user: str, fen: int, day: float, status: int = 11) -> None:
        self.record(user, 2, id, -fen, day)
        row = {"id": id, "user_id": user, "price": fen, "fee_price": 0, "total_price": 0, "type": 2, "status": status}
        self.table("trade_brokerage_withdraw").append(row | self.common(day))


def yudao() -> Yudao:
    """As of the 25th: mei has 5.00, 4.00 frozen until the 27th and 5.00 paid out; bo has 8.00 frozen until the 27th."""
    mall = Yudao()
    mall.user(MEI, 1)
    mall.user(BO, 2, MEI)
    mall.user(CAI, 3, BO, bind_day=4, enabled=False)
    mall.user(DAN, 5, enabled=False)
    mall.order(101, BO, 6)
    mall.record(MEI, 1, 1010, 1000, 6, thaw_day=15)
    mall.order(102, CAI, 18)
    mall.record(BO, 1, 1020, 800, 18, thaw_day=27, status=0)
    mall.record(MEI, 1, 1020, 400, 18, thaw_day=27, status=0)
    mall.withdraw(1, MEI, 500, 25)
    return mall
