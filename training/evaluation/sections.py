"""All metrics of an evaluation, by section, each with its interval: what `metrics.json` holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inference.artefact import Assay, OperatingPoint
from inference.decision import DISTILLATION, sigmoid

from ..metrics.intervals import (
    DRAWS,
    ClusterBootstrap,
    Estimate,
    count_estimate,
    missing,
    rate_estimate,
)
from ..metrics.measures import (
    BASE_RATES,
    BOTH,
    ECE,
    base_rate_name,
    confusion_cells,
    decision_measures,
    precision_estimate,
    probability_measures,
    ranking_measures,
    share_measures,
)
from ..metrics.ranking import FPR_RATES, rate_name, source_recalls, threshold_at
from ..metrics.reliability import ReliabilityBin, reliability_bins, uncalibrated
from .labelled import Measured
from .slices import Part, part_section, parts_of

Sections = dict[str, dict[str, Estimate]]
CALIBRATION = "calibration"
AMBIGUOUS = "ambiguous"
SOURCE_MEAN = "mean_source_recall_at_fpr_1pct"
PROMISED = "promised_false_positive_rate"


def evaluate_sections(measured: Measured, assay: Assay, columns: Sequence[str] = (), seed: int = 0) -> Sections:
    """All metrics: the questions, the operating points, calibration, and each slice.

    Prompts that the labeller calls ambiguous are left out of all but their own section.

    Args:
        measured: records and predictions.
        assay: the artefact that made them.
        columns: further columns of the records to slice by.
        seed: of the bootstrap.

    Raises:
        DataError: no record has a column that is named.
    """
    apart = measured.ambiguous
    clear = measured.only(~apart) if apart.any() else measured
    bootstrap = ClusterBootstrap(clear.clusters, seed=seed)
    scores = clear.scores(DISTILLATION)
    sections = {DISTILLATION: _question(clear, DISTILLATION, clear.truth, clear.truth, bootstrap)}
    sections[DISTILLATION][SOURCE_MEAN] = mean_over_sources(source_means(clear, scores))
    for i, name in enumerate(assay.labels):
        # A category is ranked against organic prompts alone: taking one category for another accuses nobody.
        ranked = np.where(clear.labels[:, i] == 1, 1.0, np.where(clear.truth == 0, 0.0, -1.0))
        sections[name] = _question(clear, name, ranked, clear.labels[:, i], bootstrap)
    for name, point in assay.operating_points.items():
        sections |= _point_sections(clear, assay, name, point, bootstrap)
    sections[CALIBRATION] = _calibration_section(clear, assay, bootstrap)
    limit = threshold_at(scores, clear.truth == 0, 0.01)
    default = assay.point().thresholds[DISTILLATION]
    for part in parts_of(clear, columns):
        sections[part.name] = part_section(clear, part, scores > limit, scores >= default, bootstrap)
    if apart.any():
        everything = measured.scores(DISTILLATION)
        doubtful = Part(AMBIGUOUS, "", apart)
        whole = ClusterBootstrap(measured.clusters, seed=seed)
        sections[AMBIGUOUS] = part_section(measured, doubtful, everything > limit, everything >= default, whole)
    return sections


def _question(
    measured: Measured, name: str, ranked: np.ndarray, truth: np.ndarray, bootstrap: ClusterBootstrap
) -> dict[str, Estimate]:
    """Ranking by `ranked` and probabilities by `truth`, each `[n]`: 1, 0, or negative where unknown."""
    scores = measured.scores(name)
    known = ranked >= 0
    positive = ranked[known] == 1
    n, organic = int(known.sum()), int((~positive).sum())
    if organic in (0, n):
        names = ["roc_auc", "average_precision", *(f"recall_at_fpr_{rate_name(fpr)}" for fpr in FPR_RATES)]
        section = {metric: missing(n, BOTH) for metric in names}
    else:
        supported, lacking = rates_for(organic, n)
        section = (
            bootstrap.estimates(ranking_measures(scores[known], positive, supported), known, positive=ranked == 1)
            | lacking
        )
    judged = truth >= 0
    if not judged.any():
        return section | {metric: missing(0, "no prompts") for metric in ("brier", "log_loss", ECE)}
    return section | bootstrap.estimates(probability_measures(scores[judged], truth[judged]), judged, centred=[ECE])


def rates_for(organic: int, n: int) -> tuple[list[float], dict[str, Estimate]]:
    """The false-positive rates that so many organic prompts of `n` can tell of; and recall at the others: why not."""
    supported = [fpr for fpr in FPR_RATES if organic * fpr >= 1]
    return supported, {
        f"recall_at_fpr_{rate_name(fpr)}": missing(
            n, f"needs {round(1 / fpr):,} organic prompts, and {organic:,} are there"
        )
        for fpr in FPR_RATES
        if fpr not in supported
    }


def source_means(measured: Measured, scores: np.ndarray) -> np.ndarray | None:
    """Recall at 1 % false positives of each source with positives, `[sources]`; None on too few prompts."""
    organic = measured.truth == 0
    over = scores > threshold_at(scores, organic, 0.01)
    recalls = source_recalls(over, measured.truth == 1, measured.sources)
    return recalls if len(recalls) and organic.sum() >= 100 else None


def mean_over_sources(recalls: np.ndarray | None) -> Estimate:
    """The mean over sources, in which a large one counts no more than a small one, by a bootstrap over sources.

    The draws are the same whatever the values, so that differences of two artefacts can be given as well.
    """
    if recalls is None:
        return missing(0, "needs positive prompts, and 100 organic ones")
    draws = np.random.default_rng(0).choice(recalls, (DRAWS, len(recalls))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(recalls.mean()), float(low), float(high), len(recalls))


def _point_sections(
    measured: Measured, assay: Assay, name: str, point: OperatingPoint, bootstrap: ClusterBootstrap
) -> Sections:
    """What an operating point does here: of distillation against its promise, and of each category."""
    section = _decisions(measured.scores(DISTILLATION) >= point.thresholds[DISTILLATION], measured.truth, bootstrap)
    section[PROMISED] = Estimate(point.fpr, point.fpr_low, point.fpr_high, point.n_organic)
    if not point.n_organic:
        section[PROMISED] = missing(0, "was set on no organic prompts")
    right = np.ones(len(measured.records), bool)
    sections = {f"operating point {name}": section}
    for i, label in enumerate(assay.labels):
        flagged = measured.scores(label) >= point.thresholds[label]
        right &= flagged == (measured.labels[:, i] == 1)
        sections[f"operating point {name} {label}"] = _decisions(flagged, measured.labels[:, i], bootstrap)
    judged = np.asarray((measured.labels >= 0).all(axis=1))
    if judged.any():
        section |= bootstrap.estimates(share_measures("subset_accuracy", right[judged]), judged)
    else:
        section["subset_accuracy"] = missing(0, "no prompt is judged in every category")
    return sections


def _decisions(flagged: np.ndarray, truth: np.ndarray, bootstrap: ClusterBootstrap) -> dict[str, Estimate]:
    """Rates, precision where positives are rare, F1 and the four counts, for decisions `[n]`."""
    known = truth >= 0
    flagged, positive = flagged[known], truth[known] == 1
    n, hits, alarms = len(flagged), int((flagged & positive).sum()), int((flagged & ~positive).sum())
    organic = int((~positive).sum())
    section = {
        "false_positive_rate": rate_estimate(alarms, organic),
        "recall": rate_estimate(hits, n - organic),
    }
    section |= {
        base_rate_name(rate): precision_estimate(rate, hits, n - organic, alarms, organic) for rate in BASE_RATES
    }
    section |= bootstrap.estimates(decision_measures(flagged, positive), known) if n else {"f1": missing(0, BOTH)}
    return section | {
        cell: count_estimate(int(mask.sum()), n) for cell, mask in confusion_cells(flagged, positive).items()
    }


def _calibration_section(measured: Measured, assay: Assay, bootstrap: ClusterBootstrap) -> dict[str, Estimate]:
    """Errors of the probability of distillation as it ships, and as it was before calibration."""
    known = measured.truth >= 0
    names = (ECE, "brier", "log_loss")
    n = int(known.sum())
    if n == 0:
        return {name: missing(0, "no prompts") for name in (ECE, *(f"{name}_before" for name in names))}
    after, truth = measured.scores(DISTILLATION)[known], measured.truth[known]
    section = {ECE: bootstrap.estimates(probability_measures(after, truth), known, centred=[ECE])[ECE]}
    before = _before(after, assay)
    if before is None:
        return section | {f"{name}_before": missing(n, "a calibration of slope 0 cannot be undone") for name in names}
    raw = bootstrap.estimates(probability_measures(before, truth), known, centred=[ECE])
    return section | {f"{name}_before": raw[name] for name in names}


def reliability(measured: Measured, assay: Assay) -> tuple[list[ReliabilityBin], list[ReliabilityBin]]:
    """The points of the reliability diagram before and after calibration; without any before where slope is 0."""
    known = (measured.truth >= 0) & ~measured.ambiguous
    after, truth = measured.scores(DISTILLATION)[known], measured.truth[known]
    before = _before(after, assay)
    return [] if before is None else reliability_bins(before, truth), reliability_bins(after, truth)


def _before(after: np.ndarray, assay: Assay) -> np.ndarray | None:
    """What the network's own logits give without calibration; None where that cannot be had back."""
    platt = assay.calibration[DISTILLATION]
    return sigmoid(uncalibrated(after, platt)) if platt.slope else None


def sections_to_json(sections: Sections) -> dict[str, dict[str, Any]]:
    """`{section: {metric: {value, low, high, n}}}`, as `metrics.json` holds it."""
    return {
        name: {metric: estimate.to_json() for metric, estimate in section.items()} for name, section in sections.items()
    }


def sections_from_json(content: dict[str, dict[str, Any]]) -> Sections:
    """What `sections_to_json` wrote."""
    return {name: {metric: Estimate(**value) for metric, value in section.items()} for name, section in content.items()}
