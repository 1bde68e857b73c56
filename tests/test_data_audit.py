"""The audit finds planted label errors, shortcuts and disagreement, and its file can be corrected and given back."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.__main__ import main
from data.audit import audit
from data.records import parse_record
from data.shortcuts import find_shortcuts

from .conftest import labelled_rows, write_jsonl

PLANTED = range(5, 720, 45)


def build(tmp_path, rows, name="out"):
    source = write_jsonl(tmp_path / f"{name}.jsonl", rows)
    assert main(["build", str(source), "--out", str(tmp_path / name)]) == 0
    return tmp_path / name


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Rows of which sixteen have a label that is plainly wrong."""
    rows = [{**row, "id": str(n)} for n, row in enumerate(labelled_rows())]
    for n in PLANTED:
        rows[n]["labels"] = [] if rows[n]["labels"] else ["capability_sweep"]
    return rows, build(tmp_path_factory.mktemp("planted"), rows)


def test_planted_errors_are_found_and_little_else(planted):
    _, folder = planted
    found = audit(folder)
    ids = [suspect.record.id for suspect in found.suspects]
    wrong = {str(n) for n in PLANTED}
    assert len(wrong & set(ids)) >= 14
    assert len(set(ids) - wrong) <= 3
    beliefs = [suspect.belief for suspect in found.suspects]
    assert beliefs == sorted(beliefs) and all(0 <= belief < 0.5 for belief in beliefs)


def test_the_file_is_records_that_can_be_given_back(planted, tmp_path, capsys):
    rows, folder = planted
    out = tmp_path / "report"
    assert main(["audit", str(folder), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"suspects.jsonl", "audit.json"}
    printed = capsys.readouterr().out
    assert "have a label that is likely wrong" in printed and "| capability_sweep " in printed
    assert not any(row["text"] in printed for row in rows if "text" in row)
    lines = [json.loads(line) for line in (out / "suspects.jsonl").read_text().splitlines()]
    assert [line["audit"]["rank"] for line in lines] == list(range(1, len(lines) + 1))
    assert set(lines[0]["audit"]) == {"rank", "given", "suggested", "belief_in_given", "split"}
    report = json.loads((out / "audit.json").read_text())
    assert set(report) == {"records", "suspects", "unsupported", "shortcuts", "agreement"} and report["records"] == 720
    assert main(["check", str(out / "suspects.jsonl")]) == 0

    for line in lines:  # a person follows the suggestions
        suggested = line["audit"]["suggested"]
        line["labels"] = [] if suggested == "organic" else suggested
    write_jsonl(out / "suspects.jsonl", lines)
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    again = ["build", str(source), "--corrections", str(out / "suspects.jsonl"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert len(audit(tmp_path / "again").suspects) < len(lines) / 3


def test_by_default_the_report_lies_beside_the_data(built, capsys):
    assert main(["audit", str(built)]) == 0
    assert (built.parent / f"{built.name}.audit" / "suspects.jsonl").is_file()
    assert "0 of 720 records have a label that is likely wrong" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_report(planted):
    _, folder = planted
    assert audit(folder) == audit(folder)


def test_a_family_that_nothing_else_supports_is_named(tmp_path):
    rows = labelled_rows()
    like_organic = [row["text"] for row in labelled_rows() if not row["labels"] and "text" in row][:40]
    odd = [
        {"text": f"{text} quickly {n}", "labels": ["censorship_probing"], "source": "odd", "group": "odd"}
        for n, text in enumerate(like_organic)
    ]
    kept = [row for row in rows if row.get("text") not in like_organic]
    found = audit(build(tmp_path, kept + odd))
    assert [(item.source, item.category, item.records) for item in found.unsupported] == [
        ("odd", "censorship_probing", 40)
    ]
    assert found.unsupported[0].message.startswith(
        "nothing else supports censorship_probing in source odd: of 40 prompts"
    )


def test_agreement_where_texts_were_labelled_twice(tmp_path):
    rows = [{**row, "source": "one", "group": None} for row in labelled_rows()]
    texts = [row for row in rows if "text" in row]
    second = [{**row, "source": "two"} for row in texts[:40]]
    for row in second[:10]:
        row["labels"] = ["capability_sweep"] if row["labels"] != ["capability_sweep"] else []
    expected = sum(
        (a["labels"] == ["capability_sweep"]) == (b["labels"] == ["capability_sweep"])
        for a, b in zip(texts, second, strict=False)
    )
    found = {item.category: item for item in audit(build(tmp_path, rows + second)).agreement}
    assert (found["capability_sweep"].pairs, found["capability_sweep"].agreeing) == (40, expected == 30 and 30)
    assert 0 < found["capability_sweep"].kappa < 1


def records(n, text, labels, source="s"):
    return [
        parse_record({"text": text(i), "labels": labels, "source": source, "id": f"{source}{labels}{i}"}, "s")
        for i in range(n)
    ]


def shortcuts(*groups):
    every = [record for group in groups for record in group]
    return {(item.kind, item.label): item for item in find_shortcuts(every, np.array([record.key for record in every]))}


def test_shortcuts_are_named():
    mixed = [f"w{i}" for i in range(7)]
    organic = records(60, lambda i: f"{mixed[i % 7]} {mixed[i * 3 % 7]}xyz {i}", [], "a")
    long = records(
        60, lambda i: " ".join(f"{mixed[j % 7]}" for j in range(i, i + 90)) + f" {i}", ["capability_sweep"], "b"
    )
    found = shortcuts(organic, long)
    assert ("source", "capability_sweep") in found and found["length", "capability_sweep"].strength > 0.95
    marked = records(60, lambda i: f"{mixed[i % 7]} boxed {i}", ["capability_sweep"], "a")
    found = shortcuts(organic, marked)
    assert ("source", "capability_sweep") not in found and ("length", "capability_sweep") not in found
    word = found["word", "capability_sweep"]
    assert (word.what, word.strength, word.recall) == ("boxed", 1.0, 1.0) and "(1 source(s))" in word.message
    same = records(60, lambda i: f"{mixed[i % 7]} {mixed[i * 2 % 7]}xyz {i + 0.5:.0f}", ["capability_sweep"], "a")
    assert shortcuts(organic, same) == {}


def test_few_clusters_and_columns_of_any_kind(tmp_path):
    rows = [{**row, "source": f"s{n // 180}", "group": None, "id": str(n)} for n, row in enumerate(labelled_rows())]
    for n in PLANTED:
        rows[n]["labels"] = [] if rows[n]["labels"] else ["capability_sweep"]
    when = datetime.datetime(2026, 1, 1)
    pq.write_table(
        pa.Table.from_pylist([{"text": None, "messages": None, **row, "when": when} for row in rows]),
        tmp_path / "in.parquet",
    )
    (tmp_path / "list.yaml").write_text(
        f"sources: [{{name: s, files: [{tmp_path / 'in.parquet'}]}}]\nby_source: true\n"
    )
    assert main(["build", str(tmp_path / "list.yaml"), "--out", str(tmp_path / "out")]) == 0
    assert main(["audit", str(tmp_path / "out")]) == 0
    first = json.loads((tmp_path / "out.audit" / "suspects.jsonl").read_text().splitlines()[0])
    assert first["when"] == "2026-01-01 00:00:00" and "cluster" not in first


def test_what_cannot_be_audited(tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 2
    assert "no built data; run: python -m data build" in capsys.readouterr().err
