"""From built data to fine-tuned weights: what a run, a sweep and an ablation have in common."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets.utils.logging import disable_progress_bar
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from .config import RunConfig
from .encode import check_labels, choose_prompts, encode, load_split, records_of
from .encoders import BaseEncoder, find_encoder
from .fit import fit, make_trainer
from .losses import positive_weights
from .model import PromptModel, add_adapter, cannot_write, lay_over, open_network, plain_network


@dataclass(frozen=True)
class Splits:
    """The splits that fine-tuning reads, encoded, and the encoder that they were cut for."""

    encoder: BaseEncoder
    train: datasets.Dataset
    validation: datasets.Dataset


@dataclass(frozen=True)
class FineTuned:
    """The best weights of a run, in a network as it is saved, and the Trainer's log."""

    network: PreTrainedModel
    encoder: BaseEncoder
    history: list[dict[str, Any]]
    is_main: bool

    def write(self, folder: Path, config: RunConfig) -> None:
        """The Hugging Face files of an artefact.

        Raises:
            OSError: the disk is full.
        """
        try:
            self.network.save_pretrained(folder)
        except SafetensorError as error:
            raise cannot_write(folder, error) from error
        tokenizer = AutoTokenizer.from_pretrained(self.encoder.folder, local_files_only=True)
        tokenizer.model_max_length = config.windows.size
        tokenizer.save_pretrained(folder)


def read_splits(config: RunConfig, folder: Path) -> Splits:
    """Find the encoder, and cut the prompts of the training and validation splits into its windows.

    Raises:
        DataError, EncoderError: a split or the encoder is not there, or the data carries labels that are not learnt.
    """
    quiet()
    encoder = find_encoder(config.encoder)
    windower = encoder.windower(config.windows.spec())
    parts = []
    for name, limit in (("train", config.fit.max_prompts), ("validation", None)):
        split = choose_prompts(load_split(folder, name), limit, config.seed)
        check_labels(records_of(split), config.labels)
        parts.append(encode(split, windower, config.labels, config.fit.flatten_chats, config.seed))
    return Splits(encoder, *parts)


def fine_tune(config: RunConfig, splits: Splits, folder: Path, logs: Path | None = None) -> FineTuned:
    """Fine-tune, or go on where a killed run stopped.

    Args:
        config: the run.
        splits: from `read_splits`.
        folder: for checkpoints and the best weights.
        logs: for TensorBoard; None tells no tracker.
    """
    quiet()
    weights = None
    if config.loss.class_balance:
        weights = positive_weights(torch.tensor(np.array(splits.train["labels"])), config.loss.class_balance)

    def new_model() -> PromptModel:
        torch.manual_seed(config.seed)  # the classification head starts from it
        network: Any = open_network(splits.encoder, config.encoder, config.fit.dropout, config.labels)
        if config.adapter.rank:
            network = add_adapter(network, config.adapter)
        return PromptModel(network, config.loss, weights)

    model = new_model()
    if config.hardware.compile:
        model.network.compile(dynamic=True)  # every batch has a shape of its own
    pad_id = model.network.config.pad_token_id or 0
    trainer = make_trainer(model, config, splits.train, splits.validation, pad_id, folder, logs)
    history = fit(trainer, config.seed)
    # A fresh model, whatever the hardware made of the one that was trained: compiled, sharded, in another precision.
    best = new_model()
    lay_over(best, trainer.best)
    return FineTuned(plain_network(best.network).eval(), splits.encoder, history, trainer.is_world_process_zero())


def quiet() -> None:
    """What libraries say of their own workings helps nobody here; warnings that matter become our own errors."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    disable_progress_bar()
