"""An explanation: what words and windows did to a category's logit, and how it is shown in a terminal and on a page."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .decision import DISTILLATION, Prediction

SHOWN = 2000
"""Characters that are shown of a longer prompt, around its strongest window."""

# What a terminal would obey or a page may not hold: control characters, direction marks, lone surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


@dataclass(frozen=True, slots=True)
class TokenEffect:
    """How far a word (a token, in scripts without spaces) raised the logit.

    `start` and `end` are characters of `Explanation.text`, as in `Prediction.top_window`: of the prompt as it was
    given where that is a string, and of the rendered text, before folding, where it is a chat.
    """

    start: int
    end: int
    effect: float


@dataclass(frozen=True, slots=True)
class WindowEffect:
    """One window: its characters, as in `TokenEffect`, and what its words did in it.

    `score` is the logit of this window alone, `share` (0 to 1, together 1) its weight in the prompt's pooled logit.
    """

    start: int
    end: int
    score: float
    share: float
    tokens: tuple[TokenEffect, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why `category` (a label of the artefact, or `distillation`) got its score.

    `logit` is the prompt's pooled logit before calibration, `baseline` the same with pad tokens for the text, and
    `delta` by how much the effects miss `logit - baseline`. `tokens` are all words that were read, in order, what each
    did in several windows added up.
    """

    category: str
    text: str
    prediction: Prediction
    operating_point: str
    logit: float
    baseline: float
    delta: float
    windows: tuple[WindowEffect, ...]
    tokens: tuple[TokenEffect, ...]

    @property
    def probability(self) -> float:
        """The calibrated probability of `category`."""
        return (self.prediction.scores | {DISTILLATION: self.prediction.distillation})[self.category]

    @property
    def scale(self) -> float:
        """The effect that gets full colour: the greatest, but no mere tenth of a logit."""
        return max([0.1, *(abs(token.effect) for token in self.tokens)])

    def words(self) -> list[tuple[str, float, int]]:
        """Each different word with what it did in all places together and their number, the highest effect first."""
        places: dict[str, list[float]] = defaultdict(list)
        for token in self.tokens:
            places[printable(self.text[token.start : token.end])].append(token.effect)
        found = [(word, sum(effects), len(effects)) for word, effects in places.items()]
        return sorted(found, key=lambda item: -item[1])

    def pieces(self) -> Iterator[tuple[str, float]]:
        """The text from left to right in printable pieces, each with its effect, 0 between words.

        Of a text longer than `SHOWN` characters only those around the strongest window.
        """
        window = max(self.windows, key=lambda window: window.score)
        middle = (window.start + window.end) // 2
        if window.end - window.start > SHOWN:
            middle = max(window.tokens, key=lambda token: abs(token.effect)).start
        position = start = max(0, min(middle - SHOWN // 2, len(self.text) - SHOWN))
        stop = min(start + SHOWN, len(self.text))
        if start:
            yield f"[{start:,} characters before] … ", 0.0
        for token in self.tokens:
            if start <= token.start and token.end <= stop:
                yield printable(self.text[position : token.start]), 0.0
                yield printable(self.text[token.start : token.end]), token.effect
                position = token.end
        yield printable(self.text[position:stop]), 0.0
        if stop < len(self.text):
            yield f" … [{len(self.text) - stop:,} characters after]", 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self) | {"probability": self.probability}


def explanation_html(explanation: Explanation) -> str:
    """The text as one `<p>`: red raised the category, blue lowered it, by how many logits is the title of each word.

    The colours are translucent, to serve a light page and a dark one. All text is escaped.
    """
    parts = []
    for piece, effect in explanation.pieces():
        shown = html.escape(piece)
        if effect:
            colour = "220, 50, 47" if effect > 0 else "38, 110, 230"
            style = f"background: rgba({colour}, {0.7 * abs(effect) / explanation.scale:.2f})"
            shown = f'<span style="{style}" title="{effect:+.2f}">{shown}</span>'
        parts.append(shown)
    return f'<p style="white-space: pre-wrap; overflow-wrap: anywhere">{"".join(parts)}</p>'


def explanation_text(explanation: Explanation, top: int, colour: bool) -> str:
    """The prompt with its words coloured or marked, the `top` words each way with their effects, and the windows."""
    prediction, n_windows = explanation.prediction, len(explanation.windows)
    verdict = f"{'flagged' if prediction.flagged else 'passed'} at {explanation.operating_point}"
    words = explanation.words()
    raised = [row for row in words[:top] if row[1] > 0]
    lowered = [row for row in reversed(words[-top:]) if row[1] < 0]
    is_exact = abs(explanation.delta) <= 0.05 * abs(explanation.logit - explanation.baseline)
    missed = f"{abs(explanation.delta):.2g}" + ("" if is_exact else ": give more --steps")
    lines = [
        f"{'distillation':<28}{prediction.distillation:>7.3f}  {verdict}",
        *(f"{label:<28}{score:>7.3f}" for label, score in prediction.scores.items()),
        f"{prediction.n_tokens:,} tokens in {n_windows} window{'s' if n_windows > 1 else ''}"
        + (", which leave some unread" if prediction.truncated else ""),
        "",
        f"why {explanation.category}: against pad tokens, the text takes its logit from {explanation.baseline:+.2f} to "
        f"{explanation.logit:+.2f};\nthe effects of its words add up to that but for {missed}",
        "",
        "".join(_coloured(explanation) if colour else _marked(explanation, top)),
    ]
    for title, rows in (("raised it most", raised), ("lowered it most", lowered)):
        lines += ["", title] if rows else []
        for word, effect, times in rows:
            shown = word if word.strip() else repr(word)
            lines.append(f"{effect:>+9.2f}  {shown[:60]}{f'  ({times} times)' if times > 1 else ''}")
    lines += ["", f"{'window (characters)':<24}{'logit':>8}{'share':>8}{'effect':>8}"]
    for window in explanation.windows:
        span = f"{window.start:,} to {window.end:,}"
        effect = sum(token.effect for token in window.tokens)
        lines.append(f"{span:<24}{window.score:>+8.2f}{window.share:>8.0%}{effect:>+8.2f}")
    return "\n".join(lines)


def _coloured(explanation: Explanation) -> Iterator[str]:
    """Red backgrounds for what raised the category and blue for what lowered it, in four strengths of xterm's 256."""
    for piece, effect in explanation.pieces():
        strength = abs(effect) / explanation.scale
        if strength < 0.1 or not piece.strip():
            yield piece
        else:
            shade = ((224, 217, 210, 203) if effect > 0 else (189, 153, 111, 75))[min(3, int(4 * strength))]
            yield f"\x1b[30;48;5;{shade}m{piece}\x1b[0m"


def _marked(explanation: Explanation, top: int) -> Iterator[str]:
    """`[+word+]` and `[-word-]` for the `top` words each way: for files, and for those who see no colours."""
    pieces = list(explanation.pieces())
    effects = sorted(effect for piece, effect in pieces if piece.strip()) or [0.0]
    low, high = min(0.0, effects[:top][-1]), max(0.0, effects[-top:][0])
    for piece, effect in pieces:
        sign = "+" if effect >= high else "-" if effect <= low else ""
        yield f"[{sign}{piece}{sign}]" if sign and effect and piece.strip() else piece


def printable(text: str) -> str:
    """A text that a terminal and a page can hold, whatever is in it."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
