"""The network in training: windows in, pooled prompt logits and their loss out."""

from __future__ import annotations

import copy
import errno
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from data.records import CATEGORIES
from inference.windows import pool_logits

from .config import AdapterConfig, EncoderConfig, LossConfig
from .encoders import BaseEncoder, EncoderError
from .losses import prompt_losses

_MEAN_LAYER_OF = ("bert", "roberta", "xlm-roberta")
"""Kinds of encoders whose layers have BERT's parts by BERT's names."""


class FitError(ValueError):
    """Training that cannot go on; the message names the mend."""


def cannot_write(path: Path, error: Exception) -> OSError:
    """What torch and safetensors say in words of their own when a disk is full, as the error that it is."""
    return OSError(errno.ENOSPC, f"cannot be written ({error}); free some space, and go on with --resume", str(path))


class PromptModel(nn.Module):
    """A sequence classifier over windows, pooled to prompts as the scorer pools, with its loss."""

    def __init__(
        self, network: nn.Module, loss: LossConfig | None = None, positive_weight: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss or LossConfig()
        self.register_buffer("positive_weight", positive_weight, persistent=False)
        # What FSDP wraps one by one: the encoder's layers.
        kinds = {type(module).__name__ for module in network.modules()}
        self._no_split_modules = sorted(kinds & set(getattr(network, "_no_split_modules", None) or ()))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        owner: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """The prompts' losses, each times its weight, as a sum; and their logits `[prompts, labels]`."""
        window_logits = self.network(input_ids=input_ids, attention_mask=attention_mask).logits.float()
        logits = pool_logits(window_logits, owner, len(labels))
        losses = prompt_losses(logits, labels, self.loss, self.positive_weight)
        return {"loss": (losses * weight).sum(), "logits": logits}


def lay_over(model: nn.Module, path: Path) -> None:
    """Saved weights of what learns over a model that is otherwise as its base encoder gave it.

    Raises:
        FitError: they are another model's.
    """
    result = model.load_state_dict(load_file(path), strict=False)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if result.unexpected_keys or learning & set(result.missing_keys):
        raise FitError(f"{path}: was written by another run; remove {path.parent} and start anew")


def open_network(
    encoder: BaseEncoder, config: EncoderConfig, dropout: float = 0.0, names: Sequence[str] = CATEGORIES
) -> PreTrainedModel:
    """The encoder with a fresh classification head, cut and frozen as configured, with one rate of dropout everywhere.

    Raises:
        EncoderError: it has fewer layers than are to be kept, or layers that the mean layer cannot be made from.
    """
    own = AutoConfig.from_pretrained(
        encoder.folder,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type="multi_label_classification",
        local_files_only=True,
    )
    if config.keep_layers is not None:
        if config.keep_layers > own.num_hidden_layers:
            raise EncoderError(
                f"{encoder.name} has {own.num_hidden_layers} layers, and keep_layers is {config.keep_layers}"
            )
        own.num_hidden_layers = config.keep_layers
        if getattr(own, "layer_types", None):  # one for each layer, where layers are of several kinds
            own.layer_types = own.layer_types[: config.keep_layers]
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
    if config.freeze_embeddings:
        network.base_model.get_input_embeddings().requires_grad_(False)
    for layer in layers_of(network)[: config.freeze_layers]:
        layer.requires_grad_(False)
    return network


def layers_of(network: PreTrainedModel) -> nn.ModuleList:
    """The encoder's layers, whatever the encoder calls them."""
    depth = network.config.num_hidden_layers
    return next(
        module for module in network.base_model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth
    )


def add_adapter(network: PreTrainedModel, config: AdapterConfig) -> nn.Module:
    """The network with a LoRA adapter beside every linear layer; all but the adapter and the head is frozen.

    Raises:
        EncoderError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise EncoderError("adapter.rank needs peft; run: pip install 'promptassay[lora]'") from error
    wanted = LoraConfig(
        task_type="SEQ_CLS",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
    )
    return get_peft_model(network, wanted)


def plain_network(network: nn.Module) -> PreTrainedModel:
    """The network as it is saved: an adapter's change becomes part of the weights that it changes."""
    merge = getattr(network, "merge_and_unload", None)
    return merge() if merge else network


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
