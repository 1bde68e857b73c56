"""A training run, top to bottom: read, cut, fit, calibrate, save, load what was saved, measure it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.records import Record
from inference import PromptClassifier
from inference.artefact import Abstention, Assay, OperatingPoint, Platt, record_metrics, save_artefact, write_text
from inference.backends.exports import write_reference
from inference.decision import DISTILLATION
from inference.scorer import LogitScorer

from .calibrate import calibrate, calibration_records
from .config import RunConfig
from .encode import check_labels, label_row, load_split, records_of
from .evaluation.labelled import measure, pooled_logits
from .evaluation.sections import Sections, evaluate_sections, reliability, sections_to_json
from .evaluation.seen import prompt_hash, write_seen
from .finetune import FineTuned, fine_tune, read_splits
from .processes import processes
from .reference import reference_texts
from .report.card import model_card
from .report.plots import CALIBRATION_FILE, HISTORY_FILE, history_svg, reliability_svg
from .runs import RunError, identity, prepare

__all__ = ["RunError", "train"]

STEPS = ("read and cut into windows", "fine-tune", "calibrate", "save", "measure what was saved")


def train(
    config: RunConfig, out: Path, data: Path | None = None, resume: bool = False, overwrite: bool = False
) -> Sections:
    """Train, and leave the artefact in `out`; whatever is unfinished lies in `out` + `.run`.

    Under `accelerate launch` every process calls this; the main one alone writes, and the others return nothing.

    Args:
        config: the run.
        out: the artefact's folder.
        data: a built folder in place of the one that the configuration names.
        resume: go on with the same run where it was killed; do nothing where it is complete.
        overwrite: replace whatever else stands there, when the new artefact is complete.

    Raises:
        RunError, DataError, EncoderError: the run cannot start; the message says why and what to do.
        FitError: it cannot go on.
    """
    folder = data or Path(config.data)
    here = processes()
    this_run = identity(config, folder)
    run: Path | None = out.with_name(out.name + ".run")
    if here.is_main_process:
        run = prepare(out, this_run, resume, overwrite)
    here.wait_for_everyone()
    if run is None or not run.exists():
        if here.is_main_process:
            print(f"{out} is complete already; nothing to do")
        return {}

    _say(0)
    splits = read_splits(config, folder)
    calibration = calibration_records(folder)
    test = records_of(load_split(folder, "test"))
    check_labels([*calibration, *test], config.labels)
    sizes = {"train": len(splits.train), "validation": len(splits.validation)}
    sizes |= {"calibration": len(calibration), "test": len(test)}
    if here.is_main_process:
        told = f"; {here.num_processes} processes" if here.num_processes > 1 else ""
        print(", ".join(f"{name} {size}" for name, size in sizes.items()) + f" prompts{told}")

    _say(1)
    tuned = fine_tune(config, splits, run / "checkpoints", out.with_name(out.name + ".tensorboard"))
    if not tuned.is_main:
        return {}

    _say(2)
    drafted = _draft(config, this_run | {"prompts": sizes}, tuned)
    for name in ("draft", "artefact"):
        shutil.rmtree(run / name, ignore_errors=True)
    write_model = _model_writer(tuned, config)
    save_artefact(run / "draft", drafted, write_model, "a draft, before calibration\n")
    logits = pooled_logits(LogitScorer.open(run / "draft", drafted), calibration)
    labels = np.array([label_row(record.labels, record.judged, config.labels) for record in calibration])
    fitted = calibrate(config.labels, logits, labels, config.calibration.coverage, config.calibration.method)
    assay = replace(
        drafted,
        calibration=fitted.platt,
        operating_points=fitted.points,
        abstention=fitted.abstention,
        positive_share=fitted.positive_share,
    )

    _say(3)
    artefact = run / "artefact"
    save_artefact(artefact, assay, write_model, "not measured yet\n")
    write_text(artefact / "history.json", json.dumps(tuned.history, indent=2) + "\n")
    write_text(artefact / HISTORY_FILE, history_svg(tuned.history))
    write_text(artefact / "run.yaml", _resolved(config, out))
    write_seen(artefact, _seen(folder, calibration))
    write_reference(artefact, reference_texts())

    _say(4)
    classifier = PromptClassifier.load(artefact, backend="torch")
    measured = measure(classifier, test)
    sections = evaluate_sections(measured, classifier.assay, seed=config.seed)
    write_text(artefact / CALIBRATION_FILE, reliability_svg(*reliability(measured, classifier.assay)))
    card = model_card(classifier.assay, sections, config.model_dump(mode="json"))
    record_metrics(artefact, sections_to_json(sections), card)
    if out.exists():
        shutil.rmtree(out)
    artefact.rename(out)
    shutil.rmtree(run)
    return sections


def _seen(folder: Path, calibration: list[Record]) -> dict[str, list[int]]:
    """Hashes of the prompts that shape a run; of the train split all, though a run may read less."""
    splits = {name: records_of(load_split(folder, name)) for name in ("train", "validation")}
    return {
        name: [prompt_hash(record.key) for record in records]
        for name, records in (splits | {"calibration": calibration}).items()
    }


def _say(step: int) -> None:
    if processes().is_main_process:
        print(f"[{step + 1}/{len(STEPS)}] {STEPS[step]}", flush=True)


def _draft(config: RunConfig, provenance: dict[str, Any], tuned: FineTuned) -> Assay:
    """The assay before calibration: logits as they are, and thresholds that flag nothing."""
    columns = (*config.labels, DISTILLATION)
    encoder = tuned.encoder
    return Assay(
        labels=config.labels,
        windows=config.windows.spec(),
        calibration={name: Platt(1.0, 0.0) for name in columns},
        operating_points={"balanced": OperatingPoint(dict.fromkeys(columns, 2.0), None, 0, 0, 0.0, 1.0)},
        abstention=Abstention(0.0, 1.0, 0.0),
        positive_share=0.0,
        base={"name": encoder.name, "revision": encoder.revision, "license": encoder.license, "hub": encoder.hub},
        provenance=provenance,
        versions={name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
    )


def _model_writer(tuned: FineTuned, config: RunConfig) -> Callable[[Path], None]:
    return lambda folder: tuned.write(folder, config)


def _resolved(config: RunConfig, out: Path) -> str:
    """The whole configuration, with every default, so that the run can be repeated from its artefact."""
    content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return f"# python -m training train {out.name}/run.yaml --data DIR --out DIR\n{content}"
