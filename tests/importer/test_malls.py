"""What goes in from a mall's export, what the report says of it, and which exports are not to be trusted at all."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fenrun.log.v1 import log_pb2

from services.importer import carry, exports
from services.importer.carry import Fact, Job, Step, Tiers
from services.importer.checks import ABOUT
from services.importer.files import Unreadable
from tests.importer.malls import BO, CAI, DAN, MEI, Export, Java, Php, Yudao, java, local, moment, php, unix, yudao

MALLS: dict[str, Callable[[], Any]] = {"php": php, "java": java, "yudao": yudao}
ALL = Tiers("member", "manager", {"2": "director"})


def job(directory: Path, mall: Export, **more: Any) -> Job:
    """The mall, exported, and a job that imports it."""
    files = mall.write(directory / "export")
    name = "yudao" if isinstance(mall, Yudao) else "crmeb"
    return Job(files, name, "p", directory / "rejected.csv", directory / "report.csv", **more)


def told(directory: Path, mall: Export, tiers: Tiers = ALL) -> list[Fact]:
    return carry.facts(carry.look(job(directory, mall)).mall, tiers)


def found(directory: Path, mall: Export) -> dict[str, list[str]]:
    """Which members each check names, by the report as it is written; checks that name nobody are left out."""
    summary = carry.look(job(directory, mall))
    with (directory / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    named: dict[str, list[str]] = {}
    for row in rows:
        named.setdefault(row["check"], []).append(row["member_id"])
    assert [check.name for check in summary.checks] == list(ABOUT)
    assert {check.name: len(check.findings) for check in summary.checks if check.findings} == {
        name: len(ids) for name, ids in named.items()
    }
    return named


def figures(directory: Path, mall: Export, check: str) -> tuple[int | None, int | None]:
    [one] = [one for one in carry.look(job(directory, mall)).checks if one.name == check]
    return one.own_minor, one.rows_minor


def opened(directory: Path, mall: Export, member: str) -> list[tuple[str, int, int, str, int, int]]:
    """(id, available, pending, until, paid, debt) of each opening of a member."""
    return [
        (
            fact.message.opening_id,
            fact.message.available_minor,
            fact.message.pending_minor,
            f"{fact.message.pending_due_at.ToDatetime():%m-%d %H:%M}" if fact.message.HasField("pending_due_at") else "",
            fact.message.paid_minor,
            fact.message.debt_minor,
        )
        for fact in told(directory, mall)
        if fact.step in (Step.OPENING, Step.FURTHER) and fact.member == member
    ]


# ---------------------------------------------------------------- what goes in


@pytest.mark.parametrize("name", MALLS)
def test_a_mall_in_order_goes_in_with_nothing_to_report(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, MALLS[name]()) == {}


def test_enrolments_come_by_time_and_a_binding_of_its_own_time_is_a_touch(tmp_path: Path) -> None:
    """Bo came by Mei's link and enrolled with it; Cai followed Bo's a day after enrolling."""
    facts = [fact for fact in told(tmp_path, php()) if fact.step in (Step.MEMBER, Step.TOUCH)]
    assert [(fact.step.name, fact.member, fact.message.referrer_id, fact.at_us) for fact in facts] == [
        ("MEMBER", MEI, "", unix(1) * 1_000_000),
        ("MEMBER", BO, MEI, unix(2) * 1_000_000),
        ("MEMBER", CAI, "", unix(3) * 1_000_000),
        ("TOUCH", CAI, BO, unix(4) * 1_000_000),
        ("MEMBER", DAN, "", unix(5) * 1_000_000),
    ]
    assert facts[3].message.touch_id == "crmeb-3"


@pytest.mark.parametrize("name", MALLS)
def test_times_mean_the_same_in_every_edition(tmp_path: Path, name: str) -> None:
    """Unix seconds, or the database's writing in the zone that is given."""
    first = told(tmp_path, MALLS[name]())[0]
    assert first.message.enrolled_at.ToJsonString() == "2026-02-28T16:00:00Z"


