"""The transformers Trainer, where ours differs: steps of packed batches, checkpoints in one stroke, finite losses."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from .model import FitError, cannot_write, lay_over

if TYPE_CHECKING:
    from .batches import StepSampler

BEST_METRIC = "eval_partial_roc_auc"
"""Area under ROC up to 5 % false positives: recall at 1 % is too noisy on a small split to choose by."""
CHECKPOINT = "checkpoint"
_WEIGHTS = "model.safetensors"
_METADATA = {"format": "pt"}


class PromptTrainer(Trainer):
    """A step is a fixed number of prompts, whatever their lengths, and every prompt counts by its weight alone.

    The step's prompts come packed by length into batches (see `Packer`); their gradients are summed and divided by
    the weight of the whole step, over all processes. A checkpoint holds what learns, and is renamed into place when
    it is whole.
    """

    def __init__(self, sampler: StepSampler, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)  # the bar says it
        self._sampler = sampler
        self._writing: str | None = None

    @property
    def folder(self) -> Path:
        """Where checkpoints and the best weights lie."""
        return Path(self.args.output_dir or "")

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Gradients of one step; returns its loss, the weighted mean over its prompts."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        # Gradients are averaged over processes, so each divides by the mean of their weights.
        weight = self._over_processes(inputs["weight"].sum(), "mean")
        batches = self._evened(inputs["batches"])
        total = torch.zeros((), device=weight.device)
        for number, batch in enumerate(batches):
            last = number + 1 == len(batches)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self._forward(model, batch)["loss"] / weight
                self.accelerator.backward(loss)
            total += loss.detach()
        if not torch.isfinite(total):
            raise FitError(
                f"the loss is {total.item()} at step {self.state.global_step + 1}; lower fit.learning_rate or "
                "fit.clip, or set hardware.precision to float32; the last checkpoint is from before it"
            )
        return total

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The weighted mean loss, the logits `[prompts, labels]` and the labels of some prompts."""
        inputs = self._prepare_inputs(inputs)
        loss = torch.zeros((), device=inputs["weight"].device)
        logits = torch.zeros_like(inputs["labels"])
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self._evened(inputs["batches"]):
                outputs = self._forward(model, batch)
                loss += outputs["loss"]
                logits[batch["rows"]] = outputs["logits"]
        return loss / inputs["weight"].sum(), logits, inputs["labels"]

    def _forward(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return model(**{name: value for name, value in batch.items() if name != "rows"})

    def _evened(self, batches: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        """As many batches on every process, since processes meet in each: some repeat their first, without weight."""
        if self.args.world_size == 1:
            return batches
        count = int(self._over_processes(torch.tensor(len(batches), device=self.args.device), "max"))
        filler = batches[0] | {"weight": torch.zeros_like(batches[0]["weight"])}
        return [*[filler] * (count - len(batches)), *batches]

    def _over_processes(self, value: torch.Tensor, how: str) -> torch.Tensor:
        if self.args.world_size == 1:
            return value
        gathered = self.accelerator.gather(value.reshape(1))
        return gathered.max() if how == "max" else gathered.mean()

    def _get_train_sampler(self, train_dataset: Any = None) -> StepSampler:
        return self._sampler

    # ---- what a checkpoint is ----

    @property
    def best(self) -> Path:
        """The best weights so far: those that learn, by name."""
        return self.folder / "best.safetensors"

    def write_best(self) -> None:
        """Keep the present weights as the best so far."""
        sharded = self.is_fsdp_enabled  # then all processes must ask for the whole of it
        state = self.accelerator.get_state_dict(self.model_wrapped) if sharded else self.model.state_dict()
        if self.args.should_save:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.best.with_name(self.best.name + ".writing")
            try:
                save_file(self._learning(state), temporary, metadata=_METADATA)
                _sync(temporary)
            except (OSError, SafetensorError) as error:
                raise cannot_write(temporary, error) from error
            temporary.replace(self.best)

    def _learning(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What training changes; all else is as the base encoder gave it, and need not be saved."""
        names = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        return {name: value.contiguous() for name, value in state.items() if name in names}

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.folder)
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(self._learning(state_dict or self.model.state_dict()), folder / _WEIGHTS, metadata=_METADATA)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            lay_over(self.model, Path(resume_from_checkpoint) / _WEIGHTS)

    def _get_output_dir(self, trial: Any) -> str:
        return self._writing or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The Trainer's own writes file after file into the final folder; here it is renamed there when complete."""
        writing = self.folder / "writing"
        name = f"{CHECKPOINT}-{self.state.global_step}"
        self._writing = str(writing)
        try:
            if self.args.should_save:
                shutil.rmtree(writing, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have words of their own
            raise cannot_write(self.folder, error) from error
        finally:
            self._writing = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            for file in (writing / name).rglob("*"):
                _sync(file)
            target = self.folder / name
            older = [place for place in self.folder.glob(f"{CHECKPOINT}-*") if place != target]
            if target.exists():  # from before a kill; a folder cannot be renamed over another
                target.rename(writing / "same")
            (writing / name).rename(target)
            for place in older:
                place.rename(writing / f"old-{place.name}")
            shutil.rmtree(writing, ignore_errors=True)
        self.accelerator.wait_for_everyone()


class KeepBest(TrainerCallback):
    """Keeps the weights whenever the validation split likes them better than ever."""

    def __init__(self, trainer: PromptTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The end of the run is looked at too, wherever the last regular look fell."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer compares right after this call, so `state.best_metric` is still the one to beat."""
        value = kwargs["metrics"].get(BEST_METRIC)
        if value is not None and (state.best_metric is None or value > state.best_metric):
            self._trainer.write_best()


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
