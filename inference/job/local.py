"""The engine in one process: reading and tokenising run ahead of the network in a thread of their own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

from ..classifier import Prepared, PromptClassifier
from .chunks import Chunk, FileEnd, FileTask, ScoredChunk
from .columns import id_of, prompt_of
from .overlap import ahead
from .summary import count
from .writers import encode_part


class Scorer:
    """Chunks to scored chunks. A chunk's rows are scored together, and with no others.

    Args:
        classifier: the artefact.
        tasks: the files that the chunks come from, by number.
        kind: the format of a part: `parquet`, `jsonl` or `csv`.
    """

    def __init__(self, classifier: PromptClassifier, tasks: Mapping[int, FileTask], kind: str) -> None:
        self._classifier, self._tasks, self._kind = classifier, tasks, kind

    def prepare(self, chunk: Chunk) -> Prepared:
        """The chunk's prompts, rendered and tokenised."""
        columns = self._tasks[chunk.file].columns
        return self._classifier.prepare(prompt_of(row, columns) for row in chunk.rows)

    def score(self, chunk: Chunk, prepared: Prepared, tick: Callable[[int], Any] | None = None) -> ScoredChunk:
        """Score what `prepare` made of the chunk; `tick` is called with numbers of rows that add up to the chunk's."""
        task = self._tasks[chunk.file]
        ticked = 0

        def pass_on(share: float) -> None:
            nonlocal ticked
            if tick is not None:
                tick(int(share * len(chunk.rows)) - ticked)
                ticked = int(share * len(chunk.rows))

        results = self._classifier.predict(prepared, pass_on)
        pass_on(1.0)
        rows = [
            {
                "id": id_of(row, task.path, task.columns),
                **self._classifier.columns_of(result),
                **{name: row.values.get(name) for name in task.columns.keep},
            }
            for row, result in zip(chunk.rows, results, strict=True)
        ]
        content = encode_part(self._kind, rows, dict(task.types))
        counts = count(rows)
        counts.update(repeats=prepared.repeats, cached=len(prepared.known))
        return ScoredChunk(chunk.file, chunk.part, chunk.digest, content, counts)


def score_chunks(
    chunks: Iterable[Chunk | FileEnd], scorer: Scorer, tick: Callable[[int], Any]
) -> Generator[ScoredChunk | FileEnd]:
    """Score chunks in order; `tick` is called with the number of rows that were scored, again and again."""

    def prepared() -> Iterator[tuple[Chunk, Prepared] | FileEnd]:
        for item in chunks:
            yield item if isinstance(item, FileEnd) else (item, scorer.prepare(item))

    for item in ahead(prepared()):
        yield item if isinstance(item, FileEnd) else scorer.score(*item, tick)