def test_another_zone_moves_written_times_and_not_counted_ones(tmp_path: Path) -> None:
    """--zone says where yudao's database is; CRMEB's PHP edition counts seconds."""
    for mall, at in ((yudao(), "2026-03-01T00:00:00Z"), (php(), "2026-02-28T16:00:00Z")):
        summary = carry.look(job(tmp_path, mall, offset=exports.zone("+00:00")))
        assert carry.facts(summary.mall, ALL)[0].message.enrolled_at.ToJsonString() == at


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [
        (Tiers(), {}),
        (Tiers("member"), {BO: "member", CAI: "member"}),
        (Tiers("member", "manager"), {MEI: "manager", BO: "manager", CAI: "member"}),
        (Tiers("", "manager"), {MEI: "manager", BO: "manager"}),
        (Tiers("member", "manager", {"2": "director"}), {MEI: "director", BO: "manager", CAI: "member"}),
        (Tiers("", "", {"2": "director"}), {MEI: "director"}),
    ],
)
def test_who_is_locked_and_in_which_tier(tmp_path: Path, tiers: Tiers, expected: dict[str, str]) -> None:
    """By level, else by the right to sell, else by being bound; who is none of these stays open, and so does everybody without tiers."""
    facts = [fact for fact in told(tmp_path, php(), tiers) if fact.step is Step.UPGRADE]
    assert {fact.member: fact.message.tier for fact in facts} == expected
    assert all(fact.message.evidence.kind == log_pb2.EVIDENCE_KIND_IMPORT for fact in facts)


def test_a_buyer_nobody_brought_is_locked_to_nobody(tmp_path: Path) -> None:
    """As a first paid order does here."""
    mall = php()
    mall.order(103, DAN, 19)
    facts = [fact for fact in told(tmp_path, mall, Tiers("member")) if fact.step is Step.UPGRADE]
    assert [(fact.member, fact.message.evidence.note) for fact in facts][-1] == (DAN, "CRMEB PHP 4, first paid order 2026-03-18T16:00:00Z")


@pytest.mark.parametrize(
    ("name", "mei", "bo"),
    [
        ("php", ("crmeb-1", 500, 400, "03-26 16:00", 500, 0), ("crmeb-2", 0, 800, "03-26 16:00", 0, 0)),
        ("java", ("crmeb-1", 300, 400, "03-26 16:00", 700, 0), ("crmeb-2", 0, 800, "03-26 16:00", 0, 0)),
        ("yudao", ("yudao-1", 500, 400, "03-26 16:00", 500, 0), ("yudao-2", 0, 800, "03-26 16:00", 0, 0)),
    ],
)
def test_balances_are_opened_as_the_mall_has_them(tmp_path: Path, name: str, mei: tuple[Any, ...], bo: tuple[Any, ...]) -> None:
    """Available, frozen with its day, paid out in total; and nothing for who has nothing."""
    assert opened(tmp_path, MALLS[name](), MEI) == [mei]
    assert opened(tmp_path, MALLS[name](), BO) == [bo]
    assert opened(tmp_path, MALLS[name](), CAI) == opened(tmp_path, MALLS[name](), DAN) == []


def test_what_is_frozen_until_several_days_takes_several_openings(tmp_path: Path) -> None:
    """The first with everything else, the others after all first ones; rows of one instant together."""
    mall = php()
    for order, days in ((103, 28), (104, 28), (105, 29)):
        mall.order(order, BO, 19, one=100)
        mall.move(MEI, "one_brokerage", 100, order, 21, frozen_day=days)
    assert opened(tmp_path, mall, MEI) == [
        ("crmeb-1", 500, 400, "03-26 16:00", 500, 0),
        ("crmeb-1-2", 0, 200, "03-27 16:00", 0, 0),
        ("crmeb-1-3", 0, 100, "03-28 16:00", 0, 0),
    ]
    facts = told(tmp_path, mall)
    assert [fact.step for fact in facts][-4:] == [Step.OPENING, Step.OPENING, Step.FURTHER, Step.FURTHER]
    assert [len(batch) for batch in carry.batches(facts)] == [len(facts) - 2, 2]


