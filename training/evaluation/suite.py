"""The functional suite: named capabilities, each a handful of prompts and what must hold for them.

A figure over a test set says how good a classifier is on the whole and hides what it cannot do. Behavioural tests in
the manner of CheckList (Ribeiro et al., ACL 2020) and HateCheck (Röttger et al., ACL 2021) ask one thing at a time:
does one clause turn the decision, does a typo leave it alone, does an encoding hide what is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from data.config import Config, load_config
from data.reading import load_records
from data.records import Record
from data.summary import markdown_table
from inference import PromptClassifier
from inference.decision import Prediction

from ..encode import DataError
from ..metrics.intervals import Estimate, rate_estimate

CAPABILITIES_FILE = "capabilities.yaml"
SHIPPED = Path(__file__).parent.parent.parent / "data" / "seed" / "suite"
SECTION = "functional suite"
WEAKEST = 10

Area = Literal["basics", "hard negatives", "minimal pairs", "invariances", "evasions", "languages"]


class Capability(Config):
    """One thing that the classifier must be able to do."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="also the name of its file of prompts")
    area: Area
    kind: Literal["decision", "pair", "invariance"] = Field(
        description="decision: each prompt is decided as labelled; pair: both prompts of a case are; "
        "invariance: each variant is decided as its base"
    )
    what: str = Field(description="a sentence that says what must hold")
    must_pass: bool = Field(False, description="a new artefact that does worse here is not promoted")


class CapabilityList(Config):
    """The file `capabilities.yaml`."""

    capabilities: list[Capability] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Failure:
    """A prompt for which something did not hold: what was expected of it, and its probability of distillation."""

    prompt: str
    expected: Literal["flagged", "not flagged", "as its base"]
    probability: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A capability, whether each of its tests passed, in order, and the prompts that failed one."""

    capability: Capability
    held: tuple[bool, ...]
    failures: tuple[Failure, ...]

    @property
    def passed(self) -> int:
        """Tests that passed."""
        return sum(self.held)

    @property
    def tests(self) -> int:
        """All tests."""
        return len(self.held)

    @property
    def rate(self) -> Estimate:
        """The share that passed, with the exact binomial interval."""
        return rate_estimate(self.passed, self.tests)


@dataclass(frozen=True, slots=True)
class Suite:
    """Capabilities and the prompts of each, in the order of the list."""

    capabilities: list[Capability]
    prompts: dict[str, list[Record]]


def load_suite(folder: Path) -> Suite:
    """A suite: `capabilities.yaml` and one `NAME.jsonl` for each capability.

    Raises:
        ConfigError: the list of capabilities has faults.
        DataError: a file of prompts is missing or has faults, or a case is not whole.
    """
    capabilities = load_config(folder / CAPABILITIES_FILE, CapabilityList).capabilities
    prompts: dict[str, list[Record]] = {}
    for capability in capabilities:
        path = folder / f"{capability.name}.jsonl"
        if not path.is_file():
            raise DataError(f"{path}: missing, though {CAPABILITIES_FILE} names the capability")
        records, faults = load_records([path])
        if faults:
            raise DataError("\n".join(map(str, faults)))
        prompts[capability.name] = records
        for flaw in _flaws(capability, records):
            raise DataError(f"{path}: {flaw}")
    return Suite(capabilities, prompts)


def _flaws(capability: Capability, records: Sequence[Record]) -> list[str]:
    if capability.kind == "decision":
        return []
    flaws = []
    for name, places in _cases(records).items():
        rows = [records[i] for i in places]
        roles = Counter(record.extra.get("role") for record in rows)
        if roles["base"] != 1 or set(roles) != {"base", "variant"}:
            flaws.append(f"case {name} needs one base and its variants, and has {dict(roles)}")
        elif capability.kind == "pair" and len({bool(record.labels) for record in rows}) != 2:
            flaws.append(f"case {name} is a pair and needs an organic prompt and another")
        elif capability.kind == "invariance" and len({record.labels for record in rows}) != 1:
            flaws.append(f"case {name} is an invariance and needs the same labels on all its prompts")
    return flaws


def _cases(records: Sequence[Record]) -> dict[str, list[int]]:
    """The places of each case's prompts."""
    cases: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        cases.setdefault(str(record.extra.get("case")), []).append(i)
    return cases


def run_suite(classifier: PromptClassifier, suite: Suite) -> list[Outcome]:
    """Score the suite at the artefact's default operating point, and count what holds."""
    records = [record for capability in suite.capabilities for record in suite.prompts[capability.name]]
    predictions = iter(classifier.classify([record.prompt for record in records]))
    outcomes = []
    for capability in suite.capabilities:
        rows = [(record, next(predictions)) for record in suite.prompts[capability.name]]
        outcomes.append(_outcome(capability, rows))
    return outcomes


def _outcome(capability: Capability, rows: Sequence[tuple[Record, Prediction]]) -> Outcome:
    """Tests are prompts of a decision, pairs, and variants of an invariance."""
    right = [prediction.flagged == bool(record.labels) for record, prediction in rows]
    wrong = [i for i, held in enumerate(right) if not held]
    if capability.kind == "decision":
        held = right
    elif capability.kind == "pair":
        held = [all(right[i] for i in case) for case in _cases([record for record, _ in rows]).values()]
    else:
        held, wrong = [], []
        for case in _cases([record for record, _ in rows]).values():
            base = next(i for i in case if rows[i][0].extra["role"] == "base")
            for i in case:
                if i != base:
                    held.append(rows[i][1].flagged == rows[base][1].flagged)
                    wrong += [] if held[-1] else [i]
    return Outcome(capability, tuple(held), tuple(_failure(capability, *rows[i]) for i in wrong))


def _failure(capability: Capability, record: Record, prediction: Prediction) -> Failure:
    if capability.kind == "invariance":
        return Failure(record.rendered, "as its base", prediction.distillation)
    return Failure(record.rendered, "flagged" if record.labels else "not flagged", prediction.distillation)


def suite_sections(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Estimate]]:
    """For `metrics.json`: the whole suite, each area, and each capability, as shares of tests that passed."""
    areas = list(dict.fromkeys(outcome.capability.area for outcome in outcomes))
    whole = {"pass_rate": _together(outcomes)}
    whole |= {area: _together([x for x in outcomes if x.capability.area == area]) for area in areas}
    return {SECTION: whole} | {f"capability {x.capability.name}": {"pass_rate": x.rate} for x in outcomes}


def _together(outcomes: Sequence[Outcome]) -> Estimate:
    return rate_estimate(sum(x.passed for x in outcomes), sum(x.tests for x in outcomes))


def suite_table(outcomes: Sequence[Outcome]) -> str:
    """Areas, and the weakest capabilities, as Markdown tables for a terminal."""
    sections = suite_sections(outcomes)
    areas = [[name.replace("_", " "), *_cells(estimate)] for name, estimate in sections[SECTION].items()]
    weakest = sorted(outcomes, key=lambda x: (x.passed / x.tests, x.capability.name))[:WEAKEST]
    rows = [[x.capability.name, x.capability.area, *_cells(x.rate)] for x in weakest]
    return (
        markdown_table(["functional suite", "passed", "tests"], areas)
        + f"\n\n{len(weakest)} weakest of {len(outcomes)} capabilities:\n\n"
        + markdown_table(["capability", "area", "passed", "tests"], rows)
    )


def _cells(estimate: Estimate) -> tuple[str, str]:
    return ("–" if estimate.value is None else f"{estimate.value:.0%}", str(estimate.n))
