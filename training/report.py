"""What people read: the HTML report of an evaluation, and the model card of an artefact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.summary import markdown_table
from inference.artefact import Assay
from inference.decision import DISTILLATION

from .evaluation import Measured, Sections
from .metrics import Estimate
from .suite import Outcome

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
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
    """A self-contained page: metrics, two pictures, operating points, sources, the functional suite."""
    truth = measured.truth
    scores = measured.scores(DISTILLATION)
    return _TEMPLATES.get_template("report.html").render(
        fingerprint=assay.fingerprint,
        data=data,
        n_positive=int((truth == 1).sum()),
        n_organic=int((truth == 0).sum()),
        n_unknown=int((truth < 0).sum()),
        headline=[(name, sections[name]) for name in (DISTILLATION, *assay.labels)],
        points=[(name, point, sections[f"operating point {name}"]) for name, point in assay.operating_points.items()],
        default_point=assay.default_point,
        sources=_sources(sections),
        roc=_roc_points(scores, truth),
        bars=_bars(scores, truth),
        threshold=assay.point().thresholds[DISTILLATION],
        names=METRIC_NAMES,
        show=show,
        outcomes=sorted(outcomes, key=lambda x: (x.passed / x.tests, x.capability.name)),
    )


def model_card(assay: Assay, sections: Sections, config: Mapping[str, Any]) -> str:
    """`README.md` of an artefact, with Hugging Face metadata."""
    points = [
        [
            name + (" (default)" if name == assay.default_point else ""),
            f"{point.thresholds[DISTILLATION]:.4f}",
            f"{point.false_positives} of {point.n_organic}",
            f"{point.fpr_low:.2%} to {point.fpr_high:.2%}",
            show(sections[f"operating point {name}"]["false_positive_rate"]),
            show(sections[f"operating point {name}"]["recall"]),
        ]
        for name, point in assay.operating_points.items()
    ]
    header = [
        "operating point",
        "threshold",
        "false positives in calibration",
        "95 % interval",
        "FPR on test",
        "recall on test",
    ]
    return _TEMPLATES.get_template("model_card.md").render(
        assay=assay,
        metrics=metrics_table(sections, [DISTILLATION, *assay.labels]),
        points=markdown_table(header, points),
        config=config,
    )


def _sources(sections: Sections) -> list[tuple[str, Estimate | None, Estimate | None]]:
    """Sources with their recall and false-positive rate, the worst first."""
    rows = [
        (
            name.removeprefix("source "),
            section.get("recall_at_fpr_1pct"),
            section.get("false_positive_rate_at_fpr_1pct"),
        )
        for name, section in sections.items()
        if name.startswith("source ")
    ]

    def badness(row: tuple[str, Estimate | None, Estimate | None]) -> float:
        missed = 1 - (row[1].value or 0.0) if row[1] else 0.0
        return max(missed, (row[2].value or 0.0) if row[2] else 0.0)

    return sorted(rows, key=badness, reverse=True)


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
