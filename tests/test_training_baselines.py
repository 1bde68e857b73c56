"""Baselines: what they see, what they are never trained on, and how they are held against an artefact."""

import json
import shutil

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from data.records import CATEGORIES, Record
from inference.decision import DISTILLATION, Prediction
from inference.windows import Windower
from training.__main__ import main
from training.encode import DataError, label_row, load_split, records_of
from training.evaluation.baselines import (
    Baseline,
    baseline_sections,
    compare_with_baselines,
    train_baselines,
)
from training.evaluation.frozen import FrozenEncoder
from training.evaluation.labelled import Measured
from training.metrics.ranking import Ranking

NAMES = [
    "length and language",
    "TF-IDF words",
    "TF-IDF characters",
    "hashed n-grams (fastText-like)",
    "frozen encoder, linear probe",
]


@pytest.fixture(scope="module")
def train(built):
    return records_of(load_split(built, "train"))


@pytest.fixture(scope="module")
def test(built):
    return records_of(load_split(built, "test"))


@pytest.fixture(scope="module")
def trained(train, test, run_config):
    return train_baselines(train, test, CATEGORIES, FrozenEncoder(run_config))


def measured_of(records, scores, clusters=None):
    """What an artefact with these probabilities would have said."""
    predictions = [
        Prediction(dict.fromkeys(CATEGORIES, float(p)), float(p), [], False, False, 5, 1, False, (0, 5)) for p in scores
    ]
    labels = np.array([label_row(record.labels, record.judged) for record in records])
    return Measured(list(records), predictions, labels, np.arange(len(records)) if clusters is None else clusters)


def made(n, positive=lambda i: i % 2 == 1, **fields):
    return [
        Record(("capability_sweep",) if positive(i) else (), f"source-{i % 4}", text=f"prompt number {i}", **fields)
        for i in range(n)
    ]


def test_every_baseline_scores_the_records_in_their_order(trained, train, test):
    assert [baseline.name for baseline in trained] == NAMES
    truth = np.array([bool(record.labels) for record in test])
    for baseline in trained:
        assert baseline.scores.shape == (len(test),) and np.isfinite(baseline.scores).all()
        assert baseline.what.endswith(".") and 0 < baseline.scoring_seconds < baseline.seconds
    for baseline in trained[1:]:
        assert Ranking(baseline.scores, truth).roc_auc()[0] > 0.95, baseline.name
    for forwards, backwards in zip(trained, train_baselines(train, test[::-1], CATEGORIES), strict=False):
        np.testing.assert_array_equal(forwards.scores, backwards.scores[::-1])  # and a second training is the same


def test_the_length_baseline_sees_no_words(train, test):
    test = [record for record in test if record.text]
    upside_down = [Record(record.labels, "mirror", text=record.text[::-1], lang=record.lang) for record in test]
    assert [record.rendered for record in upside_down] != [record.rendered for record in test]
    before, after = (train_baselines(train, records, CATEGORIES)[0] for records in (test, upside_down))
    np.testing.assert_array_equal(before.scores, after.scores)
    foreign = [record.changed(lang="tlh") for record in test] + [record.changed(lang=None) for record in test]
    assert np.isfinite(train_baselines(train, foreign, CATEGORIES)[0].scores).all()


