"""The encoder in ONNX Runtime, on CPU: float32, or int8 where the exported file is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import BackendError

MODEL_FILE = "model.onnx"


class OnnxBackend:
    """Runs an exported network; see `Backend`. It may be shared by threads."""

    def __init__(self, folder: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError("the backend onnx needs ONNX Runtime: pip install 'promptassay[onnx]'") from error
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Logits `[windows, labels]`; see `Backend`."""
        (logits,) = self._session.run(None, {"input_ids": input_ids, "attention_mask": attention_mask})
        return np.asarray(logits, dtype=np.float32)
