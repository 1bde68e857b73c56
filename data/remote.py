"""Rows that lie elsewhere: data sets of the Hugging Face hub, and files that an installed package carries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from inference.artefact import file_hash
from inference.job.readers import Row

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 20


class SourceError(ValueError):
    """A source that cannot be read as a whole; the message names it and the mend."""


@dataclass(frozen=True, slots=True)
class HubSet:
    """A data set of the hub (or a local folder of the same layout), as a list of sources names it."""

    name: str
    revision: str | None
    config: str | None
    split: str
    rows: int | None
    download: bool

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.name).is_dir()

    def resolve(self, source: str) -> HubSet:
        """The same at the commit that its revision stands for now.

        Raises:
            SourceError: the hub is out of reach, or has no such data set or revision.
        """
        if self.is_local or (self.download and _COMMIT.fullmatch(self.revision or "")):
            return self  # what was downloaded before is found without the hub
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            info = HfApi().dataset_info(self.name, revision=self.revision, timeout=_SECONDS)
        except GatedRepoError as error:
            mend = "accept its terms on the hub and run `hf auth login`"
            raise SourceError(f"source {source}: the data set {self.name} is gated; {mend}") from error
        except RevisionNotFoundError as error:
            raise SourceError(f"source {source}: {self.name} has no revision {self.revision}") from error
        except RepositoryNotFoundError as error:
            raise SourceError(f"source {source}: the hub has no public data set {self.name}") from error
        except Exception as error:  # the hub's client raises the errors of whatever carries its requests
            raise SourceError(out_of_reach(source, self, error)) from error
        return HubSet(self.name, info.sha, self.config, self.split, self.rows, self.download)

    def read(self, source: str) -> Iterator[Row]:
        """Its rows, as a stream unless the whole is to be downloaded.

        Raises:
            SourceError: it cannot be opened, or the stream breaks.
        """
        from datasets import load_dataset
        from datasets.utils.logging import disable_progress_bar

        disable_progress_bar()
        number = 0
        try:
            opened: Any = load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, streaming=not self.download
            )
            for number, values in enumerate(islice(opened, self.rows), 1):
                yield Row(number, dict(values))
        except (ValueError, KeyError, FileNotFoundError) as error:  # no such config, split or file
            if number:  # what is said of a row can quote it
                what = type(error).__name__
                raise SourceError(f"source {source}: {self} is broken after row {number} ({what})") from error
            what = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise SourceError(f"source {source}: {self} cannot be opened: {what}") from error
        except Exception as error:  # errors of whatever carries the requests
            raise SourceError(out_of_reach(source, self, error)) from error

    def __str__(self) -> str:
        at = f"@{self.revision[:12]}" if self.revision and not self.is_local else ""
        return f"{self.name}{at}/{self.config or 'default'}/{self.split}"


def out_of_reach(source: str, data: HubSet, error: BaseException) -> str:
    """What to say, and what to do, where the hub does not answer."""
    return (
        f"source {source}: the Hugging Face hub cannot be reached for {data.name} ({type(error).__name__}). "
        f"Go online (and unset HF_HUB_OFFLINE); or fetch it elsewhere with `hf download {data.name} --repo-type dataset"
        f"{f' --revision {data.revision}' if data.revision else ''} --local-dir FOLDER` and write hub: FOLDER; "
        f"or build without it: --without {source}"
    )


def package_files(source: str, package: str, patterns: list[str]) -> dict[str, Path]:
    """Files of an installed distribution that match any of the patterns, by their names in it.

    Raises:
        SourceError: the package is not installed, or carries no such file.
    """
    try:
        listed = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise SourceError(f"source {source}: the package {package} is not installed; pip install {package}") from error
    found = {
        str(file): Path(str(file.locate()))
        for file in listed
        if any(fnmatch(str(file), pattern) for pattern in patterns)
    }
    missing = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in found)]
    if missing:
        raise SourceError(f"source {source}: the package {package} carries no file {', '.join(missing)}")
    return dict(sorted(found.items()))


def package_input(package: str, name: str, path: Path) -> tuple[str, str]:
    """A package's file as the manifest lists it: what it is, and its hash."""
    return f"{package}=={metadata.version(package)}:{name}", file_hash(path)
