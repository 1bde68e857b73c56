"""Metrics as words and Markdown tables for a terminal, and what they are called."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from data.summary import markdown_table
from inference.decision import DISTILLATION

from ..evaluation.cascade import CASCADE, cascade_table
from ..evaluation.evaluate import Evaluation
from ..evaluation.sections import PROMISED, SOURCE_MEAN, Sections
from ..evaluation.slices import KINDS, Slice, slices
from ..evaluation.suite import suite_table
from ..metrics.intervals import Estimate
from ..metrics.measures import BASE_RATES, base_rate_name

METRIC_NAMES = {
    "roc_auc": "area under ROC",
    "average_precision": "average precision",
    "recall_at_fpr_5pct": "recall at 5 % FPR",
    "recall_at_fpr_1pct": "recall at 1 % FPR",
    "recall_at_fpr_0.1pct": "recall at 0.1 % FPR",
    "recall_at_fpr_0.01pct": "recall at 0.01 % FPR",
    "mean_source_recall_at_fpr_1pct": "recall at 1 %, source mean",
    "brier": "Brier score",
    "log_loss": "log loss",
    "false_positive_rate": "false-positive rate",
    "false_positive_rate_at_fpr_1pct": "false-positive rate",
    "recall": "recall",
    "f1": "F1",
    "precision_at_1_in_100": "precision if 1 in 100 is distillation",
    "precision_at_1_in_1000": "precision if 1 in 1,000 is",
    "precision_at_1_in_100000": "precision if 1 in 100,000 is",
    "promised_false_positive_rate": "promised false-positive rate",
    "subset_accuracy": "all labels right",
    "true_positives": "true positives",
    "false_positives": "false positives",
    "false_negatives": "false negatives",
    "true_negatives": "true negatives",
    "expected_calibration_error": "expected calibration error",
    "expected_calibration_error_before": "expected calibration error, before",
    "brier_before": "Brier score, before",
    "log_loss_before": "log loss, before",
}
KEPT, BROKEN, OPEN = "kept", "broken", "too few to tell"
"""What may be said of a promised rate of false alarms; `promise` decides."""
POINT = "operating point "
_HEADLINE = ("roc_auc", "average_precision", "recall_at_fpr_5pct", "recall_at_fpr_1pct", "recall_at_fpr_0.1pct")
_WORST = 5
_LONG = 44


def show(estimate: Estimate) -> str:
    """`0.912 (0.880–0.941)`, or why there is no value."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return f"– ({estimate.note})"
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


def share(value: float) -> str:
    """A share in per cent, with more digits near 0 and 100, which it never reaches by rounding: `0.036 %`, `61.0 %`."""
    percent = 100 * value
    if percent <= 0 or percent >= 100:
        return f"{percent:.0f} %"
    room = min(percent, 100 - percent)
    fine = (1 if percent < 50 else 0) - math.floor(math.log10(room)) if room < 0.1 else 0
    return f"{percent:.{min(max(fine, 2 if percent < 9.995 else 1), 12)}f} %"


def shares(estimate: Estimate) -> str:
    """A share with its interval, `1.02 % (0.58–1.65 %)`, or why there is no value."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return f"– ({estimate.note})"
    return f"{share(estimate.value)} ({share(estimate.low).removesuffix(' %')}–{share(estimate.high)})"


def promise(aim: float | None, seen: Estimate) -> str:
    """Whether a promised rate of false alarms was kept, as far as the prompts can tell.

    Broken: the whole interval of the rate seen lies over the promise. Kept: it does not, and reaches no higher than
    twice the promise. Otherwise too few organic prompts are there.
    """
    if aim is None or seen.low is None or seen.high is None:
        return OPEN
    if seen.low > aim:
        return BROKEN
    return KEPT if seen.high <= 2 * aim else OPEN


def aim_of(name: str, section: dict[str, Estimate]) -> float | None:
    """The rate that an operating point's name promises; without one in it, the rate that calibration measured."""
    named = re.fullmatch(r"fpr-([\d.]+)pct", name)
    return float(named[1]) / 100 if named else section[PROMISED].value


def worst_slices(sections: Sections, most: int) -> list[tuple[str, Slice]]:
    """The slices of all kinds that are decided worst among those that can be judged, each with its kind.

    Of slices with the same figures, such as a source of one style and that style, the first stands for both.
    """
    found: dict[object, tuple[str, Slice]] = {}
    for kind in (*KINDS, "column"):
        for row in slices(sections, kind):
            if not row.too_small and row.badness > 0:
                found.setdefault((row.roc_auc, row.recall, row.fpr, row.fpr_default), (kind, row))
    return sorted(found.values(), key=lambda item: -item[1].badness)[:most]


def counts_sentence(found: Evaluation) -> str:
    """How many prompts of each kind were measured."""
    measured = found.measured
    clear = ~measured.ambiguous
    positive, organic, unknown = (int((clear & mask).sum()) for mask in _kinds(found))
    sources = len(set(measured.sources))
    parts = [f"{positive:,} distillation-style", f"{organic:,} organic"]
    parts += [f"{unknown:,} not fully judged"] if unknown else []
    parts += [f"{int((~clear).sum()):,} ambiguous (apart)"] if not clear.all() else []
    whole = f"{len(measured.records):,} prompt{'s' if len(measured.records) != 1 else ''}"
    return f"{whole} of {sources:,} source{'s' if sources != 1 else ''}: {', '.join(parts)}"


def _kinds(found: Evaluation) -> tuple[object, object, object]:
    truth = found.measured.truth
    return truth == 1, truth == 0, truth < 0


