"""Several processes under `accelerate launch` give what one gives."""

import json
import subprocess
import sys

import pytest
import yaml

from .conftest import ROOT

TOLERANCE = 0.01
"""Sums run in another order over two processes, so weights differ in their last digits, and metrics by hardly any
prompt that changes places."""


def launch(run_file, out, *options):
    # --multi_gpu starts processes by torchrun; without a GPU they meet on the CPU, where --cpu would start one alone.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", *options]
    command += ["-m", "training", "train", str(run_file), "--out", str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def run_file_of(run_config, folder, **changes):
    content = run_config.model_dump(mode="json")
    for section, values in changes.items():
        content[section] |= values
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_two_processes_give_the_metrics_of_one(run_config, artefact, tmp_path):
    result = launch(run_file_of(run_config, tmp_path), tmp_path / "model")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("written:") == 1  # one of them speaks
    assert "2 processes" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run.yaml"]
    one, two = (json.loads((folder / "assay.json").read_text()) for folder in (artefact, tmp_path / "model"))
    assert one["provenance"]["config"] == two["provenance"]["config"]
    for section, metrics in one["metrics"].items():
        for name, estimate in metrics.items():
            other = two["metrics"][section][name]
            assert other["n"] == estimate["n"]
            if estimate["value"] is not None:
                assert other["value"] == pytest.approx(estimate["value"], abs=TOLERANCE), (section, name)
    losses = [
        [entry["loss"] for entry in json.loads((folder / "history.json").read_text()) if "loss" in entry]
        for folder in (artefact, tmp_path / "model")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_a_step_that_cannot_be_shared_is_refused(run_config, tmp_path):
    result = launch(run_file_of(run_config, tmp_path, fit={"prompts_per_step": 15}), tmp_path / "model")
    assert result.returncode != 0 and not (tmp_path / "model").exists()
    assert "fit.prompts_per_step is 15, which 2 processes cannot share alike; take a multiple of 2" in result.stderr
