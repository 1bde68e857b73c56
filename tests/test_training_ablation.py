"""Configurations side by side, on tiny real runs."""

import json

import numpy as np
import pytest

from data.reading import load_records
from training.__main__ import main
from training.encode import DataError
from training.finetune import fine_tune, read_splits
from training.tuning.ablation import ablate, comparison, headline_of, sample


@pytest.fixture(scope="module")
def records(labelled):
    found, faults = load_records([labelled])
    assert not faults
    return found


def short(run_config, **loss):
    fit = run_config.fit.model_copy(update={"epochs": 1, "max_prompts": 64, "evaluations": 1})
    return run_config.model_copy(update={"fit": fit, "loss": run_config.loss.model_copy(update=loss)})


def test_each_run_is_done_once(run_config, built, records, tmp_path, capsys):
    configs = {"plain": short(run_config), "focal": short(run_config, focal_gamma=2.0)}
    table = ablate(configs, built, records, [0, 1], tmp_path)
    names = {"plain-0.json", "plain-1.json", "focal-0.json", "focal-1.json", "table.md"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / "table.md").read_text() == table + "\n"
    rows = [line for line in table.splitlines() if line.startswith(("| plain", "| focal"))]
    assert len(rows) == 2 and rows[0].split("|")[-2].strip() == "–"
    metrics = json.loads((tmp_path / "plain-0.json").read_text())["metrics"]
    assert metrics != json.loads((tmp_path / "plain-1.json").read_text())["metrics"]
    capsys.readouterr()
    (tmp_path / "focal-1.json").unlink()
    assert ablate(configs, built, records, [0, 1], tmp_path) == table  # and a run again gives the same figures
    said = capsys.readouterr().out
    assert said.count("done already") == 3
    ablate({"plain": configs["plain"]}, built, records[:-1], [0], tmp_path)
    assert "done already" not in capsys.readouterr().out  # measured on other records


def test_what_another_configuration_left_half_done_is_not_gone_on_with(run_config, built, records, tmp_path):
    ablate({"plain": short(run_config)}, built, records, [0], tmp_path / "clean")
    other = short(run_config, focal_gamma=2.0)
    fine_tune(other, read_splits(other, built), tmp_path / "dirty" / "plain-0.run")  # killed before it was measured
    ablate({"plain": short(run_config)}, built, records, [0], tmp_path / "dirty")
    clean, dirty = (json.loads((tmp_path / name / "plain-0.json").read_text()) for name in ("clean", "dirty"))
    assert clean == dirty


def test_two_configurations_of_one_name_are_refused(tmp_path, capsys):
    files = [str(tmp_path / name / "plain.yaml") for name in "ab"]
    assert main(["ablate", *files, "--on", "none.jsonl", "--out", str(tmp_path / "out")]) == 2
    assert "plain: two configurations of one name" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_headline_figures_by_hand(records):
    """Scores that rank all but one source right."""
    chosen = [record for record in records if len(record.judged) == 3][:600]
    positive = np.array([bool(record.labels) for record in chosen])
    missed = np.array([record.source == "made-1" for record in chosen])
    logits = np.where((positive & ~missed)[:, None], 5.0, -5.0) * np.ones((1, 3))
    metrics = headline_of(chosen, logits, ("reasoning_trace_extraction", "censorship_probing", "capability_sweep"))
    share = (positive & ~missed).sum() / positive.sum()
    assert metrics["recall_at_fpr_1pct"] == pytest.approx(share)
    assert metrics["mean_source_recall_at_fpr_1pct"] == pytest.approx(2 / 3)
    assert metrics["roc_auc"] == pytest.approx(share + (1 - share) / 2)
    assert metrics["recall en"] == pytest.approx(share) and metrics["false positives en"] == 0
    with pytest.raises(DataError, match="100 and 1 are needed"):
        headline_of(chosen[:50], logits[:50], ("reasoning_trace_extraction",))


def test_a_small_difference_is_called_none():
    def runs(*values):
        others = {"roc_auc": 0.9, "recall_at_fpr_5pct": 0.5, "recall_at_fpr_1pct": 0.3}
        return [others | {"mean_source_recall_at_fpr_1pct": value} for value in values]

    table = comparison(
        {"plain": runs(0.2, 0.3), "same": runs(0.25, 0.33), "better": runs(0.3, 0.35), "worse": runs(0.1)}
    )
    verdicts = [line.split("|")[-2].strip() for line in table.splitlines()[2:]]
    assert verdicts == ["–", "none", "+0.075", "-0.150"]
    assert "0.250 (0.200–0.300)" in table


def test_a_sample_takes_as_many_of_each_source(records):
    few = sample(records, 5)
    assert {source: sum(r.source == source for r in few) for source in {r.source for r in records}} == {
        "made-0": 5, "made-1": 5, "made-2": 5,
    }  # fmt: skip
    assert sample(list(reversed(records)), 5) == few and sample(records, None) == records