def test_a_negative_balance_is_debt(tmp_path: Path) -> None:
    """Also the part of a negative frozen figure that the balance does not cover."""
    mall = yudao()
    mall.row("trade_brokerage_user", MEI)["brokerage_price"] = -30
    mall.row("trade_brokerage_user", BO)["frozen_price"] = -50
    assert opened(tmp_path, mall, MEI) == [("yudao-1", 0, 400, "03-26 16:00", 500, 30)]
    assert opened(tmp_path, mall, BO) == [("yudao-2", 0, 0, "", 0, 50)]


def test_the_mall_s_own_figure_goes_in_and_not_what_its_rows_add_up_to(tmp_path: Path) -> None:
    """A frozen figure above its rows is due with the last of them, one below cuts the latest."""
    mall = yudao()
    mall.row("trade_brokerage_user", MEI).update(brokerage_price=12345, frozen_price=450)
    mall.row("trade_brokerage_user", BO)["frozen_price"] = 100
    mall.row("trade_brokerage_user", DAN)["frozen_price"] = 7
    assert opened(tmp_path, mall, MEI) == [("yudao-1", 12345, 450, "03-26 16:00", 500, 0)]
    assert opened(tmp_path, mall, BO) == [("yudao-2", 0, 100, "03-26 16:00", 0, 0)]
    assert opened(tmp_path, mall, DAN) == [("yudao-4", 0, 7, "03-24 16:00", 0, 0)]


def test_frozen_commission_is_part_of_php_s_balance_and_no_more_than_it(tmp_path: Path) -> None:
    """The mall's own arithmetic, when more is frozen than there is: nothing can be withdrawn."""
    mall = php()
    mall.row("eb_user", BO, "uid")["brokerage_price"] = "3.00"
    mall.row("eb_user", MEI, "uid")["brokerage_price"] = "-2.00"
    assert opened(tmp_path, mall, BO) == [("crmeb-2", 0, 300, "03-26 16:00", 0, 0)]
    assert opened(tmp_path, mall, MEI) == [("crmeb-1", 0, 0, "", 500, 200)]


def test_the_last_row_dates_the_openings_unless_told(tmp_path: Path) -> None:
    """So that the same export says the same twice; --as-of may not be before it."""
    fact = told(tmp_path, php())[-1]
    assert fact.message.opened_at.ToJsonString() == "2026-03-24T16:00:00Z"
    assert fact.message.source == "CRMEB PHP, as of 2026-03-24T16:00:00Z"
    later = carry.look(job(tmp_path, php(), as_of_us=unix(28) * 1_000_000)).mall
    assert [(one.available_minor, one.pending) for one in carry.openings(later).values()] == [(900, ()), (800, ())]
    with pytest.raises(Unreadable, match="--as-of is before the last row of the export, which is of 2026-03-24T16:00:00Z"):
        carry.look(job(tmp_path, php(), as_of_us=unix(20) * 1_000_000))


def test_accounts_give_yudao_s_buyers_and_levels_and_older_enrolments(tmp_path: Path) -> None:
    """member_user.csv is optional; with it who only buys is enrolled too."""
    mall = yudao()
    for id, day, level in ((MEI, 0.5, 2), ("9", 6, None)):
        mall.table("member_user").append({"id": id, "nickname": "…", "level_id": level, **mall.common(day)})
    mall.order(103, "9", 7)
    facts = told(tmp_path, mall, Tiers("member", "", {"2": "director"}))
    assert [(fact.member, fact.at_us) for fact in facts if fact.member in (MEI, "9")][:2] == [
        (MEI, int(moment(0.5).timestamp()) * 1_000_000),
        ("9", unix(6) * 1_000_000),
    ]
    assert {fact.member: fact.message.tier for fact in facts if fact.step is Step.UPGRADE} == {
        MEI: "director",
        BO: "member",
        CAI: "member",
        "9": "member",
    }
    assert found(tmp_path, mall) == {}


