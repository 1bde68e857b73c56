"""The check that nothing leaks from one split into another; it shares no code with cleaning and splitting."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .records import CATEGORIES, ORGANIC, Record
from .similar import shingles, similar_across


class LeakError(ValueError):
    """Splits that are not to be trained and measured on."""


def check_splits(
    splits: Mapping[str, Sequence[Record]],
    threshold: float,
    words: int,
    by_source: bool = False,
    held_out: Collection[str] = (),
) -> None:
    """Fail where two splits share a text, a group, a pair or near-duplicates, or where a split lacks a label.

    Args:
        splits: records by split.
        threshold: similarity from which two prompts are near-duplicates.
        words: words in a run that is compared.
        by_source: whether two splits may not share a source either.
        held_out: sources that may stand in test alone.

    Raises:
        LeakError: names the first leak found.
    """
    home: dict[tuple[str, str], str] = {}
    for split, records in splits.items():
        for record in records:
            joins = {"text": record.key, "group": record.group, "pair": record.pair}
            if by_source:
                joins["source"] = record.source
            for kind, value in joins.items():
                if value and home.setdefault((kind, value), split) != split:
                    raise LeakError(f"{kind} of record {record.id} stands in {home[kind, value]} and in {split}")
            if record.source in held_out and split != "test":
                raise LeakError(f"record {record.id} of the held-out source {record.source} stands in {split}")
    _check_near_duplicates(splits, threshold, words)
    missing = [
        f"{label} in {split}"
        for split, records in splits.items()
        for label in (*CATEGORIES, ORGANIC)
        if not any(label in record.label_names for record in records)
    ]
    if missing:
        raise LeakError(f"no record of {'; '.join(missing)}")


def _check_near_duplicates(splits: Mapping[str, Sequence[Record]], threshold: float, words: int) -> None:
    records = [record for part in splits.values() for record in part]
    places = np.repeat(np.arange(len(splits)), [len(part) for part in splits.values()])
    found = similar_across([shingles(record.rendered, words) for record in records], places, threshold)
    if found is not None:
        one, two, similarity = found
        names = list(splits)
        raise LeakError(
            f"records {records[one].id} in {names[places[one]]} and {records[two].id} in {names[places[two]]} "
            f"are {similarity:.2f} alike, at or over the threshold {threshold}"
        )
