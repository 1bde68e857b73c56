"""The arithmetic agrees with scikit-learn, SciPy and published examples, and the metrics are `evaluate` metrics."""

import evaluate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    roc_auc_score,
)

from training.metrics import (
    F1,
    AveragePrecision,
    Brier,
    Confusion,
    ExpectedCalibrationError,
    LogLoss,
    PartialRocAuc,
    PrecisionAtBaseRate,
    RecallAtFpr,
    RocAuc,
    SubsetAccuracy,
)
from training.metrics.intervals import ClusterBootstrap, count_estimate, exact_interval, rate_estimate
from training.metrics.measures import probability_measures, ranking_measures
from training.metrics.modules import headline
from training.metrics.ranking import Ranking, precision_at

SAMPLES = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: len({truth for _, truth in pairs}) == 2
)


def arrays(pairs):
    return np.array([score for score, _ in pairs], float), np.array([truth for _, truth in pairs], int)


@given(SAMPLES)
def test_areas_agree_with_scikit_learn(pairs):
    scores, truth = arrays(pairs)
    ranking = Ranking(scores, truth)
    assert ranking.roc_auc()[0] == pytest.approx(roc_auc_score(truth, scores))
    assert ranking.average_precision()[0] == pytest.approx(average_precision_score(truth, scores))
    assert ranking.roc_auc(max_fpr=0.3)[0] == pytest.approx(roc_auc_score(truth, scores, max_fpr=0.3))


@given(SAMPLES, st.lists(st.integers(1, 3), min_size=60, max_size=60))
def test_weights_are_repetitions(pairs, counts):
    scores, truth = arrays(pairs)
    counts = np.array(counts[: len(truth)], float)
    repeated = Ranking(np.repeat(scores, counts.astype(int)), np.repeat(truth, counts.astype(int)))
    weighted = Ranking(scores, truth)
    for metric in ("roc_auc", "average_precision"):
        assert getattr(weighted, metric)(counts)[0] == pytest.approx(getattr(repeated, metric)()[0])
    for fpr in (0.0, 0.1, 0.5, 1.0):
        assert weighted.recall_at_fpr(fpr, counts)[0] == pytest.approx(repeated.recall_at_fpr(fpr)[0])


@given(SAMPLES, st.sampled_from([0.0, 0.05, 0.1, 0.34, 0.5, 1.0]))
def test_recall_at_fpr_is_that_of_the_best_threshold(pairs, fpr):
    scores, truth = arrays(pairs)
    allowed = int((truth == 0).sum() * fpr + 1e-9)
    best = max(
        (scores[truth == 1] >= threshold).mean()
        for threshold in [*np.unique(scores), np.inf]
        if (scores[truth == 0] >= threshold).sum() <= allowed
    )
    assert Ranking(scores, truth).recall_at_fpr(fpr)[0] == pytest.approx(best)


def test_metrics_are_combinable():
    scores, truth = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    together = evaluate.combine([RocAuc(), AveragePrecision(), PartialRocAuc(), RecallAtFpr(0.5)])
    result = together.compute(predictions=scores, references=truth)
    assert result["roc_auc"] == 0.75 and result["recall_at_fpr_50pct"] == 1.0
    assert result["average_precision"] == pytest.approx(0.8333, abs=1e-4)
    assert set(headline(np.array(scores), np.array(truth))) == {
        "partial_roc_auc", "roc_auc", "recall_at_fpr_5pct", "recall_at_fpr_1pct",
    }  # fmt: skip


@given(st.integers(0, 60), st.integers(1, 60))
def test_exact_interval_agrees_with_scipy(successes, n):
    successes = min(successes, n)
    expected = binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert exact_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_rule_of_three():
    assert exact_interval(0, 300, level=0.9)[1] == pytest.approx(3 / 300, rel=0.01)


def test_a_published_interval():
    """Agresti and Coull, The American Statistician 52 (1998): 5 of 10 at 95 % is 0.187 to 0.813, 0 of 10 ends at 0.308."""
    assert exact_interval(5, 10) == pytest.approx((0.187, 0.813), abs=5e-4)
    assert exact_interval(0, 10) == pytest.approx((0.0, 0.308), abs=5e-4)
    assert rate_estimate(5, 10).value == 0.5 and count_estimate(5, 10).low == pytest.approx(1.87, abs=5e-3)
    assert rate_estimate(0, 0).value is None


def test_a_published_base_rate():
    """Gigerenzer and Hoffrage, Psychological Review 102 (1995): 1 % ill, 80 % found, 9.6 % false alarms: 7.8 %."""
    assert precision_at(0.01, 0.8, 0.096) == pytest.approx(0.078, abs=5e-4)
    assert precision_at(0.001, 0.0, 0.0) == 1.0


PROBABILITIES = st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: len({truth for _, truth in pairs}) == 2
)


@given(PROBABILITIES, st.sampled_from([0.2, 0.5, 0.8]))
def test_decisions_and_probabilities_agree_with_scikit_learn(pairs, threshold):
    scores, truth = arrays(pairs)
    together = evaluate.combine([Brier(), LogLoss(), F1(threshold), Confusion(threshold)])
    found = together.compute(predictions=scores, references=truth)
    assert found["brier"] == pytest.approx(brier_score_loss(truth, scores))
    assert found["log_loss"] == pytest.approx(log_loss(truth, scores))
    flagged = (scores >= threshold).astype(int)
    if flagged.any() or truth.any():
        assert found["f1"] == pytest.approx(f1_score(truth, flagged, zero_division=0))
    cells = ["true_negatives", "false_positives", "false_negatives", "true_positives"]
    assert [found[cell] for cell in cells] == confusion_matrix(truth, flagged, labels=[0, 1]).ravel().tolist()


