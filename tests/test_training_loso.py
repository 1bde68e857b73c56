"""Leave-one-source-out: who is trained on and who is measured, what is kept after a kill, and what the table says."""

import json
import shutil

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.metrics import roc_auc_score

from data.build import build
from data.records import Record
from data.sources import config_for_files
from tests.conftest import labelled_rows, write_jsonl
from training.__main__ import main
from training.encode import DataError
from training.evaluation.loso import embeddings, loso
from training.evaluation.loso_folds import Pool, read_pool, source_folds
from training.evaluation.loso_report import means, report, results
from training.runs import RunError

prompts = st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 30)), min_size=2, max_size=80)


def pool_of(sources, positive, clusters, folds=2, **extra):
    records = [
        Record(("capability_sweep",) if label else (), source, id=str(i), text=f"prompt {i}", extra=dict(extra))
        for i, (source, label) in enumerate(zip(sources, positive, strict=True))
    ]
    named = np.array(sources, dtype=object)
    truth = np.array(positive, float)
    fold = source_folds(named, truth == 1, folds)
    return Pool(Dataset.from_dict({"id": list(range(len(records)))}), records, truth, named, np.array(clusters), fold)


@given(prompts, st.integers(1, 12))
def test_folds_partition_the_sources(rows, folds):
    sources = np.array([f"s{source}" for source, _, _ in rows], dtype=object)
    positive = np.array([label for _, label, _ in rows])
    fold = source_folds(sources, positive, folds)
    assert set(fold) == set(range(min(folds, len(set(sources)))))  # none is empty
    assert all(len(set(fold[sources == source])) == 1 for source in set(sources))
    shuffled = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(source_folds(sources[shuffled], positive[shuffled], folds), fold[shuffled])


@given(st.lists(st.integers(1, 40), min_size=6, max_size=20), st.integers(2, 3))
def test_every_fold_holds_both_classes_where_the_sources_allow_it(sizes, folds):
    sources = np.repeat([f"s{i}" for i in range(len(sizes))], sizes).astype(object)
    positive = np.repeat([i % 2 == 0 for i in range(len(sizes))], sizes)
    fold = source_folds(sources, positive, folds)
    assert all(set(positive[fold == number]) == {True, False} for number in range(folds))


def test_folds_are_of_about_one_size():
    sizes = [500, 400, 300, 300, 200, 200, 100, 100, 50, 50]
    sources = np.repeat([f"s{i}" for i in range(10)], sizes).astype(object)
    fold = source_folds(sources, np.repeat([i % 2 == 0 for i in range(10)], sizes), 4)
    assert np.bincount(fold).max() < 1.5 * np.bincount(fold).min()


@given(prompts, st.integers(2, 6))
def test_no_cluster_is_on_both_sides(rows, folds):
    pool = pool_of([f"s{source}" for source, _, _ in rows], [x for _, x, _ in rows], [c for _, _, c in rows], folds)
    for number in range(int(pool.fold.max()) + 1):
        held, training = pool.held(number), pool.training(number)
        assert not set(pool.clusters[held]) & set(pool.clusters[training])
        assert not set(pool.sources[held]) & set(pool.sources[training])
        # and nobody else is left out
        assert all(pool.clusters[i] in set(pool.clusters[held]) for i in np.flatnonzero(~training))


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(run_config, built, tmp_path_factory):
    out = tmp_path_factory.mktemp("loso") / "out"
    return out, loso(run_config, built, out, 8)


def test_each_prompt_is_measured_once(finished, run_config, built):
    out, table = finished
    names = {"run.json", "loso.json", "loso.md", "embeddings.safetensors", *(f"folds/{i}.json" for i in range(3))}
    assert set(files_in(out)) == names  # as many folds as there are sources
    folds = [json.loads((out / "folds" / f"{i}.json").read_text()) for i in range(3)]
    pool = read_pool(run_config, built, 8)
    assert sorted(name for fold in folds for name in fold["ids"]) == sorted(record.id for record in pool.records)
    for number, fold in enumerate(folds):
        assert len(fold["scores"]) == len(fold["ids"]) and fold["alike_left_out"] > 0
        assert fold["trained_on"] + fold["alike_left_out"] + len(fold["ids"]) == len(pool.records)
        assert fold["sources"] == sorted(set(pool.sources[pool.held(number)]))
    assert (out / "loso.md").read_text() == table + "\n"
    content = json.loads((out / "loso.json").read_text())
    assert [source["source"] for source in content["sources"]] == ["made-0", "made-1", "made-2"]
    assert content["means"]["roc_auc"]["value"] > 0.9 and "made-1" in table


