"""The gate: it follows the encoder, its cuts keep what they promise, and a job uses it or leaves it out."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from inference import ArtefactError, PromptClassifier
from inference.__main__ import main
from inference.artefact import load_artefact
from inference.gate import PAIRS, Cut, Gate, gate_features, load_gate
from inference.windows import PromptWindows
from training.__main__ import main as training
from training.gate import allowed_misses, draw_cuts

from .conftest import ORGANIC, POSITIVE, write_jsonl

WORDS = dict(zip("abcde", "bread rivers tax violins lasers".split(), strict=True))  # noqa: SIM905
ORGANIC_TEXTS = [ORGANIC.format(**WORDS, n=n) for n in range(40)]
POSITIVE_TEXTS = [text.format(**WORDS, n=n) for text in POSITIVE.values() for n in range(4)]


@pytest.fixture(scope="module")
def model(artefact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate") / "model"
    shutil.copytree(artefact, folder)
    return folder


@pytest.fixture(scope="module")
def gated(model):
    """An artefact with a gate whose cuts let through about the distillation prompts: fitted by hand, on few prompts."""
    from training.gate import Followed, fit_gate

    classifier = PromptClassifier.load(model)
    texts = [*ORGANIC_TEXTS, *POSITIVE_TEXTS]
    windows = classifier.scorer.windower(texts)
    truth = np.array([0.02] * len(ORGANIC_TEXTS) + [0.98] * len(POSITIVE_TEXTS))
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    weights, offset = fit_gate(Followed(windows, truth), vocabulary)
    assay = classifier.assay
    points = sorted(assay.operating_points)
    gate = Gate(
        weights, offset, {name: Cut(0.1 * i, 500, 1, 0.1) for i, name in enumerate(points)}, assay.fingerprint, {}
    )
    gate.save(model)
    return model


def score(model, source, out, *more):
    return main(["score", str(source), "--model", str(model), "--output", str(out), *more])


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def source(tmp_path):
    return write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in [*ORGANIC_TEXTS, *POSITIVE_TEXTS, None]])


def test_a_row_of_the_gate_says_so_and_nothing_of_categories(gated, source, tmp_path, capsys):
    assert score(gated, source, tmp_path / "out.jsonl") == 0
    rows = rows_of(tmp_path / "out.jsonl")
    assay = load_artefact(gated)
    lowest = min(point.thresholds["distillation"] for point in assay.operating_points.values())
    held = [row for row in rows if row["stage"] == "gate"]
    assert [row["stage"] for row in rows[:40]] == ["gate"] * 40
    assert all(row["stage"] == "encoder" for row in rows[40:-1])
    assert rows[-1]["stage"] is None and rows[-1]["error"]
    for row in held:
        assert all(row[label] is None for label in assay.labels)
        assert (row["labels"], row["flagged"], row["uncertain"], row["truncated"]) == ([], False, False, False)
        assert (row["n_windows"], row["top_window"]) == (0, None) and row["n_tokens"] > 5
        assert 0 <= row["distillation"] < lowest
    summary = json.loads((tmp_path / "out.jsonl.summary.json").read_text())
    assert summary["counts"]["gated"] == 40 and summary["options"]["gate"] == load_gate(gated, assay).fingerprint
    assert "gated             40  decided by the gate, unread by the encoder" in capsys.readouterr().out


def test_what_passes_is_scored_as_without_a_gate(gated, source, tmp_path):
    assert score(gated, source, tmp_path / "with.jsonl") == 0
    assert score(gated, source, tmp_path / "without.jsonl", "--no-gate") == 0
    for with_gate, without in zip(rows_of(tmp_path / "with.jsonl"), rows_of(tmp_path / "without.jsonl"), strict=True):
        assert without["stage"] != "gate"
        if with_gate["stage"] == "encoder":
            assert with_gate["distillation"] == pytest.approx(without["distillation"], abs=1e-5)
            assert with_gate["top_window"] == without["top_window"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_every_format_holds_rows_of_the_gate(gated, source, tmp_path, kind):
    assert score(gated, source, tmp_path / f"out.{kind}") == 0
    if kind == "parquet":
        import pyarrow.parquet as pq

        stages = pq.read_table(tmp_path / "out.parquet")["stage"].to_pylist()
        assert stages.count("gate") == 40
    else:
        assert (tmp_path / "out.csv").read_text().count(",gate,") == 40


def test_a_job_does_not_change_its_gate_on_the_way(gated, source, tmp_path, capsys):
    assert score(gated, source, tmp_path / "out", "--limit", "3") == 0
    assert score(gated, source, tmp_path / "out", "--limit", "3", "--no-gate", "--resume") == 2
    assert "belongs to another job (gate was " in capsys.readouterr().err


def test_decide_refuses_a_point_at_which_the_gate_would_have_passed_on_more(gated, source, tmp_path, capsys):
    loose, strict = sorted(load_artefact(gated).operating_points)[:2]  # the cut rises with the name
    assert score(gated, source, tmp_path / "out.jsonl", "--operating-point", strict) == 0
    decide = ["decide", str(tmp_path / "out.jsonl"), "--output", str(tmp_path / "anew.jsonl"), "--operating-point"]
    assert main([*decide, loose]) == 2
    assert f"the gate held back prompts that {loose} could flag" in capsys.readouterr().err
    assert score(gated, source, tmp_path / "out.jsonl", "--operating-point", loose, "--overwrite") == 0
    assert main([*decide, strict]) == 0
    anew = rows_of(tmp_path / "anew.jsonl")
    assert sum(row["stage"] == "gate" for row in anew) == 40 and not any(row["flagged"] for row in anew[:40])


def test_what_the_gate_decides_does_not_depend_on_what_a_cache_holds(gated, source, tmp_path):
    cache = ["--cache", str(tmp_path / "cache")]
    assert score(gated, source, tmp_path / "without.jsonl", "--no-gate", *cache) == 0
    assert score(gated, source, tmp_path / "fresh.jsonl") == 0
    assert score(gated, source, tmp_path / "with.jsonl", *cache) == 0
    assert score(gated, source, tmp_path / "again.jsonl", *cache) == 0
    assert rows_of(tmp_path / "with.jsonl") == rows_of(tmp_path / "fresh.jsonl") == rows_of(tmp_path / "again.jsonl")
    counts = json.loads((tmp_path / "again.jsonl.summary.json").read_text())["counts"]
    assert (counts["cached"], counts["gated"]) == (len(POSITIVE_TEXTS), len(ORGANIC_TEXTS))


def test_in_python_a_gate_is_asked_for(gated):
    texts = [ORGANIC_TEXTS[0], POSITIVE_TEXTS[0]]
    assert [p.stage for p in PromptClassifier.load(gated).classify(texts)] == ["encoder", "encoder"]
    held, read = PromptClassifier.load(gated, gate=True).classify(texts)
    assert (held.stage, held.scores, held.top_window) == ("gate", {}, None) and read.stage == "encoder"
    json.dumps(held.to_dict())


def test_a_gate_of_another_artefact_is_refused(gated, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(gated, copy)
    about = json.loads((copy / "gate" / "gate.json").read_text())
    (copy / "gate" / "gate.json").write_text(json.dumps(about | {"artefact": "0" * 16}))
    with pytest.raises(ArtefactError, match="follows another artefact; make it again: python -m training gate"):
        PromptClassifier.load(copy, gate=True)
    assert PromptClassifier.load(copy).classify(["a"])


@pytest.mark.parametrize("damage", ["short weights", "no weights", "a cut that is no number", "schema"])
def test_a_broken_gate_is_refused(gated, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(gated, copy)
    path = copy / "gate" / "gate.json"
    about = json.loads(path.read_text())
    if damage == "short weights":
        weights = copy / "gate" / "gate.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4])
    elif damage == "no weights":
        (copy / "gate" / "gate.safetensors").unlink()
    elif damage == "schema":
        path.write_text(json.dumps(about | {"schema_version": 9}))
    else:
        about["cuts"][next(iter(about["cuts"]))]["score"] = "low"
        path.write_text(json.dumps(about))
    with pytest.raises(ArtefactError, match="gate"):
        PromptClassifier.load(copy, gate=True)


def test_too_few_flagged_prompts_are_refused(model, built, capsys):
    copy = model.with_name("refused")
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("gate"))
    assert training(["gate", str(copy), "--data", str(built)]) == 1
    assert "no operating point has 299 flagged calibration prompts" in capsys.readouterr().err
    assert not (copy / "gate").exists()


def test_made_from_data_and_traffic_and_told_of_by_evaluate(model, built, tmp_path, capsys, monkeypatch):
    """The tests' data is small: the promise is lowered, so that a cut can be drawn."""
    monkeypatch.setattr("training.gate.KEPT", 0.8)
    copy = tmp_path / "made"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("gate"))
    traffic = write_jsonl(
        tmp_path / "traffic.jsonl", [{"text": text} for text in [*ORGANIC_TEXTS, None, ORGANIC_TEXTS[0]]]
    )
    assert training(["gate", str(copy), "--data", str(built), "--unlabelled", str(traffic)]) == 0
    said = capsys.readouterr().out
    assert "flagged by the encoder" in said and not (tmp_path / "made.gate-cache").exists()
    gate = load_gate(copy, load_artefact(copy))
    assert gate.cuts and gate.fitted_on["unlabelled"] == 40
    assert training(["evaluate", str(copy), str(built), "--no-suite", "--out", str(tmp_path / "found")]) == 0
    assert "kept of flagged" in capsys.readouterr().out
    sections = json.loads((tmp_path / "found" / "metrics.json").read_text())
    for name in gate.cuts:
        section = sections[f"cascade {name}"]
        assert section["recall_with_gate"]["value"] <= section["recall"]["value"]
        assert 0.5 < section["kept_of_flagged"]["value"] <= 1 and 0 < section["passed_tokens"]["value"] <= 1
    assert any(name.startswith("cascade source ") for name in sections)
    page = (tmp_path / "found" / "report.html").read_text()
    assert 'id="cascade"' in page and all(f'<th scope="row">{name}</th>' in page for name in gate.cuts)
    seen = write_jsonl(
        tmp_path / "seen.jsonl", [{"text": text, "labels": [], "source": "t"} for text in ORGANIC_TEXTS[:3]]
    )
    assert training(["evaluate", str(copy), str(seen), "--no-suite", "--out", str(tmp_path / "seen")]) == 2
    assert "3 in unlabelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flagged", "misses"), [(0, None), (298, None), (299, 0), (472, 0), (473, 1), (627, 1), (628, 2)]
)
def test_as_many_misses_as_confidence_allows(flagged, misses):
    assert allowed_misses(flagged) == misses


