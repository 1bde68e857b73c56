"""What `export` left in an artefact: files of another runtime, and the record of how near they come to torch.

Each backend but torch has a folder of its name with `export.json`: which artefact it was made of, the hashes of its
files, and what the parity gate measured. Without a sound record, nothing there is used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..artefact import Assay, file_hash, write_text
from ..decision import DISTILLATION, probabilities
from ..fields import ArtefactError, Fields, read_object
from . import BACKENDS, export_folder

_PROGRAM = (__package__ or "").partition(".")[0]
RECORD_FILE = "export.json"
REFERENCE_FILE = "reference.json"
_MOST_CHANGED = {"": 0.0, "int8": 0.001, "bf16": 0.001, "fp16": 0.001}
"""The share of decisions that may differ from torch in float32, by the kind of arithmetic."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How a backend's answers differ from torch's in float32 on the reference prompts.

    Attributes:
        prompts: how many were compared.
        decisions: each prompt's `flagged` and labels, at every operating point.
        changed: of them, those that came out otherwise.
        largest: the largest difference in a probability.
        allowed: the largest share of changed decisions at which the backend may be used.
    """

    prompts: int
    decisions: int
    changed: int
    largest: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the backend may be used."""
        return self.changed <= self.allowed * self.decisions

    def __str__(self) -> str:
        return (
            f"{self.changed} of {self.decisions:,} decisions on {self.prompts:,} reference prompts differ (allowed: "
            f"{self.allowed:.1%}); the largest difference in a probability is {self.largest:.1e}"
        )


def compare(assay: Assay, backend: str, expected: np.ndarray, found: np.ndarray) -> Parity:
    """Hold pooled logits `[prompts, labels]` of a backend against torch's."""
    before, after = (np.column_stack(probabilities(assay, logits)) for logits in (expected, found))
    columns = (*assay.labels, DISTILLATION)
    changed = 0
    for point in assay.operating_points.values():
        thresholds = np.array([point.thresholds[name] for name in columns])
        changed += int(((before >= thresholds) != (after >= thresholds)).sum())
    return Parity(
        prompts=len(expected),
        decisions=before.size * len(assay.operating_points),
        changed=changed,
        largest=float(np.abs(before - after).max()),
        allowed=_MOST_CHANGED[backend.partition("-")[2]],
    )


def write_record(folder: Path, assay: Assay, parity: Parity, versions: dict[str, str]) -> None:
    """Write the record of the files that lie in `folder`."""
    content = {
        "artefact": assay.fingerprint,
        "files": {path.name: file_hash(path) for path in sorted(folder.iterdir())},
        "parity": asdict(parity),
        "versions": versions,
    }
    write_text(folder / RECORD_FILE, json.dumps(content, indent=2) + "\n")


def check_export(folder: Path, backend: str, fingerprint: str) -> None:
    """Refuse a backend that was not exported from this artefact, or whose files have changed since.

    Raises:
        ArtefactError: names the mend.
    """
    if backend == "torch":
        return
    mend = f"run: python -m {_PROGRAM} export {folder} --backend {backend.partition('-')[0]}{_option(backend)}"
    for name in dict.fromkeys((export_folder(backend), backend)):
        if name == "torch":
            continue
        place = folder / name
        if not (place / RECORD_FILE).is_file():
            raise ArtefactError(f"{folder}: has no export for the backend {backend}; {mend}")
        record = read_object(place / RECORD_FILE)
        if record.value("artefact", str) != fingerprint:
            raise ArtefactError(f"{place}: was made of another artefact; {mend}")
        files = record.inside("files")
        there = {path.name for path in place.iterdir()} - {RECORD_FILE}
        if there != set(files.names()) or any(file_hash(place / file) != files.value(file, str) for file in there):
            raise ArtefactError(f"{place}: holds other files than were exported; {mend}")
        _check_parity(record.inside("parity"), backend, mend)


def _check_parity(parity: Fields, backend: str, mend: str) -> None:
    decisions = parity.integer("decisions", 1, 2**53)
    if parity.integer("changed", 0, decisions) > _MOST_CHANGED[backend.partition("-")[2]] * decisions:
        raise parity.fault("changed", f"says that the export failed; {mend}")


def _option(backend: str) -> str:
    kind = backend.partition("-")[2]
    return f" --{kind}" if kind else ""


def exported(folder: Path) -> list[str]:
    """The backends that have a record in an artefact, torch first."""
    return [name for name in BACKENDS if name == "torch" or (folder / name / RECORD_FILE).is_file()]


def reference_prompts(folder: Path) -> list[str]:
    """The rendered prompts that an artefact carries for comparisons; they come from the shipped corpus.

    Raises:
        ArtefactError: it carries none.
    """
    path = folder / REFERENCE_FILE
    if not path.is_file():
        raise ArtefactError(f"{path}: missing; artefacts trained before there were exports lack it: train again")
    return list(read_object(path).value("prompts", list, lambda v: len(v) > 0 and all(isinstance(t, str) for t in v)))


def write_reference(folder: Path, prompts: Sequence[str]) -> None:
    """Write an artefact's reference prompts."""
    write_text(folder / REFERENCE_FILE, json.dumps({"prompts": list(prompts)}, ensure_ascii=False, indent=0) + "\n")
