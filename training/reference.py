"""The reference prompts of an artefact: from the shipped corpus alone, whatever it was trained on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import data
from data.reading import load_records
from inference.job.files import find_files

PROMPTS = 512
_FOLDERS = ("organic", "reasoning_trace_extraction", "censorship_probing", "capability_sweep", "pairs")


@cache
def reference_texts(n: int = PROMPTS) -> tuple[str, ...]:
    """Rendered prompts, the same in every artefact, which show whether another backend decides as torch does.

    They are drawn from the seed corpus that ships with this project and never from a user's data, since they travel
    with the artefact.
    """
    seed = Path(data.__file__).parent / "seed"
    records, _ = load_records(find_files([str(seed / name) for name in _FOLDERS]))
    chosen = np.random.default_rng(0).permutation(len(records))[:n]
    return tuple(records[i].rendered for i in chosen)
