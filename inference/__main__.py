"""The command line: what each command does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .arguments import parser

if TYPE_CHECKING:
    from .job.score import ScoreOptions, ScoreResult
    from .prompts import Prompt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = parser(f"python -m {__package__}").parse_args(arguments)
    from .artefact import ArtefactError
    from .backends import BackendError
    from .explain import ExplainError
    from .export import ExportRefused
    from .job.files import InputError
    from .job.ledger import JobError
    from .prompts import PromptError

    try:
        return {
            "score": _score,
            "merge": _merge,
            "decide": _decide,
            "info": _info,
            "explain": _explain,
            "export": _export,
        }[options.command](options)
    except ExportRefused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ArtefactError, BackendError, ExplainError, InputError, JobError, PromptError) as error:
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
    import warnings

    from .cache import CacheWarning
    from .job.chunks import Shard
    from .job.score import ScoreOptions, score

    fields = {name: value for name, value in vars(options).items() if name != "command"}
    wanted = ScoreOptions(**fields | {"shard": None if options.shard is None else Shard(*options.shard)})
    with warnings.catch_warnings():
        warnings.simplefilter("always", CacheWarning)
        warnings.showwarning = _warn
        if options.output == "-":
            return _stream(wanted)
        result = score(wanted)
    if result.nothing_to_do:
        print(f"{result.output} is complete already; nothing to do")
        return 0
    print(_summary_table(result.summary))
    if result.rows:
        print(_time_line(result))
    if result.too_many_errors:
        return _too_many_errors(options.max_errors, "; what was scored is kept: go on with --resume and a higher limit")
    if result.waits_for_merge:
        number, count = options.shard
        print(
            f"shard {number + 1}/{count} is done (the table counts what lies in {result.output}.job so far); when all "
            f"are: python -m {__package__} merge {result.output}"
        )
        return 0
    print(f"written: {result.output} and {result.output}.summary.json")
    return 0


def _warn(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """A warning of ours as a sentence, and others by their first line alone."""
    print(f"warning: {str(message).splitlines()[0]}", file=sys.stderr)


def _stream(options: ScoreOptions) -> int:
    from .job.stream import stream

    summary, over = stream(options, sys.stdout.buffer)
    print(_summary_table(summary), file=sys.stderr)
    return _too_many_errors(options.max_errors, "") if over else 0


def _too_many_errors(limit: int | float | None, kept: str) -> int:
    print(f"error: more rows failed than --max-errors {limit} allows{kept}", file=sys.stderr)
    return 1


def _time_line(result: ScoreResult) -> str:
    """How long it took, and after a trial how long all would take."""
    rate = result.rows / max(result.seconds, 1e-9)
    line = f"{result.rows:,} rows in {_duration(result.seconds)}, {rate:,.1f} rows a second"
    if result.total_rows is not None:
        line += f"; all {result.total_rows:,} would take about {_duration(result.total_rows / rate)} at this rate"
    return line


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _merge(options: argparse.Namespace) -> int:
    from .job.files import path_of
    from .job.merge import merge

    print(_summary_table(merge(path_of(options.output))))
    print(f"written: {options.output} and {options.output}.summary.json")
    return 0


def _decide(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .job.decide import decide_anew

    output = Path(options.output)
    summary = decide_anew(Path(options.scored), options.operating_point, output, overwrite=options.overwrite)
    print(_summary_table(summary))
    print(f"written: {output} and {output}.summary.json")
    return 0


def _export(options: argparse.Namespace) -> int:
    from .backends import BACKENDS, BackendError
    from .export import export
    from .hub import artefact_folder

    kinds = [name for name in ("int8", "bf16", "fp16") if getattr(options, name)]
    backend = "-".join([options.backend, *kinds])
    if backend == "torch" or backend not in BACKENDS:
        known = ", ".join(name.replace("-", " --") for name in BACKENDS[1:])
        raise BackendError(f"{backend.replace('-', ' --')} is no export; there are: {known}")
    folder = artefact_folder(options.model)
    parity = export(folder, backend)
    print(f"kept: {parity}")
    print(f"written: {folder / backend}; score --backend auto tries it, and --backend {backend} takes it")
    return 0


def _summary_table(summary: dict[str, Any]) -> str:
    counts, rate = summary["counts"], summary["measured_fpr"]
    scored = max(1, counts["scored"])
    lines = [
        f"backend    {summary['engine']['backend']}, {summary['engine']['threads']} threads",
        f"rows       {counts['rows']:>9,}",
        f"scored     {counts['scored']:>9,}",
        f"repeats    {counts.get('repeats', 0):>9,}  of another prompt of the same chunk, scored once",
        *([f"gated      {n:>9,}  decided by the gate, unread by the encoder"] if (n := counts.get("gated", 0)) else []),
        *([f"cached     {n:>9,}  scored by an earlier job"] if (n := counts.get("cached", 0)) else []),
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
    from dataclasses import asdict

    from .artefact import load_artefact
    from .backends.exports import exported
    from .gate import load_gate
    from .hub import artefact_folder

    folder = artefact_folder(options.model)
    assay = load_artefact(folder)
    gate = load_gate(folder, assay)
    content = {
        "fingerprint": assay.fingerprint,
        **assay.to_json(),
        "backends": exported(folder),
        "gate": {name: asdict(cut) for name, cut in gate.cuts.items()} if gate else None,
    }
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
    print(f"backends         {', '.join(exported(folder))}")
    if gate is not None:
        passed = ", ".join(f"{name} {cut.passed_organic:.0%}" for name, cut in gate.cuts.items())
        print(f"gate             passes on of organic calibration prompts: {passed}")
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
    from .job.columns import choose_columns, id_of, prompt_of
    from .job.files import InputError, find_files
    from .job.readers import read_rows

    for path in find_files([file]):
        columns = choose_columns(path)
        for row in read_rows(path, columns.names):
            if row_id is None or id_of(row, path, columns) == row_id:
                return prompt_of(row, columns)
    raise InputError(f"{file}: has no row" if row_id is None else f'{file}: no row has the id "{row_id}"')


if __name__ == "__main__":
    sys.exit(main())
