"""Amounts for people: minor units to major units and back, in integers. The books know minor units only."""

import re

# ISO 4217, list one: every currency whose minor unit is not a hundredth. Codes without a minor unit (gold, drawing rights) count as 0.
CODES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
EXPONENTS = {code: decimals for decimals, codes in CODES.items() for code in codes.split()}
AMOUNT = re.compile(r"([+-]?)([0-9]{1,16})(?:\.([0-9]+))?", re.ASCII)


def exponent(currency: str) -> int:
    """Decimals of a currency: 2 for GBP, 0 for JPY, 3 for KWD; none of points, whose names are lower case."""
    return 0 if currency.islower() else EXPONENTS.get(currency, 2)


def to_major(minor: int, currency: str, grouped: bool = True) -> str:
    """2690 GBP is "26.90"; `grouped` writes thousands as "1,234.50"."""
    decimals = exponent(currency)
    whole, rest = divmod(abs(minor), 10**decimals)
    text = f"{whole:,}" if grouped else str(whole)
    return ("-" if minor < 0 else "") + text + (f".{str(rest).zfill(decimals)}" if decimals else "")


def to_minor(text: str, currency: str) -> int:
    """ "26.9" and "26.90" GBP are 2690. Raises ValueError for more decimals than the currency has, and for anything but plain digits."""
    found = AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an amount; write plain digits, such as {to_major(123456, currency, grouped=False)}")
    sign, whole, rest = found[1], found[2], found[3] or ""
    decimals = exponent(currency)
    if len(rest) > decimals:
        raise ValueError(f"{text!r} has {len(rest)} decimals, {currency} has {decimals}")
    minor = int(whole + rest.ljust(decimals, "0"))
    return -minor if sign == "-" else minor