# ---------------------------------------------------------------- what does not add up


def php_with(change: Callable[[Php], Any]) -> Php:
    mall = php()
    change(mall)
    return mall


def spoil_php(mall: Php, table: str, id: str | int, key: str = "id", **cells: Any) -> None:
    mall.row(table, id, key).update(cells)


def php_refund_of_part(mall: Php) -> None:
    """Order 101 was split after it had paid; the refunded part took back less than its own share."""
    mall.order(103, BO, 6, one=400, pid=101, refund_status=2)
    mall.move(MEI, "refund", -300, 103, 25)


PHP: list[tuple[str, Callable[[Php], Any], dict[str, list[str]]]] = [
    ("a balance", lambda m: spoil_php(m, "eb_user", MEI, "uid", brokerage_price="9.01"), {"balance": [MEI]}),
    ("a row lost", lambda m: m.tables["eb_user_brokerage"].pop(0), {"balance": [MEI], "running balance": [MEI]}),
    ("a running balance", lambda m: spoil_php(m, "eb_user_brokerage", 3, balance="99.00"), {"running balance": [MEI, MEI]}),
    ("more frozen than there is", lambda m: spoil_php(m, "eb_user", BO, "uid", brokerage_price="3.00"), {"balance": [BO], "frozen": [BO]}),
    ("a withdrawal of another amount", lambda m: spoil_php(m, "eb_user_extract", 1, extract_price="5.50"), {"withdrawals": [MEI]}),
    ("a refused withdrawal not given back", lambda m: spoil_php(m, "eb_user_extract", 1, status=-1), {"withdrawals": [MEI]}),
    ("a withdrawal under way", lambda m: m.extract(2, MEI, 100, 25, status=0), {"open withdrawals": [MEI]}),
    ("a debt", lambda m: m.move(DAN, "refund", -100, 102, 25), {"negative balance": [DAN]}),
    ("no such order", lambda m: spoil_php(m, "eb_user_brokerage", 1, link_id=999), {"unknown order": [MEI]}),
    ("an order not received", lambda m: m.order(103, CAI, 22, one=50, two=20, status=1), {"not booked yet": [BO, MEI]}),
    ("a refund", lambda m: spoil_php(m, "eb_store_order", 101, refund_status=2, status=-2), {"refund not reversed": [MEI]}),
    ("a refund of a part", php_refund_of_part, {"refund not reversed": [MEI]}),
    ("a commission twice", lambda m: m.move(BO, "one_brokerage", 800, 102, 21, frozen_day=27), {"paid twice": [BO]}),
    (
        "rows of nobody",
        lambda m: spoil_php(m, "eb_user_brokerage", 2, uid=77),
        {"balance": [BO], "unknown member": ["77"]},
    ),
    ("an order of nobody", lambda m: spoil_php(m, "eb_store_order", 101, uid=77), {"unknown member": ["77"]}),
    ("a row there twice", lambda m: m.table("eb_user").append(dict(m.row("eb_user", DAN, "uid"))), {"repeated rows": [DAN]}),
    ("a self referral", lambda m: spoil_php(m, "eb_user", DAN, "uid", spread_uid=DAN), {"self referral": [DAN]}),
    ("a circle", lambda m: spoil_php(m, "eb_user", MEI, "uid", spread_uid=BO), {"referral circle": [MEI, BO]}),
    ("nobody as referrer", lambda m: spoil_php(m, "eb_user", DAN, "uid", spread_uid=99), {"unknown referrer": [DAN]}),
    (
        "a referrer who came later",
        lambda m: spoil_php(m, "eb_user", MEI, "uid", spread_uid=DAN, spread_time=unix(1)),
        {"late referrer": [MEI]},
    ),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in PHP], ids=[case[0] for case in PHP])
