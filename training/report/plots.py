"""Pictures as SVG text that needs nothing beside it: the course of a run, and how far probabilities can be trusted.

Each paints its own paper and turns dark with the reader's system, so it can be read on a page of any colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from ..metrics.reliability import ReliabilityBin
from .templates import TEMPLATES

HISTORY_FILE = "history.svg"
CALIBRATION_FILE = "calibration.svg"
BEST_BY = "eval_partial_roc_auc"
"""What the best weights are chosen by: `training.trainer.BEST_METRIC`, which would bring the whole Trainer along."""
_VALIDATION = {
    BEST_BY: "AUC up to 5 % FPR",
    "eval_roc_auc": "AUC",
    "eval_recall_at_fpr_1pct": "recall at 1 % FPR",
}
_MOST_POINTS = 400
_LARGEST = 1e9
"""What is beyond this is no loss that anybody looks at, and would leave everything else a flat line."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high` laid out from pixel `start` to pixel `end`, with ticks at some of them."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Line:
    """A curve in pixels, drawn in the `style` ("a", "b" or "c") that the legend shows with its name."""

    name: str
    style: str
    points: list[tuple[float, float]]
    marked: bool = True

    @property
    def path(self) -> str:
        """As the attribute `points` of a polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True, slots=True)
class Panel:
    """One box of a picture."""

    title: str
    label: str
    x: Axis
    y: Axis
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bin of the reliability diagram in pixels: the point, and the ends of its interval."""

    x: float
    y: float
    low: float
    high: float
    style: str


def history_svg(history: Sequence[Mapping[str, Any]]) -> str:
    """The course of a run: losses above, validation metrics below, and where the best weights were.

    Args:
        history: the transformers Trainer's `log_history`. Values that are missing or not finite are left out; of more
            than 400 training losses neighbours are averaged.
    """
    best = best_step(history)
    steps = [entry["step"] for entry in history if _is_drawable(entry.get("step"))]
    x = axis([0.0, *steps], 64, 740, whole=True, tight=True)
    train, validation = _curve(history, "loss"), _curve(history, "eval_loss")
    losses = axis([0.0, *(value for _, value in train + validation)], 232, 72)
    shares = Axis(0.0, 1.0, 502, 342, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    kept = next((entry for entry in history if BEST_BY in entry and entry.get("step") == best), {})
    upper = [_line("training", "a", _thinned(train), x, losses, len(train) == 1)]
    upper.append(_line("validation", "b", validation, x, losses))
    lower = []
    for (metric, name), style in zip(_VALIDATION.items(), "abc", strict=True):
        value = kept.get(metric)
        points = [(step, value) for step, value in _curve(history, metric) if 0 <= value <= 1]
        lower.append(_line(name + (f": {value:.3f}" if _is_drawable(value) else ""), style, points, x, shares))
    panels = [
        Panel("Loss", "loss", x, losses, [line for line in upper if line.points]),
        Panel("Validation", "AUC, recall", x, shares, [line for line in lower if line.points]),
    ]
    mark = None if best is None else x.at(best)
    return TEMPLATES.get_template("history.svg").render(panels=panels, best=best, mark=mark)


def best_step(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The step whose weights were kept: the first of those with the highest validation partial AUC."""
    looks = _curve(history, BEST_BY)
    return int(max(looks, key=lambda look: look[1])[0]) if looks else None


def reliability_svg(before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin], in_page: bool = False) -> str:
    """A reliability diagram: predicted probability against the observed share of positives.

    Args:
        before: bins without calibration; may be empty.
        after: bins with calibration.
        in_page: for the inside of an HTML page, where an SVG states no namespace; a file of its own needs it.
    """
    x = Axis(0.0, 1.0, 64, 444, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    y = Axis(0.0, 1.0, 452, 72, x.ticks)
    curves = {"before calibration": (before, "b"), "after calibration": (after, "a")}
    lines, bars = [], []
    for name, (bins, style) in curves.items():
        if bins:
            lines.append(_line(name, style, [(point.predicted, point.observed) for point in bins], x, y))
            bars += [Bar(x.at(b.predicted), y.at(b.observed), y.at(b.low), y.at(b.high), style) for b in bins]
    panel = Panel("Reliability", "share of distillation-style prompts", x, y, lines)
    return TEMPLATES.get_template("reliability.svg").render(panel=panel, bars=bars, in_page=in_page)


def axis(values: Sequence[float], start: float, end: float, whole: bool = False, tight: bool = False) -> Axis:
    """An axis over some finite values, with ticks at 1, 2 or 5 times a power of ten.

    Args:
        values: at least one.
        start: pixel of the low end.
        end: pixel of the high end.
        whole: ticks stand at whole numbers only.
        tight: the axis ends at the last value, rather than at the next tick.
    """
    low, high = float(min(values)), float(max(values))
    if high - low < 1e-6:
        high = low + 1
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(times * power for times in (1, 2, 5, 10, 20) if times * power >= raw * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(number * step for number in range(first, last + 1))
    if tight:
        return Axis(low, high, start, end, tuple(tick for tick in ticks if low <= tick <= high))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def _line(name: str, style: str, values: Sequence[tuple[float, float]], x: Axis, y: Axis, marked: bool = True) -> Line:
    return Line(name, style, [(x.at(a), y.at(b)) for a, b in values], marked)


def _curve(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) wherever both can be drawn, by step."""
    points = [(entry.get("step"), entry.get(name)) for entry in history]
    return sorted((float(a), float(b)) for a, b in points if _is_drawable(a) and a >= 0 and _is_drawable(b))


def _is_drawable(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of neighbours, so that a long run is a picture of some kilobytes."""
    if len(points) <= _MOST_POINTS:
        return points
    chunks = np.array_split(np.array(points), _MOST_POINTS)
    return [(float(a), float(b)) for a, b in (chunk.mean(axis=0) for chunk in chunks)]
