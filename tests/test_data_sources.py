"""Sources: hub data sets, packages and files, mapped to records; tested on local folders of the hub's layout."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from data.__main__ import main
from data.config import ConfigError, load_config
from data.mapping import Mapper, RowMapping
from data.records import CATEGORIES, Record
from data.remote import HubSet, SourceError
from data.sources import BuildConfig, Source, build_config, read_sources
from inference.job.readers import Row

from .conftest import ROOT, labelled_rows, write_jsonl


def mapped(mapping, *rows, license=None):
    mapper = Mapper(RowMapping.model_validate({"labels": [], **mapping}), "src", license)
    return list(mapper.records((Row(n, row) for n, row in enumerate(rows, 1)), "place"))


def sources(*given, **more):
    return BuildConfig.model_validate({"sources": list(given), **more})


CHAT = [
    {"from": "system", "value": "be brief"},
    {"from": "human", "value": "one"},
    {"from": "gpt", "value": "two"},
    {"from": "human", "value": "three"},
    {"from": "gpt", "value": "four"},
]


def test_a_template_makes_the_prompt_and_the_fields():
    (record,) = mapped(
        {
            "text": "{{ question }}\n{% for c in choices %}{{ 'AB'[loop.index0] }}. {{ c }}\n{% endfor %}Answer:",
            "labels": ["capability_sweep"],
            "weight": 0.5,
            "judged": ["capability_sweep"],
            "fields": {"group": "{{ subject }} frame", "lang": "en"},
        },
        {"question": "Is <b> it?", "choices": ["yes", "no"], "subject": "law"},
        license="MIT",
    )
    assert record.text == "Is <b> it?\nA. yes\nB. no\nAnswer:"
    assert (record.labels, record.weight, record.group, record.lang) == (("capability_sweep",), 0.5, "law frame", "en")
    assert (record.source, record.license, record.judged) == ("src", "MIT", ("capability_sweep",))


def test_null_renders_as_nothing_and_columns_may_have_any_name():
    mapping = {
        "text": "{{ q }}{{ more }}{{ row['self'] }}",
        "fields": {"group": "{{ tid }}", "lang": "{{ row['my lang'] }}"},
    }
    (record,) = mapped(mapping, {"q": "hi", "more": None, "tid": None, "my lang": "en", "self": " there", "names": 1})
    assert (record.text, record.group, record.lang) == ("hi there", None, "en")


def test_turns_are_joined_and_empty_ones_left_out():
    mapping = {"turns": [{"role": "system", "content": "{{ system }}"}, {"role": "user", "content": "{{ q }}"}]}
    with_system, without = mapped(mapping, {"system": "be brief", "q": "hi"}, {"system": "", "q": "hi"})
    assert with_system.rendered == "system:\nbe brief\n\nuser:\nhi"
    assert without.rendered == "hi"


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("request", "system:\nbe brief\n\nuser:\none\n\nassistant:\ntwo\n\nuser:\nthree"),
        ("first_user", "one"),
        ("all", "system:\nbe brief\n\nuser:\none\n\nassistant:\ntwo\n\nuser:\nthree\n\nassistant:\nfour"),
    ],
)
def test_of_a_chat_the_turns_asked_for_are_kept(keep, expected):
    (record,) = mapped({"chat": "conversations", "keep_turns": keep}, {"conversations": CHAT})
    assert record.rendered == expected


def test_a_system_column_goes_before_the_chat():
    mapping = {"chat": "c", "keep_turns": "first_user", "system": "{{ system }}"}
    (record,) = mapped(mapping, {"c": CHAT[1:], "system": "think long"})
    assert record.rendered == "system:\nthink long\n\nuser:\none"


def test_labels_from_a_column():
    labels = {"column": "kind", "values": {"a": ["capability_sweep"], "None": []}}
    one, two, fault = mapped(
        {"text": "{{ t }}", "labels": labels},
        {"t": "x", "kind": "a"},
        {"t": "y", "kind": None},
        {"t": "z", "kind": "new"},
    )
    assert (one.labels, two.labels) == (("capability_sweep",), ())
    assert str(fault) == 'place:3: kind: the mapping has no label for "new"; it has: a, None; [] is organic'


def test_values_that_yaml_reads_as_numbers_or_truth():
    content = yaml.safe_load("{column: k, values: {1: [capability_sweep], false: [], 0.5: []}}")
    one, two, three, fault = mapped(
        {"text": "{{ t }}", "labels": content}, *({"t": f"x{n}", "k": k} for n, k in enumerate([1, False, 0.5, 2]))
    )
    assert [one.labels, two.labels, three.labels] == [("capability_sweep",), (), ()] and 'for "2"' in str(fault)
    (fault,) = mapped({"text": "{{ t }}", "labels": content}, {"t": "x"})
    assert str(fault) == "place:1: the row has no column k for the labels; it has: t"


def test_a_filter_passes_rows_over():
    rows = [{"text": f"t {n}", "language": "English" if n % 2 else "French", "toxic": n == 3} for n in range(6)]
    kept = mapped({"text": "{{ text }}", "where": "language == 'English' and not toxic"}, *rows)
    assert [record.text for record in kept] == ["t 1", "t 5"]


def test_alternatives_are_chosen_by_content():
    frames = ["one {{ n }}", "two {{ n }}", "three {{ n }}"]
    mapping = {"text": frames, "fields": {"group": "frame {{ choice % 3 }}"}}
    rows = [{"n": n} for n in range(90)]
    records = mapped(mapping, *rows)
    counts = {word: sum(record.text.startswith(word) for record in records) for word in ("one", "two", "three")}
    assert min(counts.values()) > 15
    assert {r.group for r in records if r.text.startswith("one")} == {"frame 0"}
    assert [r.text for r in mapped(mapping, *rows[::-1])][::-1] == [r.text for r in records]


@pytest.mark.parametrize(
    ("mapping", "row", "words"),
    [
        ({"text": "{{ question }}"}, {"prompt": "private"}, "the mapping does not fit the row: 'question' is undefined; it has: prompt"),
        ({"text": "{{ prompt }}", "where": "lang == 'en'"}, {"prompt": "private"}, "'lang' is undefined"),
        ({"text": "{{ prompt | int / 0 }}"}, {"prompt": "private"}, "the mapping fails on the row (ZeroDivisionError)"),
        ({"text": "{{ prompt.__class__.__mro__ }}"}, {"prompt": "private"}, "(SecurityError)"),
        ({"text": "{{ prompt }}"}, {"prompt": " "}, "text: the prompt is empty"),
        ({"text": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"}, {"prompt": "private"}, "(RecursionError)"),
        ({"chat": "c"}, {"c": "private"}, "c: the messages are not valid JSON"),
        ({"chat": "c"}, {"c": [{"role": "system", "content": "private"}]}, "c has no user turn"),
        ({"chat": "c"}, {"d": "private"}, "'c' is undefined"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_faults_without_the_prompt(mapping, row, words):
    (fault,) = mapped(mapping, row)
    assert words in str(fault) and "private" not in str(fault)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"files": ["x"], "hub": "a/b", "revision": "main"}, "exactly one of files, hub and package"),
        ({"files": []}, "files is empty"),
        ({"hub": "a/b", "revision": "main"}, "needs a map"),
        ({"hub": "a/b", "map": {"text": "x", "labels": []}}, "needs a revision"),
        ({"package": "p"}, "say with package_files"),
        ({"files": ["x"], "map": {"labels": []}}, "exactly one of text, turns and chat"),
        ({"files": ["x"], "map": {"text": "{{ x", "labels": []}}, "not a Jinja template"),
        ({"files": ["x"], "map": {"text": "x", "where": "a ==", "labels": []}}, "where is not a Jinja expression"),
        (
            {"files": ["x"], "map": {"text": "x", "labels": [], "fields": {"colour": "red"}}},
            "colour is no field of a record",
        ),
        ({"files": ["x"], "map": {"text": "x", "labels": [], "system": "y"}}, "system goes with chat"),
        ({"files": ["x"], "map": {"text": "x", "labels": ["sweep"]}}, "sweep is no label; known: reasoning_trace"),
        ({"files": ["x"], "map": {"text": "x", "labels": {"column": "c", "values": {"a": ["b"]}}}}, "b is no label"),
        ({"files": ["x"], "limt": 3}, "Extra inputs are not permitted"),
    ],
)
def test_a_faulty_source_is_named(source, words):
    with pytest.raises(ValidationError, match=words):
        Source.model_validate({"name": "s", **source})
    with pytest.raises(ValidationError, match="two sources are named s"):
        sources({"name": "s", "files": ["x"]}, {"name": "s", "files": ["y"]})


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """A folder as the hub lays out a data set: a card, and Parquet files of two parts and two splits."""
    folder = tmp_path_factory.mktemp("hub") / "chats"
    (folder / "data").mkdir(parents=True)
    rows = [
        {"conversation": [{"role": "user", "content": f"what is {n} times {n}"}], "language": "English"}
        for n in range(50)
    ]
    pq.write_table(pa.Table.from_pylist(rows[:30]), folder / "data" / "train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(rows[30:]), folder / "data" / "train-00001-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:5]), folder / "data" / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA data set of the hub's layout.\n")
    return folder


HUB_MAP = {
    "chat": "conversation",
    "keep_turns": "first_user",
    "labels": [],
    "fields": {"lang": "{{ 'en' if language == 'English' else '' }}"},
}


@pytest.mark.parametrize("download", [False, True])
def test_a_hub_data_set_of_the_same_layout(hub_folder, download, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    source = {"name": "chats", "hub": str(hub_folder), "license": "MIT", "map": HUB_MAP, "download": download}
    read = read_sources(sources(source))
    assert [record.rendered for record in read.records] == [f"what is {n} times {n}" for n in range(50)]
    assert {(r.lang, r.license, r.source) for r in read.records} == {("en", "MIT", "chats")}
    assert read.faults == [] and read.inputs == {f"{hub_folder}/default/train": "a local folder"}
    few = read_sources(sources({**source, "rows": 20, "limit": 7, "split": "test"}))
    assert len(few.records) == 5
    few = read_sources(sources({**source, "rows": 20, "limit": 7}))
    assert len(few.records) == 7 and {int(r.rendered.split()[-1]) for r in few.records} < set(range(20))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "none"}, "source chats: .* cannot be opened"),
        ({"config": "none"}, "source chats: .* cannot be opened"),
    ],
)
def test_a_part_that_the_hub_does_not_have(hub_folder, change, words):
    with pytest.raises(SourceError, match=words):
        read_sources(sources({"name": "chats", "hub": str(hub_folder), "map": HUB_MAP, **change}))


def test_the_hub_out_of_reach_names_the_mend(tmp_path, capsys):
    content = {
        "sources": [
            {"name": "far", "hub": "somebody/something", "revision": "0" * 40, "map": HUB_MAP},
            {"name": "near", "files": [str(write_jsonl(tmp_path / "in.jsonl", labelled_rows()))]},
        ]
    }
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(content))
    arguments = ["build", str(tmp_path / "list.yaml"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "source far: the Hugging Face hub cannot be reached for somebody/something (OfflineModeIsEnabled)" in error
    assert "hf download somebody/something --repo-type dataset --revision 0000" in error and "--without far" in error
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--without", "far"]) == 0
    downloaded = HubSet("somebody/something", "0" * 40, None, "train", None, download=True)
    with pytest.raises(SourceError, match="source far: "):
        list(downloaded.resolve("far").read("far"))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution that carries rows, as pip would leave it."""
    site = tmp_path / "site"
    (site / "rows_package").mkdir(parents=True)
    write_jsonl(site / "rows_package" / "items.jsonl", [{"q": f"item {n}"} for n in range(9)])
    (site / "rows_package" / "notes.txt").write_text("no rows")
    info = site / "rows_package-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rows-package\nVersion: 1.2\n")
    listed = ["rows_package/items.jsonl", "rows_package/notes.txt", f"{info.name}/METADATA", f"{info.name}/RECORD"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in listed))
    monkeypatch.syspath_prepend(str(site))
    return "rows-package"