def test_each_check_names_who_is_concerned_and_no_neighbour(
    tmp_path: Path, change: Callable[[Php], Any], expected: dict[str, list[str]]
) -> None:
    """CRMEB's PHP edition."""
    named = found(tmp_path, php_with(change))
    assert {name: sorted(ids) for name, ids in named.items()} == {name: sorted(ids) for name, ids in expected.items()}


def test_every_check_has_a_case() -> None:
    """That triggers it, above."""
    assert {name for _, _, expected in PHP for name in expected} == set(ABOUT)


def java_frozen_refund(mall: Java) -> None:
    """The edition takes back what is frozen and not what has thawed."""
    mall.row("eb_store_order", 101)["refund_status"] = 2
    mall.row("eb_store_order", 102)["refund_status"] = 2
    for row in mall.tables["eb_user_brokerage_record"][1:3]:
        row["status"] = 4


JAVA: list[tuple[str, Callable[[Java], Any], dict[str, list[str]]]] = [
    ("a balance", lambda m: m.row("eb_user", MEI, "uid").update(brokerage_price="3.01"), {"balance": [MEI]}),
    ("a running balance", lambda m: m.row("eb_user_brokerage_record", 5).update(balance="1.00"), {"running balance": [MEI]}),
    ("a withdrawal under way", lambda m: m.take(MEI, 100, 2, 26, status=5), {"open withdrawals": [MEI]}),
    ("a withdrawal refused and given back", lambda m: m.row("eb_user_extract", 1).update(status=-1), {"withdrawals": [MEI]}),
    ("an order not received", lambda m: m.earn(MEI, 70, 101, 20, status=1, thaw_day=0, level=2), {"not booked yet": [MEI]}),
    ("a refund of what has thawed", java_frozen_refund, {"refund not reversed": [MEI]}),
    ("no such order", lambda m: m.row("eb_user_brokerage_record", 2).update(link_id="order9"), {"unknown order": [BO]}),
    ("a commission twice", lambda m: m.earn(BO, 800, 102, 18, status=2, thaw_day=27), {"paid twice": [BO]}),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in JAVA], ids=[case[0] for case in JAVA])
def test_the_java_edition_s_own_ways(tmp_path: Path, change: Callable[[Java], Any], expected: dict[str, list[str]]) -> None:
    """Statuses instead of dates, thawing that moves the balance later, and a wallet's balance where one's own should stand."""
    mall = java()
    change(mall)
    assert found(tmp_path, mall) == expected


def yudao_cancelled(mall: Yudao) -> None:
    """Thawed on the 15th, taken back on the 23rd; the withdrawal of the 25th shows so. Nothing is wrong."""
    mall.row("trade_brokerage_record", 1).update(status=2, update_time=local(23))
    mall.row("trade_order_item", 1010)["after_sale_status"] = 20
    mall.row("trade_brokerage_record", 4)["total_price"] = 0
    mall.row("trade_brokerage_user", MEI)["brokerage_price"] = -500


