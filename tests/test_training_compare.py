"""Champion against challenger: who is promoted, who is refused and why."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import yaml

from inference import PromptClassifier
from inference.artefact import Platt, load_artefact, save_artefact
from training.__main__ import main
from training.train import train

from .conftest import ORGANIC, POSITIVE, TOPICS, labelled_rows, write_jsonl

FILES = {"comparison.html", "comparison.json"}


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """240 prompts of the kinds that the artefacts know, none of which they have seen."""
    rows = []
    for n in range(1000, 1240):
        words = [TOPICS[digit % 16] for digit in hashlib.sha256(str(n).encode()).digest()[:5]]
        label = list(POSITIVE)[n // 2 % 3] if n % 2 else None
        text = (POSITIVE[label] if label else ORGANIC).format(**dict(zip("abcde", words, strict=True)), n=n - 900)
        labels = [label] if label else []
        rows.append({"text": text, "labels": labels, "source": "new", "id": f"row-{n}", "group": f"g{n}"})
    return write_jsonl(tmp_path_factory.mktemp("unseen") / "unseen.jsonl", rows)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def organic_scores(folder, unseen):
    """The artefact's probabilities for the organic prompts, by text, the lowest first."""
    texts = [row["text"] for row in read(unseen) if not row["labels"]]
    predictions = PromptClassifier.load(folder).classify(texts)
    return dict(sorted(zip(texts, (one.distillation for one in predictions), strict=True), key=lambda pair: pair[1]))


def copy_of(artefact, folder, **changes):
    """The same weights in another artefact."""

    def write_model(target):
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "seen.safetensors"):
            shutil.copy(artefact / name, target / name)
        if "labels" in changes:
            content = json.loads((target / "config.json").read_text())
            content["id2label"] = dict(enumerate(changes["labels"]))
            (target / "config.json").write_text(json.dumps(content))

    save_artefact(folder, replace(load_artefact(artefact), **changes), write_model, "a copy")
    return folder


def keeping_its_rate(artefact, folder, unseen, **changes):
    """A copy that flags 6 of the 120 organic prompts: tiny networks differ from machine to machine, this does not."""
    loose = copy_of(artefact, folder.with_name("loose"), **changes)
    limit = list(organic_scores(loose, unseen).values())[-6]
    point = load_artefact(artefact).operating_points["fpr-5pct"]
    point = replace(point, thresholds=point.thresholds | {"distillation": limit})
    return copy_of(loose, folder, operating_points={"fpr-5pct": point})


@pytest.fixture(scope="module")
def strong(tmp_path_factory, artefact, unseen):
    """An artefact that tells the prompts apart."""
    return keeping_its_rate(artefact, tmp_path_factory.mktemp("strong") / "model", unseen)


@pytest.fixture(scope="module")
def weak(tmp_path_factory, run_config, unseen):
    """An artefact that has hardly learnt anything, and whose probabilities are far off."""
    folder = tmp_path_factory.mktemp("weak")
    fit = run_config.fit.model_copy(update={"epochs": 1, "learning_rate": 1e-5})
    train(run_config.model_copy(update={"fit": fit}), folder / "trained")
    calibration = load_artefact(folder / "trained").calibration
    off = calibration | {"distillation": Platt(max(calibration["distillation"].slope, 0.1), 2.0)}
    return keeping_its_rate(folder / "trained", folder / "model", unseen, calibration=off)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, unseen):
    """The same prompts, and 25 distillation-style ones of which the artefacts have seen most."""
    return write_jsonl(tmp_path_factory.mktemp("mixed") / "mixed.jsonl", [*read(unseen), *labelled_rows()[1:50:2]])


def run(*arguments, out):
    return main(["compare", *map(str, arguments), "--out", str(out)])


def compare(*arguments, out):
    return run(*arguments, "--no-suite", out=out)


def content(out):
    assert {path.name for path in out.iterdir()} == FILES
    return json.loads((out / "comparison.json").read_text()), (out / "comparison.html").read_text()


