"""`--backend auto`: whichever sound backend is fastest here, found by a second of trying."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..fields import ArtefactError
from . import Backend, BackendError, open_backend
from .exports import check_export, exported

if TYPE_CHECKING:
    import numpy as np

SECONDS = 1.0
"""For trying all of them, once they are open."""

Batch = tuple["np.ndarray", "np.ndarray"]


def choose_backend(
    folder: Path, fingerprint: str, device: str | None, batches: Callable[[], Sequence[Batch]]
) -> tuple[str, Backend]:
    """The fastest backend of those that the artefact holds and this machine can run, and its name.

    Args:
        folder: the artefact.
        fingerprint: its own; an export of another artefact is passed over.
        device: a torch device; exports run on CPU alone.
        batches: padded ids and mask at the lengths of real prompts; asked for only where there is a choice.
    """
    import torch

    names = exported(folder)
    if torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type != "cpu":
        names = [name for name in names if name.startswith("torch")]
    if len(names) == 1:
        return names[0], open_backend(names[0], folder, device)
    tried = list(batches())
    best: tuple[float, str, Backend] | None = None
    for name in names:  # one after the other, and the slower let go: each holds the whole network
        try:
            check_export(folder, name, fingerprint)
            backend = open_backend(name, folder, device)
        except (BackendError, ArtefactError):  # not for this machine, or not of this artefact; `torch` always is
            if name == "torch":
                raise
            continue
        seconds = _seconds(backend, tried, SECONDS / len(names))
        if best is None or seconds < best[0]:
            best = (seconds, name, backend)
    assert best is not None  # noqa: S101  (torch is among them)
    return best[1], best[2]


def _seconds(backend: Backend, batches: Sequence[Batch], within: float) -> float:
    """Seconds for one pass over the batches, the least of several: what else the machine does only ever adds."""
    backend(*batches[0])  # the first call prepares what later ones use
    least = float("inf")
    until = time.perf_counter() + within
    while True:
        started = time.perf_counter()
        for batch in batches:
            backend(*batch)
        ended = time.perf_counter()
        least = min(least, ended - started)
        if ended >= until:
            return least
