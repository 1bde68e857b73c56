"""Jobs that several processes share, places other than a disk, streams, trials: the same rows as one plain job."""

import csv
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from inference.__main__ import main
from inference.job.chunks import FileEnd, FileTask, Shard, read_chunks
from inference.job.columns import Columns
from inference.job.files import stdin
from inference.job.ledger import Ledger
from inference.job.overlap import Behind, ahead

from .conftest import ROOT, write_jsonl


def score(artefact, *arguments):
    arguments = [
        *map(str, arguments[:-1]),
        "--model",
        str(artefact),
        "--chunk-rows",
        "7",
        "--output",
        str(arguments[-1]),
    ]
    return main(["score", *arguments])


@pytest.fixture
def logs(tmp_path):
    """A folder of three files, one of them shorter than a chunk and one empty."""
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, rows in (("1", 40), ("2", 0), ("3", 5)):
        write_jsonl(
            folder / f"{name}.jsonl",
            [{"id": f"{name}-{n}", "text": f"bread {n}" if n % 9 else ""} for n in range(rows)],
        )
    return folder


def content(path):
    return {item.name: item.read_bytes() for item in path.iterdir()} if path.is_dir() else path.read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out.csv", "out"])
def test_shards_in_any_order_merge_to_what_one_process_writes(artefact, logs, tmp_path, capsys, name):
    whole, shared = tmp_path / "whole" / name, tmp_path / "shared" / name
    assert score(artefact, logs, whole) == 0
    for shard in ("3/3", "1/3"):
        assert score(artefact, logs, "--shard", shard, shared) == 0
        assert f"shard {shard} is done" in capsys.readouterr().out
    assert main(["merge", str(shared)]) == 2
    assert "1.jsonl lacks 2 of 6 parts" in capsys.readouterr().err and not shared.exists()
    assert score(artefact, logs, "--shard", "2/3", shared) == 0
    assert score(artefact, logs, "--shard", "2/3", shared) == 0  # once more does no harm
    assert main(["merge", str(shared)]) == 0
    assert content(shared) == content(whole)
    summaries = [path.with_name(name + ".summary.json").read_bytes() for path in (shared, whole)]
    assert summaries[0] == summaries[1]
    capsys.readouterr()
    if shared.is_file():
        assert main(["merge", str(shared)]) == 2
        assert "is complete already" in capsys.readouterr().err


def test_a_job_without_shards_finishes_what_shards_began(artefact, logs, tmp_path):
    assert score(artefact, logs, tmp_path / "whole.jsonl") == 0
    assert score(artefact, logs, "--shard", "2/2", tmp_path / "out.jsonl") == 0
    assert score(artefact, logs, "--resume", tmp_path / "out.jsonl") == 0
    assert content(tmp_path / "out.jsonl") == content(tmp_path / "whole.jsonl")


def test_merge_finds_what_is_damaged(artefact, logs, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["merge", str(out)]) == 2
    assert "no job lies in" in capsys.readouterr().err
    assert score(artefact, logs, "--shard", "1/1", out) == 0
    part = next((tmp_path / "out.jsonl.job").glob("part-00000-000002.jsonl"))
    part.write_bytes(part.read_bytes().replace(b"false", b"true ", 1))
    assert main(["merge", str(out)]) == 2
    assert "1 parts are missing or damaged" in capsys.readouterr().err
    assert score(artefact, logs, "--shard", "1/1", out) == 0
    assert main(["merge", str(out)]) == 0
    (tmp_path / "other.jsonl.job").mkdir()
    (tmp_path / "other.jsonl.job" / "job.json").write_text('{"options": ')
    assert main(["merge", str(tmp_path / "other.jsonl")]) == 2
    assert "the ledger is damaged" in capsys.readouterr().err


