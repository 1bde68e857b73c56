"""Leave-one-source-out: train on all sources but some, measure on those, until each source was left out once.

A random split flatters: prompts of one source are alike in ways that no new source shares. What a source's prompts get
from a model that saw nothing of the source is the nearest thing to what the next source will get.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tqdm import tqdm

from data.reading import SPLITS
from data.records import Record
from data.summary import markdown_table
from inference.artefact import write_text
from inference.decision import any_logit
from inference.windows import Windower

from ..config import RunConfig
from ..encode import DataError, check_labels, choose_prompts, encode, load_split, records_of, share_of
from ..encoders import find_encoder
from ..metrics.intervals import ClusterBootstrap, Estimate, exact_interval
from ..metrics.measures import share_measures
from ..metrics.ranking import threshold_at
from ..runs import RunError, claim, identity, is_same
from .baselines import FrozenEncoder, fit_weighted, linear_probe, truth_of
from .labelled import clusters_of, is_ambiguous

MIN_CLUSTERS = 10
"""Of fewer clusters no interval is drawn: the values of each are told."""
MIN_ORGANIC = 100
"""A rate of 1 % means something over so many organic prompts."""
VALIDATION = 0.1
"""Share of the clusters of a fold's training side that a whole run validates on."""
_CHUNK = 256
_EMBEDDINGS = "embeddings.safetensors"
_RUN_FILE = "run.json"
_COLUMNS = {
    "recall": "recall at 1 % FPR",
    "roc_auc": "area under ROC",
    "false_positive_rate": "false-positive rate",
}
_MEANS = (*_COLUMNS, "recall_one_threshold")


@dataclass(frozen=True)
class Pool:
    """All prompts of a built folder: rows and records in one order, and of each `[n]` what folds are made by.

    `truth` is 1, 0, or negative where nobody knows; `fold` is the number of the fold that holds the prompt out.
    """

    rows: Dataset
    records: list[Record]
    truth: np.ndarray
    sources: np.ndarray
    clusters: np.ndarray
    fold: np.ndarray

    @property
    def clear(self) -> np.ndarray:
        """Prompts that can be decided, a mask `[n]`: known ones that the labeller does not call ambiguous."""
        return (self.truth >= 0) & ~np.array([is_ambiguous(record) for record in self.records], bool)

    def held(self, fold: int) -> np.ndarray:
        """Who is measured in a fold: a mask `[n]`."""
        return self.fold == fold

    def training(self, fold: int) -> np.ndarray:
        """Who may be trained on in a fold, a mask `[n]`: nobody who shares a cluster with a prompt that is held out."""
        return ~np.isin(self.clusters, self.clusters[self.held(fold)])


