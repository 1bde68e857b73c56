"""A run that is killed at any moment goes on and ends in the very same artefact."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from .conftest import ROOT

FILES = ("model.safetensors", "assay.json", "history.json", "README.md")
MOMENTS = {
    "while the first checkpoint is written": "checkpoints/writing",
    "after a checkpoint": "checkpoints/checkpoint-12",
    "while it is calibrated": "draft",
    "while it is measured": "artefact/assay.json",
}


@pytest.fixture(scope="module")
def run_file(run_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    content = run_config.model_dump(mode="json")
    content["fit"] |= {"checkpoint_steps": 6, "evaluations": 3, "dropout": 0.1}  # so that random states count too
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


def start(run_file, out):
    command = [sys.executable, "-m", "training", "train", str(run_file), "--out", str(out), "--resume"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def whole(run_file):
    """The run that nobody killed."""
    out = run_file.parent / "whole"
    finish(start(run_file, out))
    assert not out.with_name("whole.run").exists()
    return out


def kill_when(process, place):
    """SIGKILL as soon as `place` is there."""
    deadline = time.monotonic() + 120
    while not place.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def assert_same(out, whole):
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert not out.with_name(out.name + ".run").exists()


def test_a_killed_run_ends_in_the_same_artefact(run_file, whole):
    out = run_file.parent / "killed"
    process = start(run_file, out)
    kill_when(process, out.with_name("killed.run") / "checkpoints" / "checkpoint-12")
    assert not out.exists()
    output = finish(start(run_file, out))
    assert "going on from checkpoint-" in output
    assert_same(out, whole)
    assert "complete already" in finish(start(run_file, out))


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again(run_file, whole):
    out = run_file.parent / "often"
    for place in MOMENTS.values():
        kill_when(start(run_file, out), out.with_name("often.run") / place)
        assert not out.exists()
    finish(start(run_file, out))
    assert_same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [6, 9, 10, 11, 12, 13])
def test_a_run_that_is_killed_by_the_clock(run_file, whole, seconds):
    out = run_file.parent / f"clock-{seconds}"
    process = start(run_file, out)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    finish(start(run_file, out))
    assert_same(out, whole)


def test_the_history_holds_what_repeats(whole):
    history = json.loads((whole / "history.json").read_text())
    keys = {key for entry in history for key in entry}
    assert {"loss", "learning_rate", "grad_norm", "epoch", "step", "eval_partial_roc_auc"} <= keys
    assert not [key for key in keys if "runtime" in key or "per_second" in key]