def test_after_a_kill_only_what_is_missing_is_done_again(finished, run_config, built, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "out")
    before = files_in(out)
    times = {name: (out / name).stat().st_mtime_ns for name in ("folds/0.json", "folds/1.json")}
    for name in ("folds/2.json", "loso.json", "loso.md"):
        (out / name).unlink()
    assert loso(run_config, built, out, 8) == finished[1]
    assert files_in(out) == before
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    (out / "embeddings.safetensors").unlink()  # nothing is left to do with them
    assert loso(run_config, built, out, 8) == finished[1] and not (out / "embeddings.safetensors").exists()


def test_embedding_goes_on_where_it_stopped(finished, run_config, built, tmp_path):
    pool = read_pool(run_config, built, 8)
    whole = embeddings(run_config, pool, finished[0])
    (tmp_path / "embeddings").mkdir()
    save_file({"states": np.zeros((256, whole.shape[1]), np.float32)}, tmp_path / "embeddings" / "0.safetensors")
    (tmp_path / "embeddings" / "256.safetensors.writing").write_bytes(b"half of it")
    resumed = embeddings(run_config, pool, tmp_path)
    assert not resumed[:256].any()  # what was there was taken
    np.testing.assert_array_equal(resumed[256:], whole[256:])
    assert set(files_in(tmp_path)) == {"embeddings.safetensors"}


def test_the_leftovers_of_another_run_are_refused(finished, run_config, built, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "out")
    for config, folds, whole in (
        (run_config.model_copy(update={"seed": 1}), 8, False),
        (run_config, 2, False),
        (run_config, 8, True),
    ):
        with pytest.raises(RunError, match="folds of another configuration"):
            loso(config, built, out, folds, whole)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(RunError, match="holds something else"):
        loso(run_config, built, tmp_path / "mine")
    assert files_in(out) == files_in(finished[0]) and set(files_in(tmp_path / "mine")) == {"notes.txt"}


def test_whole_runs_resume_too(run_config, built, tmp_path):
    fit = run_config.fit.model_copy(update={"epochs": 1, "max_prompts": 64, "evaluations": 1})
    config = run_config.model_copy(update={"fit": fit})
    table = loso(config, built, tmp_path / "out", 2, whole_runs=True)
    before = files_in(tmp_path / "out")
    assert set(before) == {"run.json", "loso.json", "loso.md", "folds/0.json", "folds/1.json"}
    assert "whole runs" in table
    (tmp_path / "out" / "folds" / "1.json").unlink()
    assert loso(config, built, tmp_path / "out", 2, whole_runs=True) == table
    assert files_in(tmp_path / "out") == before


