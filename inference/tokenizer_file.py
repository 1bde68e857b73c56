"""An artefact's tokenizer, checked before the library opens it: an artefact may come from anybody.

A `tokenizer.json` can make the library stop the program (a broken table of normalisation), take hours (a regular
expression that backtracks) or fill the memory (replacements that double the text, one after the other). It is held to
what tokenizers of encoders are made of, within limits that leave reading a prompt about linear in its length.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .fields import ArtefactError, Fields, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROBE = "The word, 1 234! Ünïcöde ﬁ 中文 かな 한국 русский עברית العربية हिन्दी 🙂 \ue000 \U0010fffd"
"""A text that holds something of everything, and characters that no vocabulary has."""

_MOST_BYTES = 1 << 27
_MOST_STEPS = 64
_LONGEST_PIECE = {"Unigram": 128, "BPE": 1024, "WordPiece": 1024, "WordLevel": 1024}
"""In characters, by the kind of model; reading a text takes its length times that of the longest piece in the first."""
_LONGEST_WORD = 200
_MOST_GROWTH = 8

_NORMALIZERS = frozenset(
    """BertNormalizer ByteLevel Lowercase NFC NFD NFKC NFKD Nmt Precompiled Prepend Replace Sequence Strip
    StripAccents""".split()  # noqa: SIM905
)
_PRE_TOKENIZERS = frozenset(
    """BertPreTokenizer ByteLevel CharDelimiterSplit Digits Metaspace Punctuation Sequence Split UnicodeScripts
    Whitespace WhitespaceSplit""".split()  # noqa: SIM905
)

_ATOM = r"(?:\\[pP]\{\^?\w+\}|\\[sSdDwWnrt]|\\[^\w\s]|\[\^?(?:[^][\\&]|\\[pP]\{\^?\w+\}|\\[^pP])+\]|[^]\\[(){}*+?|^$.])"
_MANY = r"(?:[?*+]|\{\d\d?(?:,\d{0,2})?\})"
_ONE = rf"{_ATOM}*(?:{_ATOM}\?{_ATOM}*)?{_ATOM}{_MANY}?"
_STEADY = re.compile(rf"{_ONE}(?:\|{_ONE})*")
"""Alternatives of single characters, the last of which may repeat without end: nothing to backtrack over."""

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_KNOWN = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    *(
        rf"{_ENGLISH}|{_START}\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
        for numbers in (r"\p{N}", r"\p{N}{1,3}")
    ),
    rf"{_START}{_UPPER}*{_LOWER}+{_ENGLISH}?|{_START}{_UPPER}+{_LOWER}*{_ENGLISH}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
}
"""Expressions of wide-spread tokenizers that may backtrack, and yet take linear time as a whole."""


def open_tokenizer(path: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer in `tokenizer.json`, whose numbers of tokens are all below `vocabulary`.

    Raises:
        ArtefactError: it is broken, or could make the library stop or take without bounds.
    """
    from tokenizers import Tokenizer

    fields = Fields(path, read_json(path, _MOST_BYTES))
    _check_model(fields.inside("model"), vocabulary)
    _check_steps(fields, "normalizer", "normalizers", _NORMALIZERS)
    _check_steps(fields, "pre_tokenizer", "pretokenizers", _PRE_TOKENIZERS)
    if "added_tokens" in fields:
        fields.value("added_tokens", list, lambda tokens: all(map(_is_token, tokens)))
    with _faults_of_the_library(path):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        numbers = [*tokenizer.get_added_tokens_decoder(), *tokenizer.encode(PROBE, add_special_tokens=True).ids]
        text = tokenizer.encode(PROBE, add_special_tokens=False).ids
    if max(numbers, default=0) >= vocabulary:
        raise fields.fault("added_tokens", f"number tokens that the network's {vocabulary:,} rows do not have")
    if not text:
        raise fields.fault("post_processor", "leaves nothing of a text")
    return tokenizer


@contextmanager
def _faults_of_the_library(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ArtefactError(
            f"{path}: no tokenizer that can be opened ({str(error)[:200]}); train again or restore the file"
        ) from error


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str) and 0 < len(value["content"]) <= 1024


