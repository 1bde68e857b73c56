"""Metrics as Markdown tables for a terminal, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from data.summary import markdown_table
from inference.decision import DISTILLATION

from ..evaluation.evaluate import Evaluation
from ..evaluation.sections import Sections
from ..evaluation.suite import suite_table
from ..metrics.intervals import Estimate

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


def evaluation_text(found: Evaluation) -> str:
    """An evaluation for a terminal: the questions, the operating points, the suite."""
    labels = [name for name in found.sections if name in found.measured.predictions[0].scores]
    parts = [metrics_table(found.sections, [DISTILLATION, *labels])]
    if found.outcomes:
        parts.append(suite_table(found.outcomes))
    return "\n\n".join(parts)
