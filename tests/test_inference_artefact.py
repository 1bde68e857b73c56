"""The artefact is complete, checked, and refuses to load when anything in it is off."""

import json
import shutil

import pytest

from inference.artefact import ArtefactError, load_artefact, save_artefact

FILES = {
    "README.md",
    "assay.json",
    "calibration.svg",
    "reference.json",
    "seen.safetensors",
    "config.json",
    "history.json",
    "history.svg",
    "model.safetensors",
    "run.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture
def copy(artefact, tmp_path):
    return shutil.copytree(artefact, tmp_path / "copy")


def edit(folder, change):
    path = folder / "assay.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_exact_file_set(artefact):
    assert {path.name for path in artefact.iterdir()} == FILES


def test_contract_of_the_assay(artefact):
    content = json.loads((artefact / "assay.json").read_text())
    assert content["labels"] == ["reasoning_trace_extraction", "censorship_probing", "capability_sweep"]
    config = json.loads((artefact / "config.json").read_text())
    assert [config["id2label"][str(i)] for i in range(3)] == content["labels"]
    assert set(content["operating_points"]) == {"fpr-5pct", "balanced"}  # 72 organic prompts carry no 1 %
    assert content["default_operating_point"] == "fpr-5pct"
    for point in content["operating_points"].values():
        assert set(point["thresholds"]) == {*content["labels"], "distillation"}
        assert point["false_positives"] <= point["n_organic"]
        assert point["fpr_low"] <= point["false_positives"] / point["n_organic"] <= point["fpr_high"]
    assert content["versions"]["torch"] and content["provenance"]["data_fingerprint"]
    assert content["metrics"]["distillation"]["roc_auc"]["value"] > 0.9


def test_the_fingerprint_follows_content_and_not_metrics(copy):
    before = load_artefact(copy).fingerprint
    edit(copy, lambda content: content.update(metrics={}))
    assert load_artefact(copy).fingerprint == before
    edit(copy, lambda content: content["operating_points"]["balanced"]["thresholds"].update(distillation=0.5))
    assert load_artefact(copy).fingerprint != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("labels"), "labels is missing"),
        (lambda c: c.update(labels=["a", "a"]), "labels has a value that cannot be"),
        (lambda c: c.update(labels=[1, 2]), "labels has a value that cannot be"),
        (lambda c: c.update(schema_version=99), "schema_version is 99"),
        (lambda c: c.update(render_version=99), "render_version is not 1"),
        (lambda c: c.update(pooling="max"), "pooling is not"),
        (lambda c: c["windows"].update(size=10**9), r"windows\.size has a value"),
        (lambda c: c["windows"].update(size=True), r"windows\.size has a value"),
        (lambda c: c["windows"].update(overlap=63), r"windows\.overlap has a value"),
        (lambda c: c["calibration"].pop("distillation"), r"calibration\.distillation is missing"),
        (lambda c: c["calibration"]["distillation"].update(slope=float("nan")), "NaN is no number of JSON"),
        (lambda c: c["calibration"]["distillation"].update(slope=1e7), r"distillation\.slope has a value"),
        (lambda c: c["operating_points"]["balanced"].update(false_positives=10**6), "false_positives has a value"),
        (lambda c: c["operating_points"].clear(), "operating_points holds none"),
        (lambda c: c["operating_points"].update(balanced=[]), r"operating_points\.balanced has a value"),
        (lambda c: c.update(abstention=None), "abstention has a value"),
        (lambda c: c.update(files={"config.json": 3}), "files has a value"),
    ],
)
def test_a_broken_assay_names_file_and_field(copy, change, message):
    edit(copy, change)
    with pytest.raises(ArtefactError, match=message) as caught:
        load_artefact(copy)
    assert str(copy / "assay.json") in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 10000])
def test_an_assay_that_is_no_object_is_refused(copy, text):
    (copy / "assay.json").write_text(text)
    with pytest.raises(ArtefactError, match="assay.json"):
        load_artefact(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_changed_or_missing_file_is_refused(copy, name):
    with (copy / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(ArtefactError, match=f"{name}: differs"):
        load_artefact(copy)
    (copy / name).unlink()
    with pytest.raises(ArtefactError, match=f"{name}: missing"):
        load_artefact(copy)


def test_no_folder_and_no_artefact_say_so(tmp_path):
    with pytest.raises(ArtefactError, match="no such folder"):
        load_artefact(tmp_path / "none")
    with pytest.raises(ArtefactError, match="not a promptassay artefact"):
        load_artefact(tmp_path)


def test_an_artefact_is_never_written_over(artefact):
    with pytest.raises(ArtefactError, match="exists already"):
        save_artefact(artefact, load_artefact(artefact), lambda folder: None, "")


def test_an_unknown_operating_point_says_how_to_get_it(artefact):
    with pytest.raises(ArtefactError, match='no operating point "fpr-0.1pct"; it has: fpr-5pct, balanced'):
        load_artefact(artefact).point("fpr-0.1pct")
