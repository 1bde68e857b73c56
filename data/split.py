"""Splitting by cluster and stable hash: what belongs together stays together, and adding data moves nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from .records import CATEGORIES, ORGANIC, Record
from .sources import SplitShares

SPLITS = ("train", "calibration", "validation", "test")


class SplitError(ValueError):
    """Records that cannot be split as asked."""


def clusters(records: Sequence[Record]) -> list[str]:
    """The cluster of each record: records joined by `group` or `pair`, directly or through others.

    A cluster is named by the smallest of its keys, so that its name does not depend on the order of the records.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    keys = [_keys(record) for record in records]
    for first, *others in keys:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return [hashlib.sha256(root(first).encode()).hexdigest()[:16] for first, *_ in keys]


def _keys(record: Record) -> list[str]:
    named = [f"{kind}:{value}" for kind, value in (("group", record.group), ("pair", record.pair)) if value]
    return named or [f"text:{record.key}"]


def assign(names: Iterable[str], shares: SplitShares, seed: int) -> list[str]:
    """The split of each cluster, from a hash of its name alone."""
    bounds = [
        ("test", shares.test),
        ("validation", shares.test + shares.validation),
        ("calibration", shares.test + shares.validation + shares.calibration),
    ]
    placed = []
    for name in names:
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        placed.append(next((split for split, bound in bounds if place < bound), "train"))
    return placed


def check_splits(splits: Mapping[str, Sequence[Record]]) -> None:
    """Fail on leakage and on a label that a split lacks; independent of the code that splits.

    Raises:
        SplitError: says what leaks, or which labels are missing where.
    """
    home: dict[str, str] = {}
    for split, records in splits.items():
        for record in records:
            for key in (f"text:{record.key}", *_keys(record)):
                if home.setdefault(key, split) != split:
                    raise SplitError(f"{key.split(':')[0]} of record {record.id} stands in {home[key]} and in {split}")
    missing = [
        f"{label} in {split}"
        for split, records in splits.items()
        for label in (*CATEGORIES, ORGANIC)
        if not any(label in (record.labels or (ORGANIC,)) for record in records)
    ]
    if missing:
        raise SplitError(
            f"no record of {'; '.join(missing)}. Add records of that label in further groups, or change the shares "
            "or the seed in the configuration"
        )
