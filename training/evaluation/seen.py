"""Which prompts an artefact has seen: what it was fitted on says nothing of how it does elsewhere.

An artefact carries `seen.safetensors`: for each split that shaped it, 64 bits of the hash of every prompt, sorted. Who
holds the file and a prompt can tell whether that prompt was there; nobody can read a prompt from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from data.records import Record
from inference.artefact import ArtefactError

SEEN_FILE = "seen.safetensors"


def prompt_hash(key: str) -> int:
    """64 bits of a key (`data.records.prompt_key`): equal for prompts that read alike."""
    return int(key[:16], 16) - (1 << 63)


def write_seen(folder: Path, splits: Mapping[str, Iterable[int]]) -> None:
    """Note in an artefact the hashes of all prompts of each split that shaped it, beside those noted before."""
    noted = load_file(folder / SEEN_FILE) if (folder / SEEN_FILE).is_file() else {}
    hashes = {name: np.array(sorted(set(found)), np.int64) for name, found in splits.items()}
    temporary = folder / f"{SEEN_FILE}.writing"
    save_file(noted | hashes, temporary)
    temporary.replace(folder / SEEN_FILE)


def seen_in(folder: Path, records: Sequence[Record]) -> dict[str, np.ndarray] | None:
    """Who of the records shaped the artefact: for each split that it names, a mask `[n]`.

    Returns:
        None where the artefact does not say what it has seen.

    Raises:
        ArtefactError: the file is broken.
    """
    path = folder / SEEN_FILE
    if not path.is_file():
        return None
    try:
        noted = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{path}: cannot be read; copy the whole artefact folder again") from error
    own = np.array([prompt_hash(record.key) for record in records], np.int64)
    return {name: np.isin(own, hashes) for name, hashes in noted.items()}
