"""Rendering over any value: text or a `PromptError`. `python -m tests.fuzz.render -runs=100000`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from inference.folding import fold
from inference.prompts import PromptError, parse_messages, render

SECRET = "xqzjv"
"""Stands in what is read, and must stand in no message."""


def check_render(value: Any) -> None:
    """Text whose places lead back into the raw prompt, or an error that quotes nothing of it."""
    try:
        rendered = render(value)
    except PromptError as error:
        assert SECRET not in str(error) and len(str(error)) < 200, str(error)
        return
    assert rendered.text.strip()
    rendered.text.encode()  # half surrogate pairs are gone
    check_fold(rendered.raw)
    for start, end in ((0, len(rendered.text)), (0, 0), (len(rendered.text) // 3, len(rendered.text) // 2)):
        low, high = rendered.raw_span(start, end)
        assert 0 <= low <= high <= len(rendered.raw)


def check_fold(text: str) -> None:
    """Folding once is folding for good, and its offsets go up from place to place of the text."""
    folded, offsets = fold(text)
    assert fold(folded)[0] == folded
    if offsets is None:
        assert len(folded) == len(text)
    else:
        assert len(offsets) == len(folded) and (np.diff(offsets) >= 0).all()
        assert not len(offsets) or (offsets[0] >= 0 and offsets[-1] < len(text))


def check_messages(text: str) -> None:
    """Messages as a column holds them, in JSON: they parse to what renders as the same text, or are refused."""
    try:
        turns = parse_messages(text)
    except PromptError as error:
        assert SECRET not in str(error), str(error)
        return
    assert parse_messages(json.dumps(turns)) == turns
    check_render(turns)


class Values:
    """Values that JSON, Parquet and Python could hold in a prompt's place, from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, below: int) -> int:
        self._at += 1
        return self._data[self._at - 1] % below if self._at <= len(self._data) else 0

    def text(self) -> str:
        size = self.number(30)
        part = self._data[self._at : self._at + size]
        self._at += size
        return SECRET + part.decode("utf-8", errors=("replace", "surrogateescape", "ignore")[self.number(3)])

    def value(self, depth: int = 0) -> Any:
        kind = self.number(17 if depth < 5 else 9)
        if kind < 9:
            plain = (None, True, 10**5000, -1, float("nan"), 1.5, self.text().encode(errors="replace"), self.text(), "")
            return plain[kind]
        if kind < 11:
            return [self.value(depth + 1) for _ in range(self.number(4))]
        if kind == 11:
            array = np.empty(self.number(3), dtype=object)
            array[:] = [self.value(depth + 1) for _ in array]
            return array
        if kind == 12:
            return (np.arange(self.number(3)), np.array(self.text()), np.float32(1), np.str_(self.text()))[
                self.number(4)
            ]
        if kind == 13:
            return tuple(self.value(depth + 1) for _ in range(self.number(3)))
        if kind == 14:
            around: list[Any] = [self.message(depth)]
            around.append(around if self.number(2) else around[0])
            around[0]["tool_calls"] = around
            return around
        if kind == 15:
            nested: Any = self.text()
            for _ in range(self.number(256) * 16):
                nested = [nested]
            return nested
        return self.message(depth)

    def message(self, depth: int) -> dict[Any, Any]:
        keys = ("role", "content", "from", "value", "tool_calls", "text", "type", 3, None, "name")
        message: dict[Any, Any] = {"role": "user"} if self.number(2) else {"from": "human"}
        for _ in range(self.number(5)):
            message[keys[self.number(len(keys))]] = self.value(depth + 1)
        return message


def one_input(data: bytes) -> None:
    """What atheris calls."""
    values = Values(data[1:])
    if not data or data[0] % 3 == 0:
        check_render([values.message(0) for _ in range(1 + values.number(3))])
    elif data[0] % 3 == 1:
        check_render(values.value())
    else:
        check_fold(data[1:].decode("utf-8", errors="surrogateescape"))
        check_messages(SECRET * (data[0] % 2) + data[1:].decode("utf-8", errors="replace"))


if __name__ == "__main__":
    from tests.fuzz import run

    run(one_input)
