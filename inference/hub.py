"""An artefact's folder: a local one, or that of a model repository of the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

import re
from pathlib import Path

from .artefact import ArtefactError

_HUB_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
_UNPINNED = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w.-]+)?")


def artefact_folder(name: str | Path) -> Path:
    """The folder that `name` stands for.

    Args:
        name: a folder, or `OWNER/NAME@COMMIT`: a repository of the hub at a commit of 40 hex digits. What the hub's
            cache holds already is not fetched again, and with `HF_HUB_OFFLINE=1` nothing else is looked for.

    Raises:
        ArtefactError: the revision is not pinned, or the repository cannot be fetched.
    """
    if not isinstance(name, str) or Path(name).exists():
        return Path(name)
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        if _UNPINNED.fullmatch(name) and not Path(name).parent.exists():
            raise ArtefactError(
                f"{name}: no such folder; an artefact of the hub is named with its commit, as OWNER/NAME@COMMIT "
                "(40 hex digits), so that nobody can change what you run"
            )
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # JSON, safetensors and the card: no file of another kind is even fetched.
        folder = snapshot_download(
            match["repository"], revision=match["revision"], allow_patterns=["*.json", "*.safetensors", "README.md"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtefactError(f"{name}: cannot be fetched from the hub ({type(error).__name__}: {error})") from error
    return Path(folder)
