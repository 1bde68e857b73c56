"""A training run, top to bottom: read, cut, fit, calibrate, save, load what was saved, measure it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from data.reading import MANIFEST_FILE
from data.records import CATEGORIES
from inference import PromptClassifier
from inference.artefact import (
    ASSAY_FILE,
    Abstention,
    Assay,
    OperatingPoint,
    Platt,
    record_metrics,
    save_artefact,
    write_text,
)
from inference.classifier import LogitScorer
from inference.decision import DISTILLATION
from inference.windows import Windower

from .calibrate import calibrate
from .config import RunConfig
from .encode import DataError, choose_prompts, encode, label_row, load_split, records_of
from .encoders import BaseEncoder, find_encoder
from .evaluation import Sections, evaluate_sections, measure, sections_to_json
from .fit import fit, make_trainer
from .model import PromptModel, open_network
from .report import model_card

_RUN_FILE = "run.json"
STEPS = ("read", "cut into windows", "fine-tune", "calibrate", "save", "measure what was saved")


class RunError(ValueError):
    """A run that cannot start: something stands where it would write."""


def train(
    config: RunConfig, out: Path, data: Path | None = None, resume: bool = False, overwrite: bool = False
) -> Sections:
    """Train, and leave the artefact in `out`; whatever is unfinished lies in `out` + `.run`.

    Args:
        config: the run.
        out: the artefact's folder.
        data: a built folder in place of the one that the configuration names.
        resume: go on with the same run where it was killed; do nothing where it is complete.
        overwrite: replace whatever else stands there, when the new artefact is complete.

    Raises:
        RunError, DataError, EncoderError: the run cannot start; the message says why and what to do.
    """
    folder = data or Path(config.data)
    identity = _identity(config, folder)
    run = _prepare(out, identity, resume, overwrite)
    if run is None:
        print(f"{out} is complete already; nothing to do")
        return {}
    _quiet()

    _say(0)
    encoder = find_encoder(config.encoder)
    chosen = choose_prompts(load_split(folder, "train"), config.fit.max_prompts, config.seed)
    validation, calibration, test = (load_split(folder, split) for split in ("validation", "calibration", "test"))
    print(
        f"train {len(chosen)}, validation {len(validation)}, calibration {len(calibration)}, test {len(test)} prompts"
    )

    _say(1)
    windower = Windower(Tokenizer.from_file(str(encoder.folder / "tokenizer.json")), config.windows.spec())
    encoded = [encode(split, windower, config.fit.windows_per_prompt) for split in (chosen, validation)]

    _say(2)
    torch.manual_seed(config.seed)  # the classification head starts from it
    model = PromptModel(open_network(encoder, config.encoder, config.fit.dropout), config.fit.label_smoothing)
    pad_id = model.network.config.pad_token_id or 0
    trainer = make_trainer(model, config, encoded[0], encoded[1], pad_id, run / "checkpoints")
    history = fit(trainer, config.seed)
    if not trainer.is_world_process_zero():
        return {}

    _say(3)
    model.network.cpu().eval()
    drafted = _draft(config, identity, encoder, len(chosen), len(calibration))
    artefact = run / "artefact"
    shutil.rmtree(artefact, ignore_errors=True)
    shutil.rmtree(run / "draft", ignore_errors=True)
    write_model = _model_writer(model, encoder, config)
    save_artefact(run / "draft", drafted, write_model, "a draft, before calibration\n")
    assay = _calibrated(run / "draft", drafted, calibration, config)

    _say(4)
    save_artefact(artefact, assay, write_model, "not measured yet\n")
    write_text(artefact / "history.json", json.dumps(history, indent=2) + "\n")

    _say(5)
    classifier = PromptClassifier.load(artefact)
    sections = evaluate_sections(measure(classifier, records_of(test)), classifier, config.seed)
    card = model_card(classifier.assay, sections, config.model_dump())
    record_metrics(artefact, sections_to_json(sections), card)
    if out.exists():
        shutil.rmtree(out)
    artefact.rename(out)
    shutil.rmtree(run)
    return sections


def _say(step: int) -> None:
    print(f"[{step + 1}/{len(STEPS)}] {STEPS[step]}", flush=True)


def _quiet() -> None:
    """What libraries say of their own workings helps nobody here; warnings that matter become our own errors."""
    transformers_logging.set_verbosity_error()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    disable_progress_bar()


def _identity(config: RunConfig, folder: Path) -> dict[str, Any]:
    """What makes two runs the same run."""
    manifest = folder / MANIFEST_FILE
    if not manifest.is_file():
        raise DataError(f"{folder}: no built data; run: python -m data build configs/data/seed.yaml --out {folder}")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    return {
        "config": config.model_dump(),
        "data": str(folder),
        "data_fingerprint": content["fingerprint"],
        "code_fingerprint": _code_fingerprint(),
    }


def _prepare(out: Path, identity: Mapping[str, Any], resume: bool, overwrite: bool) -> Path | None:
    """The folder of the run, ready to work in; None where the same run is complete already."""
    run = out.with_name(out.name + ".run")
    if out.exists():
        if resume and _is_same(out / ASSAY_FILE, identity):
            return None
        if not overwrite:
            why = "was trained with another configuration, data or code" if resume else "exists already"
            raise RunError(f"{out}: {why}; name another folder, or use --overwrite")
        if not (out / ASSAY_FILE).is_file():
            raise RunError(f"{out}: is no artefact and is not overwritten; name another folder")
    if run.exists() and not (resume and _is_same(run / _RUN_FILE, identity)):
        if not overwrite:
            why = "was begun with another configuration, data or code" if resume else "holds an unfinished run"
            raise RunError(f"{run}: {why}; go on with the same run by --resume, or start anew by --overwrite")
        shutil.rmtree(run)
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / _RUN_FILE, json.dumps({"provenance": identity}, indent=2) + "\n")
    return run


def _is_same(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the run that wrote `path` was this very run."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        return all(before.get(name) == value for name, value in json.loads(json.dumps(identity)).items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _draft(config: RunConfig, identity: dict[str, Any], encoder: BaseEncoder, trained: int, calibrated: int) -> Assay:
    """The assay before calibration: logits as they are, and thresholds that flag nothing."""
    columns = (*CATEGORIES, DISTILLATION)
    return Assay(
        labels=CATEGORIES,
        windows=config.windows.spec(),
        calibration={name: Platt(1.0, 0.0) for name in columns},
        operating_points={"balanced": OperatingPoint(dict.fromkeys(columns, 2.0), None, 0, 0, 0.0, 1.0)},
        abstention=Abstention(0.0, 1.0, 0.0),
        positive_share=0.0,
        base={"name": encoder.name, "revision": encoder.revision, "license": encoder.license},
        provenance=identity | {"train_prompts": trained, "calibration_prompts": calibrated},
        versions={name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
    )


def _calibrated(draft: Path, assay: Assay, calibration: Dataset, config: RunConfig) -> Assay:
    """The assay with calibration and thresholds, from the saved model as the scorer runs it."""
    records = records_of(calibration)
    scorer = LogitScorer.open(draft, assay)
    logits, _, _ = scorer([record.rendered for record in records])
    labels = np.array([label_row(record.labels, record.judged) for record in records])
    fitted = calibrate(CATEGORIES, logits, labels, config.calibration.coverage)
    return replace(
        assay,
        calibration=fitted.platt,
        operating_points=fitted.points,
        abstention=fitted.abstention,
        positive_share=fitted.positive_share,
    )


def _model_writer(model: PromptModel, encoder: BaseEncoder, config: RunConfig) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        model.network.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(encoder.folder, local_files_only=True)
        tokenizer.model_max_length = config.windows.size
        tokenizer.save_pretrained(folder)

    return write


def _code_fingerprint() -> str:
    """A hash of the project's own Python code."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in ("inference", "data", "training"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
