"""The page of an evaluation: HTML that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from inference.artefact import Assay
from inference.decision import DISTILLATION

from ..evaluation.labelled import Measured
from ..evaluation.sections import CALIBRATION, Sections, reliability
from ..evaluation.slices import KINDS, MIN_SLICE, slices
from ..evaluation.suite import Outcome
from .plots import reliability_svg
from .tables import METRIC_NAMES, show
from .templates import TEMPLATES

_FLOOR = 1e-3
"""Lowest false-positive rate that the ROC picture shows."""


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
        slices={kind: slices(sections, kind) for kind in KINDS},
        reliability=Markup(reliability_svg(*reliability(measured, assay), in_page=True)),  # noqa: S704
        roc=_roc_points(scores, truth),
        bars=_bars(scores, truth),
        threshold=assay.point().thresholds[DISTILLATION],
        names=METRIC_NAMES,
        show=show,
        outcomes=sorted(outcomes, key=lambda x: (x.passed / x.tests, x.capability.name)),
    )


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
