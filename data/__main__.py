"""The command line of `data`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = """examples:
  see whether labelled files can be used, and what is in them:
    python -m data check labelled.jsonl more/*.csv
  build splits from the shipped corpus:
    python -m data build configs/data/seed.yaml --out build/data
  build splits from your own labelled files:
    python -m data build labelled.jsonl more/ --out build/data

exit status: 0 done, 1 the data has faults, 2 wrong use"""


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog="python -m data",
        description="Labelled prompts: check them, and build splits to train on.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="print every fault as file:line: reason, and a table of what is there")
    check.add_argument("files", nargs="+", metavar="FILE", help="JSONL (.gz too), Parquet or CSV, folders or globs")
    build = commands.add_parser("build", help="build train, calibration, validation and test splits")
    build.add_argument(
        "sources", nargs="+", metavar="CONFIG|FILE", help="one YAML list of sources, or labelled files, folders, globs"
    )
    build.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to build")
    build.add_argument("--overwrite", action="store_true", help="replace a folder that an earlier build made")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = parser().parse_args(arguments)
    from inference.job.readers import InputError

    from .config import ConfigError
    from .split import SplitError

    try:
        return _check(options.files) if options.command == "check" else _build(options)
    except SplitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ConfigError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130


def _check(names: Sequence[str]) -> int:
    from inference.job.readers import find_files

    from .manifest import count_axes, count_tables
    from .records import load_records

    files = find_files(names)
    records, faults = load_records(files)
    for fault in faults:
        print(fault)
    print(count_tables({"records": count_axes(records)}))
    print(f"\n{len(files)} file(s), {len(records)} record(s), {len(faults)} fault(s)")
    return 1 if faults else 0


def _build(options: argparse.Namespace) -> int:
    from .build import BuildError, build
    from .config import load_config
    from .manifest import markdown_table
    from .sources import BuildConfig, config_for_files

    names = options.sources
    is_config = [name.endswith((".yaml", ".yml")) for name in names]
    if any(is_config) and len(names) > 1:
        print("error: give one YAML list of sources, or labelled files; not both", file=sys.stderr)
        return 2
    config = load_config(Path(names[0]), BuildConfig) if is_config[0] else config_for_files(names)
    try:
        built = build(config, options.out, options.overwrite)
    except BuildError as error:
        for fault in error.faults:
            print(fault)
        print(f"error: {error}", file=sys.stderr)
        return 1 if error.faults else 2
    counts = {name: split["label"] | split["all"] for name, split in built.manifest["splits"].items()}
    columns = next(iter(counts.values()))
    print(markdown_table(["split", *columns], [[name, *by_label.values()] for name, by_label in counts.items()]))
    removed = built.manifest["records"]["removed"]
    print(f"\nremoved: {', '.join(f'{n} {reason}' for reason, n in removed.items()) or 'none'}")
    print(f"written: {built.folder} (fingerprint {built.manifest['fingerprint']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
