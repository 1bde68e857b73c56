"""The tables of a corpus' own README: counts by every axis and class, the strongest words, the functional suite.

They stand between two marks, are made by `python -m data card FOLDER`, and a test holds them true.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import yaml
from sklearn.feature_extraction.text import CountVectorizer

from inference.artefact import write_text

from .reading import load_records
from .records import CATEGORIES, ORGANIC, Record
from .similar import tokens
from .summary import LENGTH_BANDS, NOT_STATED, band_name, band_of, markdown_table

BEGIN, END = "<!-- tables: python -m data card -->", "<!-- end of tables -->"
CLASSES = (ORGANIC, *CATEGORIES)
SUITE = "suite"
_BETWEEN = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
_STRONGEST = 20
_READ = 20_000
_FEW = 20


class CardError(ValueError):
    """A corpus whose README cannot take the tables; the message says what is missing."""


class CorpusError(ValueError):
    """Records that have faults; the message lists them."""


def corpus_files(folder: Path) -> list[Path]:
    """The corpus' own files of records; those of the functional suite are none of them."""
    return [path for path in sorted(folder.glob("*/*.jsonl")) if path.parent.name != SUITE]


def with_tables(folder: Path) -> str:
    """The README of a corpus with its tables made anew.

    Raises:
        CardError: the README is missing or has no marks.
        CorpusError: a record has faults.
    """
    path = folder / "README.md"
    if not path.is_file():
        raise CardError(f"{path}: missing; write one that holds the lines {BEGIN} and {END}")
    text = path.read_text(encoding="utf-8")
    if not _BETWEEN.search(text):
        raise CardError(f"{path}: needs the lines {BEGIN} and {END}, with the tables between")
    records, faults = load_records(corpus_files(folder))
    if faults:
        raise CorpusError("\n".join([*map(str, faults), f"{len(faults)} fault(s); the card is as it was"]))
    tables = "\n\n".join([*corpus_tables(records), *suite_tables(folder / SUITE)])
    return _BETWEEN.sub(lambda _: f"{BEGIN}\n\n{tables}\n\n{END}", text)


def write_card(folder: Path) -> bool:
    """Make the tables anew; whether the README changed."""
    path = folder / "README.md"
    text = with_tables(folder)
    if text == path.read_text(encoding="utf-8"):
        return False
    write_text(path, text)
    return True


def corpus_tables(records: Sequence[Record]) -> list[str]:
    """Markdown tables with headings. Classes overlap: a record of two categories counts under both."""
    pairs = {record.pair for record in records if record.pair}
    frames = Counter(record.group for record in records if record.group)
    two = sum(len(record.labels) > 1 for record in records)
    whole = (
        f"{len(records):,} records, of which {two:,} carry two categories; {len(pairs):,} boundary pairs; "
        f"{len(frames):,} frames, filled {sum(frames.values()):,} times, none more than "
        f"{max(frames.values(), default=0)} times."
    )
    return [
        "### Counts",
        whole,
        _by_class("all", records, lambda _: "records", ["records"]),
        "### By language",
        _by_class("language", records, lambda record: record.lang or NOT_STATED),
        "### By length in characters",
        _by_class("length", records, lambda x: band_of(len(x.rendered)), [band_name(band) for band in LENGTH_BANDS]),
        _lengths(records),
        "### By form and origin",
        _by_class("form", records, lambda record: "chat" if record.messages is not None else "text"),
        _by_class("origin", records, lambda record: record.origin or NOT_STATED),
        "### By style",
        _by_class("style", records, lambda record: record.style or NOT_STATED),
        "### Strongest words of each class",
        "The words that best tell a class from the others (log-odds, in at least 20 records), for a person to judge: a "
        "word that speaks of the topic of a few prompts and not of the idea is a shortcut.",
        *(f"- {name}: {', '.join(words)}" for name, words in strongest_words(records).items()),
    ]


def _in_class(record: Record, name: str) -> bool:
    return name in record.label_names


def _by_class(axis: str, records: Sequence[Record], value: Callable[[Record], str], names: Iterable[str] = ()) -> str:
    counts = {name: Counter(value(record) for record in records if _in_class(record, name)) for name in CLASSES}
    whole = Counter(map(value, records))
    order = list(names) or sorted(whole, key=lambda name: (-whole[name], name))
    rows = [[name, whole[name], *(counts[label][name] for label in CLASSES)] for name in order]
    return markdown_table([axis, "all", *CLASSES], rows)


def _lengths(records: Sequence[Record]) -> str:
    rows = []
    for name in CLASSES:
        lengths = [len(record.rendered) for record in records if _in_class(record, name)]
        if lengths:
            upper = [round(float(np.quantile(lengths, q))) for q in (0.9, 0.99, 1)]
            rows.append([name, round(median(lengths)), *upper])
    return markdown_table(["class", "median", "90th percentile", "99th percentile", "longest"], rows)


def strongest_words(records: Sequence[Record], most: int = _STRONGEST) -> dict[str, list[str]]:
    """For each class the words with the highest smoothed log-odds against the other classes."""
    counter = CountVectorizer(analyzer=lambda text: set(tokens(text)), binary=True, min_df=_FEW)
    try:
        words = counter.fit_transform([record.rendered[:_READ] for record in records])
    except ValueError:  # no word stands in enough records
        return {}
    names = counter.get_feature_names_out()
    total = np.asarray(words.sum(axis=0)).ravel()
    strongest = {}
    for label in CLASSES:
        inside = np.array([_in_class(record, label) for record in records])
        hits = np.asarray(words[inside].sum(axis=0)).ravel()
        odds = [
            np.log((found + 0.5) / (size - found + 0.5))
            for found, size in ((hits, inside.sum()), (total - hits, (~inside).sum()))
        ]
        # Weighed by how surely the difference is seen, as in Monroe, Colaresi and Quinn (2008).
        sure = (odds[0] - odds[1]) / np.sqrt(1 / (hits + 0.5) + 1 / (total - hits + 0.5))
        strongest[label] = [str(names[i]) for i in np.argsort(-sure, kind="stable")[:most]]
    return strongest


def suite_tables(folder: Path) -> list[str]:
    """What the functional suite holds, by area; nothing where there is none."""
    path = folder / "capabilities.yaml"
    if not path.is_file():
        return []
    capabilities = yaml.safe_load(path.read_text(encoding="utf-8"))["capabilities"]
    areas: dict[str, list[int]] = {}
    for capability in capabilities:
        lines = (folder / f"{capability['name']}.jsonl").read_text(encoding="utf-8").splitlines()
        areas.setdefault(capability["area"], []).append(len(lines))
    rows = [[area, len(sizes), sum(sizes)] for area, sizes in areas.items()]
    rows.append(["all", len(capabilities), sum(sum(sizes) for sizes in areas.values())])
    return ["### Functional suite", markdown_table(["area", "capabilities", "prompts"], rows)]