def test_the_command(finished, run_config, built, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(run_config.model_dump(mode="json")))
    out = shutil.copytree(finished[0], tmp_path / "out")
    command = ["loso", str(config), "--data", str(built), "--out", str(out)]
    assert main(command) == 0
    assert finished[1] in capsys.readouterr().out
    assert main([*command, "--folds", "1"]) == 2
    assert "--folds 2 or more" in capsys.readouterr().err
    assert main([*command[:2], "--data", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "no built data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: {"source": "one"}, r"1 source\(s\) in 8"),
        (lambda row: {"source": "positive" if row["labels"] else "organic"}, "each class needs two sources"),
        (
            lambda row: {"judged": ["capability_sweep"] if not row["labels"] else row["labels"]},
            "0 organic prompts, and a rate of 1 % needs 100",
        ),
        (
            lambda row: {"ambiguous": True} if not row["labels"] and "messages" not in row else {},
            "organic prompts, and",
        ),
    ],
)
def test_data_that_cannot_be_left_out(change, said, run_config, tmp_path):
    rows = [row | change(row) for row in labelled_rows()[:360]]
    files = [str(write_jsonl(tmp_path / "made.jsonl", rows))]
    folder = build(config_for_files(files), tmp_path / "data").folder
    with pytest.raises(DataError, match=said):
        loso(run_config, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def many(sources=6, each=100, seed=0):
    """Sources of one class in turn; scores that tell the classes apart a little."""
    names = [f"s{i}" for i in range(sources) for _ in range(each)]
    positive = [i % 2 == 1 for i in range(sources) for _ in range(each)]
    pool = pool_of(names, positive, np.arange(len(names)) // 2, folds=3)
    return pool, np.random.default_rng(seed).normal(pool.truth, 1)


def test_a_source_is_held_against_the_organic_prompts_of_its_fold():
    pool, scores = many()
    found = {result.source: result for result in results(pool, scores)}
    for source, result in found.items():
        here = pool.sources == source
        beside = pool.held(result.fold) & (pool.truth == 0)
        assert beside.sum() == 100 and not result.pooled and result.n == 100
        over = scores > np.sort(scores[beside])[-2]
        if result.recall:
            assert result.recall.value == over[here].mean() and result.false_positive_rate is None
            assert result.recall.low <= result.recall.value <= result.recall.high
            both = here | beside
            assert result.roc_auc.value == pytest.approx(roc_auc_score(pool.truth[both], scores[both]))
        else:
            assert result.false_positive_rate.value == over[here].mean() == 0.01 and result.roc_auc is None
    shifted = results(pool, scores + 10 * pool.fold)  # what another fold's model would call it does not matter
    for result in shifted:
        assert result.recall == found[result.source].recall
        assert result.false_positive_rate == found[result.source].false_positive_rate
    assert means(shifted)["recall_one_threshold"].value != means(list(found.values()))["recall_one_threshold"].value


def test_small_folds_borrow_the_organic_prompts_of_all():
    pool, scores = many(each=60)
    found = results(pool, scores)
    limit = np.sort(scores[pool.truth == 0])[-2]
    assert all(result.pooled for result in found)
    for result in found:
        if result.recall:
            assert result.recall.value == (scores[pool.sources == result.source] > limit).mean()
            assert result.recall == result.recall_one_threshold
    assert "Fold 1, 2, 3: under 100 organic prompts" in report(found, False)


def test_few_clusters_are_told_one_by_one():
    pool, scores = many()
    here = np.flatnonzero(pool.sources == "s1")
    pool.clusters[here] = np.repeat([7001, 7002, 7003, 7004], 25)
    scores[here] = np.repeat([9, -9, 9, -9], 25)
    scores[here[0]] = -9
    result = next(result for result in results(pool, scores) if result.source == "s1")
    assert (result.recall.low, result.recall.high) == (None, None) and result.recall.note == "0.00, 0.00, 0.96, 1.00"
    assert result.recall.value == pytest.approx(0.49) and result.recall.n == 100
    table = report(results(pool, scores), False)
    assert "0.490: 0.00, 0.00, 0.96, 1.00" in table
    last = next(line for line in table.splitlines() if line.startswith("| mean over sources"))
    assert last.split("|")[4].count(",") == 2  # three sources of positives: each is told


def test_many_sources_have_an_interval_and_one_alike_has_the_exact_one():
    pool, scores = many(sources=24, each=40)
    scores[pool.sources == "s1"] = 99
    found = results(pool, scores)
    assert {"recall", "roc_auc", "false_positive_rate", "recall_one_threshold"} == set(means(found))
    for estimate in means(found).values():
        assert estimate.low < estimate.value < estimate.high and estimate.n == 12
    sure = next(result for result in found if result.source == "s1")
    assert (sure.recall.value, sure.recall.high) == (1, 1) and 0.8 < sure.recall.low < 0.9  # 20 clusters of 20


def test_doubtful_prompts_count_in_no_figure():
    pool, scores = many()
    pool.truth[:10] = -1
    pool.records[10].extra["ambiguous"] = True
    assert results(pool, scores)[0].n == 89
