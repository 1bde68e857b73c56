"""The record: one labelled prompt, and reading it from files with every fault named."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from inference.job.readers import read_rows
from inference.prompts import PromptError, parse_messages, render_prompt

CATEGORIES = ("reasoning_trace_extraction", "censorship_probing", "capability_sweep")
ORGANIC = "organic"
ORIGINS = ("authored", "composed", "real")
_TEXT_FIELDS = ("id", "source", "group", "pair", "style", "lang", "origin", "license")
_FIELDS = {"text", "messages", "labels", "label", "weight", "judged", *_TEXT_FIELDS}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row is no record. Reasons name fields and values of fields, never the prompt."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class FieldError(ValueError):
    """Faults of one row, all of them."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class Record:
    """One labelled prompt; `text` or `messages` is given, the other is None.

    `labels` empty means organic. `judged` names the categories somebody looked at; the others are unknown, not
    negative. `extra` carries further fields of the row through.
    """

    labels: tuple[str, ...]
    source: str
    text: str | None = None
    messages: list[dict[str, str]] | None = None
    id: str = ""
    weight: float = 1.0
    group: str | None = None
    pair: str | None = None
    judged: tuple[str, ...] = CATEGORIES
    style: str | None = None
    lang: str | None = None
    origin: str | None = None
    license: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str | list[dict[str, str]]:
        """The prompt as the scorer takes it."""
        return self.text if self.text is not None else self.messages or []

    @cached_property
    def rendered(self) -> str:
        """The text that the model reads."""
        return render_prompt(self.prompt)

    @cached_property
    def key(self) -> str:
        """Equal for prompts that read alike: SHA-256 of the rendered text, blind to case and spacing."""
        return hashlib.sha256(" ".join(self.rendered.casefold().split()).encode()).hexdigest()

    @property
    def label_name(self) -> str:
        """The labels as one word for tables."""
        return "+".join(self.labels) or ORGANIC

    def to_row(self) -> dict[str, Any]:
        """The record's own fields and the extra ones, as plain values."""
        row: dict[str, Any] = {
            "id": self.id,
            "text": self.text,
            "messages": self.messages,
            "labels": list(self.labels),
            "weight": self.weight,
            "source": self.source,
            "group": self.group,
            "pair": self.pair,
            "judged": list(self.judged),
            "style": self.style,
            "lang": self.lang,
            "origin": self.origin,
            "license": self.license,
        }
        return row | self.extra


def read_records(paths: Iterable[Path]) -> Iterator[Record | Fault]:
    """Every row of every file, as a record or as the fault(s) that keep it from being one."""
    for path in paths:
        for row in read_rows(path):
            if row.error is not None:
                yield Fault(str(path), row.number, row.error)
                continue
            try:
                yield parse_record(row.values, default_source=path.name.split(".")[0])
            except FieldError as error:
                yield from (Fault(str(path), row.number, reason) for reason in error.reasons)


def load_records(paths: Iterable[Path]) -> tuple[list[Record], list[Fault]]:
    """All records and all faults of the files."""
    records: list[Record] = []
    faults: list[Fault] = []
    for item in read_records(paths):
        if isinstance(item, Record):
            records.append(item)
        else:
            faults.append(item)
    return records, faults


def parse_record(row: Mapping[str, Any], default_source: str) -> Record:
    """A row of a file as a record; a field that is null, or empty as CSV writes null, counts as absent.

    Raises:
        FieldError: with every fault of the row.
    """
    values = {name: value for name, value in row.items() if value is not None and value != ""}
    faults: list[str] = []
    text, messages = _prompt(row, values, faults)
    labels = _labels(values, faults)
    texts = {name: _text(name, values, faults) for name in _TEXT_FIELDS}
    if texts["origin"] is not None and texts["origin"] not in ORIGINS:
        faults.append(f'origin "{texts["origin"]}" is unknown; known: {", ".join(ORIGINS)}')
    judged = _categories("judged", values["judged"], faults) if "judged" in values else CATEGORIES
    if unjudged := [label for label in labels if label not in judged]:
        faults.append(f"judged lacks {', '.join(unjudged)}, which labels holds; add it to judged")
    weight = _weight(values, faults)
    extra = {name: value for name, value in row.items() if name not in _FIELDS}
    if faults:
        raise FieldError(faults)
    record = Record(
        labels=labels,
        source=texts.pop("source") or default_source,
        text=text,
        messages=messages,
        weight=weight,
        judged=judged,
        extra=extra,
        **{name: value or "" if name == "id" else value for name, value in texts.items()},  # type: ignore[arg-type]
    )
    return record if record.id else _with_id(record)


def _with_id(record: Record) -> Record:
    content = json.dumps([record.rendered, record.labels, record.source], ensure_ascii=False)
    digest = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]
    return Record(**{**{name: getattr(record, name) for name in Record.__dataclass_fields__}, "id": digest})


def _prompt(
    row: Mapping[str, Any], values: Mapping[str, Any], faults: list[str]
) -> tuple[str | None, list[dict[str, str]] | None]:
    given = [name for name in ("text", "messages") if name in values]
    if len(given) != 1:
        if given:
            faults.append("has both text and messages; keep one")
        else:
            stands = next((name for name in ("text", "messages") if name in row), None)
            faults.append(f"{stands} is empty" if stands else "has neither text nor messages")
        return None, None
    try:
        if given == ["messages"]:
            turns = parse_messages(values["messages"])
            render_prompt(turns)
            return None, turns
        text = values["text"]
        if not isinstance(text, str):
            raise PromptError(f"a {type(text).__name__}, not text")
        render_prompt(text)
        return text.encode("utf-8", "replace").decode("utf-8"), None
    except PromptError as error:
        faults.append(f"{given[0]}: {error}")
        return None, None


def _labels(values: Mapping[str, Any], faults: list[str]) -> tuple[str, ...]:
    given = [name for name in ("labels", "label") if name in values]
    if len(given) == 2:
        faults.append("has both labels and label; keep one")
        return ()
    if not given:
        faults.append("has no labels; write [] for an organic prompt")
        return ()
    return _categories(given[0], values[given[0]], faults)


def _categories(name: str, value: Any, faults: list[str]) -> tuple[str, ...]:
    """Category names as a list, as JSON text, or a single name; `organic` is the empty list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            faults.append(f"{name} is not a list of category names")
            return ()
    if isinstance(value, str):
        value = [] if value == ORGANIC else [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        faults.append(f"{name} is not a list of category names")
        return ()
    for item in value:
        if item not in CATEGORIES:
            near = get_close_matches(item, CATEGORIES, 1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(CATEGORIES)}"
            faults.append(f'{name}: "{item[:60]}" is unknown{hint}')
    return tuple(category for category in CATEGORIES if category in value)


def _text(name: str, values: Mapping[str, Any], faults: list[str]) -> str | None:
    value = values.get(name)
    if value is None or isinstance(value, str):
        return value
    if name in ("id", "group", "pair") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    faults.append(f"{name} is not text")
    return None


def _weight(values: Mapping[str, Any], faults: list[str]) -> float:
    try:
        weight = float(values.get("weight", 1.0))
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 < weight <= 1:
        faults.append("weight is not a number over 0 and up to 1")
    return weight
