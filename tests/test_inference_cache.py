"""A cache of scores: the same answers, fewer of them computed, and never in the way."""

import json
import shutil
import sqlite3
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import PromptClassifier
from inference.__main__ import main
from inference.cache import CacheWarning, ScoreCache, Scored

from .conftest import write_jsonl

TEXTS = ["my bread broke again", "which goats ?", "опера " * 90, "my bread broke again"]


def file_of(folder):
    (path,) = folder.glob("*.sqlite")
    return path


def counts_of(out):
    return json.loads(out.with_name(out.name + ".summary.json").read_text())["counts"]


@pytest.fixture
def filled(artefact, tmp_path):
    """A folder with the scores of TEXTS."""
    classifier = PromptClassifier.load(artefact, cache=tmp_path / "cache")
    classifier.classify(TEXTS)
    classifier._open().cache.close()  # as the end of its process would
    return tmp_path / "cache"


def test_what_was_scored_is_not_scored_again(artefact, classifier, filled, monkeypatch):
    cached = PromptClassifier.load(artefact, cache=filled)
    monkeypatch.setattr(cached.scorer, "backend", None)  # it is not even called
    assert [p.to_dict() for p in cached.classify(TEXTS)] == [p.to_dict() for p in classifier.classify(TEXTS)]


def test_a_job_says_how_much_was_known(artefact, tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    arguments = ["score", str(source), "--model", str(artefact), "--cache", str(tmp_path / "cache"), "--output"]
    assert main([*arguments, str(tmp_path / "1.jsonl")]) == 0
    assert main([*arguments, str(tmp_path / "2.jsonl")]) == 0
    assert "cached             3  scored by an earlier job" in capsys.readouterr().out
    first, second = counts_of(tmp_path / "1.jsonl"), counts_of(tmp_path / "2.jsonl")
    assert (first["cached"], first["repeats"]) == (0, 1) and (second["cached"], second["repeats"]) == (3, 1)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_a_job_whose_cache_cannot_be_used_says_so_in_one_line_and_goes_on(artefact, tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    (tmp_path / "file").write_text("")
    arguments = ["score", str(source), "--model", str(artefact), "--cache", str(tmp_path / "file")]
    assert main([*arguments, "--output", str(tmp_path / "out.jsonl")]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1 and "cannot be used as a cache" in lines[0]


def test_it_holds_no_prompt(filled):
    held = b"".join(path.read_bytes() for path in filled.iterdir())
    assert b"bread" not in held and "опера".encode() not in held


@pytest.mark.parametrize("damage", ["no database", "cut short", "a row", "another version"])
def test_a_damaged_cache_is_left_alone(artefact, classifier, filled, damage):
    path = file_of(filled)
    if damage == "no database":
        path.write_bytes(b"something else altogether" * 100)
    elif damage == "cut short":
        with sqlite3.connect(path) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with sqlite3.connect(path) as file:
            change = (
                "UPDATE scores SET n_tokens = n_tokens + 1" if damage == "a row" else "UPDATE about SET version = 99"
            )
            file.execute(change)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = PromptClassifier.load(artefact, cache=filled).classify(TEXTS)
    assert [p.distillation for p in found] == pytest.approx(
        [p.distillation for p in classifier.classify(TEXTS)], abs=1e-5
    )
    assert [p.n_tokens for p in found] == [p.n_tokens for p in classifier.classify(TEXTS)]
    said = [str(item.message) for item in caught if item.category is CacheWarning]
    assert damage == "a row" or any("cannot be used as a cache" in message for message in said)


def test_another_artefact_has_a_cache_of_its_own(artefact, filled, tmp_path):
    copy = tmp_path / "other"
    shutil.copytree(artefact, copy)
    about = json.loads((copy / "assay.json").read_text())
    about["calibration"]["distillation"]["offset"] += 1
    (copy / "assay.json").write_text(json.dumps(about))
    PromptClassifier.load(copy, cache=filled).classify(TEXTS)
    assert len(list(filled.glob("*.sqlite"))) == 2


def test_a_folder_that_cannot_be_written_is_a_warning(artefact, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(CacheWarning, match="cannot be used as a cache"):
        PromptClassifier.load(artefact, cache=tmp_path / "file").classify(TEXTS)


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(max_size=20),
        st.tuples(
            st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3),
            st.integers(0, 10**9), st.integers(1, 100), st.booleans(), st.integers(0, 10**9),
        ),
        max_size=20,
    )
)  # fmt: skip
def test_what_is_added_is_found(tmp_path_factory, items):
    cache = ScoreCache(tmp_path_factory.mktemp("cache"), "way", 3)
    scored = {
        text: Scored(np.array(logits, np.float32), tokens, windows, truncated, (start, start + 1))
        for text, (logits, tokens, windows, truncated, start) in items.items()
    }
    cache.add(scored)
    found = cache.find([*scored, "never added, and longer than twenty"])
    assert found.keys() == scored.keys()
    for text, item in scored.items():
        assert (found[text].logits == item.logits).all()
        assert (found[text].n_tokens, found[text].n_windows, found[text].truncated, found[text].top) == (
            item.n_tokens, item.n_windows, item.truncated, item.top,
        )  # fmt: skip
    cache.close()
    assert cache.find(list(scored)) == {}
