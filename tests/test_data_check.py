"""Checking: warnings for what no single row is at fault for, and a report for programs."""

import json

import pytest

from data.__main__ import main
from data.reading import load_records
from data.records import parse_record
from data.suspicions import Suspicions

from .conftest import labelled_rows, write_jsonl


def found(rows):
    suspicions = Suspicions()
    for number, row in enumerate(rows):
        suspicions.add(parse_record({"labels": [], "source": "s", "id": str(number), **row}, "s"))
    return {suspicion.kind: suspicion for suspicion in suspicions.found()}


def varied(n, **fields):
    return [{"text": f"{'word ' * (i % 17 + 1)}{i}", **fields} for i in range(n)]


def test_sound_data_raises_no_suspicion():
    rows = varied(60) + [{"text": f"{'other ' * (i % 13 + 1)}{i}", "labels": [label]} for i in range(60) for label in [
        ("capability_sweep", "censorship_probing", "reasoning_trace_extraction")[i % 3]]]  # fmt: skip
    assert found(rows) == {}
    assert found([]) == {}


@pytest.mark.parametrize(
    ("rows", "kind", "words"),
    [
        (varied(30), "one class", "every record is organic"),
        (varied(30, labels=["capability_sweep"]), "one class", "every record is capability_sweep"),
        (varied(30, labels=["capability_sweep"]) + varied(30, labels=["censorship_probing"]), "one class", "no record is organic"),
        (varied(30) + varied(30, labels=["capability_sweep"]), "missing label", "no record is reasoning_trace_extraction, cen"),
        ([{"text": f"{i:040}", "labels": ["capability_sweep"]} for i in range(30)], "one length", "30 of 30 capability_sweep prompts have exactly 40 characters"),
        ([{"text": "x" * (200 + i % 15) + str(i)} for i in range(60)], "one length", "length gives it away"),
        (varied(30, source="a") + varied(30, source="b", labels=["capability_sweep"]), "one-label source", "2 of 2 sources hold one label only (a, b)"),
        (varied(60) + [{"text": f"{i:03}" + "y" * 497} for i in range(8)], "cut texts", "8 prompts of source s have exactly 500 characters"),
        (varied(60) + [{"text": f"{i:04}" + "y" * 1020} for i in range(8)], "cut texts", "exactly 1024 characters"),
        ([{"text": "the cafÃ© was closed"}], "encoding damage", "1 prompts of source s"),
        ([{"text": "a \ufffd b"}], "encoding damage", "export them again as UTF-8"),
        ([{"text": "????? ???? ??? ???????? ??"}], "encoding damage", "1 prompts"),
        ([{"text": "same"}, {"text": "Same "}, {"text": "other"}], "repeats", "1 prompts stand more than once"),
        ([{"text": "same"}, {"text": "same", "labels": ["capability_sweep"]}], "conflicting labels", "1 prompts stand with different labels"),
        ([{"text": "one", "id": "7"}, {"text": "two", "id": "7"}, {"text": "two", "id": "8"}], "shared ids", "1 ids stand for more than one prompt"),
    ],
)  # fmt: skip
def test_suspicions(rows, kind, words):
    assert words in found(rows)[kind].message


@pytest.mark.parametrize(
    "text",
    ["Это обычный текст, без ошибок", "今日は天気がいいですね。", "naïve café — “quoted” …", "Is it? Really?", "what?"],
)
def test_sound_text_is_not_damaged(text):
    assert "encoding damage" not in found([{"text": text}])


def test_lengths_just_beside_are_no_cut():
    assert "cut texts" not in found([{"text": f"{i:03}" + "y" * (477 + i % 41)} for i in range(410)])


def test_json_for_machines(tmp_path, capsys):
    rows = [*labelled_rows()[:40], {"text": "private words", "labels": ["reasoning"]}, {"labels": []}]
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    assert main(["check", str(path), "--format", "json"]) == 1
    out = capsys.readouterr().out
    report = json.loads(out)
    assert set(report) == {"faults", "warnings", "counts", "totals"}
    assert report["totals"] == {"files": 1, "records": 40, "faults": 2}
    assert report["faults"][0] == {
        "file": str(path),
        "line": 41,
        "field": "labels",
        "value": "reasoning",
        "problem": 'labels: "reasoning" is unknown',
        "mend": "known: reasoning_trace_extraction, censorship_probing, capability_sweep, organic",
    }
    assert report["faults"][1]["field"] is None and report["faults"][1]["line"] == 42
    assert report["counts"]["label"]["organic"] == 20
    assert "private" not in out


def test_json_of_sound_files(labelled, capsys):
    assert main(["check", str(labelled), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["faults"] == [] and report["totals"]["records"] == 720
    assert sum(report["counts"]["length"].values()) == 720


def test_faults_name_field_value_and_mend(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"text": "x", "labels": [], "origin": "found", "weight": 7}])
    _, faults = load_records([tmp_path / "in.jsonl"])
    assert [(f.line, f.flaw.field, f.flaw.value) for f in faults] == [(1, "origin", "found"), (1, "weight", "7")]
    assert str(faults[0]).endswith('in.jsonl:1: origin "found" is unknown; known: authored, composed, real')


def test_a_file_without_a_header_line_does_not_show_its_first_prompt(tmp_path, capsys):
    (tmp_path / "in.csv").write_text("private words of mine,organic\nmore of them,organic\n")
    assert main(["check", str(tmp_path / "in.csv")]) == 1
    out = capsys.readouterr().out
    assert "in.csv:2: has neither text nor messages, but …, organic; give the prompt" in out
    assert "private" not in out and "more of them" not in out


def test_many_sources_do_not_flood_the_tables(tmp_path, capsys):
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": f"t {n}", "labels": [], "source": f"s{n}"} for n in range(60)])
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "| (20 more) |" in out and out.count("| s") <= 42
