"""The metrics as `evaluate.Metric` subclasses that need no download.

They are computed in memory, can be combined, and give 95 % intervals where clusters are named:

    together = evaluate.combine([RocAuc(), RecallAtFpr(0.01)])
    together.compute(predictions=scores, references=truth, clusters=groups)
    {"roc_auc": 0.97, "roc_auc_low": 0.95, "roc_auc_high": 0.98, "recall_at_fpr_1pct": …}
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .intervals import DRAWS, ClusterBootstrap, Measures
from .measures import (
    BASE_RATES,
    ECE,
    confusion_cells,
    decision_measures,
    precision_measures,
    probability_measures,
    ranking_measures,
    share_measures,
)
from .ranking import Ranking, rate_name


class _InMemory(evaluate.Metric):
    """A metric of one prediction against one reference, computed in memory; with intervals where clusters are named."""

    about = ""
    inputs = "predictions: scores or probabilities, higher is more likely positive; references: 0 or 1"
    names: Sequence[str] | None = None
    """Which of the measures this metric gives; all of them for None."""

    def __init__(self, draws: int = DRAWS, seed: int = 0, **kwargs: Any) -> None:
        self.draws, self.draw_seed = draws, seed
        super().__init__(keep_in_memory=True, **kwargs)

    def _features(self) -> datasets.Features:
        return datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about, citation="", inputs_description=self.inputs, features=self._features()
        )

    def _compute(
        self, *, predictions: Any = None, references: Any = None, clusters: Any = None, **kwargs: Any
    ) -> dict[str, float]:
        """The metric by name; with `clusters` (one a prompt) also `NAME_low` and `NAME_high`."""
        measures = self._measures(np.asarray(predictions), np.asarray(references))
        values = measures(None)
        wanted = list(values) if self.names is None else list(self.names)
        result = {name: float(values[name][0]) for name in wanted}
        if clusters is not None:
            everyone = np.ones(len(references), bool)
            bootstrap = ClusterBootstrap(np.asarray(clusters), self.draws, self.draw_seed)
            for name, estimate in bootstrap.estimates(measures, everyone, centred=[ECE]).items():
                if name in wanted and estimate.low is not None and estimate.high is not None:
                    result |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        return result

    @abstractmethod
    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        """What is measured, for any weights."""


class RocAuc(_InMemory):
    """Area under the ROC curve."""

    about = "Area under the ROC curve: chance that a positive scores over a negative, ties counted half."
    names = ("roc_auc",)

    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        return ranking_measures(predictions, references == 1, ())


class AveragePrecision(RocAuc):
    """Area under the precision-recall curve."""

    about = "Average precision: the sum of precision over steps of recall."
    names = ("average_precision",)


class PartialRocAuc(_InMemory):
    """Area under the ROC curve up to 5 % false positives, standardised."""

    about = "Partial area under the ROC curve up to 5 % false positives, 0.5 at chance (McClish 1989)."

    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        ranking = Ranking(predictions, references)
        return lambda weights: {"partial_roc_auc": ranking.roc_auc(weights, max_fpr=0.05)}


class RecallAtFpr(_InMemory):
    """Recall at a false-positive rate."""

    about = "Share of positives over the lowest threshold that keeps the rate of false positives."

    def __init__(self, fpr: float, **kwargs: Any) -> None:
        self.fpr = fpr
        self.names = (f"recall_at_fpr_{rate_name(fpr)}",)
        super().__init__(**kwargs)

    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        return ranking_measures(predictions, references == 1, (self.fpr,))


class PrecisionAtBaseRate(_InMemory):
    """Precision in traffic of which a small share is positive, at a false-positive rate."""

    about = "Precision by Bayes' rule at assumed shares of positives, at the threshold that keeps the rate."

    def __init__(self, fpr: float, base_rates: Sequence[float] = BASE_RATES, **kwargs: Any) -> None:
        self.fpr, self.base_rates = fpr, tuple(base_rates)
        super().__init__(**kwargs)

    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        return precision_measures(predictions, references == 1, self.fpr, self.base_rates)


class Brier(_InMemory):
    """Mean squared error of probabilities."""

    about = "Mean squared distance between probability and truth (Brier 1950)."
    names: Sequence[str] | None = ("brier",)

    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        return probability_measures(predictions, references)


class LogLoss(Brier):
    """Mean negative log-likelihood, in nats."""

    about = "Mean negative log-likelihood of the truth, in nats."
    names = ("log_loss",)


class ExpectedCalibrationError(Brier):
    """Mean distance between predicted and observed, in bins of equally many prompts."""

    about = "Expected calibration error over 15 bins of equal mass (Naeini et al. 2015; Nixon et al. 2019)."
    names = (ECE,)


class F1(_InMemory):
    """F1 at a fixed threshold."""

    about = "Harmonic mean of precision and recall of scores at or over a threshold."

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        self.threshold = threshold
        super().__init__(**kwargs)

    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        return decision_measures(predictions >= self.threshold, references == 1)


class Confusion(_InMemory):
    """The four counts of decisions at a fixed threshold."""

    about = "True and false positives and negatives of scores at or over a threshold."

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        self.threshold = threshold
        super().__init__(**kwargs)

    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        flagged, positive = predictions >= self.threshold, references == 1
        cells = confusion_cells(flagged, positive)

        def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
            counts = np.ones((1, len(flagged))) if weights is None else weights
            return {name: counts @ cell.astype(float) for name, cell in cells.items()}

        return measures


class SubsetAccuracy(_InMemory):
    """Share of prompts whose whole set of labels is right."""

    about = "Share of prompts of which every label is decided as the reference says (exact match)."
    inputs = "predictions and references: a list of 0 or 1 for each prompt, one for each label"

    def _features(self) -> datasets.Features:
        labels = datasets.Sequence(datasets.Value("int64"))
        return datasets.Features({"predictions": labels, "references": labels})

    def _measures(self, predictions: np.ndarray, references: np.ndarray) -> Measures:
        return share_measures("subset_accuracy", (predictions == references).all(axis=1))


def headline(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The metrics watched while training."""
    together = evaluate.combine([PartialRocAuc(), RocAuc(), RecallAtFpr(0.05), RecallAtFpr(0.01)])
    return dict(together.compute(predictions=scores, references=truth))
