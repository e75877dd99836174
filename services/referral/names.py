"""Members' names as they are stored: encrypted with a key of the member's own, which is wrapped in a master key and can be destroyed.

AES-256-GCM (NIST SP 800-38D), HMAC-SHA256 (RFC 2104), HKDF-SHA256 (RFC 5869); docs/erasure.md gives the exact bytes. Nothing here knows
the database.
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.kernel.refusals import MasterKeyMissing

KEY_BYTES = 32
NONCE_BYTES = 12
# Names are padded to so many bytes or a multiple of it, so that a ciphertext does not tell how long the name is.
BLOCK = 64

_WRAP = b"fenrun.member-key.v1\0"
_NAME = b"fenrun.member-name.v1\0"
_ENCRYPT = b"fenrun.member-name.v1 encrypt"
_MAC = b"fenrun.member-name.v1 mac"


class MasterKeyInvalid(Exception):
    """A master key cannot be used; `str()` says why, and never shows a key."""


class Hidden(NamedTuple):
    """A name that only the member's key tells."""

    mac: bytes
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class MasterKey:
    """`secret`, 32 bytes, is never shown. `id` names it where something is wrapped in it: 16 hex digits of a hash."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return sha256(b"fenrun.master-key.v1\0" + self.secret).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """The first one wraps; all of them unwrap."""

    keys: tuple[MasterKey, ...]

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Self:
        """One key a line, the current one first: the base64 of 32 bytes. `#` begins a comment. Raises MasterKeyInvalid."""
        keys = []
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            try:
                secret = base64.b64decode(text, validate=True)
            except binascii.Error:
                secret = b""
            if len(secret) != KEY_BYTES:
                raise MasterKeyInvalid(f"line {number} is not the base64 of {KEY_BYTES} bytes; make a key with `openssl rand -base64 32`")
            keys.append(MasterKey(secret))
        if not keys:
            raise MasterKeyInvalid("no key is in it; make one with `openssl rand -base64 32`")
        return cls(tuple(keys))

    @property
    def current(self) -> MasterKey:
        return self.keys[0]

    def wrap(self, program_id: str, member_id: str, key: bytes) -> bytes:
        """A member's key in the current master key: nonce, then ciphertext."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self.current.secret).encrypt(nonce, key, _bound(_WRAP, program_id, member_id))

    def unwrap(self, program_id: str, member_id: str, master_id: str, wrapped: bytes) -> bytes:
        """A member's key. Raises MasterKeyMissing, InvalidTag for bytes that are not what was wrapped."""
        master = next((key for key in self.keys if key.id == master_id), None)
        if master is None:
            raise MasterKeyMissing(
                f"the key of {member_id!r} is wrapped in the master key {master_id}, which this server was not given", master_id
            )
        return AESGCM(master.secret).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bound(_WRAP, program_id, member_id))


def load(path: Path) -> MasterKeys:
    """The keys of a file. Raises MasterKeyInvalid, also where others than its owner and group may read it."""
    try:
        keys = MasterKeys.parse(path.read_text(encoding="utf-8").splitlines())
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise MasterKeyInvalid(f"master key file {path}: {error.strerror}") from error
    except (MasterKeyInvalid, UnicodeDecodeError) as error:
        raise MasterKeyInvalid(f"master key file {path}: {error}") from error
    if mode & 0o007:
        raise MasterKeyInvalid(f"master key file {path}: everybody on this machine may use it (mode {mode:04o}); make it 0600")
    return keys


def new_key() -> bytes:
    """A member's key."""
    return secrets.token_bytes(KEY_BYTES)


def hide(key: bytes, program_id: str, member_id: str, naming_id: str, name: str) -> Hidden:
    """A name of up to 65,535 bytes, bound to the naming and to whom it names. Nonce and ciphertext differ each time, the MAC never does."""
    bound, text = _bound(_NAME, program_id, member_id, naming_id), name.encode()
    nonce = secrets.token_bytes(NONCE_BYTES)
    padded = len(text).to_bytes(2, "big") + text
    padded += bytes(-len(padded) % BLOCK)
    return Hidden(
        hmac.digest(_derived(key, _MAC), bound + text, "sha256"), nonce, AESGCM(_derived(key, _ENCRYPT)).encrypt(nonce, padded, bound)
    )


def reveal(key: bytes, program_id: str, member_id: str, naming_id: str, hidden: Hidden) -> str:
    """The name. Raises InvalidTag for anything but what `hide` gave with the same key and ids."""
    bound = _bound(_NAME, program_id, member_id, naming_id)
    padded = AESGCM(_derived(key, _ENCRYPT)).decrypt(hidden.nonce, hidden.ciphertext, bound)
    return padded[2 : 2 + int.from_bytes(padded[:2], "big")].decode()


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(key)


def _bound(purpose: bytes, *texts: str) -> bytes:
    """What a ciphertext belongs to: each text with its length before it, four bytes, big-endian."""
    return purpose + b"".join(len(encoded := text.encode()).to_bytes(4, "big") + encoded for text in texts)