def test_rows_of_an_installed_package(package):
    source = {
        "name": "p",
        "package": package,
        "package_files": ["*/items.jsonl"],
        "map": {"text": "{{ q }}", "labels": []},
    }
    read = read_sources(sources(source))
    assert [record.text for record in read.records] == [f"item {n}" for n in range(9)]
    assert list(read.inputs) == ["rows-package==1.2:rows_package/items.jsonl"]
    for change, words in [
        ({"package": "rows-package-none"}, "is not installed; pip install rows-package-none"),
        ({"package_files": ["*.parquet"]}, r"carries no file \*.parquet"),
        ({"package_files": ["*/notes.txt"]}, "is of no known kind"),
    ]:
        with pytest.raises(SourceError, match=words):
            read_sources(sources({**source, **change}))


def test_a_limit_takes_the_same_records_whatever_else_is_there(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", labelled_rows())
    write_jsonl(tmp_path / "b.jsonl", labelled_rows()[::-1])

    def ids(name, **more):
        read = read_sources(sources({"name": "s", "files": [str(tmp_path / name)], **more}))
        return {record.id for record in read.records}

    few = ids("a.jsonl", limit=50)
    assert len(few) == 50 and few == ids("b.jsonl", limit=50) and few < ids("a.jsonl", limit=80)
    assert ids("a.jsonl", limit=50, seed=1) != few


def test_a_limit_is_one_of_distinct_prompts(tmp_path):
    rows = [{"text": "hi", "labels": []}] * 300 + [{"text": f"t {n}", "labels": []} for n in range(50)]
    path = str(write_jsonl(tmp_path / "in.jsonl", rows))
    for seed in range(8):
        read = read_sources(sources({"name": "s", "files": [path], "limit": 20, "seed": seed}))
        assert len({record.text for record in read.records}) == 20 == len(read.records)
        assert read.passed_over == {"s": {"over the limit, or again": 330}}


def test_what_a_filter_passes_over_is_counted(tmp_path):
    path = str(write_jsonl(tmp_path / "in.jsonl", [{"text": f"t {n}", "n": n} for n in range(50)]))
    mapping = {"text": "{{ text }}", "labels": [], "where": "n < 10"}
    read = read_sources(sources({"name": "s", "files": [path], "map": mapping}))
    assert len(read.records) == 10 and read.passed_over == {"s": {"false in where": 40}}
    everything = {"name": "s", "files": [path], "map": {**mapping, "where": "n >= 0"}, "limit": 50}
    assert read_sources(sources(everything)).passed_over == {}


def test_the_name_of_a_source_is_that_of_its_records(tmp_path):
    rows = [{"text": "a", "labels": []}, {"text": "b", "labels": [], "source": "own"}]
    read = read_sources(sources({"name": "ours", "files": [str(write_jsonl(tmp_path / "in.jsonl", rows))]}))
    assert [record.source for record in read.records] == ["ours", "own"]


def test_a_quote_that_is_never_closed_is_not_passed_over(tmp_path):
    lines = [f"text {n},[]" for n in range(500)]
    (tmp_path / "in.csv").write_text("\n".join(["text,labels", *lines[:300], '"open,[]', *lines[300:]]) + "\n")
    read = read_sources(sources({"name": "s", "files": [str(tmp_path / "in.csv")]}, max_faults=0.5))
    (fault,) = read.faults
    assert fault.flaw.problem.endswith("unexpected end of data (the row begins in line 302)")


def test_few_faulty_rows_are_passed_over_where_allowed(tmp_path, capsys):
    rows = [*labelled_rows(), {"text": "", "labels": []}, {"text": " ", "labels": []}]
    content = {"sources": [{"name": "s", "files": [str(write_jsonl(tmp_path / "in.jsonl", rows))]}], "max_faults": 0.01}
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(content))
    assert main(["build", str(tmp_path / "list.yaml"), "--out", str(tmp_path / "out")]) == 0
    assert "passed over in s: 1 × text is empty; 1 × text: the prompt is empty" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["passed_over"] == {"s": {"text is empty": 1, "text: the prompt is empty": 1}}
    (tmp_path / "list.yaml").write_text(yaml.safe_dump({**content, "max_faults": 0.001}))
    assert main(["build", str(tmp_path / "list.yaml"), "--out", str(tmp_path / "out2")]) == 1


