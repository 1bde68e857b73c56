"""The arithmetic agrees with scikit-learn and SciPy, and the metrics are `evaluate` metrics."""

import evaluate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from training.metrics import (
    AveragePrecision,
    PartialRocAuc,
    Ranking,
    RecallAtFpr,
    RocAuc,
    bootstrap_weights,
    exact_interval,
    headline,
)

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


def test_bootstrap_draws_whole_clusters():
    clusters = np.array(["a", "a", "b", "c", "c", "c"])
    weights = bootstrap_weights(clusters, 500, seed=1)
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert (bootstrap_weights(clusters, 500, seed=1) == weights).all()
