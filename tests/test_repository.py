"""The shape of the project: who imports whom, what ships, what the README says of it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

ALLOWED = {"inference": set(), "data": {"inference"}, "training": {"inference", "data"}}
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> list[tuple[str, int]]:
    """Top-level names that a file imports, with the level of relative imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [(alias.name.split(".")[0], 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(((node.module or "").split(".")[0], node.level))
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    siblings = {name for name, level in imported(path) if level == 0 and name in {*ALLOWED, "tests"}}
    assert siblings <= ALLOWED[package] | ({package} if package != "inference" else set())


def test_the_import_test_sees_imports():
    assert ("inference", 0) in imported(ROOT / "data" / "records.py")
    assert ("prompts", 1) in imported(ROOT / "inference" / "classifier.py")


def test_scoring_imports_only_its_declared_dependencies():
    declared = {"torch", "transformers", "tokenizers", "numpy", "pyarrow", "tqdm", "upath"}
    brought = {"huggingface_hub", "safetensors"}  # declared too, though transformers needs them anyway
    optional = {
        "captum",
        "nncf",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "openvino",
        "ray",
        "pyspark",
        "apache_beam",
    }  # imported where they are used, each by an extra
    used = {
        name
        for path in (ROOT / "inference").rglob("*.py")
        for name, level in imported(path)
        if level == 0 and name not in sys.stdlib_module_names
    }
    assert used == declared | brought | optional


def test_arguments_are_read_before_anything_heavy_is_imported():
    code = (
        "import sys; from inference.__main__ import parser; parser('x');"
        "print([name for name in ('torch', 'transformers', 'pyarrow') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["inference", "data", "training"])
def test_help_teaches_by_examples(package):
    result = subprocess.run(
        [sys.executable, "-m", package, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"python -m {package}" in result.stdout
    assert "examples:" in result.stdout and "exit status:" in result.stdout


def test_git_does_not_hide_data():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    paths = ["data/seed/organic/new.jsonl", "data/new.py", "inference/new.py"]
    hidden = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True)
    assert hidden.stdout == ""


def test_readme_tree_is_true():
    """Every line of the annotated tree names something that exists, and every file of code stands in it."""
    tree = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S).group(1)
    named, folders = set(), []
    for line in tree.splitlines():
        match = re.match(r"^(\s*)(\S+)", line)
        if not match:
            continue
        depth = len(match[1]) // 2
        folders = [*folders[:depth], match[2].rstrip("/")]
        named.add("/".join(folders))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []
    code = {str(path.relative_to(ROOT)) for path in FILES if path.name not in ("__init__.py", "__main__.py")}
    assert code <= named


def test_every_make_target_is_explained():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M).group(1).split()
    assert all(re.search(rf"^{name}:.*## \S", makefile, re.M) for name in phony)


def test_texts_carry_no_path_of_a_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    home = re.compile(r"/(?:root|home/\w+|work)/")
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".txt", ".html") or path.name == "Makefile":
            assert not home.search(path.read_text(encoding="utf-8").replace("/(?:root|home", "")), name
