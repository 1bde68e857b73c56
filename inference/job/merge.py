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
    if faults := ([f"{damaged} parts are missing or damaged"] if damaged else []) + ledger.missing():
        raise JobError(f"{path}: not all is scored ({'; '.join(faults)}); run the shards that are missing, then merge")
    summary = summarise(ledger)
    output.put_in_place(ledger, summary)
    return summary
