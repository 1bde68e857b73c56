"""Thresholds keep the rule of the design; calibration is monotone and finite."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from inference.decision import DISTILLATION
from inference.decision import any_logit as any_logit_numpy
from training.calibrate import abstention_band, calibrate, calibration_records, f1_threshold, fit_platt, fpr_threshold
from training.encode import DataError, any_label, load_split
from training.losses import any_logit

NAMES = ("a", "b", "c")
SCORED = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=80).filter(
    lambda pairs: any(organic for _, organic in pairs)
)


@given(SCORED, st.sampled_from([0.01, 0.05, 0.25, 1.0]))
def test_a_threshold_is_the_lowest_that_keeps_the_rate(pairs, fpr):
    scores = np.array([score for score, _ in pairs])
    organic = np.array([is_organic for _, is_organic in pairs])
    threshold = fpr_threshold(scores, organic, fpr)
    allowed = int(organic.sum() * fpr + 1e-9)
    assert (scores[organic] >= threshold).sum() <= allowed
    lower = scores[scores < threshold]
    if len(lower):
        assert (scores[organic] >= lower.max()).sum() > allowed
        upper = scores[scores >= threshold]
        assert threshold == pytest.approx((lower.max() + (upper.min() if len(upper) else 1)) / 2, abs=1e-9)


@given(SCORED)
@example([(0.0, True), (5e-324, False)])  # no float lies between the two
@example([(np.nextafter(0.5, 0), True), (0.5, False)])
def test_balanced_has_the_best_f1(pairs):
    scores, truth = np.array([s for s, _ in pairs]), np.array([not o for _, o in pairs], float)

    def f1(threshold):
        hits = (scores >= threshold) & (truth == 1)
        return 2 * hits.sum() / ((scores >= threshold).sum() + (truth == 1).sum())

    if (truth == 1).any():
        assert f1(f1_threshold(scores, truth)) == pytest.approx(max(f1(t) for t in scores))


@given(st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=2, max_size=60))
def test_platt_is_finite_and_never_turns_the_ranking_round(pairs):
    logits, truth = np.array([z for z, _ in pairs]), np.array([t for _, t in pairs], float)
    platt = fit_platt(logits, truth)
    values = platt.apply(np.linspace(-60, 60, 25))
    assert np.isfinite(values).all() and (np.diff(values) >= 0).all()


def test_platt_recovers_a_known_calibration():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    truth = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(float)
    platt = fit_platt(logits, truth)
    assert (platt.slope, platt.offset) == (pytest.approx(0.5, abs=0.03), pytest.approx(-1, abs=0.06))


@pytest.mark.parametrize(
    ("n_organic", "points"),
    [(59, ["balanced"]), (60, ["fpr-5pct", "balanced"]), (300, ["fpr-5pct", "fpr-1pct", "balanced"]), (3000, ["fpr-5pct", "fpr-1pct", "fpr-0.1pct", "balanced"])],
)  # fmt: skip
def test_a_point_needs_three_over_its_rate(n_organic, points):
    rng = np.random.default_rng(0)
    labels = np.zeros((n_organic + 90, 3))
    labels[np.arange(90), np.arange(90) % 3] = 1
    logits = rng.normal(-2, 1, labels.shape) + 4 * labels
    fitted = calibrate(NAMES, logits, labels, coverage=0.9)
    assert list(fitted.points) == points
    assert fitted.positive_share == pytest.approx(90 / (90 + n_organic))
    for name, point in fitted.points.items():
        assert set(point.thresholds) == {*NAMES, DISTILLATION}
        assert point.n_organic == n_organic
        if name != "balanced":
            assert point.false_positives == int(n_organic * point.target_fpr)
            assert point.fpr_low <= point.target_fpr <= point.fpr_high


def test_unknown_labels_are_neither_positive_nor_organic():
    assert any_label(np.array([[0, 0, 0], [0, -1, 0], [1, -1, 0]])).tolist() == [0, -1, 1]
    labels = np.zeros((200, 3))
    labels[:50, 0] = 1
    labels[50:100, 2] = 1
    labels[100:120, 1] = -1
    labels[0:3, 1] = 1
    fitted = calibrate(NAMES, np.random.default_rng(0).normal(size=(200, 3)) + labels, labels, 0.9)
    assert fitted.points["balanced"].n_organic == 80


def test_the_band_covers_each_class():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 2000)
    scores = np.clip(rng.normal(0.3 + 0.4 * truth, 0.2), 0, 1)
    band = abstention_band(scores, truth, 0.9)
    fresh = np.clip(rng.normal(0.3 + 0.4 * truth, 0.2), 0, 1)
    assert (fresh[truth == 0] <= band.high).mean() == pytest.approx(0.9, abs=0.03)
    assert (fresh[truth == 1] >= band.low).mean() == pytest.approx(0.9, abs=0.03)


def test_both_any_logits_agree():
    logits = torch.randn(50, 3, dtype=torch.float64) * 5
    np.testing.assert_allclose(any_logit(logits).numpy(), any_logit_numpy(logits.numpy()), rtol=1e-9)


def test_temperature_leaves_the_middle_where_it_is():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 5_000)
    truth = (rng.random(5_000) < 1 / (1 + np.exp(-2 * logits))).astype(float)
    platt = fit_platt(logits, truth, "temperature")
    assert platt.offset == 0 and platt.slope == pytest.approx(2, abs=0.2)


def test_the_test_split_is_refused(built, tmp_path):
    with pytest.raises(DataError, match="never calibrate on the test split"):
        calibration_records(built, "test")
    assert len(calibration_records(built)) == len(load_split(built, "calibration"))
    shutil.copytree(built, tmp_path / "leak")
    shutil.copy(built / "test.parquet", tmp_path / "leak" / "calibration.parquet")
    with pytest.raises(DataError, match="prompts of calibration stand in test too"):
        calibration_records(tmp_path / "leak")
