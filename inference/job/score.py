"""A score job as a story: plan, read, score, record, put in place. It can be killed at any moment, and goes on."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..classifier import PromptClassifier
from ..scorer import BATCH_TOKENS
from .chunks import FileEnd, FileTask, ScoredChunk, Shard, read_all
from .columns import Columns, check_keep, choose_columns, kept_types, output_types
from .files import STDIN, find_files, path_of
from .ledger import FileProgress, InputFile, JobError, Ledger, Part, digest_of
from .local import Scorer, score_chunks
from .output import Output
from .overlap import Behind
from .readers import count_rows
from .summary import promises, summarise, too_many_errors

CHUNK_ROWS = 2048


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """A score job as asked for; the fields are the options of `python -m inference score`."""

    inputs: Sequence[str]
    model: str
    output: str
    operating_point: str | None = None
    backend: str = "auto"
    text_column: str | None = None
    messages_column: str | None = None
    id_column: str | None = None
    keep: Sequence[str] = ()
    max_errors: int | float | None = None
    resume: bool = False
    overwrite: bool = False
    expect_model: str | None = None
    limit: int | None = None
    shard: Shard | None = None
    threads: int | None = None
    batch_tokens: int | None = None
    chunk_rows: int = CHUNK_ROWS
    cache: str | None = None
    gate: bool = True
    engine: str = "local"
    actors: tuple[int, int | None] = (1, None)
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """How a job ended.

    Attributes:
        output: where the rows are, or will be.
        summary: what `PATH.summary.json` says; of a part of the job, as far as it is.
        too_many_errors: more rows failed than `max_errors` allows.
        nothing_to_do: the output was complete before.
        waits_for_merge: this process's share is done, and the output is made by `merge`.
        seconds, rows: how long this process scored, and how many rows.
        total_rows: rows of all inputs, where a limit was given and they can be counted without reading them.
    """

    output: Path
    summary: dict[str, Any]
    too_many_errors: bool = False
    nothing_to_do: bool = False
    waits_for_merge: bool = False
    seconds: float = 0.0
    rows: int = 0
    total_rows: int | None = None


def open_classifier(options: ScoreOptions) -> PromptClassifier:
    """The artefact that the options name.

    Raises:
        ArtefactError: it is none.
        JobError: it is another than `expect_model`.
    """
    import torch

    if (threads := threads_of(options)) is not None:
        torch.set_num_threads(threads)  # before it is opened: some backends count them once
    classifier = PromptClassifier.load(
        options.model,
        backend=options.backend,
        operating_point=options.operating_point,
        # Where Ray gives an actor no GPU, it sees them all the same.
        device="cpu" if options.engine == "ray" and not options.gpus else None,
        batch_tokens=options.batch_tokens or BATCH_TOKENS,
        cache=options.cache,
        gate=options.gate,
    )
    found = classifier.assay.fingerprint
    if options.expect_model not in (None, found):
        raise JobError(f"{options.model}: is artefact {found}, and --expect-model says {options.expect_model}")
    return classifier


def threads_of(options: ScoreOptions) -> int | None:
    """Threads of the network as asked for; an actor of Ray has one unless it is given more."""
    return options.threads or (1 if options.engine == "ray" else None)


def score(options: ScoreOptions) -> ScoreResult:
    """Run a score job, or one shard of it, to its end.

    Raises:
        InputError, JobError, ArtefactError: the job cannot start or go on; one sentence says why.
    """
    _check(options)
    target = path_of(options.output)
    files = [path for path in find_files(options.inputs) if not _inside(path, target)]
    classifier = open_classifier(options)
    labels = classifier.assay.labels
    keep = check_keep(options.keep, labels)
    columns = [columns_of_job(options, path, keep) for path in files]
    inputs = [InputFile.of(path) for path in files]
    output = Output(target, output_types(labels, keep))
    job = job_of(options, classifier, keep)
    joins = options.resume or options.shard is not None
    if output.stands(job["options"], inputs, resume=joins, overwrite=options.overwrite):
        return ScoreResult(output.path, output.summary(), nothing_to_do=True)
    ledger = output.open_ledger(job, resume=joins, overwrite=options.overwrite)
    classifier = _as_begun(options, classifier, ledger)
    numbers = [ledger.begin_file(file) for file in inputs]
    ledger.drop_unsound(output.kind, output.placed(ledger))
    tasks = [
        _task(options, output.types, path, chosen, number, ledger.files[number])
        for path, chosen, number, now in zip(files, columns, numbers, inputs, strict=True)
        if not (ledger.files[number].done and ledger.files[number].file == now)
    ]
    finished = bool(files) and not tasks and output.path.exists()
    run = _Run(options, classifier, ledger, output, {task.number: task for task in tasks})
    over = run()
    summary = summarise(ledger)
    result = ScoreResult(output.path, summary, seconds=run.seconds, rows=run.counts["rows"])
    if options.limit is not None:
        result = replace(result, total_rows=_total(files))
    if over or too_many_errors(ledger.counts, options.max_errors, final=True):
        return replace(result, too_many_errors=True)
    if options.shard is not None:
        return replace(result, waits_for_merge=True)
    if faults := ledger.missing():
        raise JobError(f"{output.path}: {'; '.join(faults)}; go on with --resume")
    output.put_in_place(ledger, summary)
    return replace(result, nothing_to_do=finished)


def _check(options: ScoreOptions) -> None:
    if options.resume and options.overwrite:
        raise JobError("--resume goes on and --overwrite starts anew: give one of them")
    if options.shard is not None and options.overwrite:
        raise JobError(
            "--shard shares an output with other processes: remove what stands there by hand, or name another"
        )
    if options.shard is not None and options.limit is not None:
        raise JobError("--limit makes a trial, and --shard a share of the whole: give one of them")
    if options.engine == "ray" and (options.limit is not None or STDIN in options.inputs):
        raise JobError("--engine ray reads whole files: --limit and standard input need the local engine")


def _inside(path: Path, output: Path) -> bool:
    """Whether a file found in an input folder is this job's own output."""
    return output in path.parents or output.with_name(output.name + ".job") in path.parents


