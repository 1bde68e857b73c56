"""A training run, typed: everything that can be set, each field with what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data.config import Config, load_config, read_yaml
from data.records import CATEGORIES
from inference.windows import WindowSpec


class EncoderConfig(Config):
    """Where the base encoder comes from (exactly one of `package`, `path`, `hub`), and what of it is trained."""

    package: str | None = Field(None, description="an installed distribution that carries the encoder's files")
    path: str | None = Field(None, description="a local folder in Hugging Face layout")
    hub: str | None = Field(None, description="a model on the Hugging Face hub; needs revision")
    revision: str | None = Field(None, description="commit of the hub model, so that the run can be repeated")
    keep_layers: int | None = Field(None, ge=1, description="use so many of the lowest layers only; all where null")
    mean_layer: bool = Field(
        False,
        description="add a layer that starts as the mean over tokens, for encoders that were trained to be averaged",
    )
    freeze_embeddings: bool = Field(True, description="leave the token embeddings as they are; saves time and memory")
    freeze_layers: int = Field(0, ge=0, description="leave so many of the lowest layers as they are")

    @model_validator(mode="after")
    def _one_place(self) -> EncoderConfig:
        if sum(place is not None for place in (self.package, self.path, self.hub)) != 1:
            raise ValueError("give exactly one of package, path and hub")
        if self.hub is not None and self.revision is None:
            raise ValueError("a hub model needs revision, a commit hash")
        return self


class AdapterConfig(Config):
    """LoRA (Hu et al. 2022): train a low-rank change of each linear layer; it is merged before the artefact is saved.

    `rank` 0 trains the encoder itself.
    """

    rank: int = Field(0, ge=0)
    alpha: float = Field(16.0, gt=0, description="the change is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)


class WindowConfig(Config):
    """How long prompts are cut, in training and in scoring."""

    size: int = Field(256, ge=16, le=8192, description="tokens in a window, special tokens included")
    overlap: int = Field(32, ge=0, description="tokens that neighbouring windows share")
    limit: int = Field(8, ge=1, le=1024, description="windows read of one prompt in scoring")

    @model_validator(mode="after")
    def _overlap_fits(self) -> WindowConfig:
        if self.overlap > self.size // 2:
            raise ValueError("overlap is over half of size")
        return self

    def spec(self) -> WindowSpec:
        """As the scorer takes it."""
        return WindowSpec(self.size, self.overlap, self.limit)


class FitConfig(Config):
    """The fine-tuning itself."""

    epochs: int = Field(3, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field("linear", description="of the learning rate")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="longest gradient; a longer one is shortened to it")
    prompts_per_step: int = Field(32, ge=1, description="prompts in an optimiser step, over all processes together")
    tokens_per_prompt: int = Field(256, ge=16, description="tokens of a long prompt that an epoch shows, in windows")
    tokens_per_batch: int = Field(1024, ge=16, description="padded tokens in one call of the network")
    max_prompts: int | None = Field(None, ge=1, description="train on so many prompts only, chosen by seed")
    flatten_chats: float = Field(0.5, ge=0, le=1, description="share of the chats that are trained as flat text")
    dropout: float = Field(0.0, ge=0, lt=1, description="in every layer; 0 trains a third faster on CPU")
    source_temperature: float = Field(
        1.0, ge=0, le=1, description="1 draws prompts as they are, 0 draws every source (and group in it) alike"
    )
    evaluations: int = Field(2, ge=1, description="looks at the validation split in an epoch")
    patience: int = Field(4, ge=1, description="stop after so many looks without a better one")
    checkpoint_steps: int = Field(100, ge=1, description="steps between checkpoints, which a killed run goes on from")


class LossConfig(Config):
    """What is minimised: cross-entropy for each category and for distillation, and options."""

    class_balance: float = Field(
        0.0, ge=0, le=1, description="a positive weighs (negatives / positives) to this power; 0 weighs all alike"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="targets are drawn in from 0 and 1 by this much")
    focal_gamma: float = Field(0.0, ge=0, description="down-weights what is right already (Lin et al. 2017); 0: off")
    energy_weight: float = Field(0.0, ge=0, description="of the energy penalty (Liu et al. 2020); 0: off")
    energy_organic: float = Field(-0.1, le=0, description="energy that organic prompts are pushed over")
    energy_positive: float = Field(-4.0, le=0, description="energy that all others are pushed under")

    @model_validator(mode="after")
    def _margins_lie_apart(self) -> LossConfig:
        if self.energy_positive >= self.energy_organic:
            raise ValueError("energy_positive must lie under energy_organic")
        return self


class HardwareConfig(Config):
    """How the machine is used."""

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where an accelerator has it, else float32"
    )
    compile: bool = Field(False, description="compile the network first (torch.compile); pays on long runs on a GPU")
    sharding: bool = Field(False, description="spread weights and optimiser over the processes (FSDP)")
    workers: int = Field(0, ge=0, description="processes that prepare batches; 0: the training process itself")


class CalibrationConfig(Config):
    """Calibration and thresholds, on the calibration split alone."""

    method: Literal["platt", "temperature"] = Field("platt", description="platt: slope and offset; temperature: slope")
    coverage: float = Field(0.9, gt=0, lt=1, description="coverage that the abstention band is set for, in each class")


class TrackingConfig(Config):
    """Who is told of the run while it goes on; `history.json` in the artefact holds it in any case."""

    report_to: tuple[Literal["tensorboard", "trackio", "mlflow", "wandb"], ...] = ()
    project: str = Field("promptassay", description="under which trackio, MLflow and W&B file the run")
    name: str | None = Field(None, description="of the run there; null: the name of the artefact's folder")


class RunConfig(Config):
    """One training run; a run that differs is a file that differs."""

    data: str = Field(description="folder that `python -m data build` made; --data names another")
    labels: tuple[str, ...] = Field(CATEGORIES, description="categories that are learnt, in the order of the logits")
    encoder: EncoderConfig
    adapter: AdapterConfig = AdapterConfig()
    windows: WindowConfig = WindowConfig()
    fit: FitConfig = FitConfig()
    loss: LossConfig = LossConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    hardware: HardwareConfig = HardwareConfig()
    tracking: TrackingConfig = TrackingConfig()
    seed: int = Field(0, ge=0)

    @field_validator("labels")
    @classmethod
    def _known_labels(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in labels if name not in CATEGORIES]
        if unknown or not labels or len(set(labels)) < len(labels):
            raise ValueError(f"must name some of {', '.join(CATEGORIES)}, each once")
        return labels

    @model_validator(mode="after")
    def _a_window_fits(self) -> RunConfig:
        if self.windows.size > self.fit.tokens_per_prompt or self.windows.size > self.fit.tokens_per_batch:
            raise ValueError("windows.size is over fit.tokens_per_prompt or fit.tokens_per_batch: not one window fits")
        return self

    @property
    def windows_per_prompt(self) -> int:
        """Windows of a long prompt that an epoch shows."""
        return self.fit.tokens_per_prompt // self.windows.size


def load_run(path: Path) -> RunConfig:
    """A run from a YAML file; `extends: other.yaml` in it (relative to the file) names one that it changes.

    Raises:
        data.config.ConfigError: the file cannot be used; all faults are listed.
    """
    return load_config(path, RunConfig, content=_extended(path))


def _extended(path: Path, depth: int = 0) -> Any:
    content = read_yaml(path)
    if not isinstance(content, dict) or "extends" not in content or depth > 4:
        return content
    base = _extended(path.parent / str(content.pop("extends")), depth + 1)
    return merge(base, content) if isinstance(base, dict) else base


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `change` laid over it, section by section."""
    both = dict(base)
    for name, value in change.items():
        inside = both.get(name)
        both[name] = merge(inside, value) if isinstance(value, dict) and isinstance(inside, dict) else value
    return both