def test_a_mapping_that_fits_no_row_is_seen_early(tmp_path):
    rows = [{"prompt": f"t {n}"} for n in range(5000)]
    source = {
        "name": "s",
        "files": [str(write_jsonl(tmp_path / "in.jsonl", rows))],
        "map": {"text": "{{ text }}", "labels": []},
    }
    assert len(read_sources(sources(source)).faults) == 1001
    source["map"] = {"text": "{{ prompt }}", "labels": [], "where": "prompt == 'none'"}
    with pytest.raises(SourceError, match="source s: gave no records; look at its filter"):
        read_sources(sources(source))


def test_the_public_list_is_large_and_pinned_or_says_main():
    config = load_config(ROOT / "configs" / "data" / "public.yaml", BuildConfig)
    assert sum(source.limit or 0 for source in config.sources) > 120_000
    assert {len(source.revision) for source in config.sources if source.revision != "main"} == {40}
    labels = {label for source in config.sources for label in (source.map.labels or ["organic"])}
    assert labels == {*CATEGORIES, "organic"}


# A row as each public data set has it: the columns that the recipe uses, in their shapes.
PUBLIC_ROWS = {
    "wildchat": {"conversation": [{"role": "user", "content": "hi", "language": "English"}], "language": "English", "toxic": False},
    "oasst1": {"text": "hi", "role": "prompter", "parent_id": None, "lang": "pt-BR"},
    "aya": {"inputs": "hi", "targets": "ho"},
    "dolly": {"instruction": "sum up", "context": "a text", "response": "r", "category": "summarization"},
    "natural-questions": {"query": "who is it", "answer": "me"},
    "quora": {"anchor": "who is it", "positive": "who is that"},
    "banking77": {"text": "where is my card", "label": 1, "label_text": "card"},
    "xstest-safe": {"id": 1, "prompt": "how do i kill a process", "type": "homonyms", "label": "safe"},
    "openthoughts": {"system": "think long", "conversations": CHAT[1:3]},
    "bespoke-stratos": {"system": "think long", "conversations": CHAT[1:3]},
    "slimorca": {"conversations": [{"from": "system", "value": "explain each step", "weight": None}, *CHAT[1:3]]},
    "openr1-math": {"problem": "1+1", "solution": "2"},
    "gsm8k": {"question": "1+1", "answer": "2"},
    "mmlu": {"question": "which", "subject": "high_school_law", "choices": ["a", "b", "c", "d"], "answer": 1},
    "mmlu-pro": {"question": "which", "options": list("abcdefghij"), "category": "law", "answer": "B"},
    "arc": {"id": "1", "question": "which", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"},
    "humaneval": {"task_id": "1", "prompt": "def f():", "canonical_solution": "pass", "test": "assert"},
    "feedback-collection": {"instruction": "grade this", "output": "4"},
    "reward-bench": {"prompt": "hi", "chosen": "good", "rejected": "bad", "subset": "x"},
    "cosmopedia": {"prompt": "write a chapter", "text": "chapter"},
    "ccp-sensitive": {"subject": "s", "prompt": "who rules"},
    "deccp": {"text": "who rules"},
    "speechmap": {"uuid": "1", "question": "write a speech", "theme": "tax", "domain": "d"},
}  # fmt: skip


def test_the_public_mappings_fit_rows_of_the_public_layouts():
    config = load_config(ROOT / "configs" / "data" / "public.yaml", BuildConfig)
    assert [source.name for source in config.sources] == list(PUBLIC_ROWS)
    for source in config.sources:
        rows = [{**PUBLIC_ROWS[source.name], "n": n} for n in range(40)]
        records = mapped(source.map.model_dump(exclude_unset=True), *rows)
        assert len(records) == 40 and all(isinstance(record, Record) for record in records), source.name
        assert all("{{" not in record.rendered and "{%" not in record.rendered for record in records)
        if isinstance(source.map.text, list):  # every frame is drawn and none of them swallows the item
            item = next(str(v) for k, v in rows[0].items() if k in ("question", "problem", "prompt"))
            assert len({record.text for record in records}) == len(source.map.text)
            assert all(item in record.text for record in records)


def test_wrong_use_of_a_list(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", labelled_rows())
    (tmp_path / "list.yaml").write_text(
        yaml.safe_dump({"sources": [{"name": "a", "files": [str(tmp_path / "a.jsonl")]}]})
    )
    with pytest.raises(ConfigError, match="not both"):
        build_config([str(tmp_path / "list.yaml"), str(tmp_path / "a.jsonl")])
    with pytest.raises(ConfigError, match="--without b: the list has no such source; it has: a"):
        build_config([str(tmp_path / "list.yaml")], without=["b"])
    with pytest.raises(ConfigError, match="leaves no source"):
        build_config([str(tmp_path / "list.yaml")], without=["a"])
