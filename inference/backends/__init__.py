"""Where the arithmetic is done: a padded batch of windows in, logits out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

BACKENDS = ("auto", "torch")


class Backend(Protocol):
    """One way to run the encoder."""

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Logits `[windows, labels]` (float32) of `[windows, tokens]` int64 ids and 0/1 mask."""
        ...


def open_backend(name: str, folder: Path, device: str | None) -> Backend:
    """The backend called `name` over the artefact in `folder`; `auto` is torch, the only one so far."""
    if name not in BACKENDS:
        raise ValueError(f'backend "{name}" is unknown; known: {", ".join(BACKENDS)}')
    from .pytorch import TorchBackend

    return TorchBackend(folder, device)
