"""What the importer makes of files: which facts, in which order, and which rows stay out."""

import gzip
from pathlib import Path

import pytest

from services.importer.files import Fact, Kind, Rejected, Unreadable, find, survey
from services.importer.run import batches, effective_from, merged

MEMBERS = "member_id,joined_at,referrer_id\nann,2026-01-01T08:00:00Z,\nbob,2026-01-01T09:00:00Z,ann\n"
ORDER_COLUMNS = "order_id,member_id,paid_at,line_no,sku,quantity,amount_minor\n"
ORDERS = ORDER_COLUMNS + "O1,bob,2026-01-02T10:00:00Z,1,tea,2,17903\nO1,bob,2026-01-02T10:00:00Z,2,cup,1,8996\n"
REFUND_COLUMNS = "refund_id,order_id,line_no,quantity,amount_minor,refunded_at\n"
UPGRADE_COLUMNS = "upgrade_id,member_id,tier,upgraded_at,order_id\n"


def importing(
    directory: Path,
    members: str | bytes = MEMBERS,
    orders: str | bytes = ORDERS,
    upgrades: str | bytes = UPGRADE_COLUMNS,
    refunds: str | bytes = REFUND_COLUMNS,
    complete_after_days: int | None = None,
) -> tuple[list[Fact], list[Rejected]]:
    """The facts that would be sent, and the rows that stay out."""
    for name, content in {"members": members, "orders": orders, "upgrades": upgrades, "refunds": refunds}.items():
        (directory / f"{name}.csv").write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogateescape"))
    rejected: list[Rejected] = []
    tables = [(table, survey(table)) for table in find(directory)]
    return list(merged(tables, complete_after_days, rejected.append)), rejected


def ids(facts: list[Fact]) -> list[str]:
    return [f"{fact.kind.name.lower()} {fact.id}" for fact in facts]


def lines(rejected: list[Rejected]) -> list[int]:
    return [row.line for row in rejected]


# ---------------------------------------------------------------- facts


def test_the_lines_of_an_order_make_one_fact(tmp_path: Path) -> None:
    """With the buyer, the time, and every line in minor units."""
    facts, rejected = importing(tmp_path)
    order = facts[-1].message
    assert (order.order_id, order.member_id, order.paid_at.ToJsonString()) == ("O1", "bob", "2026-01-02T10:00:00Z")
    assert [(line.line_no, line.sku, line.quantity, line.base_minor) for line in order.lines] == [(1, "tea", 2, 17903), (2, "cup", 1, 8996)]
    assert (facts[-1].lines, rejected) == ((2, 3), [])


def test_facts_of_one_instant_apply_as_member_order_upgrade_refund_completion(tmp_path: Path) -> None:
    """Whatever the file; and by time before that."""
    at = "2026-01-01T08:00:00Z"
    facts, rejected = importing(
        tmp_path,
        members=f"member_id,joined_at,referrer_id\nann,{at},\n",
        orders=ORDER_COLUMNS + f"O1,ann,{at},1,tea,1,100\nO2,ann,2026-01-01T08:00:01Z,1,tea,1,100\n",
        upgrades=UPGRADE_COLUMNS + f"U1,ann,manager,{at},O1\n",
        refunds=REFUND_COLUMNS + f"R1,O1,1,1,100,{at}\n",
        complete_after_days=0,
    )
    assert ids(facts) == ["member ann", "order O1", "upgrade U1", "refund R1/O1", "completion O1", "order O2", "completion O2"]
    assert rejected == []


def test_a_completion_is_never_dated_after_the_last_instant_of_the_files(tmp_path: Path) -> None:
    """An order paid within the last days stays open: the data do not tell how it went on."""
    orders = ORDERS + "O2,ann,2026-01-09T10:00:00Z,1,tea,1,100\nO3,ann,2026-01-10T10:00:00Z,1,tea,1,100\n"
    facts, _ = importing(tmp_path, orders=orders, complete_after_days=7)
    assert ids(facts)[2:] == ["order O1", "order O2", "completion O1", "order O3"]
    assert facts[4].message.completed_at.ToJsonString() == "2026-01-09T10:00:00Z"


