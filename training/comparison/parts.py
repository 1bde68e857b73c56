"""Parts that are judged one by one: slices of the data, and the capabilities of the functional suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from scipy.stats import binom

from inference.artefact import Assay
from inference.decision import DISTILLATION

from ..evaluation.labelled import Measured
from ..evaluation.slices import Part, parts_of
from ..evaluation.suite import Outcome
from ..metrics.intervals import MIN_CLUSTERS, Measures
from .checks import CAPABILITY, NO_FEWER, Check
from .gate import fpr_margin, holm, no_harm, supported
from .paired import ALPHA, Pair, Paired, moving_rates

LEAST_PROMPTS = 200
LEAST_POSITIVE = 50
POOLED = "must-pass tests together"


def slices(pair: Pair, margin: float) -> tuple[list[Check], list[dict[str, Any]]]:
    """Recall and false-positive rate of each large slice, and the slices that are too small to judge.

    Each artefact decides at its own threshold that lets through 1 % of all organic prompts (5 % where fewer than 300
    are there), found anew in each draw. A slice's recall is judged with 200 prompts of which 50 are positive, its
    false-positive rate with 200 organic ones; 10 clusters must stand behind either. Holm's correction goes over all.
    """
    rate = 0.01 if supported(int(pair.organic.sum()), 0.01) else 0.05
    # Windows are counted by the artefact that is in use; the two may cut differently.
    parts = parts_of(pair.champion)
    recalls = {_name(part, "recall"): part.chosen & pair.positive for part in parts if _recall_counts(pair, part)}
    alarms = {_name(part, "false-positive rate"): part.chosen & pair.organic for part in parts if _alarms(pair, part)}
    small = [
        {
            "slice": part.name,
            "distillation": int((part.chosen & pair.positive).sum()),
            "organic": int((part.chosen & pair.organic).sum()),
        }
        for part in parts
        if _name(part, "recall") not in recalls and _name(part, "false-positive rate") not in alarms
    ]
    if not recalls and not alarms:
        return [], small

    def of(measured: Measured, _: Assay) -> Measures:
        return moving_rates(measured.scores(DISTILLATION), pair.organic, rate, recalls | alarms)

    counts = {name: int(chosen.sum()) for name, chosen in (recalls | alarms).items()}
    found = pair.compare(of, counts, lower=alarms)
    margins = dict.fromkeys(recalls, margin) | dict.fromkeys(alarms, fpr_margin(margin, rate))
    judged: dict[str, tuple[Paired, float]] = {name: (found[name], margins[name]) for name in found}
    return no_harm("slice", judged), small


def _name(part: Part, metric: str) -> str:
    return f"{part.name}: {metric}"


def _recall_counts(pair: Pair, part: Part) -> bool:
    positive = part.chosen & pair.positive
    large = part.chosen.sum() >= LEAST_PROMPTS and positive.sum() >= LEAST_POSITIVE
    return bool(large) and pair.bootstrap.clusters_in(positive) >= MIN_CLUSTERS


def _alarms(pair: Pair, part: Part) -> bool:
    organic = part.chosen & pair.organic
    return bool(organic.sum() >= LEAST_PROMPTS) and pair.bootstrap.clusters_in(organic) >= MIN_CLUSTERS


def suite(champion: Sequence[Outcome], challenger: Sequence[Outcome], margin: float) -> list[Check]:
    """The must-pass capabilities together, and each capability.

    The suite is a fixed list and no sample, so the share of all must-pass tests is compared as it is: it may not fall
    by more than the margin. A single capability has 10 to 30 tests, of which one more or less tells nothing: it counts
    as fallen where tests were lost more often than won beyond chance, by the exact one-sided sign test over the tests
    that changed (McNemar 1947), after Holm's correction over the must-pass capabilities. The others are reported.
    """
    if not champion:
        return []
    pairs = list(zip(champion, challenger, strict=True))
    p_values = [lost_more(one.held, two.held) for one, two in pairs]
    must = [i for i, (one, _) in enumerate(pairs) if one.capability.must_pass]
    adjusted: dict[int, float] = dict(zip(must, holm([p_values[i] for i in must]), strict=True)) if must else {}
    checks = [_pooled([pairs[i] for i in must], margin)]
    return checks + [_capability(*pair, p_values[i], adjusted.get(i)) for i, pair in enumerate(pairs)]


def lost_more(before: Sequence[bool], after: Sequence[bool]) -> float:
    """One-sided p-value of the claim that no more tests were lost than won: the exact sign test (McNemar 1947).

    Of tests that changed, as many are lost as won if nothing but chance is at work: Binomial(changed, 1/2).
    """
    lost = sum(one and not two for one, two in zip(before, after, strict=True))
    won = sum(two and not one for one, two in zip(before, after, strict=True))
    return float(binom.sf(lost - 1, lost + won, 0.5))


def _pooled(pairs: Sequence[tuple[Outcome, Outcome]], margin: float) -> Check:
    tests = sum(one.tests for one, _ in pairs)
    if not tests:
        return Check("suite", POOLED, "reported", "the suite names no must-pass capability", 0)
    before, after = (sum(pair[side].passed for pair in pairs) / tests for side in (0, 1))
    told = f"{before:.1%} to {after:.1%} of {tests:,} tests in {len(pairs)} capabilities"
    failed = after - before < -margin - 1e-9
    why = f"fell by more than {margin:g}, from {told}" if failed else f"from {told}"
    check = Check("suite", POOLED, "fail" if failed else "pass", why, tests, before, after, after - before)
    return replace(check, margin=margin)


def _capability(one: Outcome, two: Outcome, p: float, adjusted: float | None) -> Check:
    """A check of one capability; `adjusted` is None where it need not pass."""
    tests = one.tests
    fell = adjusted is not None and adjusted < ALPHA
    why = f"{one.passed} of {tests} tests passed, now {two.passed}"
    if fell:
        why += f", more than chance (sign test, Holm p {adjusted:.3f})"
    elif adjusted is None:
        why += "; not a must-pass capability"
    before, after = one.passed / tests, two.passed / tests
    return Check(
        "suite",
        f"{CAPABILITY}{one.capability.name}",
        "fail" if fell else "reported" if adjusted is None else "pass",
        why,
        tests,
        before,
        after,
        after - before,
        claim=NO_FEWER,
        p=p,
        adjusted_p=adjusted,
    )
