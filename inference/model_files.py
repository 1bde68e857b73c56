"""An artefact's model files, checked before a library reads them: an artefact may come from anybody.

What is checked here needs no library: what kind of files lie there, hashes, sizes and shapes. The tokenizer is checked
in `tokenizer_file`, and the network is held against its weights in `backends.pytorch`. Links are followed, since the
hub's cache is made of them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from .fields import ArtefactError, Fields, parse_json, read_object

MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
ENCODERS = frozenset(
    """albert bert camembert convbert data2vec-text deberta deberta-v2 distilbert electra ernie eurobert gemma gemma2
    gemma3_text gte jina_embeddings_v3 llama megatron-bert mistral modernbert modernbert-decoder mpnet nomic_bert qwen2
    qwen3 rembert roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl""".split()  # noqa: SIM905
)
"""Kinds of network (`model_type`) whose sizes all follow from their weights, but for the number of layers."""

EXECUTES = frozenset(".bin .ckpt .dll .h5 .joblib .keras .pickle .pkl .pt .pth .py .pyc .sh .so".split())  # noqa: SIM905
_BESIDE = re.compile(r"adapter_config\.json|shard-.*\.safetensors|.*\.safetensors\.index\.json|config\..*\.json")
"""Files that transformers reads beside or in place of the model files, whose hashes nobody has."""
_NAMES_OTHER_CODE = frozenset(
    """attn_implementation _attn_implementation _attn_implementation_internal auto_map configuration_files
    custom_pipelines distributed_config experts_implementation _experts_implementation _experts_implementation_internal
    fusion_config gguf_file kernel_config per_layer_config quantization_config transformers_weights""".split()  # noqa: SIM905
)
"""Fields by which transformers is led to other files, or to code from elsewhere."""

_MOST_LAYERS = 256
_MOST_BYTES = 1 << 35
_MOST_HEADER = 1 << 24
_BLOCK = 1 << 20
_FLOATS: dict[str, tuple[np.dtype[np.unsignedinteger[Any]], int]] = {
    "F32": (np.dtype("<u4"), 0x7F800000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
}
"""Number types of weights: unsigned integers of the same width, and the exponent bits, all set in NaN and infinity."""
_PADS_FIRST = frozenset("camembert data2vec-text mpnet roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl".split())  # noqa: SIM905
"""Networks that count positions from the padding token's number on."""

Shapes = Mapping[str, tuple[int, ...]]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_model_files(folder: Path, hashes: Mapping[str, str], labels: Sequence[str], window: int) -> None:
    """Check that an artefact's folder holds sound model files, and nothing that could be read in their place.

    Args:
        folder: the artefact.
        hashes: SHA-256 of each of `MODEL_FILES`, as it was saved.
        labels: what the network's outputs stand for, in order.
        window: tokens that the network must be able to read at once.

    Raises:
        ArtefactError: names the file, the field and the mend.
    """
    try:
        _check_names(folder)
        for name in MODEL_FILES:
            _check_size(folder / name)
            if name != "model.safetensors":
                _compare(folder / name, file_hash(folder / name), hashes)
        path = folder / "model.safetensors"
        try:
            digest, shapes = read_weights(path)
        except ArtefactError:
            _compare(path, file_hash(path), hashes)  # that it is not the file that was saved tells more
            raise
        _compare(path, digest, hashes)
    except OSError as error:
        why = f"cannot be read ({error.strerror or error}); copy the whole artefact folder again"
        raise ArtefactError(f"{error.filename or folder}: {why}") from error
    _check_config(read_object(folder / "config.json"), shapes, labels, window)
    tokenizer = read_object(folder / "tokenizer_config.json")
    if "auto_map" in tokenizer:
        raise tokenizer.fault("auto_map", "names code, and an artefact runs none")


def _check_names(folder: Path) -> None:
    for path in folder.iterdir():
        if path.suffix.lower() in EXECUTES:
            raise ArtefactError(
                f"{path}: may hold code, and an artefact is made of safetensors and JSON alone; remove it"
            )
        if _BESIDE.fullmatch(path.name):
            raise ArtefactError(f"{path}: would be read beside the model that was saved, or in its place; remove it")


def _check_size(path: Path) -> None:
    if not path.exists():
        raise ArtefactError(f"{path}: missing; copy the whole artefact folder again")
    if not path.is_file():
        raise ArtefactError(f"{path}: is no file; copy the whole artefact folder again")
    if path.stat().st_size > _MOST_BYTES:
        raise ArtefactError(f"{path}: is over {_MOST_BYTES >> 30} GiB; copy the whole artefact folder again")