def test_a_file_out_of_order_is_sorted_and_says_where(tmp_path: Path) -> None:
    """Rows of one instant keep the order of the file."""
    members = "member_id,joined_at,referrer_id\ncat,2026-01-03T08:00:00Z,\nann,2026-01-01T08:00:00Z,\nbob,2026-01-01T08:00:00Z,ann\n"
    facts, rejected = importing(tmp_path, members=members)
    assert ids(facts) == ["member ann", "member bob", "order O1", "member cat"]
    assert (survey(find(tmp_path)[0]).disorder, rejected) == (3, [])


def test_lines_of_an_order_need_not_stand_together(tmp_path: Path) -> None:
    """All rows of an instant are read before its orders are formed."""
    orders = ORDER_COLUMNS + "".join(f"{order},ann,2026-01-02T10:00:00Z,{line},tea,1,100\n" for line in (1, 2) for order in ("O1", "O2"))
    facts, _ = importing(tmp_path, orders=orders)
    assert [(fact.id, fact.lines) for fact in facts[2:]] == [("O1", (2, 4)), ("O2", (3, 5))]


def test_a_line_may_be_refunded_twice_in_one_credit_note(tmp_path: Path) -> None:
    """And a credit note over two orders is two facts."""
    rows = "R1,O1,1,1,100,2026-01-03T00:00:00Z\nR1,O1,1,0,50,2026-01-03T00:00:00Z\nR1,O0,1,1,5,2026-01-03T00:00:00Z\n"
    facts, _ = importing(tmp_path, refunds=REFUND_COLUMNS + rows)
    assert [(fact.id, [(line.line_no, line.quantity, line.base_minor) for line in fact.message.lines]) for fact in facts[-2:]] == [
        ("R1/O1", [(1, 1, 100), (1, 0, 50)]),
        ("R1/O0", [(1, 1, 5)]),
    ]


def test_an_upgrade_with_an_order_has_it_as_evidence(tmp_path: Path) -> None:
    """One without counts as carried over from the other system."""
    rows = "U1,bob,member,2026-01-02T10:00:00Z,O1\nU2,bob,manager,2026-01-02T10:00:00Z,\n"
    facts, _ = importing(tmp_path, upgrades=UPGRADE_COLUMNS + rows)
    assert [(fact.message.evidence.kind, fact.message.evidence.order_id) for fact in facts[-2:]] == [(1, "O1"), (4, "")]


def test_files_may_be_gzipped_and_have_columns_in_any_order_and_others_besides(tmp_path: Path) -> None:
    """Cells in quotes, a byte order mark and Windows line ends are read as meant."""
    text = '\ufefflongitude,referrer_id,joined_at,member_id\r\n"8,5",,2026-01-01T09:00:00+01:00,ann\r\n\r\n,ann,2026-01-01 09:00Z,bob\r\n'
    importing(tmp_path)
    (tmp_path / "members.csv").unlink()
    (tmp_path / "members.csv.gz").write_bytes(gzip.compress(text.encode()))
    table = find(tmp_path)[0]
    rows = list(table.rows())
    assert [(row.line, row.key, row.values["joined_at"], row.problem) for row in rows] == [
        (2, ("ann",), 1767254400_000000, ""),
        (4, ("bob",), 1767258000_000000, ""),
    ]
    assert table.unused == ["longitude"]


