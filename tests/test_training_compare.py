"""Champion against challenger: who is promoted, who is refused and why, and the link to the artefact in use."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.__main__ import main
from training.comparison.gate import holm
from training.comparison.parts import lost_more
from training.train import train


@pytest.fixture(scope="module")
def weak(tmp_path_factory, run_config):
    """An artefact that has hardly learnt anything."""
    folder = tmp_path_factory.mktemp("weak") / "model"
    fit = run_config.fit.model_copy(update={"epochs": 1, "learning_rate": 1e-5})
    train(run_config.model_copy(update={"fit": fit}), folder)
    return folder


def compare(*arguments, out):
    return main(["compare", *map(str, arguments), "--no-suite", "--split", "train", "--allow-seen", "--out", str(out)])


def test_a_better_artefact_takes_the_place_and_a_worse_one_does_not(artefact, weak, built, tmp_path, capsys):
    models = tmp_path / "models"
    models.mkdir()
    (models / "current").symlink_to(weak)
    out = tmp_path / "compared"
    assert compare(models / "current", artefact, built, "--promote-to", models, out=out) == 0
    assert {path.name for path in out.iterdir()} == {"comparison.html", "comparison.json"}
    assert (models / "current").resolve() == artefact.resolve()
    assert (models / "previous").resolve() == weak.resolve()
    told = capsys.readouterr().out
    assert "promote" in told.splitlines()[0].lower()
    found = json.loads((out / "comparison.json").read_text())
    assert all(
        check["low"] is None or check["low"] <= check["high"] for checks in [found["checks"]] for check in checks
    )

    again = tmp_path / "again"
    assert compare(models / "current", weak, built, "--promote-to", models, out=again) == 1
    assert (models / "current").resolve() == artefact.resolve()
    page = (again / "comparison.html").read_text()
    assert "SEEN" in page and "src=" not in page
    assert "hidden thoughts" not in page + (again / "comparison.json").read_text()  # prompts are private


def test_text_of_what_flipped_is_shown_where_it_is_asked_for(artefact, weak, built, tmp_path):
    assert compare(weak, artefact, built, "--show-text", out=tmp_path) == 0
    flips = json.loads((tmp_path / "comparison.json").read_text())["flips"]
    assert flips and all(flip["text"] for flip in flips)


def test_what_cannot_be_compared_is_refused_in_a_sentence(artefact, weak, built, tmp_path, capsys):
    def refused(*arguments):
        out = tmp_path / "out"
        status = main(["compare", *map(str, arguments), "--no-suite", "--out", str(out)])
        assert not out.exists()
        return status, capsys.readouterr().err

    status, told = refused(artefact, artefact, built)
    assert status == 2 and "the same artefact" in told
    status, told = refused(weak, artefact, built, "--split", "train")
    assert status == 2 and "has seen" in told and "--allow-seen" in told
    rows = [json.dumps({"text": f"how do I mend a bicycle of kind {n}", "labels": []}) for n in range(200)]
    organic = tmp_path / "organic.jsonl"
    organic.write_text("\n".join(rows))
    status, told = refused(weak, artefact, organic)
    assert status == 2 and "organic and distillation-style" in told
    ten = tmp_path / "ten.jsonl"
    ten.write_text(
        "\n".join(
            [
                *rows[:5],
                *(
                    json.dumps({"text": f"list what you refuse {n}", "labels": ["censorship_probing"]})
                    for n in range(5)
                ),
            ]
        )
    )
    status, told = refused(weak, artefact, ten)
    assert status == 2 and "5 organic and 5 distillation-style" in told
    unlabelled = tmp_path / "unlabelled.jsonl"
    unlabelled.write_text(json.dumps({"text": "how long do I boil an egg"}))
    status, told = refused(weak, artefact, unlabelled)
    assert status == 1 and "nothing was measured" in told
    models = tmp_path / "models"
    (models / "current").mkdir(parents=True)
    status, told = refused(weak, artefact, built, "--promote-to", models)
    assert status == 2 and "no link" in told


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_step_down(values):
    adjusted = holm(values)
    order = np.argsort(values, kind="stable")
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        assert adjusted[place] == pytest.approx(highest)


def test_losing_more_tests_than_winning_is_an_exact_sign_test():
    assert lost_more([True] * 5, [False] * 5) == pytest.approx(1 / 32)
    assert lost_more([True, False], [False, True]) == pytest.approx(0.75)
    assert lost_more([True] * 5, [True] * 5) == 1.0
