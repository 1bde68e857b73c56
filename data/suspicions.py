"""What looks wrong in labelled data though no single row is at fault; gathered in one pass, in bounded memory."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from ftfy.badness import is_bad

from .records import CATEGORIES, ORGANIC, Record

_FEW = 20
"""Under so many records nothing is said of a label or a source."""
_MOST_TEXTS = 10_000_000
_MOST_LENGTHS = 500_000
_ALL_BUT_3, _ALL_BUT_16 = (1 << 64) - 8, (1 << 64) - (1 << 16)
_LOOKED_AT = 2000
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One thing to look at: what kind, in words, and what it was seen in."""

    kind: str
    message: str
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As `check --format json` prints it."""
        return asdict(self)


class Suspicions:
    """Feed it every record, then ask for what was found."""

    def __init__(self) -> None:
        self._labels: Counter[str] = Counter()
        self._label_lengths: dict[str, Counter[int]] = defaultdict(Counter)
        self._source_lengths: dict[str, Counter[int]] = defaultdict(Counter)
        self._source_labels: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        self._distinct_lengths = 0
        self._damaged: Counter[str] = Counter()
        self._texts = array("Q")  # 61 bits of the text's hash, then one for each category
        self._ids = array("Q")  # 48 bits of the id's hash, then 16 of the text's

    def add(self, record: Record) -> None:
        """Take one record in."""
        names = record.label_names
        self._labels.update(names)
        for name in names:
            self._label_lengths[name][len(record.rendered)] += 1
        self._add_to_source(record)
        if _is_damaged(record):
            self._damaged[record.source] += 1
        if len(self._texts) < _MOST_TEXTS:
            text = int(record.key[:16], 16)
            labels = sum(1 << i for i, name in enumerate(CATEGORIES) if name in record.labels)
            self._texts.append(text & _ALL_BUT_3 | labels)
            self._ids.append(hash(record.id) << 16 & _ALL_BUT_16 | text >> 48)

    def _add_to_source(self, record: Record) -> None:
        """Lengths as they came, since a cut is made before anything is rendered."""
        if self._distinct_lengths >= _MOST_LENGTHS:
            return
        lengths = self._source_lengths[record.source]
        before = len(lengths)
        raw = [record.text] if record.text is not None else [turn["content"] for turn in record.messages or []]
        lengths[max(map(len, raw))] += 1
        self._distinct_lengths += len(lengths) - before
        self._source_labels[record.source].add(record.labels)

    def found(self) -> list[Suspicion]:
        """Everything suspicious in what was taken in, the most general first."""
        return [
            *self._one_class(),
            *self._one_length(),
            *self._one_label_sources(),
            *self._cuts(),
            *self._damage(),
            *self._repeats(),
        ]

    def _one_class(self) -> Iterator[Suspicion]:
        total = sum(self._labels.values())
        if total and len(self._labels) == 1:
            (only,) = self._labels
            yield Suspicion("one class", f"every record is {only}; a classifier needs both kinds", {"label": only})
        elif total and not self._labels[ORGANIC]:
            yield Suspicion("one class", "no record is organic: no false-positive rate can be measured", {})
        missing = [name for name in CATEGORIES if not self._labels[name]]
        if total and 0 < len(missing) < len(CATEGORIES):
            yield Suspicion("missing label", f"no record is {', '.join(missing)}", {"labels": missing})

    def _one_length(self) -> Iterator[Suspicion]:
        for name, lengths in self._label_lengths.items():
            n = lengths.total()
            length, most = lengths.most_common(1)[0]
            low, high = _quantile(lengths, 0.05), _quantile(lengths, 0.95)
            if n >= _FEW and most >= 0.5 * n:
                facts = {"label": name, "length": length, "records": most}
                yield Suspicion("one length", f"{most} of {n} {name} prompts have exactly {length} characters", facts)
            elif n >= _FEW and high <= 1.1 * low:
                facts = {"label": name, "low": low, "high": high}
                yield Suspicion(
                    "one length",
                    f"nine in ten {name} prompts have {low} to {high} characters: length gives it away",
                    facts,
                )

    def _one_label_sources(self) -> Iterator[Suspicion]:
        large = [name for name, lengths in self._source_lengths.items() if lengths.total() >= _FEW]
        single = sorted(name for name in large if len(self._source_labels[name]) == 1)
        if single and len(self._source_labels) > 1:
            message = (
                f"{len(single)} of {len(large)} sources hold one label only ({_some(single)}): a classifier can learn "
                "the source in place of the label; measure on whole held-out sources"
            )
            yield Suspicion("one-label source", message, {"sources": single})

    def _cuts(self) -> Iterator[Suspicion]:
        """Lengths that stand out at a round number, with next to nothing just beside them."""
        for source, lengths in sorted(self._source_lengths.items()):
            for length, n in sorted(lengths.items()):
                if n < 5 or n < 0.01 * lengths.total() or not _is_round(length):
                    continue
                beside = sum(lengths[length + step] for step in range(-5, 6) if step) / 10
                if n >= 10 * max(beside, 0.3):
                    message = f"{n} prompts of source {source} have exactly {length} characters: they look cut"
                    yield Suspicion("cut texts", message, {"source": source, "length": length, "records": n})

    def _damage(self) -> Iterator[Suspicion]:
        for source, n in self._damaged.most_common(_NAMED):
            message = (
                f"{n} prompts of source {source} show encoding damage (replacement characters, or UTF-8 read as "
                "another encoding): export them again as UTF-8"
            )
            yield Suspicion("encoding damage", message, {"source": source, "records": n})

    def _repeats(self) -> Iterator[Suspicion]:
        texts, ids = np.array(self._texts, np.uint64), np.array(self._ids, np.uint64)
        if not len(texts):
            return
        texts.sort()
        again = (texts[1:] ^ texts[:-1]) < 8  # the same text, whatever the labels
        limit = f" (of the first {_MOST_TEXTS:,})" if len(texts) == _MOST_TEXTS else ""
        if again.any():
            n = int(again.sum())
            message = f"{n} prompts stand more than once{limit}; a build keeps one of each"
            yield Suspicion("repeats", message, {"records": n})
        conflicts = np.unique(texts[1:][again & (texts[1:] != texts[:-1])] >> np.uint64(3))
        if len(conflicts):
            n = len(conflicts)
            message = f"{n} prompts stand with different labels{limit}; a build keeps what most sources say, or none"
            yield Suspicion("conflicting labels", message, {"prompts": n})
        ids.sort()
        changes = (ids[1:] != ids[:-1]) & ((ids[1:] ^ ids[:-1]) < 1 << 16)  # the same id, another text
        shared = len(np.unique(ids[1:][changes] >> np.uint64(16)))
        if shared:
            yield Suspicion("shared ids", f"{shared} ids stand for more than one prompt{limit}", {"ids": shared})


def _quantile(lengths: Counter[int], share: float) -> int:
    left = share * lengths.total()
    for length in sorted(lengths):
        left -= lengths[length]
        if left <= 0:
            return length
    return max(lengths)


def _is_round(length: int) -> bool:
    return length >= 100 and (length % 100 == 0 or (length >= 128 and length & (length - 1) == 0))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _is_damaged(record: Record) -> bool:
    """Replacement characters, UTF-8 read as Latin-1 or the like, or question marks in place of most letters."""
    raw = record.text if record.text is not None else "\n".join(turn["content"] for turn in record.messages or [])
    text = raw[:_LOOKED_AT]
    if not text.isascii():
        return "\ufffd" in text or bool(is_bad(text))
    return len(text) >= 20 and text.count("?") > 0.3 * len(text)
