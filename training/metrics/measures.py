"""Metrics as functions of weights, so that one bootstrap serves all of them (`intervals.ClusterBootstrap`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .intervals import Estimate, Measures, exact_interval, missing
from .ranking import Ranking, precision_at, rate_name
from .reliability import calibration_error

BASE_RATES = (0.01, 0.001, 0.00001)
"""Assumed shares of distillation in traffic: 1 prompt in 100, in 1,000 and in 100,000."""
BOTH = "needs both organic and positive prompts"
"""Why a metric of two classes has no value."""
ECE = "expected_calibration_error"


def ranking_measures(scores: np.ndarray, positive: np.ndarray, rates: Sequence[float]) -> Measures:
    """Areas, and recall at each false-positive rate, of `[n]` scores against a mask `[n]`."""
    ranking = Ranking(scores, positive)

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        curve = ranking.curve(weights)
        found = {"roc_auc": curve.roc_auc(), "average_precision": curve.average_precision()}
        return found | {f"recall_at_fpr_{rate_name(fpr)}": curve.recall_at_fpr(fpr) for fpr in rates}

    return measures


def probability_measures(probabilities: np.ndarray, truth: np.ndarray) -> Measures:
    """Brier score (1950), log loss and expected calibration error of `[n]` probabilities against 0 or 1."""
    truth = np.asarray(truth, np.float64)
    squared = (probabilities - truth) ** 2
    # A float of exactly 0 or 1 stands for one so near that nothing tells it apart; its loss is that of the next float.
    inside = np.clip(probabilities, np.finfo(np.float64).tiny, np.nextafter(1.0, 0.0))
    surprise = -(truth * np.log(inside) + (1 - truth) * np.log1p(-inside))

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        counts = np.ones((1, len(truth))) if weights is None else weights
        total = counts.sum(axis=1)
        return {
            "brier": counts @ squared / total,
            "log_loss": counts @ surprise / total,
            ECE: calibration_error(probabilities, truth, weights),
        }

    return measures


def decision_measures(flagged: np.ndarray, positive: np.ndarray) -> Measures:
    """F1 of decisions `[n]` against the truth `[n]`, both masks."""
    hits, wrong = (flagged & positive).astype(float), (flagged != positive).astype(float)

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        counts = np.ones((1, len(hits))) if weights is None else weights
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"f1": 2 * (counts @ hits) / (2 * (counts @ hits) + counts @ wrong)}

    return measures


def confusion_cells(flagged: np.ndarray, positive: np.ndarray) -> dict[str, np.ndarray]:
    """Masks `[n]` of the four outcomes of a decision."""
    return {
        "true_positives": flagged & positive,
        "false_positives": flagged & ~positive,
        "false_negatives": ~flagged & positive,
        "true_negatives": ~flagged & ~positive,
    }


def share_measures(name: str, held: np.ndarray) -> Measures:
    """The share of prompts for which something held, `[n]`."""
    values = held.astype(float)

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        counts = np.ones((1, len(values))) if weights is None else weights
        return {name: counts @ values / counts.sum(axis=1)}

    return measures


def precision_measures(scores: np.ndarray, positive: np.ndarray, fpr: float, base_rates: Sequence[float]) -> Measures:
    """Precision at each base rate, at the threshold that gives this false-positive rate on the sample."""
    ranking = Ranking(scores, positive)

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        curve = ranking.curve(weights)
        recalls = curve.recall_at_fpr(fpr)
        return {
            base_rate_name(rate): np.array([precision_at(rate, recall, fpr) for recall in recalls])
            for rate in base_rates
        }

    return measures


def base_rate_name(rate: float) -> str:
    """The metric's name at an assumed share of distillation: 0.001 as `precision_at_1_in_1000`."""
    return f"precision_at_1_in_{round(1 / rate)}"


def precision_estimate(rate: float, hits: int, positives: int, alarms: int, organic: int) -> Estimate:
    """Precision at a fixed threshold and an assumed base rate, from exact intervals of both of its rates.

    Each of the two is at level sqrt(0.95), so that both hold together with 95 %: they come from different prompts.
    """
    n = positives + organic
    if not positives or not organic:
        return missing(n, BOTH)
    level = 0.95**0.5
    recall_low, recall_high = exact_interval(hits, positives, level)
    fpr_low, fpr_high = exact_interval(alarms, organic, level)
    low, high = precision_at(rate, recall_low, fpr_high), precision_at(rate, recall_high, fpr_low)
    if not hits and not alarms:
        return Estimate(None, low, high, n, "nothing was flagged")
    return Estimate(precision_at(rate, hits / positives, alarms / organic), low, high, n)
