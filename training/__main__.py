"""The command line of `training`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  train the full run, and go on with it after a kill:
    python -m training train configs/default.yaml --data build/data --out build/model
    python -m training train configs/default.yaml --data build/data --out build/model --resume
  the same on four GPUs:
    accelerate launch --num_processes 4 -m training train configs/several_gpus.yaml --data build/data --out build/model
  measure an artefact on the test split of built data:
    python -m training evaluate build/model build/data --out build/evaluation
  measure it on labelled files without the functional suite, beside simple classifiers:
    python -m training evaluate build/model labelled/*.jsonl --no-suite --baselines build/data --out build/evaluation
  decide between the artefact in use and a new one, and put the new one in use:
    python -m training compare build/models/current build/new build/data --out build/compared --promote-to build/models
  set its thresholds on your own traffic, so that they keep their promise there:
    python -m training calibrate build/model --traffic traffic/*.parquet --text-column prompt --out build/model-here
  add a cheap first stage, which spares the encoder a part of the traffic:
    python -m training gate build/model --data build/data --unlabelled traffic/*.parquet
  try hyper-parameters, and compare configurations with several seeds:
    python -m training sweep configs/sweep.yaml --data build/data --out build/sweep
    python -m training ablate configs/ablation/*.yaml --data build/data --on labelled/*.jsonl --out build/ablation
  look at what would be published, then publish it:
    python -m training push build/model --repo OWNER/NAME --private --dry-run
    python -m training push build/model --repo OWNER/NAME --private

exit status: 0 done, 1 the data has faults or the challenger is refused, 2 wrong use"""


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog="python -m training",
        description="Fine-tune the classifier, measure what was trained, decide what ships, and publish it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _train(commands)
    _evaluate(commands)
    _compare(commands)
    _loso(commands)
    _calibrate(commands)
    _gate(commands)
    _sweep(commands)
    _ablate(commands)
    _push(commands)
    show = commands.add_parser("show", help="print what a finished run left in a folder such as build/demo")
    show.add_argument("folder", type=Path, metavar="DIR")
    return top


def _train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="fine-tune, calibrate, and leave an artefact that is measured",
        description="Fine-tune as a YAML file says, calibrate, save the artefact, and measure what was saved. What is "
        "unfinished lies in DIR.run, with checkpoints; a killed run goes on with --resume and ends in the same "
        "weights. Start it by `accelerate launch -m training train …` to use several processes.",
    )
    train.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file such as configs/default.yaml")
    train.add_argument("--out", required=True, type=Path, metavar="DIR", help="the artefact's folder")
    train.add_argument("--data", type=Path, metavar="DIR", help="built data (default: what the configuration names)")
    train.add_argument("--resume", action="store_true", help="go on with a killed run; do nothing where it is done")
    train.add_argument("--overwrite", action="store_true", help="replace another run's artefact when this one is done")


def _evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="measure an artefact on labelled data: metrics.json, report.html",
        description="Measure an artefact on labelled data through the scorer that ships. Leaves metrics.json and "
        "report.html, a page that needs no network. Records that say ambiguous: true are reported apart. Data that "
        "the artefact was fitted or calibrated on is refused.",
    )
    evaluate.add_argument("model", type=Path, metavar="MODEL", help="the artefact's folder")
    _labelled(evaluate)
    evaluate.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the figures go")
    evaluate.add_argument(
        "--slice", action="append", default=[], metavar="COLUMN", help="slice by this column too; may be repeated"
    )
    evaluate.add_argument(
        "--baselines",
        nargs="?",
        const=Path(),
        type=Path,
        metavar="DIR",
        help="also train simple classifiers on the train split of this built folder (default: that of the built "
        "folder among DATA) and measure them on the same records",
    )


