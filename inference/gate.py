"""The gate: a first stage that costs next to nothing, and passes on to the encoder only what it could flag.

It is a linear model over the tokenizer's own ids and pairs of neighbours (hashed), fitted by `training gate` to follow
the encoder's scores. It lies in the artefact's folder `gate/`, and belongs to that artefact alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .artefact import Assay, write_text
from .decision import DISTILLATION, sigmoid
from .fields import ArtefactError, Fields, read_object
from .model_files import read_weights
from .windows import PromptWindows

GATE_FOLDER = "gate"
PAIRS = 1 << 18
"""Buckets for pairs of neighbouring tokens."""
_FILE, _WEIGHTS = "gate.json", "gate.safetensors"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the gate is drawn for one operating point.

    Attributes:
        score: the least that is passed on.
        n_flagged: calibration prompts that the encoder flags at this point.
        missed: of them, those that the gate would have held back.
        passed_organic: the share of organic calibration prompts that it passes on.
    """

    score: float
    n_flagged: int
    missed: int
    passed_organic: float


@dataclass(frozen=True)
class Gate:
    """The first stage of one artefact.

    Attributes:
        weights: of tokens, then of pairs, float32.
        offset: added to their sum.
        cuts: by operating point; one that had too few flagged calibration prompts has none.
        artefact: the fingerprint of the artefact whose encoder it follows.
        fitted_on: what it was fitted on, in numbers.
    """

    weights: np.ndarray
    offset: float
    cuts: dict[str, Cut]
    artefact: str
    fitted_on: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that stand for weights and cuts."""
        digest = hashlib.sha256(self.weights.astype("<f4").tobytes())
        digest.update(json.dumps(self._about(), sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def scores(self, prompts: Sequence[PromptWindows]) -> np.ndarray:
        """How likely each prompt is to be taken for distillation, as a logit, `[prompts]`.

        A prompt's score does not depend on the others.
        """
        owner, columns, values = gate_features(prompts, len(self.weights) - PAIRS)
        summed = np.bincount(owner, self.weights[columns].astype(np.float64) * values, minlength=len(prompts))
        return np.asarray(summed + self.offset)

    def save(self, folder: Path) -> None:
        """Write it into an artefact, in place of the one that was there; it appears whole."""
        from safetensors.numpy import save_file

        writing = folder / f".{GATE_FOLDER}.writing"
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        save_file({"weights": self.weights.astype(np.float32)}, writing / _WEIGHTS)
        write_text(writing / _FILE, json.dumps({"schema_version": _SCHEMA_VERSION, **self._about()}, indent=2) + "\n")
        shutil.rmtree(folder / GATE_FOLDER, ignore_errors=True)
        writing.rename(folder / GATE_FOLDER)

    def _about(self) -> dict[str, Any]:
        return {
            "artefact": self.artefact,
            "offset": self.offset,
            "cuts": {name: asdict(cut) for name, cut in self.cuts.items()},
            "fitted_on": self.fitted_on,
        }


def gate_features(prompts: Sequence[PromptWindows], tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens and pairs of neighbours in each prompt's windows, as a sparse matrix.

    A value is log(1 + count), and a prompt's values are scaled to length 1.

    Args:
        prompts: each has at least one window.
        tokens: the size of the vocabulary; buckets of pairs are numbered from there.

    Returns:
        rows, columns and values of the entries, in order.
    """
    windows = [ids for prompt in prompts for ids in prompt.ids]
    ids = np.concatenate([np.empty(0, np.int64), *(np.asarray(window, np.int64) for window in windows)])
    window = np.repeat(np.arange(len(windows)), [len(ids) for ids in windows])
    owner = np.repeat(np.arange(len(prompts)), [len(prompt.ids) for prompt in prompts])
    # Multiplicative hashing: constants with well mixed bits, and the middle of the product.
    hashed = ((ids[:-1] * 0x9E3779B1 + ids[1:] * 0x85EBCA77) >> 11) % PAIRS
    inside = window[:-1] == window[1:]
    width = tokens + PAIRS
    keys = np.concatenate([owner[window] * width + ids, owner[window[:-1][inside]] * width + tokens + hashed[inside]])
    found, counts = np.unique(keys, return_counts=True)
    rows, columns = np.divmod(found, width)
    values = np.log1p(counts)
    lengths = np.sqrt(np.bincount(rows, values**2, minlength=len(prompts)))
    return rows, columns, values / lengths[rows]


def below_all(assay: Assay, scores: np.ndarray) -> np.ndarray:
    """Probabilities for prompts that the gate decides: those of its scores, but below every threshold."""
    lowest = min(point.thresholds[DISTILLATION] for point in assay.operating_points.values())
    return np.minimum(sigmoid(scores), 0.999 * lowest)


def load_gate(folder: Path, assay: Assay) -> Gate | None:
    """An artefact's gate; None where it has none.

    Raises:
        ArtefactError: it is broken, or another artefact's.
    """
    place = folder / GATE_FOLDER
    if not (place / _FILE).is_file():
        return None
    mend = f"make it again: python -m training gate {folder} --data DIR, or score with --no-gate"
    fields = read_object(place / _FILE)
    if fields.value("schema_version", int) != _SCHEMA_VERSION:
        raise fields.fault("schema_version", f"is not {_SCHEMA_VERSION}")
    if fields.value("artefact", str) != assay.fingerprint:
        raise ArtefactError(f"{place}: follows another artefact; {mend}")
    try:
        _, shapes = read_weights(place / _WEIGHTS)
    except OSError as error:
        raise ArtefactError(f"{place}: cannot be read ({error.strerror or error}); {mend}") from error
    vocabulary = read_object(folder / "config.json").integer("vocab_size", 1, 2**24)
    if shapes != {"weights": (vocabulary + PAIRS,)}:
        raise ArtefactError(f"{place}: its weights are not those of a gate over {vocabulary:,} tokens; {mend}")
    from safetensors.numpy import load_file

    cuts = fields.inside("cuts")
    return Gate(
        weights=load_file(place / _WEIGHTS)["weights"].astype(np.float32),
        offset=fields.number("offset"),
        cuts={name: _cut(cuts.inside(name)) for name in cuts.names()},
        artefact=assay.fingerprint,
        fitted_on=fields.value("fitted_on", dict),
    )


def _cut(fields: Fields) -> Cut:
    n_flagged = fields.integer("n_flagged", 1, 2**53)
    return Cut(
        score=fields.number("score"),
        n_flagged=n_flagged,
        missed=fields.integer("missed", 0, n_flagged),
        passed_organic=fields.number("passed_organic", 0, 1),
    )
