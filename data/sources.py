"""Where labelled prompts come from: named sources in a YAML list."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator
from tqdm import tqdm

from inference.artefact import file_hash
from inference.job.files import file_kind
from inference.job.readers import read_rows

from .clean import CleanConfig
from .config import Config, ConfigError, load_config
from .mapping import Mapper, RowMapping
from .reading import labelled_files, read_records, sort_out, source_names
from .records import Fault, Record
from .remote import HubSet, SourceError, package_files, package_input
from .split import SplitRules, SplitShares
from .summary import by_count

_HOPELESS = 1000
_UNCLOSED = "unexpected end of data"
_FILTERED = "false in where"
_OVER_LIMIT = "over the limit, or again"


class Source(Config):
    """One named source: files, a data set of the hub, or files that an installed package carries."""

    name: str = Field(min_length=1, description="names the source in tables and errors, and records that name none")
    files: list[str] | None = Field(None, description="files, folders, globs or URLs, from where the command is run")
    hub: str | None = Field(None, description="a data set of the Hugging Face hub, or a local folder of that layout")
    revision: str | None = Field(None, description="of the hub's data set: a commit; a branch is resolved to one")
    config: str | None = Field(None, description="the hub's name for a part of the data set")
    split: str = Field("train", description="the hub's split")
    rows: int | None = Field(None, ge=1, description="read only so many rows from the head of the hub's split")
    download: bool = Field(False, description="keep the hub's whole data set on disk; otherwise it is read as a stream")
    package: str | None = Field(None, description="an installed distribution")
    package_files: list[str] = Field([], description="its files, as globs")
    map: RowMapping | None = Field(None, description="how a row becomes a record; without it the rows are records")
    license: str | None = Field(None, description="of the texts, where the rows do not say")
    limit: int | None = Field(None, ge=1, description="at most so many records, chosen by hash of their content")
    seed: int = Field(0, description="another seed chooses others")

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if sum(value is not None for value in (self.files, self.hub, self.package)) != 1:
            raise ValueError("give exactly one of files, hub and package")
        if self.files is not None and not self.files:
            raise ValueError("files is empty")
        if self.package is not None and not self.package_files:
            raise ValueError("say with package_files which of the package's files to read")
        if self.hub is not None and self.map is None:
            raise ValueError("a data set of the hub needs a map that makes records of its rows")
        if self.hub is not None and self.revision is None and not Path(self.hub).is_dir():
            raise ValueError("a data set of the hub needs a revision, so that the same build comes out again")
        return self


class BuildConfig(Config):
    """What `python -m data build` makes splits from."""

    sources: list[Source] = Field(min_length=1)
    corrections: list[str] = Field([], description="files of records whose labels replace those of the same text")
    max_faults: float = Field(0.0, ge=0, lt=1, description="share of a source's rows that may be faulty: passed over")
    clean: CleanConfig = CleanConfig()
    splits: SplitShares = SplitShares()
    seed: int = Field(0, description="another seed gives another split")
    by_source: bool = Field(False, description="keep each source in one split")
    hold_out_sources: list[str] = Field([], description="sources that go into test, whole")

    @property
    def rules(self) -> SplitRules:
        """How the records are split."""
        return SplitRules(self.splits, self.seed, self.by_source, self.hold_out_sources)

    @model_validator(mode="after")
    def _names_differ(self) -> BuildConfig:
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources are named {', '.join(twice)}")
        return self


@dataclass(frozen=True, slots=True)
class Read:
    """What the sources gave: records with the rank of their source, faults, what was read with its hash, and for each
    source what was passed over: by its filter, over its limit, and its few faulty rows by what was wrong.
    """

    records: list[Record]
    ranks: list[int]
    faults: list[Fault]
    inputs: dict[str, str]
    passed_over: dict[str, dict[str, int]]


def config_for_files(files: Sequence[str], out: Path | None = None) -> BuildConfig:
    """The default build over the user's own labelled files: each is a source, an earlier one before a later one.

    Raises:
        InputError: a name stands for nothing that can be read.
    """
    names = source_names(labelled_files(files, without=out))
    return BuildConfig(sources=[Source(name=name, files=[str(path)]) for path, name in names.items()])


def build_config(
    names: Sequence[str],
    hold_out: Sequence[str] = (),
    corrections: Sequence[str] = (),
    without: Sequence[str] = (),
    out: Path | None = None,
) -> BuildConfig:
    """What the command line asks for: one YAML list of sources or labelled files, with what its options add; files
    in the folder `out`, where the result will go, are none.

    Raises:
        ConfigError: the list is faulty, is mixed with files, or lacks a source that is to be left out.
    """
    lists = [name for name in names if name.endswith((".yaml", ".yml"))]
    if lists and len(names) > 1:
        raise ConfigError("give one YAML list of sources, or labelled files; not both")
    config = load_config(Path(lists[0]), BuildConfig) if lists else config_for_files(names, out)
    if unknown := [name for name in without if name not in {source.name for source in config.sources}]:
        known = ", ".join(source.name for source in config.sources)
        raise ConfigError(f"--without {' '.join(unknown)}: the list has no such source; it has: {known}")
    changed = {
        "sources": [source for source in config.sources if source.name not in without],
        "corrections": [*config.corrections, *corrections],
        "hold_out_sources": list(dict.fromkeys([*config.hold_out_sources, *hold_out])),
    }
    if not changed["sources"]:
        raise ConfigError("--without leaves no source")
    return config.model_copy(update=changed)


def read_sources(config: BuildConfig, out: Path | None = None) -> Read:
    """Read every source; files in the folder `out`, where the result will go, are none.

    Raises:
        SourceError, InputError: a source cannot be read as a whole.
    """
    read = Read([], [], [], {}, {})
    # What the hub will not give is said before hours are spent on reading the rest.
    hubs = {source.name: _hub_set(source).resolve(source.name) for source in config.sources if source.hub}
    for rank, source in enumerate(config.sources):
        left: Counter[str] = Counter()
        items = _read_hub(source, hubs[source.name], read, left) if source.hub else _read_files(source, read, out, left)
        records, faults = sort_out(_limited(_until_hopeless(items), source, left))
        read.records.extend(records)
        read.ranks.extend([rank] * len(records))
        if source.map is not None and not records and not faults:
            raise SourceError(f"source {source.name}: gave no records; look at its filter (where) and its files")
        rows = len({(fault.file, fault.line) for fault in faults})
        swallowed = any(_UNCLOSED in fault.flaw.problem for fault in faults)  # one such row can hold half the file
        if records and not swallowed and 0 < rows <= config.max_faults * (rows + len(records)):
            left.update(fault.flaw.problem for fault in faults)
        else:
            read.faults.extend(faults)
        if +left:
            read.passed_over[source.name] = by_count(+left)
    if not read.records and not read.faults:
        raise SourceError(f"no records in {', '.join(read.inputs)}")
    return read


def _until_hopeless(items: Iterable[Record | Fault]) -> Iterator[Record | Fault]:
    """The items; only the first thousand where all of them are faults, as under a mapping that does not fit."""
    hopeful = False
    for number, item in enumerate(items):
        hopeful = hopeful or isinstance(item, Record)
        yield item
        if not hopeful and number >= _HOPELESS:
            return


def _hub_set(source: Source) -> HubSet:
    return HubSet(source.hub or "", source.revision, source.config, source.split, source.rows, source.download)


def _read_hub(source: Source, hub: HubSet, read: Read, left: Counter[str]) -> Iterator[Record | Fault]:
    read.inputs[str(hub)] = hub.revision or "a local folder"
    if source.map is not None:
        rows = tqdm(hub.read(source.name), desc=source.name, unit=" rows", mininterval=0.5, disable=None)
        mapper = Mapper(source.map, source.name, source.license)
        yield from mapper.records(iter(rows), str(hub))
        left[_FILTERED] += mapper.filtered


def _read_files(source: Source, read: Read, out: Path | None, left: Counter[str]) -> Iterator[Record | Fault]:
    if source.package is None:
        files = labelled_files(source.files or [], without=out)
        read.inputs.update((str(path), file_hash(path)) for path in files)
    else:
        inside = package_files(source.name, source.package, source.package_files)
        files = list(inside.values())
        read.inputs.update(package_input(source.package, name, path) for name, path in inside.items())
        if unknown := [name for name, path in inside.items() if not file_kind(path)]:
            raise SourceError(f"source {source.name}: {unknown[0]} of {source.package} is of no known kind")
    if source.map is None:
        for item in read_records(files, progress=source.name, source=source.name):
            yield _licensed(item, source.license) if isinstance(item, Record) else item
        return
    mapper = Mapper(source.map, source.name, source.license)
    for path in files:
        rows = tqdm(read_rows(path), desc=source.name, unit=" rows", mininterval=0.5, disable=None)
        yield from mapper.records(iter(rows), str(path))
    left[_FILTERED] += mapper.filtered


def _licensed(record: Record, license: str | None) -> Record:
    return record if license is None or record.license is not None else record.changed(license=license)


def _limited(items: Iterable[Record | Fault], source: Source, left: Counter[str]) -> Iterator[Record | Fault]:
    """All faults, and of the records those with the smallest hashes; no more of them are held than are kept.

    Of repeats with one label the first counts, so that a limit is one of distinct prompts.
    """
    if source.limit is None:
        yield from items
        return
    smallest: list[tuple[int, int, Record]] = []
    chosen: set[int] = set()
    for number, item in enumerate(items):
        if isinstance(item, Fault):
            yield item
            continue
        digest = hashlib.sha256(f"{source.seed}:{item.key}:{item.labels}".encode()).digest()
        place = -int.from_bytes(digest[:16], "big")
        left[_OVER_LIMIT] += place in chosen or len(smallest) == source.limit
        if place in chosen or (len(smallest) == source.limit and place <= smallest[0][0]):
            continue
        chosen.add(place)
        entry = (place, -number, item)
        if len(smallest) < source.limit:
            heapq.heappush(smallest, entry)
        else:
            chosen.remove(heapq.heapreplace(smallest, entry)[0])
    yield from (record for _, _, record in sorted(smallest, key=lambda entry: -entry[1]))
