"""Seeded mutations of an artefact's folder, of the JSON by its structure and of every file by its bytes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from random import Random
from typing import Any

JSON_FILES = ("assay.json", "config.json", "tokenizer.json", "tokenizer_config.json")
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
RAW = "\x00raw:"
"""Marks a string whose rest is put into the JSON as it stands, since Python would not write it."""

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        100,
        2**31,
        2**63,
        2**64,
        -(2**63),
        10**30,
        10**400,
        0.5,
        -0.5,
        1e-300,
        1e300,
    ),
    *(f"{RAW}NaN", f"{RAW}-Infinity", f"{RAW}1e999", f"{RAW}{'9' * 5000}", f"{RAW}{'[' * 3000}{']' * 3000}"),
    *(
        "",
        "a",
        "a" * 5000,
        "../../etc/passwd",
        "/etc/passwd",
        "\ud800",
        "\x00",
        "\n",
        "é" * 50,
        "kernels-community/flash-attn",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        {"": None},
        [1, 2, 3],
        ["a"] * 100,
        {"type": "Sequence"},
        {"Regex": "(a+)+$"},
        {"String": ""},
    ),
)
KEYS = (
    *(
        "auto_map",
        "quantization_config",
        "attn_implementation",
        "_attn_implementation",
        "transformers_weights",
        "return_dict",
    ),
    *(
        "configuration_files",
        "num_labels",
        "torchscript",
        "is_decoder",
        "use_cache",
        "output_hidden_states",
        "normalizer",
    ),
    *("pre_tokenizer", "truncation", "padding", "dropout", "added_tokens", "type", "num_hidden_layers", "vocab_size"),
    *(
        "max_position_embeddings",
        "chunk_size_feed_forward",
        "tie_word_embeddings",
        "architectures",
        "model_type",
        "dtype",
    ),
)
TYPES = (
    *(
        "bert",
        "roberta",
        "modernbert",
        "deberta-v2",
        "albert",
        "distilbert",
        "t5",
        "llama",
        "gpt2",
        "clip",
        "reformer",
        "no",
    ),
    *(
        "BPE",
        "WordPiece",
        "WordLevel",
        "Unigram",
        "Precompiled",
        "Replace",
        "Split",
        "Metaspace",
        "ByteLevel",
        "FixedLength",
    ),
    *(
        "TemplateProcessing",
        "BertProcessing",
        "Sequence",
        "gelu",
        "relu",
        "tanh",
        "float16",
        "single_label_classification",
    ),
)


def mutate(folder: Path, seed: int) -> str:
    """Change one to three things in the folder, and in half of all cases make the hashes right again; what was done."""
    random = Random(seed)
    done = [_change(folder, random) for _ in range(random.choice((1, 1, 1, 2, 3)))]
    if random.random() < 0.5:
        done.append(rehash(folder))
    return f"seed {seed}: {', '.join(done)}"


def rehash(folder: Path) -> str:
    """Write the hashes of the files that are there into `assay.json`, if that can still be read."""
    path = folder / "assay.json"
    try:
        content = json.loads(path.read_bytes())
        for name in (name for name in MODEL_FILES if (folder / name).is_file()):
            content["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        path.write_text(json.dumps(content))
    except (ValueError, OSError, TypeError, KeyError, RecursionError):
        return "no new hashes"
    return "new hashes"


def _change(folder: Path, random: Random) -> str:
    choice = random.random()
    if choice < 0.04:
        return _put_beside(folder, random)
    name = random.choice((*JSON_FILES, *JSON_FILES, "model.safetensors", "model.safetensors"))
    path = folder / name
    data = path.read_bytes() if path.is_file() else b""
    if name == "model.safetensors" and choice < 0.6:
        data, what = _change_header(data, random)
    elif name != "model.safetensors" and choice < 0.75:
        data, what = _change_json(data, random)
    else:
        data, what = _change_bytes(data, random)
    path.write_bytes(data)
    return f"{name} {what}"


def _put_beside(folder: Path, random: Random) -> str:
    name = random.choice(
        (
            "pytorch_model.bin",
            "modeling.py",
            "x.PKL",
            "adapter_config.json",
            "shard-00001-model-00001-of-00001.safetensors",
        )
    )
    (folder / name).write_bytes(random.choice((b"", b"{}", pickle.dumps(os.getcwd), b"raise SystemExit")))
    return f"{name} beside"


def _change_header(data: bytes, random: Random) -> tuple[bytes, str]:
    length = int.from_bytes(data[:8], "little")
    header, what = _change_json(data[8 : 8 + length], random)
    said = random.choice((len(header), len(header), len(header), length, 2**60, 2**63, 0, len(data)))
    return said.to_bytes(8, "little") + header + data[8 + length :], f"header {what}, said to have {said} bytes"


def _change_json(data: bytes, random: Random) -> tuple[bytes, str]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return _change_bytes(data, random)
    what = _change_value(content, random)
    text = json.dumps(content)
    if random.random() < 0.03:
        text = text.replace("{", '{"type": 1, ', 1).replace("{", '{"type": 2, ', 1)
    return _insert_raw(text).encode(), what


def _insert_raw(text: str) -> str:
    mark = json.dumps(RAW)[:-1]
    while mark in text:
        start = text.index(mark)
        end = text.index('"', start + len(mark))
        text = text[:start] + text[start + len(mark) : end] + text[end + 1 :]
    return text


def _change_value(content: Any, random: Random) -> str:
    """Walk down at random, and change a value there."""
    place, where = content, ""
    while True:
        children = (
            list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        )
        if not children:
            return f"{where} left as it is"
        key = random.choice(children)
        where += f".{str(key)[:40]}"
        if random.random() < 0.35 or not isinstance(place[key], dict | list) or not place[key]:
            break
        place = place[key]
    old = place[key]
    kind = random.choice(("value", "value", "near", "near", "near", "delete", "swap", "key", "type", "repeat"))
    if kind == "value":
        place[key] = random.choice(VALUES)
    elif kind == "near":
        place[key] = _near(old, random)
    elif kind == "delete":
        del place[key]
    elif kind == "swap":
        other = random.choice(children)
        place[key], place[other] = place[other], old
    elif kind == "key" and isinstance(place, dict):
        place[random.choice(KEYS)] = random.choice((*VALUES, *TYPES, old))
    elif kind == "type":
        place[key] = random.choice(TYPES)
    elif isinstance(old, list):
        place[key] = old * random.choice((2, 3, 50)) if len(old) < 1000 else old[: len(old) // 2]
    else:
        place[key] = [old]
    return f"{where} by {kind}"


def _near(value: Any, random: Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice(
            (value + 1, value - 1, value * 2, value // 2, -value, value * 1000, str(value), float(value))
        )
    if isinstance(value, float):
        return random.choice((-value, value * 1e6, value + 1, 0.0, int(value), str(value)))
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return random.choice(
            (value + "x", value[:at], value[:at] + "A" + value[at + 1 :], value.upper(), value * 3, [value])
        )
    return value


def _change_bytes(data: bytes, random: Random) -> tuple[bytes, str]:
    at = random.randrange(len(data) + 1)
    size = random.choice((1, 1, 2, 8, 100, len(data) // 3))
    kind = random.choice(("flip", "flip", "cut", "drop", "insert", "repeat", "empty", "pickle", "fill"))
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 5, 200)) if data else 0):
            changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
        return bytes(changed), kind
    after = {
        "cut": data[:at],
        "drop": data[:at] + data[at + size :],
        "insert": data[:at] + random.randbytes(size) + data[at:],
        "repeat": data[:at] + data[at : at + size] * 2 + data[at + size :],
        "empty": b"",
        "pickle": pickle.dumps(os.getcwd),
        "fill": data[:at] + random.choice((b"\xff", b"\0", b"{", b"[")) * size + data[at + size :],
    }
    return after[kind], f"{kind} at {at}"
