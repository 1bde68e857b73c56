"""The bar that a person watches while a run goes on: prompts a second, loss, what validation says, time left."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

_SHOWN = {"eval_partial_roc_auc": "pAUC", "eval_roc_auc": "AUC", "eval_recall_at_fpr_1pct": "R@1%"}


class Progress(TrainerCallback):
    """One bar over the whole run, and a line for each look at the validation split."""

    def __init__(self, prompts_per_step: int) -> None:
        self._size = prompts_per_step
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed run starts where it was."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps * self._size,
                initial=state.global_step * self._size,
                unit="prompt",
                desc="fine-tuning",
                mininterval=1.0,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step further."""
        if self._bar is not None:
            self._bar.update(self._size)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """The mean loss of the last steps stands beside the bar."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", epoch=f"{state.epoch or 0:.2f}", refresh=False)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What the validation split says stays on the screen."""
        if self._bar is not None:
            values = kwargs["metrics"]
            shown = "  ".join(f"{short} {values[name]:.3f}" for name, short in _SHOWN.items() if name in values)
            self._bar.write(f"step {state.global_step}: validation  {shown}")

    def close(self) -> None:
        """Leave the line, however the run ended, so that an error begins on one of its own."""
        if self._bar is not None:
            self._bar.close()