def loso(config: RunConfig, data: Path, out: Path, folds: int = 8, whole_runs: bool = False) -> str:
    """Leave each source out once, and leave `folds/N.json`, `loso.json` and `loso.md` in `out`; what stands is kept.

    Args:
        config: the run; without `whole_runs` its encoder, windows and labels count.
        data: a built folder, of which all splits are read.
        out: for folds, embeddings and results.
        folds: groups of sources that are left out together; as many as there are sources, if they are fewer.
        whole_runs: fine-tune in each fold, as `config` says, instead of a linear probe on the frozen encoder.

    Returns:
        The table, as Markdown.

    Raises:
        DataError: there are not enough sources, or a fold would leave one class to train on.
        RunError: another run's results stand in `out`.
        EncoderError: the encoder is not there.
    """
    this_run = identity(config, data) | {"folds": folds, "whole_runs": whole_runs}
    pool = read_pool(config, data, folds)
    if not is_same(out / _RUN_FILE, this_run):
        if out.exists() and any(out.iterdir()):
            raise RunError(
                f"{out}: holds something else, or folds of another configuration, data or code; name another folder, "
                "or remove it"
            )
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / _RUN_FILE, json.dumps({"provenance": this_run}, indent=2) + "\n")
    (out / "folds").mkdir(exist_ok=True)
    scores = np.full(len(pool.records), np.nan)
    for fold in range(int(pool.fold.max()) + 1):
        scores[pool.held(fold)] = _fold(config, pool, fold, out, this_run, whole_runs)
    found = results(pool, scores)
    table = report(found, whole_runs)
    content = {
        "provenance": this_run,
        "means": {name: estimate.to_json() for name, estimate in means(found).items()},
        "sources": [result.to_json() for result in found],
    }
    write_text(out / "loso.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_text(out / "loso.md", table + "\n")
    return table


def read_pool(config: RunConfig, data: Path, folds: int) -> Pool:
    """All splits of a built folder as one, each source in its fold.

    Raises:
        DataError: see `loso`.
    """
    files = [data / f"{name}.parquet" for name in SPLITS]
    full = [path.stem for path in files if path.is_file() and pq.read_metadata(path).num_rows]
    if not full:
        raise DataError(f"{data}: none of its splits holds a record")
    rows = concatenate_datasets([load_split(data, name) for name in full])
    records = records_of(rows)
    check_labels(records, config.labels)
    truth = truth_of(records, config.labels)
    sources = np.array([record.source for record in records], dtype=object)
    if folds < 2 or len(set(sources)) < 2:
        raise DataError(
            f"{data}: {len(set(sources))} source(s) in {folds} fold(s); leaving sources out needs two of each: give "
            "the records a `source`, and --folds 2 or more"
        )
    pool = Pool(rows, records, truth, sources, clusters_of(records), source_folds(sources, truth == 1, folds))
    if (organic := int((pool.clear & (truth == 0)).sum())) < MIN_ORGANIC:
        raise DataError(f"{data}: {organic} organic prompts, and a rate of 1 % needs {MIN_ORGANIC}; add some")
    for fold in range(int(pool.fold.max()) + 1):
        left = truth[pool.training(fold)]
        if not (left == 1).any() or not (left == 0).any():
            without = ", ".join(sorted(set(sources[pool.held(fold)])))
            raise DataError(
                f"{data}: without {without} (and what is alike) {int((left == 1).sum()):,} positive and "
                f"{int((left == 0).sum()):,} organic prompts are left to train on; each class needs two sources or "
                "more, so add some, or choose another number of folds"
            )
    return pool


def source_folds(sources: np.ndarray, positive: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each prompt, `[n]` from 0: sources stay whole, folds are of about one size and hold both classes.

    Greedy, as in scikit-learn's StratifiedGroupKFold, which refuses classes with fewer prompts than folds: the largest
    source first, each to the fold that holds least of its classes, and of those to the smallest.
    """
    classes = np.stack([positive, ~positive], axis=1).astype(np.int64)
    counts = {source: classes[sources == source].sum(axis=0) for source in sorted(set(sources))}
    shares = 1 / np.maximum(1, classes.sum(axis=0))
    held = np.zeros((min(folds, len(counts)), 2), np.int64)
    fold = np.zeros(len(sources), np.int64)
    for source in sorted(counts, key=lambda name: (-int(counts[name].sum()), name)):
        crowded = (held * counts[source] * shares**2).sum(axis=1)
        chosen = min(range(len(held)), key=lambda number: (crowded[number], int(held[number].sum()), number))
        held[chosen] += counts[source]
        fold[sources == source] = chosen
    return fold


def _fold(
    config: RunConfig, pool: Pool, fold: int, out: Path, this_run: Mapping[str, Any], whole_runs: bool
) -> np.ndarray:
    """Scores of what the fold holds out, in the pool's order; from its file, where it is done already."""
    path = out / "folds" / f"{fold}.json"
    if is_same(path, this_run):
        return np.array(json.loads(path.read_text(encoding="utf-8"))["scores"])
    held, training = pool.held(fold), pool.training(fold)
    sources = sorted(set(pool.sources[held]))
    print(f"fold {fold + 1}: {held.sum():,} prompts of {', '.join(sources)}", flush=True)
    scores = (_run if whole_runs else _probe)(config, pool, fold, out, this_run)
    content = {
        "provenance": this_run,
        "sources": sources,
        "trained_on": int(training.sum()),
        "alike_left_out": int((~training & ~held).sum()),
        "ids": [record.id for record, here in zip(pool.records, held, strict=True) if here],
        "scores": scores.tolist(),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
    shutil.rmtree(_work(out, fold), ignore_errors=True)
    return scores


def _probe(config: RunConfig, pool: Pool, fold: int, out: Path, this_run: Mapping[str, Any]) -> np.ndarray:
    states = embeddings(config, pool, out)
    taught = pool.training(fold) & (pool.truth >= 0)
    weights = np.array([record.weight for record in pool.records])
    probe = fit_weighted(linear_probe(), states[taught], pool.truth[taught] == 1, weights[taught])
    return np.asarray(probe.decision_function(states[pool.held(fold)]), np.float64)


def embeddings(config: RunConfig, pool: Pool, out: Path) -> np.ndarray:
    """The frozen encoder's means of all prompts, float32 `[n, width]`; in parts, so that a killed run goes on."""
    whole, parts = out / _EMBEDDINGS, out / "embeddings"
    if not whole.is_file():
        encoder = FrozenEncoder(config)
        parts.mkdir(exist_ok=True)
        files = []
        with tqdm(total=len(pool.records), unit="prompt", desc="embedding", mininterval=0.5) as bar:
            for start in range(0, len(pool.records), _CHUNK):
                some = pool.records[start : start + _CHUNK]
                files.append(parts / f"{start}.safetensors")
                if not files[-1].is_file():
                    _save(files[-1], encoder.means(some))
                bar.update(len(some))
        _save(whole, np.concatenate([load_file(path)["states"] for path in files]))
    shutil.rmtree(parts, ignore_errors=True)
    return load_file(whole)["states"]


def _save(path: Path, states: np.ndarray) -> None:
    temporary = path.with_name(path.name + ".writing")
    save_file({"states": states}, temporary)
    temporary.replace(path)


def _run(config: RunConfig, pool: Pool, fold: int, out: Path, this_run: Mapping[str, Any]) -> np.ndarray:
    """A whole run on the fold's training side, a tenth of whose clusters is kept for validation."""
    from ..finetune import Splits, fine_tune, quiet
    from ..tuning.ablation import logits_of

    quiet()
    training = pool.training(fold)
    apart = {name for name in set(pool.clusters[training]) if share_of(str(name), config.seed) < VALIDATION}
    validation = training & np.isin(pool.clusters, list(apart))
    encoder = find_encoder(config.encoder)
    windower = Windower(Tokenizer.from_file(str(encoder.folder / "tokenizer.json")), config.windows.spec())
    parts = []
    for chosen, limit in ((training & ~validation, config.fit.max_prompts), (validation, None)):
        if len(set(pool.truth[chosen & (pool.truth >= 0)])) < 2:
            raise DataError(f"fold {fold + 1}: too few clusters to train and to validate on; choose fewer folds")
        rows = choose_prompts(pool.rows.select(np.flatnonzero(chosen)), limit, config.seed)
        parts.append(encode(rows, windower, config.labels, config.fit.flatten_chats, config.seed))
    tuned = fine_tune(config, Splits(encoder, *parts), claim(_work(out, fold), this_run))
    held = [record for record, here in zip(pool.records, pool.held(fold), strict=True) if here]
    return any_logit(logits_of(tuned.network, tuned, config, held))


def _work(out: Path, fold: int) -> Path:
    """Where a whole run of a fold keeps its checkpoints."""
    return out / "folds" / f"{fold}.run"


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What became of a source when it was left out; a metric is None where the source has no prompts for it."""

    source: str
    fold: int
    n: int
    recall: Estimate | None
    recall_one_threshold: Estimate | None
    roc_auc: Estimate | None
    false_positive_rate: Estimate | None
    pooled: bool
    """Whether the fold holds too few organic prompts, so that those of all folds set its threshold."""

    def to_json(self) -> dict[str, Any]:
        """For `loso.json`."""
        return {
            name: value.to_json() if isinstance(value, Estimate) else value
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
        }


def results(pool: Pool, scores: np.ndarray) -> list[SourceResult]:
    """Each source against the organic prompts that were left out with it, by name.

    A fold has a model of its own, and scores of two models need not agree: so the threshold of 1 % false positives
    is set in each fold on its own organic prompts, as long as it holds `MIN_ORGANIC`, and by those of all folds where
    it does not. `recall_one_threshold` is what a single threshold over all folds gives; how far the two lie apart says
    how well the folds' scores agree. Prompts that nobody can decide count in neither.

    Args:
        pool: the prompts.
        scores: out-of-fold, `[n]`.
    """
    clear = pool.clear
    positive, organic = clear & (pool.truth == 1), clear & (pool.truth == 0)
    over_all = scores > threshold_at(scores, organic, 0.01)
    found = []
    for source in sorted(set(pool.sources)):
        here = pool.sources == source
        fold = int(pool.fold[here][0])
        beside = organic & pool.held(fold)
        pooled = beside.sum() < MIN_ORGANIC
        beside = organic if pooled else beside
        over = scores > threshold_at(scores, beside, 0.01)
        ranked = np.sort(scores[beside])
        # The chance that a prompt scores over an organic one, ties counted half: its mean is the area under ROC.
        places = (np.searchsorted(ranked, scores) + np.searchsorted(ranked, scores, "right")) / 2 / len(ranked)
        found.append(
            SourceResult(
                source,
                fold,
                int((here & clear).sum()),
                _mean_over(over, here & positive, pool.clusters),
                _mean_over(over_all, here & positive, pool.clusters),
                _mean_over(places, here & positive, pool.clusters),
                _mean_over(over, here & organic, pool.clusters),
                bool(pooled),
            )
        )
    return found


def _mean_over(values: np.ndarray, chosen: np.ndarray, clusters: np.ndarray) -> Estimate | None:
    """The mean of the chosen values, its interval over whole clusters, or the means of the clusters if they are few."""
    if not chosen.any():
        return None
    values, clusters = values[chosen].astype(np.float64), clusters[chosen]
    names, member = np.unique(clusters, return_inverse=True)
    mean, n = float(values.mean()), len(values)
    if len(names) < MIN_CLUSTERS:
        singles = np.sort(np.bincount(member, values) / np.bincount(member))
        return Estimate(mean, None, None, n, ", ".join(f"{value:.2f}" for value in singles))
    if mean in (0.0, 1.0):  # nothing varies over draws: take the clusters for so many trials with one outcome
        return Estimate(mean, *exact_interval(round(mean) * len(names), len(names)), n)
    everyone = np.ones(n, bool)
    return ClusterBootstrap(clusters).estimates(share_measures("mean", values), everyone)["mean"]


def means(found: Sequence[SourceResult]) -> dict[str, Estimate]:
    """Means over sources, in which a large source counts no more than a small one, with a bootstrap over sources."""
    together: dict[str, Estimate] = {}
    for name in _MEANS:
        values = [estimate.value for result in found if (estimate := getattr(result, name)) is not None]
        mean = _mean_over(np.array(values), np.ones(len(values), bool), np.arange(len(values)))
        together |= {} if mean is None else {name: mean}
    return together


def report(found: Sequence[SourceResult], whole_runs: bool) -> str:
    """The table by source, and how to read it, as Markdown."""
    overall = means(found)
    rows = [
        [result.source, str(result.fold + 1), str(result.n), *(_cell(getattr(result, name)) for name in _COLUMNS)]
        for result in found
    ]
    rows.append(["mean over sources", "", "", *(_cell(overall.get(name)) for name in _COLUMNS)])
    table = markdown_table(["source", "fold", "prompts", *_COLUMNS.values()], rows)
    what = "whole runs" if whole_runs else "a linear probe on the frozen encoder"
    lines = [
        f"{len(found)} sources in {len({result.fold for result in found})} folds, each measured by a model that saw "
        f"nothing of it: {what}. In brackets 95 % intervals over clusters, and over sources in the last row; of fewer "
        f"than {MIN_CLUSTERS} the single values, after a colon.",
        "The threshold is that of 1 % false positives on the organic prompts of the fold, whose model no other fold "
        "shares; the area is that of a source's positives against the same prompts.",
    ]
    if "recall_one_threshold" in overall:
        one = _cell(overall["recall_one_threshold"])
        lines.append(f"With one threshold for all folds, though their scores need not agree, mean recall is {one}.")
    if few := sorted({result.fold + 1 for result in found if result.pooled}):
        numbers = ", ".join(map(str, few))
        lines.append(f"Fold {numbers}: under {MIN_ORGANIC} organic prompts, so those of all folds stand in for them.")
    return "\n\n".join([table, *lines])


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None:
        return f"{estimate.value:.3f}: {estimate.note}"
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"