# ---------------------------------------------------------------- rows that stay out


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("O2,ann,2026-01-02T10:00:00Z,1,tea,1", "6 columns, the header has 7"),
        ("O2,ann,2026-01-02T10:00:00Z,1,tea,1,100,", "8 columns, the header has 7"),
        (
            "O2,ann,2026-01-02T10:00:00,1,tea,1,100",
            "paid_at: 2026-01-02T10:00:00 has no time zone; write one, such as 2026-01-01T00:00:00Z",
        ),
        ("O2,ann,yesterday,1,tea,1,100", "paid_at: 'yesterday' is not a time such as 2026-01-31T08:00:00Z"),
        ("O2,ann,2026-02-30T10:00:00Z,1,tea,1,100", "paid_at: day is out of range for month"),
        ("O2,ann,2026-01-02T10:00:00.1234567Z,1,tea,1,100", "paid_at: '2026-01-02T10:00:00.1234567Z' is not a time such as"),
        ("O2,ann,2026-01-02T10:00:00Z,1,tea,1,12.50", "amount_minor: '12.50' is not a whole number"),
        ("O2,ann,2026-01-02T10:00:00Z,1,tea,1,-5", "amount_minor: '-5' is not a whole number"),
        ("O2,ann,2026-01-02T10:00:00Z,1,tea,1,1_000", "amount_minor: '1_000' is not a whole number"),
        ("O2,ann,2026-01-02T10:00:00Z,1,tea,1,", "amount_minor: '' is not a whole number"),
        ("O2,ann,2026-01-02T10:00:00Z,0,tea,1,100", "line_no: '0' is not a line number"),
        ("O2,ann b,2026-01-02T10:00:00Z,1,tea,1,100", "member_id: 'ann b' is not an id"),
        (",ann,2026-01-02T10:00:00Z,1,tea,1,100", "order_id: '' is not an id"),
        ('O2,ann,2026-01-02T10:00:00Z,1,"tea,1,100', "not CSV"),
    ],
)
def test_a_malformed_row_stays_out_and_harms_no_other(tmp_path: Path, row: str, message: str) -> None:
    """Its message names the column and what was wrong; the row after it, and every other order, goes in."""
    facts, rejected = importing(tmp_path, orders=ORDERS + row + "\nO3,ann,2026-01-02T11:00:00Z,1,tea,1,100\n")
    assert ids(facts)[2:] == ["order O1", "order O3"]
    assert [(one.kind, one.line, one.reason) for one in rejected] == [(Kind.ORDER, 4, "MALFORMED")]
    assert rejected[0].message.startswith(message)


def test_bytes_that_are_not_utf_8_spoil_their_row_alone(tmp_path: Path) -> None:
    """Not the rows around it."""
    facts, rejected = importing(
        tmp_path, orders=ORDERS.encode() + b"O2,ann,2026-01-02T10:00:00Z,1,t\xe9,1,100\nO3,ann,2026-01-02T11:00:00Z,1,t,1,1\n"
    )
    assert ids(facts)[2:] == ["order O1", "order O3"]
    assert (lines(rejected), rejected[0].message) == ([4], "not UTF-8: byte 0xe9 at 32")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("O2,ann,2026-01-02T10:00:00Z,2,cup,1,one", "line 5 of the same order is malformed"),
        ("O2,ann,2026-01-02T10:00:00Z,2,cup,1", "line 5 of the same order is malformed"),
        ('O2,ann,2026-01-02T10:00:00Z,2,"cup,1,100', "line 5 of the same order is malformed"),
        ("O2,ann,2026-01-02T10:00:00Z,2,\udcff,1,100", "line 5 of the same order is malformed"),
        ("O2,ann,2026-01-02T10:00:01Z,2,cup,1,100", "lines 4 and 5 differ in paid_at"),
        ("O2,bob,2026-01-02T10:00:00Z,2,cup,1,100", "lines 4 and 5 differ in member_id"),
        ("O2,ann,2026-01-02T10:00:00Z,1,tea,1,101", "lines 4 and 5 are both line_no 1, with different content"),
    ],
)
def test_one_bad_line_keeps_out_its_whole_order(tmp_path: Path, second: str, message: str) -> None:
    """An order that is short of a line would pay the wrong people for ever. Each of its lines is listed."""
    facts, rejected = importing(
        tmp_path, orders=ORDERS + "O2,ann,2026-01-02T10:00:00Z,1,tea,1,100\n" + second + "\n", complete_after_days=0
    )
    assert ids(facts)[2:] == ["order O1", "completion O1"]
    assert (lines(rejected), rejected[0].message) == ([4, 5], message)


