"""What people read of a run: calibration before and after, slices, pictures, the card and the report."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import ModelCardData, model_index_to_eval_results
from hypothesis import example, given
from hypothesis import strategies as st

from data.records import Record
from inference.artefact import Platt
from inference.decision import DISTILLATION, any_logit, sigmoid
from inference.scorer import LogitScorer
from training import trainer
from training.evaluation.labelled import measure, read_labelled
from training.evaluation.sections import CALIBRATION, evaluate_sections, reliability, sections_to_json
from training.evaluation.slices import LENGTH_BANDS, MIN_SLICE, TOO_FEW, slices
from training.metrics.intervals import Estimate, exact_interval
from training.metrics.reliability import BINS, calibration_error, mass_bins, reliability_bins, uncalibrated
from training.report.card import cell, metadata, model_card
from training.report.plots import BEST_BY, axis, best_step, history_svg, reliability_svg

SVG = "{http://www.w3.org/2000/svg}"
SCORED = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80)


@pytest.fixture(scope="module")
def measured(classifier, built):
    records, faults = read_labelled([str(built)])
    assert not faults
    styles = ("plain", "rare")
    return measure(classifier, [record.changed(style=styles[i < 5]) for i, record in enumerate(records)])


@pytest.fixture(scope="module")
def sections(measured, classifier):
    return evaluate_sections(measured, classifier.assay)


@pytest.fixture(scope="module")
def config(run_config):
    return run_config.model_dump(mode="json")


@pytest.fixture(scope="module")
def card(classifier, sections, config):
    return model_card(classifier.assay, sections, config)


def arrays(pairs):
    return np.array([score for score, _ in pairs], float), np.array([truth for _, truth in pairs], float)


# ---- calibration ----


@given(
    st.lists(st.floats(-25, 25), min_size=1, max_size=40),
    st.floats(0.05, 20),
    st.floats(-10, 10),
)
def test_undoing_calibration_gives_the_logits_back(logits, slope, offset):
    platt = Platt(slope, offset)
    logits = np.array(logits)
    calibrated = slope * logits + offset
    again = uncalibrated(platt.apply(logits), platt)
    assert np.isfinite(again).all()
    assert (np.diff(again[np.argsort(logits)]) >= 0).all()
    # Close to 1 a float64 tells two logits apart only so far; past 36.7 not at all.
    close = calibrated < 30
    precision = 1e-9 + np.finfo(float).eps * np.exp(np.minimum(calibrated, 30)) / slope
    assert (np.abs(again - logits) <= 4 * precision + 1e-12 * np.abs(calibrated) / slope)[close].all()


def test_undoing_calibration_at_the_ends_of_float64():
    ends = uncalibrated(np.array([0.0, 5e-324, 0.5, np.nextafter(1, 0), 1.0]), Platt(2.0, 1.0))
    np.testing.assert_allclose(ends, (np.array([-744.44, -744.44, 0.0, 36.74, 36.74]) - 1) / 2, atol=0.01)
    with pytest.raises(ValueError, match="slope 0 cannot be undone"):
        uncalibrated(np.array([0.5]), Platt(0.0, 1.0))


@given(SCORED, st.integers(1, 20), st.randoms(use_true_random=False))
def test_calibration_error_lies_between_0_and_1_whatever_the_order(pairs, bins, random):
    probabilities, truth = arrays(pairs)
    error = calibration_error(probabilities, truth, bins=bins)
    assert error.shape == (1,) and 0 <= error[0] <= 1
    shuffled = list(range(len(pairs)))
    random.shuffle(shuffled)
    assert calibration_error(probabilities[shuffled], truth[shuffled], bins=bins)[0] == pytest.approx(error[0])


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 5)), min_size=1, max_size=30))
def test_calibration_error_is_0_where_every_share_is_as_predicted(groups):
    probabilities = np.concatenate([np.full(10 * times, tenths / 10) for tenths, times in groups])
    truth = np.concatenate([np.arange(10 * times) % 10 < tenths for tenths, times in groups]).astype(float)
    assert calibration_error(probabilities, truth)[0] == pytest.approx(0, abs=1e-12)


def test_calibration_error_of_known_bins():
    assert calibration_error(np.full(10, 0.9), np.arange(10) % 2)[0] == pytest.approx(0.4)
    probabilities, truth = np.array([0.1] * 10 + [0.8] * 10), np.array([0] * 10 + [1] * 10)
    assert calibration_error(probabilities, truth)[0] == pytest.approx((0.1 + 0.2) / 2)
    weights = np.array([[1.0] * 10 + [0.0] * 10, [0.0] * 10 + [3.0] * 10])
    np.testing.assert_allclose(calibration_error(probabilities, truth, weights), [0.1, 0.2])


@given(st.integers(1, 200), st.integers(1, 20))
def test_bins_hold_equally_many(n, bins):
    counts = np.bincount(mass_bins(np.linspace(0, 1, n), bins), minlength=bins)
    assert len(counts) == bins and counts.max() - counts.min() <= 1


@given(SCORED)
def test_points_of_the_diagram_account_for_every_prompt(pairs):
    probabilities, truth = arrays(pairs)
    points = reliability_bins(probabilities, truth)
    assert 1 <= len(points) <= BINS and sum(point.n for point in points) == len(pairs)
    assert sum(point.observed * point.n for point in points) == pytest.approx(truth.sum())
    predicted = [point.predicted for point in points]
    assert predicted == sorted(predicted)
    for point in points:
        assert 0 <= point.low <= point.observed <= point.high <= 1
        assert (point.low, point.high) == exact_interval(round(point.observed * point.n), point.n)


def test_before_calibration_is_what_the_network_gives(artefact, classifier, measured, sections):
    logits, _, _ = LogitScorer.open(artefact, classifier.assay)([record.rendered for record in measured.records])
    raw = sigmoid(any_logit(logits))
    section = sections[CALIBRATION]
    names = ("expected_calibration_error", "brier", "log_loss")
    assert set(section) == {names[0], *(f"{name}_before" for name in names)}
    assert section["brier_before"].value == pytest.approx(((raw - measured.truth) ** 2).mean(), abs=1e-6)
    expected = calibration_error(measured.scores(DISTILLATION), measured.truth)[0]
    assert section["expected_calibration_error"].value == pytest.approx(expected)
    before, after = reliability(measured, classifier.assay)
    assert sum(point.n for point in before) == sum(point.n for point in after) == len(measured.records)
    assert sum(point.predicted * point.n for point in before) == pytest.approx(raw.sum(), abs=1e-4)


def test_a_calibration_that_cannot_be_undone_says_so(classifier, measured):
    flat = replace(classifier.assay, calibration={**classifier.assay.calibration, DISTILLATION: Platt(0.0, 0.0)})
    section = evaluate_sections(measured, flat)[CALIBRATION]
    assert section["brier_before"].value is None and "cannot be undone" in section["brier_before"].note
    assert section["expected_calibration_error"].value is not None
    assert reliability(measured, flat)[0] == []


def test_every_interval_holds_its_value_and_every_section_its_contract(sections):
    written = json.loads(json.dumps(sections_to_json(sections), allow_nan=False))
    for section in written.values():
        for metric in section.values():
            assert {"value", "low", "high", "n"} <= set(metric) <= {"value", "low", "high", "n", "note"}
            if metric["value"] is not None:
                assert metric["low"] <= metric["value"] <= metric["high"]


# ---- slices ----


def test_slices_are_measured_at_one_threshold(measured, sections):
    scores, organic = measured.scores(DISTILLATION), measured.truth == 0
    threshold = np.sort(scores[organic])[::-1][int(organic.sum() * 0.01 + 1e-9)]
    lengths = np.array([len(record.rendered) for record in measured.records])
    masks = {f"length {name}": (low <= lengths) & (lengths < high) for name, (low, high) in LENGTH_BANDS.items()}
    number = np.arange(len(lengths))
    masks |= {"language en": lengths > 0, "style plain": number >= 5, "style rare": number < 5}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    assert {name for name in sections if name.startswith(("language ", "length ", "style "))} == set(masks)
    small = [name for name, mask in masks.items() if mask.sum() < MIN_SLICE]
    assert "style rare" in small and len(small) < len(masks)
    for name, mask in masks.items():
        assert all((x.note == TOO_FEW) == (x.n < MIN_SLICE) for x in sections[name].values())
        recall, rate = (sections[name][f"{x}_at_fpr_1pct"] for x in ("recall", "false_positive_rate"))
        assert (recall.n, rate.n) == ((mask & ~organic).sum(), (mask & organic).sum())
        assert recall.value == pytest.approx((scores > threshold)[mask & ~organic].mean())
        assert rate.value == pytest.approx((scores > threshold)[mask & organic].mean())
    assert sections["language en"]["roc_auc"] == sections[DISTILLATION]["roc_auc"]


def test_slices_of_one_class_and_of_no_language(classifier, measured):
    organic = np.flatnonzero(measured.truth == 0)
    records = [measured.records[i].changed(lang=None, style=None) for i in organic]
    assert isinstance(records[0], Record)
    part = replace(
        measured,
        records=records,
        predictions=[measured.predictions[i] for i in organic],
        labels=measured.labels[organic],
        clusters=measured.clusters[organic],
    )
    found = evaluate_sections(part, classifier.assay)
    names = [name for name in found if name.startswith(("language", "style", "length"))]
    assert names and all(name.startswith("length") for name in names)
    for name in names:
        assert set(found[name]) == {"false_positive_rate_at_fpr_1pct", "false_positive_rate"}


def test_slices_stand_in_an_order_that_helps():
    def rate(value, n):
        return {"recall_at_fpr_1pct": Estimate(value, 0.0, 1.0, n)}

    made = {f"source {name}": rate(value, 30) for name, value in (("good", 0.9), ("bad", 0.1), ("middling", 0.5))}
    made |= {f"length {name}": rate(0.5, 30) for name in reversed(LENGTH_BANDS)}
    made |= {"language de": rate(0.1, 20), "language en": rate(0.9, 90), "language fr": rate(0.0, 19)}
    assert [row.name for row in slices(made, "source")] == ["bad", "middling", "good"]
    assert [row.name for row in slices(made, "length")] == list(LENGTH_BANDS)
    assert [row.name for row in slices(made, "language")] == ["de", "en", "fr"]  # the last is too small to judge


# ---- pictures ----

HISTORY = [
    {"step": 10, "epoch": 0.5, "loss": 1.5, "learning_rate": 1e-4, "grad_norm": 2.0},
    {"step": 20, "epoch": 1.0, "loss": 0.7},
    {"step": 20, "epoch": 1.0, "eval_loss": 0.6, BEST_BY: 0.8, "eval_roc_auc": 0.9, "eval_recall_at_fpr_1pct": 0.4},
    {"step": 40, "epoch": 2.0, "eval_loss": 0.5, BEST_BY: 0.8, "eval_roc_auc": 0.95, "eval_recall_at_fpr_1pct": 0.5},
    {"step": 40, "epoch": 2.0, "train_loss": 0.9, "train_runtime": 3.0},
]
NUMBERS = st.one_of(st.floats(), st.integers(-3, 10**400), st.none(), st.booleans(), st.text(max_size=3))
ENTRIES = st.dictionaries(
    st.sampled_from(["step", "loss", "eval_loss", BEST_BY, "eval_roc_auc", "eval_recall_at_fpr_1pct"]), NUMBERS
)


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def numbers_in(svg):
    for element in ElementTree.fromstring(svg).iter():
        for name, value in element.attrib.items():
            if name in {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "points", "d"}:
                yield from map(float, re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf", value))


@given(st.lists(ENTRIES, max_size=6))
@example([])
@example([{"step": 0, "loss": 0.0}])
@example([{"step": 1, "loss": math.nan, BEST_BY: math.nan}])
@example([{"step": n, "loss": 1.0} for n in range(2000)])
def test_any_history_is_a_picture(history):
    svg = history_svg(history)
    assert all(-100 <= number <= 800 for number in numbers_in(svg))  # everything lies on the paper
    assert len(svg) < 30_000


def test_the_picture_of_a_run_names_what_it_shows():
    svg = history_svg(HISTORY)
    shown = texts(svg)
    assert "Loss" in shown and "Validation" in shown and shown.count("optimiser step") == 2
    assert {"training", "validation", "AUC up to 5 % FPR: 0.800", "AUC: 0.900", "recall at 1 % FPR: 0.400"} <= set(
        shown
    )
    assert "dashed: the best weights, of step 20" in shown
    assert "prefers-color-scheme: dark" in svg
    assert "nothing was logged" not in shown and texts(history_svg([])).count("nothing was logged") == 2


def test_the_best_step_is_the_one_that_the_trainer_keeps():
    assert BEST_BY == trainer.BEST_METRIC
    assert best_step(HISTORY) == 20  # the first of two alike, as KeepBest has it
    assert best_step([]) is None


def test_the_history_of_a_run_is_a_picture(artefact):
    history = json.loads((artefact / "history.json").read_text())
    svg = history_svg(history)
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}polyline"))) == 10  # five curves, each in its legend too
    assert f"dashed: the best weights, of step {best_step(history):,}" in texts(svg)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_an_axis_holds_its_values(values, whole, tight):
    made = axis(values, 0, 100, whole, tight)
    unseen = 1e-6 * (made.high - made.low)
    assert made.low <= min(values) + unseen and made.high >= max(values) - unseen
    assert len(made.ticks) <= 9 and all(made.low <= tick <= made.high for tick in made.ticks)
    assert list(made.ticks) == sorted(set(made.ticks))
    assert (made.at(made.low), made.at(made.high)) == (0, 100)


@given(SCORED, SCORED)
@example([(0.0, False)], [(1.0, True)])
def test_any_reliability_is_a_picture(before, after):
    svg = reliability_svg(reliability_bins(*arrays(before)), reliability_bins(*arrays(after)))
    assert {"before calibration", "after calibration", "Reliability"} <= set(texts(svg))
    assert all(0 <= number <= 510 for number in numbers_in(svg))
    page = reliability_svg([], reliability_bins(*arrays(after)), in_page=True)
    assert "http" not in page and "before calibration</text>" not in page
    ElementTree.fromstring(page)
    assert "no prompts" in texts(reliability_svg([], []))


# ---- the card ----

HEADINGS = [
    "How to load",
    "Intended use",
    "Limits",
    "Data",
    "Training",
    "Metrics",
    "Operating points",
    "Calibration",
    "Versions",
]


def test_the_card_tells_everything_in_order(card, classifier):
    assert re.findall(r"^## (.*)$", card, re.M) == HEADINGS
    assert re.findall(r"^### (.*)$", card, re.M) == ["By language", "By length", "The worst sources"]
    parts = dict(zip(HEADINGS, re.split(r"^## .*$", card, flags=re.M)[1:], strict=True))
    assert "python -m training calibrate MODEL --traffic FILE" in parts["Limits"]
    for word in ("campaign", "intent", "Languages", "Ambiguous", "Padding"):
        assert word in parts["Limits"]
    provenance = classifier.assay.provenance
    assert provenance["data_fingerprint"] in parts["Data"]
    for split, n in provenance["prompts"].items():
        assert re.search(rf"^\| {split} +\| +{n} \|$", parts["Data"], re.M)
    assert "![" in parts["Training"] and "(history.svg)" in parts["Training"] and "`run.yaml`" in parts["Training"]
    assert "(calibration.svg)" in parts["Calibration"] and "expected calibration error" in parts["Calibration"]
    assert re.search(r"^\| en ", parts["Metrics"], re.M) and "made-0" in parts["Metrics"]
    assert "area under ROC" in parts["Metrics"] and "transformers" in parts["Versions"]


def test_only_the_operating_points_stand_in_a_table_of_theirs(card):
    """Whoever sets them anew on traffic replaces that section, and nothing else of the card is stale then."""
    before, after = card.split("\n## Operating points\n")
    after = after.split("\n## ", 1)[1]
    assert not re.search(r"^\|\W*(?:fpr-[\d.]+pct|balanced)\b", before + after, re.M)
    assert "operating point" not in before.split("---")[1]


def test_the_cards_metadata_are_the_hubs(card, sections, classifier):
    content = yaml.safe_load(card.split("---")[1])
    name, results = model_index_to_eval_results(content["model-index"])
    assert name == "promptassay"
    found = {result.metric_name: result for result in results}
    expected = sections[DISTILLATION]
    assert found["area under ROC"].metric_value == pytest.approx(expected["roc_auc"].value, abs=1e-4)
    assert found["recall at 5 % FPR"].metric_type == "recall" and "recall at 0.1 % FPR" not in found
    assert {result.task_type for result in results} == {"text-classification"}
    assert all(classifier.assay.provenance["data_fingerprint"] in result.dataset_name for result in results)
    data = ModelCardData(**content)
    assert data.eval_results == results and data.to_dict() == content
    assert (data.license, data.library_name, data.language) == ("apache-2.0", "transformers", ["en"])
    assert data.pipeline_tag == "text-classification" and data.base_model is None
    again = ModelCard(card)
    assert ModelCard(str(again)).data.to_dict() == again.data.to_dict()


@pytest.mark.parametrize("hub", ["intfloat/multilingual-e5-small", "bert-base-uncased", "../x", "a/b/c", "", None])
def test_the_base_model_is_named_where_it_is_on_the_hub(classifier, sections, hub):
    assay = replace(classifier.assay, base=classifier.assay.base | {"hub": hub})
    assert metadata(assay, sections).base_model == (hub if hub == "intfloat/multilingual-e5-small" else None)


def test_languages_of_the_metadata_are_codes(classifier, sections):
    none = {name: section for name, section in sections.items() if not name.startswith("language")}
    assert metadata(classifier.assay, none).language == "multilingual"
    some = none | {f"language {name}": sections["language en"] for name in ("no", "zh-Hant", "zh", "not stated")}
    data = metadata(classifier.assay, some)
    assert yaml.safe_load(data.to_yaml())["language"] == ["no", "zh"]  # and not false


def test_a_card_without_a_figure_has_no_index(classifier, sections, config):
    nothing = {name: Estimate(None, None, None, 0, "no prompts") for name in sections[DISTILLATION]}
    text = model_card(classifier.assay, sections | {DISTILLATION: nothing}, config)
    assert "model-index" not in yaml.safe_load(text.split("---")[1])


def test_the_card_tells_no_place_of_this_machine(card, classifier, config, encoder, built):
    assert classifier.assay.provenance["data"] == str(built) and config["encoder"]["path"] == str(encoder)
    assert str(built) not in card and str(encoder.parent) not in card
    assert f"the local folder {encoder.name}" in card


def test_what_the_card_shows_of_python_runs(card, artefact, capsys):
    blocks = re.findall(r"```python\n(.*?)```", card, re.S)
    assert len(blocks) == 2
    for block in blocks:
        code = block.replace("path/to/this/folder", str(artefact)).replace("from promptassay", "from inference")
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert "Prediction(" in printed and "censorship_probing" in printed.split("Prediction(", 1)[1]


def test_names_in_the_data_do_not_become_markup(classifier, sections, config):
    hostile = "a|b\n## <img src=x> [x](y)"
    assert cell(hostile) == r"a\|b ## \<img src=x\> \[x\](y)"
    text = model_card(classifier.assay, sections | {f"source {hostile}": sections["source made-0"]}, config)
    assert "<img" not in text.replace(r"\<img", "") and re.findall(r"^## (.*)$", text, re.M) == HEADINGS
