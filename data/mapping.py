"""From the rows of somebody else's table to records: templates, labels and filters, written in the list of sources.

Templates are Jinja (https://jinja.palletsprojects.com), run in its sandbox; the row's columns are their variables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field, field_validator, model_validator

from inference.job.readers import Row, shown_columns
from inference.prompts import PromptError, parse_messages

from .config import Config
from .reading import to_record
from .records import CATEGORIES, ORGANIC, Fault, Flaw, Record, RecordError, parse_record, quoted

_JINJA = SandboxedEnvironment(undefined=StrictUndefined, finalize=lambda value: "" if value is None else value)
_FIELDS = ("id", "group", "pair", "style", "lang", "origin", "license", "source")

Template = str | list[str]
"""A Jinja template, or several of which each row takes one, by a hash of its content."""


def _check_labels(labels: Sequence[str]) -> None:
    if unknown := [label for label in labels if label not in CATEGORIES]:
        raise ValueError(f"{', '.join(unknown)} is no label; known: {', '.join(CATEGORIES)}, and [] for {ORGANIC}")


class Turn(Config):
    """One chat turn; a turn that comes out empty is left out."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Template


class LabelColumn(Config):
    """Labels that follow from a column."""

    column: str
    values: dict[str, list[str]] = Field(
        description="value of the column → labels; a value that is not named is a fault"
    )

    @field_validator("values", mode="before")
    @classmethod
    def _keys_as_text(cls, values: Any) -> Any:
        """YAML reads 1 and true as what they are; rows are compared as text."""
        return {str(key): labels for key, labels in values.items()} if isinstance(values, dict) else values

    @field_validator("values")
    @classmethod
    def _known_labels(cls, values: dict[str, list[str]]) -> dict[str, list[str]]:
        for labels in values.values():
            _check_labels(labels)
        return values


class RowMapping(Config):
    """How a row becomes a record. Exactly one of `text`, `turns` and `chat` makes the prompt."""

    text: Template | None = Field(None, description="the prompt, as a template")
    turns: list[Turn] | None = Field(None, description="chat turns, each a template")
    chat: str | None = Field(None, description="a column that holds chat turns (role/content or from/value)")
    keep_turns: Literal["request", "first_user", "all"] = Field(
        "request", description="of `chat`: up to the last user turn, or the first user turn alone, or everything"
    )
    system: str | None = Field(None, description="with `chat`: a template for a system turn put before the others")
    labels: list[str] | LabelColumn = Field(description="fixed labels ([] is organic), or a column that says them")
    where: str | None = Field(None, description="a Jinja expression; rows for which it is false are passed over")
    fields: dict[str, Template] = Field({}, description="further fields of the record, each a template")
    weight: float = Field(1.0, gt=0, le=1)
    judged: list[str] | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> RowMapping:
        if sum(value is not None for value in (self.text, self.turns, self.chat)) != 1:
            raise ValueError("give exactly one of text, turns and chat")
        if self.system is not None and self.chat is None:
            raise ValueError("system goes with chat; with turns, write a system turn")
        return self

    @field_validator("labels", "judged")
    @classmethod
    def _known_labels(cls, labels: Any) -> Any:
        if isinstance(labels, list):
            _check_labels(labels)
        return labels

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, fields: dict[str, Template]) -> dict[str, Template]:
        if unknown := sorted(set(fields) - set(_FIELDS)):
            raise ValueError(f"{', '.join(unknown)} is no field of a record; known: {', '.join(_FIELDS)}")
        return fields

    @model_validator(mode="after")
    def _templates_compile(self) -> RowMapping:
        Mapper(self, "check", None)
        return self


