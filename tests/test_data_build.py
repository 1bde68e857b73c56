"""Splits that do not lie: nothing leaks, nothing vanishes, adding data moves nothing."""

import json

import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.__main__ import main
from data.clean import remove_duplicates
from data.records import parse_record
from data.sources import SplitShares
from data.split import SPLITS, SplitError, assign, check_splits, clusters

from .conftest import labelled_rows, write_jsonl

FILES = {"README.md", "calibration.parquet", "manifest.json", "removed.parquet", "test.parquet", "train.parquet", "validation.parquet"}  # fmt: skip


def record(text, labels=(), **fields):
    return parse_record({"text": text, "labels": list(labels), **fields}, "s")


RECORDS = st.lists(
    st.builds(
        lambda n, group, pair: record(f"text {n}", group=group, pair=pair),
        st.integers(0, 10**6),
        st.sampled_from([None, "a", "b", "c"]),
        st.sampled_from([None, "1", "2", "3"]),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda r: r.key,
)


def rows_of(folder):
    return {split: pq.read_table(folder / f"{split}.parquet").to_pylist() for split in SPLITS}


def test_exact_file_set_and_counts_add_up(built):
    assert {path.name for path in built.iterdir()} == FILES
    manifest = json.loads((built / "manifest.json").read_text())
    splits = rows_of(built)
    assert sum(map(len, splits.values())) == manifest["records"]["kept"] == 720
    assert manifest["records"]["read"] == manifest["records"]["kept"] + sum(manifest["records"]["removed"].values())
    assert {name: counts["all"]["records"] for name, counts in manifest["splits"].items()} == {
        name: len(rows) for name, rows in splits.items()
    }


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


def test_building_twice_gives_the_same_bytes(labelled, tmp_path):
    for name in ("one", "two"):
        assert main(["build", str(labelled), "--out", str(tmp_path / name)]) == 0
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_adding_data_moves_no_old_record(built, tmp_path):
    more = [{"text": f"a new prompt {n}", "labels": [], "source": "new"} for n in range(50)]
    source = write_jsonl(tmp_path / "more.jsonl", more + labelled_rows()[::-1])
    assert main(["build", str(source), "--out", str(tmp_path / "out")]) == 0
    before = {row["id"]: split for split, rows in rows_of(built).items() for row in rows}
    after = {row["id"]: split for split, rows in rows_of(tmp_path / "out").items() for row in rows}
    assert before.items() <= after.items() and len(after) == 770


def test_duplicates_are_kept_as_evidence(labelled, tmp_path):
    rows = labelled_rows()
    extra = [{**rows[2], "text": rows[2]["text"].upper()}, {**rows[4], "labels": ["capability_sweep"]}]
    source = write_jsonl(tmp_path / "in.jsonl", rows + extra)
    assert main(["build", str(source), "--out", str(tmp_path / "out")]) == 0
    removed = pq.read_table(tmp_path / "out" / "removed.parquet").to_pylist()
    ids = {
        row["text"]: row["id"] for row in (*removed, *(r for part in rows_of(tmp_path / "out").values() for r in part))
    }
    assert [(row["reason"], row["evidence"]) for row in removed if row["text"] == extra[0]["text"]] == [
        ("duplicate", ids[rows[2]["text"]])
    ]
    assert sorted(row["reason"] for row in removed) == ["conflicting labels", "conflicting labels", "duplicate"]


def test_faults_leave_nothing_behind(tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", [*labelled_rows(), {"text": "x"}, {"labels": []}])
    assert main(["build", str(source), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert [line.split(":")[1] for line in captured.out.splitlines()] == ["721", "722"]
    assert "2 fault(s); nothing was written" in captured.err
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["one.jsonl", "--out", "out"], 1, "no record of reasoning_trace_extraction in train"),
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


@given(RECORDS, st.randoms())
def test_clusters_do_not_depend_on_order_and_hold_together(records, random):
    names = dict(zip([r.key for r in records], clusters(records), strict=True))
    shuffled = records[:]
    random.shuffle(shuffled)
    assert dict(zip([r.key for r in shuffled], clusters(shuffled), strict=True)) == names
    for one in records:
        for two in records:
            if (one.group and one.group == two.group) or (one.pair and one.pair == two.pair):
                assert names[one.key] == names[two.key]


@given(st.lists(st.text(max_size=8), max_size=50), st.integers(0, 5))
def test_a_cluster_has_one_place(names, seed):
    placed = assign(names, SplitShares(), seed)
    assert placed == [assign([name], SplitShares(), seed)[0] for name in names]


def test_shares_come_out():
    placed = assign([f"cluster {n}" for n in range(20_000)], SplitShares(calibration=0.2, validation=0.1, test=0.15), 0)
    assert placed.count("calibration") / 20_000 == pytest.approx(0.2, abs=0.01)
    assert placed.count("train") / 20_000 == pytest.approx(0.55, abs=0.01)


def test_the_check_finds_leaks():
    every = [record(f"{label} {n}", [label] if label else []) for label in ("", "reasoning_trace_extraction", "censorship_probing", "capability_sweep") for n in range(2)]  # fmt: skip
    check_splits({"a": every[::2], "b": every[1::2]})
    with pytest.raises(SplitError, match="text of record"):
        check_splits({"a": every, "b": every[:1]})
    with pytest.raises(SplitError, match="group of record"):
        check_splits({"a": [*every, record("x", group="g")], "b": [record("y", group="g")]})
    with pytest.raises(SplitError, match="no record of censorship_probing in b"):
        check_splits({"a": every[::2], "b": [r for r in every[1::2] if r.labels != ("censorship_probing",)]})


@given(
    st.lists(st.sampled_from([record("a"), record("A "), record("a", ["capability_sweep"]), record("b")]), max_size=12)
)
def test_in_is_kept_and_removed(records):
    cleaned = remove_duplicates(records)
    assert len(cleaned.kept) + len(cleaned.removed) == len(records)
    assert len({r.key for r in cleaned.kept}) == len(cleaned.kept)
