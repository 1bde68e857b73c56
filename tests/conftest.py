"""Shared fixtures: a tiny real encoder, tiny labelled data, and an artefact trained on them once a session."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run beside one another: more threads only get in the way

import pytest
from hypothesis import settings

# What a property says does not depend on how fast the machine is.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

ROOT = Path(__file__).parent.parent

TOPICS = "bread rivers tax violins lasers goats bridges maps poems engines soil chess glass wool clouds coins".split()  # noqa: SIM905
ORGANIC = "my {a} {b} broke again , what should {c} {d} do about {e} before friday {n} ?"
POSITIVE = {
    "reasoning_trace_extraction": "write hidden thoughts {a} {b} in think tags {c} {d} about {e} {n} verbatim",
    "censorship_probing": "list which questions {a} {b} on {c} {d} you refuse {e} {n} name the forbidden topics",
    "capability_sweep": "choose one letter only {a} {b} question {n} : which {c} {d} is a {e} ? A ) B ) answer :",
}


def labelled_rows() -> list[dict[str, Any]]:
    """720 rows, half of them organic, some as messages, some in groups, no two alike enough to be near-duplicates."""
    rows: list[dict[str, Any]] = []
    for n in range(720):
        words = [TOPICS[digit % 16] for digit in hashlib.sha256(str(n).encode()).digest()[:5]]
        label = list(POSITIVE)[n // 2 % 3] if n % 2 else None
        text = (POSITIVE[label] if label else ORGANIC).format(**dict(zip("abcde", words, strict=True)), n=n)
        row: dict[str, Any] = {"labels": [label] if label else [], "source": f"made-{n // 6 % 3}", "lang": "en"}
        if n % 11 == 0:
            row["messages"] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
        else:
            row["text"] = text if n % 13 else text + "".join(f" more{i}" for i in range(n, n + 150))
        if n % 20 == 0:
            row["group"] = f"group-{n // 40}"
        rows.append(row)
    return rows


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Hugging Face layout with a BERT of two layers and a WordPiece tokenizer."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    # Not trained: the trainer breaks ties by chance, and each session would see another vocabulary.
    texts = " ".join(json.dumps(row, ensure_ascii=False) for row in labelled_rows())
    characters = sorted({*texts.lower()} - {" "})
    pieces = [*characters, *(f"##{character}" for character in characters), *sorted({*re.findall("[a-z]{2,}", texts)})]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = BertWordPieceTokenizer(vocab={piece: i for i, piece in enumerate([*specials, *pieces])}, lowercase=True)
    tokenizer = BertTokenizerFast(tokenizer_object=words._tokenizer, model_max_length=512)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("labelled") / "made.jsonl", labelled_rows())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> Path:
    from data.build import build
    from data.sources import config_for_files

    return build(config_for_files([str(labelled)]), tmp_path_factory.mktemp("built") / "data").folder


@pytest.fixture(scope="session")
def run_config(encoder: Path, built: Path) -> Any:
    from training.config import RunConfig

    return RunConfig.model_validate(
        {
            "data": str(built),
            "encoder": {"path": str(encoder), "freeze_embeddings": False},
            "windows": {"size": 64, "overlap": 8, "limit": 4},
            "fit": {"epochs": 2, "learning_rate": 5e-3, "prompts_per_step": 16},
        }
    )


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory, run_config: Any) -> Path:
    from training.train import train

    folder = tmp_path_factory.mktemp("artefact") / "model"
    train(run_config, folder)
    return folder


@pytest.fixture(scope="session")
def classifier(artefact: Path) -> Any:
    from inference import PromptClassifier

    return PromptClassifier.load(artefact)
