"""Simple classifiers, trained and measured beside an artefact: a fine-tuned model has to earn its cost against them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.config import ConfigError
from data.reading import MANIFEST_FILE
from data.records import Record
from inference.decision import DISTILLATION

from ..config import load_run
from ..encode import DataError, load_split, records_of
from ..encoders import EncoderError
from ..metrics.intervals import ClusterBootstrap, missing
from ..metrics.measures import BOTH, ranking_measures
from .frozen import FrozenEncoder, fit_weighted, linear_probe, truth_of
from .labelled import Measured
from .sections import SOURCE_MEAN, Sections, mean_over_sources, rates_for, source_means

RUN_FILE = "run.yaml"
_SEED = 0
_WORD = r"(?u)\b\w+\b"
"""Words of one letter too: scikit-learn's own pattern drops them, and with them many Chinese and Japanese ones."""
_GAINS = ("roc_auc", "recall_at_fpr_5pct", "recall_at_fpr_1pct")


@dataclass(frozen=True)
class Baseline:
    """A simple classifier and what it says of the records measured.

    `what` is a sentence. `scores` are `[n]`, in the order of the records: log-odds of distillation, which no
    calibration has seen; they rank, and are no probabilities. `seconds` are those of training and scoring together.
    """

    name: str
    what: str
    scores: np.ndarray
    seconds: float
    scoring_seconds: float


@dataclass(frozen=True)
class _Way:
    """A way to classify: what it sees of records, and a scikit-learn pipeline over that."""

    name: str
    what: str
    inputs: Callable[[Sequence[Record]], Any]
    pipeline: Callable[[], Any]


def compare_with_baselines(folder: Path, data: Sequence[str], model: Path, measured: Measured) -> list[Baseline]:
    """Train the baselines on the train split of a built folder, and score the records that were measured.

    Args:
        folder: the built folder; `Path()` for the first one among `data`.
        data: what is measured, as it was named.
        model: the artefact; its `run.yaml` names the encoder of the probe.
        measured: records and predictions of the artefact.

    Raises:
        DataError: no built folder is there, or its train split teaches nothing.
    """
    train = records_of(load_split(_built(folder, data), "train"))
    names = list(measured.predictions[0].scores)
    return train_baselines(train, measured.records, names, _frozen_encoder(model))


def _built(folder: Path, data: Sequence[str]) -> Path:
    if folder != Path():
        return folder
    for name in data:
        if (Path(name) / MANIFEST_FILE).is_file():
            return Path(name)
    raise DataError(
        f"--baselines: none of {', '.join(data)} is a built folder to train on; name one: --baselines DIR "
        "(python -m data build makes it)"
    )


def _frozen_encoder(model: Path) -> FrozenEncoder | None:
    """The encoder that the artefact was made from; without it the probe is left out, and the terminal says so."""
    try:
        return FrozenEncoder(load_run(model / RUN_FILE))
    except (ConfigError, EncoderError) as error:
        _note(f"the linear probe is left out: {error}")
        return None


def train_baselines(
    train: Sequence[Record], records: Sequence[Record], names: Sequence[str], encoder: FrozenEncoder | None = None
) -> list[Baseline]:
    """Train every baseline on the same records, and score others with it; with a progress bar, and repeatable.

    A prompt that is measured is never trained on, and neither is one of which nobody knows whether it is organic.

    Args:
        train: labelled records; their weights count.
        records: what to score.
        names: the categories any of which makes a prompt a positive.
        encoder: of the linear probe, which is left out where None.

    Raises:
        DataError: what is left to train on is of one class.
    """
    measured = {record.key for record in records}
    apart = [record for record in train if record.key not in measured]
    if len(apart) < len(train):
        _note(f"{len(train) - len(apart):,} of {len(train):,} prompts to train on are measured here, and are left out")
    truth = truth_of(apart, names)
    known = [record for record, value in zip(apart, truth, strict=True) if value >= 0]
    positive = truth[truth >= 0] == 1
    if len(set(positive)) < 2:
        raise DataError(
            f"baselines: {int(positive.sum()):,} positive and {int((~positive).sum()):,} organic prompts are left to "
            "train on, and both are needed; name a built folder with more by --baselines DIR"
        )
    weights = np.array([record.weight for record in known])
    ways = [*_WAYS, *([] if encoder is None else [_probe_way(encoder)])]
    found = []
    with tqdm(total=len(ways), unit="baseline", desc="baselines") as bar:
        for way in ways:
            bar.set_postfix_str(way.name)
            found.append(_train(way, known, positive, weights, records))
            bar.update()
    return found


def _train(
    way: _Way, train: Sequence[Record], positive: np.ndarray, weights: np.ndarray, records: Sequence[Record]
) -> Baseline:
    started = time.perf_counter()
    pipeline = fit_weighted(way.pipeline(), way.inputs(train), positive, weights)
    trained = time.perf_counter()
    scores = np.asarray(pipeline.decision_function(way.inputs(records)), np.float64)
    done = time.perf_counter()
    return Baseline(way.name, way.what, scores, done - started, done - trained)


