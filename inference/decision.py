"""From a prompt's logits to calibrated probabilities and a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .artefact import Assay, OperatingPoint

DISTILLATION = "distillation"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the classifier says of one prompt.

    Attributes:
        scores: category to calibrated probability.
        distillation: calibrated probability that any category applies.
        labels: categories at or over their own thresholds.
        flagged: `distillation` is at or over its threshold; this alone carries the promised false-positive rate.
        uncertain: `distillation` lies inside the abstention band.
        n_tokens: length of the whole prompt in tokens, read or not.
        n_windows: windows that were read.
        truncated: the prompt was longer than the windows allow.
        top_window: character span, in the raw prompt, of the window that scored highest.

    Where a gate decided (see `stage`), nothing is said of categories: `scores` and `labels` are empty, `n_windows` is
    0, `top_window` None, and `distillation` below every threshold.
    """

    scores: dict[str, float]
    distillation: float
    labels: list[str]
    flagged: bool
    uncertain: bool
    n_tokens: int
    n_windows: int
    truncated: bool
    top_window: tuple[int, int] | None

    @property
    def stage(self) -> str:
        """What decided: `encoder`, or `gate`, which reads no windows."""
        return "encoder" if self.n_windows else "gate"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self) | {"top_window": self.top_window and list(self.top_window)}


def prediction_columns(labels: Sequence[str]) -> list[str]:
    """The columns that a prediction becomes in a table, in order."""
    head = [DISTILLATION, *labels, "labels", "flagged", "uncertain"]
    return [*head, "n_tokens", "n_windows", "truncated", "top_window", "stage", "model", "error"]


def any_logit(logits: np.ndarray) -> np.ndarray:
    """The logit that any category applies, `[prompts, labels]` to `[prompts]`.

    The categories are combined by noisy-or: 1 - P = prod(1 - p), so with S the sum of softplus(logit) the logit of P
    is log(exp(S) - 1). `training.losses.any_logit` is the same in torch.
    """
    total = np.logaddexp(0.0, logits.astype(np.float64)).sum(axis=1)
    return total + np.log(-np.expm1(-np.maximum(total, 1e-30)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def probabilities(assay: Assay, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of the categories, `[prompts, labels]`, and of distillation, `[prompts]`."""
    columns = [assay.calibration[label].apply(logits[:, i]) for i, label in enumerate(assay.labels)]
    return np.stack(columns, axis=1), assay.calibration[DISTILLATION].apply(any_logit(logits))


def decide(assay: Assay, point: OperatingPoint, scores: np.ndarray, distillation: float) -> dict[str, Any]:
    """The fields of a `Prediction` that follow from one prompt's probabilities."""
    by_label = {label: float(score) for label, score in zip(assay.labels, scores, strict=True)}
    low, high = assay.abstention.low, assay.abstention.high
    return {
        "scores": by_label,
        "distillation": float(distillation),
        "labels": [label for label, score in by_label.items() if score >= point.thresholds[label]],
        "flagged": bool(distillation >= point.thresholds[DISTILLATION]),
        "uncertain": bool(low <= distillation <= high),
    }
