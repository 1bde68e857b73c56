"""What a sweep leaves for people: its trials as a table and as JSON, and the best of them as a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from data.summary import markdown_table
from inference.artefact import write_text

from ..config import RunConfig
from .sweep_config import METRICS, SweepConfig

if TYPE_CHECKING:
    import optuna

AGAIN = "again"
"""Attribute of a trial: the number of the killed one whose values it tries again."""
PARAMS = "params"
REASON = "reason"
_STATES = {"COMPLETE": "complete", "PRUNED": "failed", "FAIL": "killed"}
_FOR_IMPORTANCE = 10


def write_report(
    study: optuna.Study, settings: SweepConfig, config_of: Callable[[Mapping[str, Any]], RunConfig], out: Path
) -> str:
    """Write `trials.md`, `trials.json` and, where a trial was completed, `best.yaml`.

    Returns:
        What `trials.md` holds.
    """
    trials = _rows(study, settings)
    importance = _importance(study)
    table = _tables(trials, importance, settings)
    write_text(out / "trials.md", table + "\n")
    content = {"metric": settings.metric, "trials": trials, "importance": importance}
    write_text(out / "trials.json", json.dumps(content, indent=2) + "\n")
    if trials and trials[0]["state"] == "complete":
        write_text(out / "best.yaml", _best(trials[0], config_of(trials[0]["keys"]), settings, out))
    return table


def _rows(study: optuna.Study, settings: SweepConfig) -> list[dict[str, Any]]:
    """The trials, best first, then those that failed, then those that a kill cut short."""
    again = {trial.user_attrs[AGAIN]: trial.number for trial in study.trials if AGAIN in trial.user_attrs}
    rows = []
    for trial in study.trials:
        if trial.state.name not in _STATES:  # queued, and no more trials are wanted
            continue
        first = trial.user_attrs.get(AGAIN, trial.number)
        state = _STATES[trial.state.name]
        minutes = trial.duration.total_seconds() / 60 if trial.duration and state != "killed" else None
        rows.append(
            {
                "trial": trial.number,
                "state": state,
                "value": trial.value if state == "complete" else None,
                "keys": {name: trial.params[name] for name in settings.keys if name in trial.params},
                "metrics": {name: trial.user_attrs[name] for name in METRICS if name in trial.user_attrs},
                "minutes": None if minutes is None else round(minutes, 2),
                "reason": f"tried again as trial {again[first]}" if state == "killed" else trial.user_attrs.get(REASON),
            }
        )
    order = list(_STATES.values())
    return sorted(rows, key=lambda row: (order.index(row["state"]), -(row["value"] or 0), row["trial"]))


def _importance(study: optuna.Study) -> dict[str, float]:
    """How much each key matters to a good value (PED-ANOVA, Watanabe et al. 2023); empty where trials are few."""
    import optuna

    complete = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    return optuna.importance.get_param_importances(study) if len(complete) >= _FOR_IMPORTANCE else {}


def _tables(trials: list[dict[str, Any]], importance: Mapping[str, float], settings: SweepConfig) -> str:
    header = ["trial", settings.metric, *settings.keys, "state", "minutes", "reason"]
    rows = [
        [
            row["trial"],
            cell(row["value"]),
            *(cell(row["keys"].get(name)) for name in settings.keys),
            row["state"],
            cell(row["minutes"]),
            (row["reason"] or "").replace("|", "\\|").replace("\n", " "),
        ]
        for row in trials
    ]
    table = markdown_table(header, rows)
    if importance:
        shares = [[name, f"{share:.2f}"] for name, share in importance.items()]
        table += "\n\n" + markdown_table(["key", "importance"], shares)
    return table


def cell(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _best(row: Mapping[str, Any], config: RunConfig, settings: SweepConfig, out: Path) -> str:
    content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return (
        f"# python -m training train {out / 'best.yaml'} --out DIR\n#\n"
        f"# Trial {row['trial']} was the best, with {settings.metric} {row['value']:.4f}. What the sweep fixed to make "
        f"trials cheap is left out.\n{content}"
    )
