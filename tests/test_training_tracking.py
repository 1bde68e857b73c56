"""Trackers are told of a run for real, and hear no prompt."""

import os
import sqlite3
import subprocess
import sys

import pytest
import yaml

from data.config import ConfigError
from training.config import TrackingConfig
from training.tracking import trackers

from .conftest import ROOT, labelled_rows


def short(run_config, *names):
    fit = run_config.fit.model_copy(update={"epochs": 1, "max_prompts": 160, "evaluations": 1})
    return run_config.model_copy(update={"fit": fit, "tracking": TrackingConfig(report_to=names, name="one")})


def test_tensorboard_and_trackio_hear_the_run(run_config, tmp_path):
    pytest.importorskip("trackio", reason="the extra `tracking` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # In a process of its own, since trackio reads where to write when it is imported.
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(short(run_config, "tensorboard", "trackio").model_dump(mode="json"))
    )
    command = [sys.executable, "-m", "training", "train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "model")]
    told = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    result = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    logs = tmp_path / "model.tensorboard"
    events = EventAccumulator(str(logs)).Reload()
    assert {"train/loss", "train/learning_rate", "eval/partial_roc_auc"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [10]
    databases = list((tmp_path / "trackio").rglob("promptassay.db"))
    assert len(databases) == 1
    with sqlite3.connect(databases[0]) as database:
        stored = database.execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in stored} == {"one"} and any("partial_roc_auc" in str(row) for _, row in stored)
    told = b"".join(
        path.read_bytes() for place in (logs, tmp_path / "trackio") for path in place.rglob("*") if path.is_file()
    )
    texts = [row["text"] for row in labelled_rows() if "text" in row]
    assert not any(text[:40].encode() in told for text in texts)


def test_a_tracker_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(ConfigError, match="tracking.report_to: wandb not installed"):
        trackers(TrackingConfig(report_to=("wandb",)), tmp_path)
    assert trackers(TrackingConfig(), tmp_path) == []
