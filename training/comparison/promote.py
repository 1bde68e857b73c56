"""What is in use: a folder with a link `current` to an artefact, and `previous` to the one that was there before."""

from __future__ import annotations

import os
from pathlib import Path

from inference.artefact import ASSAY_FILE, ArtefactError, Assay, load_artefact

CURRENT = "current"
PREVIOUS = "previous"


def check_place(folder: Path, champion: Assay, challenger: Assay) -> None:
    """Refuse a folder whose links cannot be swapped, or that holds another artefact in use than what is compared.

    Raises:
        ArtefactError: names what stands there, and the mend.
    """
    if folder.exists() and not folder.is_dir():
        raise ArtefactError(f"{folder}: is a file; --promote-to needs a folder, which may be new")
    if (folder / ASSAY_FILE).exists():
        raise ArtefactError(f"{folder}: is an artefact itself; --promote-to needs a folder for the links")
    for name in (CURRENT, PREVIOUS):
        place = folder / name
        if place.exists() and not place.is_symlink():
            kind = "folder" if place.is_dir() else "file"
            raise ArtefactError(
                f"{place}: is a {kind} and no link, so it cannot be swapped; move it away, and link it: "
                f"ln -s ARTEFACT {place}"
            )
    current = folder / CURRENT
    if current.exists():
        found = load_artefact(current).fingerprint
        if found not in (champion.fingerprint, challenger.fingerprint):
            raise ArtefactError(
                f"{current}: is {found}, and the champion is {champion.fingerprint}; a new artefact is compared with "
                f"the one in use: give {current} as CHAMPION"
            )


def promote(folder: Path, challenger: Path) -> Path:
    """Point `current` at the challenger, and `previous` at what `current` pointed to before.

    Each link is made beside its place and moved into it, which is one step for whoever looks: `current` is there all
    the while. `previous` goes first, so that a kill between the two leaves what is in use in use.

    Args:
        folder: is made where it is not there.
        challenger: the artefact's folder. A link to it is followed now, so that a later swap does not move it.

    Returns:
        `current`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = challenger.resolve()
    current = folder / CURRENT
    if current.is_symlink():
        if current.resolve() == target:
            return current
        # A target that stands relative to the folder still does: both links lie in it.
        _link(folder / PREVIOUS, str(current.readlink()))
    inside = folder.resolve() in target.parents
    _link(current, os.path.relpath(target, folder.resolve()) if inside else str(target))
    return current


def _link(place: Path, target: str) -> None:
    beside = place.with_name(f".{place.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(place)
