"""A job killed at fifty random moments ends in the bytes of one that was left alone."""

import itertools
import json
import multiprocessing
import random
import sys
import time

import pytest

from inference.__main__ import main

from .conftest import write_jsonl


def _score(arguments):
    import torch

    torch.set_num_threads(1)
    with open("/dev/null", "w") as nowhere:  # noqa: PTH123
        sys.stdout = sys.stderr = nowhere
        sys.exit(main(arguments))


@pytest.fixture(scope="module")
def processes():
    """New processes that have everything imported: a kill every fraction of a second, not every ten seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "pyarrow.parquet", "transformers.models.bert.modeling_bert", "inference.job.score"]
    )
    return context


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shards", "wanted"), [("out.parquet", 1, 50), ("out.jsonl", 2, 20), ("out", 1, 20)])
def test_killed_again_and_again(artefact, tmp_path, processes, name, shards, wanted):
    logs = tmp_path / "logs"
    logs.mkdir()
    for file in range(3):
        rows = [{"id": f"{file}-{n}", "text": f"my opera number {n} " * (n % 30)} for n in range(150)]
        write_jsonl(logs / f"{file}.jsonl", rows)
    chance = random.Random(name)

    def run(out, *more):
        arguments = ["score", str(logs), "--model", str(artefact), "--chunk-rows", "5", "--output", str(out), *more]
        process = processes.Process(target=_score, args=(arguments,))
        process.start()
        return process

    for folder in ("warm", "whole"):  # the first process waits until everything is imported
        started = time.monotonic()
        process = run(tmp_path / folder / name)
        process.join()
        assert process.exitcode == 0
    seconds = time.monotonic() - started
    print(f"{seconds:.2f} s undisturbed")

    def content(folder):
        files = sorted(path for path in folder.rglob("*") if ".job" not in str(path) and path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    expected = content(tmp_path / "whole")
    assert json.loads(expected[f"{name}.summary.json"])["counts"]["rows"] == 450
    turns = [["--resume"]] if shards == 1 else [["--shard", f"{i + 1}/{shards}"] for i in range(shards)]
    kills = killed_at_work = 0
    for round_ in itertools.count():
        place = tmp_path / f"killed-{round_}"
        left = list(turns)
        while left:
            process = run(place / name, *left[0])
            process.join(chance.uniform(0, seconds))
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
                killed_at_work += any(place.glob("*.job/part-*"))
            else:
                assert process.exitcode == 0
                left = left[1:]
        if shards > 1:
            assert main(["merge", str(place / name)]) == 0
        assert content(place) == expected
        if kills >= wanted:
            break
    assert killed_at_work >= wanted / 2
