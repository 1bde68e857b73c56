"""Where hashing leaves a label out of a split: the fewest moves of new clusters that bring it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .reading import SPLITS
from .records import CATEGORIES, ORGANIC


class SplitError(ValueError):
    """Records that cannot be split as asked."""


@dataclass(slots=True)
class Cluster:
    """A cluster, the split that it is to go into, and whether it must stay there."""

    name: str
    split: str
    records: int
    labels: frozenset[str]
    is_held: bool


def bring_in_labels(clusters: Sequence[Cluster]) -> list[dict[str, Any]]:
    """Move clusters into splits that lack a label, out of where most clusters of it lie, smallest name first.

    A move takes no label from the split that it comes from, so what was brought in stays in.

    Args:
        clusters: all of them; their `split` is changed.

    Returns:
        each move: cluster, from, to, records, reason.

    Raises:
        SplitError: a label cannot be in every split.
    """
    moves = []
    ordered = sorted(clusters, key=lambda cluster: cluster.name)
    for label in (*CATEGORIES, ORGANIC):
        having = [cluster for cluster in ordered if label in cluster.labels]
        for split in SPLITS:
            if any(cluster.split == split for cluster in having):
                continue
            giver = _giver(having, ordered)
            if giver is None:
                raise SplitError(_cannot_place(label, split, having))
            moves.append(
                {
                    "reason": f"{split} had no {label}",
                    "cluster": giver.name,
                    "from": giver.split,
                    "to": split,
                    "records": giver.records,
                }
            )
            giver.split = split
    return moves


def _giver(having: Sequence[Cluster], ordered: Sequence[Cluster]) -> Cluster | None:
    """A cluster that may be moved and whose split keeps all its labels without it."""
    sizes = Counter(cluster.split for cluster in having)
    free = [cluster for cluster in having if not cluster.is_held]
    for cluster in sorted(free, key=lambda cluster: -sizes[cluster.split]):
        beside = [other for other in ordered if other.split == cluster.split and other is not cluster]
        left = {label for other in beside for label in other.labels}
        if cluster.labels <= left:
            return cluster
    return None


def _cannot_place(label: str, split: str, having: Sequence[Cluster]) -> str:
    held = sum(cluster.is_held for cluster in having)
    before = f", {held} of them held where they are (by an earlier build, or as held-out sources)" if held else ""
    mend = (
        f"give at least {len(SPLITS)} further groups of that label"
        if having
        else f"add records of {label}; each of {', '.join(SPLITS)} needs some"
    )
    return f"no record of {label} can be placed in {split}: it stands in {len(having)} cluster(s){before}; {mend}"
