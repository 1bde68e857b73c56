"""Reading labelled files: every row of every file as a record, or as the faults that keep it from being one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from inference.job.files import find_files
from inference.job.readers import Row, read_rows

from .records import Fault, Flaw, Record, RecordError, parse_record

MANIFEST_FILE = "manifest.json"
REMOVED_FILE = "removed.parquet"
SPLITS = ("train", "calibration", "validation", "test")


def labelled_files(names: Sequence[str], without: Path | None = None) -> list[Path]:
    """The files behind paths, folders, globs and URLs; of a built folder its splits, not what was removed.

    Args:
        names: what to look for.
        without: a folder whose files are passed over, wherever they are found.

    Raises:
        InputError: a name stands for nothing that can be read.
    """
    found: dict[Path, None] = {}
    for name in names:
        folder = Path(name)
        if (folder / MANIFEST_FILE).is_file() and (folder / f"{SPLITS[0]}.parquet").is_file():
            found.update(dict.fromkeys(folder / f"{split}.parquet" for split in SPLITS))
        else:
            found.update(dict.fromkeys(path for path in find_files([name]) if not _is_removed(path)))
    return [path for path in found if without is None or without.absolute() not in path.absolute().parents]


def _is_removed(path: Path) -> bool:
    return path.name == REMOVED_FILE and (path.parent / MANIFEST_FILE).is_file()


def read_records(paths: Iterable[Path], progress: str | None = None) -> Iterator[Record | Fault]:
    """Every row of every file; memory does not grow with their size.

    Args:
        paths: files of known kinds.
        progress: name of a progress bar, which is shown where a person watches; none where None.
    """
    with tqdm(desc=progress, unit=" rows", mininterval=0.5, disable=None if progress else True) as bar:
        for path in paths:
            for row in read_rows(path):
                yield from to_record(row, str(path), default_source=path.name.split(".")[0])
                bar.update()


def to_record(row: Row, place: str, default_source: str) -> Iterator[Record | Fault]:
    """One row as a record, or as all its faults."""
    if row.error is not None:
        yield Fault(place, row.number, Flaw(row.error, mend="mend the line or leave it out"))
        return
    try:
        yield parse_record(row.values, default_source)
    except RecordError as error:
        yield from (Fault(place, row.number, flaw) for flaw in error.flaws)


def load_records(paths: Iterable[Path], progress: str | None = None) -> tuple[list[Record], list[Fault]]:
    """All records and all faults of the files."""
    return sort_out(read_records(paths, progress))


def sort_out(items: Iterable[Record | Fault]) -> tuple[list[Record], list[Fault]]:
    """Records and faults apart, each in order."""
    records: list[Record] = []
    faults: list[Fault] = []
    for item in items:
        if isinstance(item, Record):
            records.append(item)
        else:
            faults.append(item)
    return records, faults
