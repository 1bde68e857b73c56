"""What people read of thresholds that were set on traffic: at the terminal, and in the new artefact's model card."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from data.summary import markdown_table
from inference.artefact import OperatingPoint
from inference.decision import DISTILLATION

HEADING = "## Thresholds set on traffic"
_OLD_HEADING = re.compile(rf"{HEADING}|## Operating points|## What it promises")
_TABLE = re.compile(r"(?:^\|.*(?:\n|\Z))+", re.M)
_POINT_ROW = re.compile(r"^\|\W*(?:fpr-[\d.]+pct|balanced)\b", re.M)


@dataclass(frozen=True, slots=True)
class MovedPoint:
    """An operating point of the new artefact; shares are of the distinct prompts of the traffic.

    What tells of `before` is None where the old artefact lacks the point; `rate_before` is the 95 % interval of the
    false-positive rate at its threshold.
    """

    name: str
    before: OperatingPoint | None
    after: OperatingPoint
    flagged_before: float | None
    rate_before: tuple[float, float] | None
    flagged_after: float

    @property
    def is_set(self) -> bool:
        """Whether it was set on the traffic; `balanced` was not."""
        return self.after.target_fpr is not None

    @property
    def old_threshold(self) -> float | None:
        """Of distillation, in the old artefact."""
        return None if self.before is None else self.before.thresholds[DISTILLATION]

    @property
    def threshold(self) -> float:
        """Of distillation, in the new artefact."""
        return self.after.thresholds[DISTILLATION]


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """What was read, set and written.

    `dropped` maps each point that the traffic cannot carry to the distinct prompts that it needs; the other counts
    are those of `training.traffic.reading.Traffic`.
    """

    model: str
    out: Path
    parent: str
    fingerprint: str
    rows: int
    prompts: int
    errors: int
    unkeyed: int
    assumed_rate: float
    points: tuple[MovedPoint, ...]
    dropped: dict[str, int]
    default_before: str
    default: str

    def table(self) -> str:
        """The thresholds of distillation, which alone carry the promise, as a Markdown table."""
        head = ["operating point", "threshold before", "now", "flagged before", "now", "FPR, 95 % interval"]
        rows = [
            [
                point.name + (" (default)" if point.name == self.default else ""),
                _digits(point.old_threshold),
                _digits(point.threshold),
                "–" if point.flagged_before is None else f"{point.flagged_before:.3%}",
                f"{point.flagged_after:.3%}",
                f"{point.after.fpr_low:.3%} to {point.after.fpr_high:.3%}" if point.is_set else "not set on traffic",
            ]
            for point in self.points
        ]
        return markdown_table(head, rows)

    def category_table(self) -> str:
        """How far the categories' own thresholds moved, as a Markdown table."""
        names = [name for name in self.points[0].after.thresholds if name != DISTILLATION]
        rows = []
        for point in filter(lambda point: point.is_set, self.points):
            old = point.before.thresholds if point.before else {}
            rows.append([point.name, *(f"{_digits(old.get(x))} → {_digits(point.after.thresholds[x])}" for x in names)])
        return markdown_table(["thresholds of categories", *names], rows)

    def sentences(self, parent: str) -> list[str]:
        """What the tables mean; `parent` is what the old artefact is called."""
        both = [point for point in self.points if point.is_set and point.before]
        strictest = next((point for point in both if point.name == self.default), both[-1] if both else None)
        lines = [_why(strictest, parent)] if strictest else []
        lines += [
            f"Up to {self.assumed_rate:.2%} of the traffic may be distillation. The thresholds count whatever they "
            "flag as a false alarm, so the rate among this traffic's organic prompts stays at or under its target "
            "whichever part of that was flagged; the interval holds under the same assumption. It takes prompts as "
            "independent: those that differ in a name or a number count one by one.",
            "Only the threshold of distillation carries the promise. Weights, calibration, the abstention band and "
            "balanced need labels, and are as before. How much the new thresholds find was not measured: run "
            "python -m training evaluate on labelled data.",
        ]
        if self.default != self.default_before:
            lines.append(f"The default operating point was {self.default_before}, and is {self.default} now.")
        lines += [
            f"{name} needs {needed:,} distinct prompts, and {self.prompts:,} are there: the new artefact lacks it."
            for name, needed in self.dropped.items()
        ]
        lines += [
            f"{point.name}: with {self.assumed_rate:.2%} assumed, all that it flags may be distillation; its threshold "
            "is then stricter than need be, and finds are given away. Known distillation is best taken out of the "
            "traffic first."
            for point in self.points
            if point.after.target_fpr and self.assumed_rate >= point.after.target_fpr
        ]
        return lines

    def text(self) -> str:
        """All of it, as the command prints it."""
        lines = [f"{self.rows:,} rows, {self.errors:,} of them without a prompt; {self.prompts:,} distinct prompts"]
        if self.unkeyed:
            lines.append(
                f"{self.unkeyed:,} rows of scored files came without their text: repeats among them count each. "
                "Where the score job keeps the text (--keep text), they count once."
            )
        return "\n\n".join([*lines, self.table(), self.category_table(), *self.sentences(self.model)])

    def card(self, old: str) -> str:
        """The old model card with the new thresholds; no table of the old ones is left, under whatever heading."""
        told = self.sentences(f"the artefact {self.parent}, of which this one was made,")
        origin = f"Set on {self.prompts:,} distinct prompts of unlabelled traffic ({self.rows:,} rows)."
        section = "\n\n".join([HEADING, self.table(), origin, self.category_table(), *told]) + "\n\n"
        parts: list[str] = []
        for part in re.split(r"^(?=## )", old, flags=re.M):
            if not _OLD_HEADING.match(part):
                parts.append(_TABLE.sub(_without_points, part))
            elif section not in parts:
                parts.append(section)
        if section not in parts:
            parts = ["".join(parts).rstrip() + "\n\n", section]
        return "".join(parts).strip() + "\n"


def _why(point: MovedPoint, parent: str) -> str:
    """How far a threshold moved, and why that matters."""
    old, new, target = point.old_threshold or 0.0, point.threshold, point.after.target_fpr or math.nan
    flagged, (low, high) = point.flagged_before or 0.0, point.rate_before or (0.0, 1.0)
    why = "It stands."
    if new > old:
        why = "Fewer false alarms, and fewer finds: distillation that scores between the two now passes."
    elif new < old:
        why = "More finds at the rate promised: the old threshold was stricter than this traffic needs."
    if new != old and low <= target <= high:
        why += " On so few prompts that may be chance: the old threshold may well keep its promise; more traffic tells."
    return (
        f"{point.name} of {parent} flags {flagged:.2%} of this traffic, {flagged / target:.1f} times what it promises; "
        f"its threshold moves from {_digits(old)} to {_digits(new)}. {why}"
    )


def _without_points(table: re.Match[str]) -> str:
    is_stale = _POINT_ROW.search(table.group())
    return f'These thresholds were set anew: see "{HEADING[3:]}".\n' if is_stale else table.group()


def _digits(threshold: float | None) -> str:
    """Enough digits that two thresholds close to 1 stay apart."""
    return "–" if threshold is None else f"{threshold:.6f}"
