"""Pieces every section is made of: tables, sentences, times, all in both languages."""

from collections.abc import Iterable, Sequence

from services.auditor.report.figures import MemberAmount
from services.auditor.report.markup import Child, Markup, both, element, ident, join, money, told
from services.kernel.times import from_text, to_text

# A column: its header, and whether it holds numbers.
Column = tuple[Markup, bool]


def local(iso: str, zone_minutes: int) -> Markup:
    """A time in the plan's zone: 2026-01-01 08:00."""
    shown = to_text(from_text(iso) + zone_minutes * 60_000_000)
    return element("time", f"{shown[:10]} {shown[11:16]}", datetime=iso)


def zone_name(minutes: int) -> str:
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" if minutes else "UTC"


def table(
    caption: Markup, columns: Sequence[Column], rows: Iterable[Sequence[Child]], total: Sequence[Child] = (), class_: str | None = None
) -> Markup:
    """The first cell of a row is its header."""

    def row(cells: Sequence[Child]) -> Markup:
        shown = [
            element("th", cell, scope="row", class_="n" if number else None)
            if index == 0
            else element("td", cell, class_="n" if number else None)
            for index, (cell, (_, number)) in enumerate(zip(cells, columns, strict=True))
        ]
        return element("tr", join(shown))

    head = element("tr", join(element("th", name, scope="col", class_="n" if number else None) for name, number in columns))
    body = [element("thead", head), element("tbody", join(map(row, rows)))]
    if total:
        body.append(element("tfoot", row(total)))
    made = element("table", element("caption", caption), join(body), class_=class_)
    # A wide table scrolls by itself, also by keyboard.
    return element("div", made, class_="scroll", tabindex="0")


def number(value: int) -> Markup:
    return element("span", f"{value:,}", class_="zero" if not value else None)


def paragraph(english: str, chinese: str, **values: Child) -> Markup:
    return element("p", both(english, chinese, "span", **values))


def note(english: str, chinese: str, **values: Child) -> Markup:
    return element("p", both(english, chinese, "span", **values), class_="note")


def some(english: str, chinese: str, listed: int, count: int) -> Markup:
    """A caption that says how many of how many are listed."""
    if listed == count:
        return both(f"{english}, {{count}}", f"{chinese}，共 {{count}}", count=f"{count:,}")
    return both(
        f"{english}, {{listed}} of {{count}}", f"{chinese}，共 {{count}}，列出 {{listed}}", listed=f"{listed:,}", count=f"{count:,}"
    )


def amounts(caption: Markup, rows: Sequence[MemberAmount], what: Markup, asset: str) -> Markup:
    columns = [(both("Member", "会员"), False), (both("Tier", "等级"), False), (what, True)]
    made = table(
        caption, columns, [(ident(row.member_id), tier_of(row.tier), money(row.amount_minor, asset)) for row in rows], class_="narrow"
    )
    return made if len(rows) <= 10 else element("details", element("summary", caption), made)


def tier_of(tier: str) -> Markup:
    return told(tier) if tier else element("span", "–", class_="none")
