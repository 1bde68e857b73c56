"""Token windows: a prompt of any length as pieces the encoder can read, and the way back to one answer.

A prompt that fits is one window. A longer one is covered by overlapping windows; past `limit` windows the head, the
tail and evenly spread parts of the middle are read, and the prompt counts as truncated.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding, Tokenizer

POOLING = "logmeanexp"
_TOGETHER = 1 << 21
"""Characters read at once, at some 200 bytes each: of several prompts or, cut at a space, of one."""
_EDGE = re.compile(r"(?<=\w) (?=\w)")
_WORDS = 'The words don\'t change, 3.5 times or 12 345! naïve Ελλάδα Москва 中文。 한국어 (x) "y" 🙂 </s> a b'


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """`size` and `overlap` in tokens (`size` counts the special tokens), `limit` in windows a prompt."""

    size: int = 256
    overlap: int = 32
    limit: int = 8


@dataclass(frozen=True, slots=True)
class PromptWindows:
    """One prompt's windows: token ids with special tokens, and each window's character span in the folded text."""

    ids: list[list[int]]
    spans: list[tuple[int, int]]
    n_tokens: int
    truncated: bool


def window_starts(n_tokens: int, capacity: int, overlap: int, limit: int) -> tuple[list[int], bool]:
    """Where windows of `capacity` tokens start in `n_tokens` tokens, and whether `limit` left some unread.

    The first window starts at the head and the last ends at the tail; the others are spread evenly, so that
    neighbours share at least `overlap` tokens as long as the limit allows.
    """
    if n_tokens <= capacity:
        return [0], False
    needed = math.ceil((n_tokens - overlap) / (capacity - overlap))
    count = min(needed, limit)
    if count == 1:
        return [0], True
    last = n_tokens - capacity
    return [round(i * last / (count - 1)) for i in range(count)], needed > limit


class Windower:
    """Cuts texts into windows with one tokenizer; shared by training and scoring."""

    def __init__(self, tokenizer: Tokenizer, spec: WindowSpec) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.spec = spec
        self.prefix, self.suffix = _special_tokens(tokenizer)
        self._reads_words_apart = _reads_words_apart(tokenizer)
        self.capacity = spec.size - len(self.prefix) - len(self.suffix)
        if self.capacity <= spec.overlap:
            raise ValueError(f"windows of {spec.size} tokens leave no room beside an overlap of {spec.overlap}")

    def __call__(self, texts: Sequence[str]) -> list[PromptWindows]:
        """Windows of each text, in order."""
        windows: list[PromptWindows] = []
        for group in _groups(texts):
            if len(group[0]) > _TOGETHER:
                windows.append(self._cut(self._long(group[0]), len(group[0])))
                continue
            encodings = self.tokenizer.encode_batch(group, add_special_tokens=False)
            for text, encoding in zip(group, encodings, strict=True):
                windows.append(self._cut(_Tokens(encoding.ids, [(0, 0, encoding)]), len(text)))
        return windows

    def _long(self, text: str) -> _Tokens:
        tokens = _Tokens([], [])
        at = 0
        for piece in _pieces(text) if self._reads_words_apart else [text]:
            encoding = self.tokenizer.encode(piece, add_special_tokens=False)
            tokens.parts.append((len(tokens.ids), at, encoding))
            tokens.ids.extend(encoding.ids)
            at += len(piece)
        return tokens

    def _cut(self, tokens: _Tokens, length: int) -> PromptWindows:
        ids = tokens.ids
        starts, truncated = window_starts(len(ids), self.capacity, self.spec.overlap, self.spec.limit)
        windows, spans = [], []
        for start in starts:
            end = min(start + self.capacity, len(ids))
            # A network cannot read nothing: where no token is left at all, it gets the first of the vocabulary.
            windows.append([*self.prefix, *ids[start:end], *self.suffix] or [0])
            # The outermost windows also own what the tokenizer dropped at the edges of the text.
            first = 0 if start == 0 else tokens.span(start)[0]
            spans.append((first, length if end == len(ids) else tokens.span(end - 1)[1]))
        return PromptWindows(windows, spans, len(ids), truncated)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A text as tokens, and the parts it was read in, with the number of their first token and first character."""

    ids: list[int]
    parts: list[tuple[int, int, Encoding]]

    def span(self, token: int) -> tuple[int, int]:
        first, at, encoding = self.parts[bisect_right(self.parts, token, key=lambda part: part[0]) - 1]
        start, end = encoding.token_to_chars(token - first) or (0, 0)
        return at + start, at + end


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in groups of at most `_TOGETHER` characters, or of one."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _TOGETHER:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of about `_TOGETHER` characters that begin with the one space between two words."""
    at = 0
    while len(text) - at > _TOGETHER and (edge := _EDGE.search(text, at + _TOGETHER // 2)):
        yield text[at : edge.start()]
        at = edge.start()
    yield text[at:]


def _reads_words_apart(tokenizer: Tokenizer) -> bool:
    """Whether the words of a text become the same tokens alone as together, as nearly all tokenizers do."""
    first, *others = _EDGE.split(_WORDS)
    apart = [tokenizer.encode(word, add_special_tokens=False).ids for word in (first, *(f" {word}" for word in others))]
    return bool(tokenizer.encode(_WORDS, add_special_tokens=False).ids == sum(apart, []))


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    for at in range(len(full) - len(bare) + 1):
        if full[at : at + len(bare)] == bare:
            return full[:at], full[at + len(bare) :]
    raise ValueError("the tokenizer's special tokens stand in place of the text, and not around it")


def pool_logits(logits: torch.Tensor, owner: torch.Tensor, n_prompts: int) -> torch.Tensor:
    """Window logits to prompt logits by log-mean-exp.

    It lies between the mean (which drowns one telling window in a long prompt) and the maximum (which rises with the
    number of windows alone): n equal windows give exactly one window's logits.

    Args:
        logits: `[windows, labels]`.
        owner: `[windows]`, the prompt that each window belongs to.
        n_prompts: every prompt owns at least one window.

    Returns:
        `[n_prompts, labels]`.
    """
    import torch

    index = owner.unsqueeze(1).expand_as(logits)
    shape = (n_prompts, logits.shape[1])
    highest = logits.detach().new_full(shape, -torch.inf).scatter_reduce(0, index, logits.detach(), "amax")
    total = logits.new_zeros(shape).index_add(0, owner, torch.exp(logits - highest[owner]))
    count = torch.bincount(owner, minlength=n_prompts).unsqueeze(1).to(logits.dtype)
    return highest + torch.log(total / count)
