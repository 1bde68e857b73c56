"""Cleaning: what is removed before splitting, each with its reason and its evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .records import Record


@dataclass(frozen=True, slots=True)
class Removed:
    """A record left out, why, and the id of the record that shows it."""

    record: Record
    reason: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What is kept, in order, and what is removed: together all that came in."""

    kept: list[Record]
    removed: list[Removed]


def remove_duplicates(records: Iterable[Record]) -> Cleaned:
    """Keep the first of records that read alike; where such records disagree on the labels, keep none of them."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.key, []).append(record)
    kept, removed = [], []
    for alike in groups.values():
        first, *others = alike
        odd = next((record for record in others if record.labels != first.labels), None)
        if odd is not None:
            reason = "conflicting labels"
            removed.append(Removed(first, reason, odd.id))
        else:
            reason = "duplicate"
            kept.append(first)
        removed += [Removed(record, reason, first.id) for record in others]
    return Cleaned(kept, removed)
