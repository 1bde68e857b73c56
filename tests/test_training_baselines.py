"""Simple classifiers beside the model, and the guard against measuring on what was seen."""

import json

from training.__main__ import main

BASELINES = 5


def test_an_evaluation_with_baselines(artefact, built, tmp_path, capsys):
    assert main(["evaluate", str(artefact), str(built), "--no-suite", "--baselines", "--out", str(tmp_path)]) == 0
    sections = json.loads((tmp_path / "metrics.json").read_text())
    found = {name: section for name, section in sections.items() if name.startswith("baseline ")}
    assert len(found) == BASELINES and "TF-IDF" in capsys.readouterr().out
    assert "baseline length and language" in found
    for section in found.values():
        assert 0 <= section["roc_auc"]["value"] <= 1 and section["roc_auc"]["n"] > 0
    # Words tell these made-up prompts apart.
    assert found["baseline TF-IDF words"]["roc_auc"]["value"] > 0.95


def test_what_was_seen_is_refused_or_dropped_or_marked(artefact, built, tmp_path, capsys):
    arguments = [
        "evaluate",
        str(artefact),
        str(built),
        "--no-suite",
        "--split",
        "train",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "has seen" in told and "--drop-seen" in told and not (tmp_path / "out").exists()
    assert main([*arguments, "--drop-seen"]) == 2
    assert "nothing to measure on" in capsys.readouterr().err
    assert main([*arguments, "--allow-seen"]) == 0
    assert "fitted on" in (tmp_path / "out" / "report.html").read_text()
