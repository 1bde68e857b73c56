"""Input cut into chunks: the same rows in the same chunks in every run, whoever reads them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .columns import Columns
from .ledger import JobError
from .readers import Row, read_rows


@dataclass(frozen=True, slots=True)
class Shard:
    """Which chunks a process scores: those whose number leaves `index` (from 0) when divided by `count`."""

    index: int = 0
    count: int = 1

    def has(self, file: int, part: int) -> bool:
        """Whether a chunk is this process's."""
        return (file + part) % self.count == self.index


@dataclass(frozen=True, slots=True)
class FileTask:
    """One input file to score.

    Attributes:
        number: its number in the ledger.
        path, columns: where it lies, and what to read of it.
        types: the Arrow type of each output column; None where it is inferred from the values.
        chunk_rows: rows in a chunk; the last may have fewer.
        shard: which of its chunks to score.
        done: the digests of those that are scored already, by their number.
    """

    number: int
    path: Path
    columns: Columns
    types: Mapping[str, Any]
    chunk_rows: int
    shard: Shard = field(default_factory=Shard)
    done: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are scored together and become one part."""

    file: int
    part: int
    rows: list[Row]
    digest: str


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk's output rows, as the bytes of a part, and their counts."""

    file: int
    part: int
    digest: str
    content: bytes
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class FileEnd:
    """Comes after a file's last chunk: how many rows and chunks it has, those of other shards too."""

    file: int
    rows: int
    parts: int


def read_chunks(task: FileTask, limit: int | None = None) -> Iterator[Chunk | FileEnd]:
    """The chunks of a file that this process has to score, in order, and the file's end.

    A chunk that is scored already is read all the same, and its digest compared; those of other shards are passed
    over. `limit` ends the file after so many rows.

    Raises:
        JobError: a chunk that is scored holds other rows now.
        InputError: the file cannot be read.
    """

    def is_wanted(index: int) -> bool:
        return task.shard.has(task.number, index // task.chunk_rows)

    rows: list[Row] = []
    count = part = 0
    for row in read_rows(task.path, task.columns.names, is_wanted):
        rows.append(row)
        count += 1
        full = count % task.chunk_rows == 0
        if full or count == limit:
            yield from _chunk(task, part, rows)
            rows, part = [], part + 1
        if count == limit:
            break
    if rows:
        yield from _chunk(task, part, rows)
        part += 1
    yield FileEnd(task.number, count, part)


def read_all(tasks: Iterable[FileTask], limit: int | None = None) -> Iterator[Chunk | FileEnd]:
    """The chunks of one file after the other, of `limit` rows in all."""
    left = limit
    for task in tasks:
        if left == 0:
            yield FileEnd(task.number, 0, 0)
            continue
        for item in read_chunks(task, left):
            yield item
            if isinstance(item, FileEnd) and left is not None:
                left -= item.rows


def _chunk(task: FileTask, part: int, rows: list[Row]) -> Iterator[Chunk]:
    if not task.shard.has(task.number, part):
        return
    digest = digest_of_rows(rows)
    if part not in task.done:
        yield Chunk(task.number, part, rows, digest)
    elif task.done[part] != digest:
        raise JobError(
            f"{task.path} has changed since this job read it (rows {part * task.chunk_rows + 1:,} to "
            f"{part * task.chunk_rows + len(rows):,}); score everything anew with --overwrite"
        )


def digest_of_rows(rows: list[Row]) -> str:
    """SHA-256 of what was read of the rows, in hex digits."""
    digest = hashlib.sha256()
    for row in rows:
        text = json.dumps([row.number, row.values, row.error], ensure_ascii=False, default=repr)
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
