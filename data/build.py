"""Building splits: read → correct → clean → place → check → write."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.artefact import write_text

from .card import CROISSANT_FILE, croissant, data_card
from .clean import Cleaned, Removed, clean
from .corrections import apply_corrections
from .leaks import check_splits
from .manifest import make_manifest, read_placements
from .placements import Placements, text_key
from .reading import MANIFEST_FILE, SPLITS
from .records import Fault, Record
from .sources import BuildConfig, Read, read_sources
from .split import Placed, place
from .tables import write_tables


class BuildError(ValueError):
    """A build that cannot be done; `faults` are those of the rows, if they are why."""

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = list(faults)


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build."""

    folder: Path
    manifest: dict[str, Any]


def build(config: BuildConfig, out: Path, overwrite: bool = False, previous: Path | None = None) -> Built:
    """Build the folder `out`: a Parquet file a split, what was removed, manifest, data card, Croissant metadata.

    Args:
        config: sources, limits and shares.
        out: the folder; it appears whole or not at all.
        overwrite: replace a folder that an earlier build made.
        previous: a built folder whose records stay in the splits that they are in.

    Raises:
        BuildError: a row is faulty (nothing is written), or `out` exists.
        SourceError, InputError, ManifestError: something cannot be read.
        SplitError: the records cannot be split so that every split has every label.
        LeakError: the splits share what they must not.
    """
    _recover(out)
    if out.exists() and not overwrite:
        raise BuildError(f"{out}: exists already; name another folder, or use --overwrite")
    if out.exists() and not (out / MANIFEST_FILE).exists():
        raise BuildError(f"{out}: was not built by this command and is not overwritten; name another folder")
    placements, before = read_placements(previous) if previous else (Placements(), None)
    read = read_sources(config, out)
    corrected = apply_corrections(read.records, config.corrections)
    if faults := [*read.faults, *corrected.faults]:
        raise BuildError(f"{len(faults)} fault(s); nothing was written", faults)
    _check_held_out(config, corrected.records)
    ranked = _by_rank(corrected.records, read, placements)
    bridges: list[Removed] = []
    while True:
        cleaned = clean(ranked, config.clean)
        placed = place(cleaned, config.rules, placements)
        if not placed.removed:
            break
        # What repeats a record that cannot stay is no repeat: clean again without it.
        bridges += placed.removed.values()
        ranked = [record for number, record in enumerate(ranked) if number not in placed.removed]
    splits = _splits(cleaned, placed)
    check_splits(
        splits,
        config.clean.threshold,
        config.clean.words,
        config.by_source,
        config.hold_out_sources,
    )
    removed = [*cleaned.removed.values(), *bridges]
    notes = {
        "previous": before,
        "passed_over": read.passed_over,
        "corrections": corrected.counts,
        "moves": placed.moves,
    }
    inputs = read.inputs | corrected.inputs
    manifest = make_manifest(config, inputs, splits, removed, notes, placed.placements)
    _write(out, cleaned, placed, removed, manifest)
    return Built(out, manifest)


def _check_held_out(config: BuildConfig, records: Sequence[Record]) -> None:
    sources = {record.source for record in records}
    if unknown := [name for name in config.hold_out_sources if name not in sources]:
        known = ", ".join(sorted(sources)[:30]) + (", …" if len(sources) > 30 else "")
        raise BuildError(f"no record has the source {', '.join(unknown)}, which is to be held out; there are: {known}")


def _by_rank(records: Sequence[Record], read: Read, placements: Placements) -> list[Record]:
    """Records in an order that does not depend on how the rows are sorted: first what earlier builds placed, then
    boundary pairs, which cannot give way, then by source as listed, then by a hash of the text.
    """
    old = placements.by_key()
    twins = Counter((record.key, record.id) for record in records)

    def rank(number: int) -> tuple[Any, ...]:
        record = records[number]
        # Rows with one text and one id differ in other fields alone: these settle what comes first.
        rest = json.dumps(record.to_row(), default=str) if twins[record.key, record.id] > 1 else ""
        return text_key(record) not in old, not record.pair, read.ranks[number], record.key, record.id, rest

    return [records[number] for number in sorted(range(len(records)), key=rank)]


def _splits(cleaned: Cleaned, placed: Placed) -> dict[str, list[Record]]:
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for number, split in placed.splits.items():
        splits[split].append(cleaned.records[number])
    return splits


def _write(out: Path, cleaned: Cleaned, placed: Placed, removed: Sequence[Removed], manifest: dict[str, Any]) -> None:
    """Write into a temporary folder beside `out`, then rename: `out` is never half built."""
    temporary, old = _beside(out)
    for folder in (temporary, old):
        shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        files = write_tables(temporary, cleaned, placed, removed)
        write_text(temporary / MANIFEST_FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        write_text(temporary / "README.md", data_card(manifest))
        described = croissant(manifest, files)
        write_text(temporary / CROISSANT_FILE, json.dumps(described, indent=2, ensure_ascii=False) + "\n")
        if out.exists():
            out.rename(old)
        temporary.rename(out)
    finally:
        _recover(out)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def _beside(out: Path) -> tuple[Path, Path]:
    """Where the new folder is written, and where the old one waits while they change places."""
    return out.with_name(out.name + ".writing"), out.with_name(out.name + ".old.writing")


def _recover(out: Path) -> None:
    """Put the old folder back where a kill fell between the two renames."""
    old = _beside(out)[1]
    if old.exists() and not out.exists():
        old.rename(out)
