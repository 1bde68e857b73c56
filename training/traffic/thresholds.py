"""Thresholds from a user's own traffic: unlabelled prompts, almost wholly organic.

Thresholds that were set on shipped data do not keep their promise elsewhere. Here the operating points at a
false-positive rate are set anew, and a new artefact is written. Weights, calibration, the abstention band and
`balanced` need labels, and stay as they are.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from inference.artefact import ASSAY_FILE, CARD_FILE, Assay, OperatingPoint, file_hash, load_artefact, save_artefact
from inference.backends import BACKENDS
from inference.decision import DISTILLATION
from inference.gate import GATE_FOLDER
from inference.job.files import find_files
from inference.job.score import ScoreOptions

from ..calibrate import FPR_POINTS, fpr_threshold
from ..evaluation.seen import write_seen
from ..metrics.intervals import exact_interval
from ..metrics.ranking import rate_name
from .reading import Traffic, TrafficError, read_traffic
from .report import MovedPoint, TrafficReport

ASSUMED_RATE = 0.001


def calibrate_on_traffic(
    model: Path,
    traffic: Sequence[str],
    out: Path,
    assumed_rate: float = ASSUMED_RATE,
    text_column: str | None = None,
    messages_column: str | None = None,
    overwrite: bool = False,
) -> TrafficReport:
    """Set the operating points of an artefact anew, and write a new artefact.

    Args:
        model: the artefact's folder; it is left as it is.
        traffic: files, folders or globs of prompts, or of what `python -m inference score` made of them with this
            very artefact.
        out: the new artefact's folder.
        assumed_rate: the largest share of distillation among the distinct prompts, from 0 to under 0.5.
        text_column: where the prompts stand, as in a score job.
        messages_column: likewise, for chat messages.
        overwrite: replace the artefact in `out`, when the new one is complete.

    Raises:
        TrafficError, ArtefactError, InputError: nothing was written; the message says why and what to do.
    """
    if not 0 <= assumed_rate < 0.5:
        raise TrafficError(f"--assumed-rate {assumed_rate:g}: must be a share from 0 to under 0.5, such as 0.001")
    old = load_artefact(model)
    paths = find_files(traffic)
    _check_places(model, out, paths, overwrite)
    options = ScoreOptions(traffic, str(model), str(out), text_column=text_column, messages_column=messages_column)
    read = read_traffic(paths, old, options)
    new = _with_points(old, read, paths, assumed_rate)
    report = TrafficReport(
        model=str(model),
        out=out,
        parent=old.fingerprint,
        fingerprint=new.fingerprint,
        rows=read.rows,
        prompts=read.prompts,
        errors=read.errors,
        unkeyed=read.unkeyed,
        assumed_rate=assumed_rate,
        points=tuple(_moved(name, old, new, read, assumed_rate) for name in new.operating_points),
        dropped={point_name(fpr): _needed(fpr) for fpr in FPR_POINTS if point_name(fpr) not in new.operating_points},
        default_before=old.default_point,
        default=new.default_point,
    )
    _write(model, out.resolve(), new, report, read.hashes)
    return report


def traffic_points(scores: Mapping[str, np.ndarray], assumed_rate: float) -> dict[str, OperatingPoint]:
    """The operating points that traffic can carry: as elsewhere, a rate needs 3 / rate prompts.

    Of n prompts at least n (1 - assumed_rate) are organic. If at most that many times the target are flagged, the
    rate of false positives among the organic ones is at or under the target, however many of the flagged are
    distillation. Where more than the assumed share is distillation, a share s, the rate stays under target times
    (1 - assumed_rate) / (1 - s): what a wrong assumption costs is finds, hardly false alarms.

    Args:
        scores: calibrated probabilities `[prompts]` of distillation and of each category.
        assumed_rate: the largest share of distillation among the prompts.
    """
    n = len(scores[DISTILLATION])
    everything = np.ones(n, dtype=bool)
    points = {}
    for fpr in FPR_POINTS:
        if n < _needed(fpr):
            continue
        share = fpr * (1 - assumed_rate)
        thresholds = {name: fpr_threshold(values, everything, share) for name, values in scores.items()}
        flagged = int((scores[DISTILLATION] >= thresholds[DISTILLATION]).sum())
        low, high = organic_interval(flagged, n, assumed_rate)
        points[point_name(fpr)] = OperatingPoint(thresholds, fpr, n, flagged, low, high)
    return points


def organic_interval(flagged: int, n: int, assumed_rate: float) -> tuple[float, float]:
    """95 % interval of the false-positive rate among organic prompts, where `flagged` of `n` prompts are flagged.

    With a share s of distillation, of which a part p is flagged, the flagged share is q = (1 - s) rate + s p. Over
    all s up to `assumed_rate` and all p, the rate lies between (q - s) / (1 - s) and q / (1 - s), widest at the
    largest s. For q stands its exact interval. That one holds for a threshold between two scores of the same sample
    too, since the share over the k-th highest of n is distributed as Beta(k, n - k + 1) (Wilks 1941).
    """
    low, high = exact_interval(flagged, n)
    return max(0.0, (low - assumed_rate) / (1 - assumed_rate)), min(1.0, high / (1 - assumed_rate))


def point_name(fpr: float) -> str:
    """The operating point at a false-positive rate."""
    return f"fpr-{rate_name(fpr)}"


def _needed(fpr: float) -> int:
    return math.ceil(3 / fpr - 1e-9)


def _with_points(old: Assay, read: Traffic, paths: Sequence[Path], assumed_rate: float) -> Assay:
    """The artefact's assay with the thresholds that the traffic gives, and where they come from."""
    points = traffic_points(read.scores, assumed_rate)
    if not points:
        least = f"{point_name(max(FPR_POINTS))} needs {_needed(max(FPR_POINTS))}"
        raise TrafficError(f"{read.prompts:,} distinct prompts in {read.rows:,} rows: {least}; give more traffic")
    points |= {name: point for name, point in old.operating_points.items() if point.target_fpr is None}
    # What was measured at a threshold that is no more says nothing of the new one.
    moved = [f"operating point {name}" for name, point in old.operating_points.items() if points.get(name) != point]
    stale = {section for section in old.metrics for name in moved if f"{section} ".startswith(f"{name} ")}
    lineage = {
        "set_on": "traffic",
        "parent": old.fingerprint,
        "files": [path.name for path in paths],
        "sha256": [file_hash(path) for path in paths],
        "rows": read.rows,
        "prompts": read.prompts,
        "errors": read.errors,
        "assumed_rate": assumed_rate,
    }
    return replace(
        old,
        operating_points=points,
        provenance=old.provenance | {"thresholds": lineage},
        metrics={name: section for name, section in _still_true(old.metrics).items() if name not in stale},
    )


