"""Measuring an artefact on labelled data, through the same scorer that ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.reading import MANIFEST_FILE, load_records
from data.records import Fault, Record
from data.split import clusters
from inference import PromptClassifier
from inference.artefact import Assay
from inference.classifier import LogitScorer
from inference.decision import DISTILLATION, Prediction, sigmoid
from inference.job.files import find_files

from .encode import DataError, any_label, label_row
from .metrics import (
    FPR_RATES,
    Estimate,
    Ranking,
    bootstrap_weights,
    rate_estimate,
    rate_name,
    source_recalls,
    threshold_at,
)
from .reliability import ReliabilityBin, calibration_error, reliability_bins, uncalibrated

Sections = dict[str, dict[str, Estimate]]
BOOTSTRAP_DRAWS = 1000
CALIBRATION = "calibration"
MIN_SLICE = 20
"""A slice with fewer prompts has an interval too wide to tell anything, and gets no section."""
LENGTH_BANDS = {"under 150": (0, 150), "150-500": (150, 500), "500-1,500": (500, 1500), "over 1,500": (1500, np.inf)}
"""Lengths of rendered prompts, in characters: from the first number up to but without the second."""
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Measured:
    """Records and what the artefact says of them, in one order."""

    records: list[Record]
    predictions: list[Prediction]
    labels: np.ndarray
    clusters: np.ndarray

    @property
    def truth(self) -> np.ndarray:
        """Whether any category applies: 1, 0, or negative where unknown."""
        return any_label(self.labels)

    def scores(self, name: str) -> np.ndarray:
        """Calibrated probabilities of one category, or of distillation."""
        if name == DISTILLATION:
            return np.array([prediction.distillation for prediction in self.predictions])
        return np.array([prediction.scores[name] for prediction in self.predictions])

    @property
    def sources(self) -> np.ndarray:
        """The source of each record."""
        return np.array([record.source for record in self.records], dtype=object)


def read_labelled(names: Sequence[str], split: str = "test") -> tuple[list[Record], list[Fault]]:
    """Labelled records from built folders (their split `split`) and from files, folders and globs of records."""
    paths: list[Path] = []
    for name in names:
        folder = Path(name)
        if (folder / MANIFEST_FILE).is_file():
            path = folder / f"{split}.parquet"
            if not path.is_file():
                raise DataError(f"{folder}: has no split {split}")
            paths.append(path)
        else:
            paths += find_files([name])
    return load_records(paths)


def exclude(records: Sequence[Record], conditions: Sequence[str]) -> list[Record]:
    """The records that match none of the conditions `field=value` (on any field of the record).

    Raises:
        DataError: a condition is malformed, or no record has its field.
    """
    kept = list(records)
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals:
            raise DataError(f"--exclude {condition}: write it as field=value, for example ambiguous=true")
        if not any(name in record.to_row() for record in records):
            raise DataError(f"--exclude {condition}: no record has a field {name}")
        kept = [record for record in kept if str(record.to_row().get(name)).lower() != value.lower()]
    return kept


def measure(classifier: PromptClassifier, records: Sequence[Record]) -> Measured:
    """Score labelled records, with a progress bar."""
    predictions: list[Prediction] = []
    with tqdm(total=len(records), unit="prompt", desc="measuring", mininterval=0.5) as bar:
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            predictions += classifier.classify([record.prompt for record in chunk])
            bar.update(len(chunk))
    names = classifier.assay.labels
    labels = np.array([label_row(record.labels, record.judged, names) for record in records])
    joined = [record.extra.get("cluster") for record in records]
    own = joined if all(joined) else clusters(list(records))
    return Measured(list(records), predictions, labels.reshape(len(records), len(names)), np.array(own))


def pooled_logits(scorer: LogitScorer, records: Sequence[Record]) -> np.ndarray:
    """Logits `[prompts, labels]` of a network that has no calibration yet, with a progress bar."""
    parts = []
    with tqdm(total=len(records), unit="prompt", desc="scoring", mininterval=0.5) as bar:
        for start in range(0, len(records), _CHUNK):
            parts.append(scorer([record.rendered for record in records[start : start + _CHUNK]])[0])
            bar.update(len(parts[-1]))
    return np.concatenate(parts)


def evaluate_sections(measured: Measured, classifier: PromptClassifier, seed: int = 0) -> Sections:
    """All metrics, by section: the two questions, the operating points, calibration, each slice and each source."""
    sections = {DISTILLATION: _ranking_section(measured, DISTILLATION, measured.truth, seed)}
    sections[DISTILLATION] |= _mean_over_sources(measured)
    sections[DISTILLATION]["brier"] = _brier(measured, measured.scores(DISTILLATION), seed)
    for i, name in enumerate(classifier.assay.labels):
        # A category is measured against organic prompts alone: taking one category for another accuses nobody.
        truth = np.where(measured.labels[:, i] == 1, 1.0, np.where(measured.truth == 0, 0.0, -1.0))
        sections[name] = _ranking_section(measured, name, truth, seed)
    for name, point in classifier.assay.operating_points.items():
        flagged = measured.scores(DISTILLATION) >= point.thresholds[DISTILLATION]
        sections[f"operating point {name}"] = {
            "false_positive_rate": _share(flagged, measured.truth == 0),
            "recall": _share(flagged, measured.truth == 1),
        }
    sections[CALIBRATION] = _calibration_section(measured, classifier.assay, seed)
    return sections | _slice_sections(measured, seed) | _source_sections(measured)


def reliability(measured: Measured, assay: Assay) -> tuple[list[ReliabilityBin], list[ReliabilityBin]]:
    """The points of the reliability diagram before and after calibration; without any before where slope is 0."""
    known = measured.truth >= 0
    after, truth = measured.scores(DISTILLATION)[known], measured.truth[known]
    before = _before(after, assay)
    return [] if before is None else reliability_bins(before, truth), reliability_bins(after, truth)


def _ranking_section(measured: Measured, name: str, truth: np.ndarray, seed: int) -> dict[str, Estimate]:
    known = truth >= 0
    scores, positive = measured.scores(name)[known], truth[known] == 1
    n, organic = int(known.sum()), int((~positive).sum())
    names = ["roc_auc", "average_precision", *(f"recall_at_fpr_{rate_name(fpr)}" for fpr in FPR_RATES)]
    if organic == 0 or organic == n:
        return {metric: Estimate(None, None, None, n, "needs both organic and positive prompts") for metric in names}
    ranking = Ranking(scores, positive)
    weights = bootstrap_weights(measured.clusters[known], BOOTSTRAP_DRAWS, seed)
    section = {
        "roc_auc": _estimate(ranking.roc_auc, weights, n),
        "average_precision": _estimate(ranking.average_precision, weights, n),
    }
    for fpr in FPR_RATES:
        metric = f"recall_at_fpr_{rate_name(fpr)}"
        if organic * fpr < 1:
            note = f"needs {round(1 / fpr):,} organic prompts, and {organic:,} are there"
            section[metric] = Estimate(None, None, None, n, note)
        else:
            section[metric] = _estimate(lambda w=None, fpr=fpr: ranking.recall_at_fpr(fpr, w), weights, n)
    return section


def _estimate(metric: Callable[..., np.ndarray], weights: np.ndarray, n: int, centred: bool = False) -> Estimate:
    """The value, and the percentile interval over the draws.

    `centred` moves the draws so that their mean is the value: a calibration error grows with noise, so each draw of a
    bootstrap has more of it than the sample, and the plain interval would lie over the value.
    """
    value, draws = float(metric()[0]), metric(weights)
    if centred:
        draws = np.clip(draws + value - np.nanmean(draws), 0, 1)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    # Few clusters, or the last digit of a sum, can leave the value itself outside.
    return Estimate(value, min(value, float(low)), max(value, float(high)), n)


def _brier(measured: Measured, probabilities: np.ndarray, seed: int) -> Estimate:
    known = measured.truth >= 0
    errors = (probabilities[known] - measured.truth[known]) ** 2
    if not len(errors):
        return Estimate(None, None, None, 0, "no prompts")

    def mean(weights: np.ndarray | None = None) -> np.ndarray:
        counts = np.ones((1, len(errors))) if weights is None else weights
        return np.asarray(counts @ errors / counts.sum(axis=1))

    return _estimate(mean, bootstrap_weights(measured.clusters[known], BOOTSTRAP_DRAWS, seed), len(errors))


def _before(after: np.ndarray, assay: Assay) -> np.ndarray | None:
    """What the network's own logits give without calibration; None where that cannot be had back."""
    platt = assay.calibration[DISTILLATION]
    return sigmoid(uncalibrated(after, platt)) if platt.slope else None