YUDAO: list[tuple[str, Callable[[Yudao], Any], dict[str, list[str]]]] = [
    ("a balance", lambda m: m.row("trade_brokerage_user", MEI).update(brokerage_price=501), {"balance": [MEI]}),
    ("a frozen figure", lambda m: m.row("trade_brokerage_user", BO).update(frozen_price=801), {"frozen": [BO]}),
    ("a running balance", lambda m: m.row("trade_brokerage_record", 4).update(total_price=999), {"running balance": [MEI]}),
    ("a withdrawal under way", lambda m: m.withdraw(2, MEI, 100, 25, status=0), {"open withdrawals": [MEI]}),
    ("a withdrawal that failed", lambda m: m.row("trade_brokerage_withdraw", 1).update(status=21), {"open withdrawals": [MEI]}),
    ("a withdrawal refused, not given back", lambda m: m.row("trade_brokerage_withdraw", 1).update(status=20), {"withdrawals": [MEI]}),
    ("an item returned", lambda m: m.row("trade_order_item", 1010).update(after_sale_status=20), {"refund not reversed": [MEI]}),
    ("an order refunded", lambda m: m.row("trade_order", 102).update(refund_status=20), {"refund not reversed": [BO, MEI]}),
    ("an order cancelled after it was paid", lambda m: m.row("trade_order", 101).update(status=40), {"refund not reversed": [MEI]}),
    ("a commission cancelled", yudao_cancelled, {"negative balance": [MEI]}),
    ("no such item", lambda m: m.row("trade_brokerage_record", 2).update(biz_id=5), {"unknown order": [BO]}),
    ("a buyer without an account", lambda m: m.order(103, "9", 7), {"unknown member": ["9"]}),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in YUDAO], ids=[case[0] for case in YUDAO])
def test_yudao_s_own_ways(tmp_path: Path, change: Callable[[Yudao], Any], expected: dict[str, list[str]]) -> None:
    """Its frozen figure is a column, its rows show the balance before them, and cancelling rewrites a row."""
    mall = yudao()
    change(mall)
    assert found(tmp_path, mall) == expected


def test_figures_of_a_check_are_of_all_members_where_it_compares_columns(tmp_path: Path) -> None:
    """And of the findings elsewhere."""
    mall = php_with(lambda mall: spoil_php(mall, "eb_user", MEI, "uid", brokerage_price="9.01"))
    assert figures(tmp_path, mall, "balance") == (1701, 1700)
    mall.extract(2, MEI, 100, 25, status=0)
    assert figures(tmp_path, mall, "open withdrawals") == (100, None)
    assert figures(tmp_path, mall, "withdrawals") == (600, 600)


def test_a_break_in_the_running_balance_is_told_once(tmp_path: Path) -> None:
    """All rows after it follow from it."""
    mall = php()
    mall.row("eb_user_brokerage", 1)["balance"] = "11.00"
    mall.row("eb_user_brokerage", 3)["balance"] = "15.00"
    mall.row("eb_user_brokerage", 4)["balance"] = "10.00"
    assert found(tmp_path, mall) == {"running balance": [MEI]}


def test_an_order_that_was_split_is_awaited_in_its_parts(tmp_path: Path) -> None:
    """And a part that has paid is awaited no more."""
    mall = php()
    mall.order(103, CAI, 22, one=50, status=1)
    mall.order(104, CAI, 22, one=30, status=1, pid=103)
    mall.order(105, CAI, 22, one=20, pid=103)
    mall.move(BO, "one_brokerage", 20, 105, 24, frozen_day=27)
    assert found(tmp_path, mall) == {"not booked yet": [BO]}
    assert figures(tmp_path, mall, "not booked yet") == (None, 30)


def test_cells_may_be_bare_with_everything_in_them_escaped(tmp_path: Path) -> None:
    """As MySQL writes them when it is told of commas and of no quotes."""
    files = php().write(tmp_path / "export")
    header = "id,uid,user_address,paid,pay_time,status,refund_status,add_time\n"
    rows = [f'{id},{uid},By\\, the \\\nsea \\N "1",1,{unix(day)},2,0,{unix(day)}\n' for id, uid, day in ((101, BO, 6), (102, CAI, 18))]
    (files / "eb_store_order.csv").write_text(header + "".join(rows), encoding="utf-8")
    summary = carry.look(Job(files, "crmeb", "p", tmp_path / "r", tmp_path / "report.csv"))
    assert summary.mall.paid_us == {BO: unix(6) * 1_000_000, CAI: unix(18) * 1_000_000}
    assert not [check.name for check in summary.checks if check.findings]


