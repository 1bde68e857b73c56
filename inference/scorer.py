"""Rendered texts to pooled logits: windows in batches of like length, through whatever backend runs the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .artefact import ArtefactError, Assay
from .backends import AUTO, Backend, open_backend
from .backends.choose import choose_backend
from .backends.exports import check_export
from .cache import Scored
from .fields import read_object
from .tokenizer_file import PROBE, open_tokenizer
from .windows import PromptWindows, Windower, pool_logits

BATCH_TOKENS = 2048
"""Padded tokens in one call of the network: small batches stay in a CPU's cache."""


Tick = Callable[[float], None]


class LogitScorer:
    """Rendered texts to pooled logits. Training calibrates through this same class, so that nothing can differ."""

    def __init__(
        self,
        windower: Windower,
        backend: Backend,
        pad_id: int,
        batch_tokens: int = BATCH_TOKENS,
        backend_name: str = "torch",
    ) -> None:
        self.windower = windower
        self.backend = backend
        self.backend_name = backend_name
        self.pad_id = pad_id
        self._batch_tokens = batch_tokens

    @classmethod
    def open(
        cls,
        folder: Path,
        assay: Assay,
        backend: str = AUTO,
        device: str | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> LogitScorer:
        """The scorer over an artefact's model files; `auto` tries what the artefact holds, and takes the fastest.

        Raises:
            ArtefactError: they do not fit together, or cannot score a text.
            BackendError: the backend cannot run here.
        """
        config = read_object(folder / "config.json")
        tokenizer = open_tokenizer(folder / "tokenizer.json", config.integer("vocab_size", 1, 2**24))
        pad_id = config.integer("pad_token_id", 0, 2**24) if "pad_token_id" in config else 0
        windower = Windower(tokenizer, assay.windows)
        if backend == AUTO:
            name, opened = choose_backend(
                folder, assay.fingerprint, device, lambda: trial_batches(windower, pad_id, batch_tokens)
            )
        else:
            check_export(folder, backend, assay.fingerprint)
            name, opened = backend, open_backend(backend, folder, device)
        scorer = cls(windower, opened, pad_id, batch_tokens, name)
        try:
            scorer([PROBE])
        except Exception as error:  # libraries raise many kinds for one cause: a network that is none
            why = " ".join(str(error).split())[:200]
            raise ArtefactError(f"{folder}: the network cannot score a text ({why}); train again") from error
        return scorer

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, list[PromptWindows], list[int]]:
        """Pooled logits `[prompts, labels]`, each prompt's windows, and which of them scored highest."""
        prompts = self.windower(texts)
        logits, top = self.score(prompts)
        return logits, prompts, top

    def score(self, prompts: Sequence[PromptWindows], tick: Tick | None = None) -> tuple[np.ndarray, list[int]]:
        """Pooled logits `[prompts, labels]` of prompts cut into windows, and each one's window that scored highest.

        `tick` is called after each batch with the share of the tokens that are done.
        """
        import torch

        owner = np.repeat(np.arange(len(prompts)), [len(prompt.ids) for prompt in prompts])
        window_logits = self.run([ids for prompt in prompts for ids in prompt.ids], tick)
        pooled = pool_logits(torch.from_numpy(window_logits), torch.from_numpy(owner), len(prompts)).numpy()
        highest = np.logaddexp(0.0, window_logits).sum(axis=1)
        first = np.concatenate([[0], np.cumsum([len(prompt.ids) for prompt in prompts])])
        top = [_first_highest(highest[first[i] : first[i + 1]]) for i in range(len(prompts))]
        return pooled, top

    def run(self, windows: Sequence[list[int]], tick: Tick | None = None) -> np.ndarray:
        """Logits `[windows, labels]` of each window, in order: sorted by length inside, so that little is padded."""
        order = sorted(range(len(windows)), key=lambda i: len(windows[i]))
        ends = np.cumsum([len(windows[i]) for i in order])
        parts = []
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and len(windows[order[end]]) * (end + 1 - start) <= self._batch_tokens:
                end += 1
            parts.append(self.backend(*pad([windows[i] for i in order[start:end]], self.pad_id)))
            start = end
            if tick is not None:
                tick(float(ends[start - 1] / ends[-1]))
        logits = np.concatenate(parts)
        if not np.isfinite(logits).all():
            raise ArtefactError("the artefact's network gives numbers that are not finite; train again")
        result = np.empty_like(logits)
        result[order] = logits
        return result


def _first_highest(values: np.ndarray) -> int:
    """The first of the highest values; windows of one content differ by rounding, and the batch must not decide."""
    return int((values >= values.max() - 1e-4).argmax())


def trial_batches(windower: Windower, pad_id: int, batch_tokens: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A batch of short windows, one of middling and one of full ones, as `batch_tokens` would make them."""
    text = windower.tokenizer.encode(PROBE, add_special_tokens=False).ids
    batches = []
    for length in (windower.spec.size // 8, windower.spec.size // 2, windower.spec.size):
        length = max(1, length - len(windower.prefix) - len(windower.suffix))
        window = [*windower.prefix, *np.resize(text, length).tolist(), *windower.suffix]
        batches.append(pad([window] * max(1, batch_tokens // len(window)), pad_id))
    return batches


def pad(windows: list[list[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask, both int64 `[windows, longest]`."""
    ids = np.full((len(windows), max(map(len, windows))), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = window
        mask[row, : len(window)] = 1
    return ids, mask


def score_windows(
    scorer: LogitScorer, windows: dict[str, PromptWindows], tick: Tick | None = None
) -> dict[str, Scored]:
    """What the network says of texts that are cut into windows already."""
    logits, top = scorer.score(list(windows.values()), tick)
    return {
        text: Scored(logits[i], prompt.n_tokens, len(prompt.ids), prompt.truncated, prompt.spans[top[i]])
        for i, (text, prompt) in enumerate(windows.items())
    }
