"""What backends, the gate and repeats save together, from texts to decisions, on mixes like real traffic.

    make bench
    python -m tests.benchmarks.bench_cascade MODEL --prompts labelled/*.jsonl   # real prompts in place of shipped ones

Mixes are 97 and 99.9 % organic, and the former with every second prompt said twice. Each way reads every block of
prompts in turn, and ratios are medians over blocks. The pipeline is given token ids, at its best batch size: tokenising
and cutting, which it would need as well, are charged to our side alone. The last columns say how many of the prompts
that the encoder flags at `fpr-1pct` are flagged with the gate, too, and what share of organic prompts it passes on.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
from transformers.utils import logging as transformers_logging

from data.summary import markdown_table
from inference import PromptClassifier
from inference.backends.exports import exported

from .traffic import traffic
from .ways import Way, pipeline_way, whole_way, windows_of

PROMPTS = 1024
BLOCK = 256
POINT = "fpr-1pct"
MIXES = {"97 % organic": (0.03, False), "99.9 % organic": (0.001, False), "97 %, half repeated": (0.03, True)}


def measure(model: Path, backend: str, n: int, files: list[str]) -> None:
    """Print one table."""
    plain = PromptClassifier.load(model, backend=backend, device="cpu", operating_point=POINT)
    gated = PromptClassifier.load(model, backend=backend, device="cpu", operating_point=POINT, gate=True)
    rows = []
    for mix, (share, repeated) in MIXES.items():
        texts = traffic(n // 2 if repeated else n, files, share=share)
        if repeated:
            order = np.random.default_rng(1).permutation(n)
            texts = [(texts * 2)[i] for i in order]
        tokens = sum(len(ids) for prompt in windows_of(plain, texts) for ids in prompt)
        pipe = pipeline_way(str(model), plain.assay.labels, 1)
        ways = [pipe, whole_way(plain, backend)]
        ways += [whole_way(gated, f"{backend} and gate"), _gate_alone(gated)] if gated.gate_in_use else []
        size = n if repeated else BLOCK  # a job sees 2,048 rows together
        for number, start in enumerate(range(0, len(texts), size)):
            block = texts[start : start + size]
            cut = windows_of(plain, block)
            for way in itertools.islice(itertools.cycle(ways), number, number + len(ways)):
                began = time.perf_counter()
                way.run(block, cut)
                way.seconds.append(time.perf_counter() - began)
        flagged = [prediction.flagged for prediction in plain.classify(texts)]
        with_gate = gated.classify(texts)
        kept = sum(a and b.flagged for a, b in zip(flagged, with_gate, strict=True))
        passed = np.mean([prediction.stage == "encoder" for prediction in with_gate])
        for way in ways:
            has_gate = "gate" in way.name
            rows.append(
                [
                    mix,
                    way.name,
                    f"{len(texts) / sum(way.seconds):,.0f}",
                    f"{tokens / sum(way.seconds):,.0f}",
                    way.ratio(pipe),
                    f"{kept} of {sum(flagged)}" if has_gate else "",
                    f"{passed:.0%}" if has_gate else "",
                ]
            )
    header = ["mix", "way", "prompts/s", "useful tokens/s", f"to {pipe.name}", "flagged, kept", "passed on"]
    print(f"{n:,} prompts of each mix\n\n{markdown_table(header, rows)}")


def _gate_alone(classifier: PromptClassifier) -> Way:
    """The floor of cost: tokenising and the gate, whatever passes."""

    def run(texts: list[str], _: object) -> None:
        classifier.prepare(texts)

    return Way("gate alone", run)


def main() -> None:
    """Measure the backend that is fastest here, or the one that is named."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", type=Path, help="the artefact's folder")
    options.add_argument("--prompts", nargs="+", default=[], metavar="FILE", help="labelled files of real prompts")
    options.add_argument("--n", type=int, default=PROMPTS, metavar="N", help=f"prompts (default: {PROMPTS})")
    options.add_argument("--backend", metavar="NAME", help="(default: what auto chooses of those exported)")
    asked = options.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    backend = asked.backend or PromptClassifier.load(asked.model, device="cpu").backend_name
    print(f"backends in the artefact: {', '.join(exported(asked.model))}; taken: {backend}\n")
    measure(asked.model, backend, asked.n, asked.prompts)


if __name__ == "__main__":
    main()
