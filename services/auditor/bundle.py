"""The bundle on disk: a directory of entries in segments, copies for people's own tools, a manifest. docs/audit-bundle.md is the format.

Only names, framing and the manifest live here; `exporting` writes one, `verifying` checks one.
"""

import json
import mmap
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = "fenrun.bundle.v1"
MANIFEST = "manifest.json"
TRIAL_BALANCE = "trial-balance.json"
# A power of two, so that every segment but the last is one complete subtree of the Merkle tree.
SEGMENT_ENTRIES = 16_384
LARGEST_SEGMENT_ENTRIES = 1 << 24
# Every file that a bundle can hold. Each is checked; one that nobody checks would be believed because the rest holds.
_NAMES = re.compile(
    r"entries/[0-9]{8}\.bin|checkpoints/[0-9A-Za-z._-]+\.txt|plans/[0-9]{12}\.json|(entries|postings)\.parquet"
    r"|consistency\.json|trial-balance\.json"
)
# Bytes of the largest manifest, enough for billions of entries.
LARGEST_MANIFEST = 64 << 20


class NotABundle(Exception):
    """The directory is no bundle, or not one of a format known here; `str()` says what is wrong and what was expected."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the bundle; `path` is relative, with slashes. Segments say which positions they hold."""

    path: str
    bytes: int
    sha256: str
    first_position: int = 0
    last_position: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the bundle holds: the entries 1 to `entries` of a program."""

    program_id: str
    currency: str
    entries: int
    head_hash: str
    segment_entries: int
    exported_at: str
    files: tuple[File, ...]

    @property
    def segments(self) -> list[File]:
        return [file for file in self.files if file.first_position]

    def under(self, folder: str) -> list[File]:
        """The files of a folder, by name."""
        return sorted((file for file in self.files if file.path.startswith(f"{folder}/")), key=lambda file: file.path)

    def to_json(self) -> str:
        files = [{key: value for key, value in asdict(file).items() if value or key == "bytes"} for file in self.files]
        return json.dumps({"format": FORMAT, **asdict(self), "files": files}, ensure_ascii=False, indent=1) + "\n"


def segment_path(number: int) -> str:
    """Of the segment with a number, from 1."""
    return f"entries/{number:08d}.bin"


def read_manifest(bundle: Path) -> Manifest:
    """Raises NotABundle for anything but a manifest of this format whose segments follow each other without gaps."""
    _check_plain(bundle)
    try:
        text = read_whole(bundle, MANIFEST, LARGEST_MANIFEST).decode()
    except OSError:
        raise NotABundle(f"{bundle} has no {MANIFEST} that can be read; a bundle is a directory that `fenrun audit export` made") from None
    except UnicodeDecodeError:
        raise NotABundle(f"{MANIFEST} is not UTF-8") from None
    try:
        told = parse_json(text)
        if told["format"] != FORMAT:
            raise NotABundle(f"{MANIFEST} says format {told['format']!r}; this version knows {FORMAT!r}")
        files = tuple(_file(one) for one in told["files"])
        manifest = Manifest(
            _text(told, "program_id"),
            _text(told, "currency"),
            _count(told, "entries"),
            _text(told, "head_hash"),
            _count(told, "segment_entries"),
            _text(told, "exported_at"),
            files,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise NotABundle(f"{MANIFEST} does not have the shape of one: {type(problem).__name__}: {problem}") from None
    _check_segments(manifest)
    return manifest


def _check_plain(bundle: Path) -> None:
    """A link would lead out of the bundle, and what is no file may never end."""
    for folder, folders, names in os.walk(bundle):
        for path in (Path(folder, name) for name in (*folders, *names)):
            mode = path.lstat().st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise NotABundle(f"{shown_path(path.relative_to(bundle))} is a link or a device; a bundle is plain files")


def shown_path(path: Path) -> str:
    """A path as text; what of it is not UTF-8 is shown as �."""
    return os.fsencode(path).decode(errors="replace")


def read_whole(bundle: Path, path: str, most: int) -> bytes:
    """A small file of the bundle. Raises OSError, also for one of more bytes than any that is honest."""
    with (bundle / path).open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"{path} has more than {most} bytes")
    return data


def parse_json(text: str | bytes) -> Any:
    """One JSON document that every reader understands alike. Raises ValueError, also where an object says one thing twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("an object has a name twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _text(told: dict[str, Any], key: str) -> str:
    value = told[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {value!r}, not text")
    value.encode()  # JSON can spell half a character; nothing else can
    return value


def _count(told: dict[str, Any], key: str, default: int | None = None) -> int:
    value = told[key] if default is None else told.get(key, default)
    if type(value) is not int or value < 0:
        raise TypeError(f"{key} is {value!r}, not a count")
    return value


def _file(told: dict[str, Any]) -> File:
    path = _text(told, "path")
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"path {path!r} leads out of the bundle")
    if not _NAMES.fullmatch(path):
        raise ValueError(f"path {path!r} is none of a bundle's files, and nothing would check it")
    return File(path, _count(told, "bytes"), _text(told, "sha256"), _count(told, "first_position", 0), _count(told, "last_position", 0))


def _check_segments(manifest: Manifest) -> None:
    size = manifest.segment_entries
    if not 0 < size <= LARGEST_SEGMENT_ENTRIES or size & (size - 1):
        raise NotABundle(f"{MANIFEST}: segment_entries is {size}; expected a power of two, at most {LARGEST_SEGMENT_ENTRIES}")
    if not manifest.entries:
        raise NotABundle(f"{MANIFEST}: the bundle holds no entry; a log begins with one")
    if len({file.path for file in manifest.files}) != len(manifest.files):
        raise NotABundle(f"{MANIFEST} names a file twice")
    # Before anything is made of a number that somebody else wrote.
    count = -(-manifest.entries // size)
    if count != len(manifest.segments):
        raise NotABundle(f"{MANIFEST}: {manifest.entries} entries are {count} segments, {len(manifest.segments)} are named")
    expected = [
        (segment_path(number), first, min(first + size - 1, manifest.entries))
        for number, first in enumerate(range(1, manifest.entries + 1, size), 1)
    ]
    found = [(file.path, file.first_position, file.last_position) for file in manifest.segments]
    for wanted, there in zip(expected, found, strict=True):
        if wanted != there:
            raise NotABundle(f"{MANIFEST}: expected segment {wanted[0]} with positions {wanted[1]} to {wanted[2]}, found {there}")


# ---------------------------------------------------------------- framing


def varint(number: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def frame_at(buffer: "bytes | mmap.mmap", offset: int) -> tuple[int, int]:
    """(start, end) of the message whose length stands at an offset. Raises ValueError where it does not lie in the buffer."""
    length = shift = 0
    size = len(buffer)
    while True:
        if offset >= size or shift > 28:
            raise ValueError("the length of an entry is cut off or is none")
        byte = buffer[offset]
        offset += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                raise ValueError("the length of an entry is written longer than it need be")
            break
        shift += 7
    if offset + length > size:
        raise ValueError(f"an entry of {length} bytes is cut off: {size - offset} are there")
    return offset, offset + length


def frames(buffer: "bytes | mmap.mmap") -> Iterator[tuple[int, bytes]]:
    """(offset, message) of every entry of a segment. Raises ValueError, as `frame_at`."""
    offset, size = 0, len(buffer)
    while offset < size:
        start, end = frame_at(buffer, offset)
        yield offset, buffer[start:end]
        offset = end


class HashingFile:
    """A file being written, its size and SHA-256 known when it is closed."""

    def __init__(self, bundle: Path, path: str) -> None:
        self._path, self._bytes, self._sha256 = path, 0, sha256()
        target = bundle / path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = target.open("xb")

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def close(self, first_position: int = 0, last_position: int = 0) -> File:
        self._file.close()
        return File(self._path, self._bytes, self._sha256.hexdigest(), first_position, last_position)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex, in bounded memory."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
