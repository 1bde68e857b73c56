"""The command line of `data`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  see whether labelled files can be used, and what is in them:
    python -m data check labelled.jsonl more/*.csv
  build splits from the shipped corpus:
    python -m data build configs/data/seed.yaml --out build/data
  build splits from your own labelled files:
    python -m data build labelled.jsonl more/ --out build/data
  add new files later, with every old record in the split that it is in, and keep a source for measuring alone:
    python -m data build labelled.jsonl new.jsonl --previous build/data --hold-out-source blog --out build/data2
  make the tables of the shipped corpus' data card anew, after prompts were added:
    python -m data card data/seed
  find likely label errors, mend them in the file that comes out, and build with what was mended:
    python -m data audit build/data
    python -m data build labelled.jsonl --corrections build/data.audit/suspects.jsonl --out build/data3

exit status: 0 done, 1 the data has faults, 2 wrong use"""
FILES_HELP = (
    "JSONL, CSV or TSV (also .gz, .zst), Parquet, the folder of a saved datasets.Dataset; files, folders, globs, URLs"
)
_MOST_FAULTS = 200


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog="python -m data",
        description="Labelled prompts: check them, build splits to train on, audit the labels.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="print every fault as file:line: reason, what looks wrong, and tables of what is there",
        description="Check labelled files. Faults keep a row from being used (exit 1); warnings are things to look at "
        "(exit 0). Prompts are never printed. Memory stays bounded whatever the size of the files.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help=FILES_HELP)
    check.add_argument("--format", choices=("text", "json"), default="text", help="for people or for programs")
    _add_build(commands)
    audit = commands.add_parser(
        "audit",
        help="rank likely label errors of built data, warn of shortcuts, say how repeated labels agree",
        description="Audit a built folder. suspects.jsonl holds the records whose label is likely wrong, worst first, "
        "as records: mend `labels` in it and give it to `data build --corrections`. Lines left as they are change "
        "nothing.",
    )
    audit.add_argument("folder", type=Path, metavar="DIR", help="a folder that `data build` made")
    audit.add_argument("--out", type=Path, metavar="DIR", help="where the report goes (default: DIR.audit)")
    audit.add_argument("--seed", type=int, default=0, help="another seed draws other folds (default: %(default)s)")
    card = commands.add_parser(
        "card",
        help="make the tables in the README of a corpus anew",
        description="Count a corpus (DIR/*/*.jsonl) by class and language, length, form and style, list the strongest "
        "words of each class, and put the tables between the two marks in DIR/README.md.",
    )
    card.add_argument("folder", type=Path, metavar="DIR", help="a corpus such as data/seed")
    return top


