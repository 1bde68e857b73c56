"""What each command of `training` does once its arguments are read; the heavy imports start here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TypeVar

from data.config import ConfigError
from inference.artefact import ArtefactError
from inference.decision import DISTILLATION
from inference.job.files import InputError

from .encode import DataError
from .encoders import EncoderError
from .evaluation.evaluate import FaultyData
from .model import FitError
from .push import PushError
from .runs import RunError
from .traffic.reading import TrafficError
from .tuning.sweep import SweepError

T = TypeVar("T")

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


def train(options: argparse.Namespace) -> int:
    """`training train`."""
    from .config import load_run
    from .report.tables import metrics_table
    from .train import train

    config = load_run(options.config)
    sections = train(config, options.out, options.data, options.resume, options.overwrite)
    if sections:
        print(metrics_table(sections, [DISTILLATION, *config.labels]))
        print(f"written: {options.out}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """`training evaluate`."""
    from .evaluation.evaluate import EvaluateOptions, evaluate
    from .report.tables import evaluation_text

    print(evaluation_text(evaluate(_as(EvaluateOptions, options))))
    print(f"written: {options.out / 'metrics.json'} and {options.out / 'report.html'}")
    return 0


def compare(options: argparse.Namespace) -> int:
    """`training compare`: 0 promote, 1 refuse."""
    from .comparison.compare import CompareOptions, compare

    verdict = compare(_as(CompareOptions, options))
    print(verdict.text())
    print(f"written: {options.out / 'comparison.json'} and {options.out / 'comparison.html'}")
    return 0 if verdict.promote else 1


def loso(options: argparse.Namespace) -> int:
    """`training loso`."""
    from .config import load_run
    from .evaluation.loso import loso

    config = load_run(options.config)
    print(loso(config, options.data or Path(config.data), options.out, options.folds, options.whole_runs))
    print(f"written: {options.out / 'loso.md'} and {options.out / 'loso.json'}")
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """`training calibrate`."""
    from .traffic.thresholds import calibrate_on_traffic

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
    from .config import load_run
    from .evaluation.evaluate import read_records
    from .tuning.ablation import ablate, sample

    names = [path.stem for path in options.config]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{', '.join(twice)}: two configurations of one name; results are filed by it, so rename one")
    configs = {path.stem: load_run(path) for path in options.config}
    records = sample(read_records(options.on, "test", options.exclude), options.per_source)
    first = next(iter(configs.values()))
    print(ablate(configs, options.data or Path(first.data), records, options.seeds, options.out))
    print(f"written: {options.out / 'table.md'}")
    return 0


def gate(options: argparse.Namespace) -> int:
    """`training gate`: 0 written, 1 refused."""
    from .gate import GateRefused, gate_table, make_gate

    try:
        made = make_gate(options.model, options.data, options.unlabelled, options.text_column)
    except GateRefused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(gate_table(made))
    print(f"written: {options.model / 'gate'}")
    return 0


def sweep(options: argparse.Namespace) -> int:
    """`training sweep`."""
    from .tuning.sweep import sweep

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


def _as(kind: type[T], options: argparse.Namespace) -> T:
    """The arguments as the dataclass that names them."""
    return kind(**{name: value for name, value in vars(options).items() if name != "command"})


def run(name: str, options: argparse.Namespace) -> int:
    """One command; the exit status, with every refusal as one line on standard error."""
    known = {
        "train": train,
        "evaluate": evaluate,
        "compare": compare,
        "loso": loso,
        "calibrate": calibrate,
        "ablate": ablate,
        "gate": gate,
        "sweep": sweep,
        "push": push,
        "show": show,
    }
    try:
        return known[name](options)
    except FaultyData as error:
        print("\n".join(error.faults))
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
