"""The check that nothing leaks from one split into another; it compares texts in a way of its own, without sketches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .records import CATEGORIES, ORGANIC, Record
from .similar import Rarity, jaccard, overlap_needed, shingles


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


def similar_across(texts: Sequence[np.ndarray], places: np.ndarray, threshold: float) -> tuple[int, int, float] | None:
    """The first pair of texts in different places that is at least `threshold` alike, or None: exact, no sketches.

    Two sets with a Jaccard similarity of at least t share one of their rarest `n - ceil(t n) + 1` members (the prefix
    filter of Bayardo, Ma and Srikant, WWW 2007), and at the first that they share enough members are left in both
    (the positional filter of Xiao, Wang, Lin and Yu, WWW 2008). Only such pairs are compared.

    Args:
        texts: shingles of each text, ascending.
        places: `[texts]`, where each text lies.
        threshold: over 0, at most 1.
    """
    if not len(texts):
        return None
    rarity = Rarity()
    for text in texts:
        rarity.count(text)
    rare = [rarity.rarest(text, threshold) for text in texts]
    counts = [len(some) for some in rare]
    shared = np.concatenate(rare)
    owner = np.repeat(np.arange(len(texts), dtype=np.int32), counts)
    # What a text can still share from a rare shingle on: that shingle, and all that come after it in the order.
    left = np.repeat([len(text) for text in texts], counts) - np.concatenate([np.arange(n) for n in counts])
    order = np.argsort(shared, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(shared[order])) + 1, len(order))
    starts = np.append(0, ends[:-1])
    sizes = np.array([len(text) for text in texts])
    seen: set[tuple[int, int]] = set()
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        members = owner[order[start:end]]
        here, rest = places[members], left[order[start:end]]
        if (here == here[0]).all():
            continue
        for i in range(len(members) - 1):
            needed = overlap_needed(sizes[members[i]], sizes[members[i + 1 :]], threshold)
            fits = (here[i + 1 :] != here[i]) & (rest[i + 1 :] >= needed) & (needed <= rest[i])
            for two in members[i + 1 :][fits].tolist():
                pair = (int(members[i]), two)
                if pair not in seen:
                    seen.add(pair)
                    similarity = jaccard(texts[pair[0]], texts[two])
                    if similarity >= threshold:
                        return (*pair, similarity)
    return None
