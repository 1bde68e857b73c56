"""What an evaluation of 20,000 prompts costs beside scoring them: the aim is 60 seconds more, on 2 cores.

    make bench-evaluation

Prompts are those of the shipped corpus, read again under other ids until there are enough. Of them 400 are scored, and
the time of all follows; the predictions that are measured are made up, since what they say does not change the cost.
Baselines are left out: their training is no part of measuring.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from data.reading import load_records
from data.records import Record
from data.summary import markdown_table
from inference import PromptClassifier
from inference.decision import DISTILLATION, Prediction, decide
from inference.job.files import find_files
from training.encode import any_label, label_row
from training.evaluation.evaluate import EvaluateOptions, Evaluation, guard, read_records
from training.evaluation.labelled import Measured
from training.evaluation.sections import evaluate_sections
from training.evaluation.suite import SHIPPED, load_suite, run_suite, suite_sections
from training.report.page import html_report

PROMPTS = 20_000
SCORED = 400
AIM = 60
T = TypeVar("T")


def main(model: str) -> None:
    """Time each step once, and print seconds."""
    classifier = PromptClassifier.load(model, device="cpu")
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], T]) -> T:
        started = time.perf_counter()
        found = step()
        seconds[name] = time.perf_counter() - started
        return found

    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder) / "prompts.jsonl")
        records = timed("read", lambda: read_records([str(path)]))
    timed("look for what was seen", lambda: guard(Path(model), records, allow=True))
    some = [records[i].prompt for i in np.random.default_rng(0).permutation(PROMPTS)[:SCORED]]
    classifier.classify(some[:16])
    timed("score", lambda: classifier.classify(some))
    seconds["score"] *= PROMPTS / SCORED
    measured = _measured(classifier, records)
    sections = timed("measure", lambda: evaluate_sections(measured, classifier.assay))
    outcomes = timed("functional suite", lambda: run_suite(classifier, load_suite(SHIPPED)))
    found = Evaluation(measured, sections | suite_sections(outcomes), outcomes, [], None)
    options = EvaluateOptions(Path(model), ["prompts.jsonl"], Path("evaluation"))
    page = timed("report", lambda: html_report(found, classifier, options))
    print(markdown_table(["step", "seconds"], [[name, f"{value:.1f}"] for name, value in seconds.items()]))
    suite = seconds.pop("functional suite")
    beside = sum(seconds.values()) - seconds["score"]
    print(
        f"\n{PROMPTS:,} prompts: {seconds['score']:.0f} s of scoring and {beside:.0f} s beside it (aim: {AIM} s), and "
        f"{suite:.0f} s for the functional suite, which scores prompts of its own; the page has {len(page) / 1e6:.1f} MB"
    )


def _write(path: Path) -> Path:
    folders = ("organic", "capability_sweep", "censorship_probing", "reasoning_trace_extraction")
    records, _ = load_records(find_files([f"data/seed/{name}" for name in folders]))
    with path.open("w", encoding="utf-8") as stream:
        for i in np.resize(np.random.default_rng(0).permutation(len(records)), PROMPTS):
            row = records[i].to_row() | {"id": None, "cluster": records[i].group or f"alone-{i}"}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def _measured(classifier: PromptClassifier, records: list[Record]) -> Measured:
    """Predictions that rank fairly well, no two alike."""
    assay = classifier.assay
    labels = np.array([label_row(record.labels, record.judged, assay.labels) for record in records])
    random = np.random.default_rng(0)
    odds = random.normal(3 * (labels == 1) - 3.0, 1.5)
    either = random.normal(np.where(any_label(labels) == 1, 2.0, -2.0), 1.5)
    predictions = [
        Prediction(
            **decide(assay, assay.point(), 1 / (1 + np.exp(-odds[i])), 1 / (1 + np.exp(-either[i]))),
            n_tokens=len(record.rendered) // 4,
            n_windows=min(8, 1 + len(record.rendered) // 800),
            truncated=False,
            top_window=(0, 1),
        )
        for i, record in enumerate(records)
    ]
    measured = Measured(records, predictions, labels, np.array([record.extra["cluster"] for record in records]))
    assert len(set(measured.scores(DISTILLATION))) == PROMPTS
    return measured


if __name__ == "__main__":
    main(sys.argv[1])
