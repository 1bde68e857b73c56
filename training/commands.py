"""What each command of `training` does once its arguments are read; the heavy imports start here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from data.config import ConfigError
from data.records import Record
from inference.artefact import ArtefactError, write_text
from inference.decision import DISTILLATION
from inference.job.files import InputError

from .encode import DataError
from .encoders import EncoderError
from .model import FitError
from .push import PushError
from .runs import RunError
from .sweep import SweepError
from .traffic_reading import TrafficError

REFUSALS = (
    ArtefactError,
    ConfigError,
    DataError,
    EncoderError,
    FitError,
    InputError,
    PushError,
    RunError,
    SweepError,
    TrafficError,
)
"""Errors whose message is all that a person needs."""


class FaultyData(ValueError):
    """Labelled files have faults; the message lists them."""


def train(options: argparse.Namespace) -> int:
    """`training train`."""
    from .config import load_run
    from .report import metrics_table
    from .train import train

    config = load_run(options.config)
    sections = train(config, options.out, options.data, options.resume, options.overwrite)
    if sections:
        print(metrics_table(sections, [DISTILLATION, *config.labels]))
        print(f"written: {options.out}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """`training evaluate`."""
    from inference import PromptClassifier

    from .evaluation import evaluate_sections, measure, sections_to_json
    from .report import html_report, metrics_table
    from .suite import SHIPPED, load_suite, run_suite, suite_sections, suite_table

    suite = None if options.no_suite else load_suite(options.suite or SHIPPED)
    classifier = PromptClassifier.load(options.model)
    records = _labelled(options.data, options.split, options.exclude)
    measured = measure(classifier, records)
    sections = evaluate_sections(measured, classifier)
    outcomes = run_suite(classifier, suite) if suite else []
    if outcomes:
        sections |= suite_sections(outcomes)
    options.out.mkdir(parents=True, exist_ok=True)
    told = [*options.data, *(f"without {condition}" for condition in options.exclude)]
    write_text(options.out / "report.html", html_report(measured, sections, classifier.assay, told, outcomes))
    write_text(options.out / "metrics.json", json.dumps(sections_to_json(sections), indent=2) + "\n")
    print(metrics_table(sections, [DISTILLATION, *classifier.assay.labels]))
    if outcomes:
        print(f"\n{suite_table(outcomes)}\n")
    print(f"written: {options.out / 'metrics.json'} and {options.out / 'report.html'}")
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """`training calibrate`."""
    from .traffic import calibrate_on_traffic

    report = calibrate_on_traffic(
        options.model,
        options.traffic,
        options.out,
        options.assumed_rate,
        options.text_column,
        options.messages_column,
        options.overwrite,
    )
    print(report.text())
    print(f"\nwritten: {report.out} ({report.fingerprint}, made of {report.parent})")
    return 0


def ablate(options: argparse.Namespace) -> int:
    """`training ablate`."""
    from .ablation import ablate, sample
    from .config import load_run

    names = [path.stem for path in options.config]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{', '.join(twice)}: two configurations of one name; results are filed by it, so rename one")
    configs = {path.stem: load_run(path) for path in options.config}
    records = sample(_labelled(options.on, "test", options.exclude), options.per_source)
    first = next(iter(configs.values()))
    print(ablate(configs, options.data or Path(first.data), records, options.seeds, options.out))
    print(f"written: {options.out / 'table.md'}")
    return 0


def sweep(options: argparse.Namespace) -> int:
    """`training sweep`."""
    from .sweep import sweep

    print(sweep(options.config, options.out, options.data))
    return 0


def push(options: argparse.Namespace) -> int:
    """`training push`."""
    from .push import push

    push(
        options.model,
        options.repo,
        private=options.private,
        revision=options.revision,
        message=options.message,
        dry_run=options.dry_run,
        endpoint=options.endpoint,
    )
    return 0


def show(options: argparse.Namespace) -> int:
    """`training show`."""
    from .show import show_run

    print(show_run(options.folder))
    return 0


def _labelled(names: list[str], split: str, conditions: list[str]) -> list[Record]:
    """Labelled records without those that the conditions leave out.

    Raises:
        FaultyData: a file has faults; they are printed.
        DataError: nothing is left.
    """
    from .evaluation import exclude, read_labelled

    records, faults = read_labelled(names, split)
    if faults:
        print("\n".join(map(str, faults)))
        raise FaultyData(f"{len(faults)} fault(s); nothing was measured")
    records = exclude(records, conditions)
    if not records:
        raise DataError("no records are left to measure on")
    return records


def run(name: str, options: argparse.Namespace) -> int:
    """One command; the exit status, with every refusal as one line on standard error."""
    known = {
        "train": train,
        "evaluate": evaluate,
        "calibrate": calibrate,
        "ablate": ablate,
        "sweep": sweep,
        "push": push,
        "show": show,
    }
    try:
        return known[name](options)
    except FaultyData as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except REFUSALS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on (train: with --resume)", file=sys.stderr)
        return 130
