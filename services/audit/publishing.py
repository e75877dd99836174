"""Checkpoints in a directory, outside the database: one file a checkpoint, `DIR/ORIGIN/SIZE`, and `DIR/ORIGIN/latest`.

A file is whole or not there, and one that is there never changes but `latest`. So whatever can take a file can carry checkpoints on.
"""

import os
from pathlib import Path
from urllib.parse import quote

LATEST = "latest"


class CannotPublish(Exception):
    """The directory cannot be read or written; `str()` says which file and why."""


class Directory:
    def __init__(self, path: Path) -> None:
        self._path = path

    def standing(self, origin: str, size: int) -> list[bytes]:
        """What a checkpoint of this size must not contradict: one of that size, and the one published last. Raises CannotPublish."""
        return [note for name in (LATEST, str(size)) if (note := self._read(origin, name)) is not None]

    def _read(self, origin: str, name: str) -> bytes | None:
        try:
            return (self._of(origin) / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CannotPublish(f"cannot read a checkpoint published before: {error}") from error

    def publish(self, origin: str, size: int, note: str) -> None:
        """Puts a checkpoint there and makes it the latest, both atomically and on the disk when it returns. Raises CannotPublish."""
        try:
            folder = self._of(origin)
            folder.mkdir(parents=True, exist_ok=True)
            for name in (str(size), LATEST):
                draft = folder / f".{name}.new"
                with draft.open("w", encoding="utf-8") as file:
                    file.write(note)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(folder / name)
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CannotPublish(f"cannot publish the checkpoint: {error}") from error

    def _of(self, origin: str) -> Path:
        return self._path.joinpath(*map(_safe, origin.split("/")))


def _safe(name: str) -> str:
    """A part of an origin as the name of a directory: percent-encoded where it is not plain, and never hidden nor a way up."""
    plain = quote(name, safe="")
    return "%2E" + plain[1:] if plain.startswith(".") else plain
