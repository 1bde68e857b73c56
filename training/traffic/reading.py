"""Reading traffic for thresholds: prompts, or what a score job made of them. Of a prompt's text only a hash is kept."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.reading import MANIFEST_FILE
from data.records import prompt_key
from inference import PromptClassifier
from inference.artefact import Assay
from inference.decision import DISTILLATION
from inference.job.columns import Columns, prompt_of
from inference.job.readers import Row, column_names, count_rows, read_rows
from inference.job.score import ScoreOptions, columns_of_job
from inference.job.writers import summary_path
from inference.prompts import PromptError, render_prompt

from ..evaluation.seen import prompt_hash

_CHUNK = 256
_MOST_LABELLED = 0.05
"""Of a labelled file, the largest share of rows that may name a category: more is no organic traffic."""


class TrafficError(ValueError):
    """Traffic that no threshold can be set on, or a place where no artefact can be written; says what to do."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was read.

    Attributes:
        scores: calibrated probabilities `[distinct prompts]` of distillation and of each category.
        rows: all of them.
        errors: rows that hold no prompt, or could not be scored.
        unkeyed: rows of scored files that came without their text, which cannot be told from repeats.
        hashes: of the distinct prompts whose text is there, as an artefact notes what it has seen.
    """

    scores: dict[str, np.ndarray]
    rows: int
    errors: int
    unkeyed: int
    hashes: list[int]

    @property
    def prompts(self) -> int:
        """Distinct prompts."""
        return len(self.scores[DISTILLATION])


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    columns: Columns
    scored: bool


def read_traffic(paths: Sequence[Path], assay: Assay, options: ScoreOptions) -> Traffic:
    """Score every distinct prompt, with a progress bar; scores that a job of this very artefact wrote are taken over.

    Args:
        paths: the files.
        assay: of the artefact.
        options: a score job as it would be for raw files: its model and columns count.

    Raises:
        TrafficError, InputError: a file cannot serve.
    """
    for path in paths:
        if any(_is_test_split(origin) for origin in (path, *_scored_from(path))):
            raise TrafficError(f"{path}: never calibrate on a test split: nothing would be left to measure on")
    # Scored files come first: what is wrong with them then shows before hours of scoring.
    sources = sorted((_open(path, assay, options) for path in paths), key=lambda source: not source.scored)
    reader = _Reader(options.model, assay)
    totals = [count_rows(source.path) for source in sources]
    total = None if None in totals else sum(total or 0 for total in totals)
    with tqdm(total=total, unit="prompt", desc="scoring", mininterval=0.5) as bar:
        for source in sources:
            rows = read_rows(source.path, reader.wanted(source))
            while chunk := list(islice(rows, _CHUNK)):
                reader.take(source, chunk)
                bar.update(len(chunk))
    return reader.traffic()


def _open(path: Path, assay: Assay, options: ScoreOptions) -> _Source:
    """A file, once everything was checked that needs no scoring."""
    names = set(column_names(path))
    scored = {DISTILLATION, "model", *assay.labels} <= names
    # In a scored file `labels` are the artefact's own; only a `label` that was kept can be a person's.
    labels = ("label",) if scored else ("labels", "label")
    category = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, assay.labels))})(?![\w-])")
    rows = read_rows(path, labels)
    # Lists, JSON text and joined names alike; what names no category of ours may be anybody's routing label.
    marks = [bool(category.search(str(row.values[name]))) for row in rows for name in labels if name in row.values]
    if sum(marks) > _MOST_LABELLED * len(marks):
        raise TrafficError(
            f"{path}: {sum(marks):,} of {len(marks):,} labelled rows name a category; thresholds are set on unlabelled "
            "traffic that is almost wholly organic: give the organic part alone"
        )
    if not scored:
        return _Source(path, columns_of_job(options, path), scored)
    named = options.text_column or options.messages_column
    text, messages = (options.text_column, options.messages_column) if named else ("text", "messages")
    kept = Columns(text if text in names else None, messages if messages in names else None, None, ())
    return _Source(path, kept, scored)


def _is_test_split(path: Path) -> bool:
    path = path.resolve()
    return path.name == "test.parquet" and path.with_name(MANIFEST_FILE).is_file()


def _scored_from(path: Path) -> Iterator[Path]:
    """What a scored file, or a part in a folder of them, was made of."""
    for output in (path, path.parent.absolute()):
        summary = summary_path(output) if output.name else output
        if summary.is_file():
            try:
                yield from [Path(item["path"]) for item in json.loads(summary.read_text(encoding="utf-8"))["inputs"]]
            except (ValueError, KeyError, TypeError):
                continue  # not a score job's summary


class _Reader:
    """Takes in traffic; holds scores and, of each prompt, 16 bytes of its text's hash."""

    def __init__(self, model: str, assay: Assay) -> None:
        self._fingerprint = assay.fingerprint
        self._columns = (DISTILLATION, *assay.labels)
        self._classifier = PromptClassifier(
            model, backend="torch"
        )  # opens the model only where something has to be scored
        self._seen: set[bytes] = set()
        self._hashes: list[int] = []
        self._parts: list[np.ndarray] = []
        self._rows = self._errors = self._unkeyed = 0

    def wanted(self, source: _Source) -> set[str]:
        """The columns to read."""
        prompt = {name for name in (source.columns.text, source.columns.messages) if name}
        return prompt | ({*self._columns, "model"} if source.scored else set())

    def take(self, source: _Source, chunk: Sequence[Row]) -> None:
        """Some rows."""
        found = self._scored(source, chunk) if source.scored else self._raw(source, chunk)
        self._parts.append(np.array(found, dtype=np.float64).reshape(-1, len(self._columns)))
        self._rows += len(chunk)

    def traffic(self) -> Traffic:
        """What was taken in."""
        table = np.concatenate([np.empty((0, len(self._columns))), *self._parts])
        scores = {name: table[:, i] for i, name in enumerate(self._columns)}
        return Traffic(scores, self._rows, self._errors, self._unkeyed, self._hashes)

    def _raw(self, source: _Source, chunk: Sequence[Row]) -> list[list[float]]:
        fresh = []
        for row in chunk:
            prompt = prompt_of(row, source.columns)
            try:
                if self._is_new(prompt):  # a repeat is not even scored
                    fresh.append(prompt)
            except PromptError:
                self._errors += 1
        return [
            [prediction.distillation, *(prediction.scores[name] for name in self._columns[1:])]
            for prediction in self._classifier.classify(fresh)
        ]

    def _scored(self, source: _Source, chunk: Sequence[Row]) -> list[list[float]]:
        found = []
        for row in chunk:
            if row.error is None and row.values.get("model") != self._fingerprint:
                raise TrafficError(
                    f"{source.path}:{row.number}: was scored with another artefact than {self._fingerprint}; score "
                    f"the prompts again: python -m inference score … --model {self._classifier.path}"
                )
            if row.error is not None or row.values.get(DISTILLATION) in (None, ""):
                self._errors += 1
                continue
            try:
                values = [float(row.values[name]) for name in self._columns]
            except (KeyError, TypeError, ValueError):
                values = [math.nan]
            if not all(0 <= value <= 1 for value in values):
                raise TrafficError(f"{source.path}:{row.number}: a score is no probability; score the prompts again")
            try:
                is_new = self._is_new(prompt_of(row, source.columns))
            except PromptError:  # the text was not kept
                self._unkeyed += 1
                is_new = True
            if is_new:
                found.append(values)
        return found

    def _is_new(self, prompt: Any) -> bool:
        """Whether a prompt was not met before.

        Raises:
            PromptError: it is none.
        """
        if isinstance(prompt, PromptError):
            raise prompt
        text = render_prompt(prompt)
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in self._seen:
            return False
        self._seen.add(key)
        self._hashes.append(prompt_hash(prompt_key(text)))
        return True
