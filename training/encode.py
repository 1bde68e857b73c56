"""From records to batches of token windows, cut exactly as scoring cuts them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from data.records import CATEGORIES, Record, parse_record
from inference.classifier import pad
from inference.windows import Windower

UNKNOWN = -1.0
"""In a row of labels: nobody looked at this category."""


class DataError(ValueError):
    """Built data that cannot be trained or measured on; the message names the mend."""


def load_split(folder: Path, split: str) -> Dataset:
    """One split of a built folder, as a `datasets.Dataset` in memory (no cache is written)."""
    import pyarrow.parquet as pq

    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise DataError(f"{path}: missing; build the data: python -m data build configs/data/seed.yaml --out {folder}")
    return Dataset(pq.read_table(path))


def records_of(dataset: Dataset) -> list[Record]:
    """The records of a split."""
    return [parse_record(row, default_source="unknown") for row in dataset]


def label_row(labels: Sequence[str], judged: Sequence[str]) -> list[float]:
    """1, 0 or `UNKNOWN` for each category, in the order of `CATEGORIES`."""
    return [1.0 if name in labels else 0.0 if name in judged else UNKNOWN for name in CATEGORIES]


def any_label(rows: np.ndarray) -> np.ndarray:
    """1, 0 or `UNKNOWN` for distillation, `[prompts]`, from `[prompts, labels]`."""
    positive = (rows == 1).any(axis=1)
    judged = (rows >= 0).all(axis=1)
    return np.where(positive, 1.0, np.where(judged, 0.0, UNKNOWN))


def choose_prompts(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most `limit` rows, chosen by hash of their id: the same ones whatever else the data holds."""
    if limit is None or len(dataset) <= limit:
        return dataset
    order = sorted(range(len(dataset)), key=lambda i: hashlib.sha256(f"{seed}:{dataset[i]['id']}".encode()).digest())
    return dataset.select(sorted(order[:limit]))


def encode(dataset: Dataset, windower: Windower, windows_per_prompt: int | None = None) -> Dataset:
    """Windows, labels and weights of each record.

    Args:
        dataset: a split.
        windower: the artefact's own.
        windows_per_prompt: read only so many windows of a long prompt, spread from head to tail; all where None.
    """

    def encode_batch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        records = [parse_record(row, default_source="unknown") for row in rows]
        windows = windower([record.rendered for record in records])
        return {
            "windows": [_spread(prompt.ids, windows_per_prompt) for prompt in windows],
            "labels": [label_row(record.labels, record.judged) for record in records],
            "weight": [record.weight for record in records],
        }

    return dataset.map(
        encode_batch,
        batched=True,
        remove_columns=dataset.column_names,
        keep_in_memory=True,
        load_from_cache_file=False,
        desc="cutting windows",
    )


def _spread(windows: list[list[int]], limit: int | None) -> list[list[int]]:
    if limit is None or len(windows) <= limit:
        return windows
    last = len(windows) - 1
    return [windows[round(i * last / max(1, limit - 1))] for i in range(limit)]


class Collator:
    """Prompts to one batch of windows; `owner` says which prompt each window belongs to."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The arguments of `PromptModel.forward` for some encoded prompts."""
        ids, mask = pad([window for row in rows for window in row["windows"]], self._pad_id)
        owner = [number for number, row in enumerate(rows) for _ in row["windows"]]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "owner": torch.tensor(owner),
            "weight": torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
            "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.float32),
        }
