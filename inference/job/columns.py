"""Which columns of the input a job needs and where they stand, and the columns that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..classifier import row_prompt
from ..decision import prediction_columns
from ..prompts import PromptError
from .files import InputError, file_kind
from .ledger import JobError
from .readers import Row, column_names, find_columns, parquet_schema, shown_columns


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


def check_keep(keep: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """The columns to pass through, each once.

    Raises:
        JobError: a column of the input has the name of one of the output.
    """
    own = {"id", *prediction_columns(labels)}
    wanted = tuple(dict.fromkeys(name for name in keep if name != "id"))
    if taken := [name for name in wanted if name in own]:
        raise JobError(
            f"--keep {' '.join(taken)}: the output has a column of that name; rename the column in the input"
        )
    return wanted


def choose_columns(
    path: Path,
    *,
    text: str | None = None,
    messages: str | None = None,
    row_id: str | None = None,
    keep: tuple[str, ...] = (),
) -> Columns:
    """The columns to read from one file: those named, or `text`, `messages` and `id` where they are there.

    Raises:
        InputError: no row of the file has a column that the job needs.
    """
    named = [name for name in (text, messages) if name]
    prompt = named or ["text", "messages"]
    wanted = {*prompt, *keep, row_id or "id"}
    found = find_columns(path, wanted)
    if found is None:  # no readable row: each becomes an error row, and nothing can be said of columns
        found = wanted
    missing = [name for name in (*named, *keep, row_id) if name and name not in found]
    if missing or not found & set(prompt):
        what = ", ".join(missing) or "text or messages"
        option = "" if missing else "; say where the prompts stand with --text-column or --messages-column"
        raise InputError(f"{path}: has no column {what}; it has: {shown_columns(column_names(path))}{option}")
    return Columns(
        text=text if named else "text",
        messages=messages if named else "messages",
        row_id=row_id or ("id" if "id" in found else None),
        keep=keep,
    )


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
    return f"{_file_name(path)}:{row.number}" if value is None or value == "" else str(value)


def _file_name(path: Path) -> str:
    return "stdin" if str(path) == "-" else path.name


def output_types(labels: Sequence[str], keep: Sequence[str]) -> dict[str, Any]:
    """The Arrow type of each output column; None for a kept one, which has the type of its values."""
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
    own = {name: kinds.get(name, pa.float64()) for name in prediction_columns(labels)}
    return {"id": pa.string(), **own, **dict.fromkeys(keep)}


def kept_types(path: Path, keep: Sequence[str]) -> dict[str, Any]:
    """Kept columns of a Parquet file keep their type; those of other files are inferred."""
    schema = parquet_schema(path) if keep and file_kind(path) == "parquet" else None
    return {} if schema is None else {name: schema.field(name).type for name in keep}
