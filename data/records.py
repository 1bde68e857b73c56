"""The record: one labelled prompt, in all the forms that files write it, and every fault of a row."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from inference.job.readers import shown_columns
from inference.job.writers import without_surrogates
from inference.prompts import PromptError, parse_messages, render_prompt

CATEGORIES = ("reasoning_trace_extraction", "censorship_probing", "capability_sweep")
ORGANIC = "organic"
HARD_NEGATIVES = (
    "homework_show_work",
    "talk_about_reasoning",
    "think_first_product",
    "prompt_engineering_help",
    "sensitive_question",
    "journalism_and_study",
    "moderation_product",
    "teacher_quiz_and_grading",
    "interview_practice",
    "agent_product",
    "extraction_product",
    "own_eval_and_ci",
    "expert_role_request",
    "creative_with_rules",
    "client_scaffolding",
)
"""Styles of organic prompts that wear the surface of a category."""
ORIGINS = ("authored", "composed", "real")
CHAT_FIELDS = ("messages", "conversations", "conversation")
_TEXT_FIELDS = ("id", "source", "group", "pair", "style", "lang", "origin", "license")
_FIELDS = {"text", *CHAT_FIELDS, "labels", "label", "weight", "judged", *_TEXT_FIELDS}
_KNOWN = f"known: {', '.join((*CATEGORIES, ORGANIC))}"


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with one field of a row. The value of a prompt is never quoted."""

    problem: str
    field: str | None = None
    value: str | None = None
    mend: str | None = None

    def __str__(self) -> str:
        found = f" (found: {self.value})" if self.value is not None and self.value not in self.problem else ""
        return self.problem + found + (f"; {self.mend}" if self.mend else "")


@dataclass(frozen=True, slots=True)
class Fault:
    """A flaw and where it stands; without a line it is the whole file's."""

    file: str
    line: int | None
    flaw: Flaw

    def __str__(self) -> str:
        return f"{self.file}: {self.flaw}" if self.line is None else f"{self.file}:{self.line}: {self.flaw}"

    def to_json(self) -> dict[str, Any]:
        """As `check --format json` prints it."""
        return {
            "file": self.file,
            "line": self.line,
            "field": self.flaw.field,
            "value": self.flaw.value,
            "problem": self.flaw.problem,
            "mend": self.flaw.mend,
        }


class RecordError(ValueError):
    """A row that is no record; `flaws` are all that is wrong with it."""

    def __init__(self, flaws: list[Flaw]) -> None:
        super().__init__("; ".join(map(str, flaws)))
        self.flaws = flaws


class _Flaws(list[Flaw]):
    def found(self, problem: str, field: str | None = None, value: Any = None, mend: str | None = None) -> None:
        self.append(Flaw(problem, field, None if value is None else quoted(value), mend))


def quoted(value: Any) -> str:
    """A field's value as an error shows it, at most 60 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


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
        """Equal for prompts that read alike: see `prompt_key`."""
        return prompt_key(self.rendered)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The categories, or `organic`."""
        return self.labels or (ORGANIC,)

    def changed(self, **fields: Any) -> Record:
        """The same prompt with other values in some fields; it is not rendered again."""
        other = replace(self, **fields)
        other.__dict__.update({name: self.__dict__[name] for name in ("rendered", "key") if name in self.__dict__})
        return other

    def agrees_with(self, other: Record) -> bool:
        """Whether the labels of two records are the same in every category that was judged in both."""
        return not any((name in self.labels) != (name in other.labels) for name in self.judged if name in other.judged)

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


def prompt_key(rendered: str) -> str:
    """Equal for prompts that read alike: SHA-256 of the rendered text, blind to case and spacing."""
    return hashlib.sha256(" ".join(rendered.casefold().split()).encode("utf-8", "surrogatepass")).hexdigest()


def parse_record(row: Mapping[str, Any], default_source: str) -> Record:
    """A row of a file as a record; a field that is null, or empty as CSV writes null, counts as absent.

    Accepted forms: `labels` or `label` as a list, as JSON text, as names joined by comma, semicolon or bar, or one
    name; chat messages under `messages`, `conversations` or `conversation`, as a list or JSON text, with
    `role`/`content` or `from`/`value`.

    Raises:
        RecordError: with every flaw of the row.
    """
    values = {name: value for name, value in row.items() if value is not None and value != ""}
    values = {name: value for name, value in values.items() if name not in CHAT_FIELDS or value not in ([], "[]")}
    flaws = _Flaws()
    prompt, messages, rendered = _prompt(row, values, flaws)
    labels = _labels(values, flaws)
    texts = {name: _text(name, values, flaws) for name in _TEXT_FIELDS}
    if texts["origin"] is not None and texts["origin"] not in ORIGINS:
        origin = texts["origin"]
        flaws.found(f'origin "{quoted(origin)}" is unknown', "origin", origin, f"known: {', '.join(ORIGINS)}")
    judged = _categories("judged", values["judged"], flaws) if "judged" in values else CATEGORIES
    if unjudged := [label for label in labels if label not in judged]:
        missing = ", ".join(unjudged)
        flaws.found(f"judged lacks {missing}, which labels holds", "judged", values["judged"], "add it to judged")
    weight = _weight(values, flaws)
    if flaws:
        raise RecordError(flaws)
    record = Record(
        labels=labels,
        source=texts.pop("source") or default_source,
        text=prompt,
        messages=messages,
        weight=weight,
        judged=judged,
        extra={name: without_surrogates(value) for name, value in row.items() if name not in _FIELDS},
        **{name: value or "" if name == "id" else value for name, value in texts.items()},  # type: ignore[arg-type]
    )
    record.__dict__["rendered"] = rendered  # rendering is the costliest part of reading: it is done once
    return record if record.id else _with_id(record)