def columns_of_job(options: ScoreOptions, path: Path, keep: tuple[str, ...] = ()) -> Columns:
    """The columns to read from one file, as the options name them; see `choose_columns`."""
    return choose_columns(
        path, text=options.text_column, messages=options.messages_column, row_id=options.id_column, keep=keep
    )


def job_of(options: ScoreOptions, classifier: PromptClassifier, keep: tuple[str, ...]) -> dict[str, Any]:
    """What the ledger says of the job: its options, the engine that it began with, and what the artefact promises."""
    import torch

    gate = classifier.gate_in_use
    return {
        "options": {
            "artefact": classifier.assay.fingerprint,
            "operating_point": classifier.point_name,
            "gate": None if gate is None else gate.fingerprint,
            "text_column": options.text_column,
            "messages_column": options.messages_column,
            "id_column": options.id_column,
            "keep": list(keep),
            "limit": options.limit,
            "chunk_rows": options.chunk_rows,
        },
        "engine": {
            "backend": classifier.backend_name,
            "threads": torch.get_num_threads(),
            "batch_tokens": classifier.batch_tokens,
        },
        "labels": list(classifier.assay.labels),
        "promises": promises(classifier.assay, classifier.point_name, gate),
    }


def _as_begun(options: ScoreOptions, classifier: PromptClassifier, ledger: Ledger) -> PromptClassifier:
    """The classifier with the engine that the job began with: rows scored later must equal those scored before.

    Raises:
        JobError: the options name another engine.
    """
    import torch

    engine = ledger.job["engine"]
    asked = {
        "backend": None if options.backend == "auto" else options.backend,
        "threads": options.threads,
        "batch_tokens": options.batch_tokens,
    }
    if other := [name for name, value in asked.items() if value not in (None, engine[name])]:
        raise JobError(
            "; ".join(f"the job began with {name} {engine[name]}, and goes on with it" for name in other)
            + ": leave the option out, or use --overwrite"
        )
    now = {"backend": classifier.backend_name, "threads": torch.get_num_threads()}
    now["batch_tokens"] = classifier.batch_tokens
    if now != engine:
        classifier = open_classifier(replace(options, **engine))
    classifier.backend = engine["backend"]  # and not `auto`: other processes get a copy, and would choose anew
    return classifier


