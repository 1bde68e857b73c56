"""Where the scores of each class lie, laid out in pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .curves import BOTTOM, LEFT, RIGHT, LogAxis, Mark, log_axis
from .plots import Axis

_BINS = 40
_ENDS = 9.3
"""Log-odds beyond which scores share the outermost bar: probabilities of 0.01 % and 99.99 %."""
_LANDMARKS = (0.0001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999)


@dataclass(frozen=True, slots=True)
class Panel:
    """The bars of one class: left edge, top and height in pixels, growing up from the low end of `y`."""

    name: str
    style: str
    y: LogAxis
    bars: list[tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Scores of both classes over one axis of log-odds, with the thresholds of the operating points."""

    panels: list[Panel]
    width: float
    ticks: list[tuple[float, str]]
    lines: list[Mark]
    x: Axis

    def at(self, probability: float) -> float:
        """The pixel of a probability; one beyond all scores stands at the edge."""
        return round(_inside(self.x, probability), 1)


def score_histogram(scores: np.ndarray, truth: np.ndarray, thresholds: Mapping[str, float]) -> Histogram:
    """Where the probabilities of each class lie; log-odds spread out the ends, where most of them are."""
    odds = np.array([_log_odds(score) for score in scores])
    low, high = (math.floor(min(odds, default=-1.0)), math.ceil(max(odds, default=1.0)))
    x = Axis(low, max(high, low + 1), LEFT, RIGHT, ())
    edges = np.linspace(x.low, x.high, _BINS + 1)
    panels = []
    for value, name, style, start in ((0, "organic", "organic", 134.0), (1, "distillation-style", "distil", BOTTOM)):
        counts, _ = np.histogram(odds[truth == value], edges)
        total = int(counts.sum())
        y = log_axis(0.7 / max(total, 50), start, start - 112)  # so that a bar of one prompt has a height
        bars = [
            (round(x.at(float(edge)), 1), round(y.at(count / total), 1), round(start - y.at(count / total), 1))
            for edge, count in zip(edges, counts, strict=False)
            if count
        ]
        panels.append(Panel(f"{total:,} {name}", style, y, bars))
    ticks = [(x.at(_log_odds(p)), f"{100 * p:g} %") for p in _LANDMARKS if x.low <= _log_odds(p) <= x.high]
    lines = [Mark(name, _inside(x, threshold), 0.0) for name, threshold in thresholds.items()]
    return Histogram(panels, round((RIGHT - LEFT) / _BINS - 0.8, 2), ticks, lines, x)


def _inside(x: Axis, probability: float) -> float:
    return x.at(min(max(_log_odds(probability), x.low), x.high))


def _log_odds(probability: float) -> float:
    inside = min(max(float(probability), 1e-300), math.nextafter(1, 0))
    return min(max(math.log(inside) - math.log1p(-inside), -_ENDS), _ENDS)
