"""How fast `data` checks and builds, how much memory it takes, and whether both grow linearly.

Run on a quiet machine: python -m tests.benchmarks.bench_data

The prompts are made of random words at lengths like those of real traffic (short organic ones, long templated ones),
a twentieth are near-duplicates of others, and a tenth come in template families.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from data.records import CATEGORIES
from data.summary import markdown_table

SIZES = (50_000, 100_000, 200_000)
_CHILD = (
    "import resource, sys; from data.__main__ import main; status = main(sys.argv[1:]);"
    "print(f'peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}'); sys.exit(status)"
)


def write_prompts(path: Path, n: int, seed: int = 0) -> int:
    """Write `n` labelled prompts; the number of characters."""
    random = np.random.default_rng(seed)
    words = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "n", "r", "st", "lo", "mi")])
    words = np.concatenate([words, np.char.add(words, "ta"), np.char.add("re", words), np.char.add(words, "ing")])
    weights = 1 / np.arange(1, len(words) + 1)
    weights /= weights.sum()
    frames = [" ".join(random.choice(words, 120)) for _ in range(max(1, n // 2000))]
    characters, last, labels = 0, ["start"], []
    with path.open("w", encoding="utf-8") as stream:
        for number in range(n):
            organic = number % 20 < 11
            # Medians of about 17 words (organic) and 240 words, with long tails.
            length = int(np.clip(random.lognormal(2.85 if organic else 5.5, 1.2 if organic else 0.9), 3, 4000))
            row: dict[str, object] = {"labels": [] if organic else [CATEGORIES[number % 3]]}
            text = random.choice(words, length, p=weights).tolist()
            if number % 20 == 19:  # nearly the one before
                text, row["labels"] = [*last], labels
                text[int(random.integers(len(text)))] = "changed"
            elif number % 20 in (4, 9):
                frame = int(random.integers(len(frames)))
                text = [frames[frame], *text[:60]]
                row["group"] = f"frame {frame}"
            last, labels = text, row["labels"]
            row |= {"text": " ".join(text), "source": f"source-{number % 37}", "lang": "en"}
            line = json.dumps(row) + "\n"
            characters += len(line)
            stream.write(line)
    return characters


def run(*arguments: str) -> tuple[float, float]:
    """Seconds and MB at the peak of one command of `data` in a process of its own."""
    start = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", _CHILD, *arguments], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if ran.returncode:
        raise SystemExit(ran.stdout[-2000:] + ran.stderr[-2000:])
    return seconds, int(ran.stdout.split("peak ")[1]) / 1024


def write_fillings(path: Path, n: int) -> None:
    """Write one template of 300 words filled `n` times with 60 others: alike, but no near-duplicates, and no group."""
    random = np.random.default_rng(0)
    head = " ".join(f"fixed{i}" for i in range(300))
    with path.open("w", encoding="utf-8") as stream:
        for number in range(n):
            text = " ".join([head, *(f"slot{i}" for i in random.integers(0, 5000, 60))])
            labels = [CATEGORIES[number % 4]] if number % 4 < 3 else []
            stream.write(json.dumps({"text": text, "labels": labels}) + "\n")


def measure_sizes(sizes: list[int]) -> None:
    """Check and build at every size, and print one table."""
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path, out = Path(folder) / "in.jsonl", Path(folder) / "out"
            megabytes = write_prompts(path, size) / 1e6
            checked, check_memory = run("check", str(path))
            built, build_memory = run("build", str(path), "--out", str(out))
            removed = sum(json.loads((out / "manifest.json").read_text())["records"]["removed"].values())
        figures = (megabytes, checked, check_memory, built, build_memory)
        rows.append([f"{size:,}", *(f"{figure:.1f}" for figure in figures), f"{removed:,}"])
        print(f"{size:,} prompts: checked in {checked:.1f} s, built in {built:.1f} s", file=sys.stderr)
    header = ["prompts", "MB", "check, s", "check, MB", "build, s", "build, MB at the peak", "removed"]
    print(markdown_table(header, rows))
    if len(rows) > 1:
        growth = float(rows[-1][4]) / float(rows[0][4])
        print(f"\n{sizes[-1] / sizes[0]:.1f} times the prompts took {growth:.1f} times the time to build")


def measure_fillings(n: int) -> None:
    """Build one template filled `n` times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        write_fillings(path, n)
        seconds, memory = run("build", str(path), "--out", str(Path(folder) / "out"))
    print(f"one template filled {n:,} times: built in {seconds:.0f} s, {memory:.0f} MB at the peak")


def measure_check(gigabytes: float) -> None:
    """Check one JSONL file of so many GB."""
    with tempfile.TemporaryDirectory() as folder:
        part, path = Path(folder) / "part.jsonl", Path(folder) / "in.jsonl"
        write_prompts(part, 100_000)
        block, written = part.read_bytes(), 0
        with path.open("wb") as stream:
            while written < gigabytes * 1e9:
                written += stream.write(block)
        seconds, memory = run("check", str(path))
    print(f"{written / 1e9:.1f} GB: checked in {seconds:.0f} s, {memory:.0f} MB at the peak")


def main() -> None:
    """Measure what is asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="prompts (default: %(default)s)")
    options.add_argument("--fillings", type=int, metavar="N", help="instead: one template filled N times")
    options.add_argument("--gigabytes", type=float, metavar="G", help="instead: check a file of G gigabytes")
    asked = options.parse_args()
    if asked.fillings:
        measure_fillings(asked.fillings)
    elif asked.gigabytes:
        measure_check(asked.gigabytes)
    else:
        measure_sizes(list(asked.sizes))


if __name__ == "__main__":
    main()
