"""Flag scored rows anew at another operating point: the probabilities stay, and no prompt is read or scored."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..decision import DISTILLATION
from .ledger import JobError
from .output import Output
from .readers import column_names, open_parquet, read_rows
from .writers import SUMMARY_KEY, as_csv, as_jsonl, summary_path, sync, write_summary

_DECIDED = ("labels", "flagged")


def decide_anew(scored: Path, point: str, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write what the score job would have written at the operating point `point`, byte for byte.

    Args:
        scored: what a score job wrote: a .parquet, .jsonl or .csv file, or a folder of parts.
        point: the name of an operating point of the artefact that scored it.
        output: a path of the same kind; it appears whole.
        overwrite: replace an output that exists.

    Returns:
        the new summary, which also stands in `OUTPUT.summary.json`.

    Raises:
        InputError, JobError: `scored` is not what a complete score job left, its artefact has no such operating point,
            or something stands at `output`.
    """
    summary = _summary_of(scored)
    points = summary["operating_points"]
    if point not in points:
        raise JobError(f"{scored}: its artefact has no operating point {point}; it has {', '.join(points)}")
    _check_gate(scored, summary, point)
    place, source = Output(output, {}), Output(scored, {})
    kind, one_file = source.kind, source.one_file
    if (place.kind, place.one_file) != (kind, one_file):
        raise JobError(f"{output}: must be of the kind of {scored} ({f'.{kind}' if one_file else 'a folder of parts'})")
    place.check_place([scored])
    if (output.exists() or place.job_folder.exists()) and not overwrite:
        raise JobError(f"{output}: exists already, or a job lies beside it; name another output, or use --overwrite")
    files = [scored] if one_file else sorted(scored.glob("part-*.parquet"))
    decision = _Decision(points[point]["thresholds"], list(summary["counts"]["labels"]))
    for path in files:
        decision.check_columns(path, kind)
    output.parent.mkdir(parents=True, exist_ok=True)
    waiting = output.with_name(output.name + ".deciding")
    try:
        summary = _write(files, place, waiting, decision, summary, point)
    except BaseException:  # nothing was put in place yet, and a half file helps nobody
        waiting.unlink(missing_ok=True) if one_file else shutil.rmtree(waiting, ignore_errors=True)
        raise
    # A kill from here on may leave an output without a summary, but never one with the summary of another.
    summary_path(output).unlink(missing_ok=True)
    shutil.rmtree(place.job_folder, ignore_errors=True)
    if not one_file and output.exists():
        shutil.rmtree(output)
    waiting.replace(output)
    write_summary(output, summary)
    return summary


def _summary_of(scored: Path) -> dict[str, Any]:
    if not scored.exists():
        raise JobError(f"{scored}: is not there")
    path = summary_path(scored)
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        thresholds = [point["thresholds"] for point in summary["operating_points"].values()]
        names = [DISTILLATION, *summary["counts"]["labels"]]
        if all(isinstance(of[name], float | int) for of in thresholds for name in names) and summary["options"]:
            return dict(summary)
    except FileNotFoundError:
        raise JobError(f"{path}: is not there; a complete score job leaves it beside its output") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # what it lacks is said below
    raise JobError(f"{path}: does not say all thresholds of the artefact; score anew")


def _check_gate(scored: Path, summary: Mapping[str, Any], point: str) -> None:
    """Refuse a point at which the gate would have passed on more than it did: those rows have no probability.

    Raises:
        JobError: it is such a point.
    """
    if not summary["counts"].get("gated"):
        return
    before, now = summary["gate"], summary["operating_points"][point].get("gate")
    if now is None or now["score"] < before["score"]:
        raise JobError(
            f"{scored}: the gate held back prompts that {point} could flag; score anew with --operating-point {point}, "
            "or with --no-gate"
        )


def _changed(summary: Mapping[str, Any], point: str, counts: Counter[str]) -> dict[str, Any]:
    """The summary at another operating point."""
    rows = summary["counts"]["rows"]
    if counts["rows"] != rows:
        raise JobError(
            f"{counts['rows']:,} rows are there, and the summary says {rows:,}: the score job is unfinished (go on "
            "with --resume), or the file changed (score anew)"
        )
    labels = {label: counts[f"label: {label}"] for label in summary["counts"]["labels"]}
    return {
        **summary,
        "operating_point": point,
        **summary["operating_points"][point],
        "options": {**summary["options"], "operating_point": point},
        "counts": {**summary["counts"], "flagged": counts["flagged"], "labels": labels},
    }


