"""Values with intervals: exact ones for rates, a bootstrap over whole clusters for all else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

DRAWS = 2000
MIN_CLUSTERS = 10
"""A bootstrap over fewer clusters has too few to draw from: its intervals come out too narrow, so none is given."""
_CELLS = 2_000_000
"""Weights that are laid out at once: a chunk of draws times prompts that stays near the processor."""

Measures = Callable[[np.ndarray | None], Mapping[str, np.ndarray]]
"""Metrics by name, each `[draws]`, for weights `[draws, prompts]`; one draw that counts each prompt once for None."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its 95 % interval; `n` prompts stand behind it. `value` is None where `note` says why."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in `metrics.json`."""
        return {name: value for name, value in asdict(self).items() if name != "note" or value is not None}


def missing(n: int, note: str) -> Estimate:
    """A metric that `n` prompts cannot give, and why."""
    return Estimate(None, None, None, n, note)


class ClusterBootstrap:
    """Draws of whole clusters with replacement: prompts of one cluster are not independent (Field and Welsh 2007).

    The draws are made once, over all prompts; each part of them is measured on the same draws, so that metrics of two
    parts, or of two artefacts, can be compared draw by draw.
    """

    def __init__(self, clusters: np.ndarray, draws: int = DRAWS, seed: int = 0) -> None:
        names, self._member = np.unique(clusters, return_inverse=True)
        rng = np.random.default_rng(seed)
        self._counts = np.empty((draws, len(names)), np.uint16)
        for draw in range(draws):
            drawn = rng.integers(0, len(names), len(names)) if len(names) else np.zeros(0, np.int64)
            self._counts[draw] = np.bincount(drawn, minlength=len(names))

    @property
    def draws(self) -> int:
        """How many."""
        return len(self._counts)

    def clusters_in(self, chosen: np.ndarray) -> int:
        """How many clusters the chosen prompts (a mask `[n]`) belong to."""
        return len(np.unique(self._member[chosen]))

    def weights(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """Counts `[some draws, chosen prompts]` of the chosen prompts (a mask `[n]`), chunk by chunk."""
        member = self._member[chosen]
        step = max(1, _CELLS // max(1, len(member)))
        for start in range(0, self.draws, step):
            yield self._counts[start : start + step][:, member].astype(np.float64)

    def samples(self, measures: Measures, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Each metric over all draws, `[draws]`."""
        parts = [measures(weights) for weights in self.weights(chosen)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def estimates(
        self,
        measures: Measures,
        chosen: np.ndarray,
        centred: Sequence[str] = (),
        positive: np.ndarray | None = None,
    ) -> dict[str, Estimate]:
        """Each metric with the percentile interval over the draws.

        Args:
            measures: over the chosen prompts alone.
            chosen: a mask `[n]` over all prompts.
            centred: metrics whose draws are moved so that their mean is the value. A calibration error grows with
                noise, so each draw has more of it than the sample, and the plain interval would lie over the value.
            positive: of a metric of two classes, which of all prompts are positive, a mask `[n]`: both classes then
                need `MIN_CLUSTERS` clusters.
        """
        n = int(chosen.sum())
        values = {name: float(value[0]) for name, value in measures(None).items()}
        parts = [chosen] if positive is None else [chosen & positive, chosen & ~positive]
        fewest = min(self.clusters_in(part) for part in parts)
        if fewest < MIN_CLUSTERS:
            each = "" if positive is None else " of each class"
            return {name: missing(n, f"needs {MIN_CLUSTERS} clusters{each}, and {fewest} are there") for name in values}
        samples = self.samples(measures, chosen)
        return {name: _percentiles(values[name], samples[name], n, name in centred) for name in values}


def _percentiles(value: float, draws: np.ndarray, n: int, centred: bool) -> Estimate:
    draws = draws[np.isfinite(draws)]  # a draw may hold one class alone
    if not np.isfinite(value) or not len(draws):
        return missing(n, "is not defined on these prompts")
    if centred:
        draws = np.clip(draws + value - draws.mean(), 0, 1)
    low, high = np.percentile(draws, [2.5, 97.5])
    # Few clusters, or the last digit of a sum, can leave the value itself outside.
    return Estimate(value, min(value, float(low)), max(value, float(high)), n)


def exact_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def rate_estimate(successes: int, n: int) -> Estimate:
    """A rate with its exact interval."""
    if n == 0:
        return missing(0, "no prompts")
    return Estimate(successes / n, *exact_interval(successes, n), n)


def count_estimate(successes: int, n: int) -> Estimate:
    """A count out of `n`, with the exact interval of its rate times `n`."""
    if n == 0:
        return missing(0, "no prompts")
    low, high = exact_interval(successes, n)
    return Estimate(float(successes), low * n, high * n, n)
