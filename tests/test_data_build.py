"""A build: nothing leaks, nothing vanishes, adding data moves nothing, and the folder is there whole or not at all."""

import hashlib
import json
import re
import subprocess
import sys

import datasets
import mlcroissant
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from data.__main__ import main
from data.reading import SPLITS
from data.similar import jaccard, shingles

from .conftest import ROOT, labelled_rows, write_jsonl
from .test_data_clean import BASE, NEAR

FILES = {
    "README.md",
    "calibration.parquet",
    "croissant.json",
    "manifest.json",
    "removed.parquet",
    "test.parquet",
    "train.parquet",
    "validation.parquet",
}


def rows_of(folder):
    return {split: pq.read_table(folder / f"{split}.parquet").to_pylist() for split in SPLITS}


def homes(folder):
    return {row["id"]: split for split, rows in rows_of(folder).items() for row in rows}


def removed(folder):
    return pq.read_table(folder / "removed.parquet").to_pylist()


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def run(*arguments):
    return main(["build", *map(str, arguments)])


def test_exact_file_set_and_counts_add_up(built):
    assert {path.name for path in built.iterdir()} == FILES
    content, splits = manifest(built), rows_of(built)
    assert sum(map(len, splits.values())) == content["records"]["kept"] == 720
    assert content["records"]["read"] == content["records"]["kept"] + sum(content["records"]["removed"].values())
    assert {name: counts["all"]["records"] for name, counts in content["splits"].items()} == {
        name: len(rows) for name, rows in splits.items()
    }


def test_the_manifest_says_what_was_read(built, labelled):
    content = manifest(built)
    assert content["inputs"] == {str(labelled): hashlib.sha256(labelled.read_bytes()).hexdigest()}
    assert {"config", "licenses", "versions", "placements", "moves", "previous", "fingerprint"} <= set(content)
    placed = {key for build in content["placements"] for keys in build.values() for key in keys.split()}
    assert len(placed) == 720 + 18  # texts and groups, hashed: no prompt stands in the manifest
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in placed)


def test_groups_share_a_split(built):
    home = {}
    for split, rows in rows_of(built).items():
        for row in rows:
            assert row["cluster"]
            if row["group"]:
                assert home.setdefault(row["group"], split) == split
    assert len(home) == 18


def test_load_dataset_opens_the_folder(built, tmp_path):
    opened = datasets.load_dataset(str(built), cache_dir=str(tmp_path))
    assert set(opened) == set(SPLITS)
    assert {"text", "messages", "labels", "source", "cluster", "weight"} <= set(opened["train"].column_names)
    chat = next(row for row in opened["train"] if row["messages"])
    assert chat["text"] is None and chat["messages"][0] == {"role": "system", "content": "be brief"}


