"""The encoder in OpenVINO, on CPU: float32, bf16 arithmetic over float32 weights, or int8 by the exported file."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from . import BackendError

MODEL_FILE = "model.xml"


def import_openvino() -> Any:
    """The library, which would tell its maker of each conversion, and is kept from it.

    Raises:
        BackendError: it is not installed.
    """
    # None makes their import of the package that tells fail, and they go on without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise BackendError("the backend openvino needs OpenVINO: pip install 'promptassay[openvino]'") from error
    return openvino


class OpenVinoBackend:
    """Runs an exported network; see `Backend`. Threads that share it wait for one another."""

    def __init__(self, folder: Path, bf16: bool = False) -> None:
        import torch

        core = import_openvino().Core()
        if bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError("this processor has no bf16 arithmetic: use the backend openvino, or openvino-int8")
        self._compiled = core.compile_model(
            folder / MODEL_FILE,
            "CPU",
            {
                # By itself OpenVINO would compute in bf16 wherever the processor can.
                "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
            },
        )
        self._lock = threading.Lock()

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Logits `[windows, labels]`; see `Backend`."""
        with self._lock:
            return np.array(self._compiled([input_ids, attention_mask])[0], dtype=np.float32)