def test_a_frozen_prompt_is_the_mean_over_the_tokens_of_all_its_windows(run_config, encoder, test):
    frozen = FrozenEncoder(run_config)
    longest = max(test, key=lambda record: len(record.rendered))
    some = [*test[:40], longest]
    means = frozen(some)
    network = AutoModel.from_pretrained(encoder).eval()
    windower = Windower(Tokenizer.from_file(str(encoder / "tokenizer.json")), run_config.windows.spec())
    assert len(windower([longest.rendered])[0].ids) > 2
    for record, mean in zip(some, means, strict=True):
        windows = windower([record.rendered])[0].ids
        with torch.inference_mode():
            states = [network(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in windows]
        np.testing.assert_allclose(mean, torch.cat(states).mean(dim=0).numpy(), atol=1e-5)
    np.testing.assert_allclose(frozen(some[::-1]), means[::-1], atol=1e-5)


def test_the_probe_has_the_layers_that_the_run_keeps(run_config, test):
    cut = run_config.encoder.model_copy(update={"keep_layers": 1, "mean_layer": True})
    shallow = FrozenEncoder(run_config.model_copy(update={"encoder": cut}))
    assert shallow.layers == 1
    assert not np.allclose(shallow(test[:3]), FrozenEncoder(run_config)(test[:3]))


def test_what_is_measured_is_never_trained_on(train, test, capsys):
    clean = train_baselines(train, test, CATEGORIES)
    assert "left out" not in capsys.readouterr().err
    # The same prompts with wrong labels, told apart by case and spacing alone, would ruin the scores.
    wrong = [
        Record(() if record.labels else ("capability_sweep",), "wrong", text=f"  {record.text.upper()} ")
        for record in test
        if record.text
    ]
    leaked = train_baselines([*train, *wrong], test, CATEGORIES)
    assert f"{len(wrong):,} of {len(train) + len(wrong):,} prompts" in capsys.readouterr().err
    for before, after in zip(clean, leaked, strict=True):
        np.testing.assert_array_equal(before.scores, after.scores)
    with pytest.raises(DataError, match="0 positive and 0 organic"):
        train_baselines(test, test, CATEGORIES)


def test_doubtful_records_weigh_little_and_unknown_ones_nothing(train, test):
    clean = train_baselines(train, test, CATEGORIES)[1]
    flipped = [
        Record((), record.source, text=f"{record.rendered} again", lang="en", weight=1e-9, judged=CATEGORIES)
        for record in train
        if record.labels
    ]
    truth = np.array([bool(record.labels) for record in test])
    light = train_baselines([*train, *flipped], test, CATEGORIES)[1]
    heavy = train_baselines([*train, *(x.changed(weight=1.0) for x in flipped)], test, CATEGORIES)[1]
    areas = [Ranking(found.scores, truth).roc_auc()[0] for found in (clean, light, heavy)]
    assert areas[0] - areas[1] < 0.01 and (heavy.scores[truth].mean() < light.scores[truth].mean() - 1)
    unknown = [record.changed(labels=(), judged=("censorship_probing",)) for record in flipped]
    for before, after in zip(
        train_baselines(train, test, CATEGORIES), train_baselines([*train, *unknown], test, CATEGORIES), strict=True
    ):
        np.testing.assert_array_equal(before.scores, after.scores)


def test_the_folder_to_train_on(built, labelled, artefact, test, tmp_path):
    measured = measured_of(test, np.linspace(0, 1, len(test)))
    named = compare_with_baselines(built, ["x.jsonl"], artefact, measured)
    found = compare_with_baselines(type(built)(), ["x.jsonl", str(built)], artefact, measured)
    assert [baseline.name for baseline in found] == NAMES
    for a, b in zip(named, found, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
    with pytest.raises(DataError, match="none of .* is a built folder .*--baselines DIR"):
        compare_with_baselines(type(built)(), [str(labelled)], artefact, measured)
    with pytest.raises(DataError, match="missing; build the data"):
        compare_with_baselines(tmp_path, [], artefact, measured)


@pytest.mark.parametrize("lost", ["run.yaml", "encoder"])
def test_without_its_encoder_the_probe_is_left_out_visibly(lost, built, artefact, test, tmp_path, capsys):
    model = shutil.copytree(artefact, tmp_path / "model")
    if lost == "run.yaml":
        (model / lost).unlink()
    else:
        text = (model / "run.yaml").read_text()
        path = next(line for line in text.splitlines() if line.startswith("  path:"))
        (model / "run.yaml").write_text(text.replace(path, f"  path: {tmp_path / 'gone'}"))
    found = compare_with_baselines(built, [], model, measured_of(test, np.linspace(0, 1, len(test))))
    assert [baseline.name for baseline in found] == NAMES[:-1]
    assert "note: the linear probe is left out: " in capsys.readouterr().err


def test_a_gain_is_paired():
    rng = np.random.default_rng(0)
    records = made(400)
    truth = np.array([bool(record.labels) for record in records])
    good, poor = truth + rng.normal(0, 0.5, 400), truth + rng.normal(0, 2, 400)
    clusters = np.arange(400) // 4
    measured = measured_of(records, good, clusters)
    same, worse = Baseline("same", "It.", good, 1, 1), Baseline("worse", "It.", poor, 1, 1)
    sections = baseline_sections(measured, [same, worse])
    for name, estimate in sections["baseline same"].items():
        if name.endswith("_gain"):
            assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0), name
    section = sections["baseline worse"]
    for name in ("roc_auc", "recall_at_fpr_5pct", "recall_at_fpr_1pct", "mean_source_recall_at_fpr_1pct"):
        ours, theirs, gain = sections["baseline same"][name], section[name], section[f"{name}_gain"]
        assert ours.value - theirs.value == pytest.approx(gain.value)
        assert gain.low <= gain.value <= gain.high and gain.low > 0
    assert section["recall_at_fpr_0.1pct"].value is None and "200 are there" in section["recall_at_fpr_0.1pct"].note


def test_the_intervals_are_those_of_the_artefacts_own_metrics(classifier):
    from training.evaluation.sections import evaluate_sections

    rng = np.random.default_rng(1)
    records = made(300)
    for record in records[:20]:
        record.extra["ambiguous"] = True
    scores = np.array([bool(record.labels) for record in records]) * 0.3 + rng.random(300) * 0.7
    measured = measured_of(records, scores, np.arange(300) // 3)
    own = evaluate_sections(measured, classifier.assay)[DISTILLATION]
    theirs = baseline_sections(measured, [Baseline("same", "It.", scores, 1, 1)])["baseline same"]
    assert {name: value for name, value in theirs.items() if name in own} == {
        name: own[name] for name in own if name in theirs
    }
    assert {"roc_auc", "average_precision", "recall_at_fpr_5pct", "mean_source_recall_at_fpr_1pct"} <= set(theirs)


def test_one_class_alone_has_no_figures():
    measured = measured_of(made(30, lambda i: False), np.linspace(0, 1, 30))
    section = baseline_sections(measured, [Baseline("any", "It.", np.zeros(30), 1, 1)])["baseline any"]
    assert section["roc_auc"].value is None and "both" in section["roc_auc"].note


def test_evaluate_trains_them_in_the_same_run(artefact, built, tmp_path, capsys):
    out = tmp_path / "evaluation"
    assert main(["evaluate", str(artefact), str(built), "--no-suite", "--baselines", "--out", str(out)]) == 0
    sections = json.loads((out / "metrics.json").read_text())
    assert [name.removeprefix("baseline ") for name in sections if name.startswith("baseline ")] == NAMES
    assert all(name in (out / "report.html").read_text() for name in NAMES)
    assert "TF-IDF words" in capsys.readouterr().out