def _with_id(record: Record) -> Record:
    content = json.dumps([record.rendered, record.labels, record.source], ensure_ascii=False)
    return record.changed(id=hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16])


def _prompt(
    row: Mapping[str, Any], values: Mapping[str, Any], flaws: _Flaws
) -> tuple[str | None, list[dict[str, str]] | None, str]:
    """Text or messages, and how they are rendered."""
    given = [name for name in ("text", *CHAT_FIELDS) if name in values]
    if len(given) != 1:
        if given:
            flaws.found(f"has both {given[0]} and {given[1]}", given[1], mend="keep one")
        else:
            stands = next((name for name in ("text", *CHAT_FIELDS) if name in row), None)
            mend = "give the prompt as text or as messages, or leave the row out"
            problem = f"{stands} is empty" if stands else f"has neither text nor messages, but {shown_columns(row)}"
            flaws.found(problem, stands, mend=mend)
        return None, None, ""
    name = given[0]
    try:
        if name != "text":
            turns = without_surrogates(parse_messages(values[name]))
            return None, turns, render_prompt(turns)
        text = values["text"]
        if not isinstance(text, str):
            raise PromptError(f"a {type(text).__name__}, not text")
        clean: str = without_surrogates(text)
        return clean, None, render_prompt(clean)
    except PromptError as error:
        as_turns = 'write a list of {"role": …, "content": …} objects, in CSV as JSON'
        form = "leave the row out" if name == "text" else as_turns
        flaws.found(f"{name}: {error}", name, mend=form)
        return None, None, ""


def _labels(values: Mapping[str, Any], flaws: _Flaws) -> tuple[str, ...]:
    given = [name for name in ("labels", "label") if name in values]
    if len(given) == 2:
        flaws.found("has both labels and label", "label", values["label"], "keep one")
        return ()
    if not given:
        flaws.found("has no labels", "labels", mend="write [] for an organic prompt")
        return ()
    return _categories(given[0], values[given[0]], flaws)


def _categories(name: str, value: Any, flaws: _Flaws) -> tuple[str, ...]:
    given = _names(value)
    if given is None:
        mend = f"write a list such as {json.dumps(list(CATEGORIES[:1]))}, or [] for organic"
        if isinstance(value, int):
            mend += "; a list of sources maps numbers to names (labels: {column: …, values: {…}})"
        flaws.found(f"{name} is not a list of category names", name, value, mend)
        return ()
    if ORGANIC in given and len(given) > 1:
        flaws.found(f"{name} has {ORGANIC} beside a category", name, value, "keep one of the two")
    for item in given:
        if item not in CATEGORIES and item != ORGANIC:
            near = get_close_matches(item.casefold().replace(" ", "_").replace("-", "_"), (*CATEGORIES, ORGANIC), 1)
            mend = f'did you mean "{near[0]}"?' if near else _KNOWN
            flaws.found(f'{name}: "{quoted(item)}" is unknown', name, item, mend)
    return tuple(category for category in CATEGORIES if category in given)


def _names(value: Any) -> list[str] | None:
    """Category names out of a list, JSON text, a printed Python list, or names joined by comma, semicolon or bar."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            try:
                value = ast.literal_eval(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return None
    if isinstance(value, str):
        return [part.strip() for part in re.split("[,;|]", value) if part.strip()] or None
    if isinstance(value, tuple | list) and all(isinstance(item, str) for item in value):
        return list(value)
    return None


def _text(name: str, values: Mapping[str, Any], flaws: _Flaws) -> str | None:
    value = values.get(name)
    if value is None or isinstance(value, str):
        return None if value is None else without_surrogates(value)
    if name in ("id", "group", "pair") and isinstance(value, int | float) and not isinstance(value, bool):
        # A column of whole numbers with gaps comes out of a table library as floats.
        return str(int(value)) if float(value).is_integer() else str(value)
    flaws.found(f"{name} is not text", name, value, "write it as a string")
    return None


def _weight(values: Mapping[str, Any], flaws: _Flaws) -> float:
    try:
        weight = float(values.get("weight", 1.0))
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 < weight <= 1:
        flaws.found("weight is not a number over 0 and up to 1", "weight", values.get("weight"), "1 is a sure label")
    return weight
