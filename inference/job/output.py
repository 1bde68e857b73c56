"""Where a score job's rows go: parts in `OUTPUT.job/`, then the output put in place when the job is complete."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .files import path_of
from .ledger import InputFile, JobError, Ledger, check_same
from .store import WRITING, Store, is_local, remove_folder, write_whole
from .writers import (
    as_parquet,
    cast_table,
    common_schema,
    join_parts,
    output_format,
    schema_of,
    summary_path,
    write_summary,
)


class Output:
    """One output path, local or of any file system that fsspec knows: a file that appears whole, or a folder of parts.

    Args:
        path: a `Path`, or a `upath.UPath` for a URL.
        types: the columns, with their Arrow types where known.
    """

    def __init__(self, path: Path, types: dict[str, Any]) -> None:
        self.path = path
        self.types = types
        self.kind, self.one_file = output_format(path)
        self.job_folder = path.with_name(path.name + ".job")

    def stands(self, options: dict[str, Any], inputs: Sequence[InputFile], *, resume: bool, overwrite: bool) -> bool:
        """Whether the output is complete already and nothing is left to do.

        Raises:
            JobError: something stands in the way that was not asked to be resumed or overwritten.
        """
        self.check_place([path_of(file.path) for file in inputs])
        if overwrite:
            return False
        unfinished = Ledger.exists(self.job_folder)
        if self.path.exists() and not resume:
            raise JobError(f"{self.path}: exists already; name another output, or use --resume or --overwrite")
        if unfinished and not resume:
            raise JobError(
                f"{self.path}: an unfinished job lies in {self.job_folder}; go on with --resume, or use --overwrite"
            )
        if not self.path.exists() or unfinished:
            return False
        if not summary_path(self.path).exists():
            raise JobError(f"{self.path}: no score job wrote this; name another output, or use --overwrite")
        summary = self.summary()
        check_same(summary["options"], options, self.path)
        scored = [{k: v for k, v in file.items() if k != "rows"} for file in summary["inputs"]]
        if scored != [file.to_json() for file in inputs]:
            raise JobError(f"{self.path}: was scored from other input; name another output, or use --overwrite")
        return True

    def check_place(self, inputs: Iterable[Path]) -> None:
        """Refuse a path where an output may not even replace what stands there.

        Raises:
            JobError: it is one of the inputs, of the other kind, or a folder with files of somebody else.
        """
        here = self.path.resolve() if is_local(self.path) else self.path
        if any((path.resolve() if is_local(path) else path) == here for path in inputs):
            raise JobError(f"{self.path}: is an input of this job; name another output")
        if self.path.exists() and self.path.is_dir() == self.one_file:
            raise JobError(f"{self.path}: is a {'folder' if self.one_file else 'file'}; name another output")
        if self.path.is_dir() and not all(_is_part(item.name) for item in self.path.iterdir()):
            raise JobError(f"{self.path}: holds files that no score job wrote; name another output")

    def open_ledger(self, job: dict[str, Any], *, resume: bool, overwrite: bool) -> Ledger:
        """The job's ledger: a fresh one, or the one to go on with."""
        if overwrite and Ledger.exists(self.job_folder):  # what stands is replaced when the new output is complete
            Ledger(self.job_folder).remove()
        if resume and Ledger.exists(self.job_folder):
            ledger = Ledger.open(self.job_folder)
            check_same(ledger.job["options"], job["options"], self.job_folder)
            return ledger
        return Ledger.start(self.job_folder, job)

    def summary(self) -> dict[str, Any]:
        """The summary of a complete output."""
        try:
            content = json.loads(summary_path(self.path).read_text(encoding="utf-8"))
            return {"options": content["options"], "inputs": content["inputs"], **content}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JobError(f"{summary_path(self.path)}: not readable; use --overwrite to score anew") from error

    def placed(self, ledger: Ledger) -> set[str]:
        """The job's parts that stand in the output folder, by name without suffix."""
        if self.one_file or not ledger.placing:  # what stands there is still that of an older job
            return set()
        return {name.removesuffix(".parquet") for name in Store(self.path).names()}

    def put_in_place(self, ledger: Ledger, summary: dict[str, Any]) -> None:
        """Make the output of a job whose rows are all scored."""
        if not self.one_file:
            self._place_parts(ledger)
            write_summary(self.path, summary)
            return
        parts = [self._part(name) for name in ledger.part_names()]
        if is_local(self.path):
            joined = self.job_folder / f"joined.{self.kind}"
            join_parts(parts, self.kind, self.types, joined, summary)
            write_summary(self.path, summary)
            joined.replace(self.path)
        else:  # a stream that breaks could leave half an object: it is joined on this disk, and put at once
            with tempfile.TemporaryDirectory(prefix="promptassay-") as folder:
                joined = Path(folder) / f"joined.{self.kind}"
                join_parts(parts, self.kind, self.types, joined, summary)
                write_summary(self.path, summary)
                self.path.fs.put_file(str(joined), self.path.path)  # type: ignore[attr-defined]  # a UPath
        ledger.remove()

    def _place_parts(self, ledger: Ledger) -> None:
        """Move parts into the output folder, all in one schema; the ledger stays, for files that come later."""
        import pyarrow.parquet

        if not ledger.placing:
            remove_folder(self.path)
            if is_local(self.path):
                self.path.mkdir()
            ledger.begin_placing()
        placed = self.placed(ledger)
        standing = [name for name in ledger.part_names() if name in placed]
        waiting = [name for name in ledger.part_names() if name not in placed]
        placed_files = [self.path / f"{name}.parquet" for name in standing]
        schema = common_schema([*placed_files, *map(self._part, waiting)], self.types)
        if placed_files and schema != (before := schema_of(placed_files[0]).remove_metadata()):
            changed = [field.name for field in schema if field != before.field(field.name)]
            raise JobError(
                f"{self.path}: columns changed their type in the new files: {', '.join(changed)}; --overwrite"
            )
        for name in waiting:
            part = self._part(name)
            table = pyarrow.parquet.read_table(pyarrow.BufferReader(part.read_bytes()))
            write_whole(self.path / f"{name}.parquet", as_parquet(cast_table(table, schema)))
            ledger.store.remove(part.name)
        Store(self.path).sweep()

    def _part(self, name: str) -> Path:
        return self.job_folder / f"{name}.{self.kind}"


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith((".parquet", WRITING))
