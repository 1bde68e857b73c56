"""Measuring an artefact on labelled data, through the same scorer that ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.reading import MANIFEST_FILE, load_records
from data.records import CATEGORIES, Fault, Record
from data.split import clusters
from inference import PromptClassifier
from inference.decision import DISTILLATION, Prediction
from inference.job.files import find_files

from .encode import DataError, any_label, label_row
from .metrics import FPR_RATES, Estimate, Ranking, bootstrap_weights, rate_estimate, rate_name

Sections = dict[str, dict[str, Estimate]]
BOOTSTRAP_DRAWS = 1000
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
    labels = np.array([label_row(record.labels, record.judged) for record in records])
    joined = [record.extra.get("cluster") for record in records]
    own = joined if all(joined) else clusters(list(records))
    return Measured(list(records), predictions, labels.reshape(len(records), len(CATEGORIES)), np.array(own))


def evaluate_sections(measured: Measured, classifier: PromptClassifier, seed: int = 0) -> Sections:
    """All metrics, by section: the two questions, the operating points, and each source."""
    sections = {DISTILLATION: _ranking_section(measured, DISTILLATION, measured.truth, seed)}
    sections[DISTILLATION] |= _mean_over_sources(measured)
    sections[DISTILLATION]["brier"] = _brier(measured, seed)
    for i, name in enumerate(CATEGORIES):
        # A category is measured against organic prompts alone: taking one category for another accuses nobody.
        truth = np.where(measured.labels[:, i] == 1, 1.0, np.where(measured.truth == 0, 0.0, -1.0))
        sections[name] = _ranking_section(measured, name, truth, seed)
    for name, point in classifier.assay.operating_points.items():
        flagged = measured.scores(DISTILLATION) >= point.thresholds[DISTILLATION]
        sections[f"operating point {name}"] = {
            "false_positive_rate": _share(flagged, measured.truth == 0),
            "recall": _share(flagged, measured.truth == 1),
        }
    return sections | _source_sections(measured)


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


def _estimate(metric: Callable[..., np.ndarray], weights: np.ndarray, n: int) -> Estimate:
    """The value, and the percentile interval over the draws."""
    draws = metric(weights)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Estimate(float(metric()[0]), float(low), float(high), n)


def _brier(measured: Measured, seed: int) -> Estimate:
    known = measured.truth >= 0
    errors = (measured.scores(DISTILLATION)[known] - measured.truth[known]) ** 2
    if not len(errors):
        return Estimate(None, None, None, 0, "no prompts")
    weights = bootstrap_weights(measured.clusters[known], BOOTSTRAP_DRAWS, seed)
    low, high = np.percentile(weights @ errors / weights.sum(axis=1), [2.5, 97.5])
    return Estimate(float(errors.mean()), float(low), float(high), len(errors))


def _share(flagged: np.ndarray, among: np.ndarray) -> Estimate:
    return rate_estimate(int(flagged[among].sum()), int(among.sum()))


def _threshold_at(measured: Measured, fpr: float) -> float:
    """The highest organic score that must stay out at this rate on this very sample; recall counts what is over it."""
    organic = np.sort(measured.scores(DISTILLATION)[measured.truth == 0])[::-1]
    return float(organic[int(len(organic) * fpr + 1e-9)]) if len(organic) else np.inf


def _mean_over_sources(measured: Measured) -> dict[str, Estimate]:
    """Recall at 1 % false positives, averaged over sources: a large source counts no more than a small one."""
    threshold = _threshold_at(measured, 0.01)
    over, positive = measured.scores(DISTILLATION) > threshold, measured.truth == 1
    sources = sorted(set(measured.sources[positive]))
    recalls = np.array([over[positive & (measured.sources == source)].mean() for source in sources])
    name = "mean_source_recall_at_fpr_1pct"
    if not len(recalls) or (measured.truth == 0).sum() < 100:
        return {name: Estimate(None, None, None, 0, "needs positive prompts, and 100 organic ones")}
    draws = np.random.default_rng(0).choice(recalls, (BOOTSTRAP_DRAWS, len(recalls))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {name: Estimate(float(recalls.mean()), float(low), float(high), len(recalls))}


def _source_sections(measured: Measured) -> Sections:
    """For each source the share over the threshold that gives 1 % false positives on all organic prompts together."""
    over = measured.scores(DISTILLATION) > _threshold_at(measured, 0.01)
    sections: Sections = {}
    for source in sorted(set(measured.sources)):
        here = measured.sources == source
        section = {}
        if (here & (measured.truth == 1)).any():
            section["recall_at_fpr_1pct"] = _share(over, here & (measured.truth == 1))
        if (here & (measured.truth == 0)).any():
            section["false_positive_rate_at_fpr_1pct"] = _share(over, here & (measured.truth == 0))
        sections[f"source {source}"] = section
    return sections


def sections_to_json(sections: Sections) -> dict[str, dict[str, Any]]:
    """`{section: {metric: {value, low, high, n}}}`, as `metrics.json` holds it."""
    return {
        name: {metric: estimate.to_json() for metric, estimate in section.items()} for name, section in sections.items()
    }
