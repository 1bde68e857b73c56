"""What fine-tuning minimises."""

from __future__ import annotations

import torch
from torch.nn import functional


def any_logit(logits: torch.Tensor) -> torch.Tensor:
    """The logit that any category applies, `[prompts, labels]` to `[prompts]`; see `inference.decision.any_logit`."""
    total = functional.softplus(logits).sum(dim=1)
    return total + torch.log(-torch.expm1(-total.clamp_min(1e-30)))


def multilabel_loss(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Binary cross-entropy of the categories plus that of distillation, the mean over what is known.

    Distillation is scored on the combined logit, so that a prompt that is surely built for it, though for which
    category is unsure, still teaches what counts most.

    Args:
        logits: `[prompts, labels]`, pooled over windows.
        labels: `[prompts, labels]`, 1, 0, or negative where unknown.
        weight: `[prompts]`.
        smoothing: targets are drawn in from 0 and 1 by this much.
    """
    positive = (labels == 1).any(dim=1)
    judged = (labels >= 0).all(dim=1)
    categories = _masked(logits, labels, labels >= 0, weight.unsqueeze(1), smoothing)
    together = _masked(any_logit(logits), positive.to(logits.dtype), positive | judged, weight, smoothing)
    return categories + together


def _masked(
    logits: torch.Tensor, targets: torch.Tensor, known: torch.Tensor, weight: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Weighted mean of the cross-entropy over the known entries; 0 where none is known."""
    smoothed = targets.clamp_min(0) * (1 - 2 * smoothing) + smoothing
    losses = functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
    share = known.to(logits.dtype) * weight
    return (losses * share).sum() / share.sum().clamp_min(1e-8)
