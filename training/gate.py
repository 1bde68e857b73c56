"""`training gate`: fit the first stage of the cascade to follow the encoder, and draw its cuts on calibration data."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, vstack
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from data.records import prompt_key
from data.summary import markdown_table
from inference.artefact import Assay, load_artefact
from inference.cache import ScoreCache
from inference.decision import DISTILLATION, probabilities
from inference.fields import read_object
from inference.gate import GATE_FOLDER, PAIRS, Cut, Gate, gate_features
from inference.job.columns import prompt_of
from inference.job.files import find_files
from inference.job.readers import read_rows
from inference.job.score import ScoreOptions, columns_of_job
from inference.prompts import PromptError, render_prompt
from inference.scorer import LogitScorer, score_windows
from inference.windows import PromptWindows

from .calibrate import calibration_records
from .encode import load_split, records_of
from .evaluation.seen import prompt_hash, write_seen

KEPT = 0.99
CONFIDENCE = 0.95
STRENGTH = 10.0
"""The inverse of the penalty on weights; 3 to 100 pass on nearly the same share, and 10 the smallest."""
_CHUNK = 512


class GateRefused(ValueError):
    """No operating point has enough flagged calibration prompts to draw a cut on; nothing was written."""


@dataclass(frozen=True)
class Followed:
    """Prompts as the gate reads them, and what the encoder says of them: probabilities of distillation `[prompts]`."""

    windows: list[PromptWindows]
    encoder: np.ndarray


def make_gate(model: Path, data: Path, unlabelled: Sequence[str] = (), text_column: str | None = None) -> Gate:
    """Fit a gate, draw its cuts, and write it into the artefact.

    A run that was killed goes on where it stopped: what the encoder has scored lies in `MODEL.gate-cache`, which is
    removed at the end.

    Args:
        model: the artefact.
        data: the built folder that it was trained and calibrated on.
        unlabelled: files of prompts of real traffic, which the gate then follows as well.
        text_column: where the prompts stand in them.

    Raises:
        GateRefused: too few calibration prompts are flagged at every operating point.
        DataError, InputError, ArtefactError: something cannot be read.
    """
    assay = load_artefact(model)
    calibration = calibration_records(data)
    shaped = [record for name in ("train", "validation") for record in records_of(load_split(data, name))]
    traffic = _texts_of(unlabelled, model, text_column)
    scorer = LogitScorer.open(model, assay)
    folder = model.with_name(model.name + ".gate-cache")
    with closing(ScoreCache(folder, f"{assay.fingerprint}-{scorer.backend_name}", len(assay.labels))) as cache:
        followed = follow(assay, scorer, cache, [*(record.rendered for record in shaped), *traffic], "following")
        judged = follow(assay, scorer, cache, [record.rendered for record in calibration], "calibrating")
    vocabulary = read_object(model / "config.json").integer("vocab_size", 1, 2**24)
    weights, offset = fit_gate(followed, vocabulary)
    gate = Gate(weights, offset, {}, assay.fingerprint, {"labelled": len(shaped), "unlabelled": len(traffic)})
    organic = np.array([not record.labels for record in calibration])
    gate.cuts.update(draw_cuts(assay, gate.scores(judged.windows), judged.encoder, organic))
    if not gate.cuts:
        raise GateRefused(
            f"no operating point has {_fewest():,} flagged calibration prompts, which it takes to say with "
            f"{CONFIDENCE:.0%} confidence that {KEPT:.0%} of them pass; calibrate on more distillation prompts"
        )
    gate.save(model)
    if traffic:
        write_seen(model / GATE_FOLDER, {"unlabelled": [prompt_hash(prompt_key(text)) for text in traffic]})
    shutil.rmtree(folder, ignore_errors=True)
    return gate


def follow(assay: Assay, scorer: LogitScorer, cache: ScoreCache, texts: Sequence[str], what: str) -> Followed:
    """Score rendered prompts with the encoder, with a progress bar; those in the cache are not scored again."""
    windows: list[PromptWindows] = []
    scores: list[np.ndarray] = []
    with tqdm(total=len(texts), unit="prompt", desc=what, mininterval=0.5) as bar:
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            cut = scorer.windower(chunk)
            scored = cache.find(chunk)
            fresh = {text: prompt for text, prompt in zip(chunk, cut, strict=True) if text not in scored}
            if fresh:
                found = score_windows(scorer, fresh)
                cache.add(found)
                scored |= found
            scores.append(probabilities(assay, np.stack([scored[text].logits for text in chunk]))[1])
            windows += cut
            bar.update(len(chunk))
    return Followed(windows, np.concatenate(scores))


def fit_gate(followed: Followed, vocabulary: int) -> tuple[np.ndarray, float]:
    """Weights and offset of a logistic regression on the encoder's probabilities (its answers, and not the labels)."""
    rows, columns, values = gate_features(followed.windows, vocabulary)
    matrix = csr_matrix((values, (rows, columns)), shape=(len(followed.windows), vocabulary + PAIRS))
    # Each prompt stands twice: as distillation and as organic, with what the encoder gives to either as its weight.
    truth = np.repeat([1, 0], len(followed.encoder))
    weight = np.concatenate([followed.encoder, 1 - followed.encoder])
    model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(vstack([matrix, matrix]), truth, sample_weight=weight)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def draw_cuts(assay: Assay, gate: np.ndarray, encoder: np.ndarray, organic: np.ndarray) -> dict[str, Cut]:
    """The highest cut for each operating point at which the encoder's flags are kept, with confidence.

    Args:
        assay: whose operating points.
        gate: its scores of calibration prompts, `[prompts]`.
        encoder: probabilities of distillation, `[prompts]`.
        organic: a mask, `[prompts]`.
    """
    cuts = {}
    for name, point in assay.operating_points.items():
        flagged = np.sort(gate[encoder >= point.thresholds[DISTILLATION]])
        missed = allowed_misses(len(flagged))
        if missed is not None:
            score = float(flagged[missed])
            cuts[name] = Cut(
                score, len(flagged), missed, float((gate[organic] >= score).mean()) if organic.any() else 0.0
            )
    return cuts


