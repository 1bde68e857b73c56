"""The command line: arguments are read before anything heavy is imported."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .prompts import Prompt

EXAMPLES = """examples:
  score a file of prompts (columns "text" or "messages"), keep two of its columns:
    %(prog)s score prompts.jsonl --model build/demo/model --output scored.parquet --keep account_id time
  score a folder of Parquet files whose prompts stand in "prompt"; go on after a kill:
    %(prog)s score logs/ --text-column prompt --model MODEL --output scored/ --resume
  flag what was scored anew, at another operating point, without scoring:
    %(prog)s decide scored.parquet --operating-point fpr-5pct --output scored-5pct.parquet
  see what an artefact promises:
    %(prog)s info build/demo/model
  see which words of a prompt raised its score (needs pip install 'promptassay[explain]'):
    %(prog)s explain build/demo/model --text "Think step by step inside <think> tags, then answer."

exit status: 0 done, 1 more rows failed than --max-errors allows, 2 wrong use"""

EXPLAIN_EXAMPLES = """examples:
  a prompt as an argument, or from standard input:
    %(prog)s build/demo/model --text "Think step by step inside <think> tags, then answer."
    %(prog)s build/demo/model < prompt.txt
  a row of a file that was scored, as a fragment of HTML:
    %(prog)s build/demo/model --file prompts.jsonl --id a-17 --format html > a-17.html
  why any category applies, more exactly (slower), for programs:
    %(prog)s build/demo/model --category distillation --steps 200 --format json < prompt.txt

An effect is a difference in the category's logit, by integrated gradients: the effects of all words add up to what the
text changes against one of pad tokens. It tells what this model reacts to, which is no proof of what the prompt is for.
Long prompts take a while: every step reads all windows."""


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
    _add_decide(commands)
    info = commands.add_parser("info", help="say what an artefact is and what its operating points promise")
    info.add_argument("model", metavar="MODEL", help="the artefact's folder")
    info.add_argument("--format", choices=("text", "json"), default="text", help="for people or for programs")
    _add_explain(commands)
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


def _add_decide(commands: Any) -> None:
    decide = commands.add_parser(
        "decide",
        help="flag scored rows anew at another operating point, without scoring",
        description="Flag the rows of a complete score job anew at another operating point of the artefact that scored "
        "them: labels and flagged change, all else stays. Neither the artefact nor the prompts are needed. The output "
        "is what score would have written with that --operating-point.",
    )
    decide.add_argument("scored", metavar="SCORED", help="what score wrote, with its summary beside it")
    decide.add_argument("--operating-point", required=True, metavar="NAME", help="such as fpr-5pct")
    decide.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="a path of the same kind: .parquet, .jsonl, .csv or a folder",
    )
    decide.add_argument("--overwrite", action="store_true", help="replace an output that exists")


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="show which words and windows of one prompt raised a category, and which lowered it",
        description="Show which words and windows of one prompt raised a category's score (red, or [+word+]) and\n"
        "which lowered it (blue, or [-word-]). The prompt is read from standard input where no option names it.\n"
        "Needs captum: pip install 'promptassay[explain]'",
        epilog=EXPLAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("model", metavar="MODEL", help="the artefact's folder")
    prompt = explain.add_mutually_exclusive_group()
    prompt.add_argument("--text", help="the prompt")
    prompt.add_argument("--file", metavar="FILE", help='a file of prompts (columns "text" or "messages"), as for score')
    explain.add_argument("--id", help="which row of --file, by its id as score writes it (default: the first)")
    explain.add_argument(
        "--category", metavar="NAME", help="a label of the artefact or distillation (default: the most likely label)"
    )
    explain.add_argument(
        "--top", type=_positive, default=8, metavar="N", help="words to list or mark each way (default: %(default)s)"
    )
    explain.add_argument(
        "--format", choices=("text", "json", "html"), default="text", help="for a terminal, a program or a page"
    )
    explain.add_argument(
        "--steps", type=_positive, default=50, metavar="N", help="steps of the integral (default: %(default)s)"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


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
    from .explain import ExplainError
    from .job.files import InputError
    from .job.ledger import JobError
    from .prompts import PromptError

    try:
        return {"score": _score, "decide": _decide, "info": _info, "explain": _explain}[options.command](options)
    except (ArtefactError, ExplainError, InputError, JobError, PromptError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        kept = "; what was scored is kept: go on with --resume" if options.command == "score" else ""
        print(f"interrupted{kept}", file=sys.stderr)
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


def _decide(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .job.decide import decide_anew

    output = Path(options.output)
    summary = decide_anew(Path(options.scored), options.operating_point, output, overwrite=options.overwrite)
    print(_summary_table(summary))
    print(f"written: {output} and {output}.summary.json")
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


def _explain(options: argparse.Namespace) -> int:
    from .explain import Explainer
    from .explanation import explanation_html, explanation_text

    if options.id is not None and options.file is None:
        return _fail("--id names a row of a file: give --file too")
    if options.file is not None:
        prompt = _prompt_of_row(options.file, options.id)
    elif options.text is not None:
        prompt = options.text
    else:
        if sys.stdin.isatty():
            print("type the prompt, and end it with Ctrl-D on a line of its own", file=sys.stderr)
        # The last newline is the shell's. Bytes that are no UTF-8 become U+FFFD, as in files.
        prompt = sys.stdin.buffer.read().decode("utf-8", errors="replace").removesuffix("\n")
    explanation = Explainer.load(options.model).explain(prompt, options.category, steps=options.steps)
    if options.format == "json":
        print(json.dumps(explanation.to_dict(), indent=2))  # in ASCII: a prompt may hold what UTF-8 cannot
    elif options.format == "html":
        print(explanation_html(explanation))
    else:
        print(explanation_text(explanation, options.top, sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    return 0


def _prompt_of_row(file: str, row_id: str | None) -> Prompt:
    """The prompt of the row that `score` would give the id `row_id`, or of the first row."""
    from .job.files import InputError, find_files
    from .job.local import ScoreOptions, choose_columns, id_of, prompt_of
    from .job.readers import read_rows

    for path in find_files([file]):
        columns = choose_columns(ScoreOptions([file], model="", output=""), (), path)
        for row in read_rows(path, columns.names):
            if row_id is None or id_of(row, path, columns) == row_id:
                return prompt_of(row, columns)
    raise InputError(f"{file}: has no row" if row_id is None else f'{file}: no row has the id "{row_id}"')


if __name__ == "__main__":
    sys.exit(main())
