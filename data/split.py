"""Splitting by cluster: what belongs together stays together, and adding data moves nothing that was placed.

A cluster is all that is joined by likeness, `group`, `pair` and, if asked, `source`. A new cluster goes where a hash
of its name says; one that an earlier build placed stays there.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator
from scipy.cluster.hierarchy import DisjointSet

from .clean import CleanConfig, Cleaned, Removed
from .config import Config
from .fixup import Cluster, SplitError, bring_in_labels
from .placements import PREFERENCE, Placements, hashed, text_key
from .reading import SPLITS
from .records import Record
from .similar import near_pairs

JOINS_SPLITS = "would join splits"
HELD_OUT_SPLIT = "test"


class SplitShares(Config):
    """Shares of the clusters that go into each split but train, which gets the rest."""

    calibration: float = Field(0.2, gt=0, lt=1)
    validation: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> SplitShares:
        if self.calibration + self.validation + self.test >= 0.9:
            raise ValueError("calibration, validation and test together leave under a tenth to train")
        return self

    def split_of(self, cluster: str, seed: int) -> str:
        """The split of a new cluster, from a hash of its name alone."""
        place = int.from_bytes(hashlib.sha256(f"{seed}:{cluster}".encode()).digest()[:8], "big") / 2**64
        bound = 0.0
        for split, share in (("test", self.test), ("validation", self.validation), ("calibration", self.calibration)):
            bound += share
            if place < bound:
                return split
        return "train"


@dataclass(frozen=True, slots=True)
class SplitRules:
    """How records are split: shares, the seed of the hash, whether each source stays in one split, and sources that
    go into test whole.
    """

    shares: SplitShares = SplitShares()
    seed: int = 0
    by_source: bool = False
    hold_out_sources: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """Where each kept record goes, and what there is to say of it.

    `splits` and `clusters` are by place in the cleaned records and hold what is kept. `removed` are records left out
    because they would join what earlier builds placed apart. `moves` are clusters whose place is not the one that
    hash or earlier build gave, each with the reason.
    """

    splits: dict[int, str]
    clusters: dict[int, str]
    removed: dict[int, Removed]
    moves: list[dict[str, Any]]
    placements: Placements


def clusters(records: Sequence[Record]) -> list[str]:
    """The cluster of each record by `group`, `pair` and likeness, for records that no build clustered."""
    rules = CleanConfig()
    joined = DisjointSet()
    names: dict[str, str] = {}
    for record in records:
        _join(joined, names, _keys(record, by_source=False))
    for one, two in near_pairs([record.rendered for record in records], rules.threshold, rules.words):
        _join(joined, names, [_keys(records[i], by_source=False)[0] for i in (one, two)])
    return [_name(names, joined, _keys(record, by_source=False)[0]) for record in records]


def place(cleaned: Cleaned, rules: SplitRules, previous: Placements) -> Placed:
    """Split what is kept.

    Raises:
        SplitError: a held-out source was trained on, or a label cannot be in every split.
    """
    placer = _Placer(cleaned, rules, previous)
    placer.join_placed()
    placer.join_new()
    placer.assign()
    placer.fix_up()
    return placer.placed()


def _keys(record: Record, by_source: bool) -> list[str]:
    """What joins a record to others, the name-giving key first: its own text only where nothing else does."""
    named = [f"{kind}:{value}" for kind, value in (("group", record.group), ("pair", record.pair)) if value]
    if by_source:
        named.append(f"source:{record.source}")
    return [*named, f"text:{record.key}"]


def _join(joined: DisjointSet, names: dict[str, str], keys: Sequence[str]) -> str:
    """Join keys into one set, which is named by the smallest key that names any of its records."""
    naming = keys[:-1] or keys[-1:]
    for key in keys:
        joined.add(key)
        names.setdefault(joined[key], _NO_NAME)
    for key in keys[1:]:
        _merge(joined, names, keys[0], key)
    root: str = joined[keys[0]]
    names[root] = min(names[root], *naming)
    return root


def _merge(joined: DisjointSet, names: dict[str, str], one: str, two: str) -> None:
    low = min(names[joined[one]], names[joined[two]])
    joined.merge(one, two)
    names[joined[one]] = low


def _name(names: Mapping[str, str], joined: DisjointSet, key: str) -> str:
    return hashed(names[joined[key]])


_NO_NAME = "\U0010ffff"


class _Placer:
    def __init__(self, cleaned: Cleaned, rules: SplitRules, previous: Placements) -> None:
        self._records = cleaned.records
        self._rules = rules
        self._previous = previous
        self._old = previous.by_key()
        self._removed = dict.fromkeys(cleaned.removed)
        self._bridges: dict[int, Removed] = {}
        self._moves: list[dict[str, Any]] = []
        self._joined = DisjointSet()
        self._names: dict[str, str] = {}
        self._place: dict[str, tuple[int, int]] = {}
        self._split: dict[str, str] = {}
        self._inside: set[int] = set()
        self._links: dict[int, list[int]] = defaultdict(list)
        for one, two in cleaned.links:
            self._links[one].append(two)
            self._links[two].append(one)
        self._held_out = set(rules.hold_out_sources)

    def join_placed(self) -> None:
        """Join the records that an earlier build placed. Where their data now joins what lay apart, the older place
        is kept, and at one age the one nearer to test.
        """
        for number, record in enumerate(self._records):
            own = self._old.get(text_key(record))
            if own is None:
                continue
            if record.source in self._held_out and PREFERENCE[own[1]] != HELD_OUT_SPLIT and self._is_kept(number):
                raise SplitError(
                    f"the source {record.source} is to be held out, and the previous build placed records of it in "
                    f"{PREFERENCE[own[1]]}; build without --previous, or hold out another source"
                )
            places = self._places(number)
            root = self._union(number)
            self._place[root] = min(places)
            if len({split for _, split in places}) > 1:
                there = sorted({PREFERENCE[split] for _, split in places})
                why = f"joined what earlier builds placed in {' and '.join(there)}"
                self._moves.append({"reason": why, "to": PREFERENCE[min(places)[1]], "record": record.id})

    def join_new(self) -> None:
        """Join all other records, by rank; one that would join what lies in two splits is left out."""
        for number, record in enumerate(self._records):
            if number in self._inside:
                continue
            places = self._places(number)
            if len({split for _, split in places}) > 1:
                if self._is_kept(number):
                    evidence = " and ".join(sorted({PREFERENCE[split] for _, split in places}))
                    self._bridges[number] = Removed(record, JOINS_SPLITS, evidence)
                continue
            root = self._union(number)
            if places:
                self._place[root] = min(places)

    def _is_kept(self, number: int) -> bool:
        return number not in self._removed and number not in self._bridges

    def _keys_of(self, number: int) -> list[str]:
        return _keys(self._records[number], self._rules.by_source)

    def _places(self, number: int) -> set[tuple[int, int]]:
        """Every place that a record's cluster would have: of its keys by earlier builds, and of what it joins."""
        keys = self._keys_of(number)
        joins = [self._joined[key] for key in keys if key in self._joined]
        joins += [self._joined[self._keys_of(other)[-1]] for other in self._links[number] if other in self._inside]
        places = {self._place[root] for root in joins if root in self._place}
        places |= {self._old[hashed(key)] for key in keys if hashed(key) in self._old}
        if self._records[number].source in self._held_out and self._is_kept(number):
            places.add((len(self._previous.builds), PREFERENCE.index(HELD_OUT_SPLIT)))
        return places

    def _union(self, number: int) -> str:
        keys = self._keys_of(number)
        others = [self._keys_of(other)[-1] for other in self._links[number] if other in self._inside]
        touched = {self._joined[key] for key in (*keys, *others) if key in self._joined}
        place = min((self._place.pop(root) for root in touched if root in self._place), default=None)
        if self._is_kept(number):
            _join(self._joined, self._names, keys)
        else:  # what was left out gives no name, so that repeats of a record do not rename its cluster
            for key in keys:
                self._joined.add(key)
                self._names.setdefault(self._joined[key], _NO_NAME)
                _merge(self._joined, self._names, keys[0], key)
        for other in others:
            _merge(self._joined, self._names, keys[0], other)
        self._inside.add(number)
        root: str = self._joined[keys[0]]
        if place is not None:
            self._place[root] = place
        return root

    def assign(self) -> None:
        """Give every cluster its split: the place it has, or else by hash."""
        for number in self._inside:
            root = self._root(number)
            if root not in self._split:
                name = hashed(self._names[root])
                place = self._place.get(root)
                by_hash = self._rules.shares.split_of(name, self._rules.seed)
                self._split[root] = by_hash if place is None else PREFERENCE[place[1]]

    def _root(self, number: int) -> str:
        root: str = self._joined[self._keys_of(number)[-1]]
        return root

    def _kept(self) -> Iterable[int]:
        return (number for number in range(len(self._records)) if self._is_kept(number))

    def fix_up(self) -> None:
        """Bring labels into splits that lack them.

        Raises:
            SplitError: a label cannot be in every split.
        """
        labels: dict[str, Counter[str]] = defaultdict(Counter)
        sizes: Counter[str] = Counter()
        for number in self._kept():
            root = self._root(number)
            labels[root].update(self._records[number].label_names)
            sizes[root] += 1
        members = [
            Cluster(hashed(self._names[root]), self._split[root], sizes[root], frozenset(own), root in self._place)
            for root, own in labels.items()
        ]
        self._moves += bring_in_labels(members)
        self._split.update(zip(labels, (member.split for member in members), strict=True))

    def placed(self) -> Placed:
        """The result."""
        kept = list(self._kept())
        splits = {number: self._split[self._root(number)] for number in kept}
        names = {number: hashed(self._names[self._root(number)]) for number in kept}
        moved: dict[str, str] = {}
        new: dict[str, list[str]] = {split: [] for split in SPLITS}
        for number in sorted(self._inside):
            split = self._split[self._root(number)]
            for key in map(hashed, self._keys_of(number)):
                if key not in self._old:
                    new[split].append(key)
                elif PREFERENCE[self._old[key][1]] != split:
                    moved[key] = split
        return Placed(splits, names, self._bridges, self._moves, self._previous.grown(new, moved))
