"""A simulation as a picture: recorded against simulated by rule, and how the differences spread over people. One self-contained SVG.

Written with the standard library: it is rectangles and text, and the chart libraries that could draw them bring more than this file holds.
Every length is a whole number, scaled by integer arithmetic from minor units: no float comes near an amount.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree as Xml

from services.runtime.currency import to_major

WIDTH, MARGIN, LABELS, FIGURES = 960, 32, 210, 150
BAR, ROW = 10, 34
# Rules shown by themselves; what is smaller is one row together.
RULES_SHOWN = 40
# Steps 1, 2, 5, 10, …, counted from the largest difference down; what is smaller is one column together.
STEPS_SHOWN = 8
COLUMNS_HEIGHT = 180
HOW_TO_READ = "people by difference; a column reaches from its label to the next one further from 0"
INK, FAINT, RULE_LINE = "#1f2933", "#616e7c", "#cbd2d9"
RECORDED, SIMULATED, LESS, MORE, SAME = "#9aa5b1", "#2563a8", "#b4472f", "#2f7d4f", "#9aa5b1"
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"


class Pair(NamedTuple):
    """Recorded and simulated, minor units, of a rule or a member."""

    key: str
    recorded: int
    simulated: int

    @property
    def difference(self) -> int:
        return self.simulated - self.recorded


class Asset(NamedTuple):
    """What is drawn of one asset."""

    name: str
    rules: Sequence[Pair]
    members: Sequence[Pair]


def draw(title: str, lines: Sequence[str], assets: Sequence[Asset]) -> str:
    """The SVG. `lines` stand below the title."""
    root = Xml.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "font-family": FONTS, "font-size": "13", "fill": INK})
    Xml.SubElement(root, "title").text = title
    background = Xml.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    y = MARGIN + 14
    _text(root, MARGIN, y, _clipped(title, WIDTH - 2 * MARGIN, 20), size=20, weight="600")
    for line in lines:
        y += 22
        _text(root, MARGIN, y, _clipped(line, WIDTH - 2 * MARGIN), fill=FAINT)
    for asset in assets:
        y = _by_rule(root, y + 44, asset)
        y = _by_member(root, y + 44, asset)
    height = y + MARGIN
    root.attrib |= {"viewBox": f"0 0 {WIDTH} {height}", "width": str(WIDTH), "height": str(height), "role": "img"}
    background.attrib |= {"width": str(WIDTH), "height": str(height)}
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


# ---------------------------------------------------------------- by rule


def _by_rule(root: Xml.Element, y: int, asset: Asset) -> int:
    """Two bars for each rule, from a common zero; gives where it ends."""
    _text(root, MARGIN, y, f"By rule, {asset.name}", size=15, weight="600")
    _legend(root, y, (("recorded", RECORDED), ("simulated", SIMULATED)))
    y += 14
    pairs, others = gathered(asset.rules)
    if not pairs:
        _text(root, MARGIN, y + 20, "No rule gave anything.", fill=FAINT)
        return y + 28
    left, width = MARGIN + LABELS, WIDTH - 2 * MARGIN - LABELS - FIGURES
    values = [value for pair in pairs for value in (pair.recorded, pair.simulated)]
    least, most = min(0, *values), max(0, *values)
    span = (most - least) or 1
    zero = left + -least * width // span
    top = y
    for pair in pairs:
        group = Xml.SubElement(root, "g")
        figures = f"recorded {to_major(pair.recorded, asset.name)}, simulated {to_major(pair.simulated, asset.name)}"
        Xml.SubElement(group, "title").text = f"{pair.key}: {figures} {asset.name}, difference {signed(pair.difference, asset.name)}"
        _text(group, left - 12, y + ROW // 2 + 5, _clipped(pair.key, LABELS - 12), anchor="end")
        for number, (value, colour) in enumerate(((pair.recorded, RECORDED), (pair.simulated, SIMULATED))):
            # What is not nothing is seen.
            length = max(abs(value) * width // span, 1) if value else 0
            _rect(group, zero - length if value < 0 else zero, y + 6 + number * (BAR + 1), length, BAR, colour)
        _difference(group, y, pair, asset)
        y += ROW
    _line(root, zero, top, zero, y)
    if others is not None:
        # Together they may be larger than any: a bar would make all others small.
        _text(root, left - 12, y + ROW // 2 + 5, others.key, anchor="end", fill=FAINT)
        figures = f"recorded {to_major(others.recorded, asset.name)}, simulated {to_major(others.simulated, asset.name)}"
        _text(root, left, y + ROW // 2 + 5, figures, fill=FAINT)
        _difference(root, y, others, asset)
        y += ROW
    return y


def _difference(parent: Xml.Element, y: int, pair: Pair, asset: Asset) -> None:
    colour = MORE if pair.difference > 0 else LESS if pair.difference < 0 else FAINT
    _text(parent, WIDTH - MARGIN, y + ROW // 2 + 5, signed(pair.difference, asset.name), anchor="end", fill=colour)


def gathered(pairs: Sequence[Pair]) -> tuple[list[Pair], Pair | None]:
    """The rules that are shown, in the order given, and the smallest of too many as one."""
    if len(pairs) <= RULES_SHOWN:
        return list(pairs), None
    by_size = sorted(range(len(pairs)), key=lambda index: (-max(abs(pairs[index].recorded), abs(pairs[index].simulated)), index))
    shown = set(by_size[:RULES_SHOWN])
    rest = [pair for index, pair in enumerate(pairs) if index not in shown]
    others = Pair(f"{len(rest)} smaller rules", sum(pair.recorded for pair in rest), sum(pair.simulated for pair in rest))
    return [pair for index, pair in enumerate(pairs) if index in shown], others


# ---------------------------------------------------------------- by member


class Column(NamedTuple):
    """People whose difference is from `least` to `most`, both included; minor units."""

    least: int
    most: int
    people: int


def _by_member(root: Xml.Element, y: int, asset: Asset) -> int:
    """How many people lose and win how much; gives where it ends."""
    _text(root, MARGIN, y, f"Difference per person, {asset.name}", size=15, weight="600")
    less, more = (sum(pair.difference * sign > 0 for pair in asset.members) for sign in (-1, 1))
    same = len(asset.members) - less - more
    _legend(root, y, ((f"{less:,} earn less", LESS), (f"{same:,} the same", SAME), (f"{more:,} earn more", MORE)))
    y += 34
    columns = spread([pair.difference for pair in asset.members])
    if not columns:
        _text(root, MARGIN, y, "Nobody earned anything.", fill=FAINT)
        return y + 8
    width = min((WIDTH - 2 * MARGIN) // len(columns), 110)
    left = (WIDTH - width * len(columns)) // 2
    highest = max(column.people for column in columns)
    floor = y + COLUMNS_HEIGHT
    for number, column in enumerate(columns):
        x = left + number * width
        group = Xml.SubElement(root, "g")
        low, high = (signed(value, asset.name) for value in (column.least, column.most))
        between = "no difference" if column.least == column.most == 0 else low if low == high else f"{low} to {high}"
        Xml.SubElement(group, "title").text = f"{between}: {column.people:,} people"
        if column.people:
            length = max(column.people * (COLUMNS_HEIGHT - 20) // highest, 2)
            colour = SAME if not column.most and not column.least else MORE if column.least > 0 else LESS
            _rect(group, x + 3, floor - length, width - 6, length, colour)
            _text(group, x + width // 2, floor - length - 5, f"{column.people:,}", anchor="middle", size=11)
        # The end nearer to zero; the far end is the next column's.
        edge = column.most if column.most < 0 else column.least
        label = "0" if not edge else shortened(edge, asset.name)
        _text(group, x + width // 2, floor + 17, label, anchor="middle", size=10, fill=FAINT)
    _line(root, left, floor, left + width * len(columns), floor)
    _text(
        root,
        WIDTH // 2,
        floor + 36,
        HOW_TO_READ,
        anchor="middle",
        size=11,
        fill=FAINT,
    )
    return floor + 40


def spread(differences: Sequence[int]) -> list[Column]:
    """Columns from the largest loss to the largest gain, in steps 1, 2, 5, 10, … of minor units, the same on both sides; empty ends are
    left out."""
    if not differences:
        return []
    largest = max(abs(value) for value in differences)
    edges = [step * 10**power for power in range(len(str(largest)) + 1) for step in (1, 2, 5) if step * 10**power <= largest]
    edges = edges[-STEPS_SHOWN:]
    if edges:
        # What is smaller than the first step shown is in it.
        edges[0] = 1
    uppers = [edge - 1 for edge in edges[1:]] + [largest] if edges else []
    ranges = [(-upper, -lower) for lower, upper in zip(reversed(edges), reversed(uppers), strict=True)]
    ranges += [(0, 0), *zip(edges, uppers, strict=True)]
    columns = [Column(least, most, sum(least <= value <= most for value in differences)) for least, most in ranges]
    zero = len(edges)
    first = next((index for index, column in enumerate(columns) if column.people), zero)
    last = next((index for index in range(len(columns) - 1, -1, -1) if columns[index].people), zero)
    return columns[min(first, zero) : max(last, zero) + 1]


# ---------------------------------------------------------------- pieces


def signed(minor: int, asset: str) -> str:
    """An amount with its sign: +26.90."""
    return ("+" if minor > 0 else "") + to_major(minor, asset)


def shortened(minor: int, asset: str) -> str:
    """A round amount in little room: +2k, -500, +0.05."""
    text = signed(minor, asset)
    text = text.rstrip("0").rstrip(".") if "." in text else text
    for end, letter in ((",000,000,000", "G"), (",000,000", "M"), (",000", "k")):
        if text.endswith(end):
            return text.removesuffix(end) + letter
    return text


def _legend(root: Xml.Element, y: int, entries: Sequence[tuple[str, str]]) -> None:
    x = WIDTH - MARGIN
    for name, colour in reversed(entries):
        x -= _length(name, 12)
        _text(root, x, y, name, size=12, fill=FAINT)
        _rect(root, x - 16, y - 9, 10, 10, colour)
        x -= 34


def _length(text: str, size: int = 13) -> int:
    """About how wide a text is: wide signs (中) are square, others a little more than half."""
    return sum(size if unicodedata.east_asian_width(sign) in "WF" else (size * 58 + 99) // 100 for sign in text)


def _clipped(text: str, room: int, size: int = 13) -> str:
    if _length(text, size) <= room:
        return text
    while text and _length(text + "…", size) > room:
        text = text[:-1]
    return text + "…"


def _text(
    parent: Xml.Element, x: int, y: int, text: str, *, size: int = 13, anchor: str = "start", fill: str = INK, weight: str = ""
) -> None:
    found = Xml.SubElement(parent, "text", {"x": str(x), "y": str(y), "font-size": str(size), "text-anchor": anchor, "fill": fill})
    if weight:
        found.set("font-weight", weight)
    found.text = text


def _rect(parent: Xml.Element, x: int, y: int, width: int, height: int, fill: str) -> None:
    Xml.SubElement(parent, "rect", {"x": str(x), "y": str(y), "width": str(width), "height": str(height), "fill": fill})


def _line(parent: Xml.Element, x1: int, y1: int, x2: int, y2: int) -> None:
    Xml.SubElement(parent, "line", {"x1": str(x1), "y1": str(y1), "x2": str(x2), "y2": str(y2), "stroke": RULE_LINE})
