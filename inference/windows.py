"""Token windows: a prompt of any length as pieces the encoder can read, and the way back to one answer.

A prompt that fits is one window. A longer one is covered by overlapping windows; past `limit` windows the head, the
tail and evenly spread parts of the middle are read, and the prompt counts as truncated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

POOLING = "logmeanexp"


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
        self.capacity = spec.size - len(self.prefix) - len(self.suffix)
        if self.capacity <= spec.overlap:
            raise ValueError(f"windows of {spec.size} tokens leave no room beside an overlap of {spec.overlap}")

    def __call__(self, texts: Sequence[str]) -> list[PromptWindows]:
        """Windows of each text, in order."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            self._cut(encoding.ids, encoding.offsets, len(text))
            for encoding, text in zip(encodings, texts, strict=True)
        ]

    def _cut(self, ids: list[int], offsets: list[tuple[int, int]], length: int) -> PromptWindows:
        starts, truncated = window_starts(len(ids), self.capacity, self.spec.overlap, self.spec.limit)
        windows, spans = [], []
        for start in starts:
            end = min(start + self.capacity, len(ids))
            windows.append([*self.prefix, *ids[start:end], *self.suffix])
            # The outermost windows also own what the tokenizer dropped at the edges of the text.
            spans.append((0 if start == 0 else offsets[start][0], length if end == len(ids) else offsets[end - 1][1]))
        return PromptWindows(windows, spans, len(ids), truncated)


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    at = next(i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
    return full[:at], full[at + len(bare) :]


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
