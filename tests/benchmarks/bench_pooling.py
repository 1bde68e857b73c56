"""Whether a long organic prompt is likelier to be flagged than a short one, by how its windows become one score.

    python -m tests.benchmarks.bench_pooling MODEL labelled/*.jsonl

The first table sets one threshold for each way, over which 1 % of all organic prompts lie, and says how many lie over
it by number of windows. Long prompts may be harder by what they say: the first window alone shows that. The second
table takes content out of the question: its long prompts are windows of short organic prompts, put together at random.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from data.reading import load_records
from data.summary import markdown_table
from inference import PromptClassifier
from inference.decision import any_logit
from inference.job.files import find_files
from inference.windows import pool_logits
from training.metrics.intervals import exact_interval
from training.metrics.ranking import threshold_at

FPR = 0.01
GROUPS = {"1 window": (1, 1), "2": (2, 2), "3 or 4": (3, 4), "5 or more": (5, 10**9)}
TOGETHER = (1, 2, 3, 4, 6)
DRAWS = 20_000
LONG_ENOUGH = 100
"""Tokens of a short prompt whose window may stand in a long one."""
Pool = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _each(reduce: Callable[[np.ndarray], np.ndarray]) -> Pool:
    def pool(logits: np.ndarray, owner: np.ndarray) -> np.ndarray:
        parts = np.split(logits, np.flatnonzero(np.diff(owner)) + 1)
        return np.array([reduce(part) for part in parts])

    return pool


def _ours(logits: np.ndarray, owner: np.ndarray) -> np.ndarray:
    return pool_logits(torch.from_numpy(logits), torch.from_numpy(owner), int(owner[-1]) + 1).numpy()


POOLS: dict[str, Pool] = {
    "log-mean-exp (ours)": _ours,
    "maximum": _each(lambda part: part.max(axis=0)),
    "mean": _each(lambda part: part.mean(axis=0)),
    "log-sum-exp": _each(lambda part: np.logaddexp.reduce(part, axis=0)),
    "first window alone": _each(lambda part: part[0]),
}


def by_length(logits: np.ndarray, owner: np.ndarray, organic: np.ndarray) -> None:
    """Print the share of organic prompts over each way's threshold, by number of windows, and recall."""
    counts = np.bincount(owner)
    rows = []
    for name, pool in POOLS.items():
        scores = any_logit(pool(logits, owner))
        over = scores >= threshold_at(scores, organic, FPR)
        row = [name]
        for low, high in GROUPS.values():
            inside = over[organic & (counts >= low) & (counts <= high)]
            least, most = exact_interval(int(inside.sum()), len(inside))
            row.append(f"{inside.mean():.1%} ({least:.1%} to {most:.1%})")
        rows.append([*row, f"{over[~organic].mean():.3f}"])
    sizes = [int((organic & (counts >= low) & (counts <= high)).sum()) for low, high in GROUPS.values()]
    header = [f"{group}, {size:,} organic" for group, size in zip(GROUPS, sizes, strict=True)]
    print(markdown_table(["pooling", *header, f"recall, {(~organic).sum():,} others"], rows))


def by_chance(short: np.ndarray) -> None:
    """Print the share of prompts over the threshold of one window, whose windows were drawn from `short`."""
    rows = []
    for name, pool in POOLS.items():
        row, threshold = [name], np.quantile(any_logit(short), 1 - FPR)
        for n in TOGETHER:
            drawn = short[np.random.default_rng(n).integers(0, len(short), DRAWS * n)]
            scores = any_logit(pool(drawn, np.repeat(np.arange(DRAWS), n)))
            row.append(f"{(scores >= threshold).mean():.1%}")
        rows.append(row)
    print(markdown_table(["pooling", *(f"{n} windows" if n > 1 else "1 window" for n in TOGETHER)], rows))


def main() -> None:
    """Score, and print both tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", help="the artefact's folder")
    options.add_argument("files", nargs="+", help="labelled files of prompts that the model has not seen")
    options.add_argument("--n", type=int, default=1500, help="distillation prompts at most (default: %(default)s)")
    options.add_argument("--organic", type=int, default=10_000, help="organic ones at most (default: %(default)s)")
    asked = options.parse_args()
    scorer = PromptClassifier.load(asked.model, device="cpu", backend="torch").scorer
    records, _ = load_records(find_files(asked.files))
    records = [record for record in records if not record.extra.get("ambiguous") and record.extra.get("tier") != "C"]
    random = np.random.default_rng(0)
    kinds = {True: asked.organic, False: asked.n}
    chosen = [
        record
        for organic, most in kinds.items()
        for record in random.permutation(np.array([r for r in records if bool(r.labels) != organic], dtype=object))[
            :most
        ]
    ]
    prompts = scorer.windower([record.rendered for record in chosen])
    with tqdm(total=1.0, desc="scoring", unit_scale=True) as bar:
        logits = scorer.run([ids for prompt in prompts for ids in prompt.ids], lambda done: bar.update(done - bar.n))
    owner = np.repeat(np.arange(len(prompts)), [len(prompt.ids) for prompt in prompts])
    organic = np.array([not record.labels for record in chosen])
    by_length(logits, owner, organic)
    print(
        f"\nwindows of organic prompts of {LONG_ENOUGH} tokens and more that are one window, put together at random:\n"
    )
    alone = np.array([len(p.ids) == 1 and p.n_tokens >= LONG_ENOUGH for p in prompts]) & organic
    by_chance(logits[alone[owner]])


if __name__ == "__main__":
    main()
