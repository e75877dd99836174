"""The picture of a simulation: whole numbers only, whatever is drawn."""

import re
from itertools import pairwise
from xml.etree import ElementTree as Xml

import pytest

from services.ledger.cli.picture import RULES_SHOWN, WIDTH, Asset, Column, Pair, draw, gathered, shortened, spread

NS = "{http://www.w3.org/2000/svg}"
LONG = Pair("a-rule-with-a-name-that-is-really-far-too-long-" * 2, 12_345_678, 9_876_543)


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in Xml.fromstring(svg.encode()).iter(f"{NS}text")]


@pytest.mark.parametrize(
    ("rules", "members"),
    [
        ([], []),
        ([Pair("first", 0, 0)], []),
        ([Pair("first", 1000, 1200)], [Pair("B", 1000, 1200)]),
        ([Pair(f"rule-{n}", n * 977 % 5000, n * 641 % 5000) for n in range(200)], [Pair(f"m{n}", 100, n) for n in range(300)]),
        ([Pair("一级分享", -500, 300), Pair("<&>\"'", 1, -1), LONG], [Pair("王", 10**15, -(10**15)), Pair("李", 0, 1)]),
        ([Pair("less", -900, -300)], [Pair("B", 500, 20)]),
    ],
    ids=["nothing", "zeros", "one", "many", "odd", "negative"],
)
def test_every_picture_is_well_formed_and_stays_in_its_frame(rules: list[Pair], members: list[Pair]) -> None:
    svg = draw("草案 on tea", ["all that is recorded"], [Asset("CNY", rules, members), Asset("points", [], [])])
    root = Xml.fromstring(svg.encode())
    _, _, width, height = map(int, root.attrib["viewBox"].split())
    assert width == WIDTH
    for rect in root.iter(f"{NS}rect"):
        x, y, wide, high = (int(rect.get(name, "0")) for name in ("x", "y", "width", "height"))
        assert wide >= 0 and high > 0 and x >= 0 and x + wide <= width and y + high <= height, rect.attrib
    assert all(int(text.get("y", "0")) <= height for text in root.iter(f"{NS}text"))
    assert not re.search(r'="-?\d+\.\d', svg.partition("?>")[2])
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", ""), "it needs nothing from elsewhere"


def test_too_many_rules_are_gathered_and_none_is_lost() -> None:
    pairs = [Pair(f"r{n}", n, 2 * n) for n in range(200)]
    shown, others = gathered(pairs)
    assert shown == pairs[-RULES_SHOWN:]
    assert others == Pair("160 smaller rules", sum(range(160)), 2 * sum(range(160)))
    assert gathered(pairs[:3]) == (pairs[:3], None)


@pytest.mark.parametrize("scale", [1, 7, 250, 10**6, 10**14])
def test_everybody_is_in_one_column(scale: int) -> None:
    differences = [scale * n for n in range(-20, 35)] + [0, 0, 1, -1]
    columns = spread(differences)
    assert sum(column.people for column in columns) == len(differences)
    assert all(earlier.most < later.least for earlier, later in pairwise(columns))
    assert next(column for column in columns if column.least == 0).people == 3
    assert columns[0].people and columns[-1].people


def test_columns_step_by_one_two_five() -> None:
    assert spread([]) == []
    assert spread([0, 0]) == [Column(0, 0, 2)]
    assert spread([3, 7]) == [Column(0, 0, 0), Column(1, 1, 0), Column(2, 4, 1), Column(5, 7, 1)]


def test_round_amounts_are_short() -> None:
    found = [shortened(minor, "CNY") for minor in (5, -50_000, 200_000, 100_000_000, -(10**15))]
    assert found == ["+0.05", "-500", "+2k", "+1M", "-10,000G"]


def test_a_negative_bar_grows_to_the_left_of_zero() -> None:
    svg = draw("t", [], [Asset("CNY", [Pair("r", -100, 100)], [])])
    bars = [rect for group in Xml.fromstring(svg.encode()).iter(f"{NS}g") for rect in group.iter(f"{NS}rect")]
    left, right = ((int(bar.get("x", "0")), int(bar.get("width", "0"))) for bar in bars)
    assert left[0] + left[1] == right[0] and left[1] == right[1]
    assert "+2.00" in texts(svg)
