"""The network in training: windows in, pooled prompt logits and their loss out."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from data.records import CATEGORIES
from inference.windows import pool_logits

from .config import EncoderConfig
from .encoders import BaseEncoder, EncoderError
from .losses import multilabel_loss

MICRO_BATCH_TOKENS = 1024
"""Padded tokens in one slice: small slices stay in a CPU's cache."""


_MEAN_LAYER_OF = ("bert", "roberta", "xlm-roberta")
"""Kinds of encoders whose layers have BERT's parts by BERT's names."""


class PromptModel(nn.Module):
    """A sequence classifier over windows, pooled to prompts as the scorer pools.

    The windows of a step go through the network sorted by length in slices of about `MICRO_BATCH_TOKENS`, so that
    hardly any padding is computed; the loss is one for the whole step, so that every prompt counts by its weight
    and not by its length.
    """

    def __init__(self, network: PreTrainedModel, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.label_smoothing = label_smoothing

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        owner: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Loss, and logits `[prompts, labels]`."""
        window_logits = self._window_logits(input_ids, attention_mask)
        logits = pool_logits(window_logits, owner, len(labels))
        return {"loss": multilabel_loss(logits, labels, weight, self.label_smoothing), "logits": logits}

    def _window_logits(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        lengths, order = attention_mask.sum(dim=1).sort(stable=True)
        sizes = lengths.tolist()
        parts = []
        start = 0
        while start < len(sizes):
            end = start + 1
            while end < len(sizes) and sizes[end] * (end + 1 - start) <= MICRO_BATCH_TOKENS:
                end += 1
            rows, longest = order[start:end], sizes[end - 1]
            output = self.network(input_ids=input_ids[rows, :longest], attention_mask=attention_mask[rows, :longest])
            parts.append(output.logits.float())
            start = end
        return torch.cat(parts)[order.argsort()]


def open_network(encoder: BaseEncoder, config: EncoderConfig, dropout: float = 0.0) -> PreTrainedModel:
    """The encoder with a fresh classification head, cut and frozen as configured, with one rate of dropout everywhere.

    Raises:
        EncoderError: it has fewer layers than are to be kept, or layers that the mean layer cannot be made from.
    """
    own = AutoConfig.from_pretrained(
        encoder.folder,
        num_labels=len(CATEGORIES),
        id2label=dict(enumerate(CATEGORIES)),
        label2id={name: i for i, name in enumerate(CATEGORIES)},
        problem_type="multi_label_classification",
        local_files_only=True,
    )
    if config.keep_layers is not None:
        if config.keep_layers > own.num_hidden_layers:
            raise EncoderError(
                f"{encoder.name} has {own.num_hidden_layers} layers, and keep_layers is {config.keep_layers}"
            )
        own.num_hidden_layers = config.keep_layers
    if config.mean_layer and own.model_type not in _MEAN_LAYER_OF:
        raise EncoderError(
            f"{encoder.name} is of type {own.model_type}, and mean_layer is known for {', '.join(_MEAN_LAYER_OF)} "
            "alone; set it to false"
        )
    network = AutoModelForSequenceClassification.from_pretrained(
        encoder.folder,
        config=own,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
    )
    if config.mean_layer:
        _add_mean_layer(network)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    base = network.base_model
    if config.freeze_embeddings:
        base.get_input_embeddings().requires_grad_(False)
    for layer in base.encoder.layer[: config.freeze_layers] if config.freeze_layers else []:
        layer.requires_grad_(False)
    return network


def _add_mean_layer(network: PreTrainedModel) -> None:
    """One more layer of the encoder's own kind, set so that every token starts as itself plus the mean of all tokens.

    The classification head reads the first token alone. An encoder that was trained to be averaged over its tokens
    says little there, and less where its upper layers were cut off; with queries and keys of zero attention is
    uniform, and with values of one it hands the head the mean. It is trained on like every other layer, and the
    saved model stays an ordinary one.
    """
    layers = network.base_model.encoder.layer
    layer = copy.deepcopy(layers[-1])
    attention, output = layer.attention.self, layer.attention.output
    with torch.no_grad():
        for linear in (attention.query, attention.key, attention.value, output.dense, layer.output.dense):
            linear.weight.zero_()
            linear.bias.zero_()
        for linear in (attention.value, output.dense):
            linear.weight.fill_diagonal_(1.0)
        for norm in (output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    layers.append(layer)
    network.config.num_hidden_layers = len(layers)
