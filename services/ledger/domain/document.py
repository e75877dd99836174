"""Reading a plan's document: mappings read key by key, each value checked where it stands. Knows shapes, not what a plan means."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.kernel.money import Rate
from services.kernel.names import nameable
from services.kernel.refusals import PlanInvalid
from services.kernel.times import EARLIEST_US, LATEST_US, from_text

ID_CHARACTERS = {chr(code) for code in range(33, 127)} - {"/"}
ROLE_CHARACTERS = set("abcdefghijklmnopqrstuvwxyz0123456789_-")

# How many entries a list (or mapping) of the document may have, by its key, wherever it stands. More than any plan needs; below it the
# linter and each order stay quick. Held against what comes in, never against what is stored. Mappings by tier or by rule have no more
# entries than there are tiers and rules.
LONGEST: Mapping[str, int] = {
    "rules": 500,
    "overrides": 500,
    "promotions": 200,
    "any": 50,
    "all": 50,
    "tiers": 100,
    "points": 100,
    "granted": 100,
    "waivers": 20,
    "skus": 10_000,
    "categories": 1_000,
    "stores": 10_000,
    "regions": 1_000,
    "kinds": 3,
    "weekdays": 7,
    "days": 31,
    "brackets": 1_000,
    "places_minor": 1_000,
}


def too_long(value: Any, path: str = "") -> PlanInvalid | None:
    """What a document is refused for, naming the first list that is too long; None: none is."""
    if isinstance(value, list):
        each = ((f"{path}[{index}]", "", one) for index, one in enumerate(value))
    elif isinstance(value, dict):
        each = ((f"{path}.{key}" if path else str(key), str(key), one) for key, one in value.items())
    else:
        return None
    for at, key, one in each:
        if isinstance(one, list | dict) and len(one) > LONGEST.get(key, len(one)):
            return PlanInvalid(at, f"has {len(one)} entries; at most {LONGEST[key]} are allowed")
        found = too_long(one, at)
        if found:
            return found
    return None


class Reader:
    """One mapping of the document, read key by key; what is left over at the end is a typing mistake. Raises PlanInvalid."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise PlanInvalid(path, f"expected a mapping, found {described(value)}")
        for key in value:
            if not isinstance(key, str):
                raise PlanInvalid(path, f"key {key!r} is not text")
        self.path = path
        self._left: dict[str, Any] = dict(value)

    def at(self, key: str) -> str:
        return key if self.path == "document" else f"{self.path}.{key}"

    def has(self, key: str) -> bool:
        return key in self._left

    def peek(self, key: str) -> Any:
        """The value of a key that is still to be read; None where it is not there."""
        return self._left.get(key)

    def left(self) -> list[str]:
        return list(self._left)

    def finish(self) -> None:
        if self._left:
            raise PlanInvalid(self.at(next(iter(self._left))), "is not a key of the plan format")

    def take(self, key: str) -> Any:
        if key not in self._left:
            raise PlanInvalid(self.at(key), "is missing")
        return self._left.pop(key)

    def text(self, key: str) -> str:
        value = self.take(key)
        if not isinstance(value, str) or not value:
            raise PlanInvalid(self.at(key), f"expected text, found {described(value)}")
        return value

    def identifier(self, key: str) -> str:
        return identifier(self.text(key), self.at(key))

    def role(self, key: str) -> str:
        """The name of a role or of points."""
        return _role(self.take(key), self.at(key))

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number; `default` where the key is not there, and None for one that must be."""
        if default is not None and key not in self._left:
            return default
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise PlanInvalid(self.at(key), f"expected a whole number from {least} to {most}, found {described(value)}")
        return value

    def flag(self, key: str) -> bool:
        """true or false; false where the key is not there."""
        value = self._left.pop(key, False)
        if not isinstance(value, bool):
            raise PlanInvalid(self.at(key), f"expected true or false, found {described(value)}")
        return value

    def rate(self, key: str) -> Rate:
        value = self.take(key)
        if not isinstance(value, str):
            raise PlanInvalid(self.at(key), f'expected a percentage in text such as "10%", found {described(value)}')
        try:
            return Rate.of_percent(value)
        except ValueError as problem:
            raise PlanInvalid(self.at(key), str(problem)) from None

    def choice(self, key: str, allowed: tuple[str, ...], required: bool = False) -> str:
        """One of `allowed`; the first is the default unless required."""
        if not required and key not in self._left:
            return allowed[0]
        value = self.take(key)
        if value not in allowed:
            raise PlanInvalid(self.at(key), f"expected one of {', '.join(allowed)}, found {described(value)}")
        return str(value)

    def names(self, key: str, default: tuple[str, ...]) -> list[str]:
        """A list of names in any script: 经理."""
        if key not in self._left:
            return list(default)
        value = self.take(key)
        if not isinstance(value, list) or not value:
            raise PlanInvalid(self.at(key), f"expected a list of names, found {described(value)}")
        for index, name in enumerate(value):
            named(name, f"{self.at(key)}[{index}]")
        if len(set(value)) != len(value):
            raise PlanInvalid(self.at(key), "names something twice")
        return value

    def roles(self, key: str) -> tuple[str, ...]:
        """A list of names of points, empty where the key is not there."""
        return tuple(_role(name, self.at(key)) for name in self.names(key, ()))

    def tiers(self, key: str, known: Sequence[str]) -> tuple[str, ...]:
        """A list of the plan's tiers, empty where the key is not there."""
        found = self.names(key, ())
        for tier in found:
            known_tier(tier, known, self.at(key))
        return tuple(found)

    def integers(self, key: str, least: int, most: int) -> tuple[int, ...]:
        """A list of whole numbers, empty where the key is not there."""
        if key not in self._left:
            return ()
        value = self.take(key)
        if not isinstance(value, list) or not value:
            raise PlanInvalid(self.at(key), f"expected a list of whole numbers, found {described(value)}")
        for index, number in enumerate(value):
            if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
                raise PlanInvalid(f"{self.at(key)}[{index}]", f"expected a whole number from {least} to {most}, found {described(number)}")
        return tuple(value)

    def time(self, key: str) -> int | None:
        if key not in self._left:
            return None
        value = self.take(key)
        try:
            us = from_text(value)
        except (ValueError, TypeError, OverflowError):
            raise PlanInvalid(self.at(key), f'expected a quoted time such as "2026-01-01T00:00:00Z", found {described(value)}') from None
        if not EARLIEST_US <= us < LATEST_US:
            raise PlanInvalid(self.at(key), f"{described(value)} is not between the years 1 and 8999")
        return us

    def section(self, key: str) -> "Reader":
        return Reader(self._left.pop(key, {}), self.at(key))

    def sections(self, key: str, required: bool = True) -> list["Reader"]:
        if not required and key not in self._left:
            return []
        value = self.take(key)
        if not isinstance(value, list):
            raise PlanInvalid(self.at(key), f"expected a list, found {described(value)}")
        return [Reader(item, f"{self.at(key)}[{index}]") for index, item in enumerate(value)]


def identifier(value: Any, path: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 100 or not set(value) <= ID_CHARACTERS:
        raise PlanInvalid(path, f"expected 1 to 100 printable ASCII characters without space and slash, found {described(value)}")
    return value


def named(value: Any, path: str) -> None:
    if not isinstance(value, str) or not nameable(value):
        raise PlanInvalid(path, f"expected a name of 1 to 100 printable characters without space, found {described(value)}")


def known_tier(tier: str, known: Sequence[str], path: str) -> None:
    if tier not in known:
        raise PlanInvalid(path, f"{tier!r} is not one of the plan's tiers: {', '.join(known) or 'it names none'}")


def _role(value: Any, path: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 40 or not set(value) <= ROLE_CHARACTERS or not "a" <= value[0] <= "z":
        raise PlanInvalid(path, f"expected at most 40 of a-z, 0-9, _ and -, beginning with a letter, found {described(value)}")
    return value


def described(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number far too large"
    if isinstance(value, str | int):
        return repr(value)
    return f"{value!r} (a float is never exact)" if isinstance(value, float) else f"a {type(value).__name__}"
