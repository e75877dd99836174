"""Checkpoints as text: the note, its signatures, its verifier keys, and what a checkpoint says. Parsing and writing, no cryptography.

The formats are those of C2SP: signed-note (c2sp.org/signed-note), and tlog-checkpoint (c2sp.org/tlog-checkpoint), so that any tool that
reads the checkpoints of transparency logs reads these. docs/audit.md tells them in full. Parsing is strict: what is accepted is, byte for
byte, what would be written.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from services.audit.domain.merkle import HASH_BYTES
from services.kernel import times

# The signature type of Ed25519, and the bytes of its keys and signatures (RFC 8032).
ED25519 = b"\x01"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
KEY_ID_BYTES = 4
# The format asks that at least 16 be accepted and a limit be kept.
MOST_SIGNATURES = 64
LARGEST_NOTE = 1_000_000
# The extension line that says when a checkpoint was made.
MADE_AT = "made_at "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE = "— "


class NoteMalformed(ValueError):
    """A text is not a signed note, a checkpoint or a key; `str()` says what is wrong."""


def key_id(name: str, public_key: bytes) -> bytes:
    """The four bytes that name an Ed25519 key in signatures."""
    return sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 public key with the name that its signatures carry."""

    name: str
    public_key: bytes

    @property
    def id(self) -> bytes:
        return key_id(self.name, self.public_key)

    def __str__(self) -> str:
        """`name+hex(key ID)+base64(0x01 || public key)`."""
        return f"{self.name}+{self.id.hex()}+{_base64(ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises NoteMalformed."""
        name, given_id, public_key = split_key(text, "a verifier key")
        key = cls(name, public_key)
        if given_id != key.id.hex():
            raise NoteMalformed(f"a verifier key says its ID is {given_id!r}; that of this name and key is {key.id.hex()}")
        return key


def split_key(text: str, what: str) -> tuple[str, str, bytes]:
    """Name, ID and the 32 key bytes of `name+hex(key ID)+base64(0x01 || key)`. `what` names it in errors, which never show the key."""
    name, _, rest = text.partition("+")
    given_id, found, encoded = rest.partition("+")
    if not found:
        raise NoteMalformed(f"{what} is NAME+ID+BASE64, and this is not")
    check_name(name)
    data = _bytes(encoded, what)
    if data[:1] != ED25519 or len(data) != 1 + KEY_BYTES:
        raise NoteMalformed(f"{what} ends in the base64 of byte 1 and the {KEY_BYTES} bytes of an Ed25519 key, and this does not")
    return name, given_id, data[1:]


def check_name(name: str) -> None:
    """A key's name is not empty and has neither spaces, control characters nor a plus. Raises NoteMalformed."""
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise NoteMalformed(f"{name!r} cannot name a key: it must not be empty, nor have spaces, control characters or a plus")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. `key_id` and `name` together say which key made it; `value` are the bytes it made."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"{_SIGNATURE}{self.name} {_base64(self.key_id + self.value)}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends in a newline, and its signatures. Nothing in it may be believed before one of them is verified."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return "\n".join([self.text, *map(str, self.signatures), ""])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises NoteMalformed."""
        if len(data) > LARGEST_NOTE:
            raise NoteMalformed(f"a note of {len(data)} bytes is too large, {LARGEST_NOTE} are the most")
        try:
            whole = data.decode()
        except UnicodeDecodeError as error:
            raise NoteMalformed("a note is UTF-8 text, and this is not") from error
        if any(char < " " and char != "\n" for char in whole):
            raise NoteMalformed("a note has no control characters but newlines, and this has")
        # The text may have empty lines itself: the last one ends it.
        text, found, lines = whole.rpartition("\n\n")
        if not found or not lines.endswith("\n"):
            raise NoteMalformed("a note is a text, an empty line, and signature lines that each end in a newline")
        signatures = tuple(_signature(line) for line in lines[:-1].split("\n"))
        if len(signatures) > MOST_SIGNATURES:
            raise NoteMalformed(f"a note with {len(signatures)} signatures has too many, {MOST_SIGNATURES} are the most")
        return cls(text + "\n", signatures)


def _signature(line: str) -> Signature:
    name, found, encoded = line.removeprefix(_SIGNATURE).partition(" ")
    if not line.startswith(_SIGNATURE) or not found:
        raise NoteMalformed(f"{line!r} is not a signature line: — NAME BASE64")
    check_name(name)
    data = _bytes(encoded, "a signature")
    if len(data) <= KEY_ID_BYTES:
        raise NoteMalformed(f"a signature is more than the {KEY_ID_BYTES} bytes of its key's ID")
    return Signature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: with `size` entries the root of its Merkle tree is `root` (32 bytes).

    `origin` names the log for the whole world, `extensions` are further lines. `str()` is the text that is signed.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in (self.origin, self.size, _base64(self.root), *self.extensions))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the text of a note. Raises NoteMalformed."""
        lines = text.split("\n")
        if lines.pop() or len(lines) < 3 or "" in lines:
            raise NoteMalformed("a checkpoint is at least three lines, none of them empty: origin, size, root")
        origin, size, root, *extensions = lines
        if not _SIZE.fullmatch(size):
            raise NoteMalformed(f"the size of a checkpoint is a decimal number without leading zeros, not {size!r}")
        value = _bytes(root, "the root of a checkpoint")
        if len(value) != HASH_BYTES:
            raise NoteMalformed(f"the root of a checkpoint is {HASH_BYTES} bytes, not {len(value)}")
        return cls(origin, int(size), value, tuple(extensions))

    @property
    def made_us(self) -> int | None:
        """When it was made, by the clock of whoever signed it, in microseconds; None where no line says so. Raises NoteMalformed."""
        for line in self.extensions:
            if line.startswith(MADE_AT):
                try:
                    return times.from_text(line.removeprefix(MADE_AT))
                except ValueError as error:
                    raise NoteMalformed(f"{line!r} is not a time") from error
        return None


def checkpoint(origin: str, size: int, root: bytes, made_us: int) -> Checkpoint:
    """The checkpoint of a log as this project writes them."""
    return Checkpoint(origin, size, root, (MADE_AT + times.to_text(made_us),))


def origin_of(key_name: str, program_id: str) -> str:
    """The origin of a program's log: NAME/PROGRAM, so that a key vouches for the programs under its own name only."""
    return f"{key_name}/{program_id}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise NoteMalformed(f"{what} is base64, and this is not") from error
    # Padding bits that nobody reads would let one signature be written in several ways.
    if _base64(data) != text:
        raise NoteMalformed(f"{what} is base64 in its one canonical form, and this is not")
    return data
