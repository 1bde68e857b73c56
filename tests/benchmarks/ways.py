"""Ways to score the same windows: transformers' pipeline, other runtimes used plainly, and this project's scorer."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import TextClassificationPipeline, pipeline

from inference import PromptClassifier
from inference.backends import Backend
from inference.scorer import BATCH_TOKENS, LogitScorer, pad

CHUNK_ROWS = 2048
"""What a score job sorts by length together."""

Windows = list[list[int]]


@dataclass
class Way:
    """A way to score: a block of prompts and each one's windows in, logits of all windows (or nothing) out."""

    name: str
    run: Callable[[list[str], list[Windows]], np.ndarray | None]
    computed: Callable[[], int] = lambda: 0
    seconds: list[float] = field(default_factory=list)
    furthest: float = 0.0

    def ratio(self, other: Way) -> str:
        """How many times faster than `other`: the median over blocks."""
        return f"{statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True)):.2f}"


class PipelineOfIds(TextClassificationPipeline):
    """The pipeline over token ids in place of texts; it counts the tokens of its batches, with padding."""

    computed = 0

    def preprocess(self, inputs: dict[str, list[int]], **_: Any) -> dict[str, torch.Tensor]:
        """One window as the tokenizer would hand it over."""
        ids = torch.tensor([inputs["ids"]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> Any:
        self.computed += model_inputs["input_ids"].numel()
        return super()._forward(model_inputs)


class Counted:
    """A backend that counts the tokens of its batches, with padding."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.computed = backend, 0

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        self.computed += input_ids.size
        return self.backend(input_ids, attention_mask)


def pipeline_way(model: str, labels: Sequence[str], size: int) -> Way:
    """transformers' pipeline at one batch size."""
    pipe = pipeline("text-classification", model=model, pipeline_class=PipelineOfIds, device="cpu")

    def run(_: list[str], prompts: list[Windows]) -> np.ndarray:
        items = [{"ids": ids} for ids in itertools.chain(*prompts)]
        found = pipe(items, batch_size=size, top_k=None, function_to_apply="none")
        scores = [{item["label"]: item["score"] for item in window} for window in found]
        return np.array([[row[label] for label in labels] for row in scores], dtype=np.float32)

    return Way(f"pipeline, batch {size}", run, lambda: pipe.computed)


def plain_way(backend: Backend, name: str, pad_id: int, size: int, ordered: bool = False) -> Way:
    """A backend over batches of `size` windows as they come, or sorted by length as sentence-transformers does."""
    counted = Counted(backend)

    def run(_: list[str], prompts: list[Windows]) -> np.ndarray:
        windows = list(itertools.chain(*prompts))
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i])) if ordered else range(len(windows))
        logits = np.concatenate(
            [
                counted(*pad([windows[i] for i in order[start : start + size]], pad_id))
                for start in range(0, len(windows), size)
            ]
        )
        found = np.empty_like(logits)
        found[list(order)] = logits
        return found

    return Way(name, run, lambda: counted.computed)


def scorer_way(
    scorer: LogitScorer, backend: Backend, name: str, tokens: int = BATCH_TOKENS, rows: int = CHUNK_ROWS
) -> Way:
    """Our scorer over windows that are cut already, `rows` prompts at a time."""
    counted = Counted(backend)
    other = LogitScorer(scorer.windower, counted, scorer.pad_id, tokens)

    def run(_: list[str], prompts: list[Windows]) -> np.ndarray:
        groups = [list(itertools.chain(*prompts[i : i + rows])) for i in range(0, len(prompts), rows)]
        return np.concatenate([other.run(ids) for ids in groups])

    return Way(name, run, lambda: counted.computed)


def whole_way(classifier: PromptClassifier, name: str) -> Way:
    """All that a user waits for: rendering, tokenising, cutting, scoring, deciding."""

    def run(texts: list[str], _: list[Windows]) -> None:
        classifier.classify(texts)

    return Way(name, run)


def windows_of(classifier: PromptClassifier, texts: list[str]) -> list[Windows]:
    """Each prompt's windows, as token ids."""
    return [prompt.ids for prompt in classifier.scorer.windower(texts)]
