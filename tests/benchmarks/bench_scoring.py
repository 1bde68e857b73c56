"""How fast scoring is beside transformers' own pipeline: same weights, same windows, same machine, one run, ratios.

    make bench
    python -m tests.benchmarks.bench_scoring MODEL --prompts labelled/*.jsonl   # real prompts in place of shipped ones
    python -m tests.benchmarks.bench_scoring MODEL --tune                       # tokens a batch, rows sorted together

Prompts come at the lengths of real traffic (`traffic.py`). Each way scores a block of them before the next block
begins, and a ratio is the median over blocks: what else the machine does weighs on both sides. The pipeline is handed
token ids, so that it reads the very windows that scoring reads; tokenising is charged in the last line alone.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import TextClassificationPipeline, pipeline
from transformers.utils import logging as transformers_logging

from data.summary import markdown_table
from inference import PromptClassifier
from inference.backends import Backend
from inference.classifier import BATCH_TOKENS, LogitScorer
from inference.windows import PromptWindows

from .traffic import traffic

PROMPTS = 2048
BLOCK = 512
CHUNK_ROWS = 2048
"""What a score job sorts by length together."""
PIPELINE_BATCHES = (1, 8, 32)
TUNED_TOKENS = (512, 1024, 2048, 4096, 8192)
TUNED_ROWS = (64, 256, 2048)
EQUAL = 1e-4

Windows = list[list[int]]


@dataclass
class Way:
    """A way to score: a block of prompts and each one's windows in, logits of all windows (or nothing) out."""

    name: str
    run: Callable[[list[str], list[Windows]], np.ndarray | None]
    computed: Callable[[], int]
    seconds: list[float] = field(default_factory=list)

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


def scorer_way(scorer: LogitScorer, name: str, tokens: int = BATCH_TOKENS, rows: int = CHUNK_ROWS) -> Way:
    """Our scorer over windows that are cut already, `rows` prompts at a time."""
    counted = Counted(scorer.backend)
    other = LogitScorer(scorer.windower, counted, scorer.pad_id, tokens)

    def run(_: list[str], prompts: list[Windows]) -> np.ndarray:
        groups = [list(itertools.chain(*prompts[i : i + rows])) for i in range(0, len(prompts), rows)]
        # Each window as a prompt of its own: its pooled logits are its own.
        alone = [[PromptWindows([ids], [(0, 0)], len(ids), False) for ids in group] for group in groups]
        return np.concatenate([other.score(windows)[0] for windows in alone])

    return Way(name, run, lambda: counted.computed)


def whole_way(classifier: PromptClassifier) -> Way:
    """All that a user waits for: rendering, tokenising, cutting, scoring, deciding."""

    def run(texts: list[str], _: list[Windows]) -> None:
        classifier.classify(texts)

    return Way("promptassay, from texts", run, lambda: 0)


def measure(ways: Sequence[Way], blocks: Sequence[list[str]], cut: Sequence[list[Windows]]) -> list[list[str]]:
    """Run all ways over each block, each block begun by another; rows of a table, with ratios to come.

    Raises:
        SystemExit: logits of two ways differ by more than rounding.
    """
    for way in ways:
        way.run(blocks[0][:8], cut[0][:8])
    before = [way.computed() for way in ways]
    furthest = 0.0
    for number, (texts, prompts) in enumerate(zip(blocks, cut, strict=True)):
        logits = []
        for way in itertools.islice(itertools.cycle(ways), number, number + len(ways)):
            started = time.perf_counter()
            found = way.run(texts, prompts)
            way.seconds.append(time.perf_counter() - started)
            logits += [] if found is None else [found]
        furthest = max(furthest, *(float(np.abs(found - logits[0]).max()) for found in logits))
    if furthest > EQUAL:
        raise SystemExit(f"error: logits differ by {furthest:.1e}: the ways do not read the same windows")
    windows = list(itertools.chain(*itertools.chain(*cut)))
    tokens = sum(map(len, windows))
    print(
        f"{sum(map(len, blocks)):,} prompts, {len(windows):,} windows, {tokens:,} tokens, {len(blocks)} blocks, "
        f"{torch.get_num_threads()} threads; logits differ by at most {furthest:.1e}\n"
    )
    return [
        [
            way.name,
            f"{len(windows) / sum(way.seconds):,.1f}",
            f"{tokens / sum(way.seconds):,.0f}",
            f"{tokens / computed:.0%}" if (computed := way.computed() - start) else "",
        ]
        for way, start in zip(ways, before, strict=True)
    ]


def compare(classifier: PromptClassifier, texts: list[str]) -> None:
    """One table of our scorer beside the pipeline."""
    pipes = [pipeline_way(str(classifier.path), classifier.assay.labels, size) for size in PIPELINE_BATCHES]
    ways = [*pipes, scorer_way(classifier.scorer, "promptassay"), whole_way(classifier)]
    blocks = list(_blocks(texts, BLOCK))
    rows = measure(ways, blocks, [_cut(classifier, block) for block in blocks])
    best, largest = min(pipes, key=lambda way: sum(way.seconds)), pipes[-1]
    rows = [[*row, way.ratio(best), way.ratio(largest)] for row, way in zip(rows, ways, strict=True)]
    header = ["way", "windows/s", "useful tokens/s", "no padding", f"to the best ({best.name})", f"to {largest.name}"]
    print(markdown_table(header, rows))


def tune(classifier: PromptClassifier, texts: list[str]) -> None:
    """One table of our scorer at other numbers of tokens a batch and of rows sorted together."""
    choices = [(tokens, CHUNK_ROWS) for tokens in TUNED_TOKENS]
    choices += [(BATCH_TOKENS, rows) for rows in TUNED_ROWS if rows != CHUNK_ROWS]
    ways = [
        scorer_way(classifier.scorer, f"{tokens:,} tokens, {rows:,} rows", tokens, rows) for tokens, rows in choices
    ]
    blocks = list(_blocks(texts, max(TUNED_ROWS)))
    rows = measure(ways, blocks, [_cut(classifier, block) for block in blocks])
    now = ways[choices.index((BATCH_TOKENS, CHUNK_ROWS))]
    rows = [[*row, way.ratio(now)] for row, way in zip(rows, ways, strict=True)]
    print(markdown_table(["way", "windows/s", "useful tokens/s", "no padding", f"to {now.name}"], rows))


def _blocks(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _cut(classifier: PromptClassifier, texts: list[str]) -> list[Windows]:
    return [prompt.ids for prompt in classifier.prepare(texts).windows]


def main() -> None:
    """Measure what is asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", help="the artefact's folder")
    options.add_argument("--prompts", nargs="+", default=[], metavar="FILE", help="labelled files of real prompts")
    options.add_argument("--n", type=int, default=PROMPTS, metavar="N", help=f"prompts (default: {PROMPTS})")
    options.add_argument("--tune", action="store_true", help="instead: our scorer at other sizes of batch")
    asked = options.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    classifier = PromptClassifier.load(asked.model, device="cpu")
    texts = traffic(asked.n, asked.prompts)
    (tune if asked.tune else compare)(classifier, texts)


if __name__ == "__main__":
    main()
