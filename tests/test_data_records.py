"""Records: every variant is read, every fault is named with its place, and none of them quotes a prompt."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.__main__ import main
from data.reading import load_records
from data.records import CATEGORIES, RecordError, parse_record

from .conftest import write_jsonl


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([], ()),
        ("organic", ()),
        ("[]", ()),
        ("capability_sweep", ("capability_sweep",)),
        ('["censorship_probing"]', ("censorship_probing",)),
        (["capability_sweep", "reasoning_trace_extraction"], ("reasoning_trace_extraction", "capability_sweep")),
        ("['capability_sweep']", ("capability_sweep",)),
        ("capability_sweep; censorship_probing", ("censorship_probing", "capability_sweep")),
        ("capability_sweep|reasoning_trace_extraction", ("reasoning_trace_extraction", "capability_sweep")),
        (["organic"], ()),
    ],
)
def test_labels_in_every_form(labels, expected):
    assert parse_record({"text": "x", "labels": labels}, "s").labels == expected
    if isinstance(labels, str):
        assert parse_record({"text": "x", "label": labels}, "s").labels == expected


def test_defaults_and_extra_fields():
    record = parse_record(
        {"text": "x", "labels": [], "group": None, "weight": None, "ambiguous": True, "tier": "A"}, "file"
    )
    assert (record.source, record.weight, record.group, record.judged) == ("file", 1.0, None, CATEGORIES)
    assert record.extra == {"ambiguous": True, "tier": "A"}
    assert len(record.id) == 16
    again = parse_record(record.to_row(), "other")
    assert again == record


def test_chat_exports_read_like_messages():
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]
    messages = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "u"), ("assistant", "a"))]
    expected = parse_record({"messages": messages, "labels": []}, "s")
    for row in ({"conversations": turns}, {"conversation": json.dumps(turns)}, {"messages": turns}):
        assert parse_record({**row, "labels": []}, "s") == expected


def test_a_record_whose_labels_change_keeps_its_prompt():
    record = parse_record({"text": "ＡＢＣ", "labels": []}, "s")
    other = record.changed(labels=("capability_sweep",))
    assert (other.labels, other.key, other.rendered, record.labels) == (("capability_sweep",), record.key, "ABC", ())


def test_what_table_libraries_make_of_gaps():
    record = parse_record({"text": "x", "labels": [], "group": 17.0, "id": 3, "pair": 1.5, "messages": []}, "s")
    assert (record.group, record.id, record.pair, record.text) == ("17", "3", "1.5", "x")


def test_agreement_is_over_what_both_judged():
    one = parse_record({"text": "x", "labels": [], "judged": ["censorship_probing"]}, "s")
    two = parse_record({"text": "x", "labels": ["capability_sweep"]}, "s")
    three = parse_record({"text": "x", "labels": ["censorship_probing"]}, "s")
    assert one.agrees_with(two) and two.agrees_with(one)
    assert not one.agrees_with(three) and not two.agrees_with(three)


def test_messages_as_list_and_as_json_text():
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    one = parse_record({"messages": messages, "labels": []}, "s")
    two = parse_record({"messages": json.dumps(messages), "labels": [], "text": ""}, "s")
    assert one == two and one.rendered == "system:\ns\n\nuser:\nu"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"labels": []}, "has neither text nor messages"),
        ({"text": None, "labels": []}, "text is empty"),
        ({"text": "x", "messages": [{"role": "user", "content": "y"}], "labels": []}, "has both text and messages"),
        ({"text": 4, "labels": []}, "text: a int, not text"),
        ({"messages": [{"role": "user"}], "labels": []}, r"messages: messages\[0\] has no content"),
        ({"text": "x"}, "has no labels; write"),
        ({"text": "x", "labels": None}, "has no labels"),
        ({"text": "x", "labels": ["reasoning"]}, '"reasoning" is unknown'),
        ({"text": "x", "labels": ["capability_sweeps"]}, 'did you mean "capability_sweep"?'),
        ({"text": "x", "labels": ["distillation"]}, '"distillation" is unknown'),
        ({"text": "x", "labels": 3}, "labels is not a list .*found: 3.*a list of sources maps numbers to names"),
        ({"text": "x", "labels": " "}, "labels is not a list"),
        ({"text": "x", "labels": ", ;"}, "labels is not a list"),
        ({"text": "x", "labels": "[oops"}, "labels is not a list"),
        ({"text": "x", "labels": ["organic", "capability_sweep"]}, "labels has organic beside a category .*; keep one"),
        ({"text": "x", "labels": ["Capability Sweep"]}, 'did you mean "capability_sweep"?'),
        ({"text": "x", "conversations": [{"from": "human", "value": "y"}], "labels": []}, "has both text and conv"),
        ({"conversations": [{"from": "human"}], "labels": []}, r"conversations: messages\[0\] has no content"),
        ({"text": "x", "labels": [], "label": "organic"}, "has both labels and label"),
        ({"text": "x", "labels": [], "weight": 0}, "weight is not a number over 0"),
        ({"text": "x", "labels": [], "weight": "much"}, "weight is not a number"),
        ({"text": "x", "labels": [], "origin": "found"}, 'origin "found" is unknown'),
        ({"text": "x", "labels": [], "lang": 3}, "lang is not text"),
        (
            {"text": "x", "labels": ["capability_sweep"], "judged": ["censorship_probing"]},
            "judged lacks capability_sweep",
        ),
    ],
)
def test_faults_are_named(row, reason):
    with pytest.raises(RecordError, match=reason):
        parse_record(row, "s")


def test_all_faults_at_once_with_file_and_line(tmp_path, capsys):
    path = tmp_path / "bad.jsonl"
    good = json.dumps({"text": "fine", "labels": []})
    path.write_text(
        f'{good}\n\n{{"text": "private words", "labels": ["x"], "weight": 7}}\nnot json\n{good[:-1]}, "lang": 1}}\n'
    )
    assert main(["check", str(path)]) == 1
    out = capsys.readouterr().out
    faults = [line.removeprefix(str(path)) for line in out.splitlines() if line.startswith(str(path))]
    assert [fault.split(":")[1] for fault in faults] == ["3", "3", "4", "5"]
    assert "private words" not in out
    assert '"x" is unknown; known: reasoning_trace_extraction' in out and "1 is a sure label" in out
    assert "1 file(s), 1 record(s), 4 fault(s)" in out


def test_check_of_sound_files_shows_a_table(labelled, capsys):
    assert main(["check", str(labelled)]) == 0
    out = capsys.readouterr().out
    assert "| organic                    |     360 |" in out and "720 record(s), 0 fault(s)" in out


def test_the_same_records_from_every_format(tmp_path):
    rows = [
        {"text": "a, b", "labels": ["capability_sweep"], "source": "s"},
        {"text": "c\nd", "labels": [], "source": "s"},
    ]
    write_jsonl(tmp_path / "r.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    (tmp_path / "r.csv").write_text('text,labels,source,lang\n"a, b","[""capability_sweep""]",s,\n"c\nd",[],s,\n')
    read = [load_records([tmp_path / f"r.{kind}"]) for kind in ("jsonl", "parquet", "csv")]
    assert [faults for _, faults in read] == [[], [], []]
    assert read[0][0] == read[1][0] == read[2][0]


@given(st.text(min_size=1, max_size=40))
def test_the_key_is_blind_to_case_and_spacing(text):
    row = {"text": f"word {text} word", "labels": []}
    spaced = {"text": f"  word  {text}\n word", "labels": []}
    assert parse_record(row, "s").key == parse_record(spaced, "s").key


def test_wrong_use_is_exit_2(tmp_path, capsys):
    assert main(["check", str(tmp_path / "none.jsonl")]) == 2
    assert "no such file" in capsys.readouterr().err
