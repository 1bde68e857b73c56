"""Metrics for rare positives: `evaluate.Metric` subclasses that need no download, and the arithmetic under them.

The arithmetic takes weights, so that a bootstrap over clusters is one matrix of counts rather than a loop.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import beta

FPR_RATES = (0.05, 0.01, 0.001)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its 95 % interval; `n` prompts stand behind it. `value` is None where `note` says why."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in `metrics.json`."""
        return {name: value for name, value in asdict(self).items() if name != "note" or value is not None}


def rate_name(fpr: float) -> str:
    """0.001 as `0.1pct`."""
    return f"{fpr * 100:g}pct"


class Ranking:
    """Scores and truth sorted once; each metric is then a sum over tied groups, for one or many weightings.

    Weights are `[draws, n]` (or `[n]`), one non-negative count for each prompt; results are `[draws]`.
    """

    def __init__(self, scores: np.ndarray, truth: np.ndarray) -> None:
        self._order = np.argsort(-np.asarray(scores), kind="stable")
        ranked = np.asarray(scores)[self._order]
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.zeros(0, int)
        self._positive = np.asarray(truth)[self._order].astype(np.float64)

    def _groups(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Weight of positives and negatives in each tied group, `[draws, groups]`, highest score first."""
        counts = np.ones((1, len(self._order))) if weights is None else np.atleast_2d(weights)[:, self._order]
        positives = np.add.reduceat(counts * self._positive, self._starts, axis=1)
        return positives, np.add.reduceat(counts * (1 - self._positive), self._starts, axis=1)

    def roc_auc(self, weights: np.ndarray | None = None, max_fpr: float = 1.0) -> np.ndarray:
        """Area under ROC; with `max_fpr` the partial area, standardised to 0.5 at chance (McClish 1989)."""
        positives, negatives = self._groups(weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            tpr = np.cumsum(positives, axis=1) / positives.sum(axis=1, keepdims=True)
            fpr = np.cumsum(negatives, axis=1) / negatives.sum(axis=1, keepdims=True)
            zero = np.zeros((len(tpr), 1))
            tpr, fpr = np.hstack([zero, tpr]), np.hstack([zero, fpr])
            start, width = fpr[:, :-1], np.diff(fpr, axis=1)
            inside = np.clip(max_fpr - start, 0, width)
            slope = np.where(width > 0, np.diff(tpr, axis=1) / np.where(width > 0, width, 1), 0)
            area = (inside * (tpr[:, :-1] + slope * inside / 2)).sum(axis=1)
            area = np.where(np.isnan(fpr[:, -1] + tpr[:, -1]), np.nan, area)
        if max_fpr == 1.0:
            return area
        chance = max_fpr**2 / 2
        return 0.5 * (1 + (area - chance) / (max_fpr - chance))

    def recall_at_fpr(self, fpr: float, weights: np.ndarray | None = None) -> np.ndarray:
        """Share of positives over the lowest threshold that lets through at most floor(n * fpr) of n negatives."""
        positives, negatives = self._groups(weights)
        allowed = np.floor(negatives.sum(axis=1, keepdims=True) * fpr + 1e-9)
        passed = np.cumsum(negatives, axis=1) <= allowed
        with np.errstate(invalid="ignore", divide="ignore"):
            return (positives * passed).sum(axis=1) / positives.sum(axis=1)

    def average_precision(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Area under the precision-recall curve as a sum of steps."""
        positives, negatives = self._groups(weights)
        above = np.cumsum(positives, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = above / (above + np.cumsum(negatives, axis=1))
            return np.nansum(positives * precision, axis=1) / positives.sum(axis=1)


def threshold_at(scores: np.ndarray, organic: np.ndarray, fpr: float) -> float:
    """The highest organic score that must stay out at this rate on this very sample; what is over it is found."""
    ranked = np.sort(scores[organic])[::-1]
    return float(ranked[int(len(ranked) * fpr + 1e-9)]) if len(ranked) else np.inf


def source_recalls(over: np.ndarray, positive: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Share of each source's positives that is over a threshold, `[sources]`: a large source is one among them."""
    return np.array([over[positive & (sources == source)].mean() for source in sorted(set(sources[positive]))])


def bootstrap_weights(clusters: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Counts `[draws, n]` of a bootstrap over whole clusters: prompts of one cluster are not independent."""
    names, member = np.unique(clusters, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, member].astype(np.float64)


def exact_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def rate_estimate(successes: int, n: int) -> Estimate:
    """A rate with its exact interval."""
    if n == 0:
        return Estimate(None, None, None, 0, "no prompts")
    return Estimate(successes / n, *exact_interval(successes, n), n)


class _RankingMetric(evaluate.Metric):
    """A metric of scores against 0/1 truth, computed in memory."""

    about = ""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=True, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about,
            citation="",
            inputs_description="predictions: scores, higher is more likely positive; references: 0 or 1",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        return self._measure(Ranking(np.asarray(predictions), np.asarray(references)))

    @abstractmethod
    def _measure(self, ranking: Ranking) -> dict[str, float]:
        """The metric under its name."""


class RocAuc(_RankingMetric):
    """Area under the ROC curve."""

    about = "Area under the ROC curve: chance that a positive scores over a negative, ties counted half."

    def _measure(self, ranking: Ranking) -> dict[str, float]:
        return {"roc_auc": float(ranking.roc_auc()[0])}


class PartialRocAuc(_RankingMetric):
    """Area under the ROC curve up to 5 % false positives, standardised."""

    about = "Partial area under the ROC curve up to 5 % false positives, 0.5 at chance (McClish 1989)."

    def _measure(self, ranking: Ranking) -> dict[str, float]:
        return {"partial_roc_auc": float(ranking.roc_auc(max_fpr=0.05)[0])}


class AveragePrecision(_RankingMetric):
    """Area under the precision-recall curve."""

    about = "Average precision: the sum of precision over steps of recall."

    def _measure(self, ranking: Ranking) -> dict[str, float]:
        return {"average_precision": float(ranking.average_precision()[0])}


class RecallAtFpr(_RankingMetric):
    """Recall at a false-positive rate."""

    about = "Share of positives over the lowest threshold that keeps the rate of false positives."

    def __init__(self, fpr: float, **kwargs: Any) -> None:
        self.fpr = fpr
        super().__init__(**kwargs)

    def _measure(self, ranking: Ranking) -> dict[str, float]:
        return {f"recall_at_fpr_{rate_name(self.fpr)}": float(ranking.recall_at_fpr(self.fpr)[0])}


def headline(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The metrics watched while training."""
    together = evaluate.combine([PartialRocAuc(), RocAuc(), RecallAtFpr(0.05), RecallAtFpr(0.01)])
    return dict(together.compute(predictions=scores, references=truth))
