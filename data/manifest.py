"""What was built from what: the manifest for programs, the data card for people."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inference.artefact import file_hash
from inference.prompts import RENDER_VERSION

from .clean import Removed
from .records import CATEGORIES, ORGANIC, Record
from .sources import BuildConfig

LENGTH_BANDS = ((0, 150), (150, 500), (500, 1500), (1500, 4000), (4000, None))


def make_manifest(
    config: BuildConfig, files: Sequence[Path], splits: Mapping[str, Sequence[Record]], removed: Sequence[Removed]
) -> dict[str, Any]:
    """Counts, hashes and licences; the same input gives the same manifest, to the byte."""
    content = {
        "config": config.model_dump(),
        "render_version": RENDER_VERSION,
        "inputs": {str(path): file_hash(path) for path in files},
        "records": {
            "read": sum(map(len, splits.values())) + len(removed),
            "kept": sum(map(len, splits.values())),
            "removed": dict(Counter(item.reason for item in removed)),
        },
        "splits": {name: count_axes(records) for name, records in splits.items()},
        "licenses": _count(record.license or "not stated" for records in splits.values() for record in records),
        "versions": {"pyarrow": version("pyarrow")},
    }
    ids = [record.id + record.key for records in splits.values() for record in records]
    digest = hashlib.sha256(json.dumps([content, ids], sort_keys=True).encode()).hexdigest()
    return {"fingerprint": digest[:16], **content}


def count_axes(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Counts of records by label, source, language and length."""
    labels: Counter[str] = Counter()
    for record in records:
        labels.update(record.labels or (ORGANIC,))
    return {
        "all": {"records": len(records)},
        "label": {label: labels[label] for label in (*CATEGORIES, ORGANIC)},
        "source": _count(record.source for record in records),
        "language": _count(record.lang or "not stated" for record in records),
        "length": {band_name(band): sum(_in_band(record, band) for record in records) for band in LENGTH_BANDS},
    }


def band_name(band: tuple[int, int | None]) -> str:
    """A band of lengths in characters, in words."""
    low, high = band
    return f"{low}-{high - 1}" if high else f"{low} and more"


def _in_band(record: Record, band: tuple[int, int | None]) -> bool:
    low, high = band
    return low <= len(record.rendered) and (high is None or len(record.rendered) < high)


def _count(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def count_tables(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Markdown tables of `count_axes` by split (or by any name), one for each axis."""
    tables = []
    for axis in ("label", "language", "length", "source"):
        names = list(dict.fromkeys(value for by_axis in counts.values() for value in by_axis[axis]))
        rows = [[name, *(by_axis[axis].get(name, 0) for by_axis in counts.values())] for name in names]
        tables.append(markdown_table([axis, *counts], rows))
    return "\n\n".join(tables)


def markdown_table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, its columns aligned so that it reads well as plain text; numbers to the right."""
    cells = [[str(value) for value in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])


def data_card(manifest: Mapping[str, Any]) -> str:
    """`README.md` of a built folder; its YAML header lets `datasets.load_dataset` open the splits."""
    splits = manifest["splits"]
    files = "\n".join(f"  - split: {name}\n    path: {name}.parquet" for name in splits)
    records = manifest["records"]
    removed = ", ".join(f"{count} {reason}" for reason, count in records["removed"].items()) or "none"
    sizes = ", ".join(f"{name} {counts['all']['records']}" for name, counts in splits.items())
    return f"""---
task_categories:
- text-classification
configs:
- config_name: default
  data_files:
{files}
---

# Labelled prompts for promptassay

Built by `python -m data build`; fingerprint `{manifest["fingerprint"]}`.
Labels: {", ".join(CATEGORIES)}; no label is organic.

- read {records["read"]}, kept {records["kept"]}, removed: {removed} (see `removed.parquet`)
- {sizes}; records of one `cluster` (joined by `group` or `pair`) share a split
- licences: {", ".join(f"{name} ({count})" for name, count in manifest["licenses"].items())}

{count_tables(splits)}
"""
