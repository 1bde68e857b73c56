"""Two artefacts on the same prompts: each metric of both on the same bootstrap draws, so that what they share cancels.

A draw takes whole clusters with replacement, and both artefacts are measured on it; the difference of the two, over all
draws, is how the difference varies (the paired bootstrap; Efron and Tibshirani 1993, chapter 16). Whatever is set on
the prompts themselves, such as a threshold at a false-positive rate, is set anew in each draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import norm

from inference.artefact import Assay

from ..evaluation.labelled import Measured
from ..metrics.intervals import ClusterBootstrap, Measures

ALPHA = 0.05
"""Level of each one-sided test, and of each one-sided bound."""
SMALLEST_P = 1e-6
"""Nothing finer is claimed, however far the normal tail reaches."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Paired:
    """A metric of two artefacts, and how its gain varies; a gain over 0 means that the challenger is better.

    `gains` are those of the draws in which both were defined, `[draws]`, sorted. `n` prompts stand behind the metric.
    """

    champion: float
    challenger: float
    gains: np.ndarray
    n: int
    higher: bool = True

    @property
    def gain(self) -> float:
        """By how much the challenger is better on the prompts as they are."""
        return (self.challenger - self.champion) * (1 if self.higher else -1)

    @property
    def low(self) -> float:
        """Lower one-sided 95 % bound of the gain: over a limit exactly where `p_up_to(limit)` is under 5 %."""
        return float(self.gains[self._beyond])

    @property
    def high(self) -> float:
        """Upper one-sided 95 % bound of the gain: under a limit exactly where `p_from(limit)` is under 5 %."""
        return float(self.gains[len(self.gains) - 1 - self._beyond])

    @property
    def _beyond(self) -> int:
        """How many draws may lie on the far side of a limit, so that the p-value stays under 5 %."""
        return max(0, math.ceil(ALPHA * (len(self.gains) + 1)) - 2)

    def p_up_to(self, limit: float) -> float:
        """One-sided p-value of the claim that the gain is `limit` or less: small where it is shown to be more."""
        return self._p(int((self.gains <= limit + _ROUNDING).sum()), self.gain - limit)

    def p_from(self, limit: float) -> float:
        """One-sided p-value of the claim that the gain is `limit` or more: small where it is shown to be less."""
        return self._p(int((self.gains >= limit - _ROUNDING).sum()), limit - self.gain)

    def _p(self, against: int, distance: float) -> float:
        """The share of draws against, counting the sample itself (Davison and Hinkley 1997, section 4.2).

        Where no draw is against, the draws are too few to say how small it is, and Holm needs to know: then the tail
        of a normal distribution of their spread is taken, where that is smaller still.
        """
        share = (1 + against) / (1 + len(self.gains))
        if against or distance <= 0:
            return share
        spread = float(self.gains.std())
        tail = float(norm.sf(distance / spread)) if spread > 0 else 0.0
        return max(SMALLEST_P, min(share, tail))


@dataclass(frozen=True)
class Pair:
    """Both artefacts on the same prompts, all of known truth and none ambiguous, in one order."""

    champion: Measured
    challenger: Measured
    assays: tuple[Assay, Assay]
    seed: int = 0

    @property
    def positive(self) -> np.ndarray:
        """Distillation-style prompts: a mask `[n]`."""
        return self.champion.truth == 1

    @property
    def organic(self) -> np.ndarray:
        """All others: a mask `[n]`."""
        return self.champion.truth == 0

    @cached_property
    def bootstrap(self) -> ClusterBootstrap:
        """The draws that all metrics of both artefacts are taken over."""
        return ClusterBootstrap(self.champion.clusters, seed=self.seed)

    def compare(
        self,
        of: Callable[[Measured, Assay], Measures],
        counts: Mapping[str, int],
        lower: Collection[str] = (),
        centred: Collection[str] = (),
    ) -> dict[str, Paired]:
        """Metrics of both artefacts, by name.

        Args:
            of: what is measured on one artefact; the same names for both.
            counts: how many prompts stand behind each of them; it names those that are wanted.
            lower: metrics of which less is better.
            centred: metrics whose draws are moved so that their mean is the value, as in `ClusterBootstrap.estimates`.
        """
        everyone = np.ones(len(self.champion.records), bool)
        values, samples = [], []
        for measured, assay in zip((self.champion, self.challenger), self.assays, strict=True):
            measures = of(measured, assay)
            values.append({name: float(value[0]) for name, value in measures(None).items()})
            samples.append(self.bootstrap.samples(measures, everyone))
        found = {}
        for name, n in counts.items():
            gains = (samples[1][name] - samples[0][name]) * (-1 if name in lower else 1)
            gains = np.sort(gains[np.isfinite(gains)])
            one = Paired(values[0][name], values[1][name], gains, n, name not in lower)
            if name in centred:
                one = Paired(one.champion, one.challenger, gains + one.gain - gains.mean(), n, one.higher)
            found[name] = one
        return found


def together(*parts: Measures) -> Measures:
    """All metrics of some measures, over the same weights."""

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        return {name: value for part in parts for name, value in part(weights).items()}

    return measures


def fixed_rates(found: np.ndarray, among: Mapping[str, np.ndarray]) -> Measures:
    """The share that is found (a mask `[n]`) of each group of prompts, by name: masks `[n]`."""
    groups = np.stack(list(among.values()), axis=1).astype(np.float64)

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        counts = np.ones((1, len(found))) if weights is None else weights
        return _shares(among, (counts * found) @ groups, counts @ groups)

    return measures


def moving_rates(scores: np.ndarray, organic: np.ndarray, fpr: float, among: Mapping[str, np.ndarray]) -> Measures:
    """The share of each group that is over the threshold which lets through this rate of all organic prompts.

    The threshold is found in each draw, as `Curve.recall_at_fpr` finds it: the lowest that lets through at most
    floor(n * fpr) of n organic prompts.

    Args:
        scores: `[n]`.
        organic: a mask `[n]`.
        fpr: the rate.
        among: the groups by name: masks `[n]`.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    first = np.r_[True, ranked[1:] != ranked[:-1]]
    # Where the tie that a place lies in begins: a tie passes whole or not at all.
    tie = np.r_[np.maximum.accumulate(np.where(first, np.arange(len(ranked)), 0)), len(ranked)]
    out = organic[order].astype(np.float64)
    groups = np.stack(list(among.values()), axis=1)[order].astype(np.float64)
    places = np.arange(len(ranked))

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        counts = np.ones((1, len(order))) if weights is None else weights[:, order]
        let_through = np.cumsum(counts * out, axis=1)
        allowed = np.floor(let_through[:, -1:] * fpr + _ROUNDING)
        passed = tie[(let_through <= allowed).sum(axis=1)]
        return _shares(among, (counts * (places < passed[:, None])) @ groups, counts @ groups)

    return measures


def _shares(among: Mapping[str, np.ndarray], found: np.ndarray, total: np.ndarray) -> dict[str, np.ndarray]:
    """Found of all by name, `[draws]` each, from `[draws, groups]`; not a number where a draw holds none of a group."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return dict(zip(among, (found / total).T, strict=True))
