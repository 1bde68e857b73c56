"""A sweep, typed: which keys of a run are tried, and how; checked against the run before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from data.config import Config, ConfigError, read_yaml

from ..config import RunConfig, load_run, merge

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Metric = Literal["eval_partial_roc_auc", "eval_roc_auc", "eval_recall_at_fpr_5pct", "eval_recall_at_fpr_1pct"]
METRICS: tuple[str, ...] = get_args(Metric)
Choice = bool | int | FiniteFloat | str | None
_NO_EFFECT = {
    "data": "a sweep reads one folder; name it with --data",
    "calibration": "nothing is calibrated in a sweep, so it cannot be tried",
    "tracking": "no tracker hears of a sweep's trials",
}


class Span(Config):
    """Values that are tried of one key: between `low` and `high`, or one of `choices`."""

    low: int | FiniteFloat | None = None
    high: int | FiniteFloat | None = None
    log: bool = Field(False, description="draw evenly in magnitude")
    step: int | FiniteFloat | None = Field(None, gt=0, description="between neighbouring values; null: 1, or none")
    choices: tuple[Choice, ...] | None = Field(None, min_length=2)

    @model_validator(mode="after")
    def _one_kind(self) -> Span:
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("give low and high, or choices, not both")
            if len(set(map(repr, self.choices))) < len(self.choices):
                raise ValueError("each of choices must stand once")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low must lie under high, and {self.low} does not lie under {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low over 0, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together")
        return self

    def distribution(self, whole: bool) -> BaseDistribution:
        """As optuna takes it; `whole` for a key that holds whole numbers."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.low is None or self.high is None:
            return CategoricalDistribution(self.choices or ())
        if whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


class SweepConfig(Config):
    """One sweep; `load_sweep` reads it together with its run."""

    run: str = Field(description="the run that trials start from, relative to the sweep's file")
    trials: int = Field(ge=1, description="trials that are wanted, failed ones included")
    seed: int = Field(0, ge=0, description="what is tried follows from it and from the trials before")
    metric: Metric = Field("eval_partial_roc_auc", description="what is to be high on the validation split")
    fixed: dict[str, Any] = Field({}, description="dotted keys that differ from the run in every trial")
    keys: dict[str, Span] = Field(min_length=1, description="dotted keys that are tried")

    def distributions(self) -> dict[str, BaseDistribution]:
        """All keys, as optuna takes them."""
        return {name: span.distribution(_type_of(name) in (int, int | None)) for name, span in self.keys.items()}


def load_sweep(path: Path) -> tuple[SweepConfig, RunConfig]:
    """A sweep from a YAML file, and the run that it starts from.

    Raises:
        ConfigError: the file or its run cannot be used; all faults are listed with their dotted names.
    """
    content = read_yaml(path)
    content = {} if content is None else content
    faults = _faults_of_keys(content) if isinstance(content, dict) else []
    try:
        sweep = SweepConfig.model_validate(content)
    except ValidationError as error:
        faults += [f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors()]
    run = None
    if isinstance(content, dict) and isinstance(content.get("run"), str):
        try:
            run = load_run(path.parent / content["run"])
        except ConfigError as error:
            faults.append(f"run: {error}")
    if faults or run is None:
        raise ConfigError(f"{path}: {len(faults)} fault(s)\n" + "\n".join(f"  {fault}" for fault in faults))
    return sweep, run


def nested(name: str, value: Any) -> dict[str, Any]:
    """`fit.epochs` and 1 as `{"fit": {"epochs": 1}}`."""
    first, _, rest = name.partition(".")
    return {first: nested(rest, value) if rest else value}


def trial_config(run: RunConfig, *changes: Mapping[str, Any]) -> RunConfig:
    """The run with dotted keys replaced, later changes over earlier ones.

    Raises:
        ValidationError: the keys do not go together.
    """
    content = run.model_dump()
    for change in changes:
        for name, value in change.items():
            content = merge(content, nested(name, value))
    return RunConfig.model_validate(content)


def _faults_of_keys(content: dict[str, Any]) -> list[str]:
    """Dotted names that a run does not have, and values that it does not take, in a file as it was read."""
    faults = []
    fixed, keys = (part if isinstance(part, dict) else {} for part in (content.get("fixed"), content.get("keys")))
    for name, value in fixed.items():
        faults += [f"fixed.{name}: {fault}" for fault in _faults_of(str(name), [value])]
    for name, span in keys.items():
        if name in fixed:
            faults.append(f"keys.{name}: stands under fixed too")
        span = span if isinstance(span, dict) else {}
        ends = [span[end] for end in ("low", "high") if end in span]
        choices = span["choices"] if isinstance(span.get("choices"), list) else []
        faults += [f"keys.{name}: {fault}" for fault in _faults_of(str(name), [*ends, *choices])]
    return faults


def _faults_of(name: str, values: list[Any]) -> list[str]:
    section = name.partition(".")[0]
    if section in _NO_EFFECT:
        return [_NO_EFFECT[section]]
    if _type_of(name) is None:
        return ["is no key of a run (see configs/default.yaml)"]
    path = tuple(name.split("."))
    faults = []
    for value in values:
        try:
            RunConfig.model_validate(nested(name, value))
        except ValidationError as error:
            # The rest of the run is missing here, and keys are judged together in each trial alone.
            mine = [fault["msg"] for fault in error.errors() if fault["loc"][: len(path)] == path]
            faults += [f"{value!r}: {message}" for message in mine]
    return faults


def _type_of(name: str) -> Any:
    """The type of a key of `RunConfig`; None where it has no such key, or a whole section is named so."""
    kind: Any = RunConfig
    for part in name.split("."):
        if not _is_section(kind) or part not in kind.model_fields:
            return None
        kind = kind.model_fields[part].annotation
    return None if _is_section(kind) else kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)
