"""Reading labelled files: every row of every file as a record, or as the faults that keep it from being one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from inference.job.files import InputError, find_files
from inference.job.readers import Row, read_rows

from .records import Fault, Flaw, Record, RecordError, parse_record

MANIFEST_FILE = "manifest.json"
REMOVED_FILE = "removed.parquet"
SUSPECTS_FILE = "suspects.jsonl"
AUDIT_FILE = "audit.json"
_UNREAD = {".json", ".xlsx", ".xls", ".ods", ".feather", ".orc", ".avro", ".txt", ".zip"}
_OWN_JSON = {MANIFEST_FILE, AUDIT_FILE, "croissant.json", "state.json", "dataset_info.json", "dataset_dict.json"}
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
            found.update(dict.fromkeys(path for path in find_files([name]) if path == folder or not _is_product(path)))
            _note_unread(folder)
    kept = [path for path in found if without is None or without.absolute() not in path.absolute().parents]
    if names and not kept:
        raise InputError(f"{', '.join(names)}: holds nothing but what this project made of other files")
    return kept


def _is_product(path: Path) -> bool:
    """Whether a file that was found in a folder is what a build or an audit left there, which are no new labels."""
    beside = {REMOVED_FILE: MANIFEST_FILE, SUSPECTS_FILE: AUDIT_FILE}.get(path.name)
    return beside is not None and (path.parent / beside).is_file()


def _note_unread(folder: Path) -> None:
    """Say which files of a folder look like data and are not read."""
    if folder.is_dir():
        other = sorted(path.name for path in folder.rglob("*") if path.suffix.lower() in _UNREAD and path.is_file())
        other = [name for name in other if name not in _OWN_JSON and not name.endswith(".summary.json")]
        if other:
            shown = ", ".join(other[:5]) + (", …" if len(other) > 5 else "")
            print(f"note: {folder}: {len(other)} file(s) of other kinds are not read: {shown}", file=sys.stderr)


def source_names(paths: Sequence[Path]) -> dict[Path, str]:
    """What to call each file's records where they name no source: the file's name, with its folder if need be."""
    stems = {path: path.name.split(".")[0] for path in paths}
    longer = {path: f"{path.parent.name}/{stem}" for path, stem in stems.items()}
    once, twice = Counter(stems.values()), Counter(longer.values())
    return {
        path: stem if once[stem] == 1 else longer[path] if twice[longer[path]] == 1 else str(path)
        for path, stem in stems.items()
    }


def read_records(
    paths: Sequence[Path], progress: str | None = None, source: str | None = None, keep_going: bool = False
) -> Iterator[Record | Fault]:
    """Every row of every file; memory does not grow with their size.

    Args:
        paths: files of known kinds.
        progress: name of a progress bar, which is shown where a person watches; none where None.
        source: of records that name none; by file where None.
        keep_going: make a fault of a file that cannot be read, and go on with the next.

    Raises:
        InputError: a file cannot be read as a whole.
    """
    names = source_names(paths)
    with tqdm(desc=progress, unit=" rows", mininterval=0.5, disable=None if progress else True) as bar:
        for path in paths:
            parse = partial(parse_record, default_source=source or names[path])
            try:
                for row in read_rows(path):
                    yield from to_record(row, str(path), parse)
                    bar.update()
            except InputError as error:
                if not keep_going:
                    raise
                yield Fault(str(path), None, Flaw(str(error).removeprefix(f"{path}: ")))


def to_record(row: Row, place: str, parse: Callable[[Mapping[str, Any]], Record | None]) -> Iterator[Record | Fault]:
    """One row as a record, as all its faults, or as nothing where `parse` passes it over."""
    if row.error is not None:
        yield Fault(place, row.number, Flaw(row.error, mend="mend the line or leave it out"))
        return
    try:
        record = parse(row.values)
    except RecordError as error:
        yield from (Fault(place, row.number, flaw) for flaw in error.flaws)
    else:
        if record is not None:
            yield record


def load_records(paths: Sequence[Path], progress: str | None = None) -> tuple[list[Record], list[Fault]]:
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