def allowed_misses(flagged: int) -> int | None:
    """How many of the flagged prompts may be held back; None where there are too few to tell.

    With k held back of n, the lower end of the exact one-sided interval (Clopper-Pearson) of the share that passes must
    be at least `KEPT`: 299 for none, 473 for one.
    """
    missed = None
    for k in range(flagged):
        if beta.ppf(1 - CONFIDENCE, flagged - k, k + 1) < KEPT:
            break
        missed = k
    return missed


def gate_table(gate: Gate) -> str:
    """What was drawn, for a terminal."""
    rows = [
        [name, f"{cut.n_flagged:,}", f"{cut.missed:,}", f"{cut.passed_organic:.1%}"] for name, cut in gate.cuts.items()
    ]
    header = ["operating point", "flagged by the encoder", "of them held back", "organic passed on"]
    return f"on calibration prompts:\n\n{markdown_table(header, rows)}"


def _fewest() -> int:
    return int(np.ceil(np.log(1 - CONFIDENCE) / np.log(KEPT)))


def _texts_of(names: Sequence[str], model: Path, text_column: str | None) -> list[str]:
    """Rendered prompts of files, each once; rows that hold none are passed over."""
    found: dict[str, None] = {}
    for path in find_files(names) if names else []:
        columns = columns_of_job(ScoreOptions(names, str(model), "", text_column=text_column), path)
        for row in read_rows(path, columns.names):
            prompt = prompt_of(row, columns)
            if not isinstance(prompt, PromptError):
                with suppress(PromptError):
                    found[render_prompt(prompt)] = None
    return list(found)