def test_a_better_artefact_takes_the_place_and_a_worse_one_does_not(strong, weak, mixed, tmp_path, capsys):
    models = tmp_path / "models"
    models.mkdir()
    (models / "current").symlink_to(weak)
    options = ("--promote-to", models, "--allow-seen")
    assert compare(models / "current", strong, mixed, *options, out=tmp_path / "compared") == 0
    assert (models / "current").resolve() == strong.resolve()
    assert (models / "previous").resolve() == weak.resolve()
    told = capsys.readouterr().out
    assert told.startswith("PROMOTE: no worse in any of ") and "area under ROC" in told.splitlines()[0]
    assert f"{models / 'current'} now points at {strong}" in told
    found, page = content(tmp_path / "compared")
    assert found["verdict"] == "promote" and found["headline"] in told
    assert found["champion"]["path"] == str(weak.resolve())  # not the link, which points elsewhere by now
    assert all(check["low"] is None or check["low"] <= check["high"] for check in found["checks"])
    assert "SEEN: the champion was shaped by records" in page and found["challenger"]["seen"]["train"] > 0

    assert compare(models / "current", weak, mixed, *options, out=tmp_path / "again") == 1
    assert (models / "current").resolve() == strong.resolve()
    found, page = content(tmp_path / "again")
    assert found["verdict"] == "refuse"
    assert any(reason.startswith("recall at 5 % false positives: not shown") for reason in found["reasons"])
    told = capsys.readouterr().out
    assert told.startswith("REFUSE: ") and "now points" not in told
    assert all(reason in told for reason in found["reasons"])


def test_the_page_needs_nothing_beside_it_and_prompts_are_private(strong, weak, unseen, tmp_path):
    rows = [row | {"text": row["text"] + " <script>", "source": "<b>loud</b>"} for row in read(unseen)]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    compare(weak, strong, data, out=tmp_path / "hidden")
    compare(weak, strong, data, "--show-text", out=tmp_path / "shown")
    found, page = content(tmp_path / "hidden")
    assert "src=" not in page and "href=" not in page and "<script" not in page and "<b>" not in page
    assert not any(row["text"][:30] in page + json.dumps(found) for row in rows)
    assert not any(side["seen"] for side in (found["champion"], found["challenger"])) and "SEEN" not in page
    open_, page = content(tmp_path / "shown")
    assert open_["flips"] and all(flip["text"][:30] in page for flip in open_["flips"][:200])
    assert "&lt;script&gt;" in page and "<script" not in page
    changes = [abs(flip["champion"] - flip["challenger"]) for flip in found["flips"]]
    assert changes == sorted(changes, reverse=True)
    for flip in found["flips"]:
        assert (flip["direction"] == "good") == ((flip["flagged_by"] == "challenger") == (flip["truth"] != "organic"))
    assert sum(found["flip_counts"].values()) == len(found["flips"])


def test_artefacts_that_do_the_same_are_refused_for_it(strong, unseen, tmp_path, capsys):
    same = copy_of(strong, tmp_path / "same", provenance={"made": "again"})
    (same / "seen.safetensors").unlink()
    assert compare(strong, same, unseen, out=tmp_path / "out") == 1
    assert "give every prompt the same probability" in capsys.readouterr().out.splitlines()[0]
    found, _ = content(tmp_path / "out")
    assert not found["flips"] and not [check for check in found["checks"] if check["decided"] == "fail"]
    assert any("the challenger does not say what it has seen" in note for note in found["notes"])


def test_a_rate_without_support_is_reported_and_never_invented(strong, weak, unseen, tmp_path):
    compare(weak, strong, unseen, out=tmp_path)
    checks = {check["name"]: check for check in content(tmp_path)[0]["checks"]}
    none = checks["recall at 0.1 % false positives"]
    assert none["decided"] == "reported" and none["champion"] is none["difference"] is none["low"] is none["p"] is None
    assert "needs 3,000 organic prompts, and 120 are there" in none["why"]
    few = checks["recall at 1 % false positives"]
    assert few["decided"] == "reported" and few["challenger"] is not None
    assert checks["recall at 5 % false positives"]["decided"] == "pass"
    assert "gain in recall at 1 % false positives" not in checks