def test_processes_at_the_same_moment_share_one_ledger(artefact, logs, tmp_path):
    """Real processes that start together; what they leave merges to what one process writes."""
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "inference", "score", str(logs), "--model", str(artefact), "--chunk-rows", "7"]
    with ThreadPoolExecutor(3) as pool:
        runs = [
            pool.submit(subprocess.run, [*command, "--output", str(out), "--shard", f"{i}/3"], cwd=ROOT, capture_output=True)
            for i in (1, 2, 3)
        ]  # fmt: skip
    assert [run.result().returncode for run in runs] == [0, 0, 0]
    assert score(artefact, logs, tmp_path / "whole.jsonl") == 0
    assert main(["merge", str(out)]) == 0
    assert content(out) == content(tmp_path / "whole.jsonl")


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 5), st.none() | st.integers(1, 45), st.integers(0, 3))
def test_every_row_is_in_one_chunk_of_one_shard(tmp_path_factory, rows, chunk_rows, shards, limit, number):
    path = tmp_path_factory.mktemp("rows") / "in.csv"
    path.write_text("text\n" + "".join(f"bread {n}\n" for n in range(rows)))
    columns = Columns("text", None, None, ())
    seen = {}
    for index in range(shards):
        task = FileTask(number, path, columns, {}, chunk_rows, Shard(index, shards))
        *chunks, end = read_chunks(task, limit)
        kept = min(rows, rows if limit is None else limit)
        assert end == FileEnd(number, kept, -(-kept // chunk_rows))
        for chunk in chunks:
            assert chunk.part not in seen
            seen[chunk.part] = [row.values["text"] for row in chunk.rows]
    assert [text for part in sorted(seen) for text in seen[part]] == [f"bread {n}" for n in range(kept)]
    assert all(len(texts) == chunk_rows for part, texts in seen.items() if part + 1 < end.parts)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out"])
def test_output_behind_a_url(artefact, logs, tmp_path, capsys, name):
    bucket = f"memory://bucket-{tmp_path.name}"
    assert score(artefact, logs, tmp_path / name) == 0
    assert score(artefact, logs, "--shard", "1/2", f"{bucket}/{name}") == 0
    assert score(artefact, logs, "--resume", f"{bucket}/{name}") == 0
    there = UPath(bucket) / name
    assert content(there) == content(tmp_path / name)
    assert UPath(f"{bucket}/{name}.summary.json").read_bytes() == (tmp_path / f"{name}.summary.json").read_bytes()
    assert score(artefact, logs, f"{bucket}/{name}") == 2
    assert "exists already" in capsys.readouterr().err
    assert score(artefact, logs, "--resume", f"{bucket}/{name}") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert score(artefact, logs / "1.jsonl", "--overwrite", f"{bucket}/{name}") == 0
    left = {item.name for item in UPath(bucket).iterdir()}
    assert left == {name, f"{name}.summary.json"} | ({f"{name}.job"} if name == "out" else set())


@pytest.fixture
def piped(tmp_path):
    """A function that puts bytes on standard input."""
    saved = os.dup(0)

    def put(content):
        (tmp_path / "stdin").write_bytes(content)
        with (tmp_path / "stdin").open("rb") as stream:
            os.dup2(stream.fileno(), 0)
        stdin.cache_clear()

    yield put
    os.dup2(saved, 0)
    os.close(saved)
    stdin.cache_clear()


def test_as_a_filter(artefact, tmp_path, piped, capfdbinary):
    rows = [{"id": str(n) if n % 2 else None, "text": f"bread {n}"} for n in range(600)]
    source = write_jsonl(tmp_path / "stdin.jsonl", rows)
    arguments = ["score", "-", "--model", str(artefact), "--output", "-"]
    assert score(artefact, source, tmp_path / "out.jsonl") == 0
    capfdbinary.readouterr()
    piped(source.read_bytes())
    assert main(arguments) == 0
    out, err = capfdbinary.readouterr()
    scored = [json.loads(line) for line in out.splitlines()]
    wanted = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # Other chunks are other batches: the scores are equal to rounding, and all else is equal.
    for mine, other in zip(scored, wanted, strict=True):
        assert mine["distillation"] == pytest.approx(other["distillation"], abs=1e-5)
        assert (mine["error"], mine["n_tokens"]) == (None, other["n_tokens"])
        assert mine["id"] == other["id"].replace("stdin.jsonl", "stdin")
    assert b"rows             600" in err
    for options, content, message in (
        ([], b'{"prompt": "x"}\n', b"-: has no column text or messages"),
        (["--resume"], b"", b"keeps no ledger"),
    ):
        piped(content)
        assert main([*arguments, *options]) == 2
        out, err = capfdbinary.readouterr()
        assert out == b"" and message in err


def test_standard_input_into_a_file_can_be_resumed(artefact, tmp_path, piped, monkeypatch, capsys):
    rows = [{"text": f"bread {n}"} for n in range(30)]
    content = write_jsonl(tmp_path / "in.jsonl", rows).read_bytes()
    piped(content)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "end_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert score(artefact, "-", tmp_path / "out.jsonl") == 130
    piped(content.replace(b"bread 9", b"bread X"))
    assert score(artefact, "-", "--resume", tmp_path / "out.jsonl") == 2
    assert "- has changed since this job read it (rows 8 to 14)" in capsys.readouterr().err
    piped(content)
    assert score(artefact, "-", "--resume", tmp_path / "out.jsonl") == 0
    ids = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ids == [f"stdin:{n}" for n in range(1, 31)]


def run(artefact, *arguments, **more):
    command = [sys.executable, "-m", "inference", "score", *map(str, arguments), "--model", str(artefact)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, **more)


def test_a_reader_that_leaves_ends_the_filter(artefact, tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": f"bread {n}"} for n in range(2000)])
    command = f"{sys.executable} -m inference score {source} --model {artefact} --output - | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True)
    assert done.stdout.count(b"\n") == 1 and b"Error" not in done.stderr and b"Exception" not in done.stderr


def test_a_trial_scores_the_first_rows_and_estimates_all(artefact, logs, tmp_path, capsys):
    assert score(artefact, logs, tmp_path / "whole.jsonl") == 0
    assert score(artefact, logs, "--limit", "42", tmp_path / "out.jsonl") == 0
    assert "all 45 would take about" in capsys.readouterr().out
    whole = (tmp_path / "whole.jsonl").read_text().splitlines()
    trial = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in trial] == [json.loads(row)["id"] for row in whole[:42]]
    assert score(artefact, logs, "--limit", "42", "--shard", "1/2", tmp_path / "o.jsonl") == 2
    assert "give one of them" in capsys.readouterr().err


def test_only_the_expected_model_scores(artefact, classifier, logs, tmp_path, capsys):
    known = classifier.assay.fingerprint
    assert score(artefact, logs, "--expect-model", "0" * 16, tmp_path / "out.jsonl") == 2
    assert f"is artefact {known}, and --expect-model says 0000" in capsys.readouterr().err
    assert score(artefact, logs, "--expect-model", known, tmp_path / "out.jsonl") == 0


def test_text_that_a_spreadsheet_would_run_is_guarded(artefact, tmp_path):
    notes = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "plain", "'=x", -1, "a=b"]
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"id": f"={n}", "text": "bread", "note": x} for n, x in enumerate(notes)]
    )
    assert score(artefact, source, "--keep", "note", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["note"] for row in rows] == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", "plain", "'=x", "-1", "a=b"]
    assert all(row["id"].startswith("'=") for row in rows)
    assert score(artefact, source, "--keep", "note", tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet")["note"].to_pylist()[0] == "=1+1"


def test_a_full_disk_is_one_sentence_and_loses_nothing(artefact, tmp_path):
    """A limit on the size of files stands for a disk that fills up: the write fails in the kernel."""
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"id": n, "text": f"bread {n}", "note": "n" * 200 * n} for n in range(30)]
    )
    arguments = [source, "--keep", "note", "--chunk-rows", "5"]
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    done = run(artefact, *arguments, "--output", tmp_path / "out.jsonl", preexec_fn=limited)
    assert done.returncode == 2 and b"too large" in done.stderr and b"Traceback" not in done.stderr
    assert not (tmp_path / "out.jsonl").exists()
    assert not list((tmp_path / "out.jsonl.job").glob("*.writing"))
    assert len(list((tmp_path / "out.jsonl.job").glob("part-*.jsonl"))) == 4
    arguments += ["--model", artefact]
    assert main(["score", *map(str, arguments), "--output", str(tmp_path / "out.jsonl"), "--resume"]) == 0
    assert main(["score", *map(str, arguments), "--output", str(tmp_path / "whole.jsonl")]) == 0
    assert content(tmp_path / "out.jsonl") == content(tmp_path / "whole.jsonl")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write to")
def test_an_output_that_cannot_be_written_is_one_sentence(artefact, logs, capsys):
    assert score(artefact, logs, "/proc/self/out.jsonl") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: /proc/self/out.jsonl.job") and error.count("error:") == 1


def test_work_ahead_and_behind_keeps_order_and_raises_in_place():
    def numbers():
        yield from range(5)
        raise ValueError("five")

    seen = []
    with pytest.raises(ValueError, match="five"):
        for number in ahead(numbers()):
            seen.append(number)
    assert seen == [0, 1, 2, 3, 4]
    done = []

    def work(number):
        if number == 3:
            raise OSError("no space")
        done.append(number)

    with pytest.raises(OSError, match="no space"), Behind() as writer:
        for number in range(20):
            writer.run(work, number)
    assert done == [0, 1, 2]
