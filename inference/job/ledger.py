"""The ledger of a score job: what is done, so that a killed job goes on where it stopped.

It is a folder, `OUTPUT.job/`, of small files that each appear whole, so that it needs no lock, several processes and
machines may write it at once, and it can lie in object storage:

    job.json                    which artefact scores what, by which options; without it the folder is no job
    file-00000.json             an input file, as it was when it was first read
    file-00000.end.json         written when that file was read to its end: its rows and parts
    part-00000-000003.parquet   the scored rows of chunk 3 of file 0
    part-00000-000003.json      written after them: their number, digests of what was read and written, and counts
    placing.json                written when parts begin to move into an output that is a folder
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .store import Store, is_local, remove_folder

JOB_FILE = "job.json"
_PLACING = "placing.json"
_RECORD = re.compile(r"part-(\d{5,})-(\d{6,})\.json")


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
        """The file as it lies there now; standard input has neither size nor time."""
        if str(path) == "-":
            return cls("-", 0, 0)
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the ledger."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Part:
    """One scored chunk. `read` and `written` are SHA-256 digests of the rows read and of the part's bytes."""

    rows: int
    read: str
    written: str
    counts: dict[str, int]


@dataclass(slots=True)
class FileProgress:
    """What is scored of one input file, by number of the part; `end` says its rows and parts once they are known."""

    file: InputFile
    parts: dict[int, Part] = field(default_factory=dict)
    end: dict[str, int] | None = None

    @property
    def done(self) -> bool:
        """Whether every row is scored."""
        return self.end is not None and len(self.parts) == self.end["parts"]


class Ledger:
    """What a job has done. Each method that records returns when the fact lies on the disk."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.job: dict[str, Any] = {}
        self.files: list[FileProgress] = []
        self.counts: Counter[str] = Counter()
        self.placing = False

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a job lies in the folder."""
        return (folder / JOB_FILE).exists()

    @classmethod
    def start(cls, folder: Path, job: dict[str, Any]) -> Ledger:
        """A fresh ledger, or that of another process which started the same job at the same moment.

        Raises:
            JobError: that process does another job.
        """
        ledger = cls(folder)
        if ledger.store.names() and not cls.exists(folder):
            remove_folder(folder)  # what is left of a finished job
        standing = json.loads(ledger.store.write_once(JOB_FILE, _as_json(job)))
        check_same(standing["options"], job["options"], folder)
        ledger.job = standing
        return ledger

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """The ledger of a job that was started.

        Raises:
            JobError: it is damaged.
        """
        ledger = cls(folder)
        try:
            ledger.job = json.loads(ledger.store.read(JOB_FILE) or b"")
            ledger._read_facts(ledger.store.names())
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(f"{folder}: the ledger is damaged or of another version; use --overwrite") from error
        return ledger

    @classmethod
    def in_memory(cls, job: dict[str, Any]) -> Ledger:
        """What counts for a job that writes nothing down; nothing may be recorded in it."""
        ledger = cls(Path(os.devnull))
        ledger.job = job
        return ledger

    def _read_facts(self, names: set[str]) -> None:
        self.placing = _PLACING in names
        number = 0
        while (name := f"file-{number:05d}.json") in names:
            end = self.store.read(f"file-{number:05d}.end.json") if f"file-{number:05d}.end.json" in names else None
            file = InputFile(**json.loads(self.store.read(name) or b""))
            self.files.append(FileProgress(file, end=None if end is None else json.loads(end)))
            number += 1
        for name in sorted(names):
            if match := _RECORD.fullmatch(name):
                record = Part(**json.loads(self.store.read(name) or b""))
                self.files[int(match[1])].parts[int(match[2])] = record
                self.counts.update(record.counts)

    def begin_file(self, file: InputFile) -> int:
        """The number of an input file, new or known.

        Raises:
            JobError: the file has changed since the job read it.
        """
        for number, progress in enumerate(self.files):
            if progress.file.path == file.path:
                if progress.file.size != file.size:  # where the time alone differs, the digests tell
                    raise JobError(
                        f"{file.path} has changed since this job read it; score everything anew with --overwrite"
                    )
                return number
        number = len(self.files)
        standing = json.loads(self.store.write_once(f"file-{number:05d}.json", _as_json(file.to_json())))
        if standing["path"] != file.path:
            raise JobError(
                f"{file.path} came while other processes of this job started; start this one again with --resume"
            )
        self.files.append(FileProgress(InputFile(**standing)))
        return number

    def add_part(self, number: int, part: int, suffix: str, content: bytes, record: Part) -> None:
        """Write a scored chunk, and then record it."""
        name = part_name(number, part)
        self.store.write(f"{name}.{suffix}", content)
        self.store.write(f"{name}.json", _as_json(asdict(record)))
        self.files[number].parts[part] = record
        self.counts.update(record.counts)

    def end_file(self, number: int, rows: int, parts: int) -> None:
        """Record that file `number` was read to its end."""
        end = {"rows": rows, "parts": parts}
        self.store.write(f"file-{number:05d}.end.json", _as_json(end))
        self.files[number].end = end

    def begin_placing(self) -> None:
        """Record that the output folder is this job's from now on."""
        self.store.write(_PLACING, b"{}\n")
        self.placing = True

    def drop_unsound(self, suffix: str, placed: set[str]) -> int:
        """Forget parts that are neither in the output nor whole here, so that they are scored again; their number."""
        names = self.store.names()
        dropped = 0
        for number, progress in enumerate(self.files):
            for part, record in list(progress.parts.items()):
                name = part_name(number, part)
                if name in placed:
                    continue
                content = self.store.read(f"{name}.{suffix}") if f"{name}.{suffix}" in names else None
                if content is None or digest_of(content) != record.written:
                    self.store.remove(f"{name}.json")
                    del progress.parts[part]
                    self.counts.subtract(record.counts)
                    dropped += 1
        return dropped

    def missing(self) -> list[str]:
        """What is not scored yet, in words."""
        faults = [] if self.files else ["no process has begun"]
        for progress in self.files:
            path = progress.file.path
            if progress.end is None:
                faults.append(f"{path} was not yet read to its end")
            elif lacking := set(range(progress.end["parts"])) - set(progress.parts):
                faults.append(f"{path} lacks {len(lacking)} of {progress.end['parts']} parts")
            elif progress.end["rows"] != sum(part.rows for part in progress.parts.values()):
                faults.append(f"{path} has {progress.end['rows']:,} rows, and its parts another number")
        return faults[:5] + ([f"and {len(faults) - 5} files more"] if len(faults) > 5 else [])

    def part_names(self) -> list[str]:
        """The parts in the order of the input."""
        return [part_name(i, j) for i, progress in enumerate(self.files) for j in sorted(progress.parts)]

    def remove(self) -> None:
        """Remove the job, at once for all who look: a kill on the way leaves no half job behind."""
        folder = self.store.folder
        if is_local(folder) and folder.exists():
            doomed = folder.with_name(f"{folder.name}.removed")
            remove_folder(doomed)
            folder = folder.rename(doomed)
        else:
            self.store.remove(JOB_FILE)
        remove_folder(folder)


def check_same(before: dict[str, Any], now: dict[str, Any], where: Path) -> None:
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


def digest_of(content: bytes) -> str:
    """SHA-256, in hex digits."""
    return hashlib.sha256(content).hexdigest()


def _as_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
