"""Flag scored rows anew at another operating point: the probabilities stay, and no prompt is read or scored."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tqdm import tqdm

from ..decision import DISTILLATION
from .ledger import JobError
from .writers import SUMMARY_KEY, as_csv, as_jsonl, output_format, summary_path, sync, write_summary

if TYPE_CHECKING:
    import pyarrow


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
        JobError: no complete score job wrote `scored`, or the artefact has no such operating point, or something
            stands at `output`.
    """
    summary = _summary_of(scored)
    points = summary["operating_points"]
    if point not in points:
        raise JobError(f"{scored}: its artefact has no operating point {point}; it has {', '.join(points)}")
    kind, one_file = output_format(scored)
    if output_format(output) != (kind, one_file):
        raise JobError(f"{output}: must be of the kind of {scored} ({f'.{kind}' if one_file else 'a folder of parts'})")
    if output.resolve() == scored.resolve():
        raise JobError(f"{output}: is what was scored; name another output")
    if output.exists() and not overwrite:
        raise JobError(f"{output}: exists already; name another output, or use --overwrite")
    if output.exists() and output.is_dir() == one_file:
        raise JobError(f"{output}: is {'a folder' if one_file else 'a file'}; name another output")
    if not one_file and output.exists() and not all(item.match("part-*.parquet") for item in output.iterdir()):
        raise JobError(f"{output}: holds files that no score job wrote; name another output")
    decision = _Decision(points[point]["thresholds"], list(summary["counts"]["labels"]))
    files = [scored] if one_file else sorted(scored.glob("part-*.parquet"))
    output.parent.mkdir(parents=True, exist_ok=True)
    waiting = output.with_name(output.name + ".deciding")
    with tqdm(total=summary["counts"]["rows"], unit="row", desc="deciding", mininterval=0.5) as bar:
        # Counts stand in a Parquet file's own metadata, which is written first: they are taken in a pass before.
        for path in files:
            decision.count(path, kind, bar)
        summary = _changed(summary, point, decision.counts)
        if one_file:
            _write(scored, kind, waiting, decision, summary)
        else:
            shutil.rmtree(waiting, ignore_errors=True)
            waiting.mkdir()
            for path in files:
                _write(path, kind, waiting / path.name, decision, None)
    if not one_file and output.exists():
        shutil.rmtree(output)
    write_summary(output, summary)
    waiting.replace(output)
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
        pass
    raise JobError(f"{path}: does not say all thresholds of the artefact; score anew")


def _changed(summary: Mapping[str, Any], point: str, counts: Counter[str]) -> dict[str, Any]:
    chosen = summary["operating_points"][point]
    labels = {label: counts[f"label: {label}"] for label in summary["counts"]["labels"]}
    return {
        **summary,
        "operating_point": point,
        **chosen,
        "options": {**summary["options"], "operating_point": point},
        "counts": {**summary["counts"], "flagged": counts["flagged"], "labels": labels},
    }


class _Decision:
    """What one operating point says of a row's probabilities, and how often it said what."""

    def __init__(self, thresholds: Mapping[str, float], labels: list[str]) -> None:
        self.thresholds, self.labels = thresholds, labels
        self.counts: Counter[str] = Counter()

    @property
    def columns(self) -> list[str]:
        return [DISTILLATION, *self.labels]

    def of(self, scores: Mapping[str, float | None]) -> tuple[list[str] | None, bool | None]:
        """`labels` and `flagged`; null for a row without scores, which could not be scored."""
        distillation = scores[DISTILLATION]
        if distillation is None:
            return None, None
        over = [name for name in self.labels if (p := scores[name]) is not None and p >= self.thresholds[name]]
        return over, distillation >= self.thresholds[DISTILLATION]

    def count(self, path: Path, kind: str, bar: tqdm[Any]) -> None:
        """Count the decisions over one file."""
        for rows in _read_scores(path, kind, self.columns):
            for row in rows:
                labels, flagged = self.of(row)
                self.counts["flagged"] += bool(flagged)
                self.counts.update(f"label: {label}" for label in labels or ())
            bar.update(len(rows))


def _read_scores(path: Path, kind: str, columns: list[str]) -> Any:
    """Lists of rows, each with its scores alone."""
    if kind == "parquet":
        file = _open_parquet(path, columns)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns).to_pylist()
        return
    with path.open(encoding="utf-8", newline="") as stream:
        for row in _json_rows(stream, path) if kind == "jsonl" else _csv_rows(stream, path, columns):
            yield [{name: _number(row[name]) for name in columns}]


def _write(path: Path, kind: str, output: Path, decision: _Decision, summary: Mapping[str, Any] | None) -> None:
    """One file with its decisions taken anew, on disk when this returns."""
    with output.open("wb") as stream:
        if kind == "parquet":
            _write_parquet(path, stream, decision, summary)
        else:
            with path.open(encoding="utf-8", newline="") as source:
                if kind == "jsonl":
                    for row in _json_rows(source, path):
                        row["labels"], row["flagged"] = decision.of(row)
                        stream.write(as_jsonl([row]))
                else:
                    header: list[str] | None = None
                    for row in _csv_rows(source, path, decision.columns):
                        if header is None:
                            header = list(row)
                            stream.write(as_csv([header]))
                        scores = {name: _number(row[name]) for name in decision.columns}
                        labels, flagged = decision.of(scores)
                        stream.write(as_csv([(row | {"labels": labels, "flagged": flagged}).values()]))
                    if header is None:
                        source.seek(0)
                        stream.write(source.read().encode())
        sync(stream)


def _write_parquet(path: Path, stream: IO[bytes], decision: _Decision, summary: Mapping[str, Any] | None) -> None:
    import pyarrow
    import pyarrow.parquet

    file = _open_parquet(path, decision.columns)
    schema: pyarrow.Schema = file.schema_arrow
    if summary is not None:
        schema = schema.with_metadata({SUMMARY_KEY: json.dumps(summary).encode()})
    with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            decided = [decision.of(row) for row in table.select(decision.columns).to_pylist()]
            for name, values in zip(("labels", "flagged"), zip(*decided, strict=True), strict=True):
                place = schema.get_field_index(name)
                table = table.set_column(place, schema.field(name), pyarrow.array(values, schema.field(name).type))
            writer.write_table(table.replace_schema_metadata(schema.metadata))


def _open_parquet(path: Path, columns: list[str]) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise JobError(f"{path}: cannot be read as Parquet") from error
    _check_columns(path, file.schema_arrow.names, columns)
    return file


def _json_rows(stream: IO[str], path: Path) -> Any:
    for number, line in enumerate(stream, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise JobError(f"{path}:{number}: no JSON object; the file changed after it was scored, score anew")
        _check_columns(f"{path}:{number}", row, [])
        yield row


def _csv_rows(stream: IO[str], path: Path, columns: list[str]) -> Any:
    csv.field_size_limit(sys.maxsize)  # kept columns may hold long prompts
    reader = csv.DictReader(stream)
    _check_columns(path, reader.fieldnames or (), columns)
    yield from reader


def _check_columns(place: Path | str, there: Any, columns: list[str]) -> None:
    if missing := [name for name in (*columns, "labels", "flagged") if name not in there]:
        raise JobError(f"{place}: has no column {', '.join(missing)}; the file changed after it was scored, score anew")


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)