def test_a_line_given_twice_alike_counts_once(tmp_path: Path) -> None:
    """Both rows belong to the order."""
    facts, rejected = importing(tmp_path, orders=ORDERS + ORDERS.splitlines()[-1] + "\n")
    assert ([line.line_no for line in facts[-1].message.lines], facts[-1].lines, rejected) == ([1, 2], (2, 3, 4), [])


def test_a_refund_whose_rows_differ_in_time_is_dated_at_the_latest(tmp_path: Path) -> None:
    """A credit note written over two days is one refund, when it is complete; wherever its rows stand in the file."""
    rows = "R1,O1,1,1,100,2026-01-03T00:00:00Z\nR2,O1,1,1,100,2026-01-03T00:00:00Z\nR1,O1,2,1,100,2026-01-04T00:00:00Z\n"
    facts, rejected = importing(tmp_path, refunds=REFUND_COLUMNS + rows)
    assert ids(facts)[3:] == ["refund R2/O1", "refund R1/O1"]
    assert facts[-1].message.refunded_at.ToJsonString() == "2026-01-04T00:00:00Z"
    assert (facts[-1].lines, rejected) == ((2, 4), [])


@pytest.mark.parametrize(
    ("given", "reason", "message"),
    [
        (
            {"members": MEMBERS + "cat,2026-01-01T10:00:00Z,dan\ndan,2026-01-01T10:00:00Z,\n"},
            "MEMBER_UNKNOWN",
            "member 'dan' comes later: line 5",
        ),
        (
            {"members": MEMBERS + "cat,2026-01-03T08:00:00Z,\n", "orders": ORDERS + "O2,cat,2026-01-02T10:00:00Z,1,t,1,1\n"},
            "MEMBER_UNKNOWN",
            "",
        ),
        ({"upgrades": UPGRADE_COLUMNS + "U1,bob,member,2026-01-02T09:59:59Z,O1\n"}, "ORDER_UNKNOWN", "order 'O1' comes later: line 2"),
        ({"refunds": REFUND_COLUMNS + "R1,O1,1,1,1,2026-01-02T09:59:59Z\n"}, "ORDER_UNKNOWN", "order 'O1' comes later: line 2"),
    ],
)
def test_a_row_may_refer_only_to_rows_before_it(tmp_path: Path, given: dict[str, str], reason: str, message: str) -> None:
    """The server would refuse it in a first run and know the other by the time of a second one; the log must not depend on that."""
    _, rejected = importing(tmp_path, **given)  # type: ignore[arg-type]
    assert [row.reason for row in rejected] == [reason]
    assert message in rejected[0].message


def test_what_the_files_do_not_tell_is_left_to_the_server(tmp_path: Path) -> None:
    """A referrer or an order without a row here may have come with an earlier import."""
    facts, rejected = importing(
        tmp_path,
        members=MEMBERS + "cat,2026-01-01T10:00:00Z,from-last-year\n",
        refunds=REFUND_COLUMNS + "R1,from-last-year,1,1,1,2026-01-02T09:59:59Z\n",
    )
    assert (ids(facts)[2], ids(facts)[3], rejected) == ("member cat", "refund R1/from-last-year", [])


