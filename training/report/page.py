"""The page of an evaluation: HTML that needs nothing beside it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from markupsafe import Markup

from inference import PromptClassifier
from inference.artefact import Assay
from inference.decision import DISTILLATION

from ..evaluation.cascade import Cascade
from ..evaluation.evaluate import EvaluateOptions, Evaluation
from ..evaluation.labelled import Measured
from ..evaluation.sections import AMBIGUOUS, CALIBRATION, SOURCE_MEAN, Sections, reliability
from ..evaluation.slices import KINDS, MIN_SLICE, Slice, slices
from ..evaluation.suite import Failure, Outcome
from ..metrics.intervals import DRAWS, ClusterBootstrap, Estimate, rate_estimate
from .curves import (
    Picture,
    Trade,
    categories_picture,
    precision_picture,
    recall_picture,
    roc_picture,
    trade,
)
from .histogram import score_histogram
from .mistakes import readable, worst_mistakes
from .plots import reliability_svg
from .points import Counts, point_rows, shown_threshold, slider_json, slider_points, threshold_rows
from .tables import METRIC_NAMES, POINT, counts_sentence, seen_sentence, share, shares, show, worst_slices
from .templates import TEMPLATES

_WORST = 8
_FAILURES = 3
_LONGEST = 400
_TITLES = {
    "length": "length in characters",
    "windows": "number of windows",
    "hard negatives": "hard negatives by family",
}
_MANY = 12
"""A longer table is folded."""


@dataclass(frozen=True, slots=True)
class Area:
    """Capabilities of one area of the functional suite, the weakest first."""

    name: str
    passed: Estimate
    outcomes: list[Outcome]


def html_report(found: Evaluation, classifier: PromptClassifier, options: EvaluateOptions) -> str:
    """A self-contained page: figures, pictures, an operating point to choose, slices, the suite, the worst mistakes.

    Args:
        found: what was measured.
        classifier: the artefact, which explains its worst mistakes where their text may be shown.
        options: what was asked for. The text of prompts stands in the page only with `show_text`; that of the shipped
            suite, which is public, in any case.
    """
    assay, sections = classifier.assay, found.sections
    clear = found.measured.only(~found.measured.ambiguous)
    scores = clear.scores(DISTILLATION)
    counts = Counts.of(scores, clear.truth)
    points = point_rows(assay, sections)
    pictures = _pictures(found, clear, assay)
    histogram = score_histogram(scores, clear.truth, {row.name: row.threshold for row in points})
    chosen = slider_points(counts, assay, pictures["roc"], histogram)
    return TEMPLATES.get_template("report.html").render(
        fingerprint=assay.fingerprint,
        options=options,
        counts=counts_sentence(found),
        n_positive=len(counts.positive),
        n_organic=len(counts.organic),
        seen=found.seen,
        seen_sentence=seen_sentence(found.seen),
        headline=[(name, sections[name]) for name in (DISTILLATION, *assay.labels)],
        source_mean=SOURCE_MEAN,
        baselines=[(baseline, sections[f"baseline {baseline.name}"]) for baseline in found.baselines],
        pictures=pictures,
        histogram=histogram,
        slider=slider_json(chosen, assay.default_point),
        chosen=chosen,
        points=points,
        default=next(row for row in points if row.name == assay.default_point),
        set_on=assay.set_on,
        thresholds=threshold_rows(counts),
        confusions=[(row, _confusion(sections, row.name, assay.labels)) for row in points],
        calibration=sections[CALIBRATION],
        positive_share=assay.positive_share,
        reliability=Markup(reliability_svg(*reliability(found.measured, assay), in_page=True)),  # noqa: S704
        min_slice=MIN_SLICE,
        many=_MANY,
        worst=worst_slices(sections, _WORST),
        slices=_slices(sections, options.slice),
        cascade=Cascade.of(sections),
        ambiguous=sections.get(AMBIGUOUS),
        n_ambiguous=int(found.measured.ambiguous.sum()),
        areas=_areas(found.outcomes),
        passed=sum(outcome.passed for outcome in found.outcomes),
        tests=sum(outcome.tests for outcome in found.outcomes),
        failures=_failures(found.outcomes, options.suite is None or options.show_text),
        mistakes=worst_mistakes(found.measured, classifier, options.show_text),
        draws=DRAWS,
        clusters=len(np.unique(clear.clusters)),
        versions=assay.versions,
        measured_with={name: version(name) for name in ("torch", "transformers", "numpy", "scipy")}
        | {"Python": platform.python_version()},
        names=METRIC_NAMES,
        show=show,
        share=share,
        shares=shares,
        shown_threshold=shown_threshold,
        readable=readable,
    )


def _pictures(found: Evaluation, clear: Measured, assay: Assay) -> dict[str, Picture]:
    """The curves, each by its name."""
    own = trade(clear.scores(DISTILLATION), clear.truth, ClusterBootstrap(clear.clusters))
    kept = ~found.measured.ambiguous
    others = {baseline.name: trade(baseline.scores[kept], clear.truth) for baseline in found.baselines}
    marks = {}
    for name in assay.operating_points:
        seen, recall = (found.sections[POINT + name][metric].value for metric in ("false_positive_rate", "recall"))
        if seen is not None and recall is not None:
            marks[name] = (seen, recall)
    categories: dict[str, Trade | None] = {}
    for i, label in enumerate(assay.labels):
        # A category is ranked against organic prompts alone, as in the table.
        ranked = np.where(clear.labels[:, i] == 1, 1.0, np.where(clear.truth == 0, 0.0, -1.0))
        categories[label] = trade(clear.scores(label), ranked)
    roc, by_category = roc_picture(own, others, marks), categories_picture(categories)
    return {picture.name: picture for picture in (roc, by_category, precision_picture(own), recall_picture(own))}


def _confusion(sections: Sections, point: str, labels: Sequence[str]) -> list[tuple[str, dict[str, Estimate]]]:
    """The counts of distillation and of each category at an operating point."""
    return [(DISTILLATION, sections[POINT + point]), *((name, sections[f"{POINT}{point} {name}"]) for name in labels)]


def _slices(sections: Sections, columns: Sequence[str]) -> list[tuple[str, list[Slice]]]:
    """Every kind of slice that the prompts have, with its title."""
    kinds = [(kind, kind) for kind in KINDS] + [(f"column {column}", column) for column in dict.fromkeys(columns)]
    found = [(_TITLES.get(title, title), slices(sections, kind)) for kind, title in kinds]
    return [(title, rows) for title, rows in found if rows]


def _areas(outcomes: Sequence[Outcome]) -> list[Area]:
    """The suite by area, in the order of its list."""
    found = []
    for name in dict.fromkeys(outcome.capability.area for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.capability.area == name]
        passed = rate_estimate(sum(outcome.passed for outcome in own), sum(outcome.tests for outcome in own))
        weakest = sorted(own, key=lambda outcome: (outcome.passed / outcome.tests, outcome.capability.name))
        found.append(Area(name, passed, weakest))
    return found


def _failures(outcomes: Sequence[Outcome], shown: bool) -> dict[str, list[tuple[Failure, str]]]:
    """The first failing prompts of each capability with their text; none where it is private."""
    if not shown:
        return {}
    return {
        outcome.capability.name: [
            (failure, readable(failure.prompt, _LONGEST)) for failure in outcome.failures[:_FAILURES]
        ]
        for outcome in outcomes
        if outcome.failures
    }
