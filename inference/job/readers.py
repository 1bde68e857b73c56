"""Reading tables row by row: JSONL, Parquet and CSV as one stream of rows, in bounded memory.

What is wrong with one row (a broken line, a CSV row of the wrong width) is that row's `error`; what is wrong with a
file is an `InputError`. `data` reads labelled files through this module too.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

JSONL_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SUFFIXES = (*JSONL_SUFFIXES, ".parquet", ".csv", ".csv.gz")
_PARQUET_ROWS = 1024


class InputError(ValueError):
    """A file that cannot be read as a table, or a column that no row of it has."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. `number` is the line (JSONL, CSV: where the row ends) or the row (Parquet), from 1."""

    number: int
    values: dict[str, Any]
    error: str | None = None


def find_files(inputs: Iterable[str]) -> list[Path]:
    """The files that paths, folders and globs name, in order, each once.

    Raises:
        InputError: a path names nothing, or a file of no known kind.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = sorted(item for item in path.rglob("*") if item.is_file() and _kind(item))
            if not inside:
                raise InputError(f"{name}: the folder holds no file that ends in {', '.join(SUFFIXES)}")
            found.update(dict.fromkeys(inside))
        elif path.is_file():
            if not _kind(path):
                raise InputError(f"{name}: unknown kind of file; known: {', '.join(SUFFIXES)}")
            found[path] = None
        else:
            matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 (a Path cannot glob an absolute pattern)
            matches = [match for match in matches if match.is_file() and _kind(match)]
            if not matches:
                raise InputError(f"{name}: no such file or folder")
            found.update(dict.fromkeys(matches))
    return list(found)


def read_rows(path: Path, columns: Iterable[str] | None = None) -> Iterator[Row]:
    """Every row of a table, in order.

    Args:
        path: a file of a known kind.
        columns: the columns wanted (those the file lacks are passed over); all where None.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    try:
        yield from _READERS[_kind(path)](path, None if columns is None else list(columns))
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def count_rows(path: Path) -> int | None:
    """How many rows a file has, for a progress bar: exact for Parquet, by line for JSONL and CSV, else unknown."""
    if path.suffix == ".gz":
        return None
    if _kind(path) == "parquet":
        return int(_open_parquet(path).metadata.num_rows)
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def find_columns(path: Path, wanted: Iterable[str]) -> set[str] | None:
    """Which of the columns `wanted` stand in the file; None where it holds no readable row to tell from.

    A key may be absent from one JSONL row and present in the next: rows are read until all are found, which is at
    once in a sound file.
    """
    wanted = set(wanted)
    if _kind(path) == "parquet":
        return wanted & set(_open_parquet(path).schema_arrow.names)
    if _kind(path) == "csv":
        return wanted & set(column_names(path))
    found: set[str] = set()
    readable = False
    for row in read_rows(path):
        readable = readable or row.error is None
        found |= wanted & row.values.keys()
        if found == wanted:
            break
    return found if readable else None


def column_names(path: Path) -> list[str]:
    """Names of columns to quote in an error: all of them, or those of the first readable JSONL row."""
    if _kind(path) == "parquet":
        return list(_open_parquet(path).schema_arrow.names)
    if _kind(path) == "csv":
        with _open(path) as stream:
            return _header(path, _csv_rows(stream))
    return next((list(row.values) for row in read_rows(path) if row.error is None), [])


def _kind(path: Path) -> str:
    name = path.name.lower()
    if name.endswith(JSONL_SUFFIXES):
        return "jsonl"
    if name.endswith((".csv", ".csv.gz")):
        return "csv"
    return "parquet" if name.endswith(".parquet") else ""


def _open(path: Path) -> IO[bytes]:
    # gzip's reader is a BinaryIO in all that is used here; its type says otherwise.
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_jsonl(path: Path, columns: list[str] | None) -> Iterator[Row]:
    wanted = None if columns is None else set(columns)
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                # Bytes that are no UTF-8 become U+FFFD: a damaged character is no reason to lose a prompt.
                value = json.loads(line.decode("utf-8", errors="replace"))
            except (ValueError, RecursionError) as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else "too deep or too large a value"
                yield Row(number, {}, f"broken JSON: {why}")
                continue
            if not isinstance(value, dict):
                yield Row(number, {}, "broken row: the line is not a JSON object")
            elif wanted is None:
                yield Row(number, value)
            else:
                yield Row(number, {name: item for name, item in value.items() if name in wanted})


def _open_parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def _read_parquet(path: Path, columns: list[str] | None) -> Iterator[Row]:
    import pyarrow

    file = _open_parquet(path)
    present = file.schema_arrow.names
    wanted = present if columns is None else [name for name in present if name in columns]
    number = 0
    try:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted):
            # A batch of no columns yields no rows of its own: count them.
            rows = batch.to_pylist() if wanted else [{}] * batch.num_rows
            for values in rows:
                number += 1
                yield Row(number, values)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: broken after row {number} ({error})") from error


def _header(path: Path, reader: Any) -> list[str]:
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{path}: the header line is broken ({error})") from error
    if not names:
        raise InputError(f"{path}: has no header line")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: the header names a column twice: {', '.join(repeated)}")
    return names


def _csv_rows(stream: IO[bytes]) -> Any:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    return csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline=""), strict=True)


def _read_csv(path: Path, columns: list[str] | None) -> Iterator[Row]:
    with _open(path) as stream:
        reader = _csv_rows(stream)
        names = _header(path, reader)
        wanted = set(names if columns is None else columns)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(reader.line_num, {}, f"broken CSV: {error}")
                continue
            if not fields:
                continue
            if len(fields) != len(names):
                yield Row(reader.line_num, {}, f"broken CSV: {len(fields)} fields under a header of {len(names)}")
                continue
            yield Row(reader.line_num, {k: v for k, v in zip(names, fields, strict=True) if k in wanted})


_READERS = {"jsonl": _read_jsonl, "parquet": _read_parquet, "csv": _read_csv}
