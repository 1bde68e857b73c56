"""Fine-tuning with the transformers Trainer: resumable, deterministic by seed, the best weights kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import EarlyStoppingCallback, EvalPrediction, TrainerCallback, TrainingArguments, set_seed

from data.config import ConfigError
from inference.decision import any_logit

from .batches import Packer, StepSampler, TrainingPrompts
from .config import RunConfig
from .encode import DataError, any_label
from .metrics.modules import headline
from .model import FitError, PromptModel
from .processes import has_accelerator, processes
from .progress import Progress
from .tracking import trackers
from .trainer import BEST_METRIC, CHECKPOINT, KeepBest, PromptTrainer

_LOG_STEPS = 10


def make_trainer(
    model: PromptModel,
    config: RunConfig,
    train: datasets.Dataset,
    validation: datasets.Dataset,
    pad_id: int,
    folder: Path,
    logs: Path | None = None,
) -> PromptTrainer:
    """The Trainer of a run over encoded splits.

    Args:
        model: what is trained.
        config: the run.
        train: as `encode` gives it, with all windows.
        validation: the same.
        pad_id: the token that fills a batch up.
        folder: for checkpoints and the best weights so far.
        logs: for TensorBoard; its name is the run's, for trackers. None tells no tracker.

    Raises:
        DataError: there are fewer prompts than a step reads.
        ConfigError: a tracker is not installed.
    """
    count = processes().num_processes
    if config.fit.prompts_per_step % count:
        raise DataError(
            f"fit.prompts_per_step is {config.fit.prompts_per_step}, which {count} processes cannot share alike; "
            f"take a multiple of {count}"
        )
    if config.hardware.sharding and not (has_accelerator() and count > 1):
        raise ConfigError(
            "hardware.sharding: spreads weights over the GPUs of several processes, and here are none; start the run "
            "by `accelerate launch --num_processes N` on a machine with GPUs, or set it to false"
        )
    if len(train) < config.fit.prompts_per_step:
        raise DataError(
            f"the train split holds {len(train)} prompts, and a step reads {config.fit.prompts_per_step}; "
            "add records or lower fit.prompts_per_step"
        )
    sampler = StepSampler(train, config.fit.prompts_per_step, config.fit.source_temperature, config.seed)
    callbacks = [_NewDraw(sampler), EarlyStoppingCallback(config.fit.patience), Progress(config.fit.prompts_per_step)]
    trainer = PromptTrainer(
        sampler=sampler,
        model=model,
        args=_arguments(config, len(train), count, folder, logs.stem if logs else ""),
        train_dataset=TrainingPrompts(train, config.windows_per_prompt, config.seed),
        eval_dataset=TrainingPrompts(validation, config.windows_per_prompt, config.seed),
        data_collator=Packer(pad_id, config.fit.tokens_per_batch),
        compute_metrics=_validation_metrics,
        callbacks=[*callbacks, *(trackers(config.tracking, logs) if logs else [])],
    )
    trainer.add_callback(KeepBest(trainer))
    return trainer


def fit(trainer: PromptTrainer, seed: int) -> list[dict[str, Any]]:
    """Run the Trainer, from its newest checkpoint if there is one; the best weights then lie in `trainer.best`.

    Returns:
        The Trainer's log: loss, learning rate and validation metrics by step.
    """
    set_seed(seed)
    checkpoint = newest_checkpoint(trainer.folder)
    if checkpoint is not None and trainer.is_world_process_zero():
        print(f"going on from {checkpoint.name}", flush=True)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, Progress):
                callback.close()
    trainer.accelerator.wait_for_everyone()  # the main process may still be writing the best weights
    return [_repeatable(entry) for entry in trainer.state.log_history if "train_runtime" not in entry]


def _repeatable(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the log without times, which differ from run to run; all else repeats, in a resumed run too."""
    return {key: entry[key] for key in sorted(entry) if "runtime" not in key and "per_second" not in key}


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint; each was renamed into place when it was whole."""
    return max(folder.glob(f"{CHECKPOINT}-*"), key=lambda path: int(path.name.split("-")[1]), default=None)


class _NewDraw(TrainerCallback):
    """Tells the sampler which epoch comes, in a resumed run too."""

    def __init__(self, sampler: StepSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._sampler.set_epoch(math.floor((state.epoch or 0) + 1e-6))


def _arguments(config: RunConfig, prompts: int, count: int, folder: Path, name: str) -> TrainingArguments:
    fit, hardware = config.fit, config.hardware
    steps_in_epoch = prompts // fit.prompts_per_step
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=fit.epochs,
        learning_rate=fit.learning_rate,
        lr_scheduler_type=fit.schedule,
        warmup_steps=fit.warmup,
        weight_decay=fit.weight_decay,
        max_grad_norm=fit.clip,
        per_device_train_batch_size=fit.prompts_per_step // count,
        per_device_eval_batch_size=max(1, fit.prompts_per_step // count),
        dataloader_num_workers=hardware.workers,
        eval_strategy="steps",
        eval_steps=max(1, steps_in_epoch // fit.evaluations),
        save_strategy="steps",
        save_steps=fit.checkpoint_steps,
        logging_steps=math.gcd(_LOG_STEPS, fit.checkpoint_steps),  # a resumed run then logs the very same means
        logging_nan_inf_filter=False,
        restore_callback_states_from_checkpoint=True,  # early stopping counts on where it was
        metric_for_best_model=BEST_METRIC,
        greater_is_better=True,
        use_cpu=not has_accelerator(),
        bf16=_bfloat16(hardware.precision),
        fsdp=hardware.sharding,
        ddp_find_unused_parameters=False,
        log_level="error",
        log_level_replica="error",
        disable_tqdm=True,  # the bar is our own
        report_to="none",  # and so is the choice of trackers
        project=config.tracking.project,
        run_name=config.tracking.name or name or None,
        remove_unused_columns=False,
        label_names=["labels"],
        seed=config.seed,
        data_seed=config.seed,
        # Pinned memory serves accelerators alone, and warns without one.
        dataloader_pin_memory=has_accelerator(),
    )


def _bfloat16(precision: str) -> bool:
    if precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def _validation_metrics(result: EvalPrediction) -> dict[str, float]:
    labels = np.asarray(result.label_ids)
    logits = np.asarray(result.predictions)
    if not np.isfinite(logits).all():
        raise FitError("the weights give outputs that are no numbers; lower fit.learning_rate")
    truth = any_label(labels)
    known = truth >= 0
    return headline(any_logit(logits)[known], truth[known].astype(int))
