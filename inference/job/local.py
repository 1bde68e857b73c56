"""The local engine: one process that reads, scores and writes, and can be killed at any moment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..artefact import OperatingPoint
from ..classifier import PromptClassifier, row_prompt
from ..prompts import PromptError
from .files import InputError, file_kind, find_files
from .ledger import FileProgress, InputFile, JobError, Ledger, part_name
from .output import Output
from .readers import Row, column_names, count_rows, find_columns, parquet_schema, read_rows, shown_columns

PART_ROWS = 2048
"""Rows in a part: what a kill can cost."""
BATCH_ROWS = 256
"""Rows scored together: enough to sort by length, few enough that the progress bar moves."""


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


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """How a job ended: its summary, and whether more rows failed than `max_errors` allows."""

    output: Path
    summary: dict[str, Any]
    too_many_errors: bool = False
    nothing_to_do: bool = False


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in the input a job finds what it needs; a prompt stands in `text` or in `messages`."""

    text: str | None
    messages: str | None
    row_id: str | None
    keep: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """All columns to read."""
        return {name for name in (self.text, self.messages, self.row_id, *self.keep) if name}


def score(options: ScoreOptions) -> ScoreResult:
    """Run a score job to its end.

    Raises:
        InputError, JobError, ArtefactError: the job cannot start or go on; one sentence says why.
    """
    target = Path(options.output)
    files = [path for path in find_files(options.inputs) if not _inside(path, target)]
    classifier = PromptClassifier.load(options.model, backend=options.backend, operating_point=options.operating_point)
    keep = check_keep(options.keep, classifier)
    columns = [choose_columns(options, keep, path) for path in files]
    inputs = [InputFile.of(path) for path in files]
    types = {**_types(classifier), **dict.fromkeys(keep)}  # None: inferred from the values
    output = Output(target, types)
    identity = _identity(options, classifier, keep)
    if output.stands(identity, inputs, resume=options.resume, overwrite=options.overwrite):
        return ScoreResult(output.path, output.summary(), nothing_to_do=True)
    ledger = output.open_ledger(identity, resume=options.resume, overwrite=options.overwrite)
    progress = [ledger.begin_file(file) for file in inputs]
    finished = all(file.done for file in progress) and set(ledger.part_names()) == ledger.placed
    totals = [count_rows(path) for path in files]
    bar = tqdm(
        total=None if None in totals else sum(total or 0 for total in totals),
        initial=sum(sum(file.parts) for file in progress),
        unit="row",
        desc="scoring",
        mininterval=0.5,
    )
    with bar:
        for path, chosen, file in zip(files, columns, progress, strict=True):
            if not file.done:
                over = _score_file(path, chosen, file, ledger, output, classifier, options.max_errors, bar)
                if over:
                    return ScoreResult(output.path, summarise(classifier, identity, ledger), too_many_errors=True)
    summary = summarise(classifier, identity, ledger)
    if options.max_errors is not None and _over(ledger.counts, options.max_errors, final=True):
        return ScoreResult(output.path, summary, too_many_errors=True)
    output.put_in_place(ledger, summary)
    return ScoreResult(output.path, summary, nothing_to_do=finished and output.path.exists() and bool(files))


def _inside(path: Path, output: Path) -> bool:
    """Whether a file found in an input folder is this job's own output."""
    return output in path.parents or output.with_name(output.name + ".job") in path.parents


def check_keep(keep: Sequence[str], classifier: PromptClassifier) -> tuple[str, ...]:
    """The columns to pass through, each once.

    Raises:
        JobError: a column of the input has the name of one of the output.
    """
    own = {"id", *classifier.column_names()}
    wanted = tuple(dict.fromkeys(name for name in keep if name != "id"))
    if taken := [name for name in wanted if name in own]:
        raise JobError(
            f"--keep {' '.join(taken)}: the output has a column of that name; rename the column in the input"
        )
    return wanted


def choose_columns(options: ScoreOptions, keep: tuple[str, ...], path: Path) -> Columns:
    """The columns to read from one file.

    Raises:
        InputError: no row of the file has a column that the job needs.
    """
    named = [name for name in (options.text_column, options.messages_column) if name]
    prompt = named or ["text", "messages"]
    wanted = {*prompt, *keep, options.id_column or "id"}
    found = find_columns(path, wanted)
    if found is None:  # no readable row: each becomes an error row, and nothing can be said of columns
        found = wanted
    missing = [name for name in (*named, *keep, options.id_column) if name and name not in found]
    if missing or not found & set(prompt):
        what = ", ".join(missing) or "text or messages"
        option = "" if missing else "; say where the prompts stand with --text-column or --messages-column"
        raise InputError(f"{path}: has no column {what}; it has: {shown_columns(column_names(path))}{option}")
    return Columns(
        text=options.text_column if named else "text",
        messages=options.messages_column if named else "messages",
        row_id=options.id_column or ("id" if "id" in found else None),
        keep=keep,
    )


