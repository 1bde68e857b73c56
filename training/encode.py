"""From records to token windows, cut exactly as scoring cuts them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from data.records import CATEGORIES, Record, parse_record
from inference.prompts import render_prompt
from inference.windows import Windower

UNKNOWN = -1.0
"""In a row of labels: nobody looked at this category."""


class DataError(ValueError):
    """Built data that cannot be trained or measured on; the message names the mend."""


def load_split(folder: Path, split: str) -> Dataset:
    """One split of a built folder, as a `datasets.Dataset` in memory (no cache is written).

    Raises:
        DataError: it is missing or empty.
    """
    import pyarrow.parquet as pq

    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise DataError(f"{path}: missing; build the data: python -m data build configs/data/seed.yaml --out {folder}")
    table = pq.read_table(path)
    if not table.num_rows:
        raise DataError(f"{path}: is empty; give `splits` of the data's configuration a share for it, or add records")
    return Dataset(table)


def records_of(dataset: Dataset) -> list[Record]:
    """The records of a split."""
    return [parse_record(row, default_source="unknown") for row in dataset]


def check_labels(records: Sequence[Record], names: Sequence[str]) -> None:
    """Refuse records with a category that the run does not learn: they would count as organic.

    Raises:
        DataError: names the categories and how many records carry them.
    """
    lacking = {name: sum(name in record.labels for record in records) for name in CATEGORIES if name not in names}
    found = [f"{name} ({count} records)" for name, count in lacking.items() if count]
    if found:
        raise DataError(
            f"the data carries labels that the configuration lacks: {', '.join(found)}; add them to `labels`, or "
            "build the data without these records"
        )


def label_row(labels: Sequence[str], judged: Sequence[str], names: Sequence[str] = CATEGORIES) -> list[float]:
    """1, 0 or `UNKNOWN` for each category, in the order of `names`."""
    return [1.0 if name in labels else 0.0 if name in judged else UNKNOWN for name in names]


def any_label(rows: np.ndarray) -> np.ndarray:
    """1, 0 or `UNKNOWN` for distillation, `[prompts]`, from `[prompts, labels]`."""
    positive = (rows == 1).any(axis=1)
    judged = (rows >= 0).all(axis=1)
    return np.where(positive, 1.0, np.where(judged, 0.0, UNKNOWN))


def choose_prompts(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most `limit` rows, chosen by hash of their id: the same ones whatever else the data holds."""
    if limit is None or len(dataset) <= limit:
        return dataset
    order = sorted(range(len(dataset)), key=lambda i: share_of(dataset[i]["id"], seed))
    return dataset.select(sorted(order[:limit]))


def share_of(identifier: str, seed: int) -> float:
    """A number in [0, 1) that stands for this id under this seed, whatever else the data holds."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{identifier}".encode()).digest()[:8], "big") / 2**64


def flat_text(record: Record) -> str:
    """A chat as a log that keeps no roles holds it: the turns' text alone."""
    return render_prompt("\n\n".join(turn["content"] for turn in record.messages or () if turn["content"]))


def encode(
    dataset: Dataset, windower: Windower, names: Sequence[str] = CATEGORIES, flatten: float = 0.0, seed: int = 0
) -> Dataset:
    """All windows, the labels and the weight of each record, with its source and group.

    Args:
        dataset: a split.
        windower: the artefact's own.
        names: the categories, in the order of the logits.
        flatten: so large a share of the chats is read as flat text, chosen by id and seed.
    """

    def text_of(record: Record) -> str:
        flat = record.messages is not None and share_of(record.id, seed) < flatten
        return flat_text(record) if flat else record.rendered

    def encode_batch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        records = [parse_record(row, default_source="unknown") for row in rows]
        return {
            "windows": [prompt.ids for prompt in windower([text_of(record) for record in records])],
            "labels": [label_row(record.labels, record.judged, names) for record in records],
            "weight": [record.weight for record in records],
            "source": [record.source for record in records],
            "group": [record.group or record.id for record in records],
        }

    return dataset.map(
        encode_batch,
        batched=True,
        remove_columns=dataset.column_names,
        keep_in_memory=True,
        load_from_cache_file=False,
        desc="cutting windows",
    )
