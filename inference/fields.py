"""Reading JSON that may be hostile: strict, of bounded size, and every fault an `ArtefactError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DEPTH = 50
_LIMIT = 1 << 24


class ArtefactError(ValueError):
    """An artefact that cannot be read or written: file, field, and what to do about it."""


def read_json(path: Path, limit: int = _LIMIT) -> Any:
    """The content of a JSON file of at most `limit` bytes. A key that stands twice, NaN and Infinity are refused.

    Raises:
        ArtefactError: it cannot be read, is too large or is not such JSON.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror or error}); restore the file") from error
    if len(data) > limit:
        raise ArtefactError(f"{path}: is over {limit >> 20} MiB; train again or restore the file")
    try:
        return parse_json(data)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not valid JSON ({_why(error)}); train again or restore the file") from error


def parse_json(data: bytes) -> Any:
    """Parse strict JSON; a fault is a `ValueError`, or a `RecursionError` where it is nested too deep."""
    return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)


def read_object(path: Path) -> Fields:
    """The fields of a JSON file that holds an object of bounded depth, all of which can be written as JSON again.

    Raises:
        ArtefactError: it is no such file.
    """
    content = read_json(path)
    level = [content]
    for _ in range(_DEPTH):
        level = [item for part in level for item in _inside(part)]
    try:
        if level:
            raise ValueError(f"nested deeper than {_DEPTH} levels")
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # finds 1e999 and half surrogate pairs
    except ValueError as error:
        raise ArtefactError(f"{path}: not valid JSON ({_why(error)}); train again or restore the file") from error
    return Fields(path, content)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice")
    return content


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _why(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:80]


def _shown(name: str) -> str:
    return name[:120] if name.isprintable() else ascii(name[:120])


class Fields:
    """Typed access to parsed JSON; a fault names the file and the dotted field."""

    def __init__(self, path: Path, content: Any, prefix: str = "") -> None:
        if not isinstance(content, dict):
            what = _shown(prefix.removesuffix(".")) or "the file"
            raise ArtefactError(f"{path}: {what} must be an object; train again or restore the file")
        self._path, self._content, self._prefix = path, content, prefix

    def __contains__(self, name: str) -> bool:
        return self._content.get(name) is not None

    def fault(self, name: str, why: str) -> ArtefactError:
        """The error that says `why` of the field `name`."""
        return ArtefactError(f"{self._path}: {_shown(self._prefix + name)} {why}; train again or restore the file")

    def value(self, name: str, kind: type | tuple[type, ...], ok: Callable[[Any], bool] = lambda _: True) -> Any:
        """The field, if it is of the kind and `ok` holds of it."""
        if name not in self._content:
            raise self.fault(name, "is missing")
        value = self._content[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not ok(value):
            raise self.fault(name, f"has a value that cannot be ({str(value)[:40]!r})")
        return value

    def number(self, name: str, low: float = -1e6, high: float = 1e6) -> float:
        """A number from `low` to `high`."""
        return float(self.value(name, (int, float), lambda v: low <= v <= high))

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return int(self.value(name, int, lambda v: low <= v <= high))

    def inside(self, name: str) -> Fields:
        """The fields of the object in the field `name`."""
        return Fields(self._path, self.value(name, dict), f"{self._prefix}{name}.")

    def each(self, name: str) -> list[Fields]:
        """The fields of each object in the list in the field `name`."""
        return [
            Fields(self._path, item, f"{self._prefix}{name}[{i}].") for i, item in enumerate(self.value(name, list))
        ]

    def names(self) -> list[str]:
        """The names of all fields."""
        return list(self._content)

    def content(self) -> dict[str, Any]:
        """All fields as they stand."""
        return dict(self._content)