def test_everybody_on_a_circle_and_nobody_below_it_goes_in_without_a_referrer(tmp_path: Path) -> None:
    """So do those who brought themselves, or were brought by nobody there is."""
    mall = php()
    mall.user("5", 6, MEI)
    spoil_php(mall, "eb_user", MEI, "uid", spread_uid=CAI)
    spoil_php(mall, "eb_user", DAN, "uid", spread_uid=99)
    facts = told(tmp_path, mall)
    brought = {fact.member: fact.message.referrer_id for fact in facts if fact.step in (Step.MEMBER, Step.TOUCH)}
    assert brought == {MEI: "", BO: "", CAI: "", DAN: "", "5": MEI}
    assert found(tmp_path, mall) == {"referral circle": [MEI, CAI, BO], "unknown referrer": [DAN]}


# ---------------------------------------------------------------- how exports are written


@pytest.mark.parametrize("null", [r"\N", "NULL", ""])
@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("name", MALLS)
def test_null_and_byte_order_marks_are_read_as_meant(tmp_path: Path, name: str, null: str, bom: bool) -> None:
    """Whichever client wrote the files."""
    plain = told(tmp_path, MALLS[name]())
    MALLS[name]().write(tmp_path / "other", null=null, bom=bom)
    other = carry.look(Job(tmp_path / "other", "yudao" if name == "yudao" else "crmeb", "p", tmp_path / "r", tmp_path / "report.csv"))
    assert carry.facts(other.mall, ALL) == plain


def test_quotes_may_be_doubled_or_escaped(tmp_path: Path) -> None:
    """Clients double them, MySQL itself writes a backslash; a file is read the way in which its rows come out even."""
    plain = told(tmp_path, php())
    path = tmp_path / "export" / "eb_user.csv"
    path.write_text(path.read_text().replace('""', r"\""))
    assert r"\"quoted\"" in path.read_text()
    assert carry.facts(carry.look(Job(tmp_path / "export", "crmeb", "p", tmp_path / "r", tmp_path / "report.csv")).mall, ALL) == plain


