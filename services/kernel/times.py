"""Points in time as integers: microseconds since 1970-01-01T00:00:00Z. The kernel never asks what time it is."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
# Times that may be told: from the year 1 to before 9000. The calendar ends with 9999, and what falls due days later must still be in it.
EARLIEST_US, LATEST_US = -62_135_596_800_000_000, 221_845_392_000_000_000


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch, exact. Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; write one, such as 2026-01-01T00:00:00Z")
    return (moment - EPOCH) // timedelta(microseconds=1)


def to_text(us: int) -> str:
    """ISO 8601 in UTC, microseconds only where there are any: 2026-01-01T00:00:00Z."""
    return (EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def from_text(text: str) -> int:
    """Microseconds of an ISO 8601 time with a zone. Raises ValueError."""
    return to_us(datetime.fromisoformat(text))
