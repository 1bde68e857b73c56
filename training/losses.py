"""What fine-tuning minimises."""

from __future__ import annotations

import torch
from torch.nn import functional

from .config import LossConfig


def any_logit(logits: torch.Tensor) -> torch.Tensor:
    """The logit that any category applies, `[prompts, labels]` to `[prompts]`; see `inference.decision.any_logit`."""
    total = functional.softplus(logits).sum(dim=1)
    return total + torch.log(-torch.expm1(-total.clamp_min(1e-30)))


def energy(logits: torch.Tensor) -> torch.Tensor:
    """Energy of each prompt, `[prompts, labels]` to `[prompts]`: low where a category claims it, 0 where none does.

    The sum over labels of -log(1 + exp(logit)), which takes the place of softmax's log-sum-exp (Liu et al. 2020) where
    several labels may hold (Wang et al. 2021).
    """
    return -functional.softplus(logits).sum(dim=1)


def prompt_losses(
    logits: torch.Tensor, labels: torch.Tensor, config: LossConfig, positive_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss of each prompt, `[prompts]`: over its known categories, and on distillation.

    Distillation is scored on the combined logit, so that a prompt that is surely built for it, though for which
    category is unsure, still teaches what counts most.

    Args:
        logits: `[prompts, labels]`, pooled over windows.
        labels: `[prompts, labels]`, 1, 0, or negative where unknown.
        config: smoothing, focus and the energy penalty.
        positive_weight: `[labels + 1]`, how much a positive weighs in each category and in distillation.
    """
    positive = (labels == 1).any(dim=1)
    known = positive | (labels >= 0).all(dim=1)
    targets = torch.cat([labels, positive.to(labels.dtype).unsqueeze(1)], dim=1)
    together = any_logit(logits)
    losses = _cross_entropy(torch.cat([logits, together.unsqueeze(1)], dim=1), targets.clamp_min(0), config)
    if positive_weight is not None:
        losses = losses * torch.where(targets == 1, positive_weight, torch.ones_like(positive_weight))
    judged = (labels >= 0).to(logits.dtype)
    total = (losses[:, :-1] * judged).sum(dim=1) / labels.shape[1] + losses[:, -1] * known
    if config.energy_weight:
        total = total + config.energy_weight * _energy_penalty(logits, positive, known, config)
    return total


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Binary cross-entropy of each entry; with a focus, one that is right already counts little."""
    smoothed = targets * (1 - 2 * config.label_smoothing) + config.label_smoothing
    losses = functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
    if not config.focal_gamma:
        return losses
    wrongness = torch.sigmoid(torch.where(targets == 1, -logits, logits))
    return losses * wrongness**config.focal_gamma


def _energy_penalty(
    logits: torch.Tensor, positive: torch.Tensor, known: torch.Tensor, config: LossConfig
) -> torch.Tensor:
    """Squared hinge on the energy: organic prompts belong to no category, so they are what is out of distribution."""
    values = energy(logits)
    organic = functional.relu(config.energy_organic - values) ** 2
    others = functional.relu(values - config.energy_positive) ** 2
    return torch.where(positive, others, organic) * known


def positive_weights(labels: torch.Tensor, balance: float) -> torch.Tensor:
    """Weight of a positive, `[labels + 1]`, from the labels `[prompts, labels]` of a split; distillation comes last."""
    positive = (labels == 1).any(dim=1)
    known = positive | (labels >= 0).all(dim=1)
    positives = torch.cat([(labels == 1).sum(dim=0), positive.sum().unsqueeze(0)])
    negatives = torch.cat([(labels == 0).sum(dim=0), (known & ~positive).sum().unsqueeze(0)])
    return (negatives.clamp_min(1) / positives.clamp_min(1)).float() ** balance
