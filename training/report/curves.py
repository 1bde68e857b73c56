"""Curves of the report, laid out in pixels: recall and precision by false-positive rate.

The rate of false positives has a logarithmic axis: nearly all traffic is organic, so the left end is where a classifier
works, and on a linear axis it is a hair's breadth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..metrics.intervals import ClusterBootstrap
from ..metrics.measures import BASE_RATES
from ..metrics.ranking import Curve, Ranking, precision_at
from .plots import Axis, Line

LEFT, RIGHT, TOP, BOTTOM = 62.0, 436.0, 14.0, 266.0
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_STEPS = 160
"""Points of a curve: more is not seen."""
_LOWEST = 1e-5
_BASE_STYLES = dict(zip(BASE_RATES, ("a", "b", "d"), strict=True))
_BASELINE_STYLES = "fghij"


@dataclass(frozen=True, slots=True)
class LogAxis(Axis):
    """An axis on which each power of ten is as wide as the next; what lies under its low end stands at that end."""

    def at(self, value: float) -> float:
        """The pixel of a value."""
        span = math.log10(self.high) - math.log10(self.low)
        part = (math.log10(max(value, self.low)) - math.log10(self.low)) / span
        return self.start + min(part, 1.0) * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place that is named in a picture."""

    name: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture over two axes of shares. `blind` is the pixel left of which one prompt is more than what is drawn."""

    name: str
    about: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    strokes: list[Line]
    band: list[tuple[float, float]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    blind: float | None = None

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        return round(self.x.at(x), 1), round(self.y.at(y), 1)


@dataclass(frozen=True, slots=True)
class Trade:
    """Recall for each number of organic prompts let through, `[steps]`, the strictest threshold first.

    `low` and `high` are the 95 % interval of the recall at that rate, and None without a bootstrap.
    """

    positives: int
    organic: int
    alarms: np.ndarray
    recalls: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    @property
    def rates(self) -> np.ndarray:
        """False-positive rates, `[steps]`."""
        return self.alarms / self.organic


def trade(scores: np.ndarray, truth: np.ndarray, bootstrap: ClusterBootstrap | None = None) -> Trade | None:
    """What recall costs in false alarms; None where a class is missing.

    Args:
        scores: `[n]`.
        truth: `[n]`: 1, 0, or negative for prompts to leave out.
        bootstrap: over these `n` prompts, for the interval at each rate, just as the table of metrics has it.
    """
    known = truth >= 0
    positive = truth[known] == 1
    organic = int((~positive).sum())
    if organic in (0, len(positive)):
        return None
    ranking = Ranking(scores[known], positive)
    alarms = steps(organic)
    rates = alarms / organic
    found = Trade(len(positive) - organic, organic, alarms, recalls_at(ranking.curve(), rates)[0])
    if bootstrap is None:
        return found
    draws = np.concatenate([recalls_at(ranking.curve(weights), rates) for weights in bootstrap.weights(known)])
    draws = draws[np.isfinite(draws).all(axis=1)]  # a draw may hold one class alone
    if not len(draws):
        return found
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return replace(found, low=low, high=high)


def steps(n: int) -> np.ndarray:
    """Whole numbers from 0 to `n`, all of the small ones and ever fewer of the large ones."""
    return np.unique(np.r_[0, np.geomspace(1, n, _STEPS).round().astype(int)])


def recalls_at(curve: Curve, rates: np.ndarray) -> np.ndarray:
    """`Curve.recall_at_fpr` at many rates, `[draws, rates]`."""
    found = np.full((len(curve.n_negative), len(rates)), np.nan)
    for draw, (over, alarms) in enumerate(zip(curve.positives_over, curve.negatives_over, strict=True)):
        if over[-1] and alarms[-1]:
            passed = np.searchsorted(alarms, np.floor(alarms[-1] * rates + 1e-9), side="right")
            found[draw] = np.r_[0.0, over][passed] / over[-1]
    return found


def roc_picture(
    own: Trade | None, others: Mapping[str, Trade | None], marks: Mapping[str, tuple[float, float]]
) -> Picture:
    """Recall by false-positive rate, with the band of the bootstrap, baselines, and operating points.

    Args:
        own: of the artefact.
        others: of the baselines, by name.
        marks: false-positive rate and recall of each operating point.
    """
    x, y = _rate_axis(own), Axis(0.0, 1.0, BOTTOM, TOP, _SHARES)
    strokes = [_roc_stroke("this artefact", "a", own, x, y)]
    for style, (name, found) in zip(_BASELINE_STYLES, others.items(), strict=False):
        strokes.append(_roc_stroke(name, style, found, x, y))
    band: list[tuple[float, float]] = []
    if own is not None and own.low is not None and own.high is not None:
        upper, lower = (_steps_of(own.rates, values, x, y) for values in (own.high, own.low))
        band = [*upper, *reversed(lower)]
    return Picture(
        "roc",
        "ROC curve: recall of distillation-style prompts by false-positive rate, which has a logarithmic axis",
        x,
        y,
        "false-positive rate, logarithmic",
        "recall",
        [stroke for stroke in strokes if stroke.points],
        band,
        [Mark(name, x.at(fpr), y.at(recall)) for name, (fpr, recall) in marks.items()] if own else [],
        None if own is None else x.at(1 / own.organic),
    )


def categories_picture(found: Mapping[str, Trade | None]) -> Picture:
    """Recall of each category by the false-positive rate among organic prompts."""
    known = [item for item in found.values() if item is not None]
    x, y = _rate_axis(known[0] if known else None), Axis(0.0, 1.0, BOTTOM, TOP, _SHARES)
    strokes = [
        _roc_stroke(name, style, item, x, y) for (name, item), style in zip(found.items(), "abdcfghij", strict=False)
    ]
    return Picture(
        "categories",
        "ROC curves of the categories, each against organic prompts, on a logarithmic axis of false-positive rates",
        x,
        y,
        "false-positive rate, logarithmic",
        "recall",
        [stroke for stroke in strokes if stroke.points],
        blind=x.at(1 / known[0].organic) if known else None,
    )


def precision_picture(own: Trade | None) -> Picture:
    """Precision by false-positive rate where distillation is as rare as assumed, on two logarithmic axes."""
    x = _rate_axis(own)
    curves = {rate: _precisions(own, rate) for rate in BASE_RATES} if own else {}
    lowest = min((precision for points in curves.values() for _, precision, _ in points), default=_LOWEST)
    y = log_axis(max(lowest, _LOWEST), BOTTOM, TOP)
    strokes = [
        Line(f"1 in {round(1 / rate):,}", _BASE_STYLES[rate], [(x.at(fpr), y.at(p)) for fpr, p, _ in points])
        for rate, points in curves.items()
    ]
    return Picture(
        "precision",
        "Precision by false-positive rate, both logarithmic, where 1 prompt in 100, 1,000 and 100,000 is distillation",
        x,
        y,
        "false-positive rate, logarithmic",
        "precision, logarithmic",
        strokes,
        blind=None if own is None else x.at(1 / own.organic),
    )


def recall_picture(own: Trade | None) -> Picture:
    """Precision by recall: as these prompts are mixed, and where distillation is rarer."""
    x, y = Axis(0.0, 1.0, LEFT, RIGHT, _SHARES), Axis(0.0, 1.0, BOTTOM, TOP, _SHARES)
    strokes = []
    if own is not None:
        here = own.positives / (own.positives + own.organic)
        styles = {here: "c"} | {rate: _BASE_STYLES[rate] for rate in BASE_RATES[:2]}
        for rate, style in styles.items():
            name = f"as here, {100 * here:.0f} %" if rate == here else f"1 in {round(1 / rate):,}"
            points = [(x.at(recall), y.at(precision)) for _, precision, recall in _precisions(own, rate)]
            if rate == here and own.recalls[0]:
                points = [(x.at(0.0), y.at(1.0)), (x.at(float(own.recalls[0])), y.at(1.0)), *points]
            strokes.append(Line(name, style, points))
    return Picture(
        "pr",
        "Precision-recall curve, as these prompts are mixed and where distillation is rarer",
        x,
        y,
        "recall",
        "precision",
        strokes,
    )


def _precisions(own: Trade, base_rate: float) -> list[tuple[float, float, float]]:
    """Rate, precision and recall; without one false alarm nothing tells of the precision in rarer distillation."""
    return [
        (float(fpr), precision_at(base_rate, float(recall), float(fpr)), float(recall))
        for alarms, fpr, recall in zip(own.alarms, own.rates, own.recalls, strict=True)
        if alarms and recall
    ]


def _roc_stroke(name: str, style: str, found: Trade | None, x: Axis, y: Axis) -> Line:
    return Line(name, style, [] if found is None else _steps_of(found.rates, found.recalls, x, y))


def _steps_of(rates: np.ndarray, values: np.ndarray, x: Axis, y: Axis) -> list[tuple[float, float]]:
    """A curve that keeps its value until the next rate, as a rate of so few prompts does."""
    points = [(x.start, y.at(float(values[0])))]
    for rate, value in zip(rates[1:], values[1:], strict=True):
        points += [(x.at(float(rate)), points[-1][1]), (x.at(float(rate)), y.at(float(value)))]
    return [point for i, point in enumerate(points) if i in (0, len(points) - 1) or point != points[i - 1]]


def _rate_axis(own: Trade | None) -> LogAxis:
    """False-positive rates from half of one prompt, so that little room goes to what nobody can tell."""
    low = max(_LOWEST, min(0.5 / own.organic, 0.005)) if own else 0.001
    whole = log_axis(low, LEFT, RIGHT)
    return replace(whole, low=low, ticks=tuple(tick for tick in whole.ticks if tick >= low))


def log_axis(lowest: float, start: float, end: float) -> LogAxis:
    """Shares up to 1 from the power of ten at or under the lowest one."""
    power = min(-1, math.floor(math.log10(lowest) + 1e-9))
    return LogAxis(10.0**power, 1.0, start, end, tuple(10.0**number for number in range(power, 1)))
