"""The same records out of every kind of file, from every place, in bounded memory."""

import csv
import gzip
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.__main__ import main
from data.reading import labelled_files, load_records
from inference.job.files import InputError, find_files
from inference.job.readers import column_names, count_rows, find_columns, read_rows

from .conftest import ROOT, write_jsonl

ROWS = [
    {"text": 'a, "b"\tc', "labels": ["capability_sweep"], "source": "s", "lang": "en"},
    {"text": "c\nd", "labels": [], "source": "s", "lang": "zh"},
    {"text": "größer 数", "labels": ["censorship_probing"], "source": "s", "lang": "de"},
]


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_table(rows, delimiter):
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{**row, "labels": json.dumps(row["labels"])} for row in rows])
    return buffer.getvalue().encode()


def zstd(data):
    """Two frames, as tools that append write them."""
    half = len(data) // 2
    return b"".join(pa.compress(part, codec="zstd", asbytes=True) for part in (data[:half], data[half:]))


def write_parquet(path):
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def write_feather(path):
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), path, compression="uncompressed")


WRITERS = {
    "r.jsonl": lambda path: path.write_bytes(as_jsonl(ROWS)),
    "r.ndjson": lambda path: path.write_bytes(as_jsonl(ROWS)),
    "r.jsonl.gz": lambda path: path.write_bytes(gzip.compress(as_jsonl(ROWS))),
    "r.jsonl.zst": lambda path: path.write_bytes(zstd(as_jsonl(ROWS))),
    "r.csv": lambda path: path.write_bytes(as_table(ROWS, ",")),
    "semicolons.csv": lambda path: path.write_bytes(as_table(ROWS, ";")),
    "r.csv.zst": lambda path: path.write_bytes(zstd(as_table(ROWS, ","))),
    "r.tsv": lambda path: path.write_bytes(as_table(ROWS, "\t")),
    "r.tsv.gz": lambda path: path.write_bytes(gzip.compress(as_table(ROWS, "\t"))),
    "r.parquet": write_parquet,
    "r.arrow": write_feather,
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_records_from_every_kind(tmp_path, name):
    WRITERS[name](tmp_path / name)
    records, faults = load_records(labelled_files([str(tmp_path)]))
    assert faults == []
    assert [(record.text, list(record.labels), record.lang) for record in records] == [
        (row["text"], row["labels"], row["lang"]) for row in ROWS
    ]
    path = tmp_path / name
    assert set(column_names(path)) == set(ROWS[0])
    assert find_columns(path, ["text", "tenant"]) == {"text"}
    assert [row.values for row in read_rows(path, ["lang"])] == [{"lang": row["lang"]} for row in ROWS]
    if not name.endswith((".gz", ".zst", ".csv", ".tsv")):
        assert count_rows(path) == 3


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.zst", "r.csv", "r.parquet", "r.arrow"])
def test_files_of_any_file_system(tmp_path, name):
    from upath import UPath

    folder = UPath("memory://reading") / tmp_path.name
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](tmp_path / name)
    (folder / name).write_bytes((tmp_path / name).read_bytes())
    for asked in (str(folder), str(folder / name), f"{folder}/*.{name.split('.', 1)[1]}"):
        records, faults = load_records(labelled_files([asked]))
        assert faults == [] and [record.text for record in records] == [row["text"] for row in ROWS]
    with pytest.raises(InputError, match="no such file"):
        find_files([f"{folder}/none.jsonl"])


def test_what_cannot_be_reached_names_the_mend():
    with pytest.raises(InputError, match="nowhere"):
        find_files(["nowhere://bucket/file.jsonl"])
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match="s3fs"):
            find_files(["s3://bucket/file.jsonl"])


def test_a_saved_dataset_is_read_without_its_caches(tmp_path):
    one = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "train" / "cache-0.arrow").write_bytes(b"not to be read")
    records, faults = load_records(labelled_files([str(tmp_path / "saved")]))
    assert faults == [] and sorted(record.text for record in records) == sorted(
        [ROWS[0]["text"], *(r["text"] for r in ROWS)]
    )


