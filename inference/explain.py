"""Why a prompt scored as it did: the words and windows that raised a category's logit, and those that lowered it.

Integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365) by captum, on the word embeddings,
along the straight line from pad tokens in the place of the text's own to the text itself. What is explained is the
logit of the whole prompt, pooled over its windows: the effects of all tokens in all windows add up to its difference
from the baseline's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .classifier import PromptClassifier
from .decision import DISTILLATION
from .explanation import Explanation, TokenEffect, WindowEffect
from .prompts import Prompt, Rendered, render
from .scorer import BATCH_TOKENS, pad
from .windows import pool_logits, window_starts

if TYPE_CHECKING:
    import torch


# Scripts that are written without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
_UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


class ExplainError(ValueError):
    """An explanation that cannot be given; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Attribution:
    """What the network gave: `scores` and `shares` of the windows, `effects` as `[windows, tokens of the text]`."""

    logit: float
    baseline: float
    scores: np.ndarray
    shares: np.ndarray
    effects: np.ndarray


class Explainer:
    """Explains the scores of a classifier. It hooks into the network while it works: one thread at a time."""

    def __init__(self, classifier: PromptClassifier) -> None:
        try:
            from captum.attr import LayerIntegratedGradients  # type: ignore[import-untyped]
        except ImportError as error:
            raise ExplainError("explanations need captum: pip install 'promptassay[explain]'") from error
        scorer = classifier.scorer
        self._classifier, self._windower, self._pad_id = classifier, scorer.windower, scorer.pad_id
        self._network = scorer.backend.model.requires_grad_(False)  # type: ignore[attr-defined]
        self._embeddings = self._network.get_input_embeddings()
        self._gradients = LayerIntegratedGradients(self._forward, self._embeddings)

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None) -> Explainer:
        """The explainer of the artefact in the folder `path`.

        Raises:
            ArtefactError: the folder is not a sound artefact.
            ExplainError: captum is not installed.
        """
        return cls(PromptClassifier.load(path, device=device))

    def explain(self, prompt: Prompt, category: str | None = None, *, steps: int = 50) -> Explanation:
        """Explain the score of one category.

        Args:
            prompt: a string or a list of messages.
            category: a label of the artefact or `distillation`; the label of the highest probability where not given.
            steps: points of the integral (Gauss-Legendre): more take longer and bring `delta` closer to 0.

        Raises:
            ExplainError: the artefact has no such category.
            PromptError: the prompt cannot be scored.
        """
        known = (*self._classifier.assay.labels, DISTILLATION)
        if category is not None and category not in known:
            raise ExplainError(f'category "{category}" is unknown; this artefact has: {", ".join(known)}')
        rendered = render(prompt)
        (prediction,) = self._classifier.classify([prompt])
        category = category or max(prediction.scores, key=lambda label: prediction.scores[label])
        (cut,) = self._windower([rendered.text])
        offsets = self._windower.tokenizer.encode(rendered.text, add_special_tokens=False).offsets
        spec, capacity = self._windower.spec, self._windower.capacity
        starts, _ = window_starts(len(offsets), capacity, spec.overlap, spec.limit)
        windows, together = [], dict[int, float]()
        found = self._attribute(cut.ids, min(capacity, len(offsets)), category, steps)
        for i, start in enumerate(starts):
            effects = dict(enumerate(map(float, found.effects[i]), start))
            together |= {token: together.get(token, 0.0) + effect for token, effect in effects.items()}
            span = rendered.raw_span(*cut.spans[i])
            words = _words(rendered, offsets, effects)
            windows.append(WindowEffect(*span, float(found.scores[i]), float(found.shares[i]), words))
        return Explanation(
            category=category,
            text=rendered.raw,
            prediction=prediction,
            operating_point=self._classifier.point_name,
            logit=found.logit,
            baseline=found.baseline,
            delta=float(found.effects.sum()) - (found.logit - found.baseline),
            windows=tuple(windows),
            tokens=_words(rendered, offsets, together),
        )

    def _attribute(self, windows: list[list[int]], length: int, category: str, steps: int) -> _Attribution:
        """Run the network; `length` of the tokens of each window are the text's own, the others special."""
        import torch

        ids, mask = (torch.from_numpy(array).to(self._network.device) for array in pad(windows, self._pad_id))
        own = slice(len(self._windower.prefix), len(self._windower.prefix) + length)
        baseline = ids.clone()
        baseline[:, own] = self._pad_id
        with torch.no_grad():
            logits = self._window_logits(ids, mask)
            nothing = self._embeddings(baseline)
            # The network still gets the text's ids, as it does from captum: some derive positions from them.
            hook = self._embeddings.register_forward_hook(lambda module, inputs, output: nothing)
            try:
                baseline_logits = self._window_logits(ids, mask)
            finally:
                hook.remove()
        logit = self._pool(logits.requires_grad_(), 1, category)
        (weights,) = torch.autograd.grad(logit.sum(), logits)
        effects = self._gradients.attribute(
            ids.unsqueeze(0),
            baselines=baseline.unsqueeze(0),
            additional_forward_args=(mask.unsqueeze(0), category),
            n_steps=steps,
            # Counted in rows of the layer, which are windows: so many whole steps at a time.
            internal_batch_size=len(ids) * max(1, BATCH_TOKENS // ids.numel()),
        )
        return _Attribution(
            logit=float(logit.detach()),
            baseline=float(self._pool(baseline_logits, 1, category)),
            scores=self._pool(logits.detach(), len(ids), category).numpy(),
            shares=(weights.sum(dim=1) / weights.sum()).numpy(),
            effects=effects.double().sum(dim=-1)[:, own].cpu().numpy(),
        )

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, category: str) -> torch.Tensor:
        """The logit of each example; one is all windows of the prompt, `[examples, windows, tokens]`.

        captum repeats and cuts along the first dimension, and what is explained belongs to all windows together.
        """
        return self._pool(self._window_logits(ids.flatten(0, 1), mask.flatten(0, 1)), len(ids), category)

    def _window_logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`[windows, tokens]` to `[windows, labels]`, in float64."""
        return self._network(input_ids=ids, attention_mask=mask).logits.cpu().double()

    def _pool(self, logits: torch.Tensor, prompts: int, category: str) -> torch.Tensor:
        """The logit of `category` for each of `prompts` prompts, which own equally many of the windows."""
        import torch

        owner = torch.arange(prompts).repeat_interleave(len(logits) // prompts)
        pooled = pool_logits(logits, owner, prompts)
        if category != DISTILLATION:
            return pooled[:, self._classifier.assay.labels.index(category)]
        total = torch.nn.functional.softplus(pooled).sum(dim=1)  # as in `decision.any_logit`
        return total + torch.log(-torch.expm1(-total.clamp_min(1e-30)))


def _words(
    rendered: Rendered, offsets: Sequence[tuple[int, int]], effects: Mapping[int, float]
) -> tuple[TokenEffect, ...]:
    """Tokens (number to effect) put together to words.

    Args:
        rendered: the prompt.
        offsets: of all its tokens, in characters of the folded text; a word's are those of the raw text.
        effects: of those tokens that were read, in order.
    """
    words: list[TokenEffect] = []
    edge = 0
    for token, effect in effects.items():
        start, end = offsets[token]
        piece = rendered.text[start:end]
        if piece.strip():  # many tokenizers count the space before a word as its own
            start, end = end - len(piece.lstrip()), start + len(piece.rstrip())
        first, last = rendered.raw_span(start, end)
        same_word = start == edge > 0 and all(map(_is_of_word, rendered.text[start - 1 : start + 1]))
        # Tokens also share a word where they share a character: bytes of an emoji, or what a ligature folds to.
        if words and (same_word or start == end or first < words[-1].end):
            before = words.pop()
            first, last, effect = before.start, max(before.end, last), before.effect + effect
        words.append(TokenEffect(first, last, effect))
        edge = end
    return tuple(words)


def _is_of_word(char: str) -> bool:
    return (char.isalnum() or unicodedata.category(char)[0] == "M") and not _UNSPACED.match(char)
