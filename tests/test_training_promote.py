"""The links to what is in use: swapped in one stroke, the former one kept, nothing swept away."""

from dataclasses import replace

import pytest

from inference.artefact import ArtefactError, load_artefact
from training.comparison.promote import check_place, promote


@pytest.fixture
def models(tmp_path):
    """Three folders that stand for artefacts, two of them inside the folder of the links."""
    for name in ("models/one", "models/two", "far/three"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "models"


def links(folder):
    return {path.name: str(path.readlink()) for path in folder.iterdir() if path.is_symlink()}


def test_the_former_one_is_kept(models, tmp_path):
    assert promote(models, models / "one") == models / "current"
    assert links(models) == {"current": "one"}
    promote(models, models / "two")
    assert links(models) == {"current": "two", "previous": "one"}
    promote(models, tmp_path / "far" / "three")
    assert links(models) == {"current": str(tmp_path / "far" / "three"), "previous": "two"}
    promote(models, tmp_path / "far" / "three")  # it is in use already: the former one stays the former one
    assert links(models)["previous"] == "two"
    promote(models, models / "previous")  # back again; the link is followed before it moves
    assert links(models) == {"current": "two", "previous": str(tmp_path / "far" / "three")}
    assert sorted(path.name for path in models.iterdir()) == ["current", "one", "previous", "two"]


def test_links_inside_move_with_their_folder(models, tmp_path):
    promote(models, models / "one")
    models.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "current").resolve() == tmp_path / "moved" / "one"


def test_a_folder_is_made_and_leftovers_do_not_matter(models, tmp_path):
    promote(tmp_path / "new" / "place", models / "one")
    assert (tmp_path / "new" / "place" / "current").resolve() == models / "one"
    (models / ".current.new").symlink_to("nowhere")  # of a run that was killed
    (models / "current").symlink_to("gone")
    promote(models, models / "two")
    assert links(models) == {"current": "two", "previous": "gone"}


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_between_the_links_leaves_one_in_use(models, monkeypatch, at):
    promote(models, models / "one")
    done = []
    replace_ = type(models).replace

    def killed(path, target):
        done.append(target)
        if len(done) == at:
            raise KeyboardInterrupt
        return replace_(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(type(models), "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(models, models / "two")
    assert (models / "current").resolve() == models / "one"
    promote(models, models / "two")
    assert links(models) == {"current": "two", "previous": "one"}


def test_current_is_there_all_the_while(models):
    """Whoever opens it again and again never finds it missing."""
    import threading

    promote(models, models / "one")
    missing, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            if not (models / "current").is_dir():
                missing.append(1)

    looker = threading.Thread(target=look)
    looker.start()
    for n in range(200):
        promote(models, models / ("two" if n % 2 else "one"))
    stop.set()
    looker.join()
    assert not missing


def test_what_cannot_be_swapped_is_refused(artefact, tmp_path):
    assay = load_artefact(artefact)
    other = replace(assay, positive_share=0.123)
    third = replace(assay, positive_share=0.456)
    check_place(tmp_path / "new", assay, other)
    for name in ("current", "previous"):
        folder = tmp_path / f"folder-{name}"
        (folder / name).mkdir(parents=True)
        with pytest.raises(ArtefactError, match=f"{name}: is a folder and no link"):
            check_place(folder, assay, other)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="is a file; --promote-to needs a folder"):
        check_place(tmp_path / "file", assay, other)
    with pytest.raises(ArtefactError, match="is an artefact itself"):
        check_place(artefact, assay, other)
    models = tmp_path / "models"
    models.mkdir()
    (models / "current").symlink_to(artefact)
    check_place(models, assay, other)
    check_place(models, other, assay)  # the challenger is in use already
    with pytest.raises(ArtefactError, match="compared with the one in use"):
        check_place(models, other, third)
    (models / "current").unlink()
    (models / "current").symlink_to("gone")
    check_place(models, other, third)
