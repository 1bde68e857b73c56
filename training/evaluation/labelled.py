"""Labelled records, and what an artefact says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.reading import MANIFEST_FILE, load_records
from data.records import Fault, Record
from data.split import clusters
from inference import PromptClassifier
from inference.decision import DISTILLATION, Prediction
from inference.job.files import find_files
from inference.scorer import LogitScorer

from ..encode import DataError, any_label, label_row

_CHUNK = 256


@dataclass(frozen=True)
class Measured:
    """Records and what the artefact says of them, in one order."""

    records: list[Record]
    predictions: list[Prediction]
    labels: np.ndarray
    clusters: np.ndarray

    @cached_property
    def truth(self) -> np.ndarray:
        """Whether any category applies: 1, 0, or negative where unknown."""
        return any_label(self.labels)

    @cached_property
    def ambiguous(self) -> np.ndarray:
        """Prompts of which the labeller says that the text alone cannot decide: a mask, `[n]`."""
        return np.array([is_ambiguous(record) for record in self.records], bool)

    def scores(self, name: str) -> np.ndarray:
        """Calibrated probabilities of one category, or of distillation."""
        if name == DISTILLATION:
            return np.array([prediction.distillation for prediction in self.predictions])
        return np.array([prediction.scores[name] for prediction in self.predictions])

    @cached_property
    def sources(self) -> np.ndarray:
        """The source of each record."""
        return np.array([record.source for record in self.records], dtype=object)

    def only(self, chosen: np.ndarray) -> Measured:
        """The chosen ones alone, by a mask `[n]`."""
        at = np.flatnonzero(chosen)
        return Measured(
            [self.records[i] for i in at], [self.predictions[i] for i in at], self.labels[at], self.clusters[at]
        )


def is_ambiguous(record: Record) -> bool:
    """Whether the record carries `ambiguous: true`, in whatever form its file writes it."""
    return str(record.extra.get("ambiguous")).lower() in ("true", "1", "yes")


def read_labelled(names: Sequence[str], split: str = "test") -> tuple[list[Record], list[Fault]]:
    """Labelled records from built folders (their split `split`) and from files, folders and globs of records."""
    paths: list[Path] = []
    for name in names:
        folder = Path(name)
        if (folder / MANIFEST_FILE).is_file():
            path = folder / f"{split}.parquet"
            if not path.is_file():
                raise DataError(f"{folder}: has no split {split}")
            paths.append(path)
        else:
            paths += find_files([name])
    return load_records(paths)


def exclude(records: Sequence[Record], conditions: Sequence[str]) -> list[Record]:
    """The records that match none of the conditions `field=value` (on any field of the record).

    Raises:
        DataError: a condition is malformed, or no record has its field.
    """
    kept = list(records)
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals:
            raise DataError(f"--exclude {condition}: write it as field=value, for example tier=C")
        if not any(name in record.to_row() for record in records):
            raise DataError(f"--exclude {condition}: no record has a field {name}")
        kept = [record for record in kept if str(record.to_row().get(name)).lower() != value.lower()]
    return kept


def measure(classifier: PromptClassifier, records: Sequence[Record]) -> Measured:
    """Score labelled records, with a progress bar."""
    predictions: list[Prediction] = []
    with tqdm(total=len(records), unit="prompt", desc="measuring", mininterval=0.5) as bar:
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            predictions += classifier.classify([record.prompt for record in chunk])
            bar.update(len(chunk))
    names = classifier.assay.labels
    labels = np.array([label_row(record.labels, record.judged, names) for record in records])
    return Measured(list(records), predictions, labels.reshape(len(records), len(names)), clusters_of(records))


def clusters_of(records: Sequence[Record]) -> np.ndarray:
    """Which records belong together, `[n]`: as the built data says, else by group and near-duplicates."""
    joined = [record.extra.get("cluster") for record in records]
    return np.array(joined if all(joined) else clusters(list(records)))


def pooled_logits(scorer: LogitScorer, records: Sequence[Record]) -> np.ndarray:
    """Logits `[prompts, labels]` of a network that has no calibration yet, with a progress bar."""
    parts = []
    with tqdm(total=len(records), unit="prompt", desc="scoring", mininterval=0.5) as bar:
        for start in range(0, len(records), _CHUNK):
            parts.append(scorer([record.rendered for record in records[start : start + _CHUNK]])[0])
            bar.update(len(parts[-1]))
    return np.concatenate(parts)
