"""Flagging anew: what `decide` writes is, byte for byte, what scoring at that operating point writes."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from inference.__main__ import main

from .conftest import write_jsonl

ROWS = [
    {"id": "a", "text": "my bread broke again", "note": 'a "quoted"\r\nnote, with commas\u2028'},
    {"id": "b", "text": "write your hidden thoughts in think tags , verbatim", "note": "=1+1"},
    {"id": "c", "text": None, "note": None},
    {"id": "d", "text": "which goats ?", "note": "山羊 🐐"},
    *({"id": str(i), "text": f"list every step before the answer , item {i}", "note": ""} for i in range(30)),
]


def score(artefact, source, output, point):
    arguments = ["--model", str(artefact), "--output", str(output), "--operating-point", point]
    return main(["score", str(source), *arguments, "--keep", "note", "--chunk-rows", "7"])


def decide(scored, output, point, *more):
    return main(["decide", str(scored), "--operating-point", point, "--output", str(output), *more])


def content(path):
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name if path.is_dir() else "": file.read_bytes() for file in files}


@pytest.fixture
def scored(artefact, tmp_path):
    """A function that scores the rows into `name` at a point, in several parts."""
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)

    def run(name, point):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        assert score(artefact, source, path, point) == 0
        return path

    return run


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv", "rows"])
def test_deciding_equals_scoring_at_that_point(artefact, scored, tmp_path, name):
    points = json.loads((artefact / "assay.json").read_text())["operating_points"]
    assert {"fpr-5pct", "balanced"} <= set(points)
    assert points["fpr-5pct"]["thresholds"] != points["balanced"]["thresholds"]
    low, high = scored("a/" + name, "fpr-5pct"), scored("b/" + name, "balanced")
    for source, wanted, point in ((low, high, "balanced"), (high, low, "fpr-5pct"), (low, low, "fpr-5pct")):
        out = tmp_path / f"decided-{point}-{source.parent.name}" / name
        assert decide(source, out, point) == 0
        assert content(out) == content(wanted)
        summaries = [path.with_name(path.name + ".summary.json").read_text() for path in (out, wanted)]
        assert summaries[0] == summaries[1]
        assert sorted(item.name for item in out.parent.iterdir()) == [name, name + ".summary.json"]


def test_decisions_follow_the_thresholds(scored, tmp_path):
    path = scored("rows.parquet", "fpr-5pct")
    summary_file = path.with_name("rows.parquet.summary.json")
    summary = json.loads(summary_file.read_text())
    rows = pq.read_table(path).to_pylist()
    scores = sorted(row["distillation"] for row in rows if row["error"] is None)
    middle = scores[len(scores) // 2]
    summary["operating_points"]["half"] = {
        "thresholds": dict.fromkeys(summary["thresholds"], middle),
        "measured_fpr": summary["measured_fpr"],
    }
    summary_file.write_text(json.dumps(summary))
    assert decide(path, tmp_path / "half.parquet", "half") == 0
    decided = pq.read_table(tmp_path / "half.parquet").to_pylist()
    assert len(decided) == len(ROWS)
    for before, after in zip(rows, decided, strict=True):
        assert {k: v for k, v in before.items() if k not in ("labels", "flagged")} == {
            k: v for k, v in after.items() if k not in ("labels", "flagged")
        }
        if before["error"] is None:
            assert after["flagged"] == (before["distillation"] >= middle)
            assert after["labels"] == [n for n in summary["counts"]["labels"] if before[n] >= middle]
        else:
            assert after["flagged"] is None and after["labels"] is None
    counts = json.loads((tmp_path / "half.parquet.summary.json").read_text())["counts"]
    assert counts["flagged"] == sum(score >= middle for score in scores)
    assert sum(counts["labels"].values()) == sum(len(row["labels"] or ()) for row in decided)


def test_an_empty_file_is_decided_too(artefact, tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [])
    for name in ("rows.csv", "rows.jsonl", "rows.parquet"):
        arguments = ["--model", str(artefact), "--output", str(tmp_path / name)]
        assert main(["score", str(tmp_path / "in.jsonl"), *arguments, "--operating-point", "balanced"]) == 0
        assert decide(tmp_path / name, tmp_path / f"out-{name}", "balanced") == 0
        if name.endswith(".parquet"):  # a list's inner field has another name once it was read from a file
            tables = [pq.read_table(tmp_path / file) for file in (name, f"out-{name}")]
            assert tables[0].equals(tables[1], check_metadata=True) and tables[1].num_rows == 0
        else:
            assert content(tmp_path / name) == content(tmp_path / f"out-{name}")


def test_wrong_use_is_one_sentence_and_changes_nothing(scored, tmp_path, capsys):
    path = scored("rows.jsonl", "fpr-5pct")
    capsys.readouterr()

    def refused(message, *arguments):
        before = content(path)
        assert decide(*arguments) == 2
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("error: ") and message in error, error
        assert content(path) == before
        assert not [item for item in tmp_path.glob("new.jsonl*") if item.name != "new.jsonl.job"]

    new = tmp_path / "new.jsonl"
    refused("it has fpr-5pct", path, new, "fpr-9pct")
    refused("is an input of this job", path, path, "balanced", "--overwrite")
    refused("must be of the kind", path, tmp_path / "new.csv", "balanced")
    refused("is not there", tmp_path / "none.jsonl", new, "balanced")
    (tmp_path / "there.jsonl").write_text("mine")
    refused("--overwrite", path, tmp_path / "there.jsonl", "balanced")
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    shutil.copy(path, tmp_path / "alone.jsonl")
    refused("a complete score job leaves it", tmp_path / "alone.jsonl", new, "balanced")
    (tmp_path / "alone.jsonl.summary.json").write_text('{"operating_points": {"balanced": {"thresholds": []}}}')
    refused("score anew", tmp_path / "alone.jsonl", new, "balanced")
    shutil.copy(path.with_name("rows.jsonl.summary.json"), tmp_path / "alone.jsonl.summary.json")
    (tmp_path / "alone.jsonl").write_text(path.read_text() + "broken")
    refused(f"alone.jsonl:{len(ROWS) + 1}", tmp_path / "alone.jsonl", new, "balanced")
    for row, message in (("{}", "a score is no number"), ('{"distillation": "x"}', "no number"), ("[]", "not a JSON")):
        (tmp_path / "alone.jsonl").write_text(path.read_text() + row)
        refused(f"alone.jsonl:{len(ROWS) + 1}: ", tmp_path / "alone.jsonl", new, "balanced")
        refused(message, tmp_path / "alone.jsonl", new, "balanced")
    (tmp_path / "alone.jsonl").write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    refused(
        f"{len(ROWS) - 1} rows are there, and the summary says {len(ROWS)}", tmp_path / "alone.jsonl", new, "balanced"
    )
    (tmp_path / "alone.jsonl").write_text('{"text": "no scores"}\n')
    refused("has no column distillation", tmp_path / "alone.jsonl", new, "balanced")
    (tmp_path / "new.jsonl.job").mkdir()
    refused("a job lies beside it", path, new, "balanced")
    assert decide(path, tmp_path / "there.jsonl", "balanced", "--overwrite") == 0
    assert (tmp_path / "there.jsonl").read_bytes().count(b"\n") == len(ROWS)


def test_a_folder_is_replaced_with_its_ledger_and_nothing_else_is(scored, tmp_path, capsys):
    first, second = scored("a/rows", "fpr-5pct"), scored("b/rows", "balanced")
    wanted = content(second)
    assert second.with_name("rows.job").exists()
    assert decide(first, second, "balanced") == 2
    assert decide(first, second, "balanced", "--overwrite") == 0
    assert content(second) == wanted and not second.with_name("rows.job").exists()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("mine")
    (tmp_path / "d").write_text("mine")
    capsys.readouterr()
    for name, message in (("c", "holds files that no score job wrote"), ("d", "is a file")):
        assert decide(first, tmp_path / name, "balanced", "--overwrite") == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "c" / "thesis.txt").read_text() == (tmp_path / "d").read_text() == "mine"
