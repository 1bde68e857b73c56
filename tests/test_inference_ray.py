"""Scoring on a local Ray: the local engine's rows, with an actor killed on the way."""

import json
import threading
import time

import pytest

from inference.__main__ import main

from .conftest import write_jsonl

psutil = pytest.importorskip("psutil", reason="needs psutil, to find the actor to kill")
ray = pytest.importorskip("ray", reason="needs Ray: pip install 'promptassay[ray]'")


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()


def score(artefact, *arguments):
    arguments = [
        *map(str, arguments[:-1]),
        "--model",
        str(artefact),
        "--chunk-rows",
        "20",
        "--output",
        str(arguments[-1]),
    ]
    return main(["score", *arguments, "--threads", "1"])


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, rows in (("1", 900), ("2", 0), ("3", 305)):
        write_jsonl(
            folder / f"{name}.jsonl",
            [{"id": f"{name}-{n}", "text": f"my opera number {n} " * (n % 9 * 5)} for n in range(rows)],
        )
    return folder


def actors():
    """The processes of this test's actors."""
    return [process for process in psutil.Process().children(recursive=True) if process.name().startswith("ray::Map")]


def test_rows_equal_the_local_engines_though_an_actor_is_killed(artefact, logs, tmp_path, cluster):
    assert score(artefact, logs, tmp_path / "local.parquet") == 0
    killed = []

    def kill_one():
        while not killed:
            done = len(list((tmp_path / "ray.parquet.job").glob("part-*.json")))
            if done and (alive := actors()):
                alive[0].kill()
                killed.append(done)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert score(artefact, logs, "--engine", "ray", "--actors", "2", tmp_path / "ray.parquet") == 0
    assert killed and killed[0] < 45 + 16  # on the way
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    summaries = [json.loads((tmp_path / f"{name}.parquet.summary.json").read_text()) for name in ("ray", "local")]
    assert summaries[0] == summaries[1]


@pytest.mark.slow
def test_a_job_changes_engines_and_a_workers_refusal_is_one_sentence(artefact, logs, tmp_path, cluster, capsys):
    out = tmp_path / "out"
    assert score(artefact, logs, "--shard", "1/3", out) == 0
    rows = (logs / "1.jsonl").read_text()
    (logs / "1.jsonl").write_text(rows.replace("number 3 ", "number 8 "))
    assert score(artefact, logs, "--engine", "ray", "--resume", out) == 2
    # Ray's own lines, of workers that were lost before, may stand beside it.
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "1.jsonl has changed since this job read it (rows 1 to 20)" in errors[0]
    (logs / "1.jsonl").write_text(rows)
    assert score(artefact, logs, "--engine", "ray", "--resume", out) == 0
    assert score(artefact, logs, tmp_path / "local") == 0
    parts = [{item.name: item.read_bytes() for item in folder.iterdir()} for folder in (out, tmp_path / "local")]
    assert parts[0] == parts[1]


def test_what_the_cluster_has_no_room_for_is_one_sentence(artefact, logs, tmp_path, cluster, capsys):
    assert score(artefact, logs, "--engine", "ray", "--gpus", "1", tmp_path / "out.jsonl") == 2
    error = capsys.readouterr().err
    assert "no machine of the Ray cluster has room for an actor with 1 cores and 1 GPUs" in error


def test_what_ray_cannot_do_is_one_sentence(artefact, logs, tmp_path, capsys):
    assert score(artefact, logs, "--engine", "ray", "--limit", "3", tmp_path / "out.jsonl") == 2
    assert "need the local engine" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        score(artefact, logs, "--engine", "ray", "--actors", "4:2", tmp_path / "out.jsonl")
    assert "no number of actors" in capsys.readouterr().err
