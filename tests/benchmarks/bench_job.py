"""How much memory a score job takes at its peak, and how many rows it scores a second, as its input grows.

    make bench-job

Prompts come at the lengths of real traffic, no two alike, and the network is the tests' own: so small that what is
measured is the job. The Parquet file is one row group, as most writers leave it. The aim is a peak under 1.5 GB that
does not grow with the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.summary import markdown_table

SIZES = (10_000, 100_000, 1_000_000)
KINDS = (("in.parquet", "scored"), ("in.jsonl", "scored.jsonl"))
AIM_MB = 1500
_TEXTS = 5_000
_UNIT = 1024 if sys.platform == "linux" else 1
"""What `ru_maxrss` counts in, in bytes."""


class _Folders:
    """Stands in for pytest's factory of folders, so that the tests' fixtures can be called."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def mktemp(self, name: str) -> Path:
        (self._root / name).mkdir(parents=True)
        return self._root / name


def make_model(folder: Path) -> None:
    """Train the tests' tiny network, and leave the artefact in `folder`."""
    from tests import conftest

    def call(fixture: Any, *arguments: Any) -> Any:
        return fixture.__wrapped__(*arguments)

    folders = _Folders(folder.with_name("tests"))
    encoder, labelled = call(conftest.encoder, folders), call(conftest.labelled, folders)
    config = call(conftest.run_config, encoder, call(conftest.built, folders, labelled))
    call(conftest.artefact, folders, config).rename(folder)


def make_input(path: Path, size: int) -> None:
    """Write `size` rows in the format that `path` names."""
    from .traffic import traffic

    texts = traffic(min(size, _TEXTS))

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(size):
            text = f"{texts[number % len(texts)]} {number}"
            yield {"id": f"row-{number}", "text": text, "account_id": f"account-{number % 977}"}

    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows())), path)


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and MB at the peak of a command in a process of its own.

    The system counts the memory of whoever starts a process as the process's own until it begins, so whoever starts
    one must be small: what is large is made in processes of their own.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        output.seek(0)
        if process.returncode:
            raise SystemExit(output.read().decode(errors="replace")[-2000:])
    return seconds, usage.ru_maxrss * _UNIT / 1e6


def measure(sizes: list[int], folder: Path) -> None:
    """Score every size in every format, and print one table."""
    this = ["tests.benchmarks.bench_job", "--make"]
    model = folder / "model"
    run([*this, str(model)])
    rows, peaks = [], []
    for source, target in KINDS:
        for size in sizes:
            place = Path(tempfile.mkdtemp(dir=folder))
            path, output = place / source, place / target
            run([*this, str(path), "--sizes", str(size)])
            megabytes = path.stat().st_size / 1e6
            command = ["inference", "score", str(path), "--model", str(model), "--output", str(output)]
            seconds, peak = run([*command, "--keep", "account_id", "--threads", "1"])
            name = f"{path.suffix[1:]} to {'a folder of parquet' if output.is_dir() else output.suffix[1:]}"
            rows.append([name, f"{size:,}", f"{megabytes:,.0f}", f"{peak:,.0f}", f"{size / seconds:,.0f}"])
            peaks.append(peak)
            print(f"{name}, {size:,} rows: {seconds:.0f} s, {peak:,.0f} MB at the peak", file=sys.stderr)
            shutil.rmtree(place)
    print(markdown_table(["job", "rows", "input, MB", "peak memory, MB", "rows/s, start included"], rows))
    print(f"\npeaks lie between {min(peaks):,.0f} and {max(peaks):,.0f} MB (aim: under {AIM_MB:,} MB, and flat)")


def main() -> None:
    """Measure, or make one thing that measuring needs."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows (default: %(default)s)")
    options.add_argument("--make", type=Path, metavar="PATH", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.make is None:
        with tempfile.TemporaryDirectory() as folder:
            measure(list(asked.sizes), Path(folder))
    elif asked.make.suffix:
        make_input(asked.make, asked.sizes[0])
    else:
        make_model(asked.make)


if __name__ == "__main__":
    main()