def _check_model(model: Fields, vocabulary: int) -> None:
    kind = model.value("type", str, _LONGEST_PIECE.__contains__)
    if kind == "Unigram":
        entries = model.value("vocab", list, lambda v: all(map(_is_scored, v)))
        pieces, highest = [entry[0] for entry in entries], len(entries) - 1
        model.integer("unk_id", 0, highest)
    else:
        numbered = model.value("vocab", dict, lambda v: all(type(n) is int and n >= 0 for n in v.values()))
        pieces, highest = list(numbered), max(numbered.values(), default=0)
        if kind != "BPE" or "unk_token" in model:
            model.value("unk_token", str, numbered.__contains__)
    if not pieces or highest >= vocabulary:
        raise model.fault(
            "vocab", f"has {len(pieces):,} pieces up to number {highest:,}; the network knows {vocabulary:,}"
        )
    if max(map(len, pieces)) > _LONGEST_PIECE[kind]:
        raise model.fault("vocab", f"has a piece of over {_LONGEST_PIECE[kind]:,} characters")
    if kind == "WordPiece":
        model.integer("max_input_chars_per_word", 1, _LONGEST_WORD)
    if "dropout" in model:
        model.number("dropout", 0, 0)


def _is_scored(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        return False
    return type(entry[1]) in (int, float) and abs(entry[1]) < 1e9


def _check_steps(fields: Fields, name: str, plural: str, known: frozenset[str]) -> None:
    """Check a chain of steps, each of which reads what the one before left of the text."""
    if name not in fields:
        return
    waiting, steps, growth = [fields.inside(name)], 0, 1
    while waiting:
        step = waiting.pop()
        steps += 1
        kind = step.value("type", str, known.__contains__)
        if kind == "Sequence":
            waiting += step.each(plural)
        elif kind == "Precompiled":
            _check_charsmap(step)
        elif kind == "Prepend":
            step.value("prepend", str, lambda text: len(text) <= _MOST_GROWTH)
        elif kind == "Replace":
            growth *= max(1, len(step.value("content", str)))
        if kind in ("Replace", "Split"):
            _check_pattern(step.inside("pattern"))
    if steps > _MOST_STEPS or growth > _MOST_GROWTH:
        raise fields.fault(name, f"has over {_MOST_STEPS} steps, or lets a text grow over {_MOST_GROWTH} times")


def _check_pattern(pattern: Fields) -> None:
    if "Regex" in pattern:
        regex = pattern.value("Regex", str)
        if len(regex) > 1000 or (regex not in _KNOWN and not _STEADY.fullmatch(regex)):
            raise pattern.fault("Regex", f"is none that surely ends soon ({regex[:80]!r})")


def _check_charsmap(step: Fields) -> None:
    """Check SentencePiece's table of normalisation: a trie as a double array, then texts that end in a zero byte.

    The library follows the trie without looking whether it leads out of the array, or out of the texts.
    """
    name = "precompiled_charsmap"
    try:
        data = base64.b64decode(step.value(name, str), validate=True)
        size = int.from_bytes(data[:4], "little")
        texts = data[4 + size :]
        longest = max(map(len, texts.decode("utf-8").split("\0")))
    except (ValueError, binascii.Error) as error:
        raise step.fault(name, "is broken") from error
    units = np.frombuffer(data[4 : 4 + size][: size // 4 * 4], dtype="<u4").astype(np.int64)
    if not 0 < len(units) == size / 4 or longest > 64:
        raise step.fault(name, "is broken")
    branches = np.union1d([0], np.flatnonzero(units < 1 << 31))
    found = units[branches]
    below = branches ^ ((found >> 10) << ((found & 0x200) >> 6))
    leaves = below[(found & 0x100) > 0]
    if (below | 0xFF).max() >= len(units):
        raise step.fault(name, "is broken")
    starts = units[leaves] & 0x7FFFFFFF
    if starts.max(initial=0) >= len(texts) or any(texts[start] & 0xC0 == 0x80 for start in starts):
        raise step.fault(name, "is broken")
