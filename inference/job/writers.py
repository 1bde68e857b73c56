"""Writing scored rows: parts first, then one file (or a folder of parts) put in place whole."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .store import is_local, write_whole

if TYPE_CHECKING:
    import pyarrow

OUTPUT_SUFFIXES = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "csv"}
SUMMARY_KEY = b"promptassay.summary"


def output_format(path: Path) -> tuple[str, bool]:
    """The format of an output path, and whether it is one file (else a folder of Parquet parts)."""
    kind = OUTPUT_SUFFIXES.get(path.suffix.lower())
    return (kind, True) if kind else ("parquet", False)


def encode_part(kind: str, rows: Sequence[dict[str, Any]], types: dict[str, Any]) -> bytes:
    """Rows as the bytes of one part.

    Args:
        kind: `parquet`, `jsonl` or `csv` (without a header line).
        rows: at least one; all have the same keys.
        types: the Arrow type of each column where it is known; the others are inferred.
    """
    rows = [{name: without_surrogates(value) for name, value in row.items()} for row in rows]
    if kind == "jsonl":
        return as_jsonl(rows)
    if kind == "csv":
        return as_csv([row.values() for row in rows])
    import pyarrow

    return as_parquet(pyarrow.table({name: _array([row[name] for row in rows], types.get(name)) for name in rows[0]}))


def as_parquet(table: pyarrow.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer)
    return bytes(buffer.getvalue())


def join_parts(parts: Sequence[Path], kind: str, types: dict[str, Any], output: Path, summary: dict[str, Any]) -> None:
    """Join parts into one file at `output`, in order; `types` names the columns, with their Arrow types where known."""
    with output.open("wb") as stream:
        if kind == "parquet":
            _join_parquet(parts, types, stream, summary)
        else:
            if kind == "csv":
                stream.write(as_csv([types]))
            for part in parts:
                stream.write(part.read_bytes())
        sync(stream)


def write_summary(output: Path, summary: dict[str, Any]) -> None:
    """Write `OUTPUT.summary.json`."""
    write_whole(summary_path(output), (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())


def summary_path(output: Path) -> Path:
    """Where the summary of `output` lies."""
    return output.with_name(output.name + ".summary.json")


def without_surrogates(value: Any) -> Any:
    """A value whose lone surrogates, which cannot be written as UTF-8, are replaced; in lists and objects too."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value


def sync(stream: IO[bytes]) -> None:
    """Have all that was written lie on the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def as_jsonl(rows: Iterable[dict[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode()


def as_csv(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows of values as lines of CSV; the names of the columns are a row as well."""
    buffer = io.StringIO()
    lines = []
    # With this terminator a lone carriage return is quoted too; the lines themselves end in \n.
    writer = csv.writer(buffer, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_guarded(value) for value in row])
        lines.append(buffer.getvalue()[:-2])
        buffer.seek(0)
        buffer.truncate()
    return "".join(f"{line}\n" for line in lines).encode()


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula (OWASP, CSV injection)."""


def _cell(value: Any) -> Any:
    """A value as text: JSON's own words for what is no text, nothing for null."""
    return (
        "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    )


def _guarded(value: Any) -> Any:
    """A value as CSV holds it: text that a spreadsheet would run as a formula gets an apostrophe before it."""
    cell = _cell(value)
    return "'" + cell if isinstance(value, str) and cell.startswith(_FORMULA) else cell


def _array(values: list[Any], kind: pyarrow.DataType | None) -> pyarrow.Array:
    """A column, of the type given or inferred; as JSON text where its values have no one type."""
    import pyarrow

    try:
        return pyarrow.array(values, type=kind)
    except (pyarrow.ArrowException, OverflowError):
        return pyarrow.array([None if value is None else _cell(value) for value in values], type=pyarrow.string())


def _join_parquet(parts: Sequence[Path], types: dict[str, Any], stream: IO[bytes], summary: dict[str, Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = common_schema(parts, types).with_metadata({SUMMARY_KEY: json.dumps(summary).encode()})
    with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        for part in parts:
            table = pyarrow.parquet.read_table(part if is_local(part) else pyarrow.BufferReader(part.read_bytes()))
            writer.write_table(cast_table(table, schema))


def schema_of(path: Path) -> pyarrow.Schema:
    """The schema of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(path if is_local(path) else pyarrow.BufferReader(path.read_bytes()))


def common_schema(parts: Sequence[Path], types: dict[str, Any]) -> pyarrow.Schema:
    """One schema for all parts.

    A column that is whole numbers here and fractions there becomes fractions; one that has no one type becomes text.
    """
    import pyarrow

    schemas = [schema_of(part) for part in parts]
    fields = []
    for name, known in types.items():
        kinds = {schema.field(name).type for schema in schemas} - {pyarrow.null()}
        if len(kinds) == 1:
            kind = kinds.pop()
        elif not kinds:
            kind = known or pyarrow.string()
        elif all(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) for kind in kinds):
            kind = pyarrow.float64()
        else:
            kind = pyarrow.string()
        fields.append(pyarrow.field(name, kind))
    return pyarrow.schema(fields)


def cast_table(table: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    """The columns of `table` in the types of `schema`."""
    import pyarrow

    return pyarrow.table([_cast(table[field.name], field.type) for field in schema], schema=schema)


def _cast(column: pyarrow.ChunkedArray, kind: pyarrow.DataType) -> pyarrow.ChunkedArray:
    import pyarrow

    if column.type == kind:
        return column
    if pyarrow.types.is_null(column.type) or not pyarrow.types.is_string(kind):
        return column.cast(kind)
    return pyarrow.chunked_array([_array([None if v is None else _cell(v) for v in column.to_pylist()], kind)])