class _Decision:
    """What one operating point says of a row's probabilities; it counts what it said."""

    def __init__(self, thresholds: Mapping[str, float], labels: list[str]) -> None:
        self.thresholds, self.labels = thresholds, labels
        self.columns = [DISTILLATION, *labels]
        self._counts: Counter[str] = Counter()

    def check_columns(self, path: Path, kind: str) -> None:
        """Refuse a file without the columns of a score job; a JSONL file may have no row to tell by."""
        there = column_names(path)
        missing = [name for name in (*self.columns, *_DECIDED) if name not in there]
        if missing and (there or kind != "jsonl"):
            raise JobError(f"{path}: has no column {', '.join(missing)}; no score job wrote this")

    def __call__(self, values: Mapping[str, Any], path: Path, number: int) -> dict[str, Any]:
        """`labels` and `flagged` of a row; null where it has no scores, since it could not be scored."""
        self._counts["rows"] += 1
        try:
            scores = {name: None if values[name] in (None, "") else float(values[name]) for name in self.columns}
        except (KeyError, TypeError, ValueError):
            raise JobError(f"{path}:{number}: a score is no number; the file changed, score anew") from None
        distillation = scores[DISTILLATION]
        if distillation is None:
            return dict.fromkeys(_DECIDED)
        labels = [name for name in self.labels if (p := scores[name]) is not None and p >= self.thresholds[name]]
        flagged = distillation >= self.thresholds[DISTILLATION]
        self._counts["flagged"] += flagged
        self._counts.update(f"label: {label}" for label in labels)
        return {"labels": labels, "flagged": flagged}

    def take_counts(self) -> Counter[str]:
        """What was counted since the last time."""
        counts, self._counts = self._counts, Counter()
        return counts


def _write(
    files: Sequence[Path], place: Output, waiting: Path, decision: _Decision, summary: Mapping[str, Any], point: str
) -> dict[str, Any]:
    """All files anew, at `waiting`; returns the new summary."""
    with tqdm(total=summary["counts"]["rows"], unit="row", desc="deciding", mininterval=0.5) as bar:
        if not place.one_file:
            shutil.rmtree(waiting, ignore_errors=True)
            waiting.mkdir()
            for path in files:
                _write_parquet(path, waiting / path.name, decision, bar)
        elif place.kind != "parquet":
            _write_text(files[0], place.kind, waiting, decision, bar)
        else:  # the summary stands in the file as well, before the rows: they are counted in a pass of their own
            for row in read_rows(files[0], decision.columns):
                decision(row.values, files[0], row.number)
            summary = _changed(summary, point, decision.take_counts())
            _write_parquet(files[0], waiting, decision, bar, summary)
            return summary
    return _changed(summary, point, decision.take_counts())


def _write_text(scored: Path, kind: str, output: Path, decision: _Decision, bar: tqdm[Any]) -> None:
    """A JSONL or CSV file with its decisions taken anew, on disk when this returns."""
    with output.open("wb") as stream:
        if kind == "csv":
            stream.write(as_csv([column_names(scored)]))
        for row in _decided_rows(scored, decision):
            stream.write(as_jsonl([row]) if kind == "jsonl" else as_csv([row.values()]))
            bar.update()
        sync(stream)


def _decided_rows(path: Path, decision: _Decision) -> Iterator[dict[str, Any]]:
    for row in read_rows(path):
        if row.error is not None:
            raise JobError(f"{path}:{row.number}: {row.error}; the file changed after it was scored, score anew")
        yield row.values | decision(row.values, path, row.number)


def _write_parquet(
    scored: Path, output: Path, decision: _Decision, bar: tqdm[Any], summary: Mapping[str, Any] | None = None
) -> None:
    """A Parquet file with its decisions taken anew, row group by row group, on disk when this returns."""
    import pyarrow
    import pyarrow.parquet

    file = open_parquet(scored)
    schema: pyarrow.Schema = file.schema_arrow
    if summary is not None:
        schema = schema.with_metadata({SUMMARY_KEY: json.dumps(summary).encode()})
    number = 0
    with output.open("wb") as stream:
        with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                rows = table.select(decision.columns).to_pylist()
                decided = [decision(row, scored, number + i) for i, row in enumerate(rows, 1)]
                for name in _DECIDED:
                    field = schema.field(name)
                    column = pyarrow.array([row[name] for row in decided], field.type)
                    table = table.set_column(schema.get_field_index(name), field, column)
                writer.write_table(table.replace_schema_metadata(schema.metadata))
                number += len(rows)
                bar.update(len(rows))
        sync(stream)
