"""Money over time as an inline SVG: rectangles and text, every length scaled by integers."""

from collections.abc import Callable

from services.auditor.report.figures import FlowRow, Flows
from services.auditor.report.markup import Markup, element, join
from services.runtime.currency import to_major

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 300, 96, 24, 12, 34
# Gaps and bars, at most so wide.
WIDEST, LABELS = 26, 12
STEPS = (1, 2, 5)


def draw(flows: Flows) -> Markup:
    """Accrued and paid out upwards, reversed downwards, for each step of time."""
    rows = flows.rows
    highest = max((max(row.flow.accrued, row.flow.paid) for row in rows), default=0)
    lowest = min((-row.flow.reversed for row in rows), default=0)
    highest, lowest = max(highest, 1), min(lowest, 0)
    step = _step(highest - lowest)
    most, least = -(-highest // step) * step, lowest // step * step
    room, span = HEIGHT - TOP - BOTTOM, most - least

    def y(minor: int) -> int:
        return TOP + (most - minor) * room // span

    parts = []
    for tick in range(least, most + 1, step):
        parts.append(element("line", x1=LEFT, x2=WIDTH, y1=y(tick), y2=y(tick), class_="zeroline" if not tick else "grid"))
        parts.append(element("text", _short(tick, flows.asset), x=LEFT - 10, y=y(tick) + 4, class_="tick", text_anchor="end"))
    slot = (WIDTH - LEFT - RIGHT) * 100 // len(rows)
    bar = max(1, min(WIDEST, slot * 36 // 10_000))
    every = -(-len(rows) // LABELS)
    for index, row in enumerate(rows):
        middle = LEFT + (slot * index + slot // 2) // 100
        parts.append(_bars(row, flows.asset, middle, bar, y))
        if index % every == 0:
            parts.append(element("text", step_name(row.begins, flows.unit), x=middle, y=HEIGHT - 10, class_="tick", text_anchor="middle"))
    return element("svg", join(parts), viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="flow", role="img", aria_labelledby="flow-title")


def step_name(begins: str, unit: str) -> str:
    """2026-03-09 of a day or week, 2026-03 of a month, 2026 of a year."""
    return begins[: {"month": 7, "year": 4}.get(unit, 10)]


def _bars(row: FlowRow, asset: str, middle: int, bar: int, y: Callable[[int], int]) -> Markup:
    flow, zero = row.flow, y(0)
    bars = []
    for value, x, name in (
        (flow.accrued, middle - bar, "accrued"),
        (flow.paid, middle, "paid"),
        (-flow.reversed, middle - bar, "reversed"),
    ):
        if value:
            # What is not nothing is seen.
            top, bottom = (min(y(value), zero - 1), zero) if value > 0 else (zero, max(y(value), zero + 1))
            bars.append(element("rect", x=x, y=top, width=bar, height=bottom - top, class_=name))
    told = f"{row.begins}: +{to_major(flow.accrued, asset)}, -{to_major(flow.reversed, asset)}, → {to_major(flow.paid, asset)} {asset}"
    return element("g", element("title", told), join(bars))


def _step(span: int) -> int:
    """A round step (1, 2 or 5 and zeros) that divides a span into six at most."""
    unit = 1
    while True:
        for times in STEPS:
            if span <= 6 * times * unit:
                return times * unit
        unit *= 10


def _short(minor: int, asset: str) -> str:
    shown = to_major(minor, asset)
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def bar(part: int, whole: int) -> Markup:
    """A small bar beside a percentage, out of a hundred; drawn, not said."""
    length = min(100, max(0, part * 100 // whole)) if whole > 0 else 0
    return element("svg", element("rect", width=length, height=6), viewBox="0 0 100 6", class_="share", aria_hidden="true")
