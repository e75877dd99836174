"""Money, time, the hash of an entry, and how two facts differ."""

import hashlib
import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.chain import GENESIS, entry_hash
from services.kernel.decider import difference
from services.kernel.money import Rate, half_up
from services.kernel.times import from_text, to_text
from services.ledger.domain.facts import LineKind, OrderLine, OrderPaid


@pytest.mark.parametrize(("numerator", "rounded"), [(0, 0), (49, 0), (50, 1), (51, 1), (149, 1), (150, 2), (-49, 0), (-50, -1), (-150, -2)])
def test_halves_are_rounded_away_from_zero(numerator: int, rounded: int) -> None:
    assert half_up(numerator, 100) == rounded


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**12))
def test_rounding_is_never_off_by_more_than_a_half(numerator: int, denominator: int) -> None:
    assert abs(Fraction(numerator, denominator) - half_up(numerator, denominator)) <= Fraction(1, 2)


@given(st.integers(0, 100 * 10**9), st.lists(st.integers(0, 10**9), max_size=8))
def test_entitlement_on_what_remains_ends_at_zero_for_any_split(billionths: int, parts: list[int]) -> None:
    """The sum of the reversals of any split of a full refund is what was earned, and no part ever earns back."""
    rate = Rate.of_percent(f"{billionths // 10**9}.{billionths % 10**9:09d}%")
    remaining = sum(parts)
    earned, reversed_ = rate.of(remaining), []
    for part in parts:
        reversed_.append(rate.of(remaining) - rate.of(remaining - part))
        remaining -= part
    assert sum(reversed_) == earned
    assert all(change >= 0 for change in reversed_)


@pytest.mark.parametrize(
    ("text", "decimal"), [("0%", "0"), ("10%", "0.1"), ("2.5 %", "0.025"), ("100%", "1"), ("0.000000001%", "0.00000000001")]
)
def test_a_rate_prints_as_the_decimal_it_is(text: str, decimal: str) -> None:
    assert Rate.of_percent(text).decimal == decimal
    assert Rate.of_percent(Rate.of_percent(text).percent) == Rate.of_percent(text)


@given(st.integers(-(2**53), 2**53))
def test_a_time_survives_its_text(us: int) -> None:
    assert from_text(to_text(us)) == us


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        from_text("2026-01-01T00:00:00")


def test_the_hash_covers_exactly_the_bytes_the_documents_name() -> None:
    """docs/log.md, written out by hand."""
    by_hand = b"fenrun.entry.v1\0" + GENESIS + struct.pack(">QQqq", 1, 1, -5, 7)
    for part in (b"p", "order/\u00e9".encode(), b"order.paid.v1", b"ann", b"\x00fact", b""):
        by_hand += struct.pack(">I", len(part)) + part
    expected = hashlib.sha256(by_hand).digest()
    assert entry_hash(GENESIS, "p", 1, "order/\u00e9", 1, "order.paid.v1", -5, 7, "ann", b"\x00fact", b"") == expected


@pytest.mark.parametrize(
    ("given_lines", "expected"),
    [
        ((10, 20), None),
        ((10, 21), ("lines[1].base_minor", 20, 21)),
        ((10,), ("number of lines", 2, 1)),
    ],
)
def test_a_difference_names_the_first_field(given_lines: tuple[int, ...], expected: tuple[str, int, int] | None) -> None:
    def order(bases: tuple[int, ...]) -> OrderPaid:
        return OrderPaid("O", "m", "GBP", tuple(OrderLine(n, base, 1, "", "", LineKind.GOODS) for n, base in enumerate(bases)))

    assert difference(order((10, 20)), order(given_lines)) == expected
