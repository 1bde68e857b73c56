"""Hyper-parameters: optuna tries values of named keys of a run, in a study that lies in a file and can be resumed."""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from ..config import RunConfig
from ..encode import DataError
from ..encoders import EncoderError
from ..finetune import Splits, fine_tune, read_splits
from ..model import FitError
from ..runs import identity
from .sweep_config import METRICS, SweepConfig, load_sweep, trial_config
from .sweep_report import AGAIN, PARAMS, REASON, cell, write_report

if TYPE_CHECKING:
    import optuna

STUDY_FILE = "study.db"
_IDENTITY = "sweep"
_SPLITS_KEPT = 3


class SweepError(ValueError):
    """A sweep that cannot start, or go on; the message says why and what to do."""


class TrialError(ValueError):
    """A trial that cannot be run; the sweep goes on without it."""


def sweep(path: Path, out: Path, data: Path | None = None) -> str:
    """Try configurations until as many trials are done as the file wants; what is done already is not done again.

    One process works on a study at a time: a trial that is under way when a sweep starts is taken for a killed one.

    Args:
        path: the sweep, such as `configs/sweep.yaml`.
        out: gets `study.db` (optuna's), `trials.md`, `trials.json`, and `best.yaml` once a trial was completed.
        data: a built folder in place of the one that the run names.

    Returns:
        The report: a Markdown table of the trials, best first.

    Raises:
        ConfigError: the file or the run has faults; all are listed.
        DataError: there is no built data.
        SweepError: optuna is missing, another sweep stands in `out`, or not one trial could be completed.
    """
    settings, run = load_sweep(path)
    if find_spec("optuna") is None:
        raise SweepError("a sweep needs optuna, which is not installed; run: pip install 'promptassay[sweep]'")
    import optuna

    folder = data or Path(run.data)
    run = run.model_copy(update={"data": str(folder)})
    fingerprint = identity(run, folder)["data_fingerprint"]
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # SQLite and not optuna's journal: after a kill it takes a half-written change back, where a half-written line
    # would spoil the journal for good.
    storage = optuna.storages.RDBStorage(f"sqlite:///{(out / STUDY_FILE).absolute()}")
    try:
        study = optuna.create_study(study_name="sweep", storage=storage, direction="maximize", load_if_exists=True)
        _check_same(study, _identity(settings, run, fingerprint), out)
        _take_up_killed(study, out)
        cutter = _Cutter(folder)
        while (done := _done(study)) < settings.trials:
            # A sampler for each trial, so that a resumed study tries what an undisturbed one would have tried.
            study.sampler = optuna.samplers.TPESampler(seed=settings.seed + done)
            _try_one(study, settings, run, cutter, out)
        report = write_report(study, settings, functools.partial(trial_config, run), out)
        if not study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]):
            raise SweepError(f"not one trial could be completed; {out / 'trials.md'} says why")
        return report
    finally:
        storage.engine.dispose()


# ---- the study ----


def _identity(settings: SweepConfig, run: RunConfig, data_fingerprint: str) -> dict[str, Any]:
    """What makes two sweeps the same; `trials` is not part of it, so that a study can be made longer."""
    content = settings.model_dump(mode="json", exclude={"trials", "run"})
    return content | {"run": run.model_dump(mode="json", exclude={"data"}), "data": data_fingerprint}


def _check_same(study: optuna.Study, this: Mapping[str, Any], out: Path) -> None:
    before = study.user_attrs.get(_IDENTITY)
    if before is None:
        study.set_user_attr(_IDENTITY, this)
    elif changed := [name for name, value in this.items() if before.get(name) != value]:
        raise SweepError(f"{out}: holds a sweep with other {', '.join(changed)}; name another folder")


def _take_up_killed(study: optuna.Study, out: Path) -> None:
    """Close the trials that a kill left running and queue their values again; each step bears another kill."""
    from optuna.trial import TrialState

    waiting = {trial.user_attrs.get(AGAIN) for trial in study.get_trials(deepcopy=False, states=[TrialState.WAITING])}
    kept = {f"trial-{number}.run" for number in waiting}
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        first = trial.user_attrs.get(AGAIN, trial.number)
        kept.add(f"trial-{first}.run")
        if first not in waiting:
            # The values stand in the attributes too: a kill may come before they are all suggested again.
            params = trial.user_attrs.get(PARAMS, trial.params)
            study.enqueue_trial(params, user_attrs={AGAIN: first, PARAMS: params})
        study.tell(trial.number, state=TrialState.FAIL)
    for place in out.glob("trial-*.run"):
        if place.name not in kept:  # the kill came between the end of a trial and its tidying up
            shutil.rmtree(place)


def _done(study: optuna.Study) -> int:
    """Trials that need not be run again."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]))


# ---- a trial ----


class _Cutter:
    """Splits cut into windows, not cut again for a trial that differs in other keys alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cut: dict[Any, Splits] = {}

    def __call__(self, config: RunConfig) -> Splits:
        fit = config.fit
        key = (config.encoder, config.windows, config.labels, fit.max_prompts, fit.flatten_chats, config.seed)
        if key not in self._cut:
            if len(self._cut) == _SPLITS_KEPT:
                del self._cut[next(iter(self._cut))]
            self._cut[key] = read_splits(config, self._folder)
        return self._cut[key]


def _try_one(study: optuna.Study, settings: SweepConfig, run: RunConfig, cutter: _Cutter, out: Path) -> None:
    from optuna.trial import TrialState

    trial = study.ask(settings.distributions())
    # A trial that is tried again goes on from the checkpoint of the one that was killed.
    work = out / f"trial-{trial.user_attrs.get(AGAIN, trial.number)}.run"
    print(f"trial {trial.number}: {_shown(trial.params)}", flush=True)
    try:
        measured = _measure(settings, run, trial.params, cutter, work)
    except (DataError, EncoderError, FitError, TrialError, torch.OutOfMemoryError) as error:
        trial.set_user_attr(REASON, str(error))
        # To optuna it is a pruned trial and not a failed one, so that the sampler learns to keep away from its values.
        study.tell(trial, state=TrialState.PRUNED)
        print(f"trial {trial.number}: failed: {error}", flush=True)
    else:
        for name, value in measured.items():
            trial.set_user_attr(name, value)
        study.tell(trial, measured[settings.metric])
        best = study.best_trial
        print(
            f"trial {trial.number}: {settings.metric} {measured[settings.metric]:.4f}; "
            f"best {best.value:.4f}, trial {best.number} ({_done(study)} of {settings.trials} done)",
            flush=True,
        )
    shutil.rmtree(work, ignore_errors=True)


def _measure(
    settings: SweepConfig, run: RunConfig, params: Mapping[str, Any], cutter: _Cutter, work: Path
) -> dict[str, float]:
    """The validation metrics at the look that the sweep's metric likes best."""
    try:
        trial_config(run, params)  # what cannot be trained in full need not be tried
        config = trial_config(run, settings.fixed, params)
    except ValidationError as error:
        faults = [fault["msg"].removeprefix("Value error, ") for fault in error.errors()]
        raise TrialError("; ".join(faults)) from error
    history = fine_tune(config, cutter(config), work).history
    looks = [look for look in history if math.isfinite(look.get(settings.metric, math.nan))]
    if not looks:
        raise TrialError(f"{settings.metric} is no number: the validation split needs organic and other prompts")
    best = max(looks, key=lambda look: look[settings.metric])
    return {name: float(best[name]) for name in METRICS if math.isfinite(best.get(name, math.nan))}


def _shown(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {cell(value)}" for name, value in params.items())
