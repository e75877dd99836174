"""Opaque tokens: what a page ended at, what position a read must see. Callers keep them as they are."""

import base64
import binascii
import json
from functools import lru_cache

from services.kernel.refusals import TokenInvalid

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
# Every receipt has a token, and those of one program differ in the position alone.
_quoted = lru_cache(maxsize=10_000)(json.dumps)


def make(*parts: str | int) -> str:
    """A token of these parts, text that is safe in URLs: a JSON list in base64."""
    listed = ",".join([_quoted(part) if isinstance(part, str) else str(part) for part in parts])
    return binascii.b2a_base64(f"[{listed}]".encode(), newline=False).translate(_URL_SAFE).rstrip(b"=").decode()


def parts(token: str, field: str, kinds: tuple[type, ...]) -> tuple[str | int, ...]:
    """The parts of a token, if they are of these kinds. Raises TokenInvalid naming the field it came in."""
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise TokenInvalid(field) from None
    if not isinstance(found, list) or tuple(type(part) for part in found) != kinds or not all(_storable(part) for part in found):
        raise TokenInvalid(field)
    return tuple(found)


def _storable(part: str | int) -> bool:
    """Whether PostgreSQL has such a value: JSON also knows half surrogate pairs, NUL and numbers without end."""
    if isinstance(part, int):
        return -(2**63) <= part < 2**63
    return part.isprintable()
