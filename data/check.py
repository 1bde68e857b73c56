"""`python -m data check`: every fault, what looks wrong, and what is there, in one pass and in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from .reading import read_records
from .records import Record
from .summary import Summary, count_tables
from .suspicions import Suspicions


def check(files: Sequence[Path], out: TextIO, as_json: bool = False) -> int:
    """Check files of records; the number of faults.

    Faults are written as they are found: as lines, or as the first member of one JSON object.
    """
    summary, suspicions = Summary(), Suspicions()
    report = _JsonReport(out) if as_json else _TextReport(out)
    faults = 0
    for item in read_records(files, progress="checking", keep_going=True):
        if isinstance(item, Record):
            summary.add(item)
            suspicions.add(item)
        else:
            report.fault(item)
            faults += 1
    report.end(len(files), faults, summary, suspicions)
    return faults


class _TextReport:
    def __init__(self, out: TextIO) -> None:
        self._out = out

    def fault(self, fault: Any) -> None:
        print(fault, file=self._out)

    def end(self, files: int, faults: int, summary: Summary, suspicions: Suspicions) -> None:
        print(count_tables({"records": summary.counts()}, most=40), file=self._out)
        for suspicion in suspicions.found():
            print(f"\nwarning: {suspicion.message}", end="", file=self._out)
        print(f"\n\n{files} file(s), {summary.records} record(s), {faults} fault(s)", file=self._out)


class _JsonReport:
    """One JSON object, written as it comes: a million faults need no memory."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._first = True
        out.write('{"faults": [')

    def fault(self, fault: Any) -> None:
        self._out.write(("\n" if self._first else ",\n") + json.dumps(fault.to_json(), ensure_ascii=False))
        self._first = False

    def end(self, files: int, faults: int, summary: Summary, suspicions: Suspicions) -> None:
        rest = {
            "warnings": [suspicion.to_json() for suspicion in suspicions.found()],
            "counts": summary.counts(),
            "totals": {"files": files, "records": summary.records, "faults": faults},
        }
        self._out.write("],\n" + json.dumps(rest, ensure_ascii=False, indent=1)[1:] + "\n")