def test_must_pass_capabilities(strong, weak, unseen, tmp_path, capsys):
    suite = tmp_path / "suite"
    suite.mkdir()
    told = {"kind": "decision", "area": "basics", "what": "It is flagged."}
    listed = [{"name": "calm", "must_pass": True, **told}, {"name": "odd", **told}]
    (suite / "capabilities.yaml").write_text(yaml.safe_dump({"capabilities": listed}))
    # Organic prompts, told to be none: one artefact flags everything and so passes, the better one does not.
    calm = list(organic_scores(strong, unseen))[:12]
    for name in ("calm", "odd"):
        write_jsonl(suite / f"{name}.jsonl", [{"text": text, "labels": ["capability_sweep"]} for text in calm])
    point = load_artefact(weak).point()
    flags_all = {"fpr-5pct": replace(point, thresholds=dict.fromkeys(point.thresholds, 0.0))}
    eager = copy_of(weak, tmp_path / "eager", operating_points=flags_all)
    assert run(eager, strong, unseen, "--suite", suite, out=tmp_path / "out") == 1
    failed = {check["name"]: check for check in content(tmp_path / "out")[0]["checks"] if check["decided"] == "fail"}
    assert failed.keys() == {"must-pass tests together", "capability calm"}
    assert failed["capability calm"]["adjusted_p"] == pytest.approx(0.5**12)
    assert "12 of 12 tests passed, now 0" in capsys.readouterr().out
    (suite / "capabilities.yaml").write_text(yaml.safe_dump({"capabilities": listed[1:]}))
    assert run(eager, strong, unseen, "--suite", suite, out=tmp_path / "out") == 0
    assert "names no must-pass capability" in (tmp_path / "out" / "comparison.html").read_text()


@pytest.fixture
def refused(strong, weak, tmp_path, capsys):
    """What a comparison that cannot be made says, and its exit status; it leaves nothing."""

    def refused(data, *options, champion=weak, challenger=strong):
        out = tmp_path / "out"
        status = compare(champion, challenger, data, *options, out=out)
        assert not out.exists()
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return status, told.out + told.err

    return refused


def test_artefacts_that_cannot_be_compared(strong, refused, unseen, tmp_path):
    status, told = refused(unseen, champion=strong)
    assert status == 2 and "are the same artefact" in told
    two = copy_of(strong, tmp_path / "two", labels=load_artefact(strong).labels[:2])
    status, told = refused(unseen, challenger=two)
    assert status == 2 and "artefacts of different labels answer different questions" in told
    status, told = refused(unseen, champion=tmp_path / "nowhere")
    assert status == 2 and "no such folder" in told
    for margin in ("-0.1", "1", "nan"):
        status, told = refused(unseen, f"--margin={margin}")
        assert status == 2 and "a share from 0 to under 1" in told


def test_what_was_seen_is_refused_or_dropped(strong, weak, built, refused, mixed, tmp_path):
    status, told = refused(built, "--split", "train")
    assert status == 2 and "has seen" in told and "--drop-seen" in told and "--allow-seen" in told
    status, told = refused(built, "--split", "train", "--drop-seen")
    assert status == 2 and "there is nothing to measure on" in told
    assert compare(weak, strong, mixed, "--drop-seen", out=tmp_path / "dropped") == 0
    counts = content(tmp_path / "dropped")[0]["counts"]
    assert counts["organic"] == 120 and 120 <= counts["distillation"] < 140  # the test split's were seen by neither


def test_data_that_cannot_tell(refused, unseen, tmp_path):
    rows = read(unseen)
    organic = [row for row in rows if not row["labels"]]
    positive = [row for row in rows if row["labels"]]

    def told_of(some, *options):
        return refused(write_jsonl(tmp_path / "some.jsonl", some), *options)

    status, told = told_of(organic)
    assert status == 2 and "all 120 records are organic; a comparison needs organic and distillation-style" in told
    status, told = told_of(positive)
    assert status == 2 and "all 120 records are distillation-style" in told
    status, told = told_of(rows[:10])
    assert status == 2 and "5 organic and 5 distillation-style records cannot tell two artefacts apart" in told
    status, told = told_of([row | {"ambiguous": True} for row in organic[:30]] + organic[30:] + positive)
    assert status == 2 and "90 organic and 120 distillation-style records (30 ambiguous left out)" in told
    status, told = told_of([row | {"ambiguous": True} for row in rows])
    assert status == 2 and "all 240 records are of unknown truth or ambiguous" in told
    status, told = told_of([row | {"group": "one account"} for row in organic] + positive)
    assert status == 2 and "the organic records fall into 1 clusters" in told
    status, told = told_of([{"text": "how long do I boil an egg"}, *rows])
    assert status == 1 and "some.jsonl:1: has no labels" in told and "nothing was measured" in told
    status, told = told_of([rows[0] | {"labels": ["reasoning"]}, *rows[1:]])
    assert status == 1 and '"reasoning" is unknown' in told
    status, told = told_of(rows, "--exclude", "source=new")
    assert status == 2 and "no records are left" in told
