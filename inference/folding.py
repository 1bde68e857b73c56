"""Unicode folding: text as the model reads it, with the way back to the raw characters.

People who want to hide a prompt from a classifier write it in full-width letters, with zero-width characters
between, with Cyrillic look-alikes or in invisible tag characters. Folding undoes these, and only these: it leaves
real Russian, Greek, Persian or emoji text readable. It is part of what the model was trained on, so a change here
needs a new `prompts.RENDER_VERSION`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import groupby

import numpy as np

# Line separators of all kinds become \n. Control characters and characters that show nothing (soft hyphen,
# zero-width, bidirectional controls, variation selectors, Hangul fillers) are dropped. Tag characters spell
# ASCII invisibly: they are decoded.
_SPECIAL = re.compile(
    "\r\n?|[\x0b\x0c\x85\u2028\u2029]"
    "|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    "|[\ud800-\udfff\u2800]"
)
_ASCII_SPECIAL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")  # what of it is ASCII: several times faster to look for
_NON_ASCII_RUN = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")

# Letters of other scripts that look like a Latin letter in common fonts. Chosen by eye for this project.
_LOOKALIKES = str.maketrans(
    "асеорхуіјѕһԁԛԝӏАВСЕНІЈКМОРЅТХУҮαινορτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧօսհոɑɡ",
    "aceopxyijshdqwlABCEHIJKMOPSTXYYaivoptuxABEZHIKMNOPTYXouhnag",
)
_LOOKALIKE = re.compile("[" + "".join(map(chr, _LOOKALIKES)) + "]")
_WORD = re.compile(r"\w+")
_LATIN = re.compile("[A-Za-z]")
_FEW = 64  # characters

Offsets = np.ndarray | None
"""For each character of the folded text the index of its raw character; None where each has kept its place."""


def fold(text: str) -> tuple[str, Offsets]:
    """Fold `text` for the model.

    Returns the folded text and its offsets into `text`. Folding what is folded changes nothing: each round is
    repeated until it finds nothing to do (two rounds nearly always; dropping a character can bring two others
    together that then compose).
    """
    if text.isascii() and not _ASCII_SPECIAL.search(text):
        return text, None
    offsets: Offsets = None
    for _ in range(8):
        before = text
        text, offsets = _substitute(_SPECIAL, _special, text, offsets)
        if not unicodedata.is_normalized("NFKC", text):
            text, offsets = _substitute(_NON_ASCII_RUN, _compose, text, offsets)
        text = _unmix(text)
        if text == before:
            break
    return text, offsets


def _special(run: str) -> list[tuple[int, str]]:
    char = run[-1]
    code = ord(char)
    if char in "\r\n\x0b\x0c\x85\u2028\u2029":
        return [(0, "\n")]
    if 0xD800 <= code <= 0xDFFF:
        return [(0, "\ufffd")]
    if code == 0x2800:  # braille blank
        return [(0, " ")]
    if 0xE0020 <= code <= 0xE007E:
        return [(0, chr(code - 0xE0000))]
    return []


def _compose(run: str) -> list[tuple[int, str]]:
    """NFKC of a run, cut where no composition can reach across, so that each piece keeps its place."""
    if unicodedata.is_normalized("NFKC", run):
        return [(i, char) for i, char in enumerate(run)]
    starts = [i for i, char in enumerate(run) if i == 0 or not _attaches(char)]
    return [(start, _normalize(run[start:end])) for start, end in zip(starts, [*starts[1:], len(run)], strict=True)]


def _normalize(text: str) -> str:
    """NFKC in linear time. The library sorts marks by exchanging neighbours: a million of them would take hours."""
    if len(text) > _FEW:
        apart = "".join(unicodedata.normalize("NFKD", char) for char in text)
        text = "".join(
            "".join(sorted(chars, key=unicodedata.combining) if are_marks else chars)
            for are_marks, chars in groupby(apart, key=lambda char: unicodedata.combining(char) > 0)
        )
    return unicodedata.normalize("NFKC", text)


def _attaches(char: str) -> bool:
    """Whether `char` may compose with the character before it (marks, Hangul vowels and finals, kana voicing)."""
    return (
        unicodedata.category(char)[0] == "M"
        or "\u1160" <= char <= "\u11ff"
        or char in "\uff9e\uff9f"
        or "\uffa1" <= char <= "\uffdc"
        or "\u3131" <= char <= "\u318e"
    )


def _unmix(text: str) -> str:
    """Replace look-alikes by Latin letters inside words that also hold Latin letters; one character for one."""
    if text.isascii() or not _LOOKALIKE.search(text):
        return text
    return _WORD.sub(lambda m: m[0].translate(_LOOKALIKES) if _LATIN.search(m[0]) else m[0], text)


def _substitute(
    pattern: re.Pattern[str], replace: Callable[[str], list[tuple[int, str]]], text: str, offsets: Offsets
) -> tuple[str, Offsets]:
    """Replace every match by the pieces `replace` gives, each with its place inside the match."""
    pieces: list[str] = []
    places: list[int] = []
    position = 0
    for match in pattern.finditer(text):
        start, end = match.span()
        pieces.append(text[position:start])
        places.extend(range(position, start))
        for place, piece in replace(match[0]):
            pieces.append(piece)
            places.extend([start + place] * len(piece))
        position = end
    if position == 0:
        return text, offsets
    pieces.append(text[position:])
    places.extend(range(position, len(text)))
    here = np.asarray(places, dtype=np.int64)
    return "".join(pieces), here if offsets is None else offsets[here]
