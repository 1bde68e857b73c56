"""How well scores rank rare positives: areas, and recall at low false-positive rates.

The arithmetic takes weights, so that a bootstrap over clusters is one matrix of counts rather than a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FPR_RATES = (0.05, 0.01, 0.001, 0.0001)


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

    def curve(self, weights: np.ndarray | None = None) -> Curve:
        """Positives and negatives at or over each score, from which every metric follows."""
        counts = np.ones((1, len(self._order))) if weights is None else np.atleast_2d(weights)[:, self._order]
        positives = counts * self._positive
        negatives = counts - positives
        if len(self._starts) < len(self._order):
            positives = np.add.reduceat(positives, self._starts, axis=1)
            negatives = np.add.reduceat(negatives, self._starts, axis=1)
        return Curve(positives, negatives, np.cumsum(positives, axis=1), np.cumsum(negatives, axis=1))

    def roc_auc(self, weights: np.ndarray | None = None, max_fpr: float = 1.0) -> np.ndarray:
        """See `Curve.roc_auc`."""
        return self.curve(weights).roc_auc(max_fpr)

    def recall_at_fpr(self, fpr: float, weights: np.ndarray | None = None) -> np.ndarray:
        """See `Curve.recall_at_fpr`."""
        return self.curve(weights).recall_at_fpr(fpr)

    def average_precision(self, weights: np.ndarray | None = None) -> np.ndarray:
        """See `Curve.average_precision`."""
        return self.curve(weights).average_precision()


@dataclass(frozen=True, slots=True)
class Curve:
    """Weight of positives and negatives in each tied group and at or over it, `[draws, groups]`, highest score first.

    A metric is not a number in a draw that lacks the positives or negatives that it needs.
    """

    positives: np.ndarray
    negatives: np.ndarray
    positives_over: np.ndarray
    negatives_over: np.ndarray

    @property
    def n_positive(self) -> np.ndarray:
        """Weight of all positives, `[draws]`."""
        return self.positives_over[:, -1]

    @property
    def n_negative(self) -> np.ndarray:
        """Weight of all negatives, `[draws]`."""
        return self.negatives_over[:, -1]

    def roc_auc(self, max_fpr: float = 1.0) -> np.ndarray:
        """Area under ROC; with `max_fpr` the partial area, standardised to 0.5 at chance (McClish 1989)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if max_fpr == 1.0:
                below = self.positives_over - self.positives / 2
                return (below * self.negatives).sum(axis=1) / (self.n_positive * self.n_negative)
            limit = max_fpr * self.n_negative[:, None]
            before = self.negatives_over - self.negatives
            inside = np.clip(limit - before, 0, self.negatives)
            slope = np.where(self.negatives > 0, self.positives / np.where(self.negatives > 0, self.negatives, 1), 0)
            below = self.positives_over - self.positives
            area = (inside * (below + slope * inside / 2)).sum(axis=1) / (self.n_positive * self.n_negative)
        chance = max_fpr**2 / 2
        standardised: np.ndarray = 0.5 * (1 + (area - chance) / (max_fpr - chance))
        return standardised

    def recall_at_fpr(self, fpr: float) -> np.ndarray:
        """Share of positives over the lowest threshold that lets through at most floor(n * fpr) of n negatives."""
        allowed = np.floor(self.n_negative[:, None] * fpr + 1e-9)
        passed = self.negatives_over <= allowed
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.positives * passed).sum(axis=1) / self.n_positive

    def average_precision(self) -> np.ndarray:
        """Area under the precision-recall curve as a sum of steps."""
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = self.positives_over / (self.positives_over + self.negatives_over)
            return np.nansum(self.positives * precision, axis=1) / self.n_positive


def threshold_at(scores: np.ndarray, organic: np.ndarray, fpr: float) -> float:
    """The highest organic score that must stay out at this rate on this very sample; what is over it is found."""
    ranked = np.sort(scores[organic])[::-1]
    return float(ranked[int(len(ranked) * fpr + 1e-9)]) if len(ranked) else np.inf


def source_recalls(over: np.ndarray, positive: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Share of each source's positives that is over a threshold, `[sources]`: a large source is one among them."""
    return np.array([over[positive & (sources == source)].mean() for source in sorted(set(sources[positive]))])


def precision_at(base_rate: float, recall: float, fpr: float) -> float:
    """Share of true ones among the flagged where `base_rate` of the traffic is positive (Bayes); 0 of none is 1."""
    flagged = base_rate * recall + (1 - base_rate) * fpr
    return base_rate * recall / flagged if flagged else 1.0
