"""Parts of the data that are looked at apart: who is in them, and how well each is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.records import HARD_NEGATIVES, Record
from inference.decision import DISTILLATION

from ..encode import DataError
from ..metrics.intervals import ClusterBootstrap, Estimate, missing, rate_estimate
from ..metrics.measures import ranking_measures
from .labelled import Measured

MIN_SLICE = 20
"""A rate of fewer prompts has an interval too wide to tell anything, and is marked."""
TOO_FEW = f"fewer than {MIN_SLICE} prompts"
LENGTH_BANDS = {"under 150": (0, 150), "150-500": (150, 500), "500-1,500": (500, 1500), "over 1,500": (1500, np.inf)}
"""Lengths of rendered prompts, in characters: from the first number up to but without the second."""
WINDOW_BANDS = {"1": (1, 2), "2-3": (2, 4), "4-5": (4, 6), "6 and more": (6, np.inf)}
KINDS = ("source", "language", "length", "windows", "style", "hard negatives")
"""What slices are made by, beside named columns."""


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of slice, the value that its prompts share, and who is in it: a mask `[n]`."""

    kind: str
    value: str
    chosen: np.ndarray

    @property
    def name(self) -> str:
        """Of its section in `metrics.json`."""
        return f"{self.kind} {self.value}"


def parts_of(measured: Measured, columns: Sequence[str] = ()) -> list[Part]:
    """All slices; a record without a language or style, or with a null in a named column, is in no slice of it.

    Raises:
        DataError: no record has a column that is named.
    """
    records = measured.records
    lengths = np.array([len(record.rendered) for record in records])
    windows = np.array([prediction.n_windows for prediction in measured.predictions])
    parts = _by_value("source", [record.source for record in records])
    parts += _by_value("language", [record.lang for record in records])
    parts += [Part("length", name, (lengths >= a) & (lengths < b)) for name, (a, b) in LENGTH_BANDS.items()]
    parts += [Part("windows", name, (windows >= a) & (windows < b)) for name, (a, b) in WINDOW_BANDS.items()]
    parts += _by_value("style", [record.style for record in records])
    parts += _by_value("hard negatives", [_hard_family(record) for record in records])
    for column in columns:
        values = [record.to_row().get(column) for record in records]
        if all(value is None for value in values):
            raise DataError(f"--slice {column}: no record has a value in this column")
        parts += _by_value(f"column {column}", [None if value is None else str(value) for value in values])
    return [part for part in parts if part.chosen.any()]


def _by_value(kind: str, values: Sequence[str | None]) -> list[Part]:
    column = np.array(values, dtype=object)
    return [Part(kind, value, column == value) for value in sorted({value for value in values if value})]


def _hard_family(record: Record) -> str | None:
    """The family of a hard negative: its style, or `marked hard` where the record says so in a field `hard`."""
    if record.labels:
        return None
    if record.style in HARD_NEGATIVES:
        return record.style
    return "marked hard" if str(record.extra.get("hard")).lower() in ("true", "1", "yes") else None


def part_section(
    measured: Measured, part: Part, over: np.ndarray, flagged: np.ndarray, bootstrap: ClusterBootstrap
) -> dict[str, Estimate]:
    """Ranking inside a slice, and its rates.

    Args:
        measured: all of the data.
        part: the slice.
        over: who is over the threshold that gives 1 % false positives on all organic prompts together, `[n]`.
        flagged: who is flagged at the artefact's default operating point, `[n]`.
        bootstrap: over all of the data.
    """
    truth = measured.truth
    here = part.chosen & (truth >= 0)
    positive, organic = here & (truth == 1), here & (truth == 0)
    section: dict[str, Estimate] = {}
    if positive.any() and organic.any():
        n = int(here.sum())
        if n < MIN_SLICE:
            section["roc_auc"] = missing(n, TOO_FEW)
        else:
            measures = ranking_measures(measured.scores(DISTILLATION)[here], truth[here] == 1, ())
            section["roc_auc"] = bootstrap.estimates(measures, here, positive=positive)["roc_auc"]
    if positive.any():
        section["recall_at_fpr_1pct"] = _rate(over, positive)
        section["recall"] = _rate(flagged, positive)
    if organic.any():
        section["false_positive_rate_at_fpr_1pct"] = _rate(over, organic)
        section["false_positive_rate"] = _rate(flagged, organic)
    return section


def _rate(found: np.ndarray, among: np.ndarray) -> Estimate:
    n = int(among.sum())
    estimate = rate_estimate(int(found[among].sum()), n)
    return replace(estimate, note=TOO_FEW) if n < MIN_SLICE else estimate


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the prompts and what was measured in it; what it lacks prompts for is None."""

    name: str
    roc_auc: Estimate | None
    recall: Estimate | None
    fpr: Estimate | None
    fpr_default: Estimate | None

    @property
    def n(self) -> int:
        """Prompts in it."""
        return sum(estimate.n for estimate in (self.recall, self.fpr) if estimate)

    @property
    def too_small(self) -> bool:
        """Whether neither class has prompts enough to judge by."""
        return all(estimate is None or estimate.n < MIN_SLICE for estimate in (self.recall, self.fpr))

    @property
    def badness(self) -> float:
        """The share of its prompts of one class that is decided wrong, of the worse class that can be judged."""
        missed = 1 - (self.recall.value or 0.0) if self.recall and self.recall.n >= MIN_SLICE else 0.0
        accused = (self.fpr.value or 0.0) if self.fpr and self.fpr.n >= MIN_SLICE else 0.0
        return max(missed, accused)


def slices(sections: dict[str, dict[str, Estimate]], kind: str) -> list[Slice]:
    """The slices of one kind: lengths and windows from few to many, others the worst first and too small ones last.

    Args:
        sections: from `evaluate_sections`.
        kind: one of `KINDS`, or `column NAME`.
    """
    rows = [
        Slice(
            name.removeprefix(f"{kind} "),
            section.get("roc_auc"),
            section.get("recall_at_fpr_1pct"),
            section.get("false_positive_rate_at_fpr_1pct"),
            section.get("false_positive_rate"),
        )
        for name, section in sections.items()
        if name.startswith(f"{kind} ")
    ]
    bands = {"length": LENGTH_BANDS, "windows": WINDOW_BANDS}.get(kind)
    if bands is not None:
        return sorted(rows, key=lambda row: list(bands).index(row.name))
    return sorted(rows, key=lambda row: (row.too_small, -row.badness, row.name))
