"""Reading tables row by row: JSONL, CSV, TSV, Parquet and Arrow as one stream of rows, in bounded memory.

What is wrong with one row (a broken line, a CSV row of the wrong width) is that row's `error`; what is wrong with a
file is an `InputError`. `data` reads labelled files through this module too.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from .files import LINE_LIMIT, STDIN, InputError, file_kind, is_compressed, open_file, read_lines, stdin

_BATCH_ROWS = 1024
_READ_BYTES = 1 << 20
_DELIMITED = ("csv", "tsv")
_TOO_LONG = f"the line is over {LINE_LIMIT >> 20} MiB"
_NAME = re.compile(r"[\w.-]{1,40}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. `number` is the line (JSONL, CSV: where the row ends) or the row (Parquet, Arrow), from 1."""

    number: int
    values: dict[str, Any]
    error: str | None = None


Wanted = Callable[[int], bool]
"""Whether the row of a place, from 0, is wanted."""


def read_rows(path: Path, columns: Iterable[str] | None = None, wanted: Wanted | None = None) -> Iterator[Row]:
    """Every row of a table, in order.

    Args:
        path: a file of a known kind.
        columns: the columns wanted (those the file lacks are passed over); all where None.
        wanted: tells which rows are; the others come without values, which costs less than reading them.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    with _faults_of(path):
        yield from _READERS[file_kind(path)](path, None if columns is None else list(columns), wanted or _every)


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """What a file raises that is cut off or broken becomes an `InputError`. Many kinds are a `ValueError`."""
    try:
        yield
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, ArithmeticError, LookupError) as error:
        # What is said of text that is no UTF-8 would quote it.
        why = error.reason if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else error
        raise InputError(f"{path}: cannot be read ({why})") from error


def _every(place: int) -> bool:
    return True


def count_rows(path: Path) -> int | None:
    """How many rows a file has, for a progress bar: exact for Parquet, by line for JSONL and CSV, else unknown."""
    if str(path) == STDIN or is_compressed(path) or not isinstance(path, Path):
        return None
    if file_kind(path) == "parquet":
        return int(open_parquet(path).metadata.num_rows)
    if file_kind(path) == "arrow":
        with _faults_of(path):
            return sum(batch.num_rows for batch in _open_arrow(path)[1])
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def find_columns(path: Path, wanted: Iterable[str]) -> set[str] | None:
    """Which of the columns `wanted` stand in the file; None where it holds no readable row to tell from.

    A key may be absent from one JSONL row and present in the next: rows are read until all are found, which is at
    once in a sound file.
    """
    wanted = set(wanted)
    if str(path) == STDIN:  # it can be read once: what has come so far must tell
        return _columns_of_lines(stdin().peek(1 << 20).splitlines(keepends=True), wanted)
    if file_kind(path) != "jsonl":
        return wanted & set(column_names(path))
    found: set[str] = set()
    readable = False
    for row in read_rows(path):
        readable = readable or row.error is None
        found |= wanted & row.values.keys()
        if found == wanted:
            break
    return found if readable else None


def _columns_of_lines(lines: list[bytes], wanted: set[str]) -> set[str] | None:
    rows = []
    for line in lines:
        with suppress(ValueError, RecursionError):  # it becomes an error row later
            rows.append(json.loads(line) if line.endswith(b"\n") else None)
    keys = [row.keys() for row in rows if isinstance(row, dict)]
    return wanted & set().union(*keys) if keys else None


def column_names(path: Path) -> list[str]:
    """Names of columns to quote in an error: all of them, or those of the first readable JSONL row."""
    kind = file_kind(path)
    if str(path) == STDIN:
        return []
    with _faults_of(path):
        if kind == "parquet":
            return list(parquet_schema(path).names)
        if kind == "arrow":
            return list(_open_arrow(path)[0])
    if kind in _DELIMITED:
        with _faults_of(path), open_file(path) as stream:
            return _header(path, _csv_rows(stream, kind)[0])
    return next((list(row.values) for row in read_rows(path) if row.error is None), [])


def shown_columns(names: Iterable[str]) -> str:
    """Names of columns as an error shows them. Of a file without a header line they are its first prompt: only what
    looks like a name is shown.
    """
    return ", ".join(name if _NAME.fullmatch(name) else "…" for name in map(str, islice(names, 20))) or "none"


def parquet_schema(path: Path) -> Any:
    """The Arrow schema of a Parquet file."""
    return open_parquet(path).schema_arrow


def _read_jsonl(path: Path, columns: list[str] | None, wanted: Wanted) -> Iterator[Row]:
    names = None if columns is None else set(columns)
    place = -1
    with open_file(path) as stream:
        for number, line in enumerate(read_lines(stream), 1):
            if number == 1 and line is not None:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line is not None and not line.strip():
                continue
            place += 1
            if not wanted(place):
                yield Row(number, {})
                continue
            if line is None:
                yield Row(number, {}, _TOO_LONG)
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
            elif names is None:
                yield Row(number, value)
            else:
                yield Row(number, {name: item for name, item in value.items() if name in names})


def open_parquet(path: Path) -> Any:
    """A Parquet file, opened; `InputError` where it cannot be."""
    import pyarrow
    import pyarrow.parquet

    try:
        # By default a whole row group is fetched at once, and many writers leave one for the whole file.
        return pyarrow.parquet.ParquetFile(
            path if isinstance(path, Path) else path.open("rb"), pre_buffer=False, buffer_size=_READ_BYTES
        )
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def _open_arrow(path: Path) -> tuple[list[str], Iterator[Any]]:
    """Column names and record batches of an Arrow file, as `datasets` writes it (a stream) or as Feather (a file)."""
    import pyarrow
    import pyarrow.ipc

    def batches() -> Iterator[Any]:
        with source:
            for i in range(reader.num_record_batches) if is_file else ():
                yield reader.get_batch(i)
            yield from () if is_file else reader

    try:
        source = (
            pyarrow.memory_map(str(path)) if isinstance(path, Path) else pyarrow.PythonFile(path.open("rb"), mode="r")
        )
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        reader = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Arrow file ({error})") from error
    return list(reader.schema.names), batches()


def _read_parquet(path: Path, columns: list[str] | None, wanted: Wanted) -> Iterator[Row]:
    file = open_parquet(path)
    present = file.schema_arrow.names
    names = present if columns is None else [name for name in present if name in columns]
    return _rows_of(path, file.iter_batches(batch_size=_BATCH_ROWS, columns=names), names, wanted)


def _read_arrow(path: Path, columns: list[str] | None, wanted: Wanted) -> Iterator[Row]:
    present, batches = _open_arrow(path)
    names = present if columns is None else [name for name in present if name in columns]
    # Places in an Arrow file are not checked when it is opened: a broken one would end the program.
    return _rows_of(path, map(_validated, batches), names, wanted)


def _validated(batch: Any) -> Any:
    batch.validate(full=True)
    return batch


def _rows_of(path: Path, batches: Iterator[Any], names: list[str], wanted: Wanted) -> Iterator[Row]:
    import pyarrow

    number = 0
    try:
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                part = batch.slice(start, _BATCH_ROWS)
                # A batch of no columns yields no rows of its own: count them.
                some = bool(names) and any(map(wanted, range(number, number + part.num_rows)))
                for values in _values_of(part.select(names)) if some else [{}] * part.num_rows:
                    number += 1
                    if values is None and wanted(number - 1):
                        yield Row(number, {}, "broken row: it holds text that is no UTF-8, or a time out of range")
                    else:
                        yield Row(number, values if values and wanted(number - 1) else {})
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: broken after row {number} ({error})") from error


def _values_of(part: Any) -> list[dict[str, Any] | None]:
    """The rows of a record batch, with None for each that has no form in Python."""
    try:
        return part.to_pylist()
    except (ValueError, ArithmeticError):
        if part.num_rows == 1:
            return [None]
        return [values for i in range(part.num_rows) for values in _values_of(part.slice(i, 1))]


def _header(path: Path, reader: Any) -> list[str]:
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{path}: the header line is broken ({error})") from error
    if not names:
        raise InputError(f"{path}: has no header line")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: the header names a column twice: {shown_columns(repeated)}")
    return names


def _csv_rows(stream: Any, kind: str) -> tuple[Any, _CsvLines]:
    """A reader of CSV, with commas or, as spreadsheets of many countries export it, with semicolons; or of TSV."""
    first = stream.peek(1 << 16).splitlines()[:1]
    delimiter = "\t" if kind == "tsv" else ";" if first and b";" in first[0] and b"," not in first[0] else ","
    csv.field_size_limit(LINE_LIMIT)
    lines = _CsvLines(stream)
    return csv.reader(lines, delimiter=delimiter, strict=True), lines


class _CsvLines:
    """The lines of a stream as text, as `csv` wants them; one that is too long is a `csv.Error` in its place."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._blocks = read_lines(stream)
        self._rest: list[str] = []
        self._encoding = "utf-8-sig"
        self.number = 0
        self.row_size = 0  # of the row that is being read, over all its lines: a quote may have no end

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        if self._rest:
            self.number += 1
            return self._rest.pop()
        block = next(self._blocks)
        self.number += 1
        if block is None:
            raise csv.Error(_TOO_LONG)
        self.row_size += len(block)
        if self.row_size > LINE_LIMIT:
            raise csv.Error(_TOO_LONG.replace("line", "row"))
        line = block.decode(self._encoding, "replace")
        self._encoding = "utf-8"
        # A lone carriage return ends a line too, in files of old.
        if "\r" in line.removesuffix("\n").removesuffix("\r"):
            self._rest = list(io.StringIO(line, newline=""))[::-1]
            return self._rest.pop()
        return line


def _read_csv(path: Path, columns: list[str] | None, wanted: Wanted) -> Iterator[Row]:
    place = -1
    with open_file(path) as stream:
        reader, lines = _csv_rows(stream, file_kind(path))
        names = _header(path, reader)
        chosen = set(names if columns is None else columns)
        while True:
            begins = lines.number + 1
            lines.row_size = 0
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                place += 1
                yield Row(lines.number, {}, f"broken CSV: {error} (the row begins in line {begins})")
                continue
            if not fields:
                continue
            place += 1
            if not wanted(place):
                yield Row(lines.number, {})
                continue
            if len(fields) != len(names):
                yield Row(lines.number, {}, f"broken CSV: {len(fields)} fields under a header of {len(names)}")
                continue
            yield Row(lines.number, {k: v for k, v in zip(names, fields, strict=True) if k in chosen})


_READERS = {
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "csv": _read_csv,
    "tsv": _read_csv,
}
