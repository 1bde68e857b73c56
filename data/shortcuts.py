"""Shortcuts: a source, a length or a single word that alone predicts a label, so that a classifier may learn it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from .records import CATEGORIES, ORGANIC, Record
from .similar import tokens

_READ = 20_000
_FEW = 20
_LENGTH_AUC = 0.75
_SOURCE_AUC = 0.95
_PRECISION, _RECALL = 0.95, 0.2
_MOST_WORDS = 5


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One thing that predicts a label: `kind` is source, length or word; `strength` is an area under the ROC curve
    (source, length) or a precision (word, whose `recall` is given).
    """

    kind: str
    label: str
    what: str
    strength: float
    recall: float | None
    message: str


def find_shortcuts(records: Sequence[Record], clusters: np.ndarray) -> list[Shortcut]:
    """All shortcuts to every label, by label; clusters keep what is alike out of its own prediction."""
    counter = CountVectorizer(analyzer=_words, binary=True, min_df=_FEW, max_features=50_000, dtype=np.float32)
    try:
        words = counter.fit_transform([record.rendered[:_READ] for record in records])
        names = counter.get_feature_names_out()
    except ValueError:  # no word stands in enough records
        words, names = csr_matrix((len(records), 0)), np.array([])
    lengths = np.log1p([len(record.rendered) for record in records])
    sources = np.array([record.source for record in records])
    found: list[Shortcut] = []
    for label in (*CATEGORIES, ORGANIC):
        truth = np.array([label in record.label_names for record in records])
        if min(truth.sum(), (~truth).sum()) >= _FEW:
            found += _source(label, truth, sources)
            found += _length(label, truth, lengths, clusters)
            found += _word(label, truth, words, names, sources)
    return found


def _words(text: str) -> set[str]:
    return set(tokens(text))


def _source(label: str, truth: np.ndarray, sources: np.ndarray) -> list[Shortcut]:
    """How well the share of a label among the source's other records tells it."""
    names, place = np.unique(sources, return_inverse=True)
    if len(names) < 2:
        return []
    n, positive = np.bincount(place), np.bincount(place, weights=truth)
    score = (positive[place] - truth) / np.maximum(1, n[place] - 1)
    auc = float(roc_auc_score(truth, score))
    if auc < _SOURCE_AUC:
        return []
    pure = int(((positive == 0) | (positive == n)).sum())
    message = f"the source alone tells {label} (AUC {auc:.2f}; {pure} of {len(names)} sources have all or none of it)"
    return [Shortcut("source", label, f"{pure} of {len(names)} sources", auc, None, message)]


def _length(label: str, truth: np.ndarray, lengths: np.ndarray, clusters: np.ndarray) -> list[Shortcut]:
    """How well a small tree on the length tells a label, on clusters that it has not seen."""
    if len(set(clusters)) < 5:
        return []
    tree = DecisionTreeClassifier(max_leaf_nodes=8, min_samples_leaf=_FEW, random_state=0)
    score = cross_val_predict(tree, lengths[:, None], truth, groups=clusters, cv=GroupKFold(5), method="predict_proba")[
        :, -1
    ]
    auc = float(roc_auc_score(truth, score))
    if auc < _LENGTH_AUC:
        return []
    inside, outside = (int(np.expm1(np.median(lengths[here]))) for here in (truth, ~truth))
    message = f"length alone tells {label} (AUC {auc:.2f}; median {inside} characters, the others {outside})"
    return [Shortcut("length", label, f"median {inside} against {outside}", auc, None, message)]


def _word(label: str, truth: np.ndarray, words: csr_matrix, names: np.ndarray, sources: np.ndarray) -> list[Shortcut]:
    """Words that nearly always come with a label and stand in a good part of it."""
    total = np.asarray(words.sum(axis=0)).ravel()
    hits = np.asarray(words[truth].sum(axis=0)).ravel()
    precision, recall = hits / np.maximum(1, total), hits / truth.sum()
    # A word is as telling as chance where nearly everything has the label: it must beat the label's own share.
    good = np.flatnonzero((precision >= max(_PRECISION, (1 + truth.mean()) / 2)) & (recall >= _RECALL))
    best = sorted(good.tolist(), key=lambda i: (-recall[i], names[i]))[:_MOST_WORDS]
    found = []
    for i in best:
        where = len(set(sources[words[:, [i]].nonzero()[0]]))
        message = (
            f'the word "{names[i]}" tells {label}: {precision[i]:.0%} of its prompts have the label, '
            f"{recall[i]:.0%} of the label's prompts have it ({where} source(s))"
        )
        found.append(Shortcut("word", label, str(names[i]), float(precision[i]), float(recall[i]), message))
    return found
