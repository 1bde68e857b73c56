"""Cleaning: what is left out before splitting, each with its reason and its evidence.

Records are taken by rank, and each is held against those kept so far. What repeats a kept record is left out; what
contradicts one is settled by the sources: a label that more sources give wins, and where they are even, nobody's is
kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field
from tqdm import tqdm

from .config import Config
from .records import Record
from .similar import SimilarIndex, Sketch

DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near-duplicate"
OVER_GROUP = "near-duplicate over max_per_group"
CONFLICT = "conflicting labels"
TOO_SHORT = "too short"
TOO_LONG = "too long"


class CleanConfig(Config):
    """What is left out of the data."""

    threshold: float = Field(
        0.8, ge=0.5, le=1, description="Jaccard similarity of word runs from which two prompts are near-duplicates"
    )
    words: int = Field(3, ge=1, le=10, description="words in a run that is compared")
    max_per_group: int = Field(12, ge=1, description="near-duplicates of one group that are kept")
    min_chars: int = Field(1, ge=1, description="shorter prompts are left out; characters as the model reads them")
    max_chars: int = Field(200_000, ge=1, description="longer prompts are left out")


@dataclass(frozen=True, slots=True)
class Removed:
    """A record left out and why. `evidence` is the id of the record that shows it, or a fact where none does."""

    record: Record
    reason: str
    evidence: str
    evidence_source: str | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What becomes of each record, by its place in what came in.

    `removed` has an entry for each record that is left out; `links` are pairs of records, kept or not, that are
    alike and so must share a split.
    """

    records: Sequence[Record]
    removed: dict[int, Removed]
    links: list[tuple[int, int]]

    @property
    def kept(self) -> list[Record]:
        """The records that stay, in order."""
        return [record for number, record in enumerate(self.records) if number not in self.removed]


def clean(records: Sequence[Record], config: CleanConfig) -> Cleaned:
    """Leave out repeats, contradictions and what is too short or too long.

    Args:
        records: all that was read, by rank: of records that repeat each other the first is kept.
        config: the limits.
    """
    cleaner = _Cleaner(records, config)
    cleaner.run()
    return Cleaned(records, cleaner.removed, cleaner.links)


@dataclass(slots=True)
class _Satellite:
    """A record that was left out because of a kept one."""

    number: int
    similarity: float
    disputes: bool


@dataclass
class _Cleaner:
    records: Sequence[Record]
    config: CleanConfig
    removed: dict[int, Removed] = field(default_factory=dict)
    links: list[tuple[int, int]] = field(default_factory=list)
    _by_key: dict[str, list[int]] = field(default_factory=dict)
    _satellites: dict[int, list[_Satellite]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._index = SimilarIndex(self.config.threshold, len(self.records))

    def run(self) -> None:
        """Take every record; take those again whose kept counterpart lost its place, until all is settled."""
        queue = list(range(len(self.records)))
        while queue:
            for number in tqdm(queue, desc="comparing", unit=" records", mininterval=0.5, disable=None):
                self._take(number)
            queue = sorted(number for kept in list(self._satellites) for number in self._settle(kept))

    def _take(self, number: int) -> None:
        record = self.records[number]
        length = len(record.rendered)
        if not self.config.min_chars <= length <= self.config.max_chars:
            reason = TOO_SHORT if length < self.config.min_chars else TOO_LONG
            self.removed[number] = Removed(record, reason, f"{length:,} characters")
            return
        self.removed.pop(number, None)
        sketch = Sketch.of(record.rendered, self.config.words)
        near = dict(self._index.find(sketch))  # of records with one text, which only pairs keep, the first
        self.links += [(number, other) for other in near]
        same = self._by_key.get(record.key, [])
        if contradicted := [other for other in same if not record.agrees_with(self.records[other])]:
            self._leave_out(number, CONFLICT, contradicted[0], 1.0)
        elif repeated := [other for other in same if record.pair in (None, self.records[other].pair)]:
            self._leave_out(number, DUPLICATE, repeated[0], 1.0)
        elif record.pair or not self._leave_out_near(number, near):
            if not same:
                self._index.add(number, sketch)
            self._by_key.setdefault(record.key, []).append(number)

    def _leave_out_near(self, number: int, near: dict[int, float]) -> bool:
        """Leave a record out as a near-duplicate, if it is one that may not stay."""
        record = self.records[number]
        best = sorted(near, key=lambda other: (-near[other], other))
        agreeing = [other for other in best if record.agrees_with(self.records[other])]
        mates = [other for other in agreeing if record.group and self.records[other].group == record.group]
        strangers = [other for other in agreeing if other not in mates]
        opposed = [other for other in best if other not in agreeing]
        if strangers:
            self._leave_out(number, NEAR_DUPLICATE, strangers[0], near[strangers[0]])
        elif opposed:
            self._leave_out(number, CONFLICT, opposed[0], near[opposed[0]])
        elif len(mates) >= self.config.max_per_group:
            self._leave_out(number, OVER_GROUP, mates[0], near[mates[0]])
        else:
            return False
        return True

    def _leave_out(self, number: int, reason: str, kept: int, similarity: float) -> None:
        self._remove(number, reason, kept, similarity)
        self._satellites.setdefault(kept, []).append(_Satellite(number, similarity, reason == CONFLICT))

    def _remove(self, number: int, reason: str, shown_by: int, similarity: float) -> None:
        other = self.records[shown_by]
        self.removed[number] = Removed(self.records[number], reason, other.id, other.source, similarity)

    def _settle(self, kept: int) -> list[int]:
        """Decide whether a contradicted record stays; the records to take again where it does not.

        Each source has one vote. A boundary case, whose contradictions are meant, loses to its own text alone.
        """
        satellites = self._satellites[kept]
        record = self.records[kept]
        disputes = [item for item in satellites if item.disputes and (not record.pair or self._same(item, record))]
        own = {record.source, *(self.records[item.number].source for item in satellites if not item.disputes)}
        camps: dict[tuple[str, ...], set[str]] = {}
        for item in disputes:
            other = self.records[item.number]
            camps.setdefault(other.labels, set()).add(other.source)
        most = max(map(len, camps.values()), default=0)
        if len(own) > most:
            return []
        del self._satellites[kept]
        self._forget(kept)
        self._remove(kept, CONFLICT, disputes[0].number, disputes[0].similarity)
        if len(own) < most:
            return [item.number for item in satellites]
        for item in satellites:
            self._remove(item.number, CONFLICT, kept, item.similarity)
        return []

    def _forget(self, kept: int) -> None:
        key = self.records[kept].key
        was_found, same = self._by_key[key][0] == kept, self._by_key[key]
        same.remove(kept)
        if was_found:
            self._index.remove(kept)
            if same:
                self._index.add(same[0], Sketch.of(self.records[same[0]].rendered, self.config.words))

    def _same(self, item: _Satellite, record: Record) -> bool:
        return self.records[item.number].key == record.key