@pytest.mark.parametrize("name", ["user.csv", "WX_User.CSV", "shop1_user.csv.gz"])
def test_files_are_named_like_the_table_with_or_without_a_prefix(tmp_path: Path, name: str) -> None:
    """A prefix is one word, so that eb_wechat_user is no eb_user; and gzip is read."""
    export = php().write(tmp_path / "export")
    text = (export / "eb_user.csv").read_bytes()
    (export / "eb_user.csv").unlink()
    (export / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (export / "eb_wechat_user.csv").write_text("openid\n")
    summary = carry.look(Job(export, "crmeb", "p", tmp_path / "r", tmp_path / "report.csv"))
    assert len(summary.mall.members) == 4
    assert summary.mall.files["members"] == name


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    """They are sorted by their numbers; what is sent is the same."""
    mall = php()
    plain = [fact._replace(line=0) for fact in told(tmp_path, mall)]
    for rows in mall.tables.values():
        rows.reverse()
    assert [fact._replace(line=0) for fact in told(tmp_path, mall)] == plain
    assert found(tmp_path, mall) == {}


def test_rows_yudao_marks_as_deleted_are_not_there(tmp_path: Path) -> None:
    """A record that is deleted and counted is missed, as the mall misses it."""
    mall = yudao()
    mall.row("trade_brokerage_record", 2)["deleted"] = "\x01"
    mall.row("trade_brokerage_user", DAN)["deleted"] = 1
    assert found(tmp_path, mall) == {"frozen": [BO]}
    assert [fact.member for fact in told(tmp_path, mall) if fact.step is Step.MEMBER] == [MEI, BO, CAI]


def without(column: str, table: str) -> Callable[[Php], Any]:
    return lambda mall: [row.pop(column) for row in mall.tables[table]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.tables.pop("eb_user"), "has no eb_user.csv or eb_user.csv.gz"),
        (lambda m: m.tables.pop("eb_user_extract"), "has no eb_user_extract.csv or eb_user_extract.csv.gz"),
        (lambda m: m.tables.pop("eb_user_brokerage"), r"no eb_user_brokerage.csv \(PHP, 4.4 or later\) or eb_user_brokerage_record.csv"),
        (lambda m: m.tables.update(user=m.tables["eb_user"]), "has both eb_user.csv and user.csv; leave one"),
        (lambda m: m.tables.update(eb_user_brokerage_record=m.tables["eb_user"]), "both eb_user_brokerage.csv and eb_user_brokerage_rec"),
        (without("brokerage_price", "eb_user"), "eb_user.csv: the header lacks brokerage_price; the first row names the table's columns"),
        (lambda m: spoil_php(m, "eb_user", BO, "uid", uid="bo"), "eb_user.csv line 3: uid: 'bo' is not a row's number"),
        (lambda m: spoil_php(m, "eb_user", BO, "uid", brokerage_price=None), "eb_user.csv line 3: brokerage_price is empty"),
        (lambda m: spoil_php(m, "eb_user", BO, "uid", brokerage_price="8.005"), "eb_user.csv line 3: brokerage_price: '8.005' is not an"),
        (lambda m: spoil_php(m, "eb_user", BO, "uid", brokerage_price="1,000.00"), "brokerage_price: '1,000.00' is not an amount"),
        (lambda m: spoil_php(m, "eb_user", BO, "uid", add_time="2026-03-02"), "add_time: '2026-03-02' is not a whole number"),
        (lambda m: spoil_php(m, "eb_user_extract", 1, status=7), "eb_user_extract.csv line 2: status 7 is not -1, 0 or 1"),
        (lambda m: m.row("eb_user_brokerage", 2).update(id=1), "id 1 stands in line 2 and in line 3, with other uid, link_id, number, bal"),
    ],
)
def test_an_export_that_is_not_understood_goes_in_not_at_all(tmp_path: Path, change: Callable[[Php], Any], sentence: str) -> None:
    """One sentence says where and why."""
    mall = php()
    change(mall)
    with pytest.raises(Unreadable, match=sentence):
        carry.look(job(tmp_path, mall))


def test_an_export_of_two_tenants_goes_in_not_at_all(tmp_path: Path) -> None:
    """One shop's balances are not opened in another's books."""
    mall = yudao()
    mall.row("trade_brokerage_user", DAN)["tenant_id"] = 2
    with pytest.raises(Unreadable, match=r"rows of 2 tenants \(1, 2\); export one, by tenant_id"):
        carry.look(job(tmp_path, mall))


@pytest.mark.parametrize(
    ("bytes_", "sentence"),
    [
        (b"", "the header lacks uid, add_time"),
        ("uid,名\n1,mei\n".encode("gbk"), "eb_user.csv is not UTF-8"),
        (b"uid,uid\n", "the header lacks"),
        (b'uid,add_time,spread_uid,spread_time,brokerage_price,is_promoter\n1,1,0,0,"1.00,1\n', "eb_user.csv line 2: not CSV"),
        (b"uid,add_time,spread_uid,spread_time,brokerage_price,is_promoter\n1,1,0,0\n", "line 2: 4 columns, the header has 6"),
    ],
)
def test_a_file_that_is_no_table_ends_the_import(tmp_path: Path, bytes_: bytes, sentence: str) -> None:
    files = php().write(tmp_path / "export")
    (files / "eb_user.csv").write_bytes(bytes_)
    with pytest.raises(Unreadable, match=sentence):
        carry.look(Job(files, "crmeb", "p", tmp_path / "r", tmp_path / "report.csv"))


@pytest.mark.parametrize("text", ["8", "+8:00", "08:00", "+15:00", "+08:60", "Asia/Shanghai"])
def test_a_zone_is_an_offset(text: str) -> None:
    """China keeps one; names would need a database of them."""
    with pytest.raises(ValueError, match=r"is not an offset such as \+08:00"):
        exports.zone(text)