def summarise(classifier: PromptClassifier, identity: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    """What `summary.json` says: which artefact decided what, by which thresholds, and how it came out."""
    assay = classifier.assay
    points = {
        name: {"thresholds": point.thresholds, "measured_fpr": _measured(point) | {"set_on": assay.set_on}}
        for name, point in assay.operating_points.items()
    }
    counts = ledger.counts
    kinds = {name.removeprefix("error: "): n for name, n in sorted(counts.items()) if name.startswith("error: ")}
    return {
        "artefact": assay.fingerprint,
        "operating_point": classifier.point_name,
        **points[classifier.point_name],
        "operating_points": points,  # for `decide`, which has no artefact at hand
        "options": identity,
        "inputs": [{**file.file.to_json(), "rows": sum(file.parts)} for file in ledger.files],
        "counts": {
            **{name: counts[name] for name in ("rows", "scored", "errors", "flagged", "uncertain", "truncated")},
            "labels": {label: counts[f"label: {label}"] for label in assay.labels},
            "errors_by_kind": kinds,
        },
    }


def _measured(point: OperatingPoint) -> dict[str, Any]:
    return {
        "n_organic": point.n_organic,
        "false_positives": point.false_positives,
        "rate": point.fpr,
        "low": point.fpr_low,
        "high": point.fpr_high,
    }


def _identity(options: ScoreOptions, classifier: PromptClassifier, keep: tuple[str, ...]) -> dict[str, Any]:
    return {
        "artefact": classifier.assay.fingerprint,
        "operating_point": classifier.point_name,
        "backend": options.backend,
        "text_column": options.text_column,
        "messages_column": options.messages_column,
        "id_column": options.id_column,
        "keep": list(keep),
    }


def _score_file(
    path: Path,
    columns: Columns,
    progress: FileProgress,
    ledger: Ledger,
    output: Output,
    classifier: PromptClassifier,
    max_errors: int | float | None,
    bar: tqdm[Any],
) -> bool:
    """Score what is left of one file, part by part; true if too many rows failed."""
    number = ledger.files.index(progress)
    types = {**output.types, **_kept_types(path, columns.keep)}
    rows = islice(read_rows(path, columns.names), sum(progress.parts), None)
    while part := list(islice(rows, PART_ROWS)):
        scored = [row for batch in _batches(part) for row in _score_rows(batch, path, columns, classifier, bar)]
        counts = _count(scored)
        output.write_part(part_name(number, len(progress.parts)), scored, types)
        ledger.add_part(number, len(part), counts)
        flagged = ledger.counts["flagged"] / max(1, ledger.counts["scored"])
        bar.set_postfix_str(f"flagged {flagged:.2%}, errors {ledger.counts['errors']}")
        if max_errors is not None and _over(ledger.counts, max_errors):
            return True
    ledger.finish_file(number)
    return False


def _batches(rows: list[Row]) -> Iterator[list[Row]]:
    for start in range(0, len(rows), BATCH_ROWS):
        yield rows[start : start + BATCH_ROWS]


def _score_rows(
    rows: list[Row], path: Path, columns: Columns, classifier: PromptClassifier, bar: tqdm[Any]
) -> list[dict[str, Any]]:
    results = classifier.classify_each([prompt_of(row, columns) for row in rows])
    bar.update(len(rows))
    return [
        {
            "id": id_of(row, path, columns),
            **classifier.columns_of(result),
            **{name: row.values.get(name) for name in columns.keep},
        }
        for row, result in zip(rows, results, strict=True)
    ]


def prompt_of(row: Row, columns: Columns) -> Any:
    """A row's prompt, or the `PromptError` that says why it has none."""
    if row.error is not None:
        return PromptError(row.error)
    present = [name for name in (columns.text, columns.messages) if name and name in row.values]
    if not present:
        wanted = " or ".join(name for name in (columns.text, columns.messages) if name)
        return PromptError(f"the row has no {wanted}")
    return row_prompt(
        row.values.get(columns.text) if columns.text else None,
        row.values.get(columns.messages) if columns.messages else None,
    )


def id_of(row: Row, path: Path, columns: Columns) -> str:
    """The row's own id as text; where it has none, its place, as `file:line`."""
    value = row.values.get(columns.row_id) if columns.row_id else None
    return f"{path.name}:{row.number}" if value is None or value == "" else str(value)


def _count(rows: list[dict[str, Any]]) -> Counter[str]:
    counts: Counter[str] = Counter(rows=len(rows))
    for row in rows:
        if row["error"] is not None:
            counts["errors"] += 1
            counts["error: " + re.sub(r"\d+", "N", row["error"])] += 1
            continue
        counts["scored"] += 1
        counts.update(name for name in ("flagged", "uncertain", "truncated") if row[name])
        counts.update(f"label: {label}" for label in row["labels"])
    return counts


def _over(counts: Counter[str], limit: int | float, final: bool = False) -> bool:
    """Whether more rows failed than allowed: a whole number of them, or a share once a thousand rows are seen."""
    if isinstance(limit, int):
        return counts["errors"] > limit
    return (final or counts["rows"] >= 1000) and counts["errors"] > limit * counts["rows"]


def _types(classifier: PromptClassifier) -> dict[str, Any]:
    """The Arrow type of each output column."""
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "labels": pa.list_(pa.string()),
        "flagged": pa.bool_(),
        "uncertain": pa.bool_(),
        "n_tokens": pa.int64(),
        "n_windows": pa.int64(),
        "truncated": pa.bool_(),
        "top_window": pa.list_(pa.int64()),
        "stage": pa.string(),
        "model": pa.string(),
        "error": pa.string(),
    }
    return {"id": pa.string(), **{name: kinds.get(name, pa.float64()) for name in classifier.column_names()}}


def _kept_types(path: Path, keep: tuple[str, ...]) -> dict[str, Any]:
    """Kept columns of a Parquet file keep their type; those of other files are inferred."""
    schema = parquet_schema(path) if file_kind(path) == "parquet" else None
    return {} if schema is None else {name: schema.field(name).type for name in keep}
