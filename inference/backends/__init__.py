"""Where the arithmetic is done: a padded batch of windows in, logits out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

BACKENDS = ("torch", "torch-bf16", "torch-fp16", "onnx", "onnx-int8", "openvino", "openvino-bf16", "openvino-int8")
"""What can run the encoder. All but `torch` were measured against it when `export` made them."""
AUTO = "auto"


class BackendError(ValueError):
    """A backend that cannot run here; the message names the mend."""


class Backend(Protocol):
    """One way to run the encoder."""

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Logits `[windows, labels]` (float32) of `[windows, tokens]` int64 ids and 0/1 mask."""
        ...


def check_backend(name: str) -> None:
    """Refuse a backend that is none.

    Raises:
        ValueError: names those that are.
    """
    if name not in (AUTO, *BACKENDS):
        raise ValueError(f'backend "{name}" is unknown; known: {", ".join((AUTO, *BACKENDS))}')


def open_backend(name: str, folder: Path, device: str | None = None, files: Path | None = None) -> Backend:
    """The backend called `name`.

    Args:
        name: one of `BACKENDS`.
        folder: the artefact.
        device: for torch: the accelerator, where it is not to be found by itself.
        files: where the exported files lie, if not in the artefact.

    Raises:
        BackendError: its library is not installed, or this machine cannot run it.
        ArtefactError: the network cannot be opened.
    """
    check_backend(name)
    runtime, _, kind = name.partition("-")
    exported = files or folder / export_folder(name)
    if runtime == "onnx":
        from .onnx_runtime import OnnxBackend

        return OnnxBackend(exported)
    if runtime == "openvino":
        from .openvino_runtime import OpenVinoBackend

        return OpenVinoBackend(exported, bf16=kind == "bf16")
    from .pytorch import TorchBackend

    return TorchBackend(folder, device, kind)


def export_folder(name: str) -> str:
    """The folder in the artefact that holds a backend's files; bf16 and fp16 are arithmetic alone, over float32's."""
    return name.removesuffix("-bf16").removesuffix("-fp16")
