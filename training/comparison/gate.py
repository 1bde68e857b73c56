"""The rules: when a challenger is no worse, and when it is better somewhere.

Two kinds of questions are asked, and each needs its own kind of test.

*Shown no worse.* Recall at each operating point and calibration are few, and all of the prompts stand behind each. The
challenger must show that it is no worse: the lower one-sided 95 % bound of its gain lies over -margin. All of them must
hold, and a wrong promotion needs every one of the tests to err at once, so no correction for their number is due (the
intersection-union test: Berger 1982). Too little data therefore ends in a refusal, as it should.

*Not shown worse.* Slices are many and small. If each had to show that it is no worse, hardly any challenger would ever
pass, equal ones least of all. So a slice speaks against the challenger only where harm is shown: where the claim "not
worse by more than the margin" is rejected at 5 % after Holm's correction over all slices (Holm 1979, A simple
sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 65-70), which holds however the
slices overlap. The same goes for false-positive rates at shipped thresholds, over the points.

What has too few prompts is reported and decides nothing: a point at a rate needs 3 / rate organic prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference.artefact import Assay, OperatingPoint
from inference.decision import DISTILLATION

from ..evaluation.labelled import Measured
from ..metrics.intervals import Measures, exact_interval
from ..metrics.measures import ECE, decision_measures, probability_measures, ranking_measures
from ..metrics.ranking import rate_name
from .checks import GAIN, HARM, NO_BETTER, NOT_WORSE, Check, Decided, Kind, check_of
from .paired import ALPHA, Pair, Paired, fixed_rates, together

RATES = (0.05, 0.01, 0.001)
SUPPORT = 3
"""Organic prompts that a rate must let through for it to decide anything: the rule of three."""


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family of tests, adjusted so that any under 5 % stands with 95 % for all of them (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and none is under that of a smaller one.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted.tolist()


def supported(organic: int, fpr: float) -> bool:
    """Whether so many organic prompts can tell of this false-positive rate."""
    return organic * fpr >= SUPPORT - 1e-9


def fpr_margin(margin: float, fpr: float | None) -> float:
    """By how much a false-positive rate may rise: half of the rate that is aimed at, and never more than the margin."""
    return margin if fpr is None else min(margin, fpr / 2)


def not_worse(kind: Kind, name: str, found: Paired, margin: float) -> Check:
    """The check that demands a gain shown to be over -margin."""
    p = found.p_up_to(-margin)
    told = {"margin": margin, "claim": NOT_WORSE, "p": p}
    if p < ALPHA:
        return check_of(kind, name, found, "pass", f"shown to be less than {margin:g} worse, if at all", **told)
    change = f"from {found.champion:.3f} to {found.challenger:.3f}"
    room = f"chance leaves room for a loss of {abs(found.low):.3f} (one-sided 95 %)"
    why = f"not shown to be less than {margin:g} worse: {change}, and {room}"
    if found.gain > -margin:
        why += "; more prompts would tell"
    return check_of(kind, name, found, "fail", why, **told)


def overall(pair: Pair, margin: float) -> list[Check]:
    """Recall at equal false-positive rates, calibration, and whether anything is better.

    Recall is that at the lowest threshold which lets through the rate on these very prompts, for each artefact its own
    and in each draw anew: artefacts whose probabilities differ in scale are compared at one rate of false alarms.
    """
    organic, positive = int(pair.organic.sum()), int(pair.positive.sum())
    rates = sorted({*RATES, *_common_rates(pair.assays)}, reverse=True)
    measurable = [fpr for fpr in rates if organic * fpr >= 1]
    recalls = {f"recall_at_fpr_{rate_name(fpr)}": fpr for fpr in measurable}

    def of(measured: Measured, _: Assay) -> Measures:
        scores = measured.scores(DISTILLATION)
        return together(
            ranking_measures(scores, pair.positive, measurable), probability_measures(scores, measured.truth)
        )

    counts = dict.fromkeys(recalls, positive)
    counts |= dict.fromkeys(("roc_auc", "average_precision", "brier", ECE), organic + positive)
    found = pair.compare(of, counts, lower=("brier", ECE), centred=[ECE])
    checks = [_at_equal_rate(name, fpr, found[name], organic, margin) for name, fpr in recalls.items()]
    for fpr in rates:
        if fpr not in measurable:
            checks.append(Check("equal rate", _recall_name(fpr), "reported", _needs(fpr, organic), positive))
    checks.append(not_worse("calibration", "expected calibration error", found[ECE], margin))
    checks.append(not_worse("calibration", "Brier score", found["brier"], margin))
    wanted = {_recall_name(fpr): found[name] for name, fpr in recalls.items() if supported(organic, fpr)}
    names = {"area under ROC": "roc_auc", "average precision": "average_precision", "Brier score": "brier"}
    return checks + _better(wanted | {told: found[name] for told, name in names.items()})


def _common_rates(assays: tuple[Assay, Assay]) -> set[float]:
    """Rates that operating points of both artefacts aim at."""
    one, two = ({point.target_fpr for point in assay.operating_points.values()} for assay in assays)
    return {fpr for fpr in one & two if fpr}


def _at_equal_rate(name: str, fpr: float, found: Paired, organic: int, margin: float) -> Check:
    if supported(organic, fpr):
        return not_worse("equal rate", _recall_name(fpr), found, margin)
    return check_of("equal rate", _recall_name(fpr), found, "reported", _needs(fpr, organic), margin=margin)


def _recall_name(fpr: float) -> str:
    return f"recall at {fpr * 100:g} % false positives"


def _needs(fpr: float, organic: int) -> str:
    return f"too few to judge: needs {round(SUPPORT / fpr):,} organic prompts, and {organic:,} are there"


def _better(found: dict[str, Paired]) -> list[Check]:
    """Whether a gain over 0 is shown in any of these metrics."""
    p_values = [paired.p_up_to(0.0) for paired in found.values()]
    checks = []
    for (name, paired), p, adjusted in zip(found.items(), p_values, holm(p_values), strict=True):
        shown = adjusted < ALPHA
        change = f"{paired.champion:.3f} to {paired.challenger:.3f}"
        why = f"better, from {change}, and more than chance (Holm p {_told(adjusted)})" if shown else "not shown better"
        more = {"claim": NO_BETTER, "p": p, "adjusted_p": adjusted}
        decided: Decided = "pass" if shown else "reported"
        checks.append(check_of("better somewhere", f"{GAIN}{name}", paired, decided, why, **more))
    return checks


def _told(p: float) -> str:
    return "under 0.001" if p < 0.001 else f"{p:.3f}"


def shipped(pair: Pair, margin: float) -> list[Check]:
    """What the artefacts' own thresholds do here, for each operating point that both have.

    Of a point that aims at a rate:

    - Recall must be shown no worse. It is excused where the challenger flags fewer organic prompts here than the
      champion, and its own rate agrees with what it aims at (the exact 95 % interval reaches up to it): then the
      champion buys its recall with alarms, and recall at the equal rate decides.
    - The false-positive rate must not be shown to be higher by more than half the rate, nor by more than the margin.
    - A challenger that breaks its promise here (the exact 95 % interval of its rate lies wholly over the one that it
      was calibrated with) is refused if the champion keeps its own.

    `balanced` aims at no rate but at the best F1, which must be shown no worse; all else of it is reported.
    """
    champion, challenger = (assay.operating_points for assay in pair.assays)
    names = [name for name in champion if name in challenger]
    n, organic = {"recall": int(pair.positive.sum())}, int(pair.organic.sum())
    n |= {"false-positive rate": organic, "F1": n["recall"] + organic}

    def of(measured: Measured, assay: Assay) -> Measures:
        return together(*(_point_measures(pair, measured, name, assay.operating_points[name]) for name in names))

    found = pair.compare(
        of,
        {f"{name}: {metric}": count for name in names for metric, count in n.items()},
        lower=[f"{name}: false-positive rate" for name in names],
    )
    checks: list[Check] = []
    for name in names:
        recall, f1 = f"{name}: recall", f"{name}: F1"
        points = (champion[name], challenger[name])
        rates = found[f"{name}: false-positive rate"]
        checks.append(_recall_at(recall, found[recall], rates, points, margin))
        if points[0].target_fpr is None:
            checks.append(not_worse("shipped threshold", f1, found[f1], margin))
        checks.append(_promise(name, points, rates))
    checks += _alarms(found, names, pair, margin)
    return sorted(checks, key=lambda check: names.index(check.name.split(":")[0]))


def _point_measures(pair: Pair, measured: Measured, name: str, point: OperatingPoint) -> Measures:
    flagged = measured.scores(DISTILLATION) >= point.thresholds[DISTILLATION]
    rates = fixed_rates(flagged, {f"{name}: recall": pair.positive, f"{name}: false-positive rate": pair.organic})
    f1 = decision_measures(flagged, pair.positive)
    return together(rates, lambda weights: {f"{name}: F1": f1(weights)["f1"]})


def _recall_at(
    name: str, found: Paired, rates: Paired, points: tuple[OperatingPoint, OperatingPoint], margin: float
) -> Check:
    target = points[1].target_fpr
    check = not_worse("shipped threshold", name, found, margin)
    if target is None or points[0].target_fpr is None:
        why = "the point aims at no false-positive rate; F1 decides"
    elif not supported(rates.n, target):
        why = _needs(target, rates.n)
    elif check.decided == "fail" and rates.gain > 0 and _interval(rates.challenger, rates.n)[1] >= target:
        told = f"{rates.challenger:.2%} of the organic prompts against {rates.champion:.2%}"
        why = f"lower, but so are its false alarms ({told}), as promised; recall at the equal rate decides"
    else:
        return check
    return check_of("shipped threshold", name, found, "reported", why, margin=margin, claim=NOT_WORSE, p=check.p)


def _interval(rate: float, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate among `n` prompts."""
    return exact_interval(round(rate * n), n)


