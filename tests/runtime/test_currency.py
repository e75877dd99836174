"""Amounts for people, in integers."""

import pytest

from services.runtime.currency import exponent, to_major, to_minor


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (2690, "GBP", "26.90"),
        (5, "CNY", "0.05"),
        (-5, "CNY", "-0.05"),
        (0, "EUR", "0.00"),
        (-123456789, "USD", "-1,234,567.89"),
        (1234, "JPY", "1,234"),
        (0, "JPY", "0"),
        (1234567, "KWD", "1,234.567"),
        (12345, "CLF", "1.2345"),
        (9007199254740993, "GBP", "90,071,992,547,409.93"),
    ],
)
def test_an_amount_is_written_with_its_currencys_decimals(minor: int, currency: str, text: str) -> None:
    """Exactly, also where a double could not hold it; what is written reads back as the same amount."""
    assert to_major(minor, currency) == text
    assert to_minor(text.replace(",", ""), currency) == minor


def test_thousands_can_be_left_ungrouped() -> None:
    """Narrow tables have no room for separators."""
    assert to_major(-123456789, "USD", grouped=False) == "-1234567.89"


@pytest.mark.parametrize(("text", "minor"), [("26.9", 2690), ("26", 2600), ("+26.90", 2690), ("-0.01", -1), ("007", 700)])
def test_decimals_may_be_left_out(text: str, minor: int) -> None:
    """26.9 is 26.90."""
    assert to_minor(text, "GBP") == minor


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("26.905", "GBP"),
        ("1.5", "JPY"),
        ("1,234.50", "GBP"),
        ("1e3", "GBP"),
        ("", "GBP"),
        (".5", "GBP"),
        ("5.", "GBP"),
        ("٣", "GBP"),
        ("nan", "GBP"),
    ],
)
def test_what_is_not_exactly_an_amount_is_refused(text: str, currency: str) -> None:
    """More decimals than the currency has are refused rather than rounded; so is anything but plain digits."""
    with pytest.raises(ValueError, match=r"decimals|not an amount"):
        to_minor(text, currency)


@pytest.mark.parametrize(
    ("currency", "decimals"), [("CNY", 2), ("GBP", 2), ("JPY", 0), ("KRW", 0), ("VND", 0), ("BHD", 3), ("UYW", 4), ("XAU", 0)]
)
def test_the_decimals_are_those_of_iso_4217(currency: str, decimals: int) -> None:
    """Two, but for the currencies that the standard lists otherwise."""
    assert exponent(currency) == decimals