def _probe_way(encoder: FrozenEncoder) -> _Way:
    what = f"Logistic regression on the mean of the last of {encoder.layers} layers of {encoder.name}, as it came."
    return _Way("frozen encoder, linear probe", what, encoder, linear_probe)


def _surface(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [
        {
            "characters": math.log1p(len(record.rendered)),
            "words": math.log1p(len(record.rendered.split())),
            "lines": math.log1p(record.rendered.count("\n")),
            "chat": float(record.messages is not None),
            "language": record.lang or "unknown",
        }
        for record in records
    ]


def _texts(records: Sequence[Record]) -> list[str]:
    return [record.rendered for record in records]


def _surface_model() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.pipeline import make_pipeline

    # Trees, since no line separates short and long from middling; a language that was not trained on is no column.
    trees = HistGradientBoostingClassifier(max_leaf_nodes=15, max_iter=100, early_stopping=False, random_state=_SEED)
    return make_pipeline(DictVectorizer(sparse=False), trees)


def _words_model() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    seen = TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD, min_df=2, max_features=200_000, sublinear_tf=True)
    return make_pipeline(seen, LogisticRegression(C=10.0, max_iter=1000))


def _characters_model() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # Hashed, since a table of all n-grams would grow with the data.
    counts = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), n_features=2**19, alternate_sign=False, norm=None, dtype=np.float32
    )
    return make_pipeline(counts, TfidfTransformer(sublinear_tf=True), LogisticRegression(C=100.0, max_iter=1000))


def _hashed_model() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline, make_union

    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=_WORD, n_features=2**20)
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 6), n_features=2**20)
    return make_pipeline(
        make_union(words, characters), SGDClassifier(loss="log_loss", alpha=1e-5, average=True, random_state=_SEED)
    )


_WAYS = (
    _Way(
        "length and language",
        "Boosted trees on characters, words, lines, whether it is a chat, and the language: what surface alone gives.",
        _surface,
        _surface_model,
    ),
    _Way("TF-IDF words", "Logistic regression on TF-IDF of words and pairs of words.", _texts, _words_model),
    _Way(
        "TF-IDF characters",
        "Logistic regression on TF-IDF of runs of 2 to 5 characters inside words, hashed.",
        _texts,
        _characters_model,
    ),
    # With two classes fastText's table of embeddings and its linear layer (Joulin et al. 2017) are one weight for each
    # n-gram, so a linear model has the same reach. It differs in that counts are scaled to length 1 and not averaged.
    _Way(
        "hashed n-grams (fastText-like)",
        "A linear model by stochastic gradient on hashed words, pairs of words, and runs of 3 to 6 characters.",
        _texts,
        _hashed_model,
    ),
)


def baseline_sections(measured: Measured, baselines: Sequence[Baseline], seed: int = 0) -> Sections:
    """For `metrics.json`: a section `baseline NAME` for each, over prompts that are not ambiguous.

    A metric `NAME_gain` is that of the artefact less that of the baseline, on the same draws: its interval is that of
    the difference, which is narrower than the two intervals look.

    Args:
        measured: what the baselines scored, with the artefact's predictions.
        baselines: from `train_baselines`.
        seed: of the bootstrap; that of `evaluate_sections` gives the same draws.
    """
    apart = measured.ambiguous
    clear = measured.only(~apart)
    known = clear.truth >= 0
    positive = clear.truth[known] == 1
    n, organic = len(positive), int((~positive).sum())
    if organic in (0, n):
        return {f"baseline {baseline.name}": {"roc_auc": missing(n, BOTH)} for baseline in baselines}
    rates, lacking = rates_for(organic, n)
    own = ranking_measures(clear.scores(DISTILLATION)[known], positive, rates)
    theirs = [ranking_measures(baseline.scores[~apart][known], positive, rates) for baseline in baselines]

    def measures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        """All baselines at once, so that the artefact is ranked once a draw."""
        ours = own(weights)
        found: dict[str, np.ndarray] = {}
        for i, measure in enumerate(theirs):
            values = dict(measure(weights))
            gains = {f"{name}_gain": ours[name] - values[name] for name in _GAINS if name in values}
            found |= {f"{i} {name}": value for name, value in (values | gains).items()}
        return found

    estimates = ClusterBootstrap(clear.clusters, seed=seed).estimates(measures, known, positive=clear.truth == 1)
    ours_by_source = source_means(clear, clear.scores(DISTILLATION))
    sections: Sections = {}
    for i, baseline in enumerate(baselines):
        section = {name.removeprefix(f"{i} "): value for name, value in estimates.items() if name.startswith(f"{i} ")}
        theirs_by_source = source_means(clear, baseline.scores[~apart])
        section[SOURCE_MEAN] = mean_over_sources(theirs_by_source)
        if ours_by_source is not None and theirs_by_source is not None:
            section[f"{SOURCE_MEAN}_gain"] = mean_over_sources(ours_by_source - theirs_by_source)
        sections[f"baseline {baseline.name}"] = section | lacking
    return sections


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