def _still_true(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Sections without what was measured in them at the default operating point, which is another one now."""
    at_default = ("recall", "false_positive_rate")
    return {
        name: section
        if name.startswith("operating point ")
        else {metric: value for metric, value in section.items() if metric not in at_default}
        for name, section in metrics.items()
    }


def _moved(name: str, old: Assay, new: Assay, read: Traffic, assumed_rate: float) -> MovedPoint:
    values = read.scores[DISTILLATION]
    before, after = old.operating_points.get(name), new.operating_points[name]
    now = float((values >= after.thresholds[DISTILLATION]).mean())
    if before is None:
        return MovedPoint(name, before, after, None, None, now)
    flagged = int((values >= before.thresholds[DISTILLATION]).sum())
    rate = organic_interval(flagged, read.prompts, assumed_rate)
    return MovedPoint(name, before, after, flagged / read.prompts, rate, now)


def _check_places(model: Path, out: Path, traffic: Sequence[Path], overwrite: bool) -> None:
    """Refuse an `out` whose writing would destroy something."""
    source, target = model.resolve(), out.resolve()
    if target == source or target in source.parents or source in target.parents:
        raise TrafficError(f"{out}: the new artefact needs a folder apart from {model}, which stays as it is")
    if inside := [path for path in traffic if target in path.resolve().parents]:
        raise TrafficError(f"{inside[0]}: lies in {out}, where the new artefact would go; name another folder")
    if out.exists():
        if not overwrite:
            raise TrafficError(f"{out}: exists already; name another folder, or use --overwrite")
        if not (out / ASSAY_FILE).is_file():
            raise TrafficError(f"{out}: is no artefact and is not overwritten; name another folder")


def _write(model: Path, target: Path, assay: Assay, report: TrafficReport, hashes: list[int]) -> None:
    """The new artefact beside its place, then in it: what stood there goes last."""

    def copy(folder: Path) -> None:
        for item in model.iterdir():
            if item.is_dir():
                # A gate's cuts and an export's parity hold for the old thresholds.
                if item.name not in (GATE_FOLDER, *BACKENDS):
                    shutil.copytree(item, folder / item.name)
            elif item.name not in (ASSAY_FILE, CARD_FILE):
                shutil.copy2(item, folder / item.name)
        write_seen(folder, {"traffic": hashes})

    card = model / CARD_FILE
    text = report.card(card.read_text(encoding="utf-8") if card.is_file() else "")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as space:
        save_artefact(Path(space) / "new", assay, copy, text)
        if target.exists():
            target.rename(Path(space) / "old")
        (Path(space) / "new").rename(target)
