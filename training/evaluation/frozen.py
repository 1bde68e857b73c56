"""The frozen encoder and a linear probe over it: what is there before any fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from data.records import Record
from inference.scorer import BATCH_TOKENS

from ..batches import Packer
from ..config import RunConfig
from ..encode import any_label, label_row
from ..encoders import find_encoder
from ..model import open_network
from ..processes import has_accelerator

_CHUNK = 256


class FrozenEncoder:
    """A run's base encoder as it came, before any training: prompts as the mean of the last layer over their tokens.

    It has the layers that the run keeps, without the layer that a run may add, and reads the windows that scoring
    reads; tokens that two windows share count twice.

    Raises:
        EncoderError: the encoder is not there.
    """

    def __init__(self, config: RunConfig) -> None:
        from ..finetune import quiet

        quiet()
        encoder = find_encoder(config.encoder)
        network = open_network(encoder, config.encoder.model_copy(update={"mean_layer": False}))
        self._device = torch.accelerator.current_accelerator() if has_accelerator() else torch.device("cpu")
        self._network = network.base_model.to(self._device).eval()
        self._windower = encoder.windower(config.windows.spec())
        self._pack = Packer(network.config.pad_token_id or 0, BATCH_TOKENS)
        self.name = encoder.name
        self.layers = int(network.config.num_hidden_layers)

    def __call__(self, records: Sequence[Record]) -> np.ndarray:
        """Means of the last layer, float32 `[records, width]`, with a progress bar."""
        parts = []
        with tqdm(total=len(records), unit="prompt", desc="embedding", mininterval=0.5, leave=False) as bar:
            for start in range(0, len(records), _CHUNK):
                parts.append(self.means(records[start : start + _CHUNK]))
                bar.update(len(parts[-1]))
        return np.concatenate(parts)

    @torch.inference_mode()
    def means(self, records: Sequence[Record]) -> np.ndarray:
        """The same for a handful of records, without a bar."""
        windows = self._windower([record.rendered for record in records])
        rows = [{"windows": prompt.ids, "labels": [], "weight": 1.0} for prompt in windows]
        means = np.empty((len(rows), self._network.config.hidden_size), np.float32)
        for batch in self._pack(rows)["batches"]:
            ids, mask, owner = (batch[name].to(self._device) for name in ("input_ids", "attention_mask", "owner"))
            states = self._network(input_ids=ids, attention_mask=mask).last_hidden_state * mask.unsqueeze(2)
            totals = states.new_zeros(len(batch["rows"]), states.shape[2]).index_add(0, owner, states.sum(dim=1))
            tokens = states.new_zeros(len(batch["rows"])).index_add(0, owner, mask.sum(dim=1).to(states.dtype))
            means[batch["rows"].numpy()] = (totals / tokens.unsqueeze(1)).cpu().numpy()
        return means


def linear_probe() -> Any:
    """A linear classifier over embeddings (Alain and Bengio 2017), in which both classes count alike."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))


def fit_weighted(pipeline: Any, inputs: Any, positive: np.ndarray, weights: np.ndarray) -> Any:
    """A scikit-learn pipeline, fitted so that its last step counts each record by its weight."""
    return pipeline.fit(inputs, positive, **{f"{pipeline.steps[-1][0]}__sample_weight": weights})


def truth_of(records: Sequence[Record], names: Sequence[str]) -> np.ndarray:
    """Whether any of the categories applies, `[n]`: 1, 0, or negative where nobody knows."""
    rows = [label_row(record.labels, record.judged, names) for record in records]
    return any_label(np.array(rows).reshape(len(rows), len(names)))