def _add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = commands.add_parser(
        "build",
        help="build train, calibration, validation and test splits",
        description="Build splits: read, clean (repeats, near-duplicates, contradicting labels), join what belongs "
        "together, split, check for leaks, write. The folder appears whole or not at all.",
    )
    build.add_argument(
        "sources", nargs="+", metavar="CONFIG|FILE", help=f"one YAML list of sources, or labelled files: {FILES_HELP}"
    )
    build.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to build")
    build.add_argument("--overwrite", action="store_true", help="replace a folder that an earlier build made")
    build.add_argument(
        "--previous", type=Path, metavar="DIR", help="an earlier build: its records stay in the splits that they are in"
    )
    build.add_argument(
        "--hold-out-source",
        action="append",
        default=[],
        metavar="SOURCE",
        help="put all of a source into test, so that nothing like it is trained on; may be repeated",
    )
    build.add_argument(
        "--corrections",
        action="append",
        default=[],
        metavar="FILE",
        help="records whose labels replace those of the same text, as `data audit` writes them; may be repeated",
    )
    build.add_argument(
        "--without", action="append", default=[], metavar="NAME", help="leave out a source of the list; may be repeated"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    try:
        return _run(parser().parse_args(arguments))
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(options: argparse.Namespace) -> int:
    from inference.job.files import InputError

    from .config import ConfigError
    from .corpus_card import CardError, CorpusError
    from .fixup import SplitError
    from .leaks import LeakError
    from .manifest import ManifestError
    from .remote import SourceError

    commands = {"check": _check, "build": _build, "audit": _audit, "card": _card}
    try:
        return commands[options.command](options)
    except (CorpusError, SplitError, LeakError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (CardError, ConfigError, InputError, ManifestError, SourceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2


def _check(options: argparse.Namespace) -> int:
    from .check import check
    from .reading import labelled_files

    return 1 if check(labelled_files(options.files), sys.stdout, as_json=options.format == "json") else 0


def _build(options: argparse.Namespace) -> int:
    from .build import BuildError, build
    from .sources import build_config

    config = build_config(options.sources, options.hold_out_source, options.corrections, options.without, options.out)
    try:
        built = build(config, options.out, options.overwrite, options.previous)
    except BuildError as error:
        for fault in error.faults[:_MOST_FAULTS]:
            print(fault)
        if len(error.faults) > _MOST_FAULTS:
            print(f"… and {len(error.faults) - _MOST_FAULTS} more; `python -m data check` prints all faults of a file")
        print(f"error: {error}", file=sys.stderr)
        return 1 if error.faults else 2
    _show(built.folder, built.manifest)
    return 0


def _show(folder: Path, manifest: dict[str, Any]) -> None:
    """What a build did, for a terminal."""
    from .summary import markdown_table

    counts = {name: split["label"] | split["all"] for name, split in manifest["splits"].items()}
    columns = next(iter(counts.values()))
    print(markdown_table(["split", *columns], [[name, *by_label.values()] for name, by_label in counts.items()]))
    records = manifest["records"]
    print(f"\nread {records['read']}, kept {records['kept']}; removed:")
    print("\n".join(f"  {n} {reason}" for reason, n in records["removed"].items()) or "  nothing")
    for source, problems in manifest["passed_over"].items():
        shown = "; ".join(f"{n} × {problem}" for problem, n in list(problems.items())[:3])
        print(f"passed over in {source}: {shown}")
    if manifest["config"]["corrections"]:
        given, changed, lost = manifest["corrections"].values()
        print(f"corrections: {given}, which changed {changed} record(s); {lost} found no record of their text")
    for move in manifest["moves"]:
        what = f"a cluster of {move['records']} record(s)" if "records" in move else f"record {move['record']}"
        print(f"moved {what} to {move['to']}: {move['reason']}")
    print(f"written: {folder} (fingerprint {manifest['fingerprint']})")


def _audit(options: argparse.Namespace) -> int:
    from .audit import AuditError, audit
    from .reading import AUDIT_FILE, SUSPECTS_FILE
    from .summary import markdown_table

    try:
        found = audit(options.folder, options.seed)
    except AuditError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out = options.out or options.folder.with_name(options.folder.name + ".audit")
    found.write(out)
    print(f"{len(found.suspects)} of {found.records} records have a label that is likely wrong\n")
    if found.suspects:
        print(markdown_table(["given", "suggested", "records"], found.flips()))
    for item in found.unsupported[:10]:
        print(f"\nwarning: {item.message}", end="")
    for shortcut in found.shortcuts:
        print(f"\nwarning: {shortcut.message}", end="")
    for twice in found.agreement:
        kappa = "" if twice.kappa is None else f", kappa {twice.kappa:.2f}"
        print(f"\nlabelled twice: {twice.agreeing} of {twice.pairs} agree on {twice.category}{kappa}", end="")
    print(f"\n\nwritten: {out / SUSPECTS_FILE} (mend its labels, then build with --corrections) and {out / AUDIT_FILE}")
    return 0


def _card(options: argparse.Namespace) -> int:
    from .corpus_card import write_card

    changed = write_card(options.folder)
    print(f"{'written' if changed else 'up to date'}: {options.folder / 'README.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
