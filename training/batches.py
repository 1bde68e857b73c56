"""Which prompts a step reads, which of their windows, and how they are packed for the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from inference.scorer import pad

Key = int | tuple[int, int]
"""A row alone, or a row and the epoch that asks for it."""


class StepSampler(Sampler[tuple[int, int]]):
    """Rows in a new random order each epoch, each with the epoch's number, so that its windows can be drawn anew.

    With a temperature under 1 rare sources are read more often and large ones less: a source of n prompts is drawn in
    proportion to n ** temperature, and so is each group in it. An epoch is as long as the split, less what would not
    fill a step: a step is a fixed number of prompts.
    """

    def __init__(self, encoded: datasets.Dataset, step: int, temperature: float, seed: int) -> None:
        self._seed = seed
        self._epoch = 0
        self._rows = len(encoded)
        self._size = len(encoded) // step * step
        self._shares = None if temperature == 1 else row_shares(encoded["source"], encoded["group"], temperature)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that is read next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        rows = np.arange(self._rows)
        if self._shares is not None:
            # Systematic sampling: a row is read its expected number of times, rounded up or down.
            places = (np.arange(self._rows) + rng.random()) / self._rows
            rows = np.minimum(np.searchsorted(np.cumsum(self._shares), places), self._rows - 1)
        for row in rng.permutation(rows)[: self._size]:
            yield int(row), self._epoch


def row_shares(sources: Sequence[str], groups: Sequence[str], temperature: float) -> np.ndarray:
    """Each row's share of the draws, `[rows]`, summing to 1."""
    by_source: dict[str, dict[str, list[int]]] = {}
    for row, (source, group) in enumerate(zip(sources, groups, strict=True)):
        by_source.setdefault(source, {}).setdefault(group, []).append(row)
    shares = np.zeros(len(sources))
    for inside in by_source.values():
        source_share = sum(len(rows) for rows in inside.values()) ** temperature
        total = sum(len(rows) ** temperature for rows in inside.values())
        for rows in inside.values():
            shares[rows] = source_share * len(rows) ** temperature / total / len(rows)
    return shares / shares.sum()


class TrainingPrompts(Dataset[dict[str, Any]]):
    """Encoded prompts; of a long one only so many windows, drawn by seed, epoch and row, or spread where no epoch asks.

    A draw takes from the head, the tail and the middle in turn, in random order, so that two windows never both come
    from the middle and every part of a prompt is read sooner or later.
    """

    def __init__(self, encoded: datasets.Dataset, windows_per_prompt: int, seed: int) -> None:
        self._encoded = encoded
        self._limit = windows_per_prompt
        self._seed = seed

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        row, epoch = key if isinstance(key, tuple) else (key, None)
        found = self._encoded[row]
        count = len(found["windows"])
        if count > self._limit:
            chosen = self._spread(count) if epoch is None else self._drawn(count, row, epoch)
            found = found | {"windows": [found["windows"][i] for i in chosen]}
        return found

    def _spread(self, count: int) -> list[int]:
        return [round(i * (count - 1) / max(1, self._limit - 1)) for i in range(self._limit)]

    def _drawn(self, count: int, row: int, epoch: int) -> list[int]:
        rng = np.random.default_rng([self._seed, epoch, row])
        middle = rng.permutation(np.arange(1, count - 1)).tolist()
        first = [0, count - 1, *middle[:1]]
        return sorted([*rng.permutation(first).tolist(), *middle[1:]][: self._limit])


class Packer:
    """A step's prompts to batches for the network: sorted by length, so that hardly any padding is computed.

    A prompt's windows stay together, since they are pooled. Each batch holds about `tokens` padded tokens, and at
    least one prompt.
    """

    def __init__(self, pad_id: int, tokens: int) -> None:
        self._pad_id = pad_id
        self._tokens = tokens

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`labels` and `weight` of the whole step in the order given, and its `batches`, each with its `rows`."""
        longest = [max(map(len, row["windows"])) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: longest[i])
        packed: list[list[int]] = []
        windows = 0
        for i in order:
            windows += len(rows[i]["windows"])
            if not packed or windows * longest[i] > self._tokens:
                packed.append([])
                windows = len(rows[i]["windows"])
            packed[-1].append(i)
        return {
            # First, since the Trainer takes the length of the first tensor it meets for the number of prompts.
            "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.float32),
            "weight": torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
            "batches": [self._batch(rows, members) for members in packed],
        }

    def _batch(self, rows: Sequence[dict[str, Any]], members: list[int]) -> dict[str, torch.Tensor]:
        chosen = [rows[i] for i in members]
        ids, mask = pad([window for row in chosen for window in row["windows"]], self._pad_id)
        owner = [number for number, row in enumerate(chosen) for _ in row["windows"]]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "owner": torch.tensor(owner),
            "weight": torch.tensor([row["weight"] for row in chosen], dtype=torch.float32),
            "labels": torch.tensor([row["labels"] for row in chosen], dtype=torch.float32),
            "rows": torch.tensor(members),
        }
