"""Finding and opening files: local paths and URLs of any file system that fsspec knows, plain or compressed."""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".arrow": "arrow",
}
COMPRESSIONS = (".gz", ".zst")
_COMPRESSIBLE = ("jsonl", "csv", "tsv")
STDIN = "-"
LINE_LIMIT = 1 << 26
"""Bytes of the longest line that is read, and of the longest row of a CSV file: 64 MiB."""
_BLOCK = 1 << 18
KNOWN = ".jsonl, .ndjson, .csv, .tsv (also .gz, .zst), .parquet, or the folder of a saved datasets.Dataset"


class InputError(ValueError):
    """A file that cannot be read as a table, or a column that no row of it has."""


def find_files(inputs: Iterable[str]) -> list[Path]:
    """The files that paths, folders and globs name, in order, each once.

    A name with `://` is a URL (`s3://…`, `memory://…`); its files come as `upath.UPath`, which stands in for a
    `Path`. A folder saved by `datasets` gives its Arrow files.

    Raises:
        InputError: a name stands for nothing, or for a file of no known kind.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        path = path_of(name)
        try:
            found.update(dict.fromkeys([path] if name == STDIN else _files_of(name, path)))
        except ImportError as error:  # the URL's file system is a package of its own
            raise InputError(f"{name}: {error} (with pip)") from error
        except OSError as error:
            raise InputError(f"{name}: cannot be reached ({error})") from error
    return list(found)


def path_of(name: str) -> Path:
    """The path that a name stands for: a `Path`, or a `upath.UPath` for a URL; `-` is standard input."""
    if "://" not in name:
        return Path(name)
    from upath import UPath

    try:
        return UPath(name)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def _files_of(name: str, path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted((item for item in _walk(path) if _is_table(item)), key=str)
        if not inside:
            raise InputError(f"{name}: the folder holds no file of a known kind: {KNOWN}")
        return inside
    if path.is_file():
        if not file_kind(path):
            raise InputError(f"{name}: unknown kind of file; known: {KNOWN}")
        return [path]
    if isinstance(path, Path):
        matches = [Path(match) for match in glob.glob(name, recursive=True)]  # noqa: PTH207 (a Path cannot glob an absolute pattern)
    else:
        matches = [path_of(path.fs.unstrip_protocol(match)) for match in path.fs.glob(name)]
    matches = sorted((match for match in matches if match.is_file() and file_kind(match)), key=str)
    if not matches:
        raise InputError(f"{name}: no such file or folder")
    return matches


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, through links too; hidden ones are left alone. What cannot be opened is an error."""
    if not isinstance(folder, Path):
        yield from folder.rglob("*")
        return

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be opened ({error.strerror})")

    seen: set[Path] = set()
    for here, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = Path(here).resolve()
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(here) / name for name in names if not name.startswith("."))
        seen.add(real)


def _is_table(path: Path) -> bool:
    """Whether a file found in a folder holds rows; of Arrow files, those that `datasets` lists as its data."""
    kind = file_kind(path)
    if kind != "arrow":
        return bool(kind) and path.is_file()
    state = path.parent / "state.json"
    if not state.is_file():
        return not path.name.startswith(("cache-", "tmp"))
    try:
        listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        return path.name in {item["filename"] for item in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{state}: is not what datasets writes beside its Arrow files") from error


def file_kind(path: Path) -> str:
    """`jsonl`, `csv`, `tsv`, `parquet` or `arrow` by the file's name; empty where unknown."""
    if str(path) == STDIN:
        return "jsonl"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        kind = KINDS.get(suffixes[-2], "") if len(suffixes) > 1 else ""
        return kind if kind in _COMPRESSIBLE else ""
    return KINDS.get(suffixes[-1], "") if suffixes else ""


def is_compressed(path: Path) -> bool:
    """Whether the file is read through a decompressor."""
    return path.suffix.lower() in COMPRESSIONS


def open_file(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed, as a buffered stream.

    Raises:
        InputError: it is UTF-16, as some spreadsheets export.
    """
    suffix = path.suffix.lower()
    stream: Any
    if str(path) == STDIN:
        return stdin()
    if suffix == ".gz":
        stream = gzip.open(path if isinstance(path, Path) else path.open("rb"))  # noqa: SIM115 (the caller closes it)
    elif suffix == ".zst":
        import pyarrow

        stream = io.BufferedReader(pyarrow.input_stream(path.open("rb"), compression="zstd"), 1 << 18)
    else:
        stream = path.open("rb")
    if not hasattr(stream, "peek"):
        stream = io.BufferedReader(stream)
    try:
        if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{path}: is UTF-16 text; save it as UTF-8")
    except BaseException:
        stream.close()
        raise
    return stream


@cache
def stdin() -> io.BufferedReader:
    """Standard input, of which a megabyte can be peeked at."""
    return io.BufferedReader(io.FileIO(0, closefd=False), 1 << 20)


def read_lines(stream: IO[bytes], limit: int = LINE_LIMIT) -> Iterator[bytes | None]:
    """The lines of a stream as `readlines` gives them, with None in the place of each that is over `limit` bytes.

    A line without an end, of which a small compressed file may hold terabytes, takes no more memory than twice the
    limit. What a pipe has sent is read at once, and not waited upon until a block is full.
    """
    read = getattr(stream, "read1", stream.read)
    begun: list[bytes] = []  # what has come of a line whose end has not
    size = 0
    while block := read(min(_BLOCK, limit)):
        first, last = 0, block.rfind(b"\n") + 1
        if size and last:
            first = block.index(b"\n") + 1
            size += first
            yield b"".join([*begun, block[:first]]) if size <= limit else None
            begun, size = [], 0
        yield from io.BytesIO(block[first:last])
        size += len(block) - last
        begun = [*begun, block[last:]] if 0 < size <= limit else []
    if size:
        yield b"".join(begun) if size <= limit else None
