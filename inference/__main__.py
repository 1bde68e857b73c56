"""The command line: arguments are read before anything heavy is imported."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

EXAMPLES = """examples:
  score a file of prompts (columns "text" or "messages"), keep two of its columns:
    %(prog)s score prompts.jsonl --model build/demo/model --output scored.parquet --keep account_id time
  score a folder of Parquet files whose prompts stand in "prompt"; go on after a kill:
    %(prog)s score logs/ --text-column prompt --model MODEL --output scored/ --resume
  see what an artefact promises:
    %(prog)s info build/demo/model

exit status: 0 done, 1 more rows failed than --max-errors allows, 2 wrong use"""


def parser(program: str) -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog=program,
        description="Score prompts: is a prompt built to distil a language model?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_score(commands)
    info = commands.add_parser("info", help="say what an artefact is and what its operating points promise")
    info.add_argument("model", metavar="MODEL", help="the artefact's folder")
    info.add_argument("--format", choices=("text", "json"), default="text", help="for people or for programs")
    return top


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        help="score files of prompts: one output row for every input row, in order",
        description="Score files of prompts. Every input row gives one output row, in order; a row that cannot be "
        "scored says why in the column error. A prompt's text is not copied unless --keep names its column.",
    )
    score.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="JSONL (.gz too), Parquet or CSV files, folders or globs of them"
    )
    score.add_argument("--model", required=True, metavar="DIR", help="the artefact's folder")
    score.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="ends in .parquet, .jsonl or .csv: one file, put in place when complete; else a folder of Parquet parts",
    )
    score.add_argument(
        "--operating-point", metavar="NAME", help="where to flag, such as fpr-1pct (default: the artefact's own)"
    )
    score.add_argument(
        "--backend", choices=("auto", "torch"), default="auto", help="what runs the network (default: %(default)s)"
    )
    prompts = score.add_mutually_exclusive_group()
    prompts.add_argument("--text-column", metavar="C", help='column of plain prompts (default: "text", if it is there)')
    prompts.add_argument(
        "--messages-column", metavar="C", help='column of chat messages, lists or JSON text (default: "messages")'
    )
    score.add_argument("--id-column", metavar="C", help='column of ids (default: "id"; without one, file:line)')
    score.add_argument(
        "--keep", nargs="+", action="extend", default=[], metavar="C", help="columns to pass through; may be repeated"
    )
    score.add_argument(
        "--max-errors",
        type=_limit,
        metavar="N|SHARE",
        help="stop with exit 1 once more rows fail: a number (20) or a share (0.01)",
    )
    score.add_argument("--resume", action="store_true", help="go on with a killed job; do nothing where all is done")
    score.add_argument("--overwrite", action="store_true", help="replace an output that exists")


def _limit(text: str) -> int | float:
    """A whole number counts rows, a number with a point is a share."""
    try:
        value: int | float = int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of rows nor a share such as 0.01") from None
    if isinstance(value, float) and not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a share lies between 0 and 1, and {text} does not")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = parser(f"python -m {__package__}").parse_args(arguments)
    from .artefact import ArtefactError
    from .job.files import InputError
    from .job.ledger import JobError

    try:
        return _info(options) if options.command == "info" else _score(options)
    except (ArtefactError, InputError, JobError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted; what was scored is kept: go on with --resume", file=sys.stderr)
        return 130


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _score(options: argparse.Namespace) -> int:
    from .job.local import ScoreOptions, score

    if options.resume and options.overwrite:
        return _fail("--resume goes on and --overwrite starts anew: give one of them")
    fields = {name: value for name, value in vars(options).items() if name != "command"}
    result = score(ScoreOptions(**fields))
    if result.nothing_to_do:
        print(f"{result.output} is complete already; nothing to do")
        return 0
    print(_summary_table(result.summary))
    if result.too_many_errors:
        print(
            f"error: more rows failed than --max-errors {options.max_errors} allows; what was scored is kept: "
            "go on with --resume and a higher limit",
            file=sys.stderr,
        )
        return 1
    print(f"written: {result.output} and {result.output}.summary.json")
    return 0


def _summary_table(summary: dict[str, Any]) -> str:
    counts, rate = summary["counts"], summary["measured_fpr"]
    scored = max(1, counts["scored"])
    lines = [
        f"rows       {counts['rows']:>9,}",
        f"scored     {counts['scored']:>9,}",
        f"errors     {counts['errors']:>9,}",
        *(f"  {kind}: {number:,}" for kind, number in counts["errors_by_kind"].items()),
        f"flagged    {counts['flagged']:>9,}  {counts['flagged'] / scored:.2%} of those scored, "
        f"at {summary['operating_point']}",
        *(f"  {label:<28} {number:>6,}" for label, number in counts["labels"].items()),
        f"uncertain  {counts['uncertain']:>9,}",
        f"truncated  {counts['truncated']:>9,}",
        f"{summary['operating_point']} let through {rate['false_positives']} of {rate['n_organic']} organic "
        f"{rate['set_on']} prompts (95 % interval of the rate {rate['low']:.2%} to {rate['high']:.2%}); "
        "other traffic may differ",
    ]
    return "\n".join(lines)


def _info(options: argparse.Namespace) -> int:
    from .artefact import load_artefact

    assay = load_artefact(options.model)
    content = {"fingerprint": assay.fingerprint, **assay.to_json()}
    if options.format == "json":
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return 0
    windows = assay.windows
    print(f"artefact         {options.model}  ({assay.fingerprint})")
    print(f"labels           {', '.join(assay.labels)}")
    print(f"base encoder     {assay.base.get('name', 'unknown')}  revision {assay.base.get('revision', 'unknown')}")
    print(f"windows          {windows.size} tokens, overlap {windows.overlap}, at most {windows.limit} a prompt")
    print(f"thresholds       set on {assay.set_on} prompts that are organic")
    print(f"uncertain        between {assay.abstention.low:.4f} and {assay.abstention.high:.4f}")
    print()
    print(f"{'operating point':<18}{'threshold':>10}{'measured FPR':>14}{'95 % interval':>20}{'organic':>9}")
    for name, point in assay.operating_points.items():
        mark = " (default)" if name == assay.default_point else ""
        interval = f"{point.fpr_low:.2%} to {point.fpr_high:.2%}"
        threshold = point.thresholds["distillation"]
        print(f"{name:<18}{threshold:>10.4f}{point.fpr:>14.2%}{interval:>20}{point.n_organic:>9}{mark}")
    for section, metrics in assay.metrics.items():
        if section in ("distillation", *assay.labels):
            shown = (f"{name} {metric['value']:.3f}" for name, metric in metrics.items() if metric["value"] is not None)
            print(f"\n{section} on the test split: {', '.join(shown)}", end="")
    if assay.metrics:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
