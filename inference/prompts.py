"""How a prompt becomes text: the one owner of that, in training and in scoring.

A prompt is a string, or a list of chat messages `{"role": …, "content": …}`. Messages become one text in which
role turns stay visible; a lone user message reads exactly like the plain string, since both are the same request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .folding import Offsets, fold

RENDER_VERSION = 1
"""Stands in every artefact: a scorer refuses an artefact that was trained on another rendering."""

_EXPORT_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Who speaks in chat exports that write `from` and `value`."""

Prompt = str | Sequence[Mapping[str, Any]]


class PromptError(ValueError):
    """A prompt that cannot be scored; the message says why and never quotes the prompt."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text.

    `text` is folded, for the tokenizer; `raw` is the same before folding (for a plain string: that string), and
    character spans shown to people refer to it.
    """

    text: str
    raw: str
    offsets: Offsets

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """The span of `raw` that the characters `start` to `end` of `text` came from."""
        if self.offsets is None:
            return start, end
        if start >= end:
            return (int(self.offsets[start]), int(self.offsets[start])) if start < len(self.offsets) else (0, 0)
        last = int(self.offsets[end]) if end < len(self.offsets) else len(self.raw)
        return int(self.offsets[start]), max(last, int(self.offsets[end - 1]) + 1)


def render(prompt: Any) -> Rendered:
    """Render a prompt with the way back to its raw characters.

    Raises:
        PromptError: it is neither a string nor a list of messages, or it holds no visible text.
    """
    raw = prompt if isinstance(prompt, str) else _join(normalise_messages(prompt))
    text, offsets = fold(raw)
    if not text.strip():
        raise PromptError("the prompt is empty")
    return Rendered(text, raw, offsets)


def render_prompt(prompt: Any) -> str:
    """The text that the model reads for `prompt` (a string or a list of messages)."""
    return render(prompt).text


def parse_messages(value: Any) -> list[dict[str, str]]:
    """Messages as a column holds them: a list, or JSON text, as CSV files must write it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise PromptError("the messages are not valid JSON") from error
    return normalise_messages(value)


def normalise_messages(messages: Any) -> list[dict[str, str]]:
    """Messages as a list of `{"role": str, "content": str}`.

    Content parts are joined; a part that is no text becomes a marker such as `[image_url]`; tool calls follow the
    content as JSON. Chat exports that write `from` and `value` for `role` and `content` are read as well.

    Raises:
        PromptError: it is no list of messages, or a message has no role or content.
    """
    if isinstance(messages, np.ndarray):
        messages = messages.tolist()
    if messages is None:
        raise PromptError("the prompt is null")
    if isinstance(messages, bool | int | float):
        raise PromptError("the prompt is a number, not text")
    if isinstance(messages, bytes | str | Mapping) or not isinstance(messages, Sequence):
        raise PromptError(f"the prompt is {_kind(messages)}, not text or a list of messages")
    if not messages:
        raise PromptError("the prompt is empty")
    turns = [_turn(number, message) for number, message in enumerate(messages)]
    if not any(turn["content"].strip() for turn in turns):
        raise PromptError("the prompt is empty")
    return turns


def _turn(number: int, message: Any) -> dict[str, str]:
    where = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise PromptError(f"{where} is {_kind(message)}, not an object with role and content")
    is_export = message.get("role") is None and message.get("from") is not None
    role = message.get("from" if is_export else "role")
    if not isinstance(role, str) or not role.strip():
        raise PromptError(f"{where} has no role")
    role = role.strip().lower()
    role = _EXPORT_ROLES.get(role, role) if is_export else role
    name = "value" if is_export and message.get("content") is None else "content"
    calls = message.get("tool_calls")
    if isinstance(calls, np.ndarray):
        calls = calls.tolist()
    if name not in message and not calls:
        raise PromptError(f"{where} has no content")
    parts = [_content(where, message.get(name))]
    if calls:
        parts.append(_as_json(where, calls))
    return {"role": role, "content": "\n".join(part for part in parts if part)}


def _content(where: str, content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, np.ndarray):
        content = content.tolist()
    if not isinstance(content, list | tuple):
        raise PromptError(f"{where}.content is {_kind(content)}, not text or a list of parts")
    return "\n".join(_part(where, part) for part in content)


def _part(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        text = part.get("text")
        return text if isinstance(text, str) else _marker(where, part.get("type", "part"))
    raise PromptError(f"{where}.content holds {_kind(part)}, not a part")


def _join(turns: list[dict[str, str]]) -> str:
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}:\n{turn['content']}" for turn in turns)


def _marker(where: str, kind: Any) -> str:
    try:
        return f"[{kind}]"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or a list in a list in a list …
        raise PromptError(f"{where}.content holds a part whose type cannot be written") from error


def _as_json(where: str, value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError) as error:  # it holds itself, say, or has a key that is no text
        raise PromptError(f"{where}.tool_calls cannot be written as JSON") from error


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "text", bytes: "bytes", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
