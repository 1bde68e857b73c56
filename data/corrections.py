"""Corrections: labels that a person mended, laid over the sources before anything else is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.artefact import file_hash

from .reading import labelled_files, load_records
from .records import Fault, Record


@dataclass(frozen=True, slots=True)
class Corrected:
    """Records with the corrections applied.

    `counts` says how many corrections there were, how many records changed by them, and how many corrections
    found no record of their text.
    """

    records: list[Record]
    faults: list[Fault]
    inputs: dict[str, str]
    counts: dict[str, int]


def apply_corrections(records: Sequence[Record], names: Sequence[str]) -> Corrected:
    """Give every record whose text stands in a correction the correction's labels, weight and judged categories.

    A later correction of one text replaces an earlier one.

    Args:
        records: all that the sources gave.
        names: files, folders or globs of corrections: records as `data audit` writes them, with labels mended.
    """
    files = labelled_files(names)
    corrections, faults = load_records(files)
    by_key = {correction.key: correction for correction in corrections}
    changed, found, corrected = 0, set(), []
    for record in records:
        correction = by_key.get(record.key)
        if correction is not None:
            found.add(record.key)
            mended = record.changed(labels=correction.labels, weight=correction.weight, judged=correction.judged)
            changed += mended != record
            record = mended
        corrected.append(record)
    counts = {"given": len(by_key), "changed": changed, "without_record": len(by_key) - len(found)}
    return Corrected(corrected, faults, {str(path): file_hash(path) for path in files}, counts)
