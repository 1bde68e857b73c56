"""The functional suite: what counts as held, what a faulty suite says, and that the shipped one is whole."""

import json

import numpy as np
import pytest
import yaml

from data.config import ConfigError
from data.corpus_card import corpus_files
from data.leaks import similar_across
from data.reading import load_records
from data.similar import shingles
from inference.artefact import write_text
from training.__main__ import main
from training.encode import DataError
from training.evaluation.suite import SHIPPED, load_suite, run_suite, suite_sections

from .conftest import ORGANIC, POSITIVE, ROOT, write_jsonl

WORDS = {"a": "bread", "b": "tax", "c": "soil", "d": "maps", "e": "glass"}
CALM = ORGANIC.format(**WORDS, n=12)
LOUD = POSITIVE["reasoning_trace_extraction"].format(**WORDS, n=13)
KINDS = ("decision", "pair", "invariance")


def row(text, labels=(), **more):
    return {"text": text, "labels": list(labels), "lang": "en", "source": "suite", **more}


@pytest.fixture
def suite_folder(tmp_path):
    """A suite of one capability of each kind, with a test of each that holds and one that does not."""
    trace = ["reasoning_trace_extraction"]
    rows = {
        "decision": [row(CALM), row(LOUD, trace), row(LOUD + " again")],
        "pair": [
            row(CALM, case="a", role="base"),
            row(LOUD, trace, case="a", role="variant"),
            row(LOUD + " twice", case="b", role="base"),
            row(LOUD + " more", trace, case="b", role="variant"),
        ],
        "invariance": [
            row(CALM, case="a", role="base"),
            row(CALM + " !", case="a", role="variant"),
            row(LOUD, case="a", role="variant"),
        ],
    }
    capabilities = [{"name": k, "area": "basics", "kind": k, "what": f"The {k} holds."} for k in KINDS]
    write_text(tmp_path / "capabilities.yaml", yaml.safe_dump({"capabilities": capabilities}))
    for name, records in rows.items():
        write_jsonl(tmp_path / f"{name}.jsonl", records)
    return tmp_path


def test_what_holds(classifier, suite_folder):
    outcomes = run_suite(classifier, load_suite(suite_folder))
    assert [(x.capability.name, x.passed, x.tests) for x in outcomes] == [
        ("decision", 2, 3), ("pair", 1, 2), ("invariance", 1, 2),
    ]  # fmt: skip
    sections = suite_sections(outcomes)
    assert sections["functional suite"]["pass_rate"].value == pytest.approx(4 / 7)
    assert sections["functional suite"]["pass_rate"] == sections["functional suite"]["basics"]
    assert sections["capability pair"]["pass_rate"].n == 2


def test_evaluate_runs_it(artefact, built, suite_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", str(artefact), str(built), "--suite", str(suite_folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "functional suite" in printed and "capability" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["capability decision"]["pass_rate"]["value"] == pytest.approx(2 / 3)
    page = (out / "report.html").read_text()
    assert "The invariance holds." in page and "4 of 7 tests passed" in page
    assert main(["evaluate", str(artefact), str(built), "--no-suite", "--out", str(out)]) == 0
    assert "functional suite" not in json.loads((out / "metrics.json").read_text())
    assert "Functional suite" not in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "pair.jsonl").unlink(), "pair.jsonl: missing"),
        (
            lambda folder: write_jsonl(folder / "pair.jsonl", [row(CALM, case="a", role="base")]),
            "case a needs one base",
        ),
        (
            lambda folder: write_jsonl(
                folder / "pair.jsonl", [row(CALM, case="a", role="base"), row(LOUD, case="a", role="variant")]
            ),
            "case a is a pair",
        ),
        (
            lambda folder: write_jsonl(
                folder / "invariance.jsonl",
                [row(CALM, case="a", role="base"), row(LOUD, ["capability_sweep"], case="a", role="variant")],
            ),
            "case a is an invariance",
        ),
        (lambda folder: write_jsonl(folder / "decision.jsonl", [{"labels": []}]), "decision.jsonl:1:"),
    ],
)
def test_a_faulty_suite_says_what_is_wrong(suite_folder, change, message):
    change(suite_folder)
    with pytest.raises(DataError, match=message):
        load_suite(suite_folder)


def test_a_faulty_list_says_what_is_wrong(suite_folder):
    write_text(suite_folder / "capabilities.yaml", "capabilities: [{name: x, area: basics, kind: guess, what: y}]")
    with pytest.raises(ConfigError, match="capabilities.0.kind"):
        load_suite(suite_folder)


def test_the_shipped_suite():
    suite = load_suite(SHIPPED)
    assert len(suite.capabilities) >= 60
    files = {path.stem for path in SHIPPED.glob("*.jsonl")}
    assert files == {capability.name for capability in suite.capabilities}
    assert {name: len(rows) for name, rows in suite.prompts.items() if not 10 <= len(rows) <= 30} == {}
    assert {x.area for x in suite.capabilities} == {
        "basics", "hard negatives", "minimal pairs", "invariances", "evasions", "languages",
    }  # fmt: skip
    kinds = {"minimal pairs": "pair", "invariances": "invariance"}
    assert all(x.kind == kinds.get(x.area, "decision") for x in suite.capabilities)


def test_the_shipped_suite_is_apart_from_the_corpus():
    corpus, _ = load_records(corpus_files(ROOT / "data" / "seed"))
    records = [record for rows in load_suite(SHIPPED).prompts.values() for record in rows]
    runs = [shingles(record.rendered, 5) for record in (*corpus, *records)]
    places = np.array([0] * len(corpus) + [1] * len(records))
    assert similar_across(runs, places, 0.7) is None
