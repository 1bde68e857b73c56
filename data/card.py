"""What a built folder says of itself: the data card for people and hubs, and Croissant metadata for programs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from inference.artefact import file_hash

from .records import CATEGORIES, ORGANIC
from .summary import NOT_STATED, count_tables

CROISSANT_FILE = "croissant.json"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def data_card(manifest: Mapping[str, Any]) -> str:
    """`README.md` of a built folder; its YAML header lets `datasets.load_dataset` open the splits."""
    splits = manifest["splits"]
    records = manifest["records"]
    removed = "\n".join(f"- {count} {reason}" for reason, count in records["removed"].items()) or "- nothing"
    moves = "\n".join(f"- {_move(move)}" for move in manifest["moves"]) or "- none"
    inputs = "\n".join(f"- `{name}` ({_short(digest)})" for name, digest in manifest["inputs"].items())
    held_out = manifest["config"]["hold_out_sources"]
    return f"""---
{_header(manifest)}---

# Labelled prompts for promptassay

Prompts labelled by what their content is built to obtain from a language model: {", ".join(CATEGORIES)}; no label is
{ORGANIC}. Built by `python -m data build`; fingerprint `{manifest["fingerprint"]}`.

A label speaks of one prompt's content, never of its sender.

{count_tables(splits)}

## What was left out

Of {records["read"]} records {records["kept"]} were kept; `removed.parquet` holds the others, each with its reason and
the record that shows it.

{removed}

## How it was split

Records of one `cluster` (near-duplicates, one `group`, one `pair`) share a split. Held-out sources, which stand in
test alone: {", ".join(held_out) or "none"}. Clusters that went elsewhere than their hash or an earlier build said:

{moves}

## What it was built from

{inputs}

Licences of the texts: {", ".join(f"{name} ({count})" for name, count in manifest["licenses"].items())}.
"""


def _header(manifest: Mapping[str, Any]) -> str:
    kept = manifest["records"]["kept"]
    languages = sorted({name for split in manifest["splits"].values() for name in split["language"]})
    lines = ["task_categories:", "- text-classification", "size_categories:"]
    lines.append(f"- {next((name for bound, name in _SIZES if kept < bound), 'n>1M')}")
    codes = [name for name in languages if re.fullmatch("[a-z]{2,3}", name)]
    if codes:
        lines += ["language:", *(f"- '{code}'" for code in codes)]
    names = [name for name in manifest["licenses"] if re.fullmatch(r"[A-Za-z0-9.-]+", name)]
    if names and len(names) == len(manifest["licenses"]):
        lines += ["license:", *(f"- {name.lower()}" for name in names)]
    lines += ["configs:", "- config_name: default", "  data_files:"]
    for split in manifest["splits"]:
        lines += [f"  - split: {split}", f"    path: {split}.parquet"]
    return "\n".join(lines) + "\n"


def _move(move: Mapping[str, Any]) -> str:
    if "cluster" in move:
        what = f"cluster {move['cluster']} ({move['records']} records) from {move['from']}"
        return f"{what} to {move['to']}: {move['reason']}"
    return f"record {move['record']} to {move['to']}: {move['reason']}"


def _short(digest: str) -> str:
    return digest[:12] if re.fullmatch("[0-9a-f]{40,}", digest) else digest


_CROISSANT_TYPES = {"string": "sc:Text", "double": "sc:Float", "int64": "sc:Integer", "bool": "sc:Boolean"}


def croissant(manifest: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """Croissant 1.0 metadata (https://docs.mlcommons.org/croissant) of the splits: a record set for each file.

    Args:
        manifest: of the build.
        files: the Parquet files of the splits, as they lie.
    """
    licenses = [name for name in manifest["licenses"] if name != NOT_STATED]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": f"promptassay-{manifest['fingerprint']}",
        "description": "Prompts labelled by whether they are built to distil a language model.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "url": "./",
        "version": "1.0.0",
        "license": licenses or "not stated",
        "citeAs": f"promptassay, data built with fingerprint {manifest['fingerprint']}",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": path.name,
                "name": path.name,
                "contentUrl": path.name,
                "encodingFormat": "application/x-parquet",
                "sha256": file_hash(path),
            }
            for path in files
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": path.stem,
                "name": path.stem,
                "field": [
                    _field(path, field) for field in pq.read_schema(path) if field.name and _is_plain(field.type)
                ],
            }
            for path in files
        ],
    }


def _is_plain(kind: pa.DataType) -> bool:
    """Columns of plain values; chat messages have no plain type in Croissant and stay in the file undescribed."""
    return str(kind) in _CROISSANT_TYPES or str(kind) == "list<element: string>"


def _field(path: Path, field: pa.Field) -> dict[str, Any]:
    described = {
        "@type": "cr:Field",
        "@id": f"{path.stem}/{quote(field.name, safe='')}",
        "name": field.name,
        "dataType": _CROISSANT_TYPES.get(str(field.type), "sc:Text"),
        "source": {"fileObject": {"@id": path.name}, "extract": {"column": field.name}},
    }
    return described if str(field.type) in _CROISSANT_TYPES else described | {"repeated": True}


# The context that the Croissant specification requires, word for word.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