def _promise(name: str, points: tuple[OperatingPoint, OperatingPoint], rates: Paired) -> Check:
    """Whether each artefact keeps the rate here that it was calibrated with."""
    broken = [
        bool(point.n_organic) and _interval(rate, rates.n)[0] > point.fpr_high
        for point, rate in zip(points, (rates.champion, rates.challenger), strict=True)
    ]
    told = f"{rates.challenger:.2%} of the organic prompts are flagged"
    promised = f"{points[1].fpr_high:.2%} at most was promised"
    decided: Decided = "reported"
    if points[1].target_fpr is None:
        why = f"the point aims at no false-positive rate; F1 decides ({told}, {promised})"
    elif broken[1] and not broken[0]:
        decided = "fail"
        why = f"the challenger breaks its promise and the champion keeps its own: {told}, {promised}"
    elif broken[1]:
        why = f"both break their promise here: {told}, {promised}; set thresholds on your own traffic"
    elif not points[1].n_organic:
        why = "the challenger's threshold was set on no organic prompts and promises nothing"
    else:
        decided, why = "pass", f"kept: {told}, {promised}"
    figures = (rates.n, rates.champion, rates.challenger)
    return Check("shipped threshold", f"{name}: promised rate", decided, why, *figures, higher=False)


def _alarms(found: dict[str, Paired], names: Sequence[str], pair: Pair, margin: float) -> list[Check]:
    """False-positive rates at the shipped thresholds: none may be shown to be higher (Holm over the points)."""
    judged: dict[str, tuple[Paired, float]] = {}
    checks = []
    for name in names:
        told = f"{name}: false-positive rate"
        target = pair.assays[1].operating_points[name].target_fpr
        limit = fpr_margin(margin, target)
        if target is None:
            why = "the point aims at no false-positive rate; F1 decides"
        elif not supported(found[told].n, target):
            why = _needs(target, found[told].n)
        else:
            judged[told] = (found[told], limit)
            continue
        checks.append(check_of("shipped threshold", told, found[told], "reported", why, margin=limit))
    return [*no_harm("shipped threshold", judged), *checks]


def no_harm(kind: Kind, judged: dict[str, tuple[Paired, float]]) -> list[Check]:
    """The checks that fail where a loss of more than the margin is shown, after Holm's correction over all of them.

    Args:
        kind: of the checks.
        judged: by name the metric of both artefacts, and the margin.
    """
    p_values = [paired.p_from(-margin) for paired, margin in judged.values()]
    checks = []
    for (name, (paired, margin)), p, adjusted in zip(judged.items(), p_values, holm(p_values), strict=True):
        change = f"from {paired.champion:.3f} to {paired.challenger:.3f}"
        if adjusted < ALPHA:
            why = f"worse by more than {margin:g}, {change}, and more than chance (Holm p {_told(adjusted)})"
        elif paired.gain < -margin:
            why = f"worse by more than {margin:g}, {change}, which chance may explain (Holm p {_told(adjusted)})"
        else:
            why = f"not worse by more than {margin:g}"
        more = {"margin": margin, "claim": HARM, "p": p, "adjusted_p": adjusted}
        checks.append(check_of(kind, name, paired, "fail" if adjusted < ALPHA else "pass", why, **more))
    return checks
