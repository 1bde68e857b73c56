"""Configurations side by side: fine-tuned on the same data, with several seeds, and measured on the same records."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from data.records import Record
from data.summary import markdown_table
from inference.artefact import write_text
from inference.decision import any_logit
from inference.scorer import LogitScorer

from ..config import RunConfig
from ..encode import DataError, any_label, label_row, share_of
from ..evaluation.labelled import pooled_logits
from ..finetune import FineTuned, fine_tune, read_splits
from ..metrics.ranking import Ranking, source_recalls, threshold_at
from ..runs import claim, identity, is_same

NONE_UNDER = 0.05
"""A smaller difference in recall is called none: on a few hundred finds chance alone can move it that far."""
_SHOWN = {
    "roc_auc": "area under ROC",
    "recall_at_fpr_5pct": "recall at 5 % FPR",
    "recall_at_fpr_1pct": "recall at 1 % FPR",
    "mean_source_recall_at_fpr_1pct": "recall at 1 %, source mean",
}
_COMPARED = "mean_source_recall_at_fpr_1pct"


def ablate(
    configs: Mapping[str, RunConfig], data: Path, records: Sequence[Record], seeds: Sequence[int], out: Path
) -> str:
    """Fine-tune and measure every configuration with every seed; what is done already is not done again.

    Args:
        configs: by name; the first is what the others are compared with.
        data: a built folder, of which `train` and `validation` are read.
        records: labelled records to measure on, from elsewhere.
        seeds: in place of each configuration's own.
        out: gets `NAME-SEED.json` for each run, and `table.md`.

    Returns:
        The table.
    """
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, config in configs.items():
        for seed in seeds:
            seeded = config.model_copy(update={"seed": seed})
            results.setdefault(name, []).append(_run(name, seeded, data, records, out))
    table = comparison(results)
    write_text(out / "table.md", table + "\n")
    return table


def _run(name: str, config: RunConfig, data: Path, records: Sequence[Record], out: Path) -> dict[str, Any]:
    path = out / f"{name}-{config.seed}.json"
    this_run = identity(config, data)
    code = this_run.pop("code_fingerprint")  # a table grows over days, and a comment mended meanwhile is no other run
    this_run["measured_on"] = _digest(records)
    if is_same(path, this_run):
        print(f"{path.stem}: done already", flush=True)
        return json.loads(path.read_text(encoding="utf-8"))["metrics"]
    print(f"{path.stem}", flush=True)
    work = claim(out / f"{path.stem}.run", this_run | {"code_fingerprint": code})
    tuned = fine_tune(config, read_splits(config, data), work)
    metrics = headline_of(records, logits_of(tuned.network, tuned, config, records), config.labels)
    write_text(path, json.dumps({"metrics": metrics, "provenance": this_run}, indent=2) + "\n")
    shutil.rmtree(work)
    return metrics


def _digest(records: Sequence[Record]) -> str:
    """Stands for the records that are measured on."""
    return hashlib.sha256("\n".join(sorted(record.id for record in records)).encode()).hexdigest()[:16]


def logits_of(network: PreTrainedModel, tuned: FineTuned, config: RunConfig, records: Sequence[Record]) -> np.ndarray:
    """Pooled logits `[prompts, labels]` of a network that is not saved yet, through the scorer's own class."""

    @torch.inference_mode()
    def backend(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        ids, mask = torch.from_numpy(input_ids), torch.from_numpy(attention_mask)
        return network(input_ids=ids, attention_mask=mask).logits.float().numpy()

    windower = tuned.encoder.windower(config.windows.spec())
    scorer = LogitScorer(windower, backend, network.config.pad_token_id or 0)
    return pooled_logits(scorer, records)


def headline_of(records: Sequence[Record], logits: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Ranking metrics, and recall and false positives by language at the threshold of 1 % over all together."""
    truth = any_label(np.array([label_row(record.labels, record.judged, names) for record in records]))
    scores = any_logit(logits)
    positive, organic = truth == 1, truth == 0
    if organic.sum() < 100 or not positive.any():
        raise DataError(
            f"{organic.sum()} organic records and {positive.sum()} others to measure on; 100 and 1 are needed"
        )
    ranking = Ranking(scores[truth >= 0], positive[truth >= 0])
    over = scores > threshold_at(scores, organic, 0.01)
    sources = np.array([record.source for record in records], dtype=object)
    metrics = {
        "roc_auc": float(ranking.roc_auc()[0]),
        "recall_at_fpr_5pct": float(ranking.recall_at_fpr(0.05)[0]),
        "recall_at_fpr_1pct": float(ranking.recall_at_fpr(0.01)[0]),
        _COMPARED: float(source_recalls(over, positive, sources).mean()),
    }
    languages = np.array([record.lang if record.lang in ("en", "zh") else "other" for record in records])
    for language in ("en", "zh", "other"):
        here = languages == language
        judged = here & (truth >= 0)
        if (here & positive).any() and (here & organic).any():
            metrics[f"roc_auc {language}"] = float(Ranking(scores[judged], positive[judged]).roc_auc()[0])
        if (here & positive).any():
            metrics[f"recall {language}"] = float(over[here & positive].mean())
        if (here & organic).any():
            metrics[f"false positives {language}"] = float(over[here & organic].mean())
    return metrics


def comparison(results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """A row for each configuration: means over seeds with their range, and the difference to the first."""
    first = next(iter(results))
    metrics = [*_SHOWN, *(name for name in results[first][0] if name not in _SHOWN)]
    rows = []
    for name, runs in results.items():
        cells = []
        for metric in metrics:
            values = [run[metric] for run in runs]
            spread = f" ({min(values):.3f}–{max(values):.3f})" if len(values) > 1 and metric in _SHOWN else ""
            cells.append(f"{np.mean(values):.3f}{spread}")
        change = float(np.mean([run[_COMPARED] for run in runs]) - np.mean([run[_COMPARED] for run in results[first]]))
        verdict = "–" if name == first else "none" if abs(change) < NONE_UNDER else f"{change:+.3f}"
        rows.append([name, *cells, verdict])
    header = ["configuration", *(_SHOWN.get(metric, metric) for metric in metrics), f"against {first}"]
    return markdown_table(header, rows)


def sample(records: Sequence[Record], per_source: int | None) -> list[Record]:
    """At most so many records of each source, chosen by id."""
    if per_source is None:
        return list(records)
    by_source: dict[str, list[Record]] = {}
    for record in records:
        by_source.setdefault(record.source, []).append(record)
    return [
        record
        for _, inside in sorted(by_source.items())
        for record in sorted(inside, key=lambda record: share_of(record.id, 0))[:per_source]
    ]
