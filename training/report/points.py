"""Operating points of the report: promised and seen, and what any other threshold would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from inference.artefact import Assay
from inference.decision import DISTILLATION

from ..evaluation.sections import PROMISED, Sections
from ..metrics.intervals import Estimate, rate_estimate
from ..metrics.measures import BASE_RATES, BOTH, precision_estimate
from .curves import Picture, steps
from .histogram import Histogram
from .tables import POINT, aim_of, promise, share, shares

MILLION = 1_000_000
RATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
"""False-positive rates of which the report tells what threshold gives them here."""
_MOST = 160


@dataclass(frozen=True, slots=True)
class PointRow:
    """An operating point of the artefact: what it promised, and its section of `metrics.json`."""

    name: str
    threshold: float
    aim: float | None
    promised: Estimate
    promise: str
    section: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Traffic:
    """A million prompts of which an assumed share is distillation, in words."""

    flagged: str
    false: str
    found: str
    precision: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a threshold does on the prompts measured, in words: the page's script shows it and computes nothing.

    `name` is an operating point's, or empty. `places` are pixels in the pictures, by their name; what cannot be placed
    is left out. `cells` are true positives, false negatives, false positives, true negatives.
    """

    threshold: float
    shown: str
    name: str
    fpr: str
    recall: str
    traffic: list[Traffic]
    cells: list[int]
    places: dict[str, list[float]]


@dataclass(frozen=True)
class Counts:
    """Scores of both classes, each sorted, so that what a threshold lets through is counted in no time."""

    positive: np.ndarray
    organic: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray) -> Counts:
        """Of `[n]` scores, and a truth of 1, 0, or negative where unknown."""
        return cls(np.sort(scores[truth == 1]), np.sort(scores[truth == 0]))

    def over(self, threshold: float) -> tuple[int, int]:
        """Positives and organic prompts that are flagged at a threshold."""
        hits, alarms = (len(x) - int(np.searchsorted(x, threshold, "left")) for x in (self.positive, self.organic))
        return hits, alarms

    def lowest(self, alarms: int) -> float | None:
        """The lowest score that, as a threshold, lets through at most so many organic prompts; None if none does."""
        if alarms >= len(self.organic):
            return float(min(np.r_[self.positive[:1], self.organic[:1]], default=math.nan))
        limit = self.organic[len(self.organic) - 1 - alarms]
        above = [x[i] for x in (self.positive, self.organic) if (i := int(np.searchsorted(x, limit, "right"))) < len(x)]
        return float(min(above)) if above else None


def point_rows(assay: Assay, sections: Sections) -> list[PointRow]:
    """The artefact's operating points, the most lenient first as it lists them."""
    rows = []
    for name, point in assay.operating_points.items():
        section = sections[POINT + name]
        aim, seen = aim_of(name, section), section["false_positive_rate"]
        rows.append(PointRow(name, point.thresholds[DISTILLATION], aim, section[PROMISED], promise(aim, seen), section))
    return rows


def slider_points(counts: Counts, assay: Assay, roc: Picture, scores: Histogram) -> list[Threshold]:
    """Some 200 thresholds from the strictest to the most lenient, the artefact's own among them."""
    named = {point.thresholds[DISTILLATION]: name for name, point in assay.operating_points.items()}
    thresholds = set(named) | set(_strict(counts))
    found = [counts.lowest(int(alarms)) for alarms in steps(len(counts.organic))] if len(counts.organic) else []
    thresholds |= {value for value in found if value is not None}
    if not len(counts.organic) and len(counts.positive):
        thresholds |= set(np.quantile(counts.positive, np.linspace(0, 1, _MOST), method="lower").tolist())
    return [
        at_threshold(counts, value, named.get(value, ""), roc, scores) for value in sorted(thresholds, reverse=True)
    ]


def _strict(counts: Counts) -> list[float]:
    """Thresholds over every organic prompt: the strict end, in twenty steps of recall."""
    top = counts.organic[-1] if len(counts.organic) else math.inf
    over = counts.positive[counts.positive > top]
    return np.quantile(over, np.linspace(0, 1, 20), method="lower").tolist() if len(over) else []


def threshold_rows(counts: Counts) -> list[tuple[float, Threshold]]:
    """For each rate that the prompts can carry, the lowest threshold that keeps to it here."""
    rows = []
    for rate in RATES:
        alarms = int(len(counts.organic) * rate + 1e-9)
        threshold = counts.lowest(alarms) if alarms else None
        if threshold is not None:
            rows.append((rate, at_threshold(counts, threshold)))
    return rows


def at_threshold(
    counts: Counts, threshold: float, name: str = "", roc: Picture | None = None, scores: Histogram | None = None
) -> Threshold:
    """Everything that the report says of one threshold."""
    hits, alarms = counts.over(threshold)
    positives, organic = len(counts.positive), len(counts.organic)
    fpr, recall = rate_estimate(alarms, organic), rate_estimate(hits, positives)
    places: dict[str, list[float]] = {} if scores is None else {"scores": [scores.at(threshold)]}
    if roc is not None and fpr.value is not None and recall.value is not None:
        places["roc"] = list(roc.at(fpr.value, recall.value))
    return Threshold(
        threshold,
        shown_threshold(threshold),
        name,
        shares(fpr),
        shares(recall),
        [_traffic(rate, hits, positives, alarms, organic) for rate in BASE_RATES],
        [hits, positives - hits, alarms, organic - alarms],
        places,
    )


def _traffic(rate: float, hits: int, positives: int, alarms: int, organic: int) -> Traffic:
    fpr, recall = rate_estimate(alarms, organic), rate_estimate(hits, positives)
    false, found = _million(fpr, 1 - rate), _million(recall, rate)
    if fpr.value is None or recall.value is None:
        return Traffic(f"– ({BOTH})", false, found, f"– ({BOTH})")
    flagged = MILLION * (rate * recall.value + (1 - rate) * fpr.value)
    precision = precision_estimate(rate, hits, positives, alarms, organic)
    if not alarms and precision.low is not None:
        # With no false alarm seen the value would be 100 %, which nobody knows.
        return Traffic(rounded(flagged), false, found, f"at least {share(precision.low)}: no false alarm was seen here")
    return Traffic(rounded(flagged), false, found, shares(precision))


def _million(rate: Estimate, part: float) -> str:
    if rate.value is None or rate.low is None or rate.high is None:
        return f"– ({rate.note})"
    value, low, high = (rounded(MILLION * part * x) for x in (rate.value, rate.low, rate.high))
    return f"{value} ({low}–{high})"


def rounded(count: float) -> str:
    """A count to three digits, since no more are known: `9,990`."""
    return f"{count:.2g}" if 0 < count < 10 else f"{float(f'{count:.3g}'):,.0f}"


def shown_threshold(threshold: float) -> str:
    """A probability with so many digits that it stays apart from its neighbours near 0 and 1."""
    room = min(threshold, 1 - threshold)
    decimals = 4 if room <= 0 else min(12, max(4, 2 - math.floor(math.log10(room))))
    return f"{threshold:.{decimals}f}"


def slider_json(points: Sequence[Threshold], default: str) -> dict[str, object]:
    """What the page's script reads."""
    start = next((i for i, point in enumerate(points) if point.name == default), 0)
    return {"points": [asdict(point) for point in points], "start": start, "one_in": one_in()}


def one_in() -> list[int]:
    """The assumed shares of distillation, as one prompt in so many."""
    return [round(1 / rate) for rate in BASE_RATES]
