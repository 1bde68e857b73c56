"""The command line of `training`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = """examples:
  train the full run, and go on with it after a kill:
    python -m training train configs/default.yaml --data build/data --out build/model
    python -m training train configs/default.yaml --data build/data --out build/model --resume
  measure an artefact on the test split of built data:
    python -m training evaluate build/model build/data --out build/evaluation
  measure it on labelled files without the functional suite, leaving out what the text alone cannot decide:
    python -m training evaluate build/model labelled/*.jsonl --exclude ambiguous=true --no-suite --out build/evaluation

exit status: 0 done, 1 the data has faults, 2 wrong use"""


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog="python -m training",
        description="Fine-tune the classifier, and measure what was trained.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="fine-tune, calibrate, and leave an artefact that is measured")
    train.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file such as configs/default.yaml")
    train.add_argument("--out", required=True, type=Path, metavar="DIR", help="the artefact's folder")
    train.add_argument("--data", type=Path, metavar="DIR", help="built data (default: what the configuration names)")
    train.add_argument("--resume", action="store_true", help="go on with a killed run; do nothing where it is done")
    train.add_argument("--overwrite", action="store_true", help="replace another run's artefact when this one is done")
    evaluate = commands.add_parser("evaluate", help="measure an artefact on labelled data: metrics.json, report.html")
    evaluate.add_argument("model", metavar="MODEL", help="the artefact's folder")
    evaluate.add_argument(
        "data", nargs="+", metavar="DATA", help="built folders (their test split), labelled files, folders or globs"
    )
    evaluate.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the figures go")
    evaluate.add_argument("--split", default="test", help="split of a built folder (default: %(default)s)")
    evaluate.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="leave records out, for example ambiguous=true; may be repeated",
    )
    suite = evaluate.add_mutually_exclusive_group()
    suite.add_argument(
        "--suite", type=Path, metavar="DIR", help="another functional suite than the shipped data/seed/suite"
    )
    suite.add_argument("--no-suite", action="store_true", help="leave the functional suite out")
    show = commands.add_parser("show", help="print what a finished run left in a folder such as build/demo")
    show.add_argument("folder", type=Path, metavar="DIR")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = parser().parse_args(arguments)
    from data.config import ConfigError
    from inference.artefact import ArtefactError
    from inference.job.files import InputError

    from .encode import DataError
    from .encoders import EncoderError
    from .train import RunError

    commands = {"train": _train, "evaluate": _evaluate, "show": _show}
    try:
        return commands[options.command](options)
    except (ArtefactError, ConfigError, DataError, EncoderError, InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; go on with a training run by --resume", file=sys.stderr)
        return 130


def _train(options: argparse.Namespace) -> int:
    from data.config import load_config
    from data.records import CATEGORIES
    from inference.decision import DISTILLATION

    from .config import RunConfig
    from .report import metrics_table
    from .train import train

    config = load_config(options.config, RunConfig)
    sections = train(config, options.out, options.data, options.resume, options.overwrite)
    if sections:
        print(metrics_table(sections, [DISTILLATION, *CATEGORIES]))
        print(f"written: {options.out}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    import json

    from data.records import CATEGORIES
    from inference import PromptClassifier
    from inference.artefact import write_text
    from inference.decision import DISTILLATION

    from .encode import DataError
    from .evaluation import evaluate_sections, exclude, measure, read_labelled, sections_to_json
    from .report import html_report, metrics_table
    from .suite import SHIPPED, load_suite, run_suite, suite_sections, suite_table

    suite = None if options.no_suite else load_suite(options.suite or SHIPPED)
    classifier = PromptClassifier.load(options.model)
    records, faults = read_labelled(options.data, options.split)
    if faults:
        print("\n".join(map(str, faults)))
        print(f"error: {len(faults)} fault(s); nothing was measured", file=sys.stderr)
        return 1
    records = exclude(records, options.exclude)
    if not records:
        raise DataError("no records are left to measure on")
    measured = measure(classifier, records)
    sections = evaluate_sections(measured, classifier)
    outcomes = run_suite(classifier, suite) if suite else []
    if outcomes:
        sections |= suite_sections(outcomes)
    options.out.mkdir(parents=True, exist_ok=True)
    page = html_report(
        measured,
        sections,
        classifier.assay,
        [*options.data, *(f"without {x}" for x in options.exclude)],
        outcomes,
    )
    write_text(options.out / "report.html", page)
    write_text(options.out / "metrics.json", json.dumps(sections_to_json(sections), indent=2) + "\n")
    print(metrics_table(sections, [DISTILLATION, *CATEGORIES]))
    if outcomes:
        print(f"\n{suite_table(outcomes)}\n")
    print(f"written: {options.out / 'metrics.json'} and {options.out / 'report.html'}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from .show import show_run

    print(show_run(options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
