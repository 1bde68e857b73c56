"""The worst mistakes: organic prompts that score highest, distillation-style ones that score lowest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from tqdm import tqdm

from data.records import ORGANIC, Record
from inference import PromptClassifier
from inference.decision import DISTILLATION, Prediction
from inference.explain import Explainer, ExplainError
from inference.explanation import explanation_html, printable
from inference.prompts import PromptError

from ..evaluation.labelled import Measured

SHOWN = 15
EXPLAINED = 5
"""Explanations take seconds each."""
STEPS = 24
"""Of the integral behind an explanation: half as many as by default, for colours need no third digit."""
LONGEST = 1500


@dataclass(frozen=True, slots=True)
class Mistake:
    """A prompt that was decided wrong at the default operating point.

    `text` is None where prompts are private; `coloured` is the explanation as HTML, or None without one.
    """

    id: str
    source: str
    lang: str
    style: str
    truth: str
    said: str
    probability: float
    windows: int
    text: str | None = None
    coloured: Markup | None = None


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The worst of both kinds, how many there are in all, and what is to be said of the explanations."""

    false_alarms: list[Mistake]
    missed: list[Mistake]
    n_false_alarms: int
    n_missed: int
    note: str


def worst_mistakes(measured: Measured, classifier: PromptClassifier, show_text: bool) -> Mistakes:
    """The worst mistakes at the default operating point, none of them ambiguous.

    Args:
        measured: records and predictions.
        classifier: what made them; it is asked again for explanations.
        show_text: give the text of prompts, and explain the very worst of them.
    """
    scores = measured.scores(DISTILLATION)
    flagged = scores >= classifier.assay.point().thresholds[DISTILLATION]
    clear = ~measured.ambiguous
    alarms = np.flatnonzero(clear & (measured.truth == 0) & flagged)
    missed = np.flatnonzero(clear & (measured.truth == 1) & ~flagged)
    chosen = [
        alarms[np.argsort(-scores[alarms], kind="stable")][:SHOWN],
        missed[np.argsort(scores[missed], kind="stable")][:SHOWN],
    ]
    coloured: dict[int, Markup] = {}
    note = ""
    if show_text:
        coloured, note = _explained(classifier, measured.records, [int(i) for part in chosen for i in part[:EXPLAINED]])
    wrong, overlooked = (
        [_mistake(measured.records[i], measured.predictions[i], show_text, coloured.get(int(i))) for i in part]
        for part in chosen
    )
    return Mistakes(wrong, overlooked, len(alarms), len(missed), note)


def _mistake(record: Record, prediction: Prediction, show_text: bool, coloured: Markup | None) -> Mistake:
    return Mistake(
        readable(record.id),
        readable(record.source),
        readable(record.lang or ""),
        readable(record.style or ""),
        ", ".join(record.labels) or ORGANIC,
        ", ".join(prediction.labels) or "none",
        prediction.distillation,
        prediction.n_windows,
        readable(record.rendered, LONGEST) if show_text else None,
        coloured,
    )


def _explained(
    classifier: PromptClassifier, records: Sequence[Record], chosen: Sequence[int]
) -> tuple[dict[int, Markup], str]:
    """Coloured text by the record's place; and why there is none, where a part that explanations need is missing."""
    if not chosen:
        return {}, ""
    try:
        explainer = Explainer(classifier)
    except (ExplainError, ImportError) as error:
        return {}, f"The texts are not coloured: {error}."
    found = {}
    for i in tqdm(chosen, unit="prompt", desc="explaining", leave=False):
        try:
            explanation = explainer.explain(records[i].prompt, DISTILLATION, steps=STEPS)
        except (ExplainError, PromptError):
            continue  # its text stands there plain
        found[i] = Markup(explanation_html(explanation))  # noqa: S704 - `explanation_html` escapes the text
    return found, ""


def readable(text: str, longest: int | None = None) -> str:
    """A text that a page can hold, whatever is in it, cut with `…` where it is longer."""
    cut = text if longest is None or len(text) <= longest else text[:longest].rstrip() + "…"
    return printable(cut)
