"""The page of a comparison: HTML that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..comparison.checks import CAPABILITY, KINDS, Check, Kind, change, figure, p_value, worst_first
from ..comparison.parts import LEAST_POSITIVE, LEAST_PROMPTS
from ..comparison.verdict import Verdict
from ..metrics.intervals import MIN_CLUSTERS
from .templates import TEMPLATES

MOST_FLIPS = 200
_WIDTH, _EDGE = 180.0, 6.0
_NOTES: dict[Kind, str] = {
    "equal rate": "Recall over the lowest threshold that lets through the rate on these very prompts, for each "
    "artefact its own, and in each draw anew. The lower bound of the difference must lie over the margin (dashed).",
    "shipped threshold": "Recall must be shown no worse, unless the challenger flags fewer organic prompts and keeps "
    "to its rate: then recall at the equal rate decides. The false-positive rate must not be shown to be higher by "
    "more than half of the rate. A challenger that breaks the rate it was calibrated with is refused if the champion "
    "keeps its own. The balanced point aims at no rate, and F1 decides.",
    "slice": "Each at the threshold that lets through 1 % of all organic prompts together (5 % where fewer than 300 "
    f"are there). Recall is judged in slices of {LEAST_PROMPTS} prompts with {LEAST_POSITIVE} positives, the "
    f"false-positive rate in those of {LEAST_PROMPTS} organic ones, if {MIN_CLUSTERS} clusters stand behind it. A "
    "slice counts against the challenger where a loss of more than the margin is shown after Holm's correction over "
    "all slices.",
    "suite": "At each artefact's default operating point. The must-pass tests together may not fall by more than the "
    "margin, and no must-pass capability may fall beyond chance (exact sign test, Holm).",
    "calibration": "Errors of the probability of distillation; less is better. Each must be shown to be no worse.",
    "better somewhere": "At least one gain must be shown to be over 0, after Holm's correction over these metrics.",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A gain and its bounds in pixels, the better to the right; what is not there is None."""

    gain: float
    low: float | None
    high: float | None
    margin: float | None

    @property
    def zero(self) -> float:
        """Where the two artefacts are equal."""
        return _WIDTH / 2


Row = tuple[Check, Picture | None]


@dataclass(frozen=True, slots=True)
class Group:
    """Checks of one kind with their pictures: those that are shown at once, and those that a reader unfolds."""

    title: str
    note: str
    shown: list[Row]
    folded: list[Row]


def comparison_page(verdict: Verdict, data: Sequence[str], show_text: bool = False) -> str:
    """A self-contained page: the verdict and why, every check with a picture of its interval, the rows that flipped."""
    return TEMPLATES.get_template("comparison.html").render(
        verdict=verdict,
        data=data,
        groups=[group for kind in KINDS if (group := _group(kind, verdict.checks)).shown or group.folded],
        width=_WIDTH,
        flips=verdict.flips[:MOST_FLIPS],
        show_text=show_text,
        least=(LEAST_PROMPTS, LEAST_POSITIVE),
        figure=figure,
        change=change,
        p_value=p_value,
    )


def _group(kind: Kind, checks: Sequence[Check]) -> Group:
    """Of slices and capabilities those that failed or lost stand at once; of all other kinds all."""
    own = [check for check in checks if check.kind == kind]
    if kind == "slice":
        own = worst_first(own)
        shown = [check for check in own if check.decided == "fail" or (check.gain or 0) < -(check.margin or 0)]
    elif kind == "suite":
        shown = [check for check in own if check.decided == "fail" or not check.name.startswith(CAPABILITY)]
    else:
        shown = own
    folded = [check for check in own if check not in shown]
    if kind == "suite":
        folded = worst_first(folded)
    scales = _scales(own)
    rows = [[(check, _picture(check, scales[check.higher])) for check in part] for part in (shown, folded)]
    return Group(KINDS[kind], _NOTES[kind], *rows)


def _scales(checks: Sequence[Check]) -> dict[bool, float]:
    """The gain at the edge of the pictures: one for all checks of a kind and a direction, so that rows compare."""
    scales: dict[bool, float] = {}
    for check in checks:
        ends = [abs(value) for value in (check.gain, check.low, check.high) if value is not None]
        widest = max([*ends, 1.5 * (check.margin or 0.0), 1e-6])
        scales[check.higher] = max(scales.get(check.higher, 0.0), widest)
    return scales


def _picture(check: Check, scale: float) -> Picture | None:
    if check.gain is None:
        return None

    def at(value: float | None) -> float | None:
        return None if value is None else _WIDTH / 2 + (_WIDTH / 2 - _EDGE) * value / scale

    margin = None if check.margin is None else -check.margin
    return Picture(_WIDTH / 2 + (_WIDTH / 2 - _EDGE) * check.gain / scale, at(check.low), at(check.high), at(margin))
