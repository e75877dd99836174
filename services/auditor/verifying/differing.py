"""Where two serialized messages differ, in words: the first field, what was expected in it and what was found."""

from itertools import zip_longest
from typing import Any

from fenrun.log.v1 import log_pb2
from google.protobuf.message import Message

# Decisions whose message has not the fact's name and "Decision", nor is a movement.
_DECISIONS = {
    "order.group_formed.v1": log_pb2.OrderCompletedDecision,
    "order.voided.v1": log_pb2.OrderRefundedDecision,
    "reward.released.v1": log_pb2.OrderReleasedDecision,
}


def where(type_name: str, what: str, wanted: bytes, there: bytes) -> tuple[str, str, str]:
    """(place, expected, found) of the first difference between two messages; of their bytes where none can be named."""
    if what == "fact":
        message = getattr(log_pb2, _fact_name(type_name), None)
    else:
        message = _DECISIONS.get(type_name) or getattr(log_pb2, f"{_fact_name(type_name)}Decision", log_pb2.MovementDecision)
    try:
        assert message is not None
        difference = _difference(message.FromString(wanted), message.FromString(there), what)
    except Exception:  # the bytes that are there are no such message
        difference = None
    return difference or (what, shown(wanted), shown(there))


def _fact_name(type_name: str) -> str:
    """Of the message in log.proto: order.paid.v1 is OrderPaid."""
    special = {
        "member.binding_corrected.v1": "BindingCorrected",
        "member.role_granted.v1": "RoleGranted",
        "member.role_ended.v1": "RoleEnded",
    }
    return special.get(type_name) or "".join(word.title() for part in type_name.removesuffix(".v1").split(".") for word in part.split("_"))


def _difference(wanted: Message, there: Message, path: str) -> tuple[str, str, str] | None:
    for field in wanted.DESCRIPTOR.fields:
        left, right = getattr(wanted, field.name), getattr(there, field.name)
        here = f"{path}.{field.name}"
        if field.is_repeated:
            for index, (one, other) in enumerate(zip_longest(left, right)):
                found = _values(one, other, f"{here}[{index}]")
                if found:
                    return found
        else:
            found = _values(left, right, here)
            if found:
                return found
    return None


def _values(one: Any, other: Any, path: str) -> tuple[str, str, str] | None:
    if one == other:
        return None
    if isinstance(one, Message) and isinstance(other, Message):
        return _difference(one, other, path)
    return path, shown(one), shown(other)


def shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bytes):
        value = value.hex() or "nothing"
    text = " ".join(str(value).split()) if isinstance(value, Message) else str(value)
    return text if len(text) <= 300 else text[:300] + "…"