def _compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="decide between the artefact in use and a new one: exit 0 promote, 1 refuse",
        description="Score the same labelled records with both artefacts. The challenger is promoted if it is shown to "
        "be no worse than the champion by more than the margin (one-sided 95 %, paired bootstrap over clusters, Holm) "
        "at each operating point, on every large slice, on the must-pass capabilities of the functional suite and in "
        "calibration, and better somewhere. comparison.html and comparison.json say why.",
        epilog="exit status: 0 promote, 1 refuse or faulty data, 2 wrong use",
    )
    compare.add_argument("champion", type=Path, metavar="CHAMPION", help="the artefact in use")
    compare.add_argument("challenger", type=Path, metavar="CHALLENGER", help="the new artefact")
    _labelled(compare)
    compare.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the comparison goes")
    compare.add_argument("--margin", type=float, default=0.02, metavar="SHARE", help="(default: %(default)s)")
    compare.add_argument(
        "--promote-to",
        type=Path,
        metavar="DIR",
        help="if promoted, point DIR/current at the challenger in one stroke; DIR/previous keeps the former one",
    )


def _loso(commands: Any) -> None:
    loso = commands.add_parser(
        "loso",
        help="leave sources out: how well a configuration does on sources that it never saw",
        description="Train on all sources but some, measure on those, until each source was left out once. By default "
        "a linear probe on the frozen encoder; whole runs on request. What is done is not done again.",
    )
    loso.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file such as configs/default.yaml")
    loso.add_argument("--data", type=Path, metavar="DIR", help="built data (default: what the configuration names)")
    loso.add_argument("--out", required=True, type=Path, metavar="DIR", help="where folds, loso.json and loso.md go")
    loso.add_argument("--folds", type=int, default=8, metavar="N", help="groups of sources (default: %(default)s)")
    loso.add_argument("--whole-runs", action="store_true", help="fine-tune in each fold, as CONFIG says")


def _labelled(command: argparse.ArgumentParser) -> None:
    """What `evaluate` and `compare` measure on."""
    command.add_argument(
        "data", nargs="+", metavar="DATA", help="built folders (their test split), labelled files, folders or globs"
    )
    command.add_argument("--split", default="test", help="split of a built folder (default: %(default)s)")
    _exclude(command)
    suite = command.add_mutually_exclusive_group()
    suite.add_argument(
        "--suite", type=Path, metavar="DIR", help="another functional suite than the shipped data/seed/suite"
    )
    suite.add_argument("--no-suite", action="store_true", help="leave the functional suite out")
    seen = command.add_mutually_exclusive_group()
    seen.add_argument("--drop-seen", action="store_true", help="leave out records that shaped the artefact")
    seen.add_argument("--allow-seen", action="store_true", help="measure on them too; the report says so")
    command.add_argument(
        "--show-text", action="store_true", help="put the text of prompts into the report, which is private otherwise"
    )


def _exclude(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="leave records out, for example tier=C; may be repeated",
    )


def _calibrate(commands: Any) -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="set thresholds anew on your own unlabelled traffic; writes a new artefact",
        description="Set the operating points of an artefact anew from unlabelled traffic that is almost wholly "
        "organic: thresholds that were set on shipped data do not keep their promise elsewhere. Weights, calibration, "
        "the abstention band and `balanced` stay as they are. A rate needs 3 / rate distinct prompts: 60 for fpr-5pct, "
        "300 for fpr-1pct, 3,000 for fpr-0.1pct.",
    )
    calibrate.add_argument("model", type=Path, metavar="MODEL", help="the artefact's folder; it is left as it is")
    calibrate.add_argument(
        "--traffic",
        nargs="+",
        required=True,
        metavar="FILE",
        help="prompts as files, folders or globs, or what `python -m inference score` made of them with MODEL: for "
        "millions of prompts score first, since a score job can be killed and resumed (add --keep text, so that a "
        "prompt that repeats counts once)",
    )
    calibrate.add_argument("--out", required=True, type=Path, metavar="DIR", help="the new artefact's folder")
    calibrate.add_argument(
        "--assumed-rate",
        type=float,
        default=0.001,
        metavar="SHARE",
        help="largest share of distillation among the distinct prompts, from 0 to under 0.5 (default: %(default)s); "
        "false alarms keep their rate whichever part of it is flagged",
    )
    column = calibrate.add_mutually_exclusive_group()
    column.add_argument("--text-column", metavar="C", help="column of the prompts (default: text)")
    column.add_argument("--messages-column", metavar="C", help="column of chat messages (default: messages)")
    calibrate.add_argument("--overwrite", action="store_true", help="replace the artefact in DIR when this is done")