def test_the_data_card_is_one(built):
    card = (built / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["task_categories"] == ["text-classification"]
    assert header["size_categories"] == ["n<1K"] and header["language"] == ["en"] and "license" not in header
    assert [item["split"] for item in header["configs"][0]["data_files"]] == list(SPLITS)
    assert manifest(built)["fingerprint"] in card and "| organic " in card and "Of 720 records 720 were kept" in card


def test_croissant_metadata_is_valid_and_reads_the_rows(built):
    described = mlcroissant.Dataset(built / "croissant.json")
    assert described.metadata.issues.errors == set()
    rows = list(described.records("test"))
    assert len(rows) == len(rows_of(built)["test"])
    expected = {row["id"] for row in rows_of(built)["test"]}
    assert {row["test/id"].decode() for row in rows} == expected


def test_neither_repeating_nor_shuffling_changes_a_byte(tmp_path, monkeypatch):
    rows = [
        *labelled_rows(),
        {**labelled_rows()[2], "lang": "de"},
        {"text": BASE, "labels": []},
        {"text": NEAR, "labels": []},
    ]
    for number, given_rows in enumerate((rows, rows, rows[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_jsonl(folder / "in.jsonl", given_rows)
        monkeypatch.chdir(folder)
        assert run("in.jsonl", "--out", "out") == 0
    names = FILES - {"manifest.json", "README.md", "croissant.json"}  # these hold the hash of the input
    for name in FILES:
        assert (tmp_path / "0" / "out" / name).read_bytes() == (tmp_path / "1" / "out" / name).read_bytes()
    for name in names:
        assert pq.read_table(tmp_path / "0" / "out" / name).equals(pq.read_table(tmp_path / "2" / "out" / name))


def test_adding_data_moves_no_old_record(built, tmp_path):
    more = [{"text": f"a new prompt {n} {n * 7919}", "labels": [], "source": "new"} for n in range(50)]
    source = write_jsonl(tmp_path / "more.jsonl", more + labelled_rows()[::-1])
    assert run(source, "--out", tmp_path / "out") == 0
    assert homes(built).items() <= homes(tmp_path / "out").items() and len(homes(tmp_path / "out")) == 770


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_growing_data_over_three_builds(tmp_path_factory, data):
    """Whatever comes later, and under whatever seed: what was placed stays, and nothing alike lies in two splits."""
    folder = tmp_path_factory.mktemp("growing")
    words = st.lists(st.sampled_from("one two three four five six".split()), min_size=4, max_size=8).map(" ".join)  # noqa: SIM905
    row = st.fixed_dictionaries(
        {"text": words, "labels": st.sampled_from([[], ["capability_sweep"]])},
        optional={"group": st.sampled_from("gh"), "pair": st.sampled_from("pq")},
    )
    given_rows = labelled_rows()[:240]
    previous = []
    places = {}
    for number in range(3):
        given_rows = given_rows + data.draw(st.lists(row, max_size=12))
        path = write_jsonl(folder / f"{number}.jsonl", given_rows)
        config = {"sources": [{"name": "s", "files": [str(path)]}], "seed": number, "clean": {"threshold": 0.7}}
        (folder / "list.yaml").write_text(yaml.safe_dump(config))
        assert run(folder / "list.yaml", "--out", folder / f"out{number}", *previous) == 0
        now = {}
        for split, rows in rows_of(folder / f"out{number}").items():
            for item in rows:
                now[item["text"] or str(item["messages"])] = split
        if not manifest(folder / f"out{number}")["moves"]:
            assert all(now[text] == split for text, split in places.items() if text in now)
        content = manifest(folder / f"out{number}")
        assert (
            content["records"]["read"]
            == len(given_rows)
            == len(removed(folder / f"out{number}")) + sum(map(len, rows_of(folder / f"out{number}").values()))
        )
        texts = [(text, split, shingles(text, 3)) for text, split in now.items() if not text.startswith("[")]
        short = [item for item in texts if len(item[0]) < 60]
        assert all(jaccard(a[2], b[2]) < 0.7 for a in short for b in texts if a[1] != b[1])
        places, previous = now, ["--previous", folder / f"out{number}"]


def test_previous_carries_all_builds_forward(built, tmp_path):
    source = write_jsonl(tmp_path / "more.jsonl", [{"text": f"new {n} {n * 7919}", "labels": []} for n in range(40)])
    labelled = write_jsonl(tmp_path / "old.jsonl", labelled_rows())
    assert run(source, labelled, "--previous", built, "--out", tmp_path / "two") == 0
    assert run(source, "--previous", tmp_path / "two", "--out", tmp_path / "three") == 1  # not every label is there
    half = write_jsonl(tmp_path / "half.jsonl", labelled_rows()[:400])
    assert run(half, "--previous", tmp_path / "two", "--out", tmp_path / "three") == 0
    back = write_jsonl(tmp_path / "back.jsonl", labelled_rows()[::-1])
    assert run(back, "--previous", tmp_path / "three", "--out", tmp_path / "four") == 0
    assert homes(tmp_path / "four") == homes(built)  # what was away for a build comes back to its place
    assert manifest(tmp_path / "two")["previous"] == manifest(built)["fingerprint"]
    assert len(manifest(tmp_path / "four")["placements"]) == 4


def test_previous_must_be_a_build(tmp_path, labelled, capsys):
    assert run(labelled, "--previous", tmp_path, "--out", tmp_path / "out") == 2
    assert "manifest.json: cannot be read" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text('{"fingerprint": "x"}')
    assert run(labelled, "--previous", tmp_path, "--out", tmp_path / "out") == 2
    assert "holds no placements; build it again" in capsys.readouterr().err


def test_whole_sources_are_held_out(labelled, tmp_path, capsys):
    assert run(labelled, "--hold-out-source", "made-1", "--out", tmp_path / "out") == 0
    splits = rows_of(tmp_path / "out")
    assert {split for split, rows in splits.items() for row in rows if row["source"] == "made-1"} == {"test"}
    assert sum(row["source"] == "made-1" for row in splits["test"]) == 240
    assert run(labelled, "--hold-out-source", "made-9", "--out", tmp_path / "out2") == 2
    assert (
        "no record has the source made-9, which is to be held out; there are: made-0, made-1" in capsys.readouterr().err
    )


def test_what_is_left_out_keeps_its_reason_and_its_evidence(tmp_path):
    rows = labelled_rows()
    extra = [
        {**rows[2], "text": rows[2]["text"].upper(), "id": "again"},
        {**rows[4], "labels": ["capability_sweep"], "id": "other", "source": "rival"},
        {"text": BASE, "labels": [], "id": "base"},
        {"text": NEAR, "labels": [], "id": "near"},
    ]
    path = write_jsonl(tmp_path / "in.jsonl", rows + extra)
    (tmp_path / "list.yaml").write_text(
        yaml.safe_dump({"sources": [{"name": "s", "files": [str(path)]}], "clean": {"threshold": 0.6}})
    )
    assert run(tmp_path / "list.yaml", "--out", tmp_path / "out") == 0
    found = {row["id"]: row for row in removed(tmp_path / "out")}
    kept = {row["id"]: row for part in rows_of(tmp_path / "out").values() for row in part}
    twin = next(
        row for row in (*kept.values(), *found.values()) if row["text"] == rows[2]["text"] and row["id"] != "again"
    )
    again, other = ("again", twin["id"]) if "again" in found else (twin["id"], "again")
    assert (found[again]["reason"], found[again]["evidence"], found[again]["similarity"]) == ("duplicate", other, 1.0)
    assert found["other"]["reason"] == "conflicting labels" and found["other"]["evidence"] in found
    gone, stays = ("near", "base") if "near" in found else ("base", "near")
    assert (found[gone]["reason"], found[gone]["evidence"]) == ("near-duplicate", stays) and stays in kept
    assert found[gone]["similarity"] == pytest.approx(jaccard(shingles(BASE, 3), shingles(NEAR, 3)))


def test_corrections_replace_labels(labelled, tmp_path, capsys):
    rows = labelled_rows()
    mended = [
        {**rows[0], "labels": ["censorship_probing"]},
        {**rows[2], "weight": 0.5},
        {"text": "unknown", "labels": []},
    ]
    file = write_jsonl(tmp_path / "mended.jsonl", mended)
    assert run(labelled, "--corrections", file, "--out", tmp_path / "out") == 0
    assert "corrections: 3, which changed 2 record(s); 1 found no record of their text" in capsys.readouterr().out
    by_text = {row["text"]: row for part in rows_of(tmp_path / "out").values() for row in part}
    chat = next(r for part in rows_of(tmp_path / "out").values() for r in part if r["messages"] == rows[0]["messages"])
    assert chat["labels"] == ["censorship_probing"] and by_text[rows[2]["text"]]["weight"] == 0.5
    write_jsonl(tmp_path / "mended.jsonl", [{**rows[0], "labels": ["reasoning"]}])
    assert run(labelled, "--corrections", file, "--out", tmp_path / "out2") == 1
    assert "mended.jsonl:1: " in capsys.readouterr().out


def test_extra_fields_of_any_kind_are_carried(tmp_path):
    odd = [
        {"tier": "A", "n": 1},
        {"tier": None, "n": "two"},
        {"nested": {"a": [1]}, "bad": "lone \ud800"},
        {"reason": "own", "cluster": "own"},
    ]
    rows = [{**row, **(odd[n] if n < 4 else {})} for n, row in enumerate(labelled_rows())]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(path, "--out", tmp_path / "out") == 0
    found = {row["id"]: row for part in rows_of(tmp_path / "out").values() for row in part}
    assert len(found) == 720
    assert sorted(filter(None, (row["n"] for row in found.values()))) == ["1", "two"]
    assert [row["nested"] for row in found.values() if row["nested"]] == [{"a": [1]}]
    assert [row["bad"] for row in found.values() if row["bad"]] == ["lone ?"]
    assert all(re.fullmatch("[0-9a-f]{16}", row["cluster"]) for row in found.values())


def test_odd_columns_are_carried_and_described(tmp_path):
    rows = [{**row, "meta": {}, "a b": n, "": n, "deep": {"x": {}}} for n, row in enumerate(labelled_rows())]
    assert run(write_jsonl(tmp_path / "in.jsonl", rows), "--out", tmp_path / "out") == 0
    kept = rows_of(tmp_path / "out")["test"]
    assert {row["meta"] for row in kept} == {"{}"} and all(row["a b"] == row[""] for row in kept)
    described = mlcroissant.Dataset(tmp_path / "out" / "croissant.json")
    assert described.metadata.issues.errors == set()
    assert len(list(described.records("test"))) == len(kept)


def test_what_repeats_a_record_that_cannot_stay_is_kept(tmp_path):
    """A new record joins what lies in two splits and is left out; its near-duplicate, which joins nothing, stays."""
    for seed in range(40):
        ends = [
            {"text": "the first of one", "labels": [], "group": "one"},
            {"text": "the first of two", "labels": [], "group": "two"},
        ]
        path = write_jsonl(tmp_path / "old.jsonl", labelled_rows() + ends)
        config = {"sources": [{"name": "s", "files": [str(path)]}], "seed": seed}
        (tmp_path / "list.yaml").write_text(yaml.safe_dump(config))
        assert run(tmp_path / "list.yaml", "--out", tmp_path / "old", "--overwrite") == 0
        places = {row["text"]: split for split, rows in rows_of(tmp_path / "old").items() for row in rows}
        if places["the first of one"] != places["the first of two"]:
            break
    more = [
        {"text": BASE, "labels": [], "group": "one", "pair": "p", "id": "bridge"},
        {"text": "the other end of the pair", "labels": [], "group": "two", "pair": "p", "id": "end"},
        {"text": BASE + " please", "labels": [], "id": "free"},
    ]
    path = write_jsonl(tmp_path / "new.jsonl", labelled_rows() + ends + more)
    assert run(path, "--previous", tmp_path / "old", "--out", tmp_path / "new") == 0
    gone = {row["id"]: row["reason"] for row in removed(tmp_path / "new")}
    assert list(gone.values()) == ["would join splits"]
    now = homes(tmp_path / "new")
    if "bridge" in gone:
        assert "free" in now
    assert manifest(tmp_path / "new")["records"]["read"] == 720 + 5


def test_an_audit_inside_the_input_is_no_input(tmp_path):
    rows = [{**row, "id": str(n)} for n, row in enumerate(labelled_rows())]
    for n in range(5, 720, 45):
        rows[n]["labels"] = [] if rows[n]["labels"] else ["capability_sweep"]
    write_jsonl(tmp_path / "in.jsonl", rows)
    assert run(tmp_path, "--out", tmp_path / "data") == 0
    assert main(["audit", str(tmp_path / "data")]) == 0
    assert run(tmp_path, "--out", tmp_path / "data", "--overwrite") == 0
    assert list(manifest(tmp_path / "data")["inputs"]) == [str(tmp_path / "in.jsonl")]
    mended = tmp_path / "data.audit" / "suspects.jsonl"
    assert run(tmp_path, "--out", tmp_path / "data", "--overwrite", "--corrections", mended) == 0
    assert str(mended) in manifest(tmp_path / "data")["inputs"]


def test_exports_that_disagree_vote_each(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "source"} for row in labelled_rows()]
    for folder in "abc":
        wrong = [{**row, "labels": ["capability_sweep"] if not row["labels"] else []} for row in rows[:60]]
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "labels.jsonl", (wrong if folder == "c" else rows[:60]) + rows[60:])
    assert run(*(tmp_path / folder for folder in "abc"), "--out", tmp_path / "out") == 0
    kept = {row["text"]: row["labels"] for part in rows_of(tmp_path / "out").values() for row in part}
    assert manifest(tmp_path / "out")["records"]["removed"] == {"conflicting labels": 60, "duplicate": 1380}
    assert all(kept[row["text"]] == row["labels"] for row in rows[:60] if "text" in row)


def test_empty_files_among_others_are_no_fault(labelled, tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("text,labels\n")
    (tmp_path / "none.jsonl").write_text("")
    assert run(labelled, tmp_path / "empty.csv", tmp_path / "none.jsonl", "--out", tmp_path / "out") == 0
    assert run(tmp_path / "empty.csv", "--out", tmp_path / "out2") == 2
    assert "no records in" in capsys.readouterr().err


def test_faults_leave_nothing_behind(tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", [*labelled_rows(), {"text": "x"}, {"labels": []}])
    assert run(source, "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert [line.split(":")[1] for line in captured.out.splitlines()] == ["721", "722"]
    assert "2 fault(s); nothing was written" in captured.err
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["one.jsonl", "--out", "out"], 1, "no record of reasoning_trace_extraction can be placed in train"),
        (["made.jsonl", "--out", "here"], 2, "exists already"),
        (["made.jsonl", "--out", "here", "--overwrite"], 2, "was not built by this command"),
        (["list.yaml", "--out", "out"], 2, "splits.calibration: Input should be less than 1"),
        (["list.yaml", "made.jsonl", "--out", "out"], 2, "not both"),
        (["none.yaml", "--out", "out"], 2, "none.yaml: cannot be read"),
    ],
)
def test_wrong_use(labelled, tmp_path, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made.jsonl").write_bytes(labelled.read_bytes())
    write_jsonl(tmp_path / "one.jsonl", [{"text": "x", "labels": []}])
    (tmp_path / "list.yaml").write_text(
        "sources: [{name: a, files: [made.jsonl], colour: red}]\nsplits: {calibration: 2}\n"
    )
    (tmp_path / "here").mkdir()
    assert main(["build", *arguments]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and list((tmp_path / "here").iterdir()) == []


def test_sources_behind_urls_build_alike(labelled, built, tmp_path):
    remote = UPath("memory://building") / tmp_path.name
    remote.mkdir(parents=True, exist_ok=True)
    (remote / "made.jsonl").write_bytes(labelled.read_bytes())
    assert run(remote / "made.jsonl", "--out", tmp_path / "out") == 0
    assert homes(tmp_path / "out") == homes(built)
    assert list(manifest(tmp_path / "out")["inputs"].values()) == list(manifest(built)["inputs"].values())


def test_overwriting_replaces_the_whole_folder(labelled, tmp_path):
    out = tmp_path / "out"
    assert run(labelled, "--out", out) == 0
    before = manifest(out)["fingerprint"]
    few = write_jsonl(tmp_path / "few.jsonl", labelled_rows()[:300])
    assert run(few, "--out", out, "--overwrite") == 0
    assert manifest(out)["fingerprint"] != before and {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"out", "few.jsonl"}


def test_a_kill_between_two_renames_loses_nothing(labelled, tmp_path):
    out = tmp_path / "out"
    assert run(labelled, "--out", out) == 0
    out.rename(tmp_path / "out.old.writing")
    assert run(labelled, "--out", out) == 2  # it stands again, and is not overwritten unasked
    assert {path.name for path in out.iterdir()} == FILES


@pytest.mark.parametrize("step", ["read_sources", "clean", "write_tables", "croissant"])
def test_ctrl_c_says_so_and_leaves_nothing(labelled, tmp_path, step):
    """A real signal, at the end of each step: the folder is being written when it comes to the last two."""
    code = f"""
import os, signal, sys
import data.build as module
from data.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started with it ignored
step = module.{step}
def interrupted(*arguments):
    result = step(*arguments)
    os.kill(os.getpid(), signal.SIGINT)
    return result
module.{step} = interrupted
sys.exit(main(["build", sys.argv[1], "--out", sys.argv[2], "--overwrite"]))
"""
    out = tmp_path / "out"
    for stands in (False, True):
        if stands:
            assert run(labelled, "--out", out) == 0
        before = {path.name: path.read_bytes() for path in out.iterdir()} if stands else {}
        command = [sys.executable, "-c", code, str(labelled), str(out)]
        job = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert job.returncode == 130
        assert job.stderr == "interrupted; nothing was left behind\n" and job.stdout == ""
        assert {path.name for path in tmp_path.iterdir()} == ({"out"} if stands else set())
        assert ({path.name: path.read_bytes() for path in out.iterdir()} if stands else {}) == before


def test_what_was_built_inside_the_input_is_no_input(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", labelled_rows())
    for _ in range(2):
        assert run(tmp_path, "--out", tmp_path / "built", "--overwrite") == 0
        assert list(manifest(tmp_path / "built")["inputs"]) == [str(tmp_path / "in.jsonl")]
    assert run(tmp_path, "--out", tmp_path / "other") == 0
    assert manifest(tmp_path / "other")["records"]["removed"] == {"duplicate": 720}


def test_a_closed_pipe_is_no_error(labelled):
    command = f"{sys.executable} -m data check {labelled} {labelled} | head -1"
    ran = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert ran.stderr == "" and ran.stdout.startswith("| label")
