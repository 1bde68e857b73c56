"""An evaluation, top to bottom: read, look for what was seen, score, measure, test, compare with baselines, tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.records import Record
from inference import PromptClassifier
from inference.artefact import write_text
from inference.gate import GATE_FOLDER, load_gate

from ..encode import DataError
from ..metrics.intervals import Estimate
from .cascade import cascade_sections
from .labelled import Measured, exclude, measure, read_labelled
from .sections import Sections, evaluate_sections, sections_to_json
from .seen import seen_in
from .suite import SHIPPED, Outcome, load_suite, run_suite, suite_sections

if TYPE_CHECKING:
    from .baselines import Baseline

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"
SEEN = "seen"
"""The section of `metrics.json` that says how many of the records shaped the artefact, by its split."""


class FaultyData(ValueError):
    """Labelled files have faults; they stand in `faults`, and nothing was measured."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(f"{len(faults)} fault(s); nothing was measured")
        self.faults = list(faults)


@dataclass(frozen=True)
class EvaluateOptions:
    """What `training evaluate` was asked for."""

    model: Path
    data: list[str]
    out: Path
    split: str = "test"
    exclude: list[str] = field(default_factory=list)
    slice: list[str] = field(default_factory=list)
    suite: Path | None = None
    no_suite: bool = False
    baselines: Path | None = None
    allow_seen: bool = False
    drop_seen: bool = False
    show_text: bool = False


@dataclass(frozen=True)
class Evaluation:
    """All that an evaluation found."""

    measured: Measured
    sections: Sections
    outcomes: list[Outcome]
    baselines: list[Baseline]
    seen: dict[str, int] | None
    """How many of the records shaped the artefact, by its split; None where it does not say what it has seen."""


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Measure an artefact, and leave `metrics.json` and `report.html` in `options.out`.

    Raises:
        FaultyData: a file has faults.
        DataError: nothing is left to measure, or records shaped the artefact.
        ArtefactError, ConfigError: the artefact or the suite is not sound.
    """
    from ..report.page import html_report

    suite = None if options.no_suite else load_suite(options.suite or SHIPPED)
    classifier = PromptClassifier.load(options.model, backend="torch")
    gate = load_gate(options.model, classifier.assay)
    records = read_records(options.data, options.split, options.exclude)
    records, seen = guard(options.model, records, options.allow_seen, options.drop_seen)
    measured = measure(classifier, records)
    sections = evaluate_sections(measured, classifier.assay, options.slice)
    outcomes = run_suite(classifier, suite) if suite else []
    sections |= suite_sections(outcomes) if outcomes else {}
    if gate is not None:
        sections |= cascade_sections(gate, classifier.scorer, classifier.assay, measured)
    baselines: list[Baseline] = []
    if options.baselines is not None:
        from .baselines import baseline_sections, compare_with_baselines

        baselines = compare_with_baselines(options.baselines, options.data, options.model, measured)
        sections |= baseline_sections(measured, baselines)
    if seen:
        sections[SEEN] = {name: Estimate(count, count, count, len(records)) for name, count in seen.items()}
    found = Evaluation(measured, sections, outcomes, baselines, seen)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / METRICS_FILE, json.dumps(sections_to_json(sections), indent=2) + "\n")
    write_text(options.out / REPORT_FILE, html_report(found, classifier, options))
    return found


def read_records(names: Sequence[str], split: str = "test", conditions: Sequence[str] = ()) -> list[Record]:
    """Labelled records without those that the conditions leave out.

    Raises:
        FaultyData: a file has faults.
        DataError: nothing is left.
    """
    records, faults = read_labelled(names, split)
    if faults:
        raise FaultyData([str(fault) for fault in faults])
    records = exclude(records, conditions)
    if not records:
        raise DataError("no records are left to measure on")
    return records


def guard(
    model: Path, records: list[Record], allow: bool, drop: bool = False
) -> tuple[list[Record], dict[str, int] | None]:
    """Records that may be measured on, and how many of those given shaped the artefact, by its split.

    Raises:
        DataError: some did, and that was neither allowed nor are they to be dropped.
    """
    masks = seen_in(model, records)
    if masks is None:
        return records, None
    masks |= seen_in(model / GATE_FOLDER, records) or {}
    counts = {name: int(mask.sum()) for name, mask in masks.items() if mask.any()}
    if not counts or allow:
        return records, counts
    anywhere = np.logical_or.reduce(list(masks.values()))
    if drop:
        kept = [record for record, known in zip(records, anywhere, strict=True) if not known]
        if not kept:
            raise DataError(f"{model} has seen all {len(records):,} records; there is nothing to measure on")
        return kept, {}
    told = ", ".join(f"{count:,} in {name}" for name, count in counts.items())
    raise DataError(
        f"{model} has seen {int(anywhere.sum()):,} of the {len(records):,} records ({told}); measured on them it looks "
        "better than it is. Leave them out with --drop-seen, or measure on them all the same with --allow-seen"
    )
