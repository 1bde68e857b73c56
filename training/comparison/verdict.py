"""What a comparison found: all checks, the rows that flipped, and the verdict that follows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.artefact import Assay

from .checks import CAPABILITY, GAIN, Check, checks_table, worst_first

_WORST_SLICES = 5


@dataclass(frozen=True, slots=True)
class Flip:
    """A prompt that one artefact flags at its default operating point, and the other does not."""

    id: str
    source: str
    positive: bool
    champion: float
    challenger: float
    flagged: bool
    """By the challenger."""
    text: str

    @property
    def good(self) -> bool:
        """Whether the challenger is the one that is right."""
        return self.flagged == self.positive

    @property
    def change(self) -> float:
        """By how much the probability of distillation moved."""
        return abs(self.challenger - self.champion)

    def to_json(self, show_text: bool) -> dict[str, Any]:
        """As it stands in `comparison.json`; the prompt's text only if asked for."""
        row = {
            "id": self.id,
            "source": self.source,
            "truth": "distillation" if self.positive else "organic",
            "champion": self.champion,
            "challenger": self.challenger,
            "flagged_by": "challenger" if self.flagged else "champion",
            "direction": "good" if self.good else "bad",
        }
        return row | ({"text": self.text} if show_text else {})


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two artefacts: its folder, what it says of itself, and what of the data shaped it."""

    path: Path
    assay: Assay
    seen: dict[str, int] | None
    """How many of the records shaped it, by its split; None where it does not say what it has seen."""

    @property
    def fingerprint(self) -> str:
        """Of the artefact."""
        return self.assay.fingerprint

    def to_json(self) -> dict[str, Any]:
        """As it stands in `comparison.json`."""
        return {
            "path": str(self.path),
            "fingerprint": self.fingerprint,
            "default_operating_point": self.assay.default_point,
            "seen": self.seen,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger may take the champion's place, and all that it follows from."""

    champion: Side
    challenger: Side
    counts: dict[str, int]
    """Prompts by what they are: `organic`, `distillation`, and left out `ambiguous` and `unknown`."""
    margin: float
    checks: list[Check]
    small: list[dict[str, Any]]
    """Slices that are too small to judge."""
    flips: list[Flip]
    notes: list[str] = field(default_factory=list)
    alike: bool = False
    """Whether both give every prompt the same probability."""
    link: Path | None = None
    """The link that points at the challenger if it is promoted."""

    @property
    def promote(self) -> bool:
        """Nothing is worse, and something is better."""
        return bool(not self.failed and self.better)

    @property
    def failed(self) -> list[Check]:
        """What the challenger is refused for."""
        return [check for check in self.checks if check.decided == "fail"]

    @property
    def better(self) -> list[Check]:
        """Where the challenger is shown to be better."""
        return [check for check in self.checks if check.kind == "better somewhere" and check.decided == "pass"]

    @property
    def headline(self) -> str:
        """The verdict with its reason, in a sentence."""
        decided = [check for check in self.checks if check.decided != "reported" and check.kind != "better somewhere"]
        if self.promote:
            where = ", ".join(check.name.removeprefix(GAIN) for check in self.better)
            return f"PROMOTE: no worse in any of {len(decided)} checks, and better somewhere ({where})."
        if self.alike:
            return "REFUSE: both artefacts give every prompt the same probability, so the challenger is nowhere better."
        if self.failed:
            first = self.failed[0]
            more = f", and {len(self.failed) - 1} more" if len(self.failed) > 1 else ""
            return f"REFUSE: {len(self.failed)} of {len(decided)} checks failed ({first.name}{more})."
        return f"REFUSE: no worse in any of {len(decided)} checks, but nowhere better."

    @property
    def reasons(self) -> list[str]:
        """Why, one sentence for each reason."""
        if self.promote:
            return [f"{check.name}: {check.why}" for check in self.better]
        reasons = [f"{check.name}: {check.why}" for check in self.failed]
        if not self.better:
            reasons.append("better somewhere: in none of the metrics is a gain shown (one-sided 95 %, Holm)")
        return reasons

    @property
    def flip_counts(self) -> dict[str, int]:
        """Flipped rows by what changed for them."""
        kinds = Counter((flip.positive, flip.flagged) for flip in self.flips)
        return {
            "found anew": kinds[True, True],
            "lost": kinds[True, False],
            "false alarms less": kinds[False, False],
            "false alarms more": kinds[False, True],
        }

    def to_json(self, show_text: bool = False) -> dict[str, Any]:
        """The content of `comparison.json`."""
        return {
            "verdict": "promote" if self.promote else "refuse",
            "headline": self.headline,
            "reasons": self.reasons,
            "notes": self.notes,
            "champion": self.champion.to_json(),
            "challenger": self.challenger.to_json(),
            "counts": self.counts,
            "margin": self.margin,
            "checks": [check.to_json() for check in self.checks],
            "slices_too_small": self.small,
            "flip_counts": self.flip_counts,
            "flips": [flip.to_json(show_text) for flip in self.flips],
        }

    def text(self) -> str:
        """For a terminal: the verdict and its reasons, the checks, how many rows flipped."""
        parts = [
            "\n".join([self.headline, *(f"  {reason}" for reason in self.reasons)]),
            f"champion   {self.champion.path} ({self.champion.fingerprint})\n"
            f"challenger {self.challenger.path} ({self.challenger.fingerprint})\n"
            f"{self.counts['organic']:,} organic and {self.counts['distillation']:,} distillation-style prompts",
            *(["\n".join(f"note: {note}" for note in self.notes)] if self.notes else []),
            checks_table([check for check in self.checks if _is_told(check)]),
            self._slices_text(),
            self._flips_text(),
        ]
        if self.promote and self.link:
            parts.append(f"{self.link} now points at {self.challenger.path}")
        return "\n\n".join(part for part in parts if part)

    def _slices_text(self) -> str:
        slices = [check for check in self.checks if check.kind == "slice"]
        small = f"{len(self.small)} slices are too small to judge" if self.small else ""
        if not slices:
            return small or "no slices"
        shown = [check for check in worst_first(slices) if check.decided == "fail"]
        shown += [check for check in worst_first(slices) if check.decided != "fail"][:_WORST_SLICES]
        rest = f"{len(slices) - len(shown)} more slices held" if len(slices) > len(shown) else ""
        told = "; ".join(part for part in (rest, small) if part)
        return checks_table(shown, "slice, the worst first") + (f"\n{told}" if told else "")

    def _flips_text(self) -> str:
        told = ", ".join(f"{count:,} {name}" for name, count in self.flip_counts.items())
        return f"{len(self.flips):,} prompts are decided otherwise at the default operating points: {told}"


def _is_told(check: Check) -> bool:
    """Whether a terminal shows it: slices stand apart, and of the capabilities only those that failed."""
    return check.kind != "slice" and not (check.name.startswith(CAPABILITY) and check.decided != "fail")
