"""Telling trackers of a run while it goes on. They hear figures and settings, never a prompt."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks

from data.config import ConfigError

from .config import TrackingConfig


def trackers(config: TrackingConfig, logs: Path) -> list[TrainerCallback]:
    """The Trainer's own callbacks for the trackers that the run names.

    TensorBoard's files go to `logs`; trackio, MLflow and W&B keep to their own settings (`TRACKIO_DIR`,
    `MLFLOW_TRACKING_URI`, `WANDB_MODE` and so on).

    Raises:
        ConfigError: a tracker is not installed.
    """
    missing = [name for name in config.report_to if find_spec(name) is None]
    if missing:
        known = "pip install 'promptassay[tracking]' brings tensorboard and trackio"
        raise ConfigError(f"tracking.report_to: {', '.join(missing)} not installed ({known}, pip the others by name)")
    callbacks: list[TrainerCallback] = []
    for name in config.report_to:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            callbacks.append(TensorBoardCallback(SummaryWriter(log_dir=str(logs))))
        else:
            callbacks += [kind() for kind in get_reporting_integration_callbacks([name])]
    return callbacks
