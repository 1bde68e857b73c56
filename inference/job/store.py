"""A folder whose files appear whole: on disk by temporary file, sync and rename; behind a URL as one object."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

WRITING = ".writing"


def is_local(path: Path) -> bool:
    """Whether a path lies on this machine's disk (a `upath.UPath` stands for a URL)."""
    return isinstance(path, Path)


class Store:
    """A flat folder, local or of any file system that fsspec knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> set[str]:
        """The files that are there; what a killed write left behind is none."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if not path.name.endswith(WRITING)}

    def read(self, name: str) -> bytes | None:
        """A file's content, or None where there is none."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, and have it lie on the disk when this returns."""
        write_whole(self.folder / name, content)

    def write_once(self, name: str, content: bytes) -> bytes:
        """Write a file unless it is there; what then stands, which another process may have written."""
        standing = self.read(name)
        if standing is not None:
            return standing
        if not is_local(self.folder):  # an object store has no exclusive write: the last of two that race stands
            self.write(name, content)
            return self.read(name) or content
        waiting = _written(self.folder / name, content)
        try:
            os.link(waiting, self.folder / name)
        except FileExistsError:
            return (self.folder / name).read_bytes()
        finally:
            waiting.unlink(missing_ok=True)
        return content

    def sweep(self) -> None:
        """Remove what killed writes left behind; nobody else may be writing here."""
        for path in list(self.folder.iterdir()):
            if path.name.endswith(WRITING):
                path.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            (self.folder / name).unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either all there or not at all."""
    if not is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return
    _written(path, content).replace(path)
    sync_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.rmdir(recursive=True)  # type: ignore[call-arg]  # a UPath


def sync_folder(folder: Path) -> None:
    """Have a folder's names lie on the disk, so that a rename outlives a loss of power."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _written(path: Path, content: bytes) -> Path:
    """The content, synced, in a temporary file of its own beside `path`."""
    waiting = path.with_name(f"{path.name}.{secrets.token_hex(4)}{WRITING}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with waiting.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        waiting.unlink(missing_ok=True)
        raise
    return waiting
