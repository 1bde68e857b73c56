"""The artefact: the folder that passes from training to scoring. Its only dataclass, its only save, its only load.

It holds Hugging Face files (`config.json`, `model.safetensors`, tokenizer files), `assay.json` and `README.md`.
`assay.json` carries all that scoring needs beyond the network: no constant in code stands in for it. Nothing in the
folder executes on load.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .decision import DISTILLATION, prediction_columns, sigmoid
from .fields import ArtefactError, Fields, read_object
from .model_files import MODEL_FILES, check_model_files, file_hash
from .prompts import RENDER_VERSION
from .windows import POOLING, WindowSpec

__all__ = [
    "ASSAY_FILE",
    "CARD_FILE",
    "DEFAULT_POINTS",
    "MODEL_FILES",
    "SCHEMA_VERSION",
    "Abstention",
    "ArtefactError",
    "Assay",
    "OperatingPoint",
    "Platt",
    "file_hash",
    "load_artefact",
    "record_metrics",
    "save_artefact",
    "write_text",
]

SCHEMA_VERSION = 1
ASSAY_FILE = "assay.json"
CARD_FILE = "README.md"
DEFAULT_POINTS = ("fpr-1pct", "fpr-5pct", "balanced")


@dataclass(frozen=True, slots=True)
class Platt:
    """Calibration of one logit z (Platt 1999): probability = sigmoid(slope * z + offset)."""

    slope: float
    offset: float

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, in float64 so that two high scores stay apart."""
        return sigmoid(self.slope * logits.astype(np.float64) + self.offset)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Thresholds for `distillation` and each category, and what was measured where they were set.

    `target_fpr` is None for a point that aims at no rate (`balanced`). `false_positives` of `n_organic` organic
    calibration prompts pass the threshold of `distillation`; `fpr_low` and `fpr_high` are the exact (Clopper-Pearson)
    95 % interval of that rate.
    """

    thresholds: dict[str, float]
    target_fpr: float | None
    n_organic: int
    false_positives: int
    fpr_low: float
    fpr_high: float

    @property
    def fpr(self) -> float:
        """The measured rate of false positives."""
        return self.false_positives / self.n_organic if self.n_organic else math.nan


@dataclass(frozen=True, slots=True)
class Abstention:
    """Between `low` and `high` (probabilities of `distillation`) a prediction counts as uncertain."""

    low: float
    high: float
    coverage: float


@dataclass(frozen=True)
class Assay:
    """All of `assay.json`. `files` maps each model file to its SHA-256; `metrics` is not part of the fingerprint."""

    labels: tuple[str, ...]
    windows: WindowSpec
    calibration: dict[str, Platt]
    operating_points: dict[str, OperatingPoint]
    abstention: Abstention
    positive_share: float
    base: dict[str, Any]
    provenance: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    pooling: str = POOLING
    render_version: int = RENDER_VERSION

    @property
    def fingerprint(self) -> str:
        """16 hex digits that stand for weights, tokenizer, calibration and thresholds together."""
        content = self.to_json()
        del content["metrics"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def default_point(self) -> str:
        """The operating point that is used where none is named."""
        return next(name for name in DEFAULT_POINTS if name in self.operating_points)

    @property
    def set_on(self) -> str:
        """What the thresholds were set on: `calibration`, a labelled split, or `traffic`, taken for organic."""
        thresholds = self.provenance.get("thresholds")
        return str(thresholds.get("set_on")) if isinstance(thresholds, dict) else "calibration"

    def point(self, name: str | None = None) -> OperatingPoint:
        """The operating point `name`, or the default one.

        Raises:
            ArtefactError: the artefact has no such point.
        """
        name = name or self.default_point
        if name not in self.operating_points:
            known = ", ".join(self.operating_points)
            raise ArtefactError(
                f'this artefact has no operating point "{name}"; it has: {known}. A point at a false-positive rate '
                "is written only where at least 3 / rate organic prompts were there to set it on; your own traffic can "
                "set it: python -m training calibrate MODEL --traffic FILE"
            )
        return self.operating_points[name]

    def to_json(self) -> dict[str, Any]:
        """The content of `assay.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "labels": list(self.labels),
            "render_version": self.render_version,
            "windows": {**asdict(self.windows), "selection": "head, tail, evenly spread middle"},
            "pooling": self.pooling,
            "calibration": {name: asdict(platt) for name, platt in self.calibration.items()},
            "operating_points": {name: asdict(point) for name, point in self.operating_points.items()},
            "default_operating_point": self.default_point,
            "abstention": asdict(self.abstention),
            "positive_share": self.positive_share,
            "base": self.base,
            "provenance": self.provenance,
            "versions": self.versions,
            "files": self.files,
            "metrics": self.metrics,
        }


def save_artefact(folder: Path, assay: Assay, write_model: Callable[[Path], None], card: str) -> Assay:
    """Write an artefact; it stands whole or not at all.

    Args:
        folder: must not exist.
        assay: its `files` are filled in here.
        write_model: writes `MODEL_FILES` into the folder it is given.
        card: the text of `README.md`.

    Returns:
        The assay as saved.
    """
    if folder.exists():
        raise ArtefactError(f"{folder}: exists already; name another folder or remove it")
    temporary = folder.with_name(folder.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write_model(temporary)
        assay = replace(assay, files={name: file_hash(temporary / name) for name in MODEL_FILES})
        write_text(temporary / CARD_FILE, card)
        write_text(temporary / ASSAY_FILE, _dumps(assay.to_json()))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs the room
        raise
    temporary.rename(folder)
    return assay


def record_metrics(folder: Path, metrics: dict[str, Any], card: str) -> None:
    """Add to a saved artefact what was measured through it, and the card that tells of it."""
    assay = replace(load_artefact(folder), metrics=metrics)
    write_text(folder / ASSAY_FILE, _dumps(assay.to_json()))
    write_text(folder / CARD_FILE, card)


def load_artefact(folder: str | Path) -> Assay:
    """Read and check an artefact: every field of `assay.json`, and every model file.

    Raises:
        ArtefactError: names the file, the field and the mend.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtefactError(f"{folder}: no such folder; name the folder that `python -m training train --out` wrote")
    path = folder / ASSAY_FILE
    if not path.is_file():
        raise ArtefactError(f"{path}: missing; {folder} is not a promptassay artefact")
    assay = _parse(read_object(path))
    check_model_files(folder, assay.files, assay.labels, assay.windows.size)
    return assay


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never half: temporary file, sync, rename."""
    temporary = path.with_name(path.name + ".writing")
    with temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _dumps(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _parse(fields: Fields) -> Assay:
    version = fields.value("schema_version", int)
    if version != SCHEMA_VERSION:
        raise fields.fault("schema_version", f"is {version}, and this promptassay reads {SCHEMA_VERSION}")
    if fields.value("render_version", int) != RENDER_VERSION:
        raise fields.fault("render_version", f"is not {RENDER_VERSION}: this promptassay renders prompts differently")
    if fields.value("pooling", str) != POOLING:
        raise fields.fault("pooling", f'is not "{POOLING}", the only one this promptassay knows')
    labels = tuple(fields.value("labels", list, _are_labels))
    columns = (*labels, DISTILLATION)
    points = fields.inside("operating_points")
    if not set(points.names()) & set(DEFAULT_POINTS):
        raise fields.fault("operating_points", f"holds none of {', '.join(DEFAULT_POINTS)}")
    calibration = fields.inside("calibration")
    return Assay(
        labels=labels,
        windows=_window_spec(fields.inside("windows")),
        calibration={name: _platt(calibration.inside(name)) for name in columns},
        operating_points={name: _operating_point(points.inside(name), columns) for name in points.names()},
        abstention=_abstention(fields.inside("abstention")),
        positive_share=fields.number("positive_share", 0, 1),
        base=fields.value("base", dict),
        provenance=fields.value("provenance", dict),
        versions=fields.value("versions", dict),
        files=fields.value("files", dict, lambda v: all(map(_is_file_name, v)) and all(map(_is_hash, v.values()))),
        metrics=fields.value("metrics", dict),
    )


def _are_labels(value: list[Any]) -> bool:
    taken = {"id", *prediction_columns(())}
    named = all(isinstance(item, str) and item.isprintable() and item and item not in taken for item in value)
    return named and 0 < len(value) == len(set(map(str, value)))


def _is_file_name(value: str) -> bool:
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", value))


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))


def _window_spec(fields: Fields) -> WindowSpec:
    size = fields.integer("size", 8, 65536)
    return WindowSpec(size, fields.integer("overlap", 0, size - 4), fields.integer("limit", 1, 4096))


def _platt(fields: Fields) -> Platt:
    return Platt(fields.number("slope", low=0), fields.number("offset"))


def _operating_point(fields: Fields, columns: tuple[str, ...]) -> OperatingPoint:
    target = fields.value("target_fpr", (int, float, type(None)))
    thresholds = fields.inside("thresholds")
    n_organic = fields.integer("n_organic", 0, 2**53)
    return OperatingPoint(
        # A threshold over 1 lets nothing through, where no positive example was there to set it.
        thresholds={name: thresholds.number(name, 0, 2) for name in columns},
        target_fpr=None if target is None else fields.number("target_fpr", 0, 1),
        n_organic=n_organic,
        false_positives=fields.integer("false_positives", 0, n_organic),
        fpr_low=fields.number("fpr_low", 0, 1),
        fpr_high=fields.number("fpr_high", 0, 1),
    )


def _abstention(fields: Fields) -> Abstention:
    return Abstention(fields.number("low", 0, 1), fields.number("high", 0, 1), fields.number("coverage", 0, 1))
