"""Scores that outlive a job: what was scored once, by the same artefact in the same way, is not scored again.

A cache holds no prompts: a prompt is known by the SHA-256 of its rendered text. It is a SQLite file for each artefact
and way of scoring, which several processes of one machine may use at once.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_VERSION = 1
_TOGETHER = 500
"""Keys in one question; SQLite has a limit."""
_WAIT = 30.0
"""Seconds to wait for another process that is writing."""


class CacheWarning(UserWarning):
    """A cache that cannot be used; scoring goes on without it."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the network said of one rendered text: pooled logits `[labels]`, and what the windows were."""

    logits: np.ndarray
    n_tokens: int
    n_windows: int
    truncated: bool
    top: tuple[int, int]


class ScoreCache:
    """Scores by rendered text. Whatever goes wrong with it is a warning: the scores can always be computed.

    Args:
        folder: where caches lie; it is made.
        way: artefact, backend and whatever else the numbers depend on; caches of other ways are not touched.
        labels: how many logits there are.
    """

    def __init__(self, folder: Path, way: str, labels: int) -> None:
        self._path = folder / f"{way}.sqlite"
        self._labels = labels
        self._lock = threading.Lock()
        self._file: sqlite3.Connection | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self._path, timeout=_WAIT, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            with self._file:
                self._file.execute("CREATE TABLE IF NOT EXISTS about (version INTEGER, labels INTEGER)")
                self._file.execute(
                    "CREATE TABLE IF NOT EXISTS scores (text BLOB PRIMARY KEY, logits BLOB, n_tokens INTEGER, "
                    "n_windows INTEGER, truncated INTEGER, start INTEGER, stop INTEGER, sum BLOB) WITHOUT ROWID"
                )
                if not self._file.execute("SELECT * FROM about").fetchall():
                    self._file.execute("INSERT INTO about VALUES (?, ?)", (_VERSION, labels))
            if set(self._file.execute("SELECT * FROM about")) != {(_VERSION, labels)}:
                self._give_up("is of another version")
        except (sqlite3.Error, OSError) as error:
            self._give_up(str(error))

    def find(self, texts: Sequence[str]) -> dict[str, Scored]:
        """What is known of the texts."""
        keys = {_key(text): text for text in texts}
        found = {}
        with self._lock:
            if self._file is None:
                return {}
            try:
                asked = list(keys)
                for start in range(0, len(asked), _TOGETHER):
                    some = asked[start : start + _TOGETHER]
                    marks = ",".join("?" * len(some))
                    for row in self._file.execute(f"SELECT * FROM scores WHERE text IN ({marks})", some):  # noqa: S608
                        if (scored := self._scored(*row[:-1], check=row[-1])) is not None:
                            found[keys[row[0]]] = scored
            except sqlite3.Error as error:
                self._give_up(str(error))
        return found

    def add(self, scored: Mapping[str, Scored]) -> None:
        """Keep what was scored."""
        rows = []
        for text, item in scored.items():
            values = (
                np.asarray(item.logits, dtype="<f4").tobytes(),
                item.n_tokens,
                item.n_windows,
                int(item.truncated),
                *item.top,
            )
            rows.append((key := _key(text), *values, _sum(key, *values)))
        with self._lock:
            if self._file is None:
                return
            try:
                with self._file:
                    self._file.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            except sqlite3.Error as error:
                self._give_up(str(error))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _scored(self, key: bytes, logits: bytes, *numbers: int, check: bytes) -> Scored | None:
        """A row, if it is as it was written."""
        try:
            n_tokens, n_windows, truncated, start, stop = numbers
            if check != _sum(key, logits, *numbers):
                return None
            values = np.frombuffer(logits, dtype="<f4")
        except (TypeError, ValueError, struct.error):
            return None
        if len(values) != self._labels or not np.isfinite(values).all():
            return None
        return Scored(values, n_tokens, n_windows, bool(truncated), (start, stop))

    def _give_up(self, why: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        warnings.warn(f"{self._path}: cannot be used as a cache ({why}); all is scored", CacheWarning, stacklevel=3)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _sum(key: bytes, logits: bytes, *numbers: int) -> bytes:
    """A check of one row, against what a disk or a hand may have changed."""
    return hashlib.sha256(key + logits + struct.pack("<5q", *numbers)).digest()[:8]
