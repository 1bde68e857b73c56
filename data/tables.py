"""The Parquet files of a built folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .clean import Cleaned, Removed
from .reading import REMOVED_FILE, SPLITS
from .records import Record
from .split import Placed

_TYPES = {
    "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    "labels": pa.list_(pa.string()),
    "judged": pa.list_(pa.string()),
    "weight": pa.float64(),
}
_OF_CLUSTER = {"cluster": pa.string()}
_OF_REMOVED = {
    "reason": pa.string(),
    "evidence": pa.string(),
    "evidence_source": pa.string(),
    "similarity": pa.float64(),
}
_ROWS = 4096


def write_tables(folder: Path, cleaned: Cleaned, placed: Placed, removed: Sequence[Removed]) -> list[Path]:
    """Write each split, and what was removed; the files of the splits."""
    fields = record_schema(cleaned.records)
    files = []
    for split in SPLITS:
        numbers = [number for number, name in placed.splits.items() if name == split]
        rows = ({**cleaned.records[n].to_row(), "cluster": placed.clusters[n]} for n in numbers)
        files.append(folder / f"{split}.parquet")
        _write(files[-1], rows, pa.schema(fields | _OF_CLUSTER))
    reasons = ({**item.record.to_row(), **{name: getattr(item, name) for name in _OF_REMOVED}} for item in removed)
    _write(folder / REMOVED_FILE, reasons, pa.schema(fields | _OF_REMOVED))
    return files


def record_schema(records: Sequence[Record]) -> dict[str, pa.DataType]:
    """Types of all fields: the record's own, and each further field in the type its values share, or as text."""
    own = {name: _TYPES.get(name, pa.string()) for name in Record((), "").to_row()}
    extra = sorted({name for record in records for name in record.extra} - _OF_CLUSTER.keys() - own.keys())
    return own | {name: _extra_type(name, records) for name in extra}


def _extra_type(name: str, records: Sequence[Record]) -> pa.DataType:
    try:
        kind = pa.array([record.extra.get(name) for record in records]).type
    except (pa.ArrowException, OverflowError):
        return pa.string()
    return pa.string() if _has_nothing(kind) else kind


def _has_nothing(kind: pa.DataType) -> bool:
    """Whether a type, or one inside it, has no values or no fields: Parquet cannot hold the latter."""
    inside = [kind.field(i).type for i in range(kind.num_fields)]
    return pa.types.is_null(kind) or (pa.types.is_struct(kind) and not inside) or any(map(_has_nothing, inside))


def _write(path: Path, rows: Iterator[Mapping[str, Any]], schema: pa.Schema) -> None:
    with path.open("wb") as stream:
        with pq.ParquetWriter(stream, schema) as writer:
            while some := list(islice(rows, _ROWS)):
                columns = [_column((row.get(field.name) for row in some), field.type) for field in schema]
                writer.write_table(pa.table(columns, schema=schema))
        stream.flush()
        os.fsync(stream.fileno())


def _column(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = (
            value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values
        )
    return pa.array(values, type=kind)
