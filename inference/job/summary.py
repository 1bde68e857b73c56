"""What a job says of itself: its counts, and the summary beside its output."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .ledger import Ledger

if TYPE_CHECKING:
    from ..artefact import Assay, OperatingPoint
    from ..gate import Gate


_COUNTED = ("rows", "scored", "repeats", "cached", "gated", "errors", "flagged", "uncertain", "truncated")


def count(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Counts of output rows: all, scored, flagged and so on, and errors by kind."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts["rows"] += 1
        if row["error"] is not None:
            counts["errors"] += 1
            counts["error: " + re.sub(r"\d+", "N", row["error"])] += 1
            continue
        counts["scored"] += 1
        counts["gated"] += row["stage"] == "gate"
        counts.update(name for name in ("flagged", "uncertain", "truncated") if row[name])
        counts.update(f"label: {label}" for label in row["labels"])
    return counts


def too_many_errors(counts: Mapping[str, int], limit: int | float | None, *, final: bool = False) -> bool:
    """Whether more rows failed than allowed: a whole number of them, or a share once a thousand rows are seen."""
    errors, rows = counts.get("errors", 0), counts.get("rows", 0)
    if limit is None or isinstance(limit, int):
        return limit is not None and errors > limit
    return (final or rows >= 1000) and errors > limit * rows


def promises(assay: Assay, point_name: str, gate: Gate | None = None) -> dict[str, Any]:
    """What the artefact says of its operating points: the part of a summary that stands before a row is scored."""
    cuts = {} if gate is None else gate.cuts
    points = {
        name: {
            "thresholds": point.thresholds,
            "measured_fpr": _measured(point) | {"set_on": assay.set_on},
            "gate": asdict(cuts[name]) if name in cuts else None,
        }
        for name, point in assay.operating_points.items()
    }
    return {
        "artefact": assay.fingerprint,
        "operating_point": point_name,
        **points[point_name],
        "operating_points": points,  # for `decide`, which has no artefact at hand
    }


def summarise(ledger: Ledger) -> dict[str, Any]:
    """What `summary.json` says: which artefact decided what, by which thresholds, and how it came out."""
    counts, job = ledger.counts, ledger.job
    kinds = {name.removeprefix("error: "): n for name, n in sorted(counts.items()) if n and name.startswith("error: ")}
    rows = [sum(part.rows for part in file.parts.values()) for file in ledger.files]
    return {
        **job["promises"],
        "options": job["options"],
        "engine": job["engine"],
        "inputs": [{**file.file.to_json(), "rows": n} for file, n in zip(ledger.files, rows, strict=True)],
        "counts": {
            **{name: counts[name] for name in _COUNTED},
            "labels": {label: counts[f"label: {label}"] for label in job["labels"]},
            "errors_by_kind": kinds,
        },
    }


def _measured(point: OperatingPoint) -> dict[str, Any]:
    return {
        "n_organic": point.n_organic,
        "false_positives": point.false_positives,
        "rate": point.fpr,
        "low": point.fpr_low,
        "high": point.fpr_high,
    }
