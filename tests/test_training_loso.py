"""Sources left out in turn: each is measured by a model that saw nothing of it, and what is done is kept."""

import json

import pytest

from training.__main__ import main


@pytest.fixture(scope="module")
def config(tmp_path_factory, run_config):
    import yaml

    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(yaml.safe_dump(run_config.model_dump(mode="json")))
    return path


def test_every_source_is_left_out_once_and_done_work_is_kept(config, built, tmp_path, capsys):
    arguments = ["loso", str(config), "--data", str(built), "--out", str(tmp_path), "--folds", "3"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert all(f"made-{n}" in told for n in range(3)) and "mean over sources" in told
    kept = {path: path.read_bytes() for path in sorted((tmp_path / "folds").glob("*.json"))}
    assert len(kept) == 3
    first = (tmp_path / "loso.json").read_bytes()
    assert len(json.loads(first)["sources"]) == 3
    # As if it had been killed before the last fold.
    gone = list(kept)[-1]
    before = {path: path.stat().st_mtime_ns for path in kept}
    gone.unlink()
    assert main(arguments) == 0
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert [path for path in kept if path.stat().st_mtime_ns != before[path]] == [gone]
    assert (tmp_path / "loso.md").read_text().strip() in capsys.readouterr().out
