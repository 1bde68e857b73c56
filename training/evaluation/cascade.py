"""What the gate costs: how much of what the encoder flags it holds back, and what it saves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.summary import markdown_table
from inference.artefact import Assay
from inference.decision import DISTILLATION
from inference.gate import Gate
from inference.scorer import LogitScorer

from ..metrics.intervals import Estimate, rate_estimate
from .labelled import Measured
from .sections import Sections
from .slices import parts_of

CASCADE = "cascade "
"""Begins the names of its sections: `cascade fpr-1pct`, and `cascade source X` at the default operating point."""
_KEPT, _RECALL, _WITH_GATE = "kept_of_flagged", "recall", "recall_with_gate"
_PASSED, _TOKENS = "passed_organic", "passed_tokens"
_WORST = 5


def cascade_sections(gate: Gate, scorer: LogitScorer, assay: Assay, measured: Measured) -> Sections:
    """The gate's part at every operating point for which it has a cut, and by slice at the default one.

    Args:
        gate: the artefact's.
        scorer: of the artefact.
        assay: of the artefact.
        measured: records and what the encoder says of them; ambiguous ones are left out.
    """
    measured = measured.only(~measured.ambiguous)
    windows = scorer.windower([record.rendered for record in measured.records])
    scores = gate.scores(windows)
    tokens = np.array([sum(map(len, prompt.ids)) for prompt in windows])
    positive, organic = measured.truth == 1, measured.truth == 0
    distillation = measured.scores(DISTILLATION)
    sections: Sections = {}
    for name, cut in gate.cuts.items():
        passed = scores >= cut.score
        flagged = distillation >= assay.operating_points[name].thresholds[DISTILLATION]
        share = float(tokens[passed].sum() / tokens.sum())
        sections[f"{CASCADE}{name}"] = {
            _KEPT: _rate(passed, flagged),
            _RECALL: _rate(flagged, positive),
            _WITH_GATE: _rate(flagged & passed, positive),
            _PASSED: _rate(passed, organic),
            _TOKENS: Estimate(share, share, share, len(tokens)),
        }
        if name == assay.default_point:
            for part in parts_of(measured):
                sections[f"{CASCADE}{part.name}"] = {
                    _KEPT: _rate(passed, flagged & part.chosen),
                    _PASSED: _rate(passed, organic & part.chosen),
                }
    return sections


def _rate(hit: np.ndarray, among: np.ndarray) -> Estimate:
    return rate_estimate(int((hit & among).sum()), int(among.sum()))


@dataclass(frozen=True, slots=True)
class Cascade:
    """Its sections for a reader: by operating point, and the slices that lose flags, the worst first."""

    points: list[tuple[str, dict[str, Estimate]]]
    lossy: list[tuple[str, dict[str, Estimate]]]

    @classmethod
    def of(cls, sections: Sections) -> Cascade:
        """Those of an evaluation; empty where the artefact has no gate."""
        own = [(name.removeprefix(CASCADE), s) for name, s in sections.items() if name.startswith(CASCADE)]
        kept = {name: section[_KEPT].value for name, section in own}
        lossy = [item for item in own if _TOKENS not in item[1] and kept[item[0]] not in (None, 1.0)]
        return cls([item for item in own if _TOKENS in item[1]], sorted(lossy, key=lambda item: kept[item[0]] or 0.0))


def cascade_table(sections: Sections) -> str:
    """For a terminal: every operating point, and the slices that lose most."""
    cascade = Cascade.of(sections)
    header = [
        "with the gate, at",
        "kept of flagged (interval)",
        "recall",
        "with gate",
        "organic passed",
        "tokens passed",
    ]
    rows = []
    for name, section in cascade.points:
        kept = section[_KEPT]
        interval = "–" if kept.value is None else f"{kept.value:.3f} ({kept.low:.3f}–{kept.high:.3f}) of {kept.n:,}"
        rows.append([name, interval, *(_value(section[key]) for key in (_RECALL, _WITH_GATE, _PASSED, _TOKENS))])
    worst = "".join(
        f"\n  {name}: {_value(section[_KEPT])} of {section[_KEPT].n:,} flagged"
        for name, section in cascade.lossy[:_WORST]
    )
    return markdown_table(header, rows) + (f"\n\nslices in which the gate holds back most:{worst}" if worst else "")


def _value(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{estimate.value:.3f}"
