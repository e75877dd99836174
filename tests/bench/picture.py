"""The figures as a picture: lines over a logarithmic axis, with the least and the most of all rounds. One self-contained SVG, made with the
standard library; its colours follow whoever looks at it, light or dark."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree as Xml

from tests.bench import cases
from tests.bench.goals import Results, megabytes

WIDTH, MARGIN, PANEL_HEIGHT, TITLE_HEIGHT, COLUMNS = 960, 24, 290, 64, 2
# Around the plot of a panel: what is written at its left, right, top and bottom.
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 52, 44
TICKS = 5
STYLE = """
svg { background: #ffffff; font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif; }
text { fill: #1f2933; } .faint { fill: #52606d; } .grid { stroke: #e4e7eb; } .paper { fill: #ffffff; }
.line { fill: none; stroke-width: 2; } .whisker { stroke-width: 1; opacity: 0.6; }
.c0 { stroke: #2563a8; fill: #2563a8; } .c1 { stroke: #b4472f; fill: #b4472f; } .c2 { stroke: #2f7d4f; fill: #2f7d4f; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9aa5b1; } .grid { stroke: #30363d; } .paper { fill: #0d1117; }
  .c0 { stroke: #6cb0f5; fill: #6cb0f5; } .c1 { stroke: #f0886b; fill: #f0886b; } .c2 { stroke: #6fcf97; fill: #6fcf97; }
}
"""


class Point(NamedTuple):
    """All rounds' values at one x."""

    x: int
    values: Sequence[float]


class Line(NamedTuple):
    name: str
    points: Sequence[Point]


class Panel(NamedTuple):
    """`logarithmic`: upward too, else from zero."""

    title: str
    below: str
    lines: Sequence[Line]
    logarithmic: bool = False


def panels(found: Results) -> list[Panel]:
    """What there is to draw of what was measured."""
    unary = {number: found.runs[case.key] for number, case in cases.UNARY.items() if case.key in found.runs}
    noop = {number: found.runs[case.key] for number, case in ((1, cases.NOOP_1), (64, cases.NOOP_64)) if case.key in found.runs}
    drawn = []
    if unary:
        orders = Line("RecordOrder", [Point(number, [run.per_s for run in runs]) for number, runs in unary.items()])
        calls = Line("no-op call", [Point(number, [run.per_s for run in runs]) for number, runs in noop.items()])
        drawn.append(Panel("a second", "calls in flight", [orders, *([calls] if noop else [])]))
        latencies = [
            Line(f"p{percent}", [Point(number, [run.percentile_ms(percent) for run in runs]) for number, runs in unary.items()])
            for percent in (50, 90, 99)
        ]
        drawn.append(Panel("milliseconds until RecordOrder has answered", "calls in flight", latencies, logarithmic=True))
    if found.steps:
        large = Line("grown", [Point(step.entries, [run.per_s for run in step.batches]) for step in found.steps])
        small = Line("small", [Point(step.entries, [run.per_s for run in step.few_batches]) for step in found.steps])
        drawn.append(Panel("orders a second, RecordOrders of 200", "entries of the grown program", [large, small]))
        memory = Line("server", [Point(step.entries, [megabytes(mib) for mib in step.server_mib]) for step in found.steps])
        drawn.append(Panel("memory of the server, MB", "entries", [memory]))
    return drawn


def draw(title: str, drawn: Sequence[Panel]) -> str:
    """The SVG."""
    height = TITLE_HEIGHT + math.ceil(len(drawn) / COLUMNS) * PANEL_HEIGHT + MARGIN
    box = {"viewBox": f"0 0 {WIDTH} {height}", "width": str(WIDTH), "height": str(height), "role": "img"}
    root = Xml.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **box})
    Xml.SubElement(root, "title").text = title
    Xml.SubElement(root, "style").text = STYLE
    Xml.SubElement(root, "rect", {"class": "paper", "width": str(WIDTH), "height": str(height)})
    _text(root, MARGIN, MARGIN + 12, title, size=17)
    _text(root, MARGIN, MARGIN + 32, "Lines: the median of the rounds; bars: the least and the most.", faint=True)
    for number, panel in enumerate(drawn):
        x = MARGIN + number % COLUMNS * (WIDTH - 2 * MARGIN) // COLUMNS
        _panel(root, x, TITLE_HEIGHT + number // COLUMNS * PANEL_HEIGHT, panel)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _panel(root: Xml.Element, x: int, y: int, panel: Panel) -> None:
    left, right = x + LEFT, x + (WIDTH - 2 * MARGIN) // COLUMNS - RIGHT
    top, floor = y + TOP, y + PANEL_HEIGHT - BOTTOM
    values = [value for line in panel.lines for point in line.points for value in point.values]
    ticks = decades(min(values), max(values)) if panel.logarithmic else steps(max(values))
    columns = sorted({point.x for line in panel.lines for point in line.points})

    def across(value: int) -> float:
        span = math.log(columns[-1] / columns[0]) or 1
        return left + 12 + (right - left - 24) * math.log(value / columns[0]) / span

    def up(value: float) -> float:
        if panel.logarithmic:
            return floor - (floor - top) * math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])
        return floor - (floor - top) * value / ticks[-1]

    _text(root, x, y + 18, panel.title, size=13)
    for tick in ticks:
        _stroke(root, "grid", left, up(tick), right, up(tick))
        _text(root, left - 8, up(tick) + 4, f"{tick:,g}", anchor="end", faint=True)
    for value in columns:
        _text(root, across(value), floor + 17, f"{value:,}", anchor="middle", faint=True)
    _text(root, (left + right) / 2, floor + 34, panel.below, anchor="middle", faint=True)
    for number, line in enumerate(panel.lines):
        colour = f"c{number}"
        group = Xml.SubElement(root, "g")
        middles = [(across(point.x), up(statistics.median(point.values))) for point in line.points]
        where = " ".join(f"{across_:.1f},{up_:.1f}" for across_, up_ in middles)
        # A style of the class would fill the line too, were it not for its own.
        Xml.SubElement(group, "polyline", {"class": f"{colour} line", "points": where, "style": "fill: none"})
        for point, (at, middle) in zip(line.points, middles, strict=True):
            _stroke(group, f"{colour} whisker", at, up(min(point.values)), at, up(max(point.values)))
            dot = Xml.SubElement(group, "circle", {"class": colour, "cx": f"{at:.1f}", "cy": f"{middle:.1f}", "r": "3"})
            Xml.SubElement(dot, "title").text = f"{line.name}, {point.x:,}: {statistics.median(point.values):,.1f}"
        beside = left + 110 * number
        _stroke(root, f"{colour} line", beside, y + 34, beside + 18, y + 34)
        _text(root, beside + 24, y + 38, line.name)


def steps(most: float) -> list[float]:
    """0, and round numbers up to the first that is not less."""
    rough = (most or 1) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [step * number for number in range(math.ceil((most or 1) / step) + 1)]


def decades(least: float, most: float) -> list[float]:
    """Powers of ten, with 2 and 5 times each, around both."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    candidates = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    first = max(index for index, tick in enumerate(candidates) if tick <= least)
    last = next(index for index, tick in enumerate(candidates) if tick >= most and index > first)
    return candidates[first : last + 1]


def _stroke(parent: Xml.Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {name: f"{value:.1f}" for name, value in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))}
    Xml.SubElement(parent, "line", {"class": kind, **ends})


def _text(parent: Xml.Element, x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", faint: bool = False) -> None:
    where = {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-size": str(size), "text-anchor": anchor}
    Xml.SubElement(parent, "text", {**where, **({"class": "faint"} if faint else {})}).text = text