def test_of_a_built_folder_its_splits_are_read(built):
    files = labelled_files([str(built)])
    assert [path.name for path in files] == [
        "train.parquet",
        "calibration.parquet",
        "validation.parquet",
        "test.parquet",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl.gz", gzip.compress(as_jsonl(ROWS) * 100)[:-20], "cannot be read"),
        ("r.jsonl.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03broken", "cannot be read"),
        ("r.jsonl.zst", zstd(as_jsonl(ROWS) * 100)[:40], "cannot be read"),
        ("r.jsonl.zst", b"no zstd", "cannot be read"),
        ("r.arrow", b"no arrow", "not a readable Arrow file"),
        ("r.csv", "text,labels\nä,[]\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("r.json", b"[]", "unknown kind of file"),
        ("r.parquet.gz", b"", "unknown kind of file"),
    ],
)
def test_a_broken_file_is_one_error(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert main(["build", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_checking_goes_on_behind_a_file_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(as_jsonl(ROWS) * 100)[:-20])
    (tmp_path / "b.csv").write_bytes(b"")
    (tmp_path / "c.jsonl").write_bytes(as_jsonl(ROWS))
    assert main(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path / 'a.jsonl.gz'}: cannot be read" in out and f"{tmp_path / 'b.csv'}: has no header line" in out
    assert ", 2 fault(s)" in out and "| zh " in out
    assert main(["check", str(tmp_path), "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(fault["line"], fault["file"][-5:]) for fault in report["faults"]] == [(None, "nl.gz"), (None, "b.csv")]


def test_folders_are_walked_through_links_and_past_what_is_hidden(tmp_path, capsys):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data / "deep", data / ".ipynb_checkpoints", elsewhere):
        folder.mkdir(parents=True)
    write_jsonl(data / "deep" / "one.jsonl", ROWS[:1])
    write_jsonl(data / ".ipynb_checkpoints" / "one-checkpoint.jsonl", ROWS[:1])
    (data / "._one.jsonl").write_bytes(b"\x00\x05\x16\x07")
    write_jsonl(elsewhere / "two.jsonl", ROWS[1:])
    (data / "linked").symlink_to(elsewhere)
    (data / "round").symlink_to(data)
    (data / "sheet.xlsx").write_bytes(b"")
    files = labelled_files([str(data)])
    assert [path.name for path in files] == ["one.jsonl", "two.jsonl"]
    assert capsys.readouterr().err == f"note: {data}: 1 file(s) of other kinds are not read: sheet.xlsx\n"
    (elsewhere / "state.json").write_text("no state")
    write_feather(elsewhere / "three.arrow")
    with pytest.raises(InputError, match=r"state.json: is not what datasets writes"):
        labelled_files([str(data)])


def test_files_of_one_name_are_sources_of_their_own(tmp_path):
    for folder in "abc":
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "labels.jsonl", [{"text": folder, "labels": []}])
    write_jsonl(tmp_path / "other.jsonl", [{"text": "other", "labels": []}])
    records, _ = load_records(labelled_files([str(tmp_path)]))
    assert [record.source for record in records] == ["a/labels", "b/labels", "c/labels", "other"]


VALUES = st.text(max_size=6) | st.none() | st.integers() | st.just([]) | st.just(["organic"])


@given(st.lists(st.dictionaries(st.sampled_from(["text", "labels", "lang", "x"]), VALUES, max_size=4), max_size=5))
def test_every_row_is_a_record_or_a_fault(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = write_jsonl(Path(folder) / "r.jsonl", [{"n": n, **row} for n, row in enumerate(rows)])
        records, faults = load_records([path])
    assert len(records) + len({fault.line for fault in faults}) == len(rows)
    assert {record.extra["n"] for record in records} | {fault.line - 1 for fault in faults} == set(range(len(rows)))


@pytest.mark.slow
def test_checking_needs_no_more_memory_for_a_larger_file(tmp_path):
    line = json.dumps({"text": "word " * 400, "labels": [], "source": "s"})
    peaks = []
    for size in (10_000, 60_000):
        path = tmp_path / f"{size}.jsonl"
        with path.open("w") as stream:
            for n in range(size):
                stream.write(f'{{"id": "{n}", {line[1:]}\n')
        code = (
            "import resource, sys; from data.__main__ import main; main(['check', sys.argv[1]]);"
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        peaks.append(int(ran.stdout.split("peak")[1]))
        path.unlink()
    assert peaks[1] - peaks[0] < 20_000  # KiB, while the file grew by 100 MB
