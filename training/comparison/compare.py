"""Champion against challenger, top to bottom: check, read, score both, judge, tell, and swap if it is promoted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.records import Record
from inference import PromptClassifier
from inference.artefact import Assay, load_artefact, write_text
from inference.decision import DISTILLATION

from ..encode import DataError, any_label, label_row
from ..evaluation.evaluate import guard, read_records
from ..evaluation.labelled import Measured, clusters_of, is_ambiguous, measure
from ..evaluation.suite import SHIPPED, Outcome, Suite, load_suite, run_suite
from ..metrics.intervals import MIN_CLUSTERS
from .checks import KINDS
from .gate import overall, shipped
from .paired import Pair
from .parts import slices, suite
from .promote import CURRENT, check_place, promote
from .verdict import Flip, Side, Verdict

COMPARISON_FILE = "comparison.json"
PAGE_FILE = "comparison.html"
LEAST_ORGANIC = 100
LEAST_POSITIVE = 20
_SAME = 1e-6
"""A difference in probability that is no more than the rounding of float32."""
_LEFT_OUT = {"ambiguous": "ambiguous", "unknown": "not fully judged"}


@dataclass(frozen=True)
class CompareOptions:
    """What `training compare` was asked for."""

    champion: Path
    challenger: Path
    data: list[str]
    out: Path
    split: str
    exclude: list[str]
    suite: Path | None
    no_suite: bool
    drop_seen: bool
    allow_seen: bool
    show_text: bool
    margin: float
    promote_to: Path | None


def compare(options: CompareOptions) -> Verdict:
    """Compare two artefacts; leave `comparison.json` and `comparison.html`, and swap the links if it says so.

    Raises:
        FaultyData: a file has faults.
        DataError: the artefacts cannot be compared, on these records or at all.
        ArtefactError, ConfigError: an artefact, the place of promotion or the suite is not sound.
    """
    from ..report.comparison_page import comparison_page

    if not (math.isfinite(options.margin) and 0 <= options.margin < 1):
        raise DataError(f"--margin {options.margin:g}: a share from 0 to under 1 is needed")
    # Resolved at once: CHAMPION may be the very link that is swapped in the end.
    folders = (options.champion.resolve(), options.challenger.resolve())
    assays = (load_artefact(options.champion), load_artefact(options.challenger))
    _check_artefacts(options, assays)
    tests = None if options.no_suite else load_suite(options.suite or SHIPPED)
    records, seen = _guarded(options, read_records(options.data, options.split, options.exclude))
    records, counts = _usable(records, assays[0].labels)
    champion, before = _score(folders[0], records, tests)
    challenger, after = _score(folders[1], records, tests)
    pair = Pair(champion, challenger, assays)
    checks = [*overall(pair, options.margin), *shipped(pair, options.margin), *suite(before, after, options.margin)]
    sliced, small = slices(pair, options.margin)
    shown = [given.resolve() if given.is_symlink() else given for given in (options.champion, options.challenger)]
    sides = (Side(shown[0], assays[0], seen[0]), Side(shown[1], assays[1], seen[1]))
    verdict = Verdict(
        sides[0],
        sides[1],
        counts=counts,
        margin=options.margin,
        checks=sorted([*checks, *sliced], key=lambda check: list(KINDS).index(check.kind)),
        small=small,
        flips=_flips(pair),
        notes=_notes(options, sides, counts),
        alike=bool(np.abs(champion.scores(DISTILLATION) - challenger.scores(DISTILLATION)).max() <= _SAME),
        link=options.promote_to / CURRENT if options.promote_to else None,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / PAGE_FILE, comparison_page(verdict, options.data, options.show_text))
    content = json.dumps(verdict.to_json(options.show_text), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(options.out / COMPARISON_FILE, content + "\n")
    if verdict.promote and options.promote_to:
        promote(options.promote_to, folders[1])
    return verdict


def _check_artefacts(options: CompareOptions, assays: tuple[Assay, Assay]) -> None:
    """Refuse artefacts that are one and the same, or speak of other things; and a place that cannot be swapped."""
    one, two = assays
    if one.fingerprint == two.fingerprint:
        raise DataError(
            f"{options.champion} and {options.challenger} are the same artefact ({one.fingerprint}); there is nothing "
            "to compare"
        )
    if set(one.labels) != set(two.labels):
        raise DataError(
            f"the champion knows {', '.join(one.labels)} and the challenger {', '.join(two.labels)}; artefacts of "
            "different labels answer different questions and are not compared"
        )
    if options.promote_to:
        check_place(options.promote_to, one, two)


def _guarded(
    options: CompareOptions, records: list[Record]
) -> tuple[list[Record], tuple[dict[str, int] | None, dict[str, int] | None]]:
    """Records that both artefacts may be measured on, and how many of them shaped each."""
    records, one = guard(options.champion, records, options.allow_seen, options.drop_seen)
    records, two = guard(options.challenger, records, options.allow_seen, options.drop_seen)
    return records, (one, two)


def _usable(records: Sequence[Record], labels: Sequence[str]) -> tuple[list[Record], dict[str, int]]:
    """The records that can decide, each with its cluster, and counts of all.

    Raises:
        DataError: they are too few, or of one class, or carry labels that the artefacts do not know.
    """
    if strange := sorted({label for record in records for label in record.labels if label not in labels}):
        count = sum(any(label in strange for label in record.labels) for record in records)
        raise DataError(
            f"{count:,} of the {len(records):,} records are labelled {', '.join(strange)}, which neither artefact "
            "knows; they would count as organic, so leave them out"
        )
    truth = any_label(np.array([label_row(record.labels, record.judged, labels) for record in records]))
    ambiguous = np.array([is_ambiguous(record) for record in records], bool)
    usable = (truth >= 0) & ~ambiguous
    counts = {
        "organic": int((usable & (truth == 0)).sum()),
        "distillation": int((usable & (truth == 1)).sum()),
        "ambiguous": int(ambiguous.sum()),
        "unknown": int(((truth < 0) & ~ambiguous).sum()),
    }
    _check_enough(counts, len(records))
    known = [record for record, use in zip(records, usable, strict=True) if use]
    clusters = np.array([f"cluster {name}" for name in clusters_of(known)])
    for name, value in (("organic", 0), ("distillation-style", 1)):
        found = len(set(clusters[truth[usable] == value]))
        if found < MIN_CLUSTERS:
            raise DataError(
                f"the {name} records fall into {found} clusters of prompts that belong together, and an interval "
                f"needs {MIN_CLUSTERS}; give records of more templates or accounts"
            )
    # Noted, so that it is not searched for again with each artefact.
    noted = [
        record.changed(extra=record.extra | {"cluster": name}) for record, name in zip(known, clusters, strict=True)
    ]
    return noted, counts


def _check_enough(counts: dict[str, int], total: int) -> None:
    organic, positive = counts["organic"], counts["distillation"]
    left_out = [f"{counts[name]:,} {told}" for name, told in _LEFT_OUT.items() if counts[name]]
    besides = f" ({' and '.join(left_out)} left out)" if left_out else ""
    if not organic or not positive:
        kind = "organic" if organic else "distillation-style" if positive else "of unknown truth or ambiguous"
        raise DataError(
            f"all {total - counts['ambiguous'] - counts['unknown'] or total:,} records are {kind}{besides}; a "
            "comparison needs organic and distillation-style prompts"
        )
    if organic < LEAST_ORGANIC or positive < LEAST_POSITIVE:
        raise DataError(
            f"{organic:,} organic and {positive:,} distillation-style records{besides} cannot tell two artefacts "
            f"apart: at least {LEAST_ORGANIC} and {LEAST_POSITIVE} are needed, and some thousands to judge a recall at "
            "1 % false positives; give more labelled data"
        )


def _score(folder: Path, records: Sequence[Record], tests: Suite | None) -> tuple[Measured, list[Outcome]]:
    """What one artefact says of the records and of the suite; it is out of memory before the next is opened."""
    classifier = PromptClassifier.load(folder, backend="torch")
    return measure(classifier, records), run_suite(classifier, tests) if tests else []


def _flips(pair: Pair) -> list[Flip]:
    """The prompts that the artefacts decide differently at their default operating points, the largest change first."""
    rows = zip(
        pair.champion.records, pair.champion.predictions, pair.challenger.predictions, pair.positive, strict=True
    )
    flips = [
        Flip(record.id, record.source, bool(positive), one.distillation, two.distillation, two.flagged, record.rendered)
        for record, one, two, positive in rows
        if one.flagged != two.flagged
    ]
    return sorted(flips, key=lambda flip: (-flip.change, flip.id))


def _notes(options: CompareOptions, sides: Sequence[Side], counts: dict[str, int]) -> list[str]:
    """What a reader must know before trusting the verdict."""
    notes = []
    for name, side in zip(("champion", "challenger"), sides, strict=True):
        if side.seen:
            told = ", ".join(f"{count:,} in {split}" for split, count in side.seen.items())
            notes.append(
                f"SEEN: the {name} was shaped by records that it is measured on here ({told}), "
                "and looks better than it is"
            )
        elif side.seen is None:
            notes.append(
                f"the {name} does not say what it has seen, so nobody checked whether it was shaped by these records"
            )
    if options.no_suite:
        notes.append("the functional suite was left out: nothing is said of the must-pass capabilities")
    left_out = [f"{counts[name]:,} {told}" for name, told in _LEFT_OUT.items() if counts[name]]
    if left_out:
        notes.append(f"left out: {' and '.join(left_out)} records")
    one, two = (list(side.assay.operating_points) for side in sides)
    if lacking := [name for name in one if name not in two]:
        notes.append(f"the challenger lacks {', '.join(lacking)}, which the champion has: jobs that name it would fail")
    if added := [name for name in two if name not in one]:
        notes.append(f"only the challenger has {', '.join(added)}")
    defaults = [side.assay.default_point for side in sides]
    if defaults[0] != defaults[1]:
        notes.append(
            f"the default operating points differ, {defaults[0]} and {defaults[1]}: flips and suite are at these"
        )
    return notes
