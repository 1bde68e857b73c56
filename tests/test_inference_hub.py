"""An artefact of the hub: from a cache of the hub's own layout, at a pinned commit, with no network."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from inference import PromptClassifier
from inference.artefact import ArtefactError

from .conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(artefact, tmp_path):
    """A cache as `huggingface_hub` lays it out: blobs, and a snapshot of links to them."""
    repository = tmp_path / "models--some--assay"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(artefact.iterdir())):
        if path.is_file():
            blob = repository / "blobs" / f"{number:040x}"
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return tmp_path


def test_an_artefact_of_the_hub_is_loaded_from_its_cache(artefact, classifier, cache):
    code = (
        "import sys, json; from inference import PromptClassifier\n"
        "classifier = PromptClassifier.load(sys.argv[1])\n"
        "print(json.dumps([classifier.assay.fingerprint, classifier.classify(['my bread broke again'])[0].to_dict()]))"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, f"some/assay@{COMMIT}"], cwd=ROOT, env=environment, capture_output=True, check=True)  # fmt: skip
    fingerprint, prediction = json.loads(done.stdout)
    assert fingerprint == classifier.assay.fingerprint
    expected = classifier.classify(["my bread broke again"])[0]
    assert prediction["distillation"] == pytest.approx(expected.distillation, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some/assay", "named with its commit"),
        ("some/assay@main", "named with its commit"),
        (f"some/other@{COMMIT}", "cannot be fetched from the hub"),
        ("no/such/folder", "no such folder"),
    ],
)
def test_what_is_not_pinned_or_not_there_is_one_sentence(name, message):
    with pytest.raises(ArtefactError, match=message):
        PromptClassifier.load(name)
