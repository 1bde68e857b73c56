"""Prompts like real traffic, for benchmarks: 97 in 100 organic, at the lengths that real prompts have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.reading import load_records
from data.records import Record
from inference.job.files import find_files

SEED_FOLDERS = ("organic", "reasoning_trace_extraction", "censorship_probing", "capability_sweep", "pairs")
DISTILLATION_SHARE = 0.03
# Lengths in characters, measured on real prompts; both ends are guesses.
SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)
ORGANIC_LENGTHS = (10, 85, 1_460, 7_500, 20_000)
DISTILLATION_LENGTHS = (100, 1_435, 5_800, 13_000, 25_000)


def traffic(n: int, files: Sequence[str] = (), seed: int = 0, share: float = DISTILLATION_SHARE) -> list[str]:
    """`n` rendered prompts in random order.

    Args:
        n: how many.
        files: labelled files to draw real prompts from, at the lengths they have; without any, prompts of the shipped
            corpus are drawn to fit the lengths of real traffic.
        seed: the same seed gives the same prompts.
        share: of distillation prompts.
    """
    random = np.random.default_rng(seed)
    records, _ = load_records(find_files(list(files) or [f"data/seed/{name}" for name in SEED_FOLDERS]))
    n_distillation = round(n * share)
    organic, distillation = _texts(records, positive=False), _texts(records, positive=True)
    if files:
        texts = [
            str(text)
            for kind, count in ((organic, n - n_distillation), (distillation, n_distillation))
            for text in np.resize(random.permutation(kind), count)
        ]
    else:
        texts = _at_lengths(organic, ORGANIC_LENGTHS, n - n_distillation, random)
        texts += _at_lengths(distillation, DISTILLATION_LENGTHS, n_distillation, random)
    return [texts[i] for i in random.permutation(n)]


def _texts(records: list[Record], positive: bool) -> np.ndarray:
    """Rendered prompts of one kind, shortest first."""
    texts = [record.rendered for record in records if bool(record.labels) == positive]
    return np.array(sorted(texts, key=len), dtype=object)


def _at_lengths(texts: np.ndarray, lengths: Sequence[int], n: int, random: np.random.Generator) -> list[str]:
    """`n` prompts whose lengths follow a distribution, each drawn once, from those within a tenth of the length."""
    have, free = np.array([len(text) for text in texts]), np.ones(len(texts), dtype=bool)
    drawn = []
    for wanted in np.exp(np.interp((np.arange(n) + 0.5) / n, SHARES, np.log(lengths))):
        low, high = np.searchsorted(have, [0.9 * wanted, 1.1 * wanted])
        found = low + np.flatnonzero(free[low:high])
        if len(found):
            chosen = random.choice(found)
            free[chosen] = False
            drawn.append(str(texts[chosen]))
        else:
            drawn.append(_joined(texts, round(wanted), random))
    return drawn


def _joined(texts: np.ndarray, length: int, random: np.random.Generator) -> str:
    """So many characters of prompts joined by blank lines, where the corpus has no prompt left of that length."""
    joined = ""
    while len(joined) < length:
        joined += str(random.choice(texts)) + "\n\n"
    return joined[:length]
