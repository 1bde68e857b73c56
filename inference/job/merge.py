"""Check that every shard of a job is done, and put its output in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .columns import output_types
from .ledger import JobError, Ledger
from .output import Output
from .summary import summarise
from .writers import summary_path


def merge(path: Path) -> dict[str, Any]:
    """Join what the processes of one job have scored; the new summary.

    Args:
        path: the job's output, as `score --shard` was given it.

    Raises:
        JobError: there is no such job, or some of it is missing, damaged or not yet scored.
    """
    found = Output(path, {})
    if not Ledger.exists(found.job_folder):
        done = found.path.exists() and summary_path(found.path).exists()
        raise JobError(f"{path}: is complete already" if done else f"{path}: no job lies in {found.job_folder}")
    ledger = Ledger.open(found.job_folder)
    options = ledger.job["options"]
    output = Output(path, output_types(ledger.job["labels"], options["keep"]))
    damaged = ledger.drop_unsound(output.kind, output.placed(ledger))
    faults = [f"{damaged} parts are missing or damaged"] if damaged else []
    if not ledger.files:
        faults.append("no process has begun")
    for progress in ledger.files:
        if progress.end is None:
            faults.append(f"{progress.file.path} was not yet read to its end")
        elif missing := sorted(set(range(progress.end["parts"])) - set(progress.parts)):
            faults.append(f"{progress.file.path} lacks {len(missing)} of {progress.end['parts']} parts")
        elif progress.end["rows"] != sum(part.rows for part in progress.parts.values()):
            faults.append(f"{progress.file.path} has {progress.end['rows']:,} rows, and its parts another number")
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise JobError(f"{path}: not all is scored ({shown}); run the shards that are missing, then merge again")
    summary = summarise(ledger)
    output.put_in_place(ledger, summary)
    return summary
