"""Calibration and thresholds, from the logits of the calibration split and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from data.records import Record
from inference.artefact import Abstention, OperatingPoint, Platt
from inference.decision import DISTILLATION, any_logit

from .encode import DataError, any_label, load_split, records_of
from .metrics.intervals import exact_interval
from .metrics.ranking import rate_name

FPR_POINTS = (0.05, 0.01, 0.001)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What calibration adds to an artefact."""

    platt: dict[str, Platt]
    points: dict[str, OperatingPoint]
    abstention: Abstention
    positive_share: float


def calibration_records(folder: Path, split: str = "calibration") -> list[Record]:
    """The records of a built folder that calibration and thresholds may be set on.

    Raises:
        DataError: the split is missing or empty, is the test split, or shares prompts with it: thresholds that were set
            on what they are judged by promise nothing.
    """
    if split == "test":
        raise DataError(f"{folder}: never calibrate on the test split; use calibration")
    records = records_of(load_split(folder, split))
    judged = {record.rendered for record in records_of(load_split(folder, "test"))}
    shared = sum(record.rendered in judged for record in records)
    if shared:
        raise DataError(f"{folder}: {shared} prompts of {split} stand in test too; build the data again")
    return records


def calibrate(
    names: Sequence[str], logits: np.ndarray, labels: np.ndarray, coverage: float, method: str = "platt"
) -> Calibrated:
    """Fit everything that turns logits into decisions.

    Args:
        names: the categories.
        logits: `[prompts, categories]`, pooled.
        labels: `[prompts, categories]`, 1, 0, or negative where unknown.
        coverage: of the abstention band, in each class.
        method: `platt` fits slope and offset, `temperature` the slope alone (Guo et al. 2017).
    """
    columns = {name: (logits[:, i], labels[:, i]) for i, name in enumerate(names)}
    columns[DISTILLATION] = (any_logit(logits), any_label(labels))
    platt, scores = {}, {}
    for name, (values, truth) in columns.items():
        known = truth >= 0
        platt[name] = fit_platt(values[known], truth[known], method)
        scores[name] = platt[name].apply(values)
    truths = {name: truth for name, (_, truth) in columns.items()}
    truth = truths[DISTILLATION]
    return Calibrated(
        platt=platt,
        points=operating_points(scores, truths),
        abstention=abstention_band(scores[DISTILLATION], truth, coverage),
        positive_share=float((truth == 1).sum() / (truth >= 0).sum()),
    )


def fit_platt(logits: np.ndarray, truth: np.ndarray, method: str = "platt") -> Platt:
    """Slope and offset by maximum likelihood, with Platt's own targets, which keep them finite (Platt 1999).

    With `temperature` the offset stays 0: probabilities draw together or apart, and 0.5 stays where it is.
    """
    positives, negatives = int((truth == 1).sum()), int((truth == 0).sum())
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = x[0] * logits + x[1]
        gradient = np.exp(-np.logaddexp(0, -z)) - target
        return float(np.mean(np.logaddexp(0, z) - target * z)), np.array(
            [np.mean(gradient * logits), np.mean(gradient)]
        )

    offset = (0.0, 0.0) if method == "temperature" else (-1e3, 1e3)
    # A slope under zero would turn the ranking round: the model knows better than a few prompts.
    fitted = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, 1e3), offset])
    return Platt(float(fitted.x[0]), float(fitted.x[1]))


def operating_points(scores: dict[str, np.ndarray], truths: dict[str, np.ndarray]) -> dict[str, OperatingPoint]:
    """The operating points that the calibration split can carry: a rate needs 3 / rate organic prompts.

    With fewer, not even zero false positives would bound the rate (the rule of three).
    """
    organic = truths[DISTILLATION] == 0
    points = {
        f"fpr-{rate_name(fpr)}": _point(
            {name: fpr_threshold(values, organic, fpr) for name, values in scores.items()}, scores, organic, fpr
        )
        for fpr in FPR_POINTS
        if organic.sum() * fpr >= 3 - 1e-9
    }
    balanced = {name: f1_threshold(values, truths[name]) for name, values in scores.items()}
    points["balanced"] = _point(balanced, scores, organic, None)
    return points


def fpr_threshold(scores: np.ndarray, organic: np.ndarray, fpr: float) -> float:
    """The lowest threshold, midway between two neighbouring scores, that lets through at most floor(n * fpr) of the
    n organic prompts."""
    negatives = np.sort(scores[organic])[::-1]
    allowed = math.floor(len(negatives) * fpr + 1e-9)
    if allowed >= len(negatives):
        return 0.0
    return _just_over(scores, float(negatives[allowed]))


def f1_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold of the best F1, midway between two neighbouring scores."""
    known = truth >= 0
    order = np.argsort(-scores[known], kind="stable")
    ranked, positive = scores[known][order], (truth[known] == 1)[order]
    hits = np.cumsum(positive)
    if hits[-1] == 0:
        return 1.0
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    f1[np.r_[ranked[1:] == ranked[:-1], False]] = -1  # tied scores pass together
    best = int(f1.argmax())
    return _just_over(scores, float(ranked[best + 1])) if best + 1 < len(ranked) else 0.0


def _just_over(scores: np.ndarray, score: float) -> float:
    """Midway between `score` and the next higher one (or 1); the higher one itself where no float lies between."""
    higher = scores[scores > score]
    above = float(higher.min()) if len(higher) else 1.0
    middle = (score + above) / 2
    if middle > score:
        return middle
    return above if above > score else float(np.nextafter(score, 2))


def _point(
    thresholds: dict[str, float], scores: dict[str, np.ndarray], organic: np.ndarray, fpr: float | None
) -> OperatingPoint:
    n = int(organic.sum())
    passed = int((scores[DISTILLATION][organic] >= thresholds[DISTILLATION]).sum())
    low, high = exact_interval(passed, n)
    return OperatingPoint(thresholds, fpr, n, passed, low, high)


def abstention_band(scores: np.ndarray, truth: np.ndarray, coverage: float) -> Abstention:
    """Split conformal prediction in each class (Vovk 2012): outside the band one label alone is plausible.

    Below `high` lie at least `coverage` of the organic prompts, above `low` as many of the others; where the two
    overlap both labels are plausible, and where they leave a gap neither is: both count as uncertain.
    """
    organic, positive = np.sort(scores[truth == 0]), np.sort(scores[truth == 1])
    rank = math.ceil((len(organic) + 1) * coverage)
    high = float(organic[rank - 1]) if rank <= len(organic) else 1.0
    rank = math.ceil((len(positive) + 1) * coverage)
    low = float(positive[len(positive) - rank]) if rank <= len(positive) else 0.0
    return Abstention(min(low, high), max(low, high), coverage)
