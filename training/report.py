"""What people read of an evaluation: tables, and a page of HTML that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from data.summary import markdown_table
from inference.artefact import Assay
from inference.decision import DISTILLATION

from .evaluation import CALIBRATION, LENGTH_BANDS, MIN_SLICE, Measured, Sections, reliability
from .metrics import Estimate
from .plots import reliability_svg
from .suite import Outcome
from .templates import TEMPLATES

METRIC_NAMES = {
    "roc_auc": "area under ROC",
    "average_precision": "average precision",
    "recall_at_fpr_5pct": "recall at 5 % FPR",
    "recall_at_fpr_1pct": "recall at 1 % FPR",
    "recall_at_fpr_0.1pct": "recall at 0.1 % FPR",
    "mean_source_recall_at_fpr_1pct": "recall at 1 %, source mean",
    "brier": "Brier score",
    "false_positive_rate": "false-positive rate",
    "false_positive_rate_at_fpr_1pct": "false-positive rate",
    "recall": "recall",
    "expected_calibration_error": "expected calibration error",
    "expected_calibration_error_before": "expected calibration error, before",
    "brier_before": "Brier score, before",
}
_FLOOR = 1e-3
"""Lowest false-positive rate that the ROC picture shows."""


def show(estimate: Estimate) -> str:
    """`0.912 (0.880–0.941)`, or why there is no value."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return f"– ({estimate.note})"
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


def metrics_table(sections: Sections, names: Sequence[str]) -> str:
    """The ranking metrics of some sections side by side, as a Markdown table."""
    metrics = list(dict.fromkeys(metric for name in names for metric in sections[name]))
    rows = [
        [METRIC_NAMES[metric], *(show(sections[name][metric]) if metric in sections[name] else "" for name in names)]
        for metric in metrics
    ]
    return markdown_table(["metric (95 % interval)", *names], rows)


def html_report(
    measured: Measured, sections: Sections, assay: Assay, data: Sequence[str], outcomes: Sequence[Outcome] = ()
) -> str:
    """A self-contained page: metrics, pictures, operating points, slices, the functional suite."""
    truth = measured.truth
    scores = measured.scores(DISTILLATION)
    return TEMPLATES.get_template("report.html").render(
        fingerprint=assay.fingerprint,
        data=data,
        n_positive=int((truth == 1).sum()),
        n_organic=int((truth == 0).sum()),
        n_unknown=int((truth < 0).sum()),
        headline=[(name, sections[name]) for name in (DISTILLATION, *assay.labels)],
        points=[(name, point, sections[f"operating point {name}"]) for name, point in assay.operating_points.items()],
        default_point=assay.default_point,
        calibration=sections[CALIBRATION],
        positive_share=assay.positive_share,
        min_slice=MIN_SLICE,
        slices={kind: slices(sections, kind) for kind in ("language", "length", "style", "source")},
        reliability=Markup(reliability_svg(*reliability(measured, assay), in_page=True)),  # noqa: S704
        roc=_roc_points(scores, truth),
        bars=_bars(scores, truth),
        threshold=assay.point().thresholds[DISTILLATION],
        names=METRIC_NAMES,
        show=show,
        outcomes=sorted(outcomes, key=lambda x: (x.passed / x.tests, x.capability.name)),
    )


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the prompts and what was measured in it; what it lacks prompts for is None."""

    name: str
    roc_auc: Estimate | None
    recall: Estimate | None
    fpr: Estimate | None

    @property
    def n(self) -> int:
        """Prompts in it."""
        return sum(estimate.n for estimate in (self.recall, self.fpr) if estimate)

    @property
    def badness(self) -> float:
        """The share of its prompts of one class that is decided wrong, of the worse class."""
        missed = 1 - (self.recall.value or 0.0) if self.recall else 0.0
        return max(missed, (self.fpr.value or 0.0) if self.fpr else 0.0)


def slices(sections: Sections, kind: str) -> list[Slice]:
    """The slices of one kind: lengths from short to long, languages from many prompts to few, others the worst first.

    Args:
        sections: from `evaluate_sections`.
        kind: `language`, `length`, `style` or `source`.
    """
    rows = [
        Slice(
            name.removeprefix(f"{kind} "),
            section.get("roc_auc"),
            section.get("recall_at_fpr_1pct"),
            section.get("false_positive_rate_at_fpr_1pct"),
        )
        for name, section in sections.items()
        if name.startswith(f"{kind} ")
    ]
    if kind == "length":
        return sorted(rows, key=lambda row: list(LENGTH_BANDS).index(row.name))
    return sorted(rows, key=lambda row: -row.n if kind == "language" else -row.badness)


def _roc_points(scores: np.ndarray, truth: np.ndarray) -> str:
    """The ROC curve as SVG points in a box of 100 by 100: false positives on a log scale, since the left end counts."""
    positive, organic = np.sort(scores[truth == 1]), np.sort(scores[truth == 0])
    if not len(positive) or not len(organic):
        return ""
    points = []
    for fpr in np.geomspace(_FLOOR, 1, 121):
        allowed = int(len(organic) * fpr + 1e-9)
        limit = organic[len(organic) - 1 - allowed] if allowed < len(organic) else -np.inf
        recall = float((positive > limit).mean())
        points.append(f"{100 * (1 + np.log10(fpr) / 3):.2f},{100 - 100 * recall:.2f}")
    return " ".join(points)


def _bars(scores: np.ndarray, truth: np.ndarray) -> list[tuple[float, float, float]]:
    """For twenty bins of probability: left edge, and the share of organic and of positive prompts in the bin."""
    edges = np.linspace(0, 1, 21)
    shares = []
    for value in (0, 1):
        counts, _ = np.histogram(scores[truth == value], edges)
        shares.append(counts / max(1, counts.sum()))
    return [(float(edge), float(a), float(b)) for edge, a, b in zip(edges[:-1], *shares, strict=True)]
