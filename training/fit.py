"""Fine-tuning with the transformers Trainer: resumable, deterministic by seed, best epoch kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from inference.decision import any_logit

from .config import RunConfig
from .encode import Collator, any_label
from .metrics import headline
from .model import PromptModel

BEST_METRIC = "partial_roc_auc"
"""Area under ROC up to 5 % false positives: recall at 1 % is too noisy on a small split to choose an epoch by."""
_COMPLETE = "complete"


class _MarkComplete(TrainerCallback):
    """The Trainer's checkpoints are not written in one stroke: a mark, set last, says that one is whole."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            (Path(args.output_dir or "") / f"checkpoint-{state.global_step}" / _COMPLETE).touch()


def make_trainer(
    model: PromptModel, config: RunConfig, train: Dataset, validation: Dataset, pad_id: int, folder: Path
) -> Trainer:
    """The Trainer of a run over encoded splits; its checkpoints lie in `folder`."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.fit.epochs,
        learning_rate=config.fit.learning_rate,
        weight_decay=config.fit.weight_decay,
        warmup_steps=config.fit.warmup,
        lr_scheduler_type="linear",
        per_device_train_batch_size=config.fit.prompts_per_step,
        per_device_eval_batch_size=config.fit.prompts_per_step,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=BEST_METRIC,
        greater_is_better=True,
        logging_steps=5,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        seed=config.seed,
        data_seed=config.seed,
        # Pinned memory serves accelerators alone, and warns without one.
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=Collator(pad_id),
        compute_metrics=_validation_metrics,
        callbacks=[_MarkComplete()],
    )


def fit(trainer: Trainer, seed: int) -> list[dict[str, Any]]:
    """Run the Trainer, from its newest whole checkpoint if there is one.

    Returns:
        The Trainer's log: loss, learning rate and validation metrics by step.
    """
    set_seed(seed)
    checkpoint = newest_checkpoint(Path(trainer.args.output_dir or ""))
    if checkpoint is not None:
        print(f"going on from {checkpoint.name}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return trainer.state.log_history


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole."""
    whole = [mark.parent for mark in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def _validation_metrics(result: EvalPrediction) -> dict[str, float]:
    labels = np.asarray(result.label_ids)
    logits = np.asarray(result.predictions)
    truth = any_label(labels)
    known = truth >= 0
    return headline(any_logit(logits)[known], truth[known].astype(int))