@pytest.mark.parametrize("flagged", [299, 473, 628, 1000])
def test_a_gate_that_loses_more_than_promised_is_rarely_let_through(flagged):
    """By the binomial itself: were 99 % kept or less, so few misses would come in at most 5 of 100 samples."""
    assert binom.cdf(allowed_misses(flagged), flagged, 0.01) <= 0.05
    assert binom.cdf(allowed_misses(flagged) + 1, flagged, 0.01) > 0.05


@settings(max_examples=30)
@given(st.integers(299, 900), st.integers(0, 2**32 - 1))
def test_a_cut_holds_back_exactly_the_misses_it_is_allowed(artefact, flagged, seed):
    assay = load_artefact(artefact)
    random = np.random.default_rng(seed)
    gate, encoder = random.normal(size=2 * flagged), np.repeat([1.0, 0.0], flagged)
    cuts = draw_cuts(assay, gate, encoder, encoder == 0)
    assert cuts.keys() == assay.operating_points.keys()
    for cut in cuts.values():
        assert (gate[:flagged] < cut.score).sum() == cut.missed == allowed_misses(flagged)
        assert cut.passed_organic == (gate[flagged:] >= cut.score).mean()


@settings(max_examples=50)
@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=30), min_size=1, max_size=4), min_size=1, max_size=8
    )
)
def test_features_are_counts_of_tokens_and_neighbours_and_do_not_depend_on_the_company(prompts):
    cut = [PromptWindows(windows, [(0, 0)] * len(windows), 1, False) for windows in prompts]
    rows, columns, values = gate_features(cut, 100)
    assert columns.max() < 100 + PAIRS
    for i, windows in enumerate(prompts):
        mine = rows == i
        tokens = [token for window in windows for token in window]
        pairs = {pair for window in windows for pair in zip(window, window[1:], strict=False)}
        found = dict(zip(columns[mine].tolist(), values[mine], strict=True))
        assert {column for column in found if column < 100} == set(tokens)
        assert len([column for column in found if column >= 100]) <= len(pairs) and bool(pairs) == any(
            c >= 100 for c in found
        )
        assert np.linalg.norm(values[mine]) == pytest.approx(1)
        unscaled = np.log1p(tokens.count(tokens[0])) / found[tokens[0]]
        assert all(found[token] * unscaled == pytest.approx(np.log1p(tokens.count(token))) for token in tokens)
        alone = gate_features([cut[i]], 100)
        assert (alone[1] == columns[mine]).all() and (alone[2] == values[mine]).all()
