"""HTML that cannot be broken out of: what is not markup already is text, and is escaped. Every label stands there in both languages."""

import re
from html import escape
from typing import Any

from services.runtime.currency import to_major

LANGUAGES = ("en", "zh-Hans")
# Elements that have no end.
VOID = frozenset({"input", "meta"})


class Markup(str):
    """Text that is HTML; everything else is escaped where it is put in."""

    __slots__ = ()


Child = str | int | None
NOTHING = Markup("")


def text(value: Child) -> Markup:
    """Markup as it is, anything else escaped."""
    if isinstance(value, Markup):
        return value
    return NOTHING if value is None else Markup(escape(str(value), quote=True))


def element(tag: str, *children: Child, **attributes: Child) -> Markup:
    """`<tag attributes>children</tag>`. In names of attributes a trailing underscore goes, others
    become hyphens; None leaves the attribute out.
    """
    told = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{told}>" if tag in VOID else f"<{tag}{told}>{join(children)}</{tag}>")


def join(children: Any, between: str = "") -> Markup:
    return Markup(between.join(text(child) for child in children))


def both(english: str, chinese: str, tag: str = "span", **values: Child) -> Markup:
    """A label in both languages; the page shows one. `{name}` in them is filled in, escaped."""
    filled = {name: text(value) for name, value in values.items()}
    return Markup(
        "".join(
            f'<{tag} lang="{language}">{text(label).format(**filled) if filled else text(label)}</{tag}>'
            for language, label in zip(LANGUAGES, (english, chinese), strict=True)
        )
    )


# What cannot be seen, or changes the order in which the rest is seen.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def seen(value: str) -> str:
    """Told text with unseen characters spelt out, so that it can neither hide nor turn around what stands beside it."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def told(value: str, tag: str = "bdi", **attributes: Child) -> Markup:
    """An id, a reason or anything else that the log tells."""
    return element(tag, seen(value), **attributes)


def ident(value: str) -> Markup:
    return told(value, class_="id") if value else element("span", "–", class_="none")


def money(minor: int, asset: str, signed: bool = False) -> Markup:
    """An amount without its asset: 1,234.50."""
    shown = to_major(minor, asset)
    return element("span", ("+" if signed and minor > 0 else "") + shown, class_="zero" if not minor else "minus" if minor < 0 else None)


def percent(part: int, whole: int) -> str:
    """A part of a whole to one decimal, rounded down, in integers: "12.3%"."""
    if whole <= 0:
        return "–"
    tenths = part * 1000 // whole
    return f"{tenths // 10}.{tenths % 10}%"