def _calibration_section(measured: Measured, assay: Assay, seed: int) -> dict[str, Estimate]:
    """Errors of the probability of distillation as it ships, and as it was before calibration."""
    known = measured.truth >= 0
    after, truth, n = measured.scores(DISTILLATION), measured.truth[known], int(known.sum())
    before = _before(after, assay)
    names = ("expected_calibration_error", "expected_calibration_error_before", "brier_before")
    if n == 0:
        return {name: Estimate(None, None, None, 0, "no prompts") for name in names}
    lost = Estimate(None, None, None, n, "a calibration of slope 0 cannot be undone")
    section = dict.fromkeys(names, lost)
    weights = bootstrap_weights(measured.clusters[known], BOOTSTRAP_DRAWS, seed)
    for name, values in zip(names[:2], (after, before), strict=True):
        if values is not None:
            inside = values[known]
            section[name] = _estimate(
                lambda w=None, inside=inside: calibration_error(inside, truth, w), weights, n, centred=True
            )
    if before is not None:
        section[names[2]] = _brier(measured, before, seed)
    return section


def _share(flagged: np.ndarray, among: np.ndarray) -> Estimate:
    return rate_estimate(int(flagged[among].sum()), int(among.sum()))


def _over(measured: Measured) -> np.ndarray:
    """Who is found at the threshold that gives 1 % false positives on all organic prompts together."""
    scores = measured.scores(DISTILLATION)
    return scores > threshold_at(scores, measured.truth == 0, 0.01)