# ---------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (b"member_id,joined_at\n", "members.csv: the header lacks referrer_id"),
        (b"member_id,joined_at,referrer_id,member_id\n", "members.csv: the header names a column twice"),
        (b"", "members.csv: the file is empty"),
        (b"\xff\xfe", "members.csv: not UTF-8"),
    ],
)
def test_a_file_without_its_columns_ends_the_import(tmp_path: Path, members: bytes, message: str) -> None:
    """Before anything is sent: a misspelt referrer_id must not pay nobody in silence."""
    with pytest.raises(Unreadable, match=message):
        importing(tmp_path, members=members)


def test_a_gzip_file_that_breaks_off_ends_the_import(tmp_path: Path) -> None:
    """The survey reads every file to its end first."""
    importing(tmp_path)
    (tmp_path / "orders.csv").unlink()
    (tmp_path / "orders.csv.gz").write_bytes(gzip.compress(ORDERS.encode())[:-12])
    with pytest.raises(Unreadable, match=r"orders.csv.gz cannot be read to its end"):
        survey(find(tmp_path)[1])


def test_members_and_orders_are_required_and_each_file_is_there_once(tmp_path: Path) -> None:
    """Refunds and upgrades may be absent; two files of one name leave it open which one counts."""
    importing(tmp_path)
    (tmp_path / "refunds.csv").unlink()
    (tmp_path / "upgrades.csv").unlink()
    assert [table.kind for table in find(tmp_path)] == [Kind.MEMBER, Kind.ORDER]
    (tmp_path / "members.csv.gz").write_bytes(b"")
    with pytest.raises(Unreadable, match=r"both members.csv and members.csv.gz"):
        find(tmp_path)
    (tmp_path / "members.csv.gz").unlink()
    (tmp_path / "members.csv").unlink()
    with pytest.raises(Unreadable, match=r"has no members.csv"):
        find(tmp_path)


# ---------------------------------------------------------------- what is sent


def test_batches_keep_the_order_of_time(tmp_path: Path) -> None:
    """All kinds go together; a batch ends before the completion of an order that is in it."""
    orders = ORDERS + "O2,ann,2026-01-02T11:00:00Z,1,tea,1,100\n"
    refunds = REFUND_COLUMNS + "R1,O1,1,1,100,2026-01-02T12:00:00Z\nR2,O1,1,1,100,2026-01-09T12:00:00Z\n"
    facts, _ = importing(tmp_path, orders=orders, refunds=refunds, complete_after_days=1)
    assert [ids(batch) for batch in batches(facts)] == [
        ["member ann", "member bob", "order O1", "order O2", "refund R1/O1"],
        ["completion O1", "completion O2", "refund R2/O1"],
    ]


def test_a_batch_holds_at_most_500_facts(tmp_path: Path) -> None:
    """As the contract says."""
    orders = ORDER_COLUMNS + "".join(f"O{number},ann,2026-01-02T10:00:00Z,1,tea,1,100\n" for number in range(1201))
    facts, _ = importing(tmp_path, orders=orders)
    assert [len(batch) for batch in batches(facts)] == [500, 500, 203]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("plan: p\nversion: 1\n", 'plan: p\nversion: 1\neffective:\n  from: "T"\n'),
        ("effective:\n  until: U\nrate: 10%\n", 'effective:\n  until: U\n  from: "T"\nrate: 10%\n'),
        ('effective: {from: "F"}\n', 'effective: {from: "F"}\n'),
        ("effective: soon\n", "effective: soon\n"),
        ('{"plan": "p", "a": 0.10, "at": 2026-01-01}', '{"plan": "p", "a": 0.10, "at": 2026-01-01, effective: {from: "T"}}\n'),
        ("plan: p\nplan: q\n", 'plan: p\nplan: q\neffective:\n  from: "T"\n'),
        ("- no plan\n", "- no plan\n"),
        ("plan: [\n", "plan: [\n"),
    ],
)
def test_a_plan_that_does_not_say_from_when_is_in_force_from_the_earliest_row(document: str, expected: str) -> None:
    """Nothing else in it changes, doubled keys included: judging it is the server's."""
    assert effective_from(document, "T") == expected
