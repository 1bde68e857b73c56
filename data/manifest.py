"""What was built from what: the manifest for programs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inference.prompts import RENDER_VERSION

from .clean import Removed
from .placements import Placements
from .reading import MANIFEST_FILE
from .records import Record
from .sources import BuildConfig
from .summary import by_count, count_axes

SCHEMA_VERSION = 2
_VERSIONS = ("datasets", "numpy", "pyarrow", "rensa")


class ManifestError(ValueError):
    """A built folder whose manifest cannot be used."""


def make_manifest(
    config: BuildConfig,
    inputs: Mapping[str, str],
    splits: Mapping[str, Sequence[Record]],
    removed: Sequence[Removed],
    notes: Mapping[str, Any],
    placements: Placements,
) -> dict[str, Any]:
    """Counts, hashes and licences; the same input gives the same manifest, to the byte.

    Args:
        config: what was asked for.
        inputs: everything that was read, with its hash or commit.
        splits: the records of each split.
        removed: what was left out.
        notes: what happened on the way: clusters moved, corrections applied, the earlier build.
        placements: where this and all earlier builds placed things, for the next one.
    """
    kept = sum(map(len, splits.values()))
    content = {
        "schema_version": SCHEMA_VERSION,
        "config": config.model_dump(),
        "render_version": RENDER_VERSION,
        "inputs": dict(inputs),
        "records": {
            "read": kept + len(removed),
            "kept": kept,
            "removed": dict(sorted(Counter(item.reason for item in removed).items())),
        },
        "splits": {name: count_axes(records) for name, records in splits.items()},
        "licenses": by_count(record.license or "not stated" for records in splits.values() for record in records),
        **notes,
        "versions": {name: version(name) for name in _VERSIONS},
        "placements": placements.to_json(),
    }
    ids = [record.id + record.key + name for name, records in splits.items() for record in records]
    digest = hashlib.sha256(json.dumps([content, ids], sort_keys=True).encode()).hexdigest()
    return {"fingerprint": digest[:16], **content}


def read_placements(folder: Path) -> tuple[Placements, str]:
    """Where the build in `folder` placed things, and its fingerprint.

    Raises:
        ManifestError: the folder was not built by this command, or by one that kept no placements.
    """
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Placements.from_json(content["placements"]), str(content["fingerprint"])
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); --previous takes a built folder") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        mend = "build it again with this version, then name it with --previous"
        raise ManifestError(f"{path}: holds no placements; {mend}") from error
