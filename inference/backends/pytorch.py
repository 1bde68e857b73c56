"""The encoder in torch, in float32, bf16 or fp16, on CPU or an accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import is_flash_attn_2_available
from transformers.utils import logging as transformers_logging

from ..fields import ArtefactError, read_object

_TYPES = {"": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend:
    """Runs an artefact's network; see `Backend`."""

    def __init__(self, folder: Path, device: str | None = None, kind: str = "") -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        try:
            model = open_network(folder)
        finally:
            if bars:
                transformers_logging.enable_progress_bar()
        if kind and self._device.type == "cuda" and is_flash_attn_2_available():
            model.set_attn_implementation("flash_attention_2")  # which leaves padding out
        self.model = model.to(self._device, _TYPES[kind]).eval()

    @torch.inference_mode()
    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Logits `[windows, labels]`; see `Backend`."""
        logits = self.model(
            input_ids=torch.from_numpy(input_ids).to(self._device),
            attention_mask=torch.from_numpy(attention_mask).to(self._device),
        ).logits
        return logits.float().cpu().numpy()


def open_network(folder: Path) -> Any:
    """The network that `config.json` describes, with all of its weights from `model.safetensors` and none left over.

    transformers is given a configuration and tensors, and never the folder, in which it would look for more files.

    Raises:
        ArtefactError: the two do not fit.
    """
    config = read_object(folder / "config.json")
    try:
        weights = load_file(folder / "model.safetensors")
        described = CONFIG_MAPPING[config.value("model_type", str)].from_dict(config.content())
        with torch.device("meta"):  # sizes alone, of which the configuration could name any
            outline = AutoModelForSequenceClassification.from_config(described)
        if sum(part.numel() for part in outline.parameters()) == sum(part.numel() for part in weights.values()):
            model, found = type(outline).from_pretrained(
                None, config=described, state_dict=weights, dtype=torch.float32, output_loading_info=True
            )
            if not any(found.values()):
                return model
        why = "is not the network whose weights model.safetensors holds"
    except Exception as error:  # the library raises many kinds for one cause: a configuration that cannot be
        why = f"describes no network ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    raise ArtefactError(f"{folder / 'config.json'}: {why}; train again or copy the whole artefact folder again")
