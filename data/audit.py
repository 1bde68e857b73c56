"""`python -m data audit`: likely label errors, shortcuts, and how well repeated labels agree.

Label errors are found by confident learning (Northcutt, Jiang and Chuang, 2021; the library cleanlab) on
probabilities that a cheap linear model gives to records that it has not seen. It does so twice. Where it has seen
others of the record's family, what it doubts is likely a label error. Where it has seen nothing of the whole cluster,
a family that it doubts as a whole is one whose label nothing else in the data supports: wrong, or the only one of its
kind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from tqdm import tqdm

from inference.artefact import write_text

from .clean import CONFLICT, DUPLICATE
from .reading import AUDIT_FILE, MANIFEST_FILE, REMOVED_FILE, SPLITS, SUSPECTS_FILE
from .records import CATEGORIES, ORGANIC, Record, parse_record
from .shortcuts import Shortcut, find_shortcuts
from .similar import tokens
from .summary import by_count

_FOLDS = 5
_READ = 20_000
_FALSE_POSITIVES = 0.1
_FEW = 10
"""A category needs so many records with it, and as many without, to be judged."""


class AuditError(ValueError):
    """A folder that cannot be audited."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A record whose label is likely wrong: what the model would say, and how little it believes the given label."""

    record: Record
    split: str
    suggested: tuple[str, ...]
    belief: float

    def to_row(self, rank: int) -> dict[str, Any]:
        """A record that can be corrected in place and given back with `data build --corrections`."""
        row = {name: value for name, value in self.record.to_row().items() if value is not None}
        given, suggested = list(self.record.labels) or "organic", list(self.suggested) or "organic"
        return {
            "audit": {
                "rank": rank,
                "given": given,
                "suggested": suggested,
                "belief_in_given": round(self.belief, 4),
                "split": self.split,
            },
            **{name: value for name, value in row.items() if name not in ("audit", "cluster")},
        }


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Records of a source with one label, most of which a model that saw nothing of their cluster does not find: it
    puts only `found` of them over the threshold that lets a tenth of the records without the label through.
    """

    source: str
    category: str
    records: int
    found: int

    @property
    def message(self) -> str:
        """In words."""
        return (
            f"nothing else supports {self.category} in source {self.source}: of {self.records} prompts {self.found} "
            "are found without it, at 10 % false positives"
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two labels of one text agree in a category; `kappa` is chance-corrected (Cohen), None where it has no
    meaning.
    """

    category: str
    pairs: int
    agreeing: int
    kappa: float | None


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found."""

    records: int
    suspects: list[Suspect]
    unsupported: list[Unsupported]
    shortcuts: list[Shortcut]
    agreement: list[Agreement]

    def flips(self) -> list[list[Any]]:
        """How many suspects have which labels and should have which others, the most frequent first."""
        names = ["+".join(s.record.label_names) + " → " + ("+".join(s.suggested) or ORGANIC) for s in self.suspects]
        return [[*name.split(" → "), n] for name, n in by_count(names).items()]

    def write(self, folder: Path) -> None:
        """Write the ranked suspects and the whole report into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [suspect.to_row(rank) for rank, suspect in enumerate(self.suspects, 1)]
        write_text(
            folder / SUSPECTS_FILE, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        )
        report = {
            "records": self.records,
            "suspects": [{"id": row["id"], "source": row["source"], **row["audit"]} for row in rows],
            "unsupported": [asdict(item) for item in self.unsupported],
            "shortcuts": [asdict(shortcut) for shortcut in self.shortcuts],
            "agreement": [asdict(agreement) for agreement in self.agreement],
        }
        write_text(folder / AUDIT_FILE, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def audit(folder: Path, seed: int = 0) -> Audit:
    """Audit a built folder.

    Raises:
        AuditError: it is none, or holds too little.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise AuditError(f"{folder}: no built data; run: python -m data build … --out {folder}")
    splits: list[str] = []
    records: list[Record] = []
    for split in SPLITS:
        rows = _read(folder / f"{split}.parquet")
        records += rows
        splits += [split] * len(rows)
    if not records:
        raise AuditError(f"{folder}: holds no records")
    clusters = np.array([record.extra.get("cluster") or record.key for record in records])
    doubts = _Doubts(records, clusters, seed)
    return Audit(
        len(records),
        doubts.suspects(splits),
        doubts.unsupported(),
        find_shortcuts(records, clusters),
        _agreement(folder, records),
    )


def _read(path: Path) -> list[Record]:
    return [parse_record(row, "unknown") for row in pq.read_table(path).to_pylist()]


class _Doubts:
    """What the model doubts, by category and place among the records: the belief in the given label where it is likely
    an error, and for every record the probability by a model that saw nothing of its cluster.
    """

    def __init__(self, records: Sequence[Record], clusters: np.ndarray, seed: int) -> None:
        self._records = records
        self._errors: dict[str, dict[int, float]] = {}
        self._unseen: dict[str, dict[int, float]] = {}
        features = _features(records)
        for category in tqdm(CATEGORIES, desc="auditing", unit=" categories", disable=None):
            judged = np.array([n for n, record in enumerate(records) if category in record.judged], dtype=np.int64)
            truth = np.array([category in records[n].labels for n in judged], dtype=np.int64)
            if not len(truth) or min(truth.sum(), len(truth) - truth.sum()) < _FEW:
                continue
            self._errors[category] = _likely_errors(judged, truth, _out_of_fold(features[judged], truth, None, seed))
            unseen = _out_of_fold(features[judged], truth, clusters[judged], seed)
            self._unseen[category] = dict(zip(judged.tolist(), unseen.tolist(), strict=True))

    def suspects(self, splits: Sequence[str]) -> list[Suspect]:
        """Likely label errors, worst first; a record doubted in several categories stands once."""
        beliefs: dict[int, dict[str, float]] = {}
        for category, doubted in self._errors.items():
            for number, belief in doubted.items():
                beliefs.setdefault(number, {})[category] = belief
        found = []
        for number, doubts in beliefs.items():
            given = set(self._records[number].labels)
            suggested = tuple(name for name in CATEGORIES if (name in given) != (name in doubts))
            found.append(Suspect(self._records[number], splits[number], suggested, min(doubts.values())))
        return sorted(found, key=lambda suspect: (suspect.belief, suspect.record.id))

    def unsupported(self) -> list[Unsupported]:
        """Families most of which are not found once their cluster is unseen, those with most such records first."""
        found = []
        for category, scores in self._unseen.items():
            without = [score for number, score in scores.items() if category not in self._records[number].labels]
            threshold = np.quantile(without, 1 - _FALSE_POSITIVES)
            families: dict[str, list[float]] = {}
            for number, score in scores.items():
                if category in self._records[number].labels:
                    families.setdefault(self._records[number].source, []).append(score)
            for source, own in families.items():
                hits = int(np.sum(np.array(own) > threshold))
                if len(own) >= 2 * _FEW and hits < 0.5 * len(own):
                    found.append(Unsupported(source, category, len(own), hits))
        return sorted(found, key=lambda item: (item.found - item.records, item.source, item.category))


def _likely_errors(judged: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> dict[int, float]:
    from cleanlab.filter import find_label_issues  # takes seconds to import

    both = np.column_stack([1 - probability, probability])
    issues = find_label_issues(truth, both, return_indices_ranked_by="self_confidence", n_jobs=1)
    return {int(judged[place]): float(both[place, truth[place]]) for place in issues.tolist()}


def _features(records: Sequence[Record]) -> csr_matrix:
    hashed = HashingVectorizer(analyzer=_runs, n_features=2**18, alternate_sign=False, norm=None, dtype=np.float32)
    counts = hashed.transform(record.rendered[:_READ] for record in records)
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def _runs(text: str) -> list[str]:
    words = tokens(text)
    return words + [f"{one} {two}" for one, two in zip(words, words[1:], strict=False)]


def _out_of_fold(features: csr_matrix, truth: np.ndarray, clusters: np.ndarray | None, seed: int) -> np.ndarray:
    """For each record the probability of the category by a model that did not see it (or its cluster, where given)."""
    probability = np.zeros(len(truth))
    kind = StratifiedKFold if clusters is None else StratifiedGroupKFold
    number = _FOLDS if clusters is None else min(_FOLDS, len(set(clusters)))
    if number < 2:  # all is one cluster: nothing can be seen without it
        return np.full(len(truth), truth.mean())
    folds = kind(number, shuffle=True, random_state=seed)
    for train, test in folds.split(features, truth, clusters):
        if len(set(truth[train])) < 2:  # one cluster holds the whole category
            probability[test] = truth.mean()
            continue
        model = LogisticRegression(C=10.0, solver="liblinear", random_state=seed)
        probability[test] = model.fit(features[train], truth[train]).predict_proba(features[test])[:, 1]
    return probability


def _agreement(folder: Path, records: Sequence[Record]) -> list[Agreement]:
    """Labels of texts that stood in the data more than once, against each other."""
    path = folder / REMOVED_FILE
    if not path.is_file():
        return []
    rows = pq.read_table(path).to_pylist()
    by_id = {(row["source"], row["id"]): row for row in rows}
    by_id |= {(record.source, record.id): record.to_row() for record in records}
    seen: set[tuple[Any, ...]] = set()
    compared: list[tuple[Record, Record]] = []
    for row in rows:
        other = by_id.get((row["evidence_source"], row["evidence"]))
        if row["reason"] not in (DUPLICATE, CONFLICT) or row["similarity"] != 1.0 or other is None:
            continue
        one, two = parse_record(row, "unknown"), parse_record(other, "unknown")
        key = (one.key, *sorted([(one.source, one.id), (two.source, two.id)]))
        if one.key == two.key and key not in seen:  # each of a contradicting pair names the other
            seen.add(key)
            compared.append((one, two))
    return [found for category in CATEGORIES if (found := _agree_on(category, compared)) is not None]


def _agree_on(category: str, pairs: Sequence[tuple[Record, Record]]) -> Agreement | None:
    both = [
        (category in one.labels, category in two.labels)
        for one, two in pairs
        if category in one.judged and category in two.judged
    ]
    if not both:
        return None
    # Neither of the two is the first: each pair counts in both orders.
    first, second = [a for a, _ in both] + [b for _, b in both], [b for _, b in both] + [a for a, _ in both]
    kappa = float(cohen_kappa_score(first, second)) if len(set(first)) == 2 else None
    return Agreement(category, len(both), sum(a == b for a, b in both), kappa)
