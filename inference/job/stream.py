"""Scoring as a filter: rows go to a stream as they come, and no ledger is kept."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import closing
from typing import IO, Any

from tqdm import tqdm

from .chunks import FileEnd, FileTask, read_all
from .columns import check_keep
from .files import find_files
from .ledger import JobError, Ledger
from .local import Scorer, score_chunks
from .score import ScoreOptions, columns_of_job, job_of, open_classifier
from .summary import summarise, too_many_errors

STREAM_ROWS = 256
"""Rows that are scored, and written, together: who reads on the other side should not wait long."""


def stream(options: ScoreOptions, out: IO[bytes]) -> tuple[dict[str, Any], bool]:
    """Score rows and write them to `out` as JSON lines; the summary, and whether too many rows failed.

    A reader that closes its end ends the work quietly.

    Raises:
        InputError, JobError, ArtefactError: the job cannot start or go on; one sentence says why.
    """
    if options.resume or options.overwrite or options.shard is not None:
        raise JobError("standard output keeps no ledger: with --resume, --overwrite or --shard, name an --output")
    files = find_files(options.inputs)
    classifier = open_classifier(options)
    keep = check_keep(options.keep, classifier.assay.labels)
    tasks = [
        FileTask(number, path, columns_of_job(options, path, keep), {}, STREAM_ROWS)
        for number, path in enumerate(files)
    ]
    ledger = Ledger.in_memory(job_of(options, classifier, keep))
    scorer = Scorer(classifier, {task.number: task for task in tasks}, "jsonl")

    counts: Counter[str] = ledger.counts
    with (
        tqdm(unit="row", desc="scoring", mininterval=0.5, disable=None) as bar,
        closing(score_chunks(read_all(tasks, options.limit), scorer, bar.update)) as items,
    ):
        for item in items:
            if isinstance(item, FileEnd):
                continue
            counts.update(item.counts)
            try:
                out.write(item.content)
                out.flush()
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends
                break
            if too_many_errors(counts, options.max_errors):
                return summarise(ledger), True
    return summarise(ledger), too_many_errors(counts, options.max_errors, final=True)