def _mean_over_sources(measured: Measured) -> dict[str, Estimate]:
    """Recall at 1 % false positives, averaged over sources: a large source counts no more than a small one."""
    recalls = source_recalls(_over(measured), measured.truth == 1, measured.sources)
    name = "mean_source_recall_at_fpr_1pct"
    if not len(recalls) or (measured.truth == 0).sum() < 100:
        return {name: Estimate(None, None, None, 0, "needs positive prompts, and 100 organic ones")}
    draws = np.random.default_rng(0).choice(recalls, (BOOTSTRAP_DRAWS, len(recalls))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {name: Estimate(float(recalls.mean()), float(low), float(high), len(recalls))}


def _source_sections(measured: Measured) -> Sections:
    """For each source the share over the threshold that gives 1 % false positives on all organic prompts together."""
    over = _over(measured)
    sources = sorted(set(measured.sources))
    return {f"source {source}": _shares_over(measured, over, measured.sources == source) for source in sources}


def _slice_sections(measured: Measured, seed: int) -> Sections:
    """By language, length and style: ranking inside the slice, and the shares as `_source_sections` gives them."""
    scores, over = measured.scores(DISTILLATION), _over(measured)
    sections: Sections = {}
    for name, chosen in _slices(measured.records).items():
        here = chosen & (measured.truth >= 0)
        if here.sum() < MIN_SLICE:
            continue
        positive = measured.truth[here] == 1
        section: dict[str, Estimate] = {}
        if positive.any() and not positive.all():
            weights = bootstrap_weights(measured.clusters[here], BOOTSTRAP_DRAWS, seed)
            section["roc_auc"] = _estimate(Ranking(scores[here], positive).roc_auc, weights, int(here.sum()))
        sections[name] = section | _shares_over(measured, over, here)
    return sections


def _slices(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Names of slices and who is in them, `[n]`; a record without a language or style is in no such slice."""
    slices: dict[str, np.ndarray] = {}
    lengths = np.array([len(record.rendered) for record in records])
    languages = [record.lang for record in records]
    styles = [record.style for record in records]
    for kind, values in (("language", languages), ("style", styles)):
        column = np.array(values, dtype=object)
        slices |= {f"{kind} {value}": column == value for value in sorted({value for value in values if value})}
    return slices | {f"length {name}": (lengths >= a) & (lengths < b) for name, (a, b) in LENGTH_BANDS.items()}


def _shares_over(measured: Measured, over: np.ndarray, here: np.ndarray) -> dict[str, Estimate]:
    section = {}
    for name, value in (("recall_at_fpr_1pct", 1), ("false_positive_rate_at_fpr_1pct", 0)):
        if (here & (measured.truth == value)).any():
            section[name] = _share(over, here & (measured.truth == value))
    return section


def sections_to_json(sections: Sections) -> dict[str, dict[str, Any]]:
    """`{section: {metric: {value, low, high, n}}}`, as `metrics.json` holds it."""
    return {
        name: {metric: estimate.to_json() for metric, estimate in section.items()} for name, section in sections.items()
    }
