"""A sweep over a tiny real model: end to end, killed and gone on with, refused where it should be."""

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import yaml

from data.config import ConfigError
from training.config import load_run
from training.tuning.sweep import SweepError, sweep
from training.tuning.sweep_config import load_sweep, trial_config
from training.tuning.sweep_report import write_report

from .conftest import ROOT

pytest.importorskip("optuna")

FILES = {"study.db", "trials.md", "trials.json", "best.yaml"}
KEYS = {
    "fit.learning_rate": {"low": 1e-3, "high": 2e-2, "log": True},
    "fit.prompts_per_step": {"choices": [4, 8]},
    "loss.label_smoothing": {"low": 0, "high": 0.1},
}
FIXED = {"fit.epochs": 1, "fit.max_prompts": 160, "fit.checkpoint_steps": 8}


@pytest.fixture
def write_sweep(tmp_path, run_config):
    """Writes the run and a sweep over it; returns the sweep's file."""

    def write(**changes):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run_config.model_dump(mode="json")))
        content = {"run": "run.yaml", "trials": 3, "seed": 1, "fixed": FIXED, "keys": KEYS} | changes
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run_config):
    """A sweep of three trials that nothing disturbed: its folder and its report."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "run.yaml").write_text(yaml.safe_dump(run_config.model_dump(mode="json")))
    content = {"run": "run.yaml", "trials": 3, "seed": 1, "fixed": FIXED, "keys": KEYS}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return folder / "out", sweep(folder / "sweep.yaml", folder / "out")


def done(out):
    """Keys and values of the trials that were not killed, in the order in which they were tried."""
    trials = sorted(json.loads((out / "trials.json").read_text())["trials"], key=lambda trial: trial["trial"])
    return [(trial["keys"], trial["metrics"]) for trial in trials if trial["state"] != "killed"]


def test_end_to_end(whole, run_config):
    out, report = whole
    assert {path.name for path in out.iterdir()} == FILES
    assert (out / "trials.md").read_text() == report + "\n"
    content = json.loads((out / "trials.json").read_text())
    trials = content["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    assert [trial["value"] for trial in trials] == sorted((trial["value"] for trial in trials), reverse=True)
    for trial in trials:
        assert set(trial["keys"]) == set(KEYS)
        assert trial["value"] == trial["metrics"]["eval_partial_roc_auc"] and trial["minutes"] >= 0
        assert set(trial["metrics"]) == {
            "eval_partial_roc_auc", "eval_roc_auc", "eval_recall_at_fpr_5pct", "eval_recall_at_fpr_1pct",
        }  # fmt: skip
    assert content["importance"] == {}  # too few trials to say
    lines = report.splitlines()
    assert len(lines) == 5 and all(name in lines[0] for name in ("trial", "eval_partial_roc_auc", *KEYS, "minutes"))


def test_the_best_is_a_run_without_what_was_fixed(whole, run_config):
    out, _ = whole
    first, second = (out / "best.yaml").read_text().splitlines()[::2][:2]
    assert first == f"# python -m training train {out / 'best.yaml'} --out DIR" and second.startswith("# Trial ")
    best = json.loads((out / "trials.json").read_text())["trials"][0]["keys"]
    content = run_config.model_dump(mode="json")
    for name, value in best.items():
        section, key = name.split(".")
        content[section][key] = value
    assert load_run(out / "best.yaml").model_dump(mode="json") == content  # epochs and max_prompts are the run's own


def test_a_sweep_goes_on_where_it_ended_and_tries_the_same(whole, write_sweep, tmp_path, capsys):
    out = tmp_path / "out"
    sweep(write_sweep(trials=2), out)
    assert len(done(out)) == 2
    capsys.readouterr()
    sweep(write_sweep(trials=3), out)
    said = capsys.readouterr().out
    assert "trial 2: fit.learning_rate" in said and "trial 1:" not in said
    assert done(out) == done(whole[0])
    sweep(write_sweep(trials=3), out)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_killed_for_real_and_gone_on_with(whole, write_sweep, tmp_path, capsys):
    """SIGKILL in the middle of the second trial; it goes on from its checkpoint and no trial is lost."""
    path, out = write_sweep(), tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from training.tuning.sweep import sweep; sweep(*map(Path, sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(out)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(out.glob("trial-1.run/checkpoint-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (out / "trial-1.run").exists() and not (out / "trials.md").exists()
    (out / "trial-0.run").mkdir(exist_ok=True)  # as if an earlier kill had come before the tidying up

    report = sweep(path, out)
    assert "going on from checkpoint-" in capsys.readouterr().out
    assert {place.name for place in out.iterdir()} == FILES
    assert done(out) == done(whole[0])
    killed = report.splitlines()[-1]
    assert "| killed " in killed and "tried again as trial 2" in killed


def test_kills_at_the_worst_moments(whole, write_sweep, tmp_path):
    """Between the queueing of a killed trial and its closing, and again before its values are suggested."""
    import optuna
    from optuna.trial import TrialState

    path, out = write_sweep(trials=1), tmp_path / "out"
    sweep(path, out)
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{out / 'study.db'}")
    study.sampler = optuna.samplers.TPESampler(seed=2)
    study.ask(load_sweep(path)[0].distributions())
    params = study.trials[1].params
    study.enqueue_trial(params, user_attrs={"again": 1, "params": params})
    sweep(path, out)  # closes trial 1, and wants no more
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    study.ask()  # trial 2 runs, without any value yet
    sweep(write_sweep(trials=2), out)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert done(out) == done(whole[0])[:2]


def test_all_faults_at_once(write_sweep, tmp_path):
    path = write_sweep(
        trials=0,
        metric="eval_loss",
        run="other.yaml",
        pruner="median",
        fixed={"fit.epoch": 1, "fit.max_prompts": "many", "windows": {"size": 64}, "tracking.name": "x"},
        keys={
            "fit.learning_rat": {"low": 1e-4, "high": 1e-3},
            "fit.learning_rate": {"low": 0.0, "high": 1e-3, "log": True},
            "fit.warmup": {"low": 0.2, "high": 0.1},
            "fit.dropout": {"low": 0.0, "high": 1.5},
            "fit.epochs": {"low": 1.5, "high": 3},
            "fit.clip": {"low": 1.0},
            "fit.patience": {"low": 1, "high": 3, "choices": [1, 2]},
            "fit.schedule": {"choices": ["linear", "step"]},
            "fit.max_prompts": {"choices": [100, 200]},
            "calibration.method": {"choices": ["platt", "temperature"]},
            "seed": {"low": 0, "high": 8, "log": True},
        },
    )
    with pytest.raises(ConfigError) as caught:
        sweep(path, tmp_path / "out")
    error = str(caught.value)
    for fault in (
        "fixed.fit.epoch: is no key of a run",
        "fixed.fit.max_prompts: 'many': Input should be a valid integer",
        "fixed.windows: is no key of a run",
        "fixed.tracking.name: no tracker hears",
        "keys.fit.learning_rat: is no key of a run",
        "keys.fit.learning_rate: 0.0: Input should be greater than 0",
        "keys.fit.learning_rate: Value error, log needs low over 0, not 0.0",
        "keys.fit.warmup: Value error, low must lie under high, and 0.2 does not lie under 0.1",
        "keys.fit.dropout: 1.5: Input should be less than 1",
        "keys.fit.epochs: 1.5: Input should be a valid integer",
        "keys.fit.clip: Value error, give low and high, or choices",
        "keys.fit.patience: Value error, give low and high, or choices, not both",
        "keys.fit.schedule: 'step': Input should be 'linear'",
        "keys.fit.max_prompts: stands under fixed too",
        "keys.calibration.method: nothing is calibrated",
        "keys.seed: Value error, log needs low over 0",
        "trials: Input should be greater than or equal to 1",
        "metric: Input should be 'eval_partial_roc_auc'",
        "pruner: Extra inputs are not permitted",
        "other.yaml: cannot be read",
    ):
        assert f"  {fault}" in error or fault in error.splitlines()[-1]
    assert error.startswith(f"{path}: 20 fault(s)\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "3", "keys: [fit.epochs]", "keys: {3: 4}\nfixed: {5: 6}\nrun: 1"])
def test_a_file_that_is_no_sweep(tmp_path, content):
    (tmp_path / "sweep.yaml").write_text(content)
    with pytest.raises(ConfigError, match="fault"):
        load_sweep(tmp_path / "sweep.yaml")


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_what_cannot_be_run_is_reported_and_the_sweep_goes_on(write_sweep, tmp_path):
    keys = {
        "windows.size": {"choices": [64, 512]},  # 512 is over fit.tokens_per_prompt
        "fit.prompts_per_step": {"choices": [16, 100_000]},  # more than there are
        "fit.learning_rate": {"choices": [0.005, 1e30]},  # the loss becomes infinite
    }
    out = tmp_path / "out"
    report = sweep(write_sweep(keys=keys, trials=14, seed=0, fixed=FIXED | {"fit.max_prompts": 64}), out)
    trials = json.loads((out / "trials.json").read_text())["trials"]
    assert len(trials) == 14
    for trial in trials:
        bad = [
            expected
            for name, value, expected in (
                ("windows.size", 512, "windows.size is over fit.tokens_per_prompt"),
                ("fit.prompts_per_step", 100_000, "a step reads 100000"),
                ("fit.learning_rate", 1e30, "lower fit.learning_rate"),
            )
            if trial["keys"][name] == value
        ]
        assert trial["state"] == ("failed" if bad else "complete")
        if bad:
            assert bad[0] in trial["reason"] and trial["value"] is None
    reasons = " ".join(trial["reason"] or "" for trial in trials)
    assert all(part in reasons for part in ("windows.size is over", "a step reads", "lower fit.learning_rate"))
    assert trials[0]["state"] == "complete" and "| failed " in report
    assert {path.name for path in out.iterdir()} == FILES


def test_not_one_trial_completed(write_sweep, tmp_path):
    path = write_sweep(keys={"windows.size": {"choices": [512, 1024]}}, trials=2)
    with pytest.raises(SweepError, match=r"not one trial could be completed; .*trials.md says why"):
        sweep(path, tmp_path / "out")
    assert {place.name for place in (tmp_path / "out").iterdir()} == FILES - {"best.yaml"}
    assert "windows.size is over" in (tmp_path / "out" / "trials.md").read_text()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"keys": KEYS | {"fit.warmup": {"low": 0.0, "high": 0.2}}}, "keys"),
        ({"fixed": FIXED | {"fit.max_prompts": 100}}, "fixed"),
        ({"metric": "eval_roc_auc", "seed": 2}, "seed, metric"),
    ],
)
def test_another_sweep_is_refused(whole, write_sweep, change, named):
    out, _ = whole
    with pytest.raises(SweepError, match=f"holds a sweep with other {named}; name another folder"):
        sweep(write_sweep(**change), out)


def test_another_run_or_other_data_is_refused(whole, write_sweep, run_config, built, tmp_path):
    out, _ = whole
    path = write_sweep()
    same = shutil.copytree(built, tmp_path / "same")
    sweep(path, out, same)  # the same data elsewhere
    manifest = json.loads((same / "manifest.json").read_text())
    (same / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "other"}))
    with pytest.raises(SweepError, match="with other data;"):
        sweep(path, out, same)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run_config.model_dump(mode="json") | {"seed": 5}))
    with pytest.raises(SweepError, match="with other run;"):
        sweep(path, out)


def test_optuna_is_an_extra(write_sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("training.tuning.sweep.find_spec", lambda name: None)
    with pytest.raises(SweepError, match=r"pip install 'promptassay\[sweep\]'"):
        sweep(write_sweep(), tmp_path / "out")


def test_importance_is_told_of_ten_trials(write_sweep, tmp_path):
    import optuna

    settings, run = load_sweep(write_sweep())
    study = optuna.create_study(direction="maximize")
    for number in range(10):
        if number == 9:
            write_report(study, settings, partial(trial_config, run), tmp_path)
            assert json.loads((tmp_path / "trials.json").read_text())["importance"] == {}
        params = {"fit.learning_rate": 0.001 * (number + 1), "fit.prompts_per_step": 8, "loss.label_smoothing": 0.05}
        distributions = settings.distributions()
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=number / 10))
    report = write_report(study, settings, partial(trial_config, run), tmp_path)
    importance = json.loads((tmp_path / "trials.json").read_text())["importance"]
    assert set(importance) == set(KEYS) and sum(importance.values()) == pytest.approx(1)
    assert next(iter(importance)) == "fit.learning_rate"
    assert report.splitlines()[-5].startswith("| key ") and report.splitlines()[-3].startswith("| fit.learning_rate")


def test_the_shipped_sweep_loads():
    from optuna.distributions import FloatDistribution, IntDistribution

    path = ROOT / "configs" / "sweep.yaml"
    assert path.read_text().startswith("# python -m training sweep configs/sweep.yaml ")
    settings, run = load_sweep(path)
    assert run == load_run(ROOT / "configs" / "default.yaml")
    distributions = settings.distributions()
    assert distributions["encoder.keep_layers"] == IntDistribution(3, 6)
    assert distributions["fit.learning_rate"] == FloatDistribution(5e-5, 1e-3, log=True)


def test_whole_bounds_of_a_key_that_takes_fractions(write_sweep):
    from optuna.distributions import FloatDistribution

    settings, _ = load_sweep(write_sweep(keys={"loss.class_balance": {"low": 0, "high": 1}}))
    assert settings.distributions() == {"loss.class_balance": FloatDistribution(0.0, 1.0)}
