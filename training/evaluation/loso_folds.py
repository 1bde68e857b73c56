"""The prompts of all splits, and which fold leaves which sources out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets

from data.reading import SPLITS
from data.records import Record

from ..config import RunConfig
from ..encode import DataError, check_labels, load_split, records_of
from .frozen import truth_of
from .labelled import clusters_of, is_ambiguous

MIN_ORGANIC = 100
"""A rate of 1 % means something over so many organic prompts."""


@dataclass(frozen=True)
class Pool:
    """All prompts of a built folder: rows and records in one order, and of each `[n]` what folds are made by.

    `truth` is 1, 0, or negative where nobody knows; `fold` is the number of the fold that holds the prompt out.
    """

    rows: Dataset
    records: list[Record]
    truth: np.ndarray
    sources: np.ndarray
    clusters: np.ndarray
    fold: np.ndarray

    @property
    def clear(self) -> np.ndarray:
        """Prompts that can be decided, a mask `[n]`: known ones that the labeller does not call ambiguous."""
        return (self.truth >= 0) & ~np.array([is_ambiguous(record) for record in self.records], bool)

    def held(self, fold: int) -> np.ndarray:
        """Who is measured in a fold: a mask `[n]`."""
        return self.fold == fold

    def training(self, fold: int) -> np.ndarray:
        """Who may be trained on in a fold, a mask `[n]`: nobody who shares a cluster with a prompt that is held out."""
        return ~np.isin(self.clusters, self.clusters[self.held(fold)])


def read_pool(config: RunConfig, data: Path, folds: int) -> Pool:
    """All splits of a built folder as one, each source in its fold.

    Raises:
        DataError: see `loso`.
    """
    files = [data / f"{name}.parquet" for name in SPLITS]
    full = [path.stem for path in files if path.is_file() and pq.read_metadata(path).num_rows]
    if not full:
        raise DataError(f"{data}: none of its splits holds a record")
    rows = concatenate_datasets([load_split(data, name) for name in full])
    records = records_of(rows)
    check_labels(records, config.labels)
    truth = truth_of(records, config.labels)
    sources = np.array([record.source for record in records], dtype=object)
    if folds < 2 or len(set(sources)) < 2:
        raise DataError(
            f"{data}: {len(set(sources))} source(s) in {folds} fold(s); leaving sources out needs two of each: give "
            "the records a `source`, and --folds 2 or more"
        )
    pool = Pool(rows, records, truth, sources, clusters_of(records), source_folds(sources, truth == 1, folds))
    if (organic := int((pool.clear & (truth == 0)).sum())) < MIN_ORGANIC:
        raise DataError(f"{data}: {organic} organic prompts, and a rate of 1 % needs {MIN_ORGANIC}; add some")
    for fold in range(int(pool.fold.max()) + 1):
        left = truth[pool.training(fold)]
        if not (left == 1).any() or not (left == 0).any():
            without = ", ".join(sorted(set(sources[pool.held(fold)])))
            raise DataError(
                f"{data}: without {without} (and what is alike) {int((left == 1).sum()):,} positive and "
                f"{int((left == 0).sum()):,} organic prompts are left to train on; each class needs two sources or "
                "more, so add some, or choose another number of folds"
            )
    return pool


def source_folds(sources: np.ndarray, positive: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each prompt, `[n]` from 0: sources stay whole, folds are of about one size and hold both classes.

    Greedy, as in scikit-learn's StratifiedGroupKFold, which refuses classes with fewer prompts than folds: the largest
    source first, each to the fold that holds least of its classes, and of those to the smallest.
    """
    classes = np.stack([positive, ~positive], axis=1).astype(np.int64)
    counts = {source: classes[sources == source].sum(axis=0) for source in sorted(set(sources))}
    shares = 1 / np.maximum(1, classes.sum(axis=0))
    held = np.zeros((min(folds, len(counts)), 2), np.int64)
    fold = np.zeros(len(sources), np.int64)
    for source in sorted(counts, key=lambda name: (-int(counts[name].sum()), name)):
        crowded = (held * counts[source] * shares**2).sum(axis=1)
        chosen = min(range(len(held)), key=lambda number: (crowded[number], int(held[number].sum()), number))
        held[chosen] += counts[source]
        fold[sources == source] = chosen
    return fold
