"""Counts of records by label, source, language and length, taken one by one, and how they are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .records import CATEGORIES, ORGANIC, Record

Counts = dict[str, dict[str, int]]
LENGTH_BANDS = ((0, 150), (150, 500), (500, 1500), (1500, 4000), (4000, None))
_MOST_NAMES = 10_000
FURTHER = "(further)"
NOT_STATED = "not stated"


class Summary:
    """Counts by axis; memory stays bounded even where every record names a source of its own."""

    def __init__(self) -> None:
        self.records = 0
        self._labels: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._lengths: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Count one record."""
        self.records += 1
        self._labels.update(record.label_names)
        _add(self._sources, record.source)
        _add(self._languages, record.lang or NOT_STATED)
        self._lengths[band_of(len(record.rendered))] += 1

    def counts(self) -> Counts:
        """Axis → value → records; a record of two labels counts under both."""
        return {
            "all": {"records": self.records},
            "label": {label: self._labels[label] for label in (*CATEGORIES, ORGANIC)},
            "source": by_count(self._sources),
            "language": by_count(self._languages),
            "length": {band_name(band): self._lengths[band_name(band)] for band in LENGTH_BANDS},
        }


def count_axes(records: Iterable[Record]) -> Counts:
    """The counts of some records."""
    summary = Summary()
    for record in records:
        summary.add(record)
    return summary.counts()


def _add(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < _MOST_NAMES else FURTHER] += 1


def by_count(values: Iterable[str] | Mapping[str, int]) -> dict[str, int]:
    """How often each value stands, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def band_name(band: tuple[int, int | None]) -> str:
    """A band of lengths in characters, in words."""
    low, high = band
    return f"{low}-{high - 1}" if high else f"{low} and more"


def band_of(length: int) -> str:
    """The name of the band that a length lies in."""
    return band_name(next(band for band in LENGTH_BANDS if band[1] is None or length < band[1]))


def count_tables(counts: Mapping[str, Counts], most: int = 100) -> str:
    """Markdown tables of counts by split (or by any name), one for each axis, of at most `most` rows each."""
    tables = []
    for axis in ("label", "language", "length", "source"):
        names = list(dict.fromkeys(value for by_axis in counts.values() for value in by_axis[axis]))
        columns = [[by_axis[axis].get(name, 0) for name in names] for by_axis in counts.values()]
        rows = [[name, *(column[i] for column in columns)] for i, name in enumerate(names[:most])]
        if len(names) > most:
            rows.append([f"({len(names) - most} more)", *(sum(column[most:]) for column in columns)])
        heading = f"{axis} in characters" if axis == "length" else axis
        tables.append(markdown_table([heading, *counts], rows))
    return "\n\n".join(tables)


def markdown_table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, its columns aligned so that it reads well as plain text; numbers to the right."""
    cells = [[str(value) for value in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])