def seen_sentence(seen: dict[str, int] | None) -> str:
    """What is known of whether the artefact was fitted on what it is measured on."""
    if seen is None:
        return "The artefact does not say what it was fitted on; whether it has seen these prompts is unknown."
    if not seen:
        return "None of these prompts shaped the artefact."
    splits = ", ".join(f"{count:,} in {name}" for name, count in seen.items())
    total = sum(seen.values())
    return f"Measured on {total:,} prompts that the artefact was fitted on ({splits}): these figures flatter."


def metrics_table(sections: Sections, names: Sequence[str]) -> str:
    """The ranking metrics of some sections side by side, as a Markdown table."""
    metrics = list(dict.fromkeys(metric for name in names for metric in sections[name]))
    rows = [
        [METRIC_NAMES[metric], *(show(sections[name][metric]) if metric in sections[name] else "" for name in names)]
        for metric in metrics
    ]
    return markdown_table(["metric (95 % interval)", *names], rows)


def evaluation_text(found: Evaluation) -> str:
    """An evaluation for a terminal: the questions, the operating points, baselines, the worst slices, the suite."""
    sections = found.sections
    labels = [name for name in sections if name in found.measured.predictions[0].scores]
    parts = [
        f"{counts_sentence(found)}.\n{seen_sentence(found.seen)}",
        _headline_table(sections[DISTILLATION]),
        _categories_table(sections, labels),
        _points_table(sections, [name.removeprefix(POINT) for name in sections if _is_point(name, labels)]),
    ]
    if any(name.startswith(CASCADE) for name in sections):
        parts.append(cascade_table(sections))
    if found.baselines:
        parts.append(_baselines_table(found))
    if worst := worst_slices(sections, _WORST):
        parts.append(_slices_table(worst))
    if found.outcomes:
        parts.append(suite_table(found.outcomes))
    return "\n\n".join(parts)


def _is_point(name: str, labels: Sequence[str]) -> bool:
    return name.startswith(POINT) and not name.endswith(tuple(f" {label}" for label in labels))


def _headline_table(section: dict[str, Estimate]) -> str:
    rows = []
    for metric in (*_HEADLINE, SOURCE_MEAN, "brier"):
        estimate = section[metric]
        if estimate.value is None:
            rows.append([METRIC_NAMES[metric], "–", estimate.note])
        else:
            rows.append([METRIC_NAMES[metric], f"{estimate.value:.3f}", f"{estimate.low:.3f}–{estimate.high:.3f}"])
    return markdown_table([DISTILLATION, "value", "95 % interval"], rows)


def _categories_table(sections: Sections, labels: Sequence[str]) -> str:
    header = ["against organic", "area under ROC", "recall at 5 %", "at 1 % (interval)", "at 0.1 %"]
    rows = [
        [
            name,
            _value(sections[name]["roc_auc"]),
            _value(sections[name]["recall_at_fpr_5pct"]),
            _interval(sections[name]["recall_at_fpr_1pct"]),
            _value(sections[name]["recall_at_fpr_0.1pct"]),
        ]
        for name in labels
    ]
    return markdown_table(header, rows)


def _points_table(sections: Sections, names: Sequence[str]) -> str:
    """Promised against seen; precision is what of the flagged is right where distillation is rare."""
    rates = [f"1:{round(1 / rate):,}" for rate in BASE_RATES]
    header = ["operating point", "promised", "FPR seen", "promise", "recall", f"precision {rates[0]}", *rates[1:]]
    rows = []
    for name in names:
        section = sections[POINT + name]
        aim, seen, recall = aim_of(name, section), section["false_positive_rate"], section["recall"]
        rows.append(
            [
                name,
                "–" if aim is None else share(aim),
                "–" if seen.value is None else shares(seen),
                promise(aim, seen),
                "–" if recall.value is None else share(recall.value),
                *(_percent(section[base_rate_name(rate)]) for rate in BASE_RATES),
            ]
        )
    return markdown_table(header, rows)


def _baselines_table(found: Evaluation) -> str:
    metrics = ("roc_auc", "recall_at_fpr_5pct", "recall_at_fpr_1pct", SOURCE_MEAN)
    header = ["classifier", "area under ROC", "recall at 5 %", "at 1 %", "source mean", "model's gain at 1 %", "s"]
    own = found.sections[DISTILLATION]
    rows = [["this artefact", *(_value(own[metric]) for metric in metrics), "", ""]]
    for baseline in found.baselines:
        section = found.sections[f"baseline {baseline.name}"]
        gain = section.get("recall_at_fpr_1pct_gain")
        cells = [_value(section.get(metric)) for metric in metrics]
        rows.append([baseline.name, *cells, _gain(gain), f"{baseline.seconds:,.0f}"])
    return markdown_table(header, rows)


def _slices_table(worst: Sequence[tuple[str, Slice]]) -> str:
    rows = [
        [_short(f"{kind} {row.name}".removeprefix("column ")), f"{row.n:,}", _interval(row.recall), _interval(row.fpr)]
        for kind, row in worst
    ]
    return markdown_table(["worst slices, at 1 % FPR of all", "prompts", "recall", "false-positive rate"], rows)


def _short(text: str) -> str:
    """A name on one line that leaves room for the figures."""
    line = " ".join(text.split())
    return line if len(line) <= _LONG else line[: _LONG - 1] + "…"


def _value(estimate: Estimate | None) -> str:
    return "–" if estimate is None or estimate.value is None else f"{estimate.value:.3f}"


def _interval(estimate: Estimate | None) -> str:
    return "–" if estimate is None or estimate.value is None else show(estimate)


def _percent(estimate: Estimate) -> str:
    return "–" if estimate.value is None else share(estimate.value)


def _gain(estimate: Estimate | None) -> str:
    """A difference with its sign, and its interval."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"
