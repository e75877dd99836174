"""Integer money: exact rates and the one rounding rule. Amounts are counts of a currency's minor unit; nothing here is a float."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

PERCENT = re.compile(r"(0|[1-9][0-9]{0,2})(?:\.([0-9]{1,9}))?\s*%")


@dataclass(frozen=True, slots=True)
class Rate:
    """An exact decimal fraction, `numerator / denominator`, the denominator a power of ten. 2.5 % is 25/1000."""

    numerator: int
    denominator: int

    @classmethod
    def of_percent(cls, text: str) -> "Rate":
        """The rate a plan writes as text, such as "2.5%". Raises ValueError for anything but 0 % to 100 % with at most 9 decimals."""
        found = PERCENT.fullmatch(text)
        if found is None:
            raise ValueError(f'{text!r} is not a rate; write a percentage such as "10%" or "2.5%"')
        decimals = (found[2] or "").rstrip("0")
        rate = cls(int(found[1] + decimals), 10 ** (len(decimals) + 2))
        if rate.numerator > rate.denominator:
            raise ValueError(f"{text!r} is more than 100%")
        return rate

    @property
    def decimal(self) -> str:
        """The fraction in plain decimals: "0.025"."""
        return exactly(self.numerator, self.denominator)

    @property
    def percent(self) -> str:
        """As a plan writes it: "2.5%"."""
        return exactly(self.numerator * 100, self.denominator) + "%"

    def of(self, base_minor: int) -> int:
        """This rate of an amount, in minor units, rounded half up."""
        return half_up(self.numerator * base_minor, self.denominator)

    def exactly_of(self, base_minor: int) -> str:
        """This rate of an amount before rounding, in minor units, exact: "1790.3"."""
        return exactly(self.numerator * base_minor, self.denominator)

    def __lt__(self, other: "Rate") -> bool:
        return self.numerator * other.denominator < other.numerator * self.denominator


ZERO_RATE = Rate(0, 100)


def half_up(numerator: int, denominator: int) -> int:
    """`numerator / denominator` rounded to the nearest integer, halves away from zero: the rounding of commission everywhere.

    The denominator is positive. Each entitlement is rounded once, from the exact product, never from an amount rounded before.
    """
    if numerator >= 0:
        return (2 * numerator + denominator) // (2 * denominator)
    return -((-2 * numerator + denominator) // (2 * denominator))


def largest_remainder(pool: int, numerators: Sequence[int], denominator: int) -> list[int]:
    """The whole parts of a pool by exact parts `numerators / denominator`, which add up to the pool before it was rounded.

    Each part is rounded down, then one unit each goes to the largest remainders until the pool is spent; of equal ones to the first.
    None is negative.
    """
    parts = [numerator // denominator for numerator in numerators]
    missing = pool - sum(parts)
    if missing:
        by_remainder = sorted(range(len(parts)), key=lambda index: (-(numerators[index] % denominator), index))
        for index in by_remainder[:missing]:
            parts[index] += 1
    return parts


def exactly(numerator: int, denominator: int) -> str:
    """A quotient without rounding: "1790.3" where its decimals end, else as a fraction: "1000/3"."""
    divisor = gcd(numerator, denominator)
    numerator, denominator = numerator // divisor, denominator // divisor
    decimals, scale = 0, 1
    while scale % denominator:
        decimals, scale = decimals + 1, scale * 10
        if decimals > 40:
            return f"{numerator}/{denominator}"
    digits = str(abs(numerator) * (scale // denominator)).rjust(decimals + 1, "0")
    sign = "-" if numerator < 0 else ""
    return sign + (f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits)
