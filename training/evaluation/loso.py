"""Leave-one-source-out: train on all sources but some, measure on those, until each source was left out once.

A random split flatters: prompts of one source are alike in ways that no new source shares. What a source's prompts get
from a model that saw nothing of the source is the nearest thing to what the next source will get.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from inference.artefact import write_text
from inference.decision import any_logit

from ..config import RunConfig
from ..encode import DataError, choose_prompts, encode, share_of
from ..encoders import find_encoder
from ..runs import RunError, claim, identity, is_same
from .frozen import FrozenEncoder, fit_weighted, linear_probe
from .loso_folds import Pool, read_pool
from .loso_report import means, report, results

VALIDATION = 0.1
"""Share of the clusters of a fold's training side that a whole run validates on."""
_CHUNK = 256
_EMBEDDINGS = "embeddings.safetensors"
_RUN_FILE = "run.json"


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
    windower = encoder.windower(config.windows.spec())
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
