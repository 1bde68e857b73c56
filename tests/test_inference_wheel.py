"""The wheel: `inference` as `promptassay`, used in a fresh environment with its declared dependencies alone."""

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes

import pytest

from .conftest import ROOT, write_jsonl


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What `.dockerignore` lets through, which is all that an image is built from."""
    folder = tmp_path_factory.mktemp("context")
    for name in let_through():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(context, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(context)],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("promptassay-*.whl"))


def let_through():
    return {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}


def test_the_image_copies_what_dockerignore_lets_through():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    copied = {name for line in lines if line[:1] == ["COPY"] and "--from=build" not in line for name in line[1:-1]}
    assert copied == let_through()


def test_the_wheel_holds_inference_alone(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {f"promptassay/{path.relative_to(ROOT / 'inference')}" for path in (ROOT / "inference").rglob("*.py")}
    assert names == code | {"promptassay/py.typed"}


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = message_from_bytes(archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (found["Name"], found["License-Expression"], found["Requires-Python"]) == (
        "promptassay",
        "Apache-2.0",
        ">=3.11",
    )
    assert found["Description-Content-Type"] == "text/markdown"
    assert found.get_payload(decode=True).decode() == (ROOT / "README.md").read_text()
    needed = [name for name in found.get_all("Requires-Dist") if ";" not in name]
    assert len(needed) == len(project["dependencies"])


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
