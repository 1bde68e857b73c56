"""One thing that was compared, with its figures and its outcome, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data.summary import markdown_table

from .paired import Paired

Kind = Literal["equal rate", "shipped threshold", "slice", "suite", "calibration", "better somewhere"]
Decided = Literal["pass", "fail", "reported"]
KINDS: dict[Kind, str] = {
    "equal rate": "Recall at equal false-positive rates",
    "shipped threshold": "At the thresholds that each artefact ships",
    "slice": "Slices",
    "suite": "Functional suite",
    "calibration": "Calibration",
    "better somewhere": "Better somewhere",
}
"""The kinds of checks in the order in which they are told, with a heading for each."""
CAPABILITY = "capability "
GAIN = "gain in "
NOT_WORSE = "worse by the margin or more"
HARM = "not worse by more than the margin"
NO_FEWER = "no more tests lost than won"
NO_BETTER = "not better"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared.

    `gain`, `low` and `high` are so signed that over 0 the challenger is better; `low` and `high` are one-sided 95 %
    bounds each. `claim` is what the p-value speaks against. Whatever could not be measured is None, and `why` says it.
    """

    kind: Kind
    name: str
    decided: Decided
    why: str
    n: int
    champion: float | None = None
    challenger: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    higher: bool = True
    margin: float | None = None
    claim: str | None = None
    p: float | None = None
    adjusted_p: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in `comparison.json`: `difference` is challenger - champion, whichever of them is better."""
        low, high = (self.low, self.high) if self.higher else (_minus(self.high), _minus(self.low))
        return {
            "name": self.name,
            "kind": self.kind,
            "better": "higher" if self.higher else "lower",
            "champion": self.champion,
            "challenger": self.challenger,
            "difference": self.gain if self.higher else _minus(self.gain),
            "low": low,
            "high": high,
            "margin": self.margin,
            "claim": self.claim,
            "p": self.p,
            "adjusted_p": self.adjusted_p,
            "n": self.n,
            "decided": self.decided,
            "why": self.why,
        }


def check_of(kind: Kind, name: str, paired: Paired, decided: Decided, why: str, **more: Any) -> Check:
    """A check with the figures of a paired metric."""
    return Check(
        kind,
        name,
        decided,
        why,
        paired.n,
        paired.champion,
        paired.challenger,
        paired.gain,
        paired.low,
        paired.high,
        paired.higher,
        **more,
    )


def _minus(value: float | None) -> float | None:
    return None if value is None else 0.0 - value


def worst_first(checks: Sequence[Check]) -> list[Check]:
    """Checks by how far they lie under their margin."""
    return sorted(checks, key=lambda x: ((x.gain or 0.0) + (x.margin or 0.0), x.name))


def checks_table(checks: Sequence[Check], title: str = "check") -> str:
    """Checks as a Markdown table for a terminal."""
    rows = [
        [check.name, figure(check.champion), figure(check.challenger), change(check), p_value(check), check.decided]
        for check in checks
    ]
    header = [title, "champion", "challenger", "difference (one-sided 95 % bounds)", "p (Holm)", "outcome"]
    return markdown_table(header, rows)


def figure(value: float | None) -> str:
    """A share as `0.412`."""
    return "–" if value is None else f"{value:.3f}"


def change(check: Check) -> str:
    """Challenger - champion with its bounds, as `+0.031 (+0.008 to +0.052)`."""
    row = check.to_json()
    if row["difference"] is None:
        return "–"
    bounds = "" if row["low"] is None else f" ({_signed(row['low'])} to {_signed(row['high'])})"
    return _signed(row["difference"]) + bounds


def _signed(value: float) -> str:
    """Three digits, or four where three would hide it."""
    digits = 3 if round(value, 3) else 4
    return f"{value:+.{digits}f}" if round(value, digits) else "0.000"


def p_value(check: Check) -> str:
    """The p-value, that of Holm where there is one."""
    value = check.adjusted_p if check.adjusted_p is not None else check.p
    if value is None:
        return ""
    return "under 0.001" if value < 0.001 else f"{value:.3f}"
