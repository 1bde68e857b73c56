"""How fast scoring is beside transformers' own pipeline: same weights, same prompts, one run, ratios.

    make bench

Prompts are the organic ones of the shipped corpus that fit one window, so that both read the same tokens.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from transformers import pipeline

from data.reading import load_records
from data.summary import markdown_table
from inference import PromptClassifier
from inference.job.files import find_files

PROMPTS = 300
WARM_UP = 16


def main(model: str) -> None:
    """Time each way once over the same prompts and print prompts a second and ratios."""
    classifier = PromptClassifier.load(model, device="cpu")
    records, _ = load_records(find_files([str(Path("data/seed/organic"))]))
    texts = [record.rendered for record in records][::4]
    prompts = [text for text in texts if len(text) < 600][:PROMPTS]
    pipe = pipeline("text-classification", model=model, top_k=None, truncation=True, device="cpu")
    ways = {f"pipeline, batch {size}": lambda size=size: list(pipe(prompts, batch_size=size)) for size in (1, 8, 32)}
    ways["promptassay"] = lambda: classifier.classify(prompts)
    pipe(prompts[:WARM_UP])
    classifier.classify(prompts[:WARM_UP])
    rates = {}
    for name, run in ways.items():
        started = time.perf_counter()
        run()
        rates[name] = len(prompts) / (time.perf_counter() - started)
    best = max(rate for name, rate in rates.items() if name != "promptassay")
    rows = [[name, f"{rate:.1f}", f"{rate / best:.2f}"] for name, rate in rates.items()]
    print(markdown_table(["way", "prompts a second", "against the best pipeline"], rows))


if __name__ == "__main__":
    main(sys.argv[1])
