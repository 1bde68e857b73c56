"""Building splits: read → check → clean → cluster → split → check again → write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference.artefact import write_text

from .clean import Removed, remove_duplicates
from .manifest import data_card, make_manifest
from .records import Fault, Record
from .sources import BuildConfig, read_sources
from .split import SPLITS, assign, check_splits, clusters

MANIFEST_FILE = "manifest.json"
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TYPES = {
    "messages": _MESSAGES,
    "labels": pa.list_(pa.string()),
    "judged": pa.list_(pa.string()),
    "weight": pa.float64(),
}


class BuildError(ValueError):
    """A build that cannot be done; `faults` are those of the rows, if they are why."""

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = list(faults)


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build."""

    folder: Path
    manifest: dict[str, Any]


def build(config: BuildConfig, out: Path, overwrite: bool = False) -> Built:
    """Build the folder `out`: a Parquet file a split, what was removed, manifest and data card.

    Raises:
        BuildError: a row is faulty (nothing is written), or `out` exists.
        SplitError: the records cannot be split so that every split has every label.
    """
    if out.exists() and not overwrite:
        raise BuildError(f"{out}: exists already; name another folder, or use --overwrite")
    if out.exists() and not (out / MANIFEST_FILE).exists():
        raise BuildError(f"{out}: was not built by this command and is not overwritten; name another folder")
    records, faults, files = read_sources(config)
    if faults:
        raise BuildError(f"{len(faults)} fault(s); nothing was written", faults)
    cleaned = remove_duplicates(records)
    splits, cluster_of = _split(cleaned.kept, config)
    check_splits(splits)
    manifest = make_manifest(config, files, splits, cleaned.removed)
    _write(out, splits, cluster_of, cleaned.removed, manifest)
    return Built(out, manifest)


def _split(records: Sequence[Record], config: BuildConfig) -> tuple[dict[str, list[Record]], dict[str, str]]:
    """Records by split, and each record's cluster by its key."""
    names = clusters(records)
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record, split in zip(records, assign(names, config.splits, config.seed), strict=True):
        splits[split].append(record)
    return splits, {record.key: name for record, name in zip(records, names, strict=True)}


def _write(
    out: Path,
    splits: Mapping[str, Sequence[Record]],
    cluster_of: Mapping[str, str],
    removed: Sequence[Removed],
    manifest: dict[str, Any],
) -> None:
    """Write into a temporary folder beside `out`, then rename: `out` is never half built."""
    temporary = out.with_name(out.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        everything = [record for records in splits.values() for record in records]
        schema = record_schema([*everything, *(item.record for item in removed)])
        for split, records in splits.items():
            rows = [record.to_row() | {"cluster": cluster_of[record.key]} for record in records]
            _write_table(temporary / f"{split}.parquet", rows, schema.append(pa.field("cluster", pa.string())))
        reasons = [{**item.record.to_row(), "reason": item.reason, "evidence": item.evidence} for item in removed]
        for name in ("reason", "evidence"):
            schema = schema.append(pa.field(name, pa.string()))
        _write_table(temporary / "removed.parquet", reasons, schema)
        write_text(temporary / MANIFEST_FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        write_text(temporary / "README.md", data_card(manifest))
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def record_schema(records: Sequence[Record]) -> pa.Schema:
    """One schema for all records: their own fields, and each further field in the type its values share, or as text."""
    own = Record((), "").to_row()
    fields = [pa.field(name, _TYPES.get(name, pa.string())) for name in own]
    extra = sorted({name for record in records for name in record.extra} - {"cluster"})
    return pa.schema([*fields, *(pa.field(name, _extra_type(name, records)) for name in extra)])


def _extra_type(name: str, records: Sequence[Record]) -> pa.DataType:
    try:
        kind = pa.array([record.extra.get(name) for record in records]).type
    except (pa.ArrowException, OverflowError):
        return pa.string()
    return pa.string() if pa.types.is_null(kind) else kind


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    columns = [_column([row.get(field.name) for row in rows], field.type) for field in schema]
    pq.write_table(pa.table(columns, schema=schema), path)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = [
            value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values
        ]
    return pa.array(values, type=kind)
