"""Why a prompt scored as it did: the words and windows that raised a category's logit, and those that lowered it.

Integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365) by captum, on the word embeddings,
along the straight line from pad tokens in the place of the text's own to the text itself. What is explained is the
logit of the whole prompt, pooled over its windows: the effects of all tokens in all windows add up to its difference
from the baseline's.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .classifier import BATCH_TOKENS, PromptClassifier, pad
from .decision import DISTILLATION, Prediction
from .prompts import Prompt, Rendered, render
from .windows import pool_logits, window_starts

if TYPE_CHECKING:
    import torch

SHOWN = 2000
"""Characters that are shown of a longer prompt, around its strongest window."""

# Scripts that are written without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
_UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# What a terminal would obey or a page may not hold: control characters, direction marks, lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class ExplainError(ValueError):
    """An explanation that cannot be given; the message says why and what to do."""


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
            places[_printable(self.text[token.start : token.end])].append(token.effect)
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
                yield _printable(self.text[position : token.start]), 0.0
                yield _printable(self.text[token.start : token.end]), token.effect
                position = token.end
        yield _printable(self.text[position:stop]), 0.0
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
        scorer = classifier._open().scorer
        self._classifier, self._windower, self._pad_id = classifier, scorer.windower, scorer._pad_id
        self._network = scorer._backend._model.requires_grad_(False)  # type: ignore[attr-defined]
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
        offsets = self._windower._tokenizer.encode(rendered.text, add_special_tokens=False).offsets
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
        own = slice(len(self._windower._prefix), len(self._windower._prefix) + length)
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


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
