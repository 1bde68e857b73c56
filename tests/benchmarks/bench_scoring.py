"""How fast scoring is beside other ways to run the same weights: same windows, same machine, one run, ratios.

    make bench
    python -m tests.benchmarks.bench_scoring MODEL --prompts labelled/*.jsonl   # real prompts in place of shipped ones
    python -m tests.benchmarks.bench_scoring MODEL --tune                       # tokens a batch, rows sorted together

Prompts come at the lengths of real traffic (`traffic.py`). Each way scores a block of them before the next block
begins, and a ratio is the median over blocks: what else the machine does weighs on both sides. All but the last lines
are handed token ids, so that every way reads the very windows that scoring reads; the last begin with texts.
Backends are those that `export` has made in the artefact.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from data.summary import markdown_table
from inference import PromptClassifier
from inference.backends import open_backend
from inference.backends.exports import exported
from inference.scorer import BATCH_TOKENS

from .traffic import traffic
from .ways import CHUNK_ROWS, Way, Windows, pipeline_way, plain_way, scorer_way, whole_way, windows_of

PROMPTS = 1024
BLOCK = 256
PIPELINE_BATCHES = (1, 8, 32)
PLAIN_BATCH = 32
TUNED_TOKENS = (512, 1024, 2048, 4096, 8192)
TUNED_ROWS = (64, 256, 2048)
EQUAL = 1e-4
HEADER = ("way", "windows/s", "useful tokens/s", "no padding", "largest difference")


def measure(ways: Sequence[Way], blocks: Sequence[list[str]], cut: Sequence[list[Windows]]) -> list[list[str]]:
    """Run all ways over each block, each block begun by another; rows of a table, with ratios to come.

    Raises:
        SystemExit: logits of two ways in float32 differ by more than rounding.
    """
    for way in ways:
        way.run(blocks[0][:8], cut[0][:8])
    before = [way.computed() for way in ways]
    for number, (texts, prompts) in enumerate(zip(blocks, cut, strict=True)):
        found = {}
        for way in itertools.islice(itertools.cycle(ways), number, number + len(ways)):
            started = time.perf_counter()
            logits = way.run(texts, prompts)
            way.seconds.append(time.perf_counter() - started)
            if logits is not None:
                found[way.name] = logits
        expected = found[ways[0].name]
        for way in ways:
            if way.name in found:
                way.furthest = max(way.furthest, float(np.abs(found[way.name] - expected).max()))
    windows = list(itertools.chain(*itertools.chain(*cut)))
    tokens = sum(map(len, windows))
    print(
        f"{sum(map(len, blocks)):,} prompts, {len(windows):,} windows, {tokens:,} tokens, {len(blocks)} blocks, "
        f"{torch.get_num_threads()} threads\n"
    )
    if far := [way.name for way in ways if way.furthest > EQUAL and not way.name.endswith(("bf16", "int8"))]:
        raise SystemExit(f"error: logits of {', '.join(far)} differ: the ways do not read the same windows")
    return [
        [
            way.name,
            f"{len(windows) / sum(way.seconds):,.1f}",
            f"{tokens / sum(way.seconds):,.0f}",
            f"{tokens / computed:.0%}" if (computed := way.computed() - start) else "",
            f"{way.furthest:.0e}" if way.furthest else "",
        ]
        for way, start in zip(ways, before, strict=True)
    ]


def compare(classifier: PromptClassifier, texts: list[str]) -> None:
    """One table of all ways, with ratios to the pipeline."""
    scorer, folder = classifier.scorer, Path(classifier.path)
    backends = {name: open_backend(name, folder, "cpu") for name in exported(folder)}
    pipes = [pipeline_way(str(folder), classifier.assay.labels, size) for size in PIPELINE_BATCHES]
    plain = [
        plain_way(backend, f"{name} plainly, batch {PLAIN_BATCH}", scorer.pad_id, PLAIN_BATCH)
        for name, backend in backends.items()
        if "-" not in name and name != "torch"
    ]
    ordered = plain_way(
        backends["torch"], f"torch, sorted by length, batch {PLAIN_BATCH}", scorer.pad_id, PLAIN_BATCH, ordered=True
    )
    ours = [scorer_way(scorer, backend, f"promptassay, {name}") for name, backend in backends.items()]
    whole = [
        whole_way(PromptClassifier.load(folder, backend=name, device="cpu"), f"the same from texts, {name}")
        for name in backends
        if name in ("torch", list(backends)[-1])
    ]
    ways = [*pipes, ordered, *plain, *ours, *whole]
    blocks = list(_blocks(texts, BLOCK))
    rows = measure(ways, blocks, [windows_of(classifier, block) for block in blocks])
    best, largest = min(pipes, key=lambda way: sum(way.seconds)), pipes[-1]
    rows = [[*row, way.ratio(best), way.ratio(largest)] for row, way in zip(rows, ways, strict=True)]
    print(markdown_table([*HEADER, f"to {best.name}", f"to {largest.name}"], rows))
    _print_peak(classifier, rows)


def _print_peak(classifier: PromptClassifier, rows: list[list[str]]) -> None:
    """Print what share of the machine's matrix products per second the encoder in float32 reaches, by useful tokens."""
    network = classifier.scorer.backend.model  # type: ignore[attr-defined]
    inner = [
        module for name, module in network.named_modules() if isinstance(module, torch.nn.Linear) and "layer" in name
    ]
    per_token = 2 * sum(module.weight.numel() for module in inner)
    # The largest product of a layer, at the size of a batch.
    widest = max(inner, key=lambda module: module.weight.numel()).weight.detach()
    states = torch.randn(BATCH_TOKENS, widest.shape[1])
    best = 0.0
    with torch.inference_mode():
        for _ in range(30):
            started = time.perf_counter()
            for _ in range(10):
                torch.nn.functional.linear(states, widest)
            best = max(best, 20 * states.numel() * widest.shape[0] / (time.perf_counter() - started))
    tokens = {row[0]: float(row[2].replace(",", "")) for row in rows}
    shares = ", ".join(f"{name} {tokens[name] * per_token / best:.0%}" for name in tokens if "bf16" not in name)
    print(
        f"\na matrix product in float32 reaches {best / 1e9:,.0f} GFLOP/s here; the encoder's own take "
        f"{per_token / 1e6:,.0f} MFLOP a token, so that useful tokens reach of it: {shares}"
    )