def test_probabilities_of_exactly_0_and_1_have_a_finite_loss():
    found = probability_measures(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 0]))(None)
    assert np.isfinite(found["log_loss"][0]) and found["log_loss"][0] > 10


def test_a_calibration_error_worked_by_hand():
    """Fifteen bins of one prompt each: the mean distance of each probability from its own truth."""
    scores, truth = np.linspace(0.03, 0.97, 15), np.arange(15) % 2
    found = ExpectedCalibrationError().compute(predictions=scores, references=truth)
    assert found["expected_calibration_error"] == pytest.approx(np.abs(scores - truth).mean())


def test_labels_are_right_all_together_or_not():
    found = SubsetAccuracy().compute(
        predictions=[[0, 1, 0], [1, 1, 0], [0, 0, 0]], references=[[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    )
    assert found == {"subset_accuracy": pytest.approx(2 / 3)}


def test_precision_at_a_base_rate_is_that_of_the_recall_there():
    scores, truth = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    recall = RecallAtFpr(0.5).compute(predictions=scores, references=truth)["recall_at_fpr_50pct"]
    found = PrecisionAtBaseRate(0.5, base_rates=(0.01,)).compute(predictions=scores, references=truth)
    assert found == {"precision_at_1_in_100": pytest.approx(precision_at(0.01, recall, 0.5))}


# ---- the bootstrap ----


def all_weights(bootstrap, n):
    return np.concatenate(list(bootstrap.weights(np.ones(n, bool))))


def test_bootstrap_draws_whole_clusters():
    clusters = np.array(["a", "a", "b", "c", "c", "c"])
    weights = all_weights(ClusterBootstrap(clusters, 500, seed=1), 6)
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert (all_weights(ClusterBootstrap(clusters, 500, seed=1), 6) == weights).all()


def test_a_part_is_measured_on_the_draws_of_the_whole():
    clusters = np.arange(40) // 2
    bootstrap = ClusterBootstrap(clusters, 100)
    part = np.arange(40) % 3 == 0
    assert (np.concatenate(list(bootstrap.weights(part))) == all_weights(bootstrap, 40)[:, part]).all()
    assert bootstrap.clusters_in(part) == len(set(clusters[part]))


def test_the_interval_of_a_mean_is_that_of_theory():
    """400 clusters of one: the standard error of a share is sqrt(p (1 - p) / n)."""
    held = (np.arange(400) % 5 == 0).astype(float)
    bootstrap = ClusterBootstrap(np.arange(400), 2000)
    found = bootstrap.estimates(probability_measures(np.zeros(400), held), np.ones(400, bool))["brier"]
    error = np.sqrt(0.2 * 0.8 / 400)
    assert (found.low, found.high) == pytest.approx((0.2 - 1.96 * error, 0.2 + 1.96 * error), abs=0.004)
    twice = ClusterBootstrap(np.arange(400) // 4, 2000)  # fewer clusters know less
    wider = twice.estimates(probability_measures(np.zeros(400), np.repeat(held[::4], 4)), np.ones(400, bool))["brier"]
    assert wider.high - wider.low > 1.5 * (found.high - found.low)


@given(SAMPLES, st.integers(0, 3))
def test_every_interval_holds_its_value(pairs, seed):
    scores, truth = arrays(pairs)
    bootstrap = ClusterBootstrap(np.arange(len(truth)) // 2, 50, seed)
    found = bootstrap.estimates(ranking_measures(scores, truth == 1, (0.1,)), np.ones(len(truth), bool))
    for estimate in found.values():
        assert estimate.value is None or estimate.low <= estimate.value <= estimate.high


def test_a_combined_metric_gives_intervals_where_clusters_are_named():
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 2
    scores = truth + rng.normal(size=200)
    together = evaluate.combine([RocAuc(draws=200), RecallAtFpr(0.05, draws=200)])
    plain = together.compute(predictions=scores, references=truth)
    found = together.compute(predictions=scores, references=truth, clusters=np.arange(200) // 4)
    assert {name: found[name] for name in plain} == plain
    for name in plain:
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_few_clusters_give_no_figure():
    """Five prompts against five that are told apart are no proof of an area of exactly 1."""
    scores, truth = np.arange(10) / 10, np.arange(10) >= 5
    bootstrap = ClusterBootstrap(np.arange(10), 50)
    measures, everyone = ranking_measures(scores, truth, ()), np.ones(10, bool)
    assert bootstrap.estimates(measures, everyone)["roc_auc"].value == 1
    found = bootstrap.estimates(measures, everyone, positive=truth)["roc_auc"]
    assert found.value is None and found.note == "needs 10 clusters of each class, and 5 are there"
    few = ClusterBootstrap(np.arange(10) // 2, 50).estimates(measures, everyone)["roc_auc"]
    assert few.value is None and "needs 10 clusters, and 5" in few.note
