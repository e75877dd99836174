"""Signing checkpoints and verifying them: Ed25519 (RFC 8032), and the file that keeps the keys.

The key is kept outside the database, so that whoever owns the database cannot sign another history. A key file holds one key a line:
verifier keys of former signers, still trusted, and one signing key. `#` begins a comment.
"""

import base64
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.audit.domain.checkpoint import ED25519, Checkpoint, Note, NoteMalformed, Signature, VerifierKey, check_name, split_key

_PRIVATE = "PRIVATE+KEY+"


class NotTrusted(Exception):
    """A note is not signed by a trusted key; `str()` says why."""


class KeyFileInvalid(Exception):
    """A key file cannot be used; `str()` names it and says why. Never shows a key."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key with the name that its signatures carry. `seed` is the secret, 32 bytes, and never shown."""

    name: str
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> Self:
        """A new key from the system's randomness. Raises NoteMalformed for a name that no key can have."""
        check_name(name)
        return cls(name, secrets.token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `PRIVATE+KEY+name+hex(key ID)+base64(0x01 || seed)`, the form of Go's sumdb/note. Raises NoteMalformed."""
        if not text.startswith(_PRIVATE):
            raise NoteMalformed(f"a signing key begins with {_PRIVATE}, and this does not")
        name, given_id, seed = split_key(text.removeprefix(_PRIVATE), "a signing key")
        key = cls(name, seed)
        if given_id != key.verifier_key.id.hex():
            raise NoteMalformed("a signing key says the ID of its public key, and this says another")
        return key

    def secret_text(self) -> str:
        """The text that `parse` reads: the secret itself."""
        return f"{_PRIVATE}{self.name}+{self.verifier_key.id.hex()}+{base64.b64encode(ED25519 + self.seed).decode()}"

    @property
    def verifier_key(self) -> VerifierKey:
        return VerifierKey(self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def sign(self, text: str) -> Note:
        """The text, which ends in a newline, as a note with this key's signature."""
        value = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        return Note(text, (Signature(self.name, self.verifier_key.id, value),))


def verify(note: Note, trusted: Iterable[VerifierKey]) -> list[VerifierKey]:
    """The trusted keys that signed the note, at least one. Raises NotTrusted.

    Signatures of other keys are ignored, for anybody may add them. One that names a trusted key and is not its own makes the whole note
    worthless, as the format asks.
    """
    known = {(key.name, key.id): key for key in trusted}
    found = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature.value, note.text.encode())
        except InvalidSignature as error:
            raise NotTrusted(f"the signature of key {key.name} ({key.id.hex()}) is not of this text") from error
        found.append(key)
    if not found:
        others = ", ".join(f"{signature.name} ({signature.key_id.hex()})" for signature in note.signatures)
        raise NotTrusted(f"none of the trusted keys signed this; it is signed by {others}")
    return found


def open_checkpoint(data: bytes, trusted: Sequence[VerifierKey], origin: str | None = None) -> Checkpoint:
    """The checkpoint in a signed note, verified; of this origin, or else of one under the name of the key that signed it.

    Raises NoteMalformed, NotTrusted.
    """
    note = Note.parse(data)
    signers = verify(note, trusted)
    found = Checkpoint.parse(note.text)
    if origin is not None and found.origin != origin:
        raise NotTrusted(f"the checkpoint is of the log {found.origin!r}, not of {origin!r}")
    if not any(found.origin.startswith(f"{key.name}/") for key in signers):
        raise NotTrusted(f"the key {signers[0].name} does not vouch for the log {found.origin!r}")
    return found


# ---------------------------------------------------------------- keys and where they are kept


@dataclass(frozen=True, slots=True)
class Keys:
    """`signing` signs new checkpoints; None where a file holds verifier keys only. `trusted` are all, oldest first."""

    signing: SigningKey | None
    trusted: tuple[VerifierKey, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the lines of a key file. Raises NoteMalformed."""
        signing, trusted = [], []
        for line in text.splitlines():
            line = line.strip()
            if line.startswith(_PRIVATE):
                signing.append(SigningKey.parse(line))
                trusted.append(signing[-1].verifier_key)
            elif line and not line.startswith("#"):
                trusted.append(VerifierKey.parse(line))
        if len(signing) > 1:
            raise NoteMalformed("two signing keys, and only one can sign; keep the verifier key of the former instead")
        if not trusted:
            raise NoteMalformed("no key is in it")
        if len({key.name for key in trusted}) > 1:
            raise NoteMalformed("the keys have different names; a log's checkpoints are all signed under one name")
        return cls(signing[0] if signing else None, tuple(trusted))


def load(path: Path) -> Keys:
    """The keys of a file. Raises KeyFileInvalid, also where others than its owner may read a signing key."""
    try:
        keys = Keys.parse(path.read_text(encoding="utf-8"))
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise KeyFileInvalid(f"key file {path}: {error.strerror}") from error
    except (NoteMalformed, UnicodeDecodeError) as error:
        raise KeyFileInvalid(f"key file {path}: {error}") from error
    # A group may read it: that is how secrets are mounted where the service is not their owner.
    if keys.signing and mode & 0o007:
        raise KeyFileInvalid(f"key file {path}: everybody on this machine may use it (mode {mode:04o}); make it 0600")
    return keys


def given(text: str) -> tuple[VerifierKey, ...]:
    """The keys of a file of that name, or the verifier key itself. Raises KeyFileInvalid, NoteMalformed."""
    return load(Path(text)).trusted if Path(text).is_file() else (VerifierKey.parse(text),)


def create(path: Path, name: str) -> Keys:
    """Makes a key and a file for it, mode 0600. Raises KeyFileInvalid where there is a file already, NoteMalformed for a bad name."""
    key = SigningKey.generate(name)
    _write(path, f"{key.secret_text()}\n")
    return load(path)


def rotate(path: Path) -> Keys:
    """Makes a key of the same name that signs from now on. The former one becomes its verifier key: trusted, and unable to sign.

    Raises KeyFileInvalid.
    """
    former = load(path)
    key = SigningKey.generate(former.trusted[-1].name)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    _write(new, "".join(f"{line}\n" for line in (*former.trusted, key.secret_text())))
    new.replace(path)
    return load(path)


def _write(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise KeyFileInvalid(f"key file {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
