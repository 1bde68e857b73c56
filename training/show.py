"""What a whole run left behind, for a person at a terminal."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from data.records import CATEGORIES
from inference.decision import DISTILLATION
from inference.job.readers import read_rows

from .encode import DataError
from .evaluation.sections import sections_from_json
from .report.tables import metrics_table

EXAMPLES = 5


def show_run(folder: Path) -> str:
    """Places, metrics and a few scored prompts of a folder laid out as `make demo` leaves it.

    Raises:
        DataError: the folder holds no finished run.
    """
    metrics, scored = folder / "evaluation" / "metrics.json", folder / "scored.parquet"
    if not metrics.is_file():
        raise DataError(f"{folder}: holds no evaluation/metrics.json; run make demo, or make train")
    sections = sections_from_json(json.loads(metrics.read_text(encoding="utf-8")))
    parts = [
        f"artefact       {folder / 'model'}",
        f"metrics        {metrics}",
        f"report         {folder / 'evaluation' / 'report.html'}  (open it in a browser)",
        "",
        metrics_table(sections, [DISTILLATION, *CATEGORIES]),
    ]
    if scored.is_file():
        parts[2:2] = [f"scored prompts {scored}"]
        parts += ["", f"{EXAMPLES} of the scored prompts:", *map(_example, choose(list(rows_of(scored))))]
    return "\n".join(parts)


def rows_of(scored: Path) -> list[dict[str, Any]]:
    """The rows of a scored file that were scored and kept their text."""
    rows = [row.values for row in read_rows(scored)]
    return [row for row in rows if row["error"] is None and row.get("text")]


def choose(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few rows over the whole range of scores, the highest first."""
    ranked = sorted(rows, key=lambda row: -row[DISTILLATION])
    if len(ranked) <= EXAMPLES:
        return ranked
    return [ranked[round(i * (len(ranked) - 1) / (EXAMPLES - 1))] for i in range(EXAMPLES)]


def _example(row: dict[str, Any]) -> str:
    verdict = "FLAGGED" if row["flagged"] else "passed"
    labels = ", ".join(row["labels"]) or "organic"
    text = textwrap.shorten(row["text"], 150, placeholder=" …")
    return f"  {row[DISTILLATION]:.3f}  {verdict:<8} {labels}\n         {text}"
