"""Where labelled prompts come from: named sources in a YAML list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, model_validator

from inference.job.readers import find_files

from .config import Config
from .records import Fault, Record, load_records


class FileSource(Config):
    """Files of records (see the record in the label guide)."""

    name: str = Field(min_length=1, description="names the source in tables and errors")
    files: list[str] = Field(min_length=1, description="files, folders or globs, from where the command is run")
    limit: int | None = Field(None, ge=1, description="at most so many records, chosen by hash of their content")


class SplitShares(Config):
    """Shares of the clusters that go into each split but train, which gets the rest."""

    calibration: float = Field(0.2, gt=0, lt=1)
    validation: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> SplitShares:
        if self.calibration + self.validation + self.test >= 0.9:
            raise ValueError("calibration, validation and test together leave under a tenth to train")
        return self


class BuildConfig(Config):
    """What `python -m data build` makes splits from."""

    sources: list[FileSource] = Field(min_length=1)
    splits: SplitShares = SplitShares()
    seed: int = Field(0, description="another seed gives another split")


def config_for_files(files: Sequence[str]) -> BuildConfig:
    """The default build over the user's own labelled files."""
    return BuildConfig(sources=[FileSource(name="files", files=list(files))])


def read_sources(config: BuildConfig) -> tuple[list[Record], list[Fault], list[Path]]:
    """All records of all sources, all faults, and the files they were read from."""
    records: list[Record] = []
    faults: list[Fault] = []
    files: list[Path] = []
    for source in config.sources:
        paths = find_files(source.files)
        found, wrong = load_records(paths)
        if source.limit is not None:
            found = sorted(found, key=lambda record: hashlib.sha256(record.key.encode()).digest())[: source.limit]
        records += found
        faults += wrong
        files += paths
    return records, faults, files
