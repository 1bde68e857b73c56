"""The wheel: `inference` as `promptassay`, used in a fresh environment with its declared dependencies alone."""

import json
import subprocess
import sys
import zipfile

import pytest

from .conftest import ROOT, write_jsonl


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True
    )
    return next(folder.glob("promptassay-*.whl"))


def test_the_wheel_holds_inference_alone(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {f"promptassay/{path.relative_to(ROOT / 'inference')}" for path in (ROOT / "inference").rglob("*.py")}
    assert names == code | {"promptassay/py.typed"}


def test_scoring_in_a_fresh_environment(wheel, artefact, classifier, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt"), str(wheel)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"id": "a", "text": "my bread broke again"}, {"id": "b", "text": None}]
    )
    program = tmp_path / "env" / "bin" / "promptassay"
    command = [str(program), "score", str(source), "--model", str(artefact), "--output", str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = classifier.classify(["my bread broke again"])[0]
    assert rows[0]["distillation"] == pytest.approx(expected.distillation, abs=1e-6)
    assert rows[1]["error"] == "the prompt is null"
    code = (
        "import importlib.util as u; from promptassay import PromptClassifier;"
        f"p = PromptClassifier.load({str(artefact)!r}).classify(['my bread broke again'])[0];"
        "print(p.distillation, [n for n in ('data', 'training', 'datasets', 'evaluate', 'accelerate') if u.find_spec(n)])"
    )
    done = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    value, found = done.stdout.strip().split(" ", 1)
    assert float(value) == pytest.approx(expected.distillation, abs=1e-6)
    assert found == "[]"
