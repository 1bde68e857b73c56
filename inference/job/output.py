"""Where a score job's rows go: parts in `OUTPUT.job/`, then the output put in place when the job is complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .ledger import InputFile, JobError, Ledger, check_identity
from .writers import cast_table, common_schema, join_parts, output_format, summary_path, write_part, write_summary


class Output:
    """One output path: a file that appears whole, or a folder of Parquet parts."""

    def __init__(self, path: Path, types: dict[str, Any]) -> None:
        self.path = path
        self.types = types
        self.kind, self.one_file = output_format(path)
        self.job_folder = path.with_name(path.name + ".job")

    def stands(self, identity: dict[str, Any], inputs: Sequence[InputFile], *, resume: bool, overwrite: bool) -> bool:
        """Whether the output is complete already and nothing is left to do.

        Raises:
            JobError: something stands in the way that was not asked to be resumed or overwritten.
        """
        self.check_place([Path(file.path) for file in inputs])
        if overwrite:
            return False
        if self.path.exists() and not resume:
            raise JobError(f"{self.path}: exists already; name another output, or use --resume or --overwrite")
        if self.job_folder.exists() and not resume:
            raise JobError(
                f"{self.path}: an unfinished job lies in {self.job_folder}; go on with --resume, or use --overwrite"
            )
        if not self.path.exists() or self.job_folder.exists():
            return False
        if not summary_path(self.path).exists():
            raise JobError(f"{self.path}: no score job wrote this; name another output, or use --overwrite")
        summary = self.summary()
        check_identity(summary["options"], identity, self.path)
        scored = [{k: v for k, v in file.items() if k != "rows"} for file in summary["inputs"]]
        if scored != [file.to_json() for file in inputs]:
            raise JobError(f"{self.path}: was scored from other input; name another output, or use --overwrite")
        return True

    def check_place(self, inputs: Iterable[Path]) -> None:
        """Refuse a path where an output may not even replace what stands there.

        Raises:
            JobError: it is one of the inputs, of the other kind, or a folder with files of somebody else.
        """
        if any(path.resolve() == self.path.resolve() for path in inputs):
            raise JobError(f"{self.path}: is an input of this job; name another output")
        if self.path.exists() and self.path.is_dir() == self.one_file:
            raise JobError(f"{self.path}: is a {'folder' if self.one_file else 'file'}; name another output")
        if self.path.is_dir() and not all(item.match("part-*.parquet") for item in self.path.iterdir()):
            raise JobError(f"{self.path}: holds files that no score job wrote; name another output")

    def open_ledger(self, identity: dict[str, Any], *, resume: bool, overwrite: bool) -> Ledger:
        """The job's ledger: a fresh one, or the one to go on with."""
        if overwrite:  # what stands is replaced when the new output is complete, not before
            shutil.rmtree(self.job_folder, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume and self.job_folder.exists():
            return Ledger.open(self.job_folder, identity)
        return Ledger.start(self.job_folder, identity)

    def summary(self) -> dict[str, Any]:
        """The summary of a complete output."""
        try:
            content = json.loads(summary_path(self.path).read_text(encoding="utf-8"))
            return {"options": content["options"], "inputs": content["inputs"], **content}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JobError(f"{summary_path(self.path)}: not readable; use --overwrite to score anew") from error

    def write_part(self, name: str, rows: Sequence[dict[str, Any]], types: dict[str, Any]) -> None:
        """Write one part of the job."""
        write_part(self._part(name), self.kind, rows, types)

    def put_in_place(self, ledger: Ledger, summary: dict[str, Any]) -> None:
        """Make the output of a job whose rows are all scored."""
        if self.one_file:
            joined = self.job_folder / f"joined.{self.kind}"
            join_parts([self._part(name) for name in ledger.part_names()], self.kind, self.types, joined, summary)
            write_summary(self.path, summary)
            joined.replace(self.path)
            shutil.rmtree(self.job_folder)
        else:
            self._place_parts(ledger)
            write_summary(self.path, summary)

    def _place_parts(self, ledger: Ledger) -> None:
        """Move parts into the output folder, all in one schema; the ledger stays, for files that come later."""
        import pyarrow.parquet

        if not ledger.placed and self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(exist_ok=True)
        waiting = [name for name in ledger.part_names() if name not in ledger.placed]
        standing = [self.path / f"{name}.parquet" for name in sorted(ledger.placed)]
        schema = common_schema([*standing, *map(self._part, waiting)], self.types)
        if standing and schema != (before := pyarrow.parquet.read_schema(standing[0]).remove_metadata()):
            changed = [field.name for field in schema if field != before.field(field.name)]
            raise JobError(
                f"{self.path}: columns changed their type in the new files: {', '.join(changed)}; --overwrite"
            )
        for name in waiting:
            part = self._part(name)
            moved = part.with_name(part.name + ".placing")
            pyarrow.parquet.write_table(cast_table(pyarrow.parquet.read_table(part), schema), moved)
            moved.replace(self.path / f"{name}.parquet")
            ledger.place(name)
            part.unlink()

    def _part(self, name: str) -> Path:
        return self.job_folder / f"{name}.{self.kind}"
