"""The arguments of all commands, read before anything heavy is imported."""

from __future__ import annotations

import argparse
from typing import Any

from .backends import BACKENDS

EXAMPLES = """examples:
  score a file of prompts (columns "text" or "messages"), keep two of its columns:
    %(prog)s score prompts.jsonl --model build/demo/model --output scored.parquet --keep account_id time
  score a folder of Parquet files whose prompts stand in "prompt"; go on after a kill:
    %(prog)s score logs/ --text-column prompt --model MODEL --output scored/ --resume
  try a thousand rows, and see how long all would take:
    %(prog)s score 's3://bucket/logs/*.parquet' --model MODEL --output trial.parquet --limit 1000
  share a job between two machines, and join it when both have ended:
    %(prog)s score logs/ --model MODEL --output scored/ --shard 1/2      (and 2/2 on the other)
    %(prog)s merge scored/
  as a filter:
    zcat prompts.jsonl.gz | %(prog)s score - --model MODEL --output - | jq -c 'select(.flagged)'
  flag what was scored anew, at another operating point, without scoring:
    %(prog)s decide scored.parquet --operating-point fpr-5pct --output scored-5pct.parquet
  see what an artefact promises:
    %(prog)s info build/demo/model
  make a faster backend, which score then uses by itself (needs pip install 'promptassay[export]'):
    %(prog)s export build/demo/model --backend openvino
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
    _add_merge(commands)
    _add_decide(commands)
    info = commands.add_parser("info", help="say what an artefact is and what its operating points promise")
    info.add_argument("model", metavar="MODEL", help="the artefact's folder")
    info.add_argument("--format", choices=("text", "json"), default="text", help="for people or for programs")
    _add_explain(commands)
    _add_export(commands)
    return top


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        help="score files of prompts: one output row for every input row, in order",
        description="Score files of prompts. Every input row gives one output row, in order; a row that cannot be "
        "scored says why in the column error. A prompt's text is not copied unless --keep names its column.",
    )
    score.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="JSONL, CSV or TSV (.gz and .zst too) or Parquet files, folders or globs of them, on disk or behind a URL "
        "(s3://, gs://, az://); - reads JSONL from standard input",
    )
    score.add_argument("--model", required=True, metavar="DIR", help="the artefact's folder")
    score.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="ends in .parquet, .jsonl or .csv: one file, put in place when complete; else a folder of Parquet parts; "
        "on disk or behind a URL; - writes JSONL to standard output as it comes, and keeps no ledger",
    )
    score.add_argument("--expect-model", metavar="FINGERPRINT", help="refuse any other artefact (see: info)")
    score.add_argument(
        "--operating-point", metavar="NAME", help="where to flag, such as fpr-1pct (default: the artefact's own)"
    )
    score.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        metavar="NAME",
        help=f"what runs the network: {', '.join(BACKENDS)}, where export has made it; auto tries those for a second "
        "and takes the fastest (default: %(default)s)",
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
    score.add_argument(
        "--limit", type=_positive, metavar="N", help="score the first N rows, and estimate the time of all"
    )
    score.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="score the I-th of N shares (1/4 to 4/4); processes on any machines share one output, and "
        "%(prog)s merge joins it".replace("%(prog)s", "python -m inference"),
    )
    score.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="score in this process, or on a Ray cluster (needs pip install 'promptassay[ray]'; RAY_ADDRESS names the "
        "cluster, else one is started here)",
    )
    score.add_argument(
        "--actors",
        type=_actors,
        default=(1, None),
        metavar="N|MIN:MAX",
        help="Ray: how many processes score, fixed or growing with the work (default: 1 up to what the cluster holds)",
    )
    score.add_argument(
        "--gpus", type=float, default=0.0, metavar="SHARE", help="Ray: GPUs of each actor, such as 0.5 (default: none)"
    )
    score.add_argument(
        "--cache",
        metavar="DIR",
        help="keep scores in this local folder, by a hash of the prompt, and take from it what other jobs have scored "
        "with the same artefact and backend",
    )
    score.add_argument(
        "--no-gate",
        dest="gate",
        action="store_false",
        help="have the encoder read every prompt, where the artefact has a gate that would decide some",
    )
    score.add_argument("--threads", type=_positive, metavar="N", help="threads of the network (default: all cores)")
    score.add_argument(
        "--batch-tokens", type=_positive, metavar="N", help="padded tokens in one call of the network (default: 2048)"
    )
    score.add_argument(
        "--chunk-rows",
        type=_positive,
        default=2048,
        metavar="N",
        help="rows that become one part: what a kill can cost (default: %(default)s)",
    )


def _add_merge(commands: Any) -> None:
    merge = commands.add_parser(
        "merge",
        help="check that all shards of a job are done, and put its output in place",
        description="Check that every part that score --shard had to write is there and whole, and put the output and "
        "its summary in place. Run it once, when all shards have ended.",
    )
    merge.add_argument("output", metavar="OUTPUT", help="the --output of the job")


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


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export",
        help="make the network for a faster runtime, and keep it only if it decides as torch does",
        description="Write the artefact's network for another runtime into the artefact, score its reference prompts "
        "with both, and keep the export only if no decision at any operating point changed (with --int8, --bf16 or "
        "--fp16: at most one in a thousand). score uses what was kept where it is the fastest.",
    )
    export.add_argument("model", metavar="MODEL", help="the artefact's folder")
    export.add_argument(
        "--backend",
        required=True,
        choices=("torch", "onnx", "openvino"),
        help="torch needs --bf16 or --fp16",
    )
    kind = export.add_mutually_exclusive_group()
    kind.add_argument("--int8", action="store_true", help="weights and activations in 8 bits: onnx or openvino")
    kind.add_argument("--bf16", action="store_true", help="arithmetic in bf16, where the processor has it")
    kind.add_argument("--fp16", action="store_true", help="arithmetic in fp16: torch, for a GPU")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    """`2/4` as (1, 4): the index from 0, and the number of shards."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard such as 1/4")
    return int(index) - 1, int(count)


def _actors(text: str) -> tuple[int, int | None]:
    """`4` as (4, 4), `2:8` as (2, 8), `2:` as (2, None)."""
    low, colon, high = text.partition(":")
    if not low.isdecimal() or not (high.isdecimal() or high == "") or int(low) < 1 or (high and int(high) < int(low)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of actors such as 4 or 2:8")
    return int(low), int(high) if high else None if colon else int(low)


def _limit(text: str) -> int | float:
    """A whole number counts rows, a number with a point is a share."""
    try:
        value: int | float = int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of rows nor a share such as 0.01") from None
    if isinstance(value, float) and not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a share lies between 0 and 1, and {text} does not")
    return value
