"""The local engine: one process, in which reading, tokenising, scoring and writing overlap."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..classifier import Prepared, PromptClassifier
from .chunks import Chunk, FileEnd
from .columns import Columns, id_of, prompt_of
from .overlap import ahead

BATCH_ROWS = 256
"""Rows scored together: enough to sort by length, few enough that the progress bar moves."""

Scored = tuple[Chunk, list[dict[str, Any]]]


class Scorer:
    """Rows of one kind of file to output rows. A chunk's rows are scored together, and with no others."""

    def __init__(self, classifier: PromptClassifier, batch_rows: int = BATCH_ROWS) -> None:
        self.classifier = classifier
        self._batch_rows = batch_rows

    def prepare(self, chunk: Chunk, columns: Columns) -> list[Prepared]:
        """The chunk's prompts, rendered and tokenised, in batches."""
        return [
            self.classifier.prepare([prompt_of(row, columns) for row in chunk.rows[start : start + self._batch_rows]])
            for start in range(0, len(chunk.rows), self._batch_rows)
        ]

    def rows(
        self,
        chunk: Chunk,
        prepared: list[Prepared],
        path: Path,
        columns: Columns,
        tick: Callable[[int], Any] = lambda _: None,
    ) -> list[dict[str, Any]]:
        """The chunk's output rows; `tick` is called with the number of rows of each batch."""
        results = []
        for batch in prepared:
            results += self.classifier.predict(batch)
            tick(len(batch.errors))
        return [
            {
                "id": id_of(row, path, columns),
                **self.classifier.columns_of(result),
                **{name: row.values.get(name) for name in columns.keep},
            }
            for row, result in zip(chunk.rows, results, strict=True)
        ]


def score_chunks(
    chunks: Iterable[Chunk | FileEnd],
    places: dict[int, tuple[Path, Columns]],
    classifier: PromptClassifier,
    tick: Callable[[int], Any],
) -> Generator[Scored | FileEnd]:
    """Score chunks in order, reading and tokenising ahead in another thread.

    Args:
        chunks: what `read_chunks` gives, of one file after the other.
        places: path and columns of each file, by its number.
        classifier: the artefact, opened.
        tick: called with the number of rows that were scored, again and again.
    """
    scorer = Scorer(classifier)

    def prepared() -> Iterator[tuple[Chunk, list[Prepared]] | FileEnd]:
        for item in chunks:
            yield item if isinstance(item, FileEnd) else (item, scorer.prepare(item, places[item.file][1]))

    for item in ahead(prepared()):
        if isinstance(item, FileEnd):
            yield item
        else:
            chunk, batches = item
            yield chunk, scorer.rows(chunk, batches, *places[chunk.file], tick)
