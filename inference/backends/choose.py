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
    found: dict[str, Backend] = {}
    for name in names:
        try:
            check_export(folder, name, fingerprint)
            found[name] = open_backend(name, folder, device)
        except (BackendError, ArtefactError):  # not for this machine, or not of this artefact; `torch` always is
            if name == "torch":
                raise
    if len(found) == 1:
        return next(iter(found.items()))
    seconds = _try_all(found, list(batches()))
    fastest = min(seconds, key=seconds.__getitem__)
    return fastest, found[fastest]


def _try_all(backends: dict[str, Backend], batches: Sequence[Batch]) -> dict[str, float]:
    """Seconds for one pass over the batches, the least of several: what else the machine does only ever adds."""
    least: dict[str, float] = {}
    for name, backend in backends.items():
        backend(*batches[0])  # the first call prepares what later ones use
        until = time.perf_counter() + SECONDS / len(backends)
        while True:
            started = time.perf_counter()
            for batch in batches:
                backend(*batch)
            ended = time.perf_counter()
            least[name] = min(least.get(name, ended - started), ended - started)
            if ended >= until:
                break
    return least
