"""The rules of a comparison: the paired bootstrap against plain counting, Holm, and what each check refuses."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from data.records import Record
from inference.artefact import OperatingPoint, load_artefact
from inference.decision import DISTILLATION, Prediction
from training.comparison.checks import Check
from training.comparison.gate import fpr_margin, holm, overall, shipped, supported
from training.comparison.paired import Pair, Paired, fixed_rates, moving_rates
from training.comparison.parts import lost_more, slices, suite
from training.evaluation.labelled import Measured
from training.evaluation.suite import Capability, Outcome
from training.metrics.intervals import ClusterBootstrap, exact_interval
from training.metrics.ranking import Ranking

LABEL = ("capability_sweep",)
GAINS = st.lists(st.integers(-9, 9), min_size=40, max_size=200)
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def assay(artefact):
    return load_artefact(artefact)


def point(threshold, fpr=0.01, n=1000):
    """An operating point that kept exactly its rate where it was set."""
    alarms = int(n * (fpr or 0.05))
    thresholds = {DISTILLATION: threshold, "capability_sweep": threshold}
    return OperatingPoint(thresholds, fpr, n, alarms, *exact_interval(alarms, n))


def measured(scores, positive, sources=None, clusters=None):
    n = len(scores)
    sources = ["all"] * n if sources is None else sources
    records = [
        Record(LABEL if yes else (), source, text=f"prompt {i}", id=f"r{i}")
        for i, (yes, source) in enumerate(zip(positive, sources, strict=True))
    ]
    predictions = [Prediction({}, float(score), [], False, False, 9, 1, False, (0, 1)) for score in scores]
    clusters = np.arange(n) if clusters is None else clusters
    return Measured(records, predictions, np.array(positive, float)[:, None], clusters)


def pair_of(assay, champion, challenger, positive, points=None, sources=None):
    """A pair of artefacts with these scores `[n]`, and an operating point `fpr-1pct` of each."""
    points = points or (point(0.9), point(0.9))
    assays = tuple(replace(assay, operating_points={"fpr-1pct": one}) for one in points)
    return Pair(measured(champion, positive, sources), measured(challenger, positive, sources), assays)


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def some_scores(n=2000, gain=0.0, seed=0, share=0.4):
    """Scores of a champion and of a challenger that is better by `gain` standard deviations, and the truth."""
    rng = RNG(seed)
    positive = rng.random(n) < share
    common = rng.normal(size=n)
    both = []
    for extra in (0.0, gain):
        z = (2 + extra) * positive + 0.9 * common + 0.44 * rng.normal(size=n)
        both.append(1 / (1 + np.exp(-2 * (z - 1.5))))
    return (*both, positive)


# ---- the paired bootstrap ----


@given(GAINS, st.integers(-9, 9))
def test_a_bound_is_over_a_limit_where_its_p_value_is_small(gains, limit):
    draws = np.sort(np.array(gains, float))
    one = Paired(0.0, float(np.median(draws)), draws, 10)
    share = (1 + (draws <= limit).sum()) / (1 + len(draws))
    if share > 1 / (1 + len(draws)):
        assert one.p_up_to(limit) == pytest.approx(share)
        assert (one.low > limit) == (share < 0.05)
    assert one.p_up_to(limit) <= share
    mirrored = Paired(0.0, -one.gain, np.sort(-draws), 10)
    assert mirrored.p_from(-limit) == pytest.approx(one.p_up_to(limit)) and mirrored.high == -one.low


def test_a_tail_beyond_all_draws_is_that_of_a_normal_distribution():
    draws = np.sort(RNG(0).normal(0.5, 0.1, 2000))
    one = Paired(0.0, 0.5, draws, 10)
    assert one.p_up_to(0.0) == pytest.approx(2.87e-7, rel=0.5) or one.p_up_to(0.0) == 1e-6
    assert Paired(0.0, 0.45, draws - 0.05, 10).p_up_to(0.0) == pytest.approx(3.4e-6, rel=0.5)
    assert Paired(0.0, 0.0, np.zeros(2000), 10).p_up_to(0.0) == 1.0  # alike in every draw: nothing is shown


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3), st.integers(0, 5)), min_size=8, max_size=40
    ),
    st.sampled_from([0.05, 0.2, 0.5]),
)
def test_rates_in_a_draw_are_those_of_the_repeated_prompts(rows, fpr):
    scores, positive, cluster, other = (np.array(column) for column in zip(*rows, strict=True))
    group = other < 3
    bootstrap = ClusterBootstrap(cluster, draws=20, seed=1)
    among = {"recall": positive, "group": group}
    everyone = np.ones(len(scores), bool)
    moving = bootstrap.samples(moving_rates(scores, ~positive, fpr, among), everyone)
    fixed = bootstrap.samples(fixed_rates(scores >= 3, among), everyone)
    weights = np.concatenate(list(bootstrap.weights(everyone))).astype(int)
    for draw, counts in enumerate(weights):
        drawn = np.repeat(np.arange(len(scores)), counts)
        organic = np.sort(scores[drawn][~positive[drawn]])[::-1]
        allowed = int(len(organic) * fpr + 1e-9)
        over = scores > organic[allowed] if allowed < len(organic) else np.ones(len(scores), bool)
        for name, chosen in among.items():
            these = drawn[chosen[drawn]]
            if len(these):
                assert moving[name][draw] == pytest.approx(over[these].mean())
                assert fixed[name][draw] == pytest.approx((scores[these] >= 3).mean())
            else:
                assert np.isnan(moving[name][draw]) and np.isnan(fixed[name][draw])


def test_recall_over_a_moving_threshold_is_that_of_the_ranking():
    champion, _, positive = some_scores(600)
    weights = np.concatenate(list(ClusterBootstrap(np.arange(600), 50).weights(np.ones(600, bool))))
    rates = moving_rates(champion.round(2), ~positive, 0.03, {"recall": positive})
    for counts in (None, weights):
        expected = Ranking(champion.round(2), positive).curve(counts).recall_at_fpr(0.03)
        np.testing.assert_allclose(rates(counts)["recall"], expected)


def test_both_artefacts_are_measured_on_the_same_draws(assay):
    champion, _, positive = some_scores(500)
    pair = pair_of(assay, champion, champion, positive)
    for check in (*overall(pair, 0.02), *shipped(pair, 0.02), *slices(pair, 0.02)[0]):
        assert check.gain in (None, 0.0) and check.low in (None, 0.0) and check.high in (None, 0.0)
        assert check.decided != "fail" and not (check.kind == "better somewhere" and check.decided == "pass")


def test_pairing_makes_bounds_narrower_than_two_intervals(assay):
    champion, challenger, positive = some_scores(gain=0.2)
    apart = RNG(3).permutation(np.flatnonzero(positive))
    shuffled = challenger.copy()
    shuffled[np.flatnonzero(positive)] = challenger[apart]
    paired, unpaired = (
        by_name(overall(pair_of(assay, champion, other, positive), 0.02))["gain in area under ROC"]
        for other in (challenger, shuffled)
    )
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)


# ---- Holm, margins, support ----


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_step_down(values):
    adjusted = holm(values)
    remaining, highest = sorted(range(len(values)), key=values.__getitem__), 0.0
    while remaining:
        place = remaining[0]
        highest = max(highest, min(1.0, len(remaining) * values[place]))
        assert adjusted[place] == pytest.approx(highest)
        remaining = remaining[1:]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2))
def test_holm_rejects_what_its_paper_rejects(values, level):
    rejected, order = set(), sorted(range(len(values)), key=values.__getitem__)
    for rank, place in enumerate(order):
        if values[place] * (len(values) - rank) > level:
            break
        rejected.add(place)
    assert {i for i, p in enumerate(holm(values)) if p <= level} == rejected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_losing_more_tests_than_winning_is_an_exact_sign_test(tests):
    before, after = zip(*tests, strict=True)
    lost = sum(one and not two for one, two in tests)
    changed = sum(one != two for one, two in tests)
    expected = binomtest(lost, changed, 0.5, alternative="greater").pvalue if changed else 1.0
    assert lost_more(before, after) == pytest.approx(expected)


def test_a_rate_may_rise_by_half_of_what_it_aims_at():
    assert fpr_margin(0.02, 0.01) == 0.005 and fpr_margin(0.02, 0.05) == 0.02 and fpr_margin(0.001, 0.01) == 0.001
    assert fpr_margin(0.02, None) == 0.02
    assert supported(300, 0.01) and supported(3000, 0.001) and not supported(299, 0.01)


# ---- the checks ----


def test_a_better_challenger_is_shown_better_and_a_worse_one_not_shown_to_be_no_worse(assay):
    champion, challenger, positive = some_scores(4000, gain=1.0)
    better = by_name(overall(pair_of(assay, champion, challenger, positive), 0.02))
    worse = by_name(overall(pair_of(assay, challenger, champion, positive), 0.02))
    for name in ("recall at 5 % false positives", "recall at 1 % false positives"):
        assert better[name].decided == "pass" and better[name].low > -0.02 and better[name].margin == 0.02
        assert worse[name].decided == "fail" and "chance leaves room for a loss of" in worse[name].why
        assert better[f"gain in {name}"].decided == "pass" and worse[f"gain in {name}"].decided == "reported"
    assert better["recall at 0.1 % false positives"].decided == "reported"  # 2,400 organic prompts
    assert better["recall at 0.1 % false positives"].champion is not None
    row = worse["Brier score"].to_json()
    assert row["better"] == "lower" and row["difference"] == pytest.approx(row["challenger"] - row["champion"])
    assert row["low"] <= row["difference"] <= row["high"] and row["difference"] > 0


def test_probabilities_that_no_longer_hold_are_refused(assay):
    champion, _, positive = some_scores()
    checks = by_name(overall(pair_of(assay, champion, champion**3, positive), 0.02))
    assert checks["recall at 1 % false positives"].decided == "pass"  # the ranking is the same
    assert checks["expected calibration error"].decided == "fail"


def test_one_bad_slice_is_found_among_many_and_chance_is_not(assay):
    champion, challenger, positive = some_scores(6000, seed=5)
    sources = np.array([f"site-{i % 10}" for i in range(6000)])
    fine = slices(pair_of(assay, champion, challenger, positive, sources=sources), 0.02)[0]
    assert len(fine) >= 20 and {check.decided for check in fine} == {"pass"}
    challenger[(sources == "site-3") & positive] *= 0.5
    checks = by_name(slices(pair_of(assay, champion, challenger, positive, sources=sources), 0.02)[0])
    assert [name for name, check in checks.items() if check.decided == "fail"] == ["source site-3: recall"]
    bad = checks["source site-3: recall"]
    assert bad.adjusted_p < 0.05 and bad.p <= bad.adjusted_p and "more than chance" in bad.why
    # False alarms that gather in one slice.
    loud = (sources == "site-4") & ~positive & (RNG(0).random(6000) < 0.06)
    noisy = np.where(loud, 0.97 + 0.03 * RNG(1).random(6000), champion)
    checks = by_name(slices(pair_of(assay, champion, noisy, positive, sources=sources), 0.02)[0])
    assert checks["source site-4: false-positive rate"].decided == "fail"
    assert checks["source site-4: false-positive rate"].margin == 0.005


def test_slices_that_are_too_small_are_listed(assay):
    champion, challenger, positive = some_scores(1000)
    sources = np.array(["small"] * 150 + ["large"] * 850)
    pair = pair_of(assay, champion, challenger, positive, sources=sources)
    checks, small = slices(pair, 0.02)
    assert "source large: recall" in by_name(checks) and not any("small" in check.name for check in checks)
    told = {"slice": "source small", "distillation": int(positive[:150].sum()), "organic": int((~positive[:150]).sum())}
    assert told in small
    # Many prompts of few templates tell as little.
    few = replace(pair, champion=replace(pair.champion, clusters=np.where(sources == "large", 0, np.arange(1000))))
    assert any(row["slice"] == "source large" for row in slices(few, 0.02)[1])


def thresholds(scores, positive, fpr):
    return float(np.quantile(scores[~positive], 1 - fpr))


def test_shipped_thresholds(assay):
    champion, challenger, positive = some_scores(6000, gain=0.3)
    right, strict, loose = (point(thresholds(challenger, positive, fpr)) for fpr in (0.0085, 0.001, 0.04))
    own = point(thresholds(champion, positive, 0.01))

    def checks(mine, theirs=own, one=champion, two=challenger):
        return by_name(shipped(pair_of(assay, one, two, positive, (theirs, mine)), 0.02))

    kept = checks(right)
    assert {check.decided for check in kept.values()} == {"pass"}
    assert "kept: 0.8" in kept["fpr-1pct: promised rate"].why

    flagging = checks(loose)
    assert flagging["fpr-1pct: recall"].decided == "pass"
    assert flagging["fpr-1pct: false-positive rate"].decided == "fail"
    assert "the champion keeps its own" in flagging["fpr-1pct: promised rate"].why
    assert flagging["fpr-1pct: promised rate"].decided == "fail"

    blind = checks(strict)  # far under its rate: that costs recall, and is no excuse
    assert blind["fpr-1pct: recall"].decided == "fail" and blind["fpr-1pct: promised rate"].decided == "pass"

    # The champion buys its recall with alarms; the challenger that keeps its rate is not blamed for finding less.
    excused = checks(right, point(thresholds(champion, positive, 0.06)))
    assert (
        excused["fpr-1pct: recall"].decided == "reported"
        and "so are its false alarms" in excused["fpr-1pct: recall"].why
    )
    both = checks(loose, point(thresholds(champion, positive, 0.06)))
    assert both["fpr-1pct: promised rate"].decided == "reported" and "both break" in both["fpr-1pct: promised rate"].why


def test_a_point_that_aims_at_no_rate_is_judged_by_f1(assay):
    champion, challenger, positive = some_scores(3000, gain=0.5)
    pair = pair_of(assay, champion, challenger, positive)
    assays = tuple(replace(one, operating_points={"balanced": point(0.5, None)}) for one in pair.assays)
    checks = by_name(shipped(replace(pair, assays=assays), 0.02))
    assert checks.pop("balanced: F1").decided == "pass"
    assert {check.decided for check in checks.values()} == {"reported"}
    lone = tuple(replace(assay, operating_points={name: point(0.5)}) for name in ("fpr-1pct", "balanced"))
    assert shipped(replace(pair, assays=lone), 0.02) == []


def test_too_few_organic_prompts_decide_nothing_at_a_rate(assay):
    champion, challenger, positive = some_scores(300)
    checks = shipped(pair_of(assay, champion, challenger, positive), 0.02)
    named = by_name(checks)
    for name in ("fpr-1pct: recall", "fpr-1pct: false-positive rate"):
        assert named[name].decided == "reported" and "needs 300 organic prompts" in named[name].why


def outcomes(*held, must_pass=True):
    made = [
        Capability(name=f"c{i}", area="basics", kind="decision", what="It holds.", must_pass=must_pass)
        for i in range(len(held))
    ]
    return [Outcome(one, tuple(tests), ()) for one, tests in zip(made, held, strict=True)]


def test_the_suite():
    whole, none = [True] * 10, [False] * 10
    before = outcomes(*[whole] * 20)
    fell = by_name(suite(before, outcomes(none, *[whole] * 19), 0.1))
    assert fell["must-pass tests together"].decided == "pass"  # 95 % of what it was
    assert fell["capability c0"].decided == "fail" and fell["capability c0"].adjusted_p == pytest.approx(20 / 1024)
    assert fell["capability c1"].decided == "pass"
    spread = by_name(suite(before, outcomes(*[[False] + [True] * 9] * 20), 0.02))
    assert [check.name for check in spread.values() if check.decided == "fail"] == ["must-pass tests together"]
    assert spread["must-pass tests together"].gain == pytest.approx(-0.1)
    free = suite(outcomes(whole, must_pass=False), outcomes(none, must_pass=False), 0.02)
    assert {check.decided for check in free} == {"reported"}
    assert suite([], [], 0.02) == []
