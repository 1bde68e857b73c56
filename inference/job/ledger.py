"""The ledger of a score job: what is done, so that a killed job goes on where it stopped.

An append-only file of JSON lines in `OUTPUT.job/`. Its first line is the job's identity (artefact, operating point,
columns); each further line is a fact that was made durable before it was written down. A last line that a kill cut
short is dropped, and its work is done again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class JobError(ValueError):
    """A job that cannot start or go on; one sentence with the mend."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input file as it was when it was first read: a changed file is refused, not half-scored."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """The file as it lies there now."""
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the ledger."""
        return {"path": self.path, "size": self.size, "mtime_ns": self.mtime_ns}


@dataclass(slots=True)
class FileProgress:
    """How far one input file is scored: rows in each finished part, in order."""

    file: InputFile
    parts: list[int] = field(default_factory=list)
    done: bool = False


@dataclass(slots=True)
class Ledger:
    """What a job has done; every method that records writes one durable line."""

    folder: Path
    identity: dict[str, Any]
    files: list[FileProgress] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    placed: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """Where the ledger lies."""
        return self.folder / "ledger.jsonl"

    @classmethod
    def start(cls, folder: Path, identity: dict[str, Any]) -> Ledger:
        """A fresh ledger."""
        folder.mkdir(parents=True)
        ledger = cls(folder, identity)
        ledger._append({"job": identity})
        return ledger

    @classmethod
    def open(cls, folder: Path, identity: dict[str, Any]) -> Ledger:
        """The ledger of an earlier run of the same job.

        Raises:
            JobError: it belongs to a job with other options or another artefact.
        """
        ledger = cls(folder, identity)
        lines = ledger._sound_lines()
        if not lines:
            ledger._append({"job": identity})
            return ledger
        check_identity(lines[0].get("job", {}), identity, folder)
        for line in lines[1:]:
            ledger._replay(line)
        return ledger

    def begin_file(self, file: InputFile) -> FileProgress:
        """Start or go on with an input file.

        Raises:
            JobError: the file has changed since the job read it.
        """
        for progress in self.files:
            if progress.file.path == file.path:
                if progress.file != file:
                    raise JobError(
                        f"{file.path} has changed since this job read it; score everything anew with --overwrite"
                    )
                return progress
        self._append({"file": file.to_json()})
        self.files.append(FileProgress(file))
        return self.files[-1]

    def add_part(self, number: int, rows: int, counts: Counter[str]) -> None:
        """Record that the next part of file `number` is written."""
        self._append({"part": number, "rows": rows, "counts": dict(counts)})
        self.files[number].parts.append(rows)
        self.counts += counts

    def finish_file(self, number: int) -> None:
        """Record that file `number` was read to its end."""
        self._append({"done": number})
        self.files[number].done = True

    def place(self, name: str) -> None:
        """Record that a part stands in the output folder."""
        self._append({"placed": name})
        self.placed.add(name)

    def part_names(self) -> list[str]:
        """The finished parts in the order of the input."""
        return [part_name(i, j) for i, progress in enumerate(self.files) for j in range(len(progress.parts))]

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _sound_lines(self) -> list[dict[str, Any]]:
        """The lines up to the first that a kill cut short, which is cut off the file."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        lines, end = [], 0
        while (stop := content.find(b"\n", end)) >= 0:
            try:
                lines.append(json.loads(content[end:stop]))
            except ValueError:
                break
            end = stop + 1
        if end < len(content):
            with self.path.open("r+b") as stream:
                stream.truncate(end)
        return lines

    def _replay(self, line: dict[str, Any]) -> None:
        if "file" in line:
            self.files.append(FileProgress(InputFile(**line["file"])))
        elif "part" in line:
            self.files[line["part"]].parts.append(line["rows"])
            self.counts += Counter(line["counts"])
        elif "done" in line:
            self.files[line["done"]].done = True
        elif "placed" in line:
            self.placed.add(line["placed"])


def check_identity(before: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Refuse to go on with a job under other options than it began with.

    Raises:
        JobError: names the options that differ.
    """
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing:
        changes = "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in differing)
        raise JobError(f"{where}: belongs to another job ({changes}); name another output, or use --overwrite")


def part_name(file: int, part: int) -> str:
    """The name of part `part` of input file `file`, without suffix."""
    return f"part-{file:05d}-{part:06d}"
