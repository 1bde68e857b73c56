"""The encoder in torch, float32, on CPU or an accelerator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging


class TorchBackend:
    """Runs an artefact's network; see `Backend`."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        finally:
            if bars:
                transformers_logging.enable_progress_bar()
        self.model = model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Logits `[windows, labels]`; see `Backend`."""
        logits = self.model(
            input_ids=torch.from_numpy(input_ids).to(self._device),
            attention_mask=torch.from_numpy(attention_mask).to(self._device),
        ).logits
        return logits.float().cpu().numpy()