class Mapper:
    """Applies one mapping to rows; `filtered` counts those that its filter passed over."""

    def __init__(self, mapping: RowMapping, source: str, license: str | None) -> None:
        self.filtered = 0
        self._mapping = mapping
        self._source = source
        self._license = license
        self._where = _expression(mapping.where) if mapping.where else None
        self._text = _compiled(mapping.text) if mapping.text is not None else None
        self._turns = [(turn.role, _compiled(turn.content)) for turn in mapping.turns or []]
        self._system = _compiled(mapping.system) if mapping.system is not None else None
        self._fields = {name: _compiled(template) for name, template in mapping.fields.items()}

    def records(self, rows: Iterator[Row], place: str) -> Iterator[Record | Fault]:
        """Each row as a record, as its faults, or as nothing where the filter passes it over."""
        for row in rows:
            yield from to_record(row, place, self._record)

    def _record(self, row: Mapping[str, Any]) -> Record | None:
        choice = int(hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:8], 16)
        names = {"row": row, "choice": choice, **row}
        try:
            if self._where is not None and not self._where(names):
                self.filtered += 1
                return None
            values = {name: template(names, choice) for name, template in self._fields.items()}
            prompt = self._prompt(names, choice)
        except RecordError:
            raise
        except UndefinedError as error:
            raise RecordError(
                [Flaw(f"the mapping does not fit the row: {error.message}", mend=f"it has: {shown_columns(row)}")]
            ) from error
        except (
            TemplateError,
            RuntimeError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
        ) as error:
            # The message of such an error can quote a value of the row, and so a prompt.
            raise RecordError([Flaw(f"the mapping fails on the row ({type(error).__name__})")]) from error
        made = {**values, **prompt, "labels": self._labels(row), "weight": self._mapping.weight}
        if self._mapping.judged is not None:
            made["judged"] = self._mapping.judged
        if self._license is not None:
            made.setdefault("license", self._license)
        return parse_record(made, self._source)

    def _prompt(self, names: Mapping[str, Any], choice: int) -> dict[str, Any]:
        if self._text is not None:
            return {"text": self._text(names, choice)}
        if self._mapping.turns is not None:
            turns = [{"role": role, "content": content(names, choice)} for role, content in self._turns]
        else:
            turns = self._chat(names)
            if self._system is not None:
                turns.insert(0, {"role": "system", "content": self._system(names, choice)})
        return {"messages": [turn for turn in turns if turn["content"].strip()]}

    def _chat(self, names: Mapping[str, Any]) -> list[dict[str, str]]:
        column = self._mapping.chat or ""
        if column not in names:
            raise UndefinedError(f"'{column}' is undefined")
        try:
            turns = parse_messages(names[column])
        except PromptError as error:
            raise RecordError([Flaw(f"{column}: {error}", column)]) from error
        users = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
        if self._mapping.keep_turns == "all":
            return turns
        if not users:
            raise RecordError([Flaw(f"{column} has no user turn", column, mend="keep_turns: all keeps such rows")])
        return turns[: users[-1] + 1] if self._mapping.keep_turns == "request" else [turns[users[0]]]

    def _labels(self, row: Mapping[str, Any]) -> list[str]:
        labels = self._mapping.labels
        if isinstance(labels, list):
            return labels
        if labels.column not in row:
            has = f"it has: {shown_columns(row)}"
            raise RecordError([Flaw(f"the row has no column {labels.column} for the labels", labels.column, mend=has)])
        value = row[labels.column]
        found = labels.values.get(str(value))
        if found is None:
            known = ", ".join(labels.values)
            what = f'{labels.column}: the mapping has no label for "{quoted(value)}"'
            raise RecordError([Flaw(what, labels.column, quoted(value), f"it has: {known}; [] is {ORGANIC}")])
        return found


def _compiled(template: Template) -> Callable[[Mapping[str, Any], int], str]:
    sources: Sequence[str] = [template] if isinstance(template, str) else template
    if not sources:
        raise ValueError("a list of templates is empty")
    try:
        ready = [_JINJA.from_string(source) for source in sources]
    except TemplateSyntaxError as error:
        raise ValueError(f"not a Jinja template: {error.message}") from error
    frames = len(ready)

    def render(names: Mapping[str, Any], choice: int) -> str:
        return ready[choice % frames].render(names)

    return render


def _expression(source: str) -> Callable[..., Any]:
    try:
        return _JINJA.compile_expression(source, undefined_to_none=False)
    except TemplateSyntaxError as error:
        raise ValueError(f"where is not a Jinja expression: {error.message}") from error