def _compare(path: Path, digest: str, hashes: Mapping[str, str]) -> None:
    if digest != hashes.get(path.name):
        raise ArtefactError(f"{path}: differs from what was saved; copy the whole artefact folder again")


def read_weights(path: Path) -> tuple[str, Shapes]:
    """The SHA-256 of a safetensors file of weights, and the shape of each; the file is read once.

    Raises:
        ArtefactError: it is broken, or a weight is not a finite number.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(_MOST_HEADER, size - 8):
            raise _broken(path, "has no header of its size")
        header = stream.read(length)
        digest.update(prefix + header)
        try:
            tensors = parse_json(header)
            shapes = _tensors(path, tensors, size - 8 - length)
        except (ValueError, RecursionError) as error:
            raise error if isinstance(error, ArtefactError) else _broken(path, "has a broken header") from error
        for name, shape in shapes.items():
            integer, exponent = _FLOATS[tensors[name]["dtype"]]
            for block in _blocks(stream, math.prod(shape) * integer.itemsize):
                digest.update(block)
                bits = np.frombuffer(block[: len(block) // integer.itemsize * integer.itemsize], dtype=integer)
                if ((bits & exponent) == exponent).any():
                    raise _broken(path, f"holds a number that is not finite in {name[:100]!r}")
    return digest.hexdigest(), shapes


def _tensors(path: Path, header: Any, size: int) -> Shapes:
    """Shapes by name, in the order in which the tensors lie in the file; they must fill it without a gap."""
    fields = Fields(path, header)
    found = []
    for name in fields.names():
        if name == "__metadata__":
            continue
        tensor = fields.inside(name)
        kind = tensor.value("dtype", str, _FLOATS.__contains__)
        shape = tensor.value("shape", list, lambda v: len(v) <= 8 and all(type(n) is int and 0 <= n < 2**40 for n in v))
        begin, end = tensor.value("data_offsets", list, lambda v: len(v) == 2 and all(type(n) is int for n in v))
        if end - begin != math.prod(shape) * _FLOATS[kind][0].itemsize:
            raise tensor.fault("data_offsets", "do not fit the shape")
        found.append((begin, end, name, tuple(shape)))
    found.sort()
    ends = [0, *(end for _, end, _, _ in found)]
    if [begin for begin, *_ in found] != ends[:-1] or ends[-1] != size:
        raise _broken(path, "is cut off, or its tensors overlap or leave gaps")
    return {name: shape for _, _, name, shape in found}


def _blocks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (block := stream.read(min(size, _BLOCK))):
        size -= len(block)
        yield block


def _broken(path: Path, why: str) -> ArtefactError:
    return ArtefactError(f"{path}: {why}; copy the whole artefact folder again, or train again")


def _check_config(config: Fields, shapes: Shapes, labels: Sequence[str], window: int) -> None:
    for name in config.names():
        if name in _NAMES_OTHER_CODE and name in config:
            raise config.fault(name, "leads to other files or code, and an artefact needs none")
    kind = config.value("model_type", str)
    if kind not in ENCODERS:
        raise config.fault("model_type", f"is none that promptassay knows: {', '.join(sorted(ENCODERS))}")
    outputs = config.value("id2label", dict)
    if outputs != {str(i): label for i, label in enumerate(labels)}:
        raise config.fault("id2label", f"differs from the labels of assay.json ({', '.join(labels)})")
    vocabulary = config.integer("vocab_size", 1, 2**24)
    pad = config.integer("pad_token_id", 0, vocabulary - 1) if "pad_token_id" in config else 0
    for name, value in config.content().items():
        if type(value) is int and not abs(value) < 2**31:
            raise config.fault(name, f"is out of range ({str(value)[:40]})")
        if type(value) is int and re.search("layer|group", name) and not 0 <= value <= _MOST_LAYERS:
            raise config.fault(name, f"is not between 0 and {_MOST_LAYERS}")
    positions = [shape[0] for name, shape in shapes.items() if name.endswith(".position_embeddings.weight") and shape]
    needed = window + (pad + 1 if kind in _PADS_FIRST else 0)
    if min(positions, default=needed) < needed:
        raise config.fault(
            "max_position_embeddings", f"allows {min(positions)} positions, and the windows of assay.json need {needed}"
        )
