"""How long a user waits before anything is scored: for the help, the imports, and an artefact to open.

    python -m tests.benchmarks.bench_start build/demo/model
    python -m tests.benchmarks.bench_start build/demo/model --profile    # where opening spends its time

Every run is a new process; the table has medians. The aims: help in half a second, opening in three, on 2 cores.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import subprocess
import sys
import time

from data.summary import markdown_table

RUNS = 5
_PROGRAM = """
import time
times = [time.perf_counter()]
import torch, transformers, inference.backends.pytorch, inference.tokenizer_file
import transformers.models.bert.modeling_bert, transformers.models.xlm_roberta.modeling_xlm_roberta  # else at load
from inference import PromptClassifier
times.append(time.perf_counter())
classifier = PromptClassifier.load({model!r}, device="cpu", backend="torch")
times.append(time.perf_counter())
classifier.classify(["How long do I boil an egg?"])
times.append(time.perf_counter())
print(*times)
"""


def measure(model: str) -> None:
    """Print seconds of each step."""
    seconds: dict[str, list[float]] = {}
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "inference", "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds.setdefault("python -m inference --help", []).append(time.perf_counter() - started)
        command = [sys.executable, "-c", _PROGRAM.format(model=model)]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        times = [float(word) for word in printed.split()]
        steps = ("torch, transformers and the rest imported", "PromptClassifier.load, after that", "the first prompt")
        for step, start, end in zip(steps, times, times[1:], strict=False):
            seconds.setdefault(step, []).append(end - start)
    rows = [[step, f"{statistics.median(found):.2f}", f"{min(found):.2f}"] for step, found in seconds.items()]
    print(markdown_table(["step", f"seconds, median of {RUNS}", "fastest"], rows))


def profile(model: str) -> None:
    """Print where opening spends its time, after imports."""
    import inference.backends.pytorch
    import inference.tokenizer_file  # noqa: F401
    from inference import PromptClassifier

    with cProfile.Profile() as found:
        PromptClassifier.load(model, device="cpu", backend="torch")
    pstats.Stats(found).strip_dirs().sort_stats("tottime").print_stats(12)


def main() -> None:
    """Measure what is asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", help="the artefact's folder")
    options.add_argument("--profile", action="store_true", help="instead: profile opening the artefact")
    asked = options.parse_args()
    (profile if asked.profile else measure)(asked.model)


if __name__ == "__main__":
    main()
