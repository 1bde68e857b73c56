"""The folder that a run works in: which run it is, whether it may write there, and whether it is done already."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.reading import MANIFEST_FILE
from inference.artefact import ASSAY_FILE, write_text

from .config import RunConfig
from .encode import DataError

_RUN_FILE = "run.json"


class RunError(ValueError):
    """A run that cannot start: something stands where it would write."""


def identity(config: RunConfig, folder: Path) -> dict[str, Any]:
    """What makes two runs the same run: configuration, data and code."""
    manifest = folder / MANIFEST_FILE
    if not manifest.is_file():
        raise DataError(f"{folder}: no built data; run: python -m data build configs/data/seed.yaml --out {folder}")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    return {
        "config": config.model_dump(mode="json"),
        "data": str(folder),
        "data_fingerprint": content["fingerprint"],
        "code_fingerprint": code_fingerprint(),
    }


def prepare(out: Path, identity: Mapping[str, Any], resume: bool, overwrite: bool) -> Path | None:
    """The folder of the run, ready to work in; None where the same run is complete already.

    Raises:
        RunError: another run, or something else, stands there.
    """
    run = out.with_name(out.name + ".run")
    if out.exists():
        if resume and is_same(out / ASSAY_FILE, identity):
            return None
        if not overwrite:
            why = "was trained with another configuration, data or code" if resume else "exists already"
            raise RunError(f"{out}: {why}; name another folder, or use --overwrite")
        if not (out / ASSAY_FILE).is_file():
            raise RunError(f"{out}: is no artefact and is not overwritten; name another folder")
    if run.exists() and not (resume and is_same(run / _RUN_FILE, identity)):
        if not overwrite:
            why = "was begun with another configuration, data or code" if resume else "holds an unfinished run"
            raise RunError(f"{run}: {why}; go on with the same run by --resume, or start anew by --overwrite")
        shutil.rmtree(run)
    return claim(run, identity)


def claim(work: Path, identity: Mapping[str, Any]) -> Path:
    """A folder to work in, emptied unless this very run worked there before and was killed."""
    if not is_same(work / _RUN_FILE, identity):
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    write_text(work / _RUN_FILE, json.dumps({"provenance": identity}, indent=2) + "\n")
    return work


def is_same(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the run that wrote `path` was this very run."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        return all(before.get(name) == value for name, value in json.loads(json.dumps(identity)).items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def code_fingerprint() -> str:
    """A hash of the project's own Python code."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in ("inference", "data", "training"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
