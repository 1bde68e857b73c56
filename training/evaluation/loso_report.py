"""What became of each source when it was left out, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from data.summary import markdown_table

from ..metrics.intervals import MIN_CLUSTERS, ClusterBootstrap, Estimate, exact_interval
from ..metrics.measures import share_measures
from ..metrics.ranking import threshold_at
from .loso_folds import MIN_ORGANIC, Pool

_COLUMNS = {
    "recall": "recall at 1 % FPR",
    "roc_auc": "area under ROC",
    "false_positive_rate": "false-positive rate",
}
_MEANS = (*_COLUMNS, "recall_one_threshold")


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What became of a source when it was left out; a metric is None where the source has no prompts for it."""

    source: str
    fold: int
    n: int
    recall: Estimate | None
    recall_one_threshold: Estimate | None
    roc_auc: Estimate | None
    false_positive_rate: Estimate | None
    pooled: bool
    """Whether the fold holds too few organic prompts, so that those of all folds set its threshold."""

    def to_json(self) -> dict[str, Any]:
        """For `loso.json`."""
        return {
            name: value.to_json() if isinstance(value, Estimate) else value
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
        }


def results(pool: Pool, scores: np.ndarray) -> list[SourceResult]:
    """Each source against the organic prompts that were left out with it, by name.

    A fold has a model of its own, and scores of two models need not agree: so the threshold of 1 % false positives
    is set in each fold on its own organic prompts, as long as it holds `MIN_ORGANIC`, and by those of all folds where
    it does not. `recall_one_threshold` is what a single threshold over all folds gives; how far the two lie apart says
    how well the folds' scores agree. Prompts that nobody can decide count in neither.

    Args:
        pool: the prompts.
        scores: out-of-fold, `[n]`.
    """
    clear = pool.clear
    positive, organic = clear & (pool.truth == 1), clear & (pool.truth == 0)
    over_all = scores > threshold_at(scores, organic, 0.01)
    found = []
    for source in sorted(set(pool.sources)):
        here = pool.sources == source
        fold = int(pool.fold[here][0])
        beside = organic & pool.held(fold)
        pooled = beside.sum() < MIN_ORGANIC
        beside = organic if pooled else beside
        over = scores > threshold_at(scores, beside, 0.01)
        ranked = np.sort(scores[beside])
        # The chance that a prompt scores over an organic one, ties counted half: its mean is the area under ROC.
        places = (np.searchsorted(ranked, scores) + np.searchsorted(ranked, scores, "right")) / 2 / len(ranked)
        found.append(
            SourceResult(
                source,
                fold,
                int((here & clear).sum()),
                _mean_over(over, here & positive, pool.clusters),
                _mean_over(over_all, here & positive, pool.clusters),
                _mean_over(places, here & positive, pool.clusters),
                _mean_over(over, here & organic, pool.clusters),
                bool(pooled),
            )
        )
    return found


def _mean_over(values: np.ndarray, chosen: np.ndarray, clusters: np.ndarray) -> Estimate | None:
    """The mean of the chosen values, its interval over whole clusters, or the means of the clusters if they are few."""
    if not chosen.any():
        return None
    values, clusters = values[chosen].astype(np.float64), clusters[chosen]
    names, member = np.unique(clusters, return_inverse=True)
    mean, n = float(values.mean()), len(values)
    if len(names) < MIN_CLUSTERS:
        singles = np.sort(np.bincount(member, values) / np.bincount(member))
        return Estimate(mean, None, None, n, ", ".join(f"{value:.2f}" for value in singles))
    if mean in (0.0, 1.0):  # nothing varies over draws: take the clusters for so many trials with one outcome
        return Estimate(mean, *exact_interval(round(mean) * len(names), len(names)), n)
    everyone = np.ones(n, bool)
    return ClusterBootstrap(clusters).estimates(share_measures("mean", values), everyone)["mean"]


def means(found: Sequence[SourceResult]) -> dict[str, Estimate]:
    """Means over sources, in which a large source counts no more than a small one, with a bootstrap over sources."""
    together: dict[str, Estimate] = {}
    for name in _MEANS:
        values = [estimate.value for result in found if (estimate := getattr(result, name)) is not None]
        mean = _mean_over(np.array(values), np.ones(len(values), bool), np.arange(len(values)))
        together |= {} if mean is None else {name: mean}
    return together


def report(found: Sequence[SourceResult], whole_runs: bool) -> str:
    """The table by source, and how to read it, as Markdown."""
    overall = means(found)
    rows = [
        [result.source, str(result.fold + 1), str(result.n), *(_cell(getattr(result, name)) for name in _COLUMNS)]
        for result in found
    ]
    rows.append(["mean over sources", "", "", *(_cell(overall.get(name)) for name in _COLUMNS)])
    table = markdown_table(["source", "fold", "prompts", *_COLUMNS.values()], rows)
    what = "whole runs" if whole_runs else "a linear probe on the frozen encoder"
    lines = [
        f"{len(found)} sources in {len({result.fold for result in found})} folds, each measured by a model that saw "
        f"nothing of it: {what}. In brackets 95 % intervals over clusters, and over sources in the last row; of fewer "
        f"than {MIN_CLUSTERS} the single values, after a colon.",
        "The threshold is that of 1 % false positives on the organic prompts of the fold, whose model no other fold "
        "shares; the area is that of a source's positives against the same prompts.",
    ]
    if "recall_one_threshold" in overall:
        one = _cell(overall["recall_one_threshold"])
        lines.append(f"With one threshold for all folds, though their scores need not agree, mean recall is {one}.")
    if few := sorted({result.fold + 1 for result in found if result.pooled}):
        numbers = ", ".join(map(str, few))
        lines.append(f"Fold {numbers}: under {MIN_ORGANIC} organic prompts, so those of all folds stand in for them.")
    return "\n\n".join([table, *lines])


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None:
        return f"{estimate.value:.3f}: {estimate.note}"
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"