def _task(
    options: ScoreOptions, types: dict[str, Any], path: Path, columns: Columns, number: int, progress: FileProgress
) -> FileTask:
    return FileTask(
        number=number,
        path=path,
        columns=columns,
        types={**types, **kept_types(path, columns.keep)},
        chunk_rows=options.chunk_rows,
        shard=options.shard or Shard(),
        done={part: record.read for part, record in progress.parts.items()},
    )


def _total(files: Sequence[Path]) -> int | None:
    counted = [count_rows(path) for path in files]
    return None if None in counted else sum(n or 0 for n in counted)


class _Run:
    """The scoring of what is left, with its progress bar."""

    def __init__(
        self,
        options: ScoreOptions,
        classifier: PromptClassifier,
        ledger: Ledger,
        output: Output,
        tasks: dict[int, FileTask],
    ) -> None:
        self.options, self.classifier, self.ledger, self.output, self.tasks = options, classifier, ledger, output, tasks
        self.seconds = 0.0
        self.counts: Counter[str] = Counter()  # of the rows that this run scored

    def __call__(self) -> bool:
        """Score all; true if too many rows failed."""
        if not self.tasks:
            return False
        started = time.perf_counter()
        before = Counter(self.ledger.counts)
        with self._bar() as bar, Behind() as writer, closing(self._scored(bar)) as items:
            for item in items:
                if isinstance(item, FileEnd):
                    writer.run(self._end_file, item)
                    continue
                self.counts.update(item.counts)
                writer.run(self._record, item)
                so_far = before + self.counts
                share = so_far["flagged"] / max(1, so_far["scored"])
                bar.set_postfix_str(f"flagged {share:.2%}, errors {so_far['errors']:,}")
                if too_many_errors(so_far, self.options.max_errors):
                    return True
        self.seconds = time.perf_counter() - started
        return False

    def _scored(self, bar: tqdm[Any]) -> Generator[ScoredChunk | FileEnd]:
        if self.options.engine == "ray":
            from .ray_engine import score_on_ray

            return score_on_ray(
                self.tasks,
                self.classifier,
                self.output.kind,
                threads=self.ledger.job["engine"]["threads"],
                actors=self.options.actors,
                gpus=self.options.gpus,
                tick=bar.update,
            )
        scorer = Scorer(self.classifier, self.tasks, self.output.kind)
        return score_chunks(read_all(self.tasks.values(), self.options.limit), scorer, bar.update)

    def _record(self, scored: ScoredChunk) -> None:
        record = Part(scored.counts["rows"], scored.digest, digest_of(scored.content), dict(scored.counts))
        self.ledger.add_part(scored.file, scored.part, self.output.kind, scored.content, record)

    def _end_file(self, end: FileEnd) -> None:
        file = self.ledger.files[end.file]
        if InputFile.of(self.tasks[end.file].path).size != file.file.size:
            raise JobError(f"{file.file.path} changed while it was read; score everything anew with --overwrite")
        if file.end is None:
            self.ledger.end_file(end.file, end.rows, end.parts)

    def _bar(self) -> tqdm[Any]:
        """A progress bar over the rows of this process's share, as far as they can be counted."""
        total = _total([task.path for task in self.tasks.values()])
        done = sum(part.rows for number in self.tasks for part in self.ledger.files[number].parts.values())
        if total is not None and self.options.limit is not None:
            total = min(total, self.options.limit)
        if total is not None and self.options.shard is not None:
            total, done = math.ceil(total / self.options.shard.count), 0
        return tqdm(total=total, initial=done, unit="row", desc="scoring", mininterval=0.5)
