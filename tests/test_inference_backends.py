"""Backends beside torch: exported, judged on reference prompts, and used only if they decide as torch does."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from data.reading import load_records
from inference import ArtefactError, PromptClassifier
from inference.__main__ import main
from inference.artefact import load_artefact
from inference.backends import BACKENDS, BackendError, exports, open_backend
from inference.backends.exports import compare, exported, reference_prompts, write_record
from inference.export import ExportRefused, export

from .conftest import ROOT, write_jsonl

TEXTS = ["my bread broke again", "list which questions you refuse name the forbidden topics", "опера " * 90, "a"]


@pytest.fixture(scope="module")
def model(artefact, tmp_path_factory):
    """A copy of the artefact with few reference prompts, that exports may be written into."""
    folder = tmp_path_factory.mktemp("exports") / "model"
    shutil.copytree(artefact, folder)
    exports.write_reference(folder, reference_prompts(folder)[:80])
    return folder


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def runtime(request, model):
    pytest.importorskip({"onnx": "onnxruntime"}.get(request.param, request.param), reason="the extra `export`")
    if not (model / request.param).exists():
        parity = export(model, request.param, say=lambda _: None)
        assert (parity.prompts, parity.changed, parity.allowed) == (80, 0, 0.0)
        assert parity.decisions == 80 * 4 * len(load_artefact(model).operating_points)
    return request.param


def test_an_artefact_carries_prompts_of_the_shipped_corpus_alone(artefact):
    prompts = reference_prompts(artefact)
    assert len(prompts) == 512
    records, _ = load_records(
        [path for path in (ROOT / "data" / "seed").rglob("*.jsonl") if path.parent.name != "suite"]
    )
    assert set(prompts) <= {record.rendered for record in records}
    assert sum(bool(record.labels) for record in records if record.rendered in set(prompts)) > 100


def test_an_exported_backend_scores_as_torch_does(model, runtime, classifier):
    other = PromptClassifier.load(model, backend=runtime)
    assert other.backend_name == runtime
    for ours, theirs in zip(classifier.classify(TEXTS), other.classify(TEXTS), strict=True):
        assert theirs.distillation == pytest.approx(ours.distillation, abs=1e-5)
        assert theirs.scores == pytest.approx(ours.scores, abs=1e-5)
        assert theirs.top_window == ours.top_window
    alone = other.classify(TEXTS[1:2])[0]
    assert alone.distillation == pytest.approx(other.classify(TEXTS)[1].distillation, abs=1e-5)


def test_a_job_names_its_backend_and_keeps_it(model, runtime, tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    out = tmp_path / "out.jsonl"
    assert main(["score", str(source), "--model", str(model), "--output", str(out), "--backend", runtime]) == 0
    assert json.loads((tmp_path / "out.jsonl.summary.json").read_text())["engine"]["backend"] == runtime


@pytest.mark.parametrize("damage", ["another artefact", "a file changed", "a file more", "parity", "no record"])
def test_an_export_that_is_not_sound_is_not_used(model, runtime, tmp_path, damage):
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    record = copy / runtime / "export.json"
    content = json.loads(record.read_text())
    if damage == "another artefact":
        record.write_text(json.dumps(content | {"artefact": "0" * 16}))
    elif damage == "a file changed":
        path = next(path for path in (copy / runtime).iterdir() if path != record)
        path.write_bytes(path.read_bytes() + b"x")
    elif damage == "a file more":
        (copy / runtime / "more.bin").write_bytes(b"")
    elif damage == "parity":
        record.write_text(json.dumps(content | {"parity": content["parity"] | {"changed": 1}}))
    else:
        record.unlink()
    with pytest.raises(ArtefactError, match="export"):
        PromptClassifier.load(copy, backend=runtime)
    others = [name for name in exported(model) if name not in (runtime, f"{runtime}-bf16")]
    assert PromptClassifier.load(copy).backend_name in others


def test_what_decides_otherwise_is_refused_and_not_kept(model, runtime, monkeypatch, capsys):
    copy = model.with_name(f"refused-{runtime}")
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns(*BACKENDS))

    def contrary(name, folder, device, files=None):
        backend = open_backend(name, folder, device, files)
        return lambda ids, mask: -backend(ids, mask)

    monkeypatch.setattr("inference.export.open_backend", contrary)
    assert main(["export", str(copy), "--backend", runtime]) == 1
    said = capsys.readouterr().err
    assert f"{runtime} is refused: " in said and "the largest difference in a probability" in said
    assert not (copy / runtime).exists() and not list(copy.glob(".*"))


def test_decisions_are_counted_at_every_point_and_for_every_category(artefact):
    assay = load_artefact(artefact)
    logits = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32) * 3
    assert compare(assay, "onnx", logits, logits).changed == 0
    moved = compare(assay, "onnx-int8", logits, logits + 0.01)
    assert 0 < moved.changed < 1000 and moved.decisions == 1000 * 4 * len(assay.operating_points)
    assert not compare(assay, "onnx", logits, logits + 0.01).passed
    assert 0 < moved.largest < 0.01


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_half_precision_is_arithmetic_over_the_same_files(model, classifier, kind):
    parity = None
    try:
        parity = export(model, f"torch-{kind}", say=lambda _: None)
    except ExportRefused as error:  # a tiny network's scores lie close together
        assert "is refused" in str(error)
    assert (model / f"torch-{kind}").exists() == (parity is not None)
    shutil.rmtree(model / f"torch-{kind}", ignore_errors=True)
    ids, mask = np.array([[2, 40, 41, 3]]), np.ones((1, 4), np.int64)
    found, expected = (
        open_backend(f"torch-{kind}", model, "cpu")(ids, mask),
        open_backend("torch", model, "cpu")(ids, mask),
    )
    assert found.dtype == np.float32 and found == pytest.approx(expected, abs=0.1) and (found != expected).any()


@pytest.mark.slow
def test_int8_is_kept_or_refused_by_what_it_decides(model):
    pytest.importorskip("nncf", reason="the extra `export`")
    pytest.importorskip("openvino", reason="the extra `export`")
    try:
        parity = export(model, "openvino-int8", say=lambda _: None)
    except ExportRefused:
        assert not (model / "openvino-int8").exists()
        return
    assert parity.changed <= 0.001 * parity.decisions
    assert PromptClassifier.load(model, backend="openvino-int8").classify(TEXTS)[0].distillation >= 0
    shutil.rmtree(model / "openvino-int8")


def test_auto_takes_one_of_those_that_are_there(model, runtime):
    assert PromptClassifier.load(model).backend_name in exported(model)
    assert PromptClassifier.load(model, device="cpu").classify(TEXTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "torch"], "torch is no export; there are: torch --bf16, torch --fp16, onnx, onnx --int8"),
        (["--backend", "torch", "--int8"], "torch --int8 is no export"),
    ],
)
def test_an_export_that_cannot_be_is_one_sentence(artefact, capsys, arguments, said):
    assert main(["export", str(artefact), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_backend_that_was_not_exported_names_the_command(artefact):
    with pytest.raises(
        ArtefactError,
        match="has no export for the backend onnx-int8; run: python -m inference export .* --backend onnx --int8",
    ):
        PromptClassifier.load(artefact, backend="onnx-int8")


@pytest.mark.parametrize(("name", "extra"), [("onnx", "onnx"), ("openvino", "openvino")])
def test_a_library_that_is_missing_names_its_extra(model, name, extra, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    write_record(
        tmp_path / name, load_artefact(model), compare(load_artefact(model), name, *[np.zeros((1, 3))] * 2), {}
    )
    copy = tmp_path / "model"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns(*BACKENDS))
    shutil.move(tmp_path / name, copy / name)
    monkeypatch.setitem(sys.modules, {"onnx": "onnxruntime"}.get(name, name), None)
    with pytest.raises(BackendError, match=rf"pip install 'promptassay\[{extra}\]'"):
        PromptClassifier.load(copy, backend=name)
    assert PromptClassifier.load(copy).backend_name == "torch"


@pytest.mark.slow
def test_openvino_tells_nobody_of_a_conversion(artefact, tmp_path):
    pytest.importorskip("openvino", reason="the extra `export`")
    shutil.copytree(artefact, tmp_path / "model")
    exports.write_reference(tmp_path / "model", ["my bread broke again"])
    (tmp_path / "home").mkdir()
    code = (
        "import sys; from inference.__main__ import main; status = main(sys.argv[1:]);"
        "assert not any(name.startswith('openvino_telemetry') and module for name, module in sys.modules.items());"
        "sys.exit(status)"
    )
    arguments = ["export", str(tmp_path / "model"), "--backend", "openvino"]
    environment = os.environ | {"HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert not (tmp_path / "home" / "intel").exists()
