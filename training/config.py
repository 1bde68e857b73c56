"""A training run, typed: everything that can be set, each field with what it does."""

from __future__ import annotations

from pydantic import Field, model_validator

from data.config import Config
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
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    prompts_per_step: int = Field(32, ge=1, description="prompts in an optimiser step, on each process")
    windows_per_prompt: int = Field(2, ge=1, description="windows of a long prompt that a step reads: head, tail, …")
    max_prompts: int | None = Field(None, ge=1, description="train on so many prompts only, chosen by seed")
    dropout: float = Field(0.0, ge=0, lt=1, description="in every layer; 0 trains a third faster on CPU")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class CalibrationConfig(Config):
    """Calibration and thresholds, on the calibration split alone."""

    coverage: float = Field(0.9, gt=0, lt=1, description="coverage that the abstention band is set for, in each class")


class RunConfig(Config):
    """One training run; a run that differs is a file that differs."""

    data: str = Field(description="folder that `python -m data build` made; --data names another")
    encoder: EncoderConfig
    windows: WindowConfig = WindowConfig()
    fit: FitConfig = FitConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    seed: int = Field(0, ge=0)
