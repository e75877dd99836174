"""The pure parts of the bench: from figures to tables, goals and a picture. Nothing here is timed."""

from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from tests.bench import cases, shop
from tests.bench.auditing import Audited
from tests.bench.database import made
from tests.bench.goals import GOALS, Results, goals
from tests.bench.grow import Step, curve
from tests.bench.load import Measured
from tests.bench.machine import Usage
from tests.bench.picture import WIDTH, decades, draw, panels, steps
from tests.bench.report import Growth, Row, rates, replace_section, spread
from tests.bench.running import IMPORT, REPLAY, START

NS = "{http://www.w3.org/2000/svg}"


def run(per_s: float, latency_ms: float = 2.0) -> Measured:
    """Two seconds of which the server used one, in a hundred calls of which one took ten times as long."""
    latencies_s = [latency_ms / 1000] * 98 + [latency_ms / 100] * 2
    return Measured(2.0, Usage(2.0, 1.0, 0.5, 0.25, 0.0), int(2 * per_s), latencies_s)


def step(entries: int, runs: list[Measured]) -> Step:
    """A program that is as fast as the small one beside it."""
    return Step(entries, entries // 10, runs, runs, runs, runs, [200.0] * len(runs))


def everything() -> Results:
    """Two rounds, the second twice as fast as the first for every case alike."""
    keys = [*(case.key for case in cases.CASES), IMPORT, REPLAY, START]
    grown = step(1_000_000, [run(900), run(1800)])
    audits = [[Audited("fenrun audit verify", 48_826, 2.0, 3.0, 150.0)], [Audited("fenrun audit verify", 48_826, 1.0, 1.5, 150.0)]]
    growth = [Growth({"fenrun.entries": (9000, 3000)}, 10), Growth({"fenrun.entries": (11000, 3000)}, 10)]
    return Results({key: [run(1000), run(2000)] for key in keys}, audits, growth, [grown, grown])


def test_a_goal_is_held_by_the_median_of_what_the_rounds_reached() -> None:
    found = Results({cases.UNARY[64].key: [run(500), run(700), run(900)], cases.NOOP_64.key: [run(1000), run(1000), run(1500)]})
    [told] = [line for line in goals(found) if line.startswith("| RecordOrder over a no-op call")]
    assert [cell.strip() for cell in told.strip("|").split("|")[1:]] == ["at least 0.6", "0.60 (0.50–0.70)", "yes"]


def test_a_ratio_is_taken_within_each_round() -> None:
    """Every round but one was slow for both: their ratio is the same."""
    found = Results({cases.BATCH_200.key: [run(300), run(3000)], cases.BARE.key: [run(100), run(1000)]})
    [told] = [line for line in goals(found) if line.startswith("| RecordOrders of 200 over PostgreSQL")]
    assert "3.00 (3.00–3.00)" in told


def test_a_goal_at_most_fails_above_it() -> None:
    found = Results({START: [run(1, latency_ms=1600)]})
    [told] = [line for line in goals(found) if line.startswith("| cold start")]
    assert "at most 1.5 s" in told and "1.60" in told and told.rstrip(" |").endswith("no")


def test_what_was_not_measured_is_named_and_not_judged() -> None:
    told = goals(Results({START: [run(1)]}))
    assert sum(line.startswith("|") for line in told) == 3
    assert told[-1].startswith("Not measured: ") and "replay" in told[-1] and "cold start" not in told[-1]
    assert goals(Results()) == []


def test_every_goal_is_reached_or_missed_when_everything_was_measured() -> None:
    told = goals(everything())
    assert len(told) == 2 + len(GOALS) and not any("Not measured" in line for line in told)
    assert all(line.rstrip(" |").endswith(("yes", "no")) for line in told[2:])


def test_a_core_is_at_least_one() -> None:
    """Who waits has not been quick: 48,826 entries in 2 s and 3 processor seconds are 16,275 a core, not 24,413."""
    [told] = [line for line in goals(everything()) if line.startswith("| audit verify")]
    assert "(16,275–32,551)" in told


def test_a_spread_has_the_median_the_least_and_the_most() -> None:
    assert spread([3000, 1000, 2000]) == "2,000 (1,000–3,000)"
    assert spread([0.5], 2) == "0.50"


def test_a_rate_is_marked_when_strangers_were_busy() -> None:
    noisy = Measured(2.0, Usage(2.0, 1.0, 0.5, 0.25, strangers_s=1.0), 2000, [0.002])
    assert "1,000 †" in rates([Row("case", "orders", [noisy])])[2]
    assert "†" not in rates([Row("case", "orders", [run(1000)])])[2]


def test_a_part_is_put_between_its_own_markers(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nbetween\n<!-- peers:begin -->\n<!-- peers:end -->\nafter\n")
    replace_section(path, "figures", "bench")
    replace_section(path, "others", "peers")
    replace_section(path, "new figures", "bench")
    bench = "<!-- bench:begin -->\n\nnew figures\n\n<!-- bench:end -->"
    peers = "<!-- peers:begin -->\n\nothers\n\n<!-- peers:end -->"
    assert path.read_text() == f"before\n{bench}\nbetween\n{peers}\nafter\n"
    path.write_text("<!-- bench:begin -->")
    with pytest.raises(ValueError, match="no <!-- bench:end -->"):
        replace_section(path, "figures", "bench")


@pytest.mark.parametrize(
    "found",
    [
        everything(),
        Results({cases.UNARY[1].key: [run(300)]}),
        Results({case.key: [run(1)] for case in cases.UNARY.values()}),
        Results(steps=[step(100, [run(0.4)])]),
    ],
    ids=["all", "one point", "one level", "growth alone"],
)
def test_every_picture_is_well_formed_and_stays_in_its_frame(found: Results) -> None:
    root = Xml.fromstring(draw("Fenrun <&> 分润", panels(found)).encode())
    _, _, width, height = map(int, root.attrib["viewBox"].split())
    assert width == WIDTH and "prefers-color-scheme: dark" in (root.findtext(f"{NS}style") or "")
    for dot in root.iter(f"{NS}circle"):
        assert 0 < float(dot.attrib["cx"]) < width and 0 < float(dot.attrib["cy"]) < height
    for whisker in root.iter(f"{NS}line"):
        assert all(
            0 <= float(whisker.attrib[name]) <= limit for name, limit in (("x1", width), ("x2", width), ("y1", height), ("y2", height))
        )
    assert not any(name.endswith(("href", "src")) for element in root.iter() for name in element.attrib)


def test_nothing_measured_has_no_picture() -> None:
    assert panels(Results()) == [] and curve([]) == []


def test_axes_have_round_numbers_around_what_they_show() -> None:
    assert steps(967) == [0, 200, 400, 600, 800, 1000]
    assert decades(2.6, 111) == [2, 5, 10, 20, 50, 100, 200]
    assert decades(5, 5) == [5, 10]


def test_the_orders_of_the_limit_add_up() -> None:
    """The buyer, the one above, the one above that, and the company, which gives: of whole pounds 18 %."""
    for order in made(100):
        assert sum(order.amounts) == 0 and order.accounts[3] == 0 and len(set(order.accounts)) == 4
        assert -order.amounts[3] * 1000 == round(order.amounts[0] / 0.03) * 180


def test_orders_are_counted_for_each_program() -> None:
    small = shop.tree("small", 20, copies=3)
    orders = shop.Orders("run", small)
    for _ in range(10):
        program = orders.program()
        for order in orders.some(program, 2):
            assert order.member_id in small.buyers
    assert orders.told.total() == 20 and set(orders.told) <= {"small-000", "small-001", "small-002"}
    assert all(orders.base_minor[program] % small.base_step_minor == 0 for program in orders.told)
