"""How far probabilities can be trusted: calibration undone, the calibration error, and the points of its picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.artefact import Platt

from .intervals import exact_interval

BINS = 15
_PROMPTS_IN_A_POINT = 20


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One point of a reliability diagram.

    `predicted` is the mean probability of its `n` prompts, `observed` the share of positives among them, with the exact
    (Clopper-Pearson) 95 % interval from `low` to `high`, which takes prompts as independent.
    """

    predicted: float
    observed: float
    low: float
    high: float
    n: int


def uncalibrated(probabilities: np.ndarray, platt: Platt) -> np.ndarray:
    """The logits `[n]` that became these calibrated probabilities `[n]`: the inverse of `Platt.apply`.

    A float64 of exactly 1 stands for every calibrated logit over 36.7, and one of exactly 0 for every one under -744:
    the logit of the float next to it is taken, so the ranking holds and nothing is infinite.

    Raises:
        ValueError: the slope is 0; then all prompts have one probability, and nothing leads back.
    """
    if platt.slope == 0:
        raise ValueError("a calibration of slope 0 cannot be undone")
    inside = np.clip(np.asarray(probabilities, np.float64), np.nextafter(0, 1), np.nextafter(1, 0))
    return (np.log(inside) - np.log1p(-inside) - platt.offset) / platt.slope


def mass_bins(probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin `[n]`, from 0 to `bins` - 1, of each probability, so that all bins hold about as many prompts.

    Equal probabilities share the bin that their middle rank falls into, since nothing tells them apart; bins may
    therefore be empty.
    """
    _, member, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return (middle * bins / max(1, len(probabilities))).astype(int)[member]


def calibration_error(
    probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS
) -> np.ndarray:
    """Expected calibration error over bins of equal mass (Naeini et al. 2015; equal mass: Nixon et al. 2019).

    The mean, weighted by prompts, of |observed share - mean probability| in a bin. On few prompts it lies over 0 even
    where probabilities are perfect, since shares in a bin are drawn by chance.

    Args:
        probabilities: `[n]`, at least one.
        truth: `[n]`, 1 or 0.
        weights: counts `[draws, n]`; each prompt counts once where None. Bins stay those of the whole sample.
        bins: how many.

    Returns:
        `[draws]`, in [0, 1].
    """
    counts = np.ones((1, len(truth))) if weights is None else np.atleast_2d(weights)
    inside = np.equal.outer(mass_bins(probabilities, bins), np.arange(bins))
    gaps = counts @ (inside * (np.asarray(truth) - probabilities)[:, None])
    error: np.ndarray = np.abs(gaps).sum(axis=1) / counts.sum(axis=1)
    return error.clip(0.0, 1.0)


def reliability_bins(probabilities: np.ndarray, truth: np.ndarray) -> list[ReliabilityBin]:
    """The points of a reliability diagram, lowest probability first: bins of equal mass, fewer on small samples."""
    bins = min(BINS, max(1, len(truth) // _PROMPTS_IN_A_POINT))
    member = mass_bins(probabilities, bins)
    points = []
    for number in range(bins):
        here = member == number
        n, positive = int(here.sum()), int(truth[here].sum())
        if n:
            interval = exact_interval(positive, n)
            points.append(ReliabilityBin(float(probabilities[here].mean()), positive / n, *interval, n))
    return points