def _gate(commands: Any) -> None:
    gate = commands.add_parser(
        "gate",
        help="fit the first stage of the cascade, which spares the encoder what it would not flag",
        description="Fit a linear model over tokens to follow the encoder's own scores, and draw its cut for each "
        "operating point so that, with 95 % confidence, at least 99 % of what the encoder flags is passed on to it. "
        "It lies in MODEL/gate; score uses it unless --no-gate is given. A killed run goes on when it is repeated.",
        epilog="exit status: 0 done, 1 refused: under 299 calibration prompts are flagged at every operating point, "
        "2 wrong use",
    )
    gate.add_argument("model", type=Path, metavar="MODEL", help="the artefact's folder; the gate is written into it")
    gate.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="DIR",
        help="the built data that MODEL was made of",
    )
    gate.add_argument(
        "--unlabelled",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files of prompts of your own traffic: the gate learns what the encoder says of them as well",
    )
    gate.add_argument("--text-column", metavar="C", help="column of the prompts in them (default: text)")


def _sweep(commands: Any) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="search hyper-parameters with optuna",
        description="Try values of the keys that a YAML file names, in a study that lies in DIR and can be killed and "
        "resumed by the same command. Leaves trials.md, trials.json and best.yaml, a run for `train`.",
    )
    sweep.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file such as configs/sweep.yaml")
    sweep.add_argument("--out", required=True, type=Path, metavar="DIR", help="the study's folder")
    sweep.add_argument("--data", type=Path, metavar="DIR", help="built data (default: what the run names)")


def _ablate(commands: Any) -> None:
    ablate = commands.add_parser(
        "ablate",
        help="compare configurations on the same data, with several seeds",
        description="Fine-tune each configuration with each seed, measure all on the same labelled records, and print "
        "a table in which the first is what the others are compared with. What is done is not done again.",
    )
    ablate.add_argument("config", nargs="+", type=Path, metavar="CONFIG", help="runs, such as configs/ablation/*.yaml")
    ablate.add_argument("--on", required=True, nargs="+", metavar="DATA", help="labelled data to measure on")
    ablate.add_argument("--out", required=True, type=Path, metavar="DIR", help="where results and table.md go")
    ablate.add_argument("--data", type=Path, metavar="DIR", help="built data (default: what the first run names)")
    ablate.add_argument("--seeds", nargs="+", type=int, default=[0, 1], metavar="N", help="(default: 0 1)")
    ablate.add_argument("--per-source", type=int, metavar="N", help="measure on so many records of each source")
    _exclude(ablate)


def _push(commands: Any) -> None:
    push = commands.add_parser(
        "push",
        help="upload an artefact to the Hugging Face hub, in one commit",
        description="Check an artefact and its card, print what would go where, and send it to a model repository in "
        "one commit. A repeat after an interruption is safe: the repository holds all of it or nothing, and what is "
        "there already is not sent again. Other files of the repository stay. The token is that of `hf auth login` "
        "or HF_TOKEN.",
    )
    push.add_argument("model", type=Path, metavar="MODEL", help="the artefact's folder")
    push.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repository; made where it is not there")
    push.add_argument("--private", action="store_true", help="make it private; refuses one that exists and is public")
    push.add_argument("--revision", metavar="BRANCH", help="made where it is not there (default: main)")
    push.add_argument("--message", metavar="TEXT", help="of the commit (default: promptassay and the fingerprint)")
    push.add_argument("--dry-run", action="store_true", help="print what would go, send nothing; needs no network")
    push.add_argument("--endpoint", metavar="URL", help="another hub (default: HF_ENDPOINT, or https://huggingface.co)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = parser().parse_args(arguments)
    from . import commands

    return commands.run(options.command, options)


if __name__ == "__main__":
    sys.exit(main())