def tune(classifier: PromptClassifier, texts: list[str]) -> None:
    """One table of our scorer at other numbers of tokens a batch and of rows sorted together."""
    choices = [(tokens, CHUNK_ROWS) for tokens in TUNED_TOKENS]
    choices += [(BATCH_TOKENS, rows) for rows in TUNED_ROWS if rows != CHUNK_ROWS]
    ways = [
        scorer_way(classifier.scorer, classifier.scorer.backend, f"{tokens:,} tokens, {rows:,} rows", tokens, rows)
        for tokens, rows in choices
    ]
    blocks = list(_blocks(texts, max(TUNED_ROWS)))
    rows = measure(ways, blocks, [windows_of(classifier, block) for block in blocks])
    now = ways[choices.index((BATCH_TOKENS, CHUNK_ROWS))]
    rows = [[*row, way.ratio(now)] for row, way in zip(rows, ways, strict=True)]
    print(markdown_table([*HEADER, f"to {now.name}"], rows))


def _blocks(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def main() -> None:
    """Measure what is asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", help="the artefact's folder")
    options.add_argument("--prompts", nargs="+", default=[], metavar="FILE", help="labelled files of real prompts")
    options.add_argument("--n", type=int, default=PROMPTS, metavar="N", help=f"prompts (default: {PROMPTS})")
    options.add_argument("--tune", action="store_true", help="instead: our scorer at other sizes of batch")
    options.add_argument("--backend", default="torch", help="with --tune: of which (default: %(default)s)")
    asked = options.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    backend = asked.backend if asked.tune else "torch"
    classifier = PromptClassifier.load(asked.model, device="cpu", backend=backend)
    texts = traffic(asked.n, asked.prompts)
    (tune if asked.tune else compare)(classifier, texts)


if __name__ == "__main__":
    main()
