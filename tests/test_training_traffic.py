"""Thresholds from traffic keep their promise whatever part of the assumed distillation was flagged."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from inference import PromptClassifier
from inference.artefact import ArtefactError, load_artefact
from inference.decision import DISTILLATION
from inference.job.files import InputError
from inference.job.score import ScoreOptions, score
from training.calibrate import FPR_POINTS
from training.metrics.intervals import exact_interval
from training.metrics.ranking import rate_name
from training.traffic.reading import TrafficError
from training.traffic.thresholds import calibrate_on_traffic, organic_interval, traffic_points

from .conftest import ORGANIC, POSITIVE, TOPICS, write_jsonl

SHARES = st.sampled_from([0.0, 0.001, 0.02, 0.3, 0.49])
N = 330
"""Distinct organic prompts of `traffic`: enough for 1 %."""


def prompts(first, count, template=ORGANIC):
    """Organic prompts that no training row holds, each one distinct."""
    texts = []
    for n in range(first, first + count):
        words = [TOPICS[digit % 16] for digit in hashlib.sha256(str(n).encode()).digest()[:5]]
        texts.append(template.format(**dict(zip("abcde", words, strict=True)), n=n))
    return texts


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("traffic") / "week.jsonl", [{"text": x} for x in prompts(10_000, N)])


@pytest.fixture(scope="module")
def calibrated(artefact, traffic, tmp_path_factory):
    """The report of an ordinary run, and the new artefact's folder."""
    out = tmp_path_factory.mktemp("calibrated") / "model"
    return calibrate_on_traffic(artefact, [str(traffic)], out), out


def scored_rows(assay, scores, **more):
    """Rows as the score job writes them, every column of scores alike."""
    return [
        {"id": str(i), **dict.fromkeys([DISTILLATION, *assay.labels], float(x)), "labels": [], "model": assay.fingerprint, "error": None, **more}
        for i, x in enumerate(scores)
    ]  # fmt: skip


def folder_content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def thresholds(folder):
    return {name: point.thresholds for name, point in load_artefact(folder).operating_points.items()}


# ---- the arithmetic ----


@given(st.integers(0, 2**32 - 1), st.integers(60, 700), SHARES, st.sampled_from([0, 1, 2, 6]))
def test_a_threshold_is_the_lowest_that_keeps_the_rate(seed, n, share, decimals):
    """On smooth scores and on scores full of ties."""
    rng = np.random.default_rng(seed)
    scores = {name: rng.beta(0.5, 3, n).round(decimals) for name in (DISTILLATION, "a")}
    points = traffic_points(scores, share)
    assert list(points) == [f"fpr-{rate_name(fpr)}" for fpr in FPR_POINTS if n * fpr >= 3]
    for point in points.values():
        allowed = point.target_fpr * n * (1 - share) + 1e-9
        for name, values in scores.items():
            assert (values >= point.thresholds[name]).sum() <= allowed
            lower = values[values < point.thresholds[name]]
            assert len(lower) == 0 or (values >= lower.max()).sum() > allowed
        assert point.n_organic == n
        assert point.false_positives == (scores[DISTILLATION] >= point.thresholds[DISTILLATION]).sum()
        # Whichever prompts up to the share are distillation, the organic rest keeps the rate; worst if none is flagged.
        assert point.false_positives / np.ceil(n * (1 - share) - 1e-9) <= point.target_fpr + 1e-9


@given(st.integers(1, 5000), st.data(), SHARES, st.floats(0, 1), st.floats(0, 1))
def test_the_interval_holds_every_rate_that_could_have_given_the_flagged_share(n, data, share, part, recall):
    flagged = data.draw(st.integers(0, n))
    low, high = organic_interval(flagged, n, share)
    assert 0 <= low <= flagged / n <= high <= 1
    s = share * part
    assert low - 1e-12 <= min(1, max(0, (flagged / n - s * recall) / (1 - s))) <= high + 1e-12
    inner = exact_interval(flagged, n)
    assert low <= inner[0] and inner[1] <= high
    if share == 0:
        assert (low, high) == inner


def test_golden_interval():
    """30 of 3,000, from tables of the exact interval: 0.00676 to 0.01424."""
    assert organic_interval(30, 3000, 0) == pytest.approx((0.006757, 0.014244), abs=1e-5)
    assert organic_interval(30, 3000, 0.005) == pytest.approx(((0.006757 - 0.005) / 0.995, 0.014244 / 0.995), abs=1e-5)
    assert organic_interval(30, 3000, 0.1)[0] == 0


@pytest.mark.parametrize("recall", [0.0, 0.5, 1.0])
def test_the_promise_holds_on_fresh_organic_prompts_of_contaminated_traffic(recall):
    """Simulated: organic scores are standard normal, so that the rate over a threshold is known exactly."""
    rng = np.random.default_rng(5)
    n, share, draws = 4000, 0.02, 200
    inside = dict.fromkeys(("fpr-5pct", "fpr-1pct"), 0)
    rates = {name: [] for name in inside}
    for _ in range(draws):
        is_bad = rng.random(n) < share
        while is_bad.mean() > share:
            is_bad = rng.random(n) < share
        z = rng.normal(size=n)
        z[is_bad] = np.where(rng.random(is_bad.sum()) < recall, 8 + z[is_bad], -8 + z[is_bad])
        points = traffic_points({DISTILLATION: norm.cdf(z)}, share)
        for name in inside:
            point = points[name]
            limit = point.thresholds[DISTILLATION]
            assert (norm.cdf(z[~is_bad]) >= limit).mean() <= point.target_fpr  # on this traffic: always
            rate = 1 - limit  # the rate of fresh organic prompts, whose scores are uniform
            rates[name].append(rate)
            inside[name] += point.fpr_low <= rate <= point.fpr_high
    for name, target in (("fpr-5pct", 0.05), ("fpr-1pct", 0.01)):
        # Half a prompt of bias (a threshold lies midway) and the error of the mean, four-fold.
        assert np.mean(rates[name]) <= target + 0.5 / n + 4 * np.std(rates[name]) / draws**0.5
        assert inside[name] >= 0.9 * draws


def test_more_distillation_than_assumed_costs_finds_and_not_false_alarms():
    """10 % where 0.1 % is assumed, all flagged: nearly no organic prompt is; none flagged: the rate grows by 1/0.9."""
    rng = np.random.default_rng(0)
    organic, n = rng.random(9000) * 0.9, 10_000
    over = traffic_points({DISTILLATION: np.r_[organic, np.full(1000, 0.95)]}, 0.001)
    under = traffic_points({DISTILLATION: np.r_[organic, np.zeros(1000)]}, 0.001)
    for fpr in FPR_POINTS:
        name = f"fpr-{rate_name(fpr)}"
        assert (organic >= over[name].thresholds[DISTILLATION]).sum() == 0
        assert (organic >= under[name].thresholds[DISTILLATION]).mean() <= fpr * 0.999 / 0.9 + 1e-9
    assert under["fpr-1pct"].false_positives == int(n * 0.01 * 0.999)


# ---- the new artefact ----


def test_a_new_artefact_that_loads_and_scores(artefact, calibrated, traffic):
    report, out = calibrated
    old, new = load_artefact(artefact), load_artefact(out)
    assert list(new.operating_points) == ["fpr-5pct", "fpr-1pct", "balanced"]
    assert report.fingerprint == new.fingerprint != old.fingerprint == report.parent
    assert (report.rows, report.prompts, report.errors, report.unkeyed) == (N, N, 0, 0)
    for field in ("labels", "windows", "calibration", "abstention", "positive_share", "base", "versions", "files"):
        assert getattr(new, field) == getattr(old, field), field
    assert new.operating_points["balanced"] == old.operating_points["balanced"]
    before, after = PromptClassifier.load(artefact), PromptClassifier.load(out)
    texts = [json.loads(line)["text"] for line in traffic.read_text().splitlines()]
    assert [p.scores for p in after.classify(texts[:20])] == [p.scores for p in before.classify(texts[:20])]
    for point in report.points:
        flags = [p.flagged for p in PromptClassifier.load(out, operating_point=point.name).classify(texts)]
        assert np.mean(flags) == pytest.approx(point.flagged_after)
        if point.is_set:
            assert sum(flags) <= point.after.target_fpr * N
            assert point.after.fpr_low <= np.mean(flags) <= point.after.fpr_high


def test_the_files_of_the_new_artefact(artefact, calibrated, tmp_path):
    _, out = calibrated
    old, new = folder_content(artefact), folder_content(out)
    assert new.keys() == old.keys()
    assert {name for name in new if new[name] != old[name]} == {"assay.json", "README.md", "seen.safetensors"}
    assert (out / "model.safetensors").stat().st_ino != (artefact / "model.safetensors").stat().st_ino
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # nothing is left beside it


def test_further_files_go_along_and_the_parent_is_untouched(artefact, traffic, tmp_path):
    parent = tmp_path / "parent"
    shutil.copytree(artefact, parent)
    (parent / "notes").mkdir()
    (parent / "notes" / "more.txt").write_bytes(b"graph")
    (parent / "plot.svg").write_text("<svg/>")
    before = folder_content(parent)
    calibrate_on_traffic(parent, [str(traffic)], tmp_path / "deep" / "new")
    assert folder_content(parent) == before
    assert folder_content(tmp_path / "deep" / "new").keys() == before.keys()
    assert (tmp_path / "deep" / "new" / "notes" / "more.txt").read_bytes() == b"graph"


def test_lineage_and_metrics(artefact, calibrated, traffic):
    _, out = calibrated
    old, new = load_artefact(artefact), load_artefact(out)
    assert new.provenance == old.provenance | {
        "thresholds": {
            "set_on": "traffic",
            "parent": old.fingerprint,
            "files": ["week.jsonl"],
            "sha256": [hashlib.sha256(traffic.read_bytes()).hexdigest()],
            "rows": N,
            "prompts": N,
            "errors": 0,
            "assumed_rate": 0.001,
        }
    }
    gone = old.metrics.keys() - new.metrics.keys()
    moved = tuple(f"operating point {name}" for name in old.operating_points if name != "balanced")
    assert gone == {name for name in old.metrics if name.startswith(moved)} and set(moved) <= gone
    assert {"distillation", "operating point balanced"} <= new.metrics.keys()
    at_default = {"recall", "false_positive_rate"}  # the default point is another one now
    for name, section in new.metrics.items():
        stale = set() if name.startswith("operating point") else at_default
        assert section == {metric: value for metric, value in old.metrics[name].items() if metric not in stale}


def test_the_report_says_how_far_and_why(artefact, calibrated):
    report, out = calibrated
    text = report.text()
    point = next(point for point in report.points if point.name == "fpr-5pct")
    assert f"fpr-5pct of {artefact} flags {point.flagged_before:.2%} of this traffic" in text
    assert f"{point.flagged_before / 0.05:.1f} times what it promises" in text
    assert f"from {point.old_threshold:.6f} to {point.threshold:.6f}" in text
    direction = {True: "Fewer false alarms, and fewer finds", False: "More finds"}[
        point.threshold > point.old_threshold
    ]
    assert direction in text
    assert "fpr-0.1pct needs 3,000 distinct prompts, and 330 are there" in text
    assert "The default operating point was fpr-5pct, and is fpr-1pct now." in text
    assert "balanced need labels" in text and "Only the threshold of distillation carries the promise" in text
    assert all(label in text for label in load_artefact(out).labels)
    assert "all that it flags may be distillation" not in text
    assert not any(prompt in text for prompt in prompts(10_000, N))


@pytest.mark.parametrize(
    ("n", "over", "says", "chance"),
    [
        (4000, 0.10, "flags 10.00% of this traffic, 2.0 times what it promises", False),
        (4000, 0.02, "flags 2.00% of this traffic, 0.4 times what it promises", False),
        (100, 0.07, "flags 7.00% of this traffic, 1.4 times what it promises", True),
    ],
)
def test_a_difference_that_may_be_chance_is_called_so(artefact, tmp_path, n, over, says, chance):
    assay = load_artefact(artefact)
    limit = assay.operating_points["fpr-5pct"].thresholds[DISTILLATION]
    high = int(n * over)
    rng = np.random.default_rng(0)
    scores = [*rng.uniform(limit, (1 + limit) / 2, high), *rng.uniform(0, limit * 0.999, n - high)]
    file = write_jsonl(tmp_path / "s.jsonl", scored_rows(assay, scores))
    text = calibrate_on_traffic(artefact, [str(file)], tmp_path / "new").text()
    assert says in text and ("may be chance" in text) == chance
    assert ("Fewer false alarms" if over > 0.05 else "More finds") in text


def test_a_point_that_the_assumed_share_can_fill_is_noted(artefact, traffic, tmp_path):
    text = calibrate_on_traffic(artefact, [str(traffic)], tmp_path / "new", assumed_rate=0.02).text()
    assert "fpr-1pct: with 2.00% assumed, all that it flags may be distillation" in text
    assert "fpr-5pct: with 2.00% assumed" not in text


def test_points_that_the_traffic_cannot_carry_are_dropped(artefact, traffic, calibrated, tmp_path):
    """Of the artefact that has 1 %, with traffic for 5 % alone: and the default changes."""
    _, parent = calibrated
    few = write_jsonl(tmp_path / "few.jsonl", [{"text": text} for text in prompts(50_000, 299)])
    report = calibrate_on_traffic(parent, [str(few)], tmp_path / "new")
    assert list(thresholds(tmp_path / "new")) == ["fpr-5pct", "balanced"]
    assert report.dropped == {"fpr-1pct": 300, "fpr-0.1pct": 3000}
    assert "The default operating point was fpr-1pct, and is fpr-5pct now." in report.text()
    assert load_artefact(tmp_path / "new").provenance["thresholds"]["parent"] == load_artefact(parent).fingerprint


def test_sixty_prompts_are_the_least(artefact, tmp_path):
    for count in (59, 60):
        file = write_jsonl(tmp_path / f"{count}.jsonl", [{"text": text} for text in prompts(0, count)] * 2)
        if count == 59:
            with pytest.raises(TrafficError, match=r"59 distinct prompts in 118 rows: fpr-5pct needs 60; give more"):
                calibrate_on_traffic(artefact, [str(file)], tmp_path / "new")
            assert not (tmp_path / "new").exists()
        else:
            assert calibrate_on_traffic(artefact, [str(file)], tmp_path / "new").prompts == 60


# ---- the card ----


def test_the_card_tells_of_the_new_thresholds_alone(artefact, calibrated, traffic, tmp_path):
    report, out = calibrated
    old, card = (artefact / "README.md").read_text(), (out / "README.md").read_text()
    assert card.count("## Thresholds set on traffic") == 1 and report.table() in card
    assert "area under ROC" in card and "A label is not proof" in card and card.startswith(old[:200])
    rows = [line for line in card.splitlines() if line.startswith(("| fpr-", "| balanced"))]
    assert set(rows) == {
        line for x in (report.table(), report.category_table()) for line in x.splitlines() if line in rows
    }
    assert str(artefact) not in card and "week.jsonl" not in card
    again = calibrate_on_traffic(out, [str(traffic)], tmp_path / "again")
    twice = (tmp_path / "again" / "README.md").read_text()
    assert twice.count("## Thresholds set on traffic") == 1
    assert again.table() in twice and again.parent in twice and report.parent not in twice


@pytest.mark.parametrize(
    ("card", "kept"),
    [
        ("# m\n\n## Use\nx\n\n## Operating points\n| fpr-1pct | 0.5 |\n\nold words\n\n## End\ny\n", ["## Use", "## End"]),
        ("# m\n\n## Results\nwords\n\n| point | t |\n|---|---|\n| **fpr-1pct** | 0.5 |\n\n| a | b |\n| c | d |\n", ["words", "| c | d |"]),
        ("# m\n| balanced | 0.5 |", ["# m"]),
        ("", []),
    ],
)  # fmt: skip
def test_whatever_headings_the_card_has_no_old_table_is_left(calibrated, card, kept):
    report, _ = calibrated
    new = report.card(card)
    assert "0.5 |" not in new and "old words" not in new
    assert new.count("## Thresholds set on traffic") == 1 and report.table() in new and new.endswith("\n")
    assert all(part in new for part in kept)
    if "## End" in kept:
        assert new.index("## Use") < new.index("## Thresholds set on traffic") < new.index("\n\n## End\ny\n")


# ---- what is read ----


@pytest.mark.parametrize("output", ["s.parquet", "s.jsonl", "s.csv", "parts"])
def test_scored_files_give_the_same_thresholds_as_their_prompts(artefact, calibrated, traffic, tmp_path, output):
    score(ScoreOptions([str(traffic)], str(artefact), str(tmp_path / output)))
    report = calibrate_on_traffic(artefact, [str(tmp_path / output)], tmp_path / "new")
    assert (report.rows, report.prompts, report.unkeyed) == (N, N, N)
    assert f"{N} rows of scored files came without their text" in report.text()
    raw = thresholds(calibrated[1])
    for name, values in thresholds(tmp_path / "new").items():
        assert values == pytest.approx(raw[name], abs=1e-5)  # other batch-mates round otherwise


def test_a_prompt_that_repeats_counts_once(artefact, calibrated, traffic, tmp_path):
    """One robot with one extreme prompt, in several files, as text and as the same lone message."""
    texts = prompts(10_000, N)
    scores = PromptClassifier.load(artefact).classify(texts)
    robot = texts[int(np.argmax([p.distillation for p in scores]))]
    rows = [{"text": robot}, {"messages": [{"role": "user", "content": robot}]}] * 150
    robots = write_jsonl(tmp_path / "robot.jsonl", rows)
    report = calibrate_on_traffic(artefact, [str(robots), str(traffic)], tmp_path / "new")
    assert (report.rows, report.prompts) == (N + 300, N)
    assert "630 rows, 0 of them without a prompt; 330 distinct prompts" in report.text()
    for name, values in thresholds(tmp_path / "new").items():
        assert values == pytest.approx(thresholds(calibrated[1])[name], abs=1e-5)
    # A scored file that kept its text knows its repeats too, also against raw files.
    score(ScoreOptions([str(robots)], str(artefact), str(tmp_path / "s.parquet"), keep=("text", "messages")))
    kept = calibrate_on_traffic(artefact, [str(tmp_path / "s.parquet"), str(traffic)], tmp_path / "kept")
    assert (kept.rows, kept.prompts, kept.unkeyed) == (N + 300, N, 0)


def test_rows_without_a_prompt_are_counted_and_left_out(artefact, calibrated, tmp_path):
    good = [json.dumps({"text": text}) for text in prompts(10_000, N)]
    bad = ['{"text": null}', '{"text": "  "}', '{"other": 1}', '{"text": 7}', "{broken", '{"messages": []}']
    (tmp_path / "week.jsonl").write_text("\n".join([*bad[:3], *good, *bad[3:]]) + "\n")
    report = calibrate_on_traffic(artefact, [str(tmp_path / "week.jsonl")], tmp_path / "new")
    assert (report.rows, report.prompts, report.errors) == (N + 6, N, 6)
    for name, values in thresholds(tmp_path / "new").items():
        assert values == pytest.approx(thresholds(calibrated[1])[name], abs=1e-5)
    score(ScoreOptions([str(tmp_path / "week.jsonl")], str(artefact), str(tmp_path / "s.csv")))
    again = calibrate_on_traffic(artefact, [str(tmp_path / "s.csv")], tmp_path / "scored")
    assert (again.rows, again.prompts, again.errors) == (N + 6, N, 6)


def test_columns_are_named_as_in_a_score_job(artefact, tmp_path):
    texts = prompts(0, 70)
    plain = write_jsonl(tmp_path / "plain.jsonl", [{"question": text} for text in texts])
    with pytest.raises(InputError, match="has no column text or messages; it has: question"):
        calibrate_on_traffic(artefact, [str(plain)], tmp_path / "new")
    report = calibrate_on_traffic(artefact, [str(plain)], tmp_path / "new", text_column="question")
    chats = write_jsonl(
        tmp_path / "chats.jsonl", [{"text": "x", "chat": [{"role": "user", "content": x}]} for x in texts]
    )
    other = calibrate_on_traffic(artefact, [str(chats)], tmp_path / "other", messages_column="chat")
    assert report.prompts == other.prompts == 70
    assert thresholds(tmp_path / "new") == thresholds(tmp_path / "other")


def test_traffic_of_thousands_carries_the_rarest_rate(artefact, tmp_path):
    assay = load_artefact(artefact)
    scores = np.random.default_rng(0).permutation(5000) / 5000
    file = write_jsonl(tmp_path / "s.jsonl", scored_rows(assay, scores))
    report = calibrate_on_traffic(artefact, [str(file)], tmp_path / "new")
    point = load_artefact(tmp_path / "new").operating_points["fpr-0.1pct"]
    assert report.dropped == {} and point.false_positives == 4 and point.n_organic == 5000
    assert list(point.thresholds.values()) == pytest.approx([(4995 + 4996) / 2 / 5000] * 4)
    assert "fpr-0.1pct: with 0.10% assumed, all that it flags may be distillation" in report.text()
    again = calibrate_on_traffic(artefact, [str(file)], tmp_path / "clean", assumed_rate=0)
    assert load_artefact(tmp_path / "clean").operating_points["fpr-0.1pct"].false_positives == 5
    assert "all that it flags" not in again.text()


# ---- what is refused ----


@pytest.mark.parametrize("rate", [-0.1, 0.5, 1.0, float("nan")])
def test_an_assumed_rate_that_cannot_be(artefact, traffic, tmp_path, rate):
    with pytest.raises(TrafficError, match="--assumed-rate"):
        calibrate_on_traffic(artefact, [str(traffic)], tmp_path / "new", assumed_rate=rate)


def test_scores_of_another_artefact_are_refused(artefact, tmp_path):
    assay = load_artefact(artefact)
    rows = [*scored_rows(assay, np.linspace(0, 0.5, 400)), *scored_rows(assay, [0.1], model="0123456789abcdef")]
    file = write_jsonl(tmp_path / "s.jsonl", rows)
    with pytest.raises(TrafficError, match=f":401: was scored with another artefact than {assay.fingerprint}; score"):
        calibrate_on_traffic(artefact, [str(file)], tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.jsonl"]


@pytest.mark.parametrize("value", [1.5, float("nan"), "much", -0.1])
def test_a_score_that_is_no_probability_is_refused(artefact, tmp_path, value):
    rows = scored_rows(load_artefact(artefact), np.linspace(0, 0.5, 80))
    rows[7][DISTILLATION] = value
    with pytest.raises(TrafficError, match=":8: a score is no probability"):
        calibrate_on_traffic(artefact, [str(write_jsonl(tmp_path / "s.jsonl", rows))], tmp_path / "new")


def test_a_test_split_is_refused_however_it_comes(artefact, built, tmp_path):
    link = tmp_path / "harmless.parquet"
    link.symlink_to(built / "test.parquet")
    score(ScoreOptions([str(built / "test.parquet")], str(artefact), str(tmp_path / "s.parquet")))
    score(ScoreOptions([str(built / "test.parquet")], str(artefact), str(tmp_path / "parts")))
    for name in (built / "test.parquet", built, link, tmp_path / "s.parquet", tmp_path / "parts"):
        with pytest.raises(TrafficError, match="never calibrate on a test split"):
            calibrate_on_traffic(artefact, [str(name)], tmp_path / "new")
    # A table that only bears the name, with no built data round it, is traffic like any other.
    other = tmp_path / "other" / "test.parquet"
    other.parent.mkdir()
    pq.write_table(pq.read_table(built / "train.parquet").slice(0, 200), other)
    with pytest.raises(TrafficError, match="labelled rows name a category"):
        calibrate_on_traffic(artefact, [str(other)], tmp_path / "new")


def test_labelled_files_are_refused_unless_nearly_organic(artefact, labelled, tmp_path):
    with pytest.raises(TrafficError, match=r"360 of 720 labelled rows name a category.* give the organic part alone"):
        calibrate_on_traffic(artefact, [str(labelled)], tmp_path / "new")
    category = next(iter(POSITIVE))
    for form in ([category], json.dumps([category]), f"x;{category}"):
        for positive, fine in ((5, True), (6, False)):
            labels = [form] * positive + [[], "[]", "organic", None, f"not_{category}"] * ((100 - positive) // 5 + 1)
            rows = [{"text": x, "labels": y} for x, y in zip(prompts(0, 100), labels[:100], strict=True)]
            file = write_jsonl(tmp_path / "l.jsonl", rows)
            if fine:
                assert calibrate_on_traffic(artefact, [str(file)], tmp_path / "new", overwrite=True).prompts == 100
            else:
                with pytest.raises(TrafficError, match="6 of 100 labelled rows"):
                    calibrate_on_traffic(artefact, [str(file)], tmp_path / "new2")


def test_the_labels_of_a_scored_file_are_the_artefacts_own(artefact, tmp_path):
    assay = load_artefact(artefact)
    rows = scored_rows(assay, np.linspace(0, 0.5, 80), labels=[assay.labels[0]])
    assert (
        calibrate_on_traffic(artefact, [str(write_jsonl(tmp_path / "s.jsonl", rows))], tmp_path / "new").prompts == 80
    )
    kept = scored_rows(assay, np.linspace(0, 0.5, 80), label=assay.labels[0])
    with pytest.raises(TrafficError, match="80 of 80 labelled rows"):
        calibrate_on_traffic(artefact, [str(write_jsonl(tmp_path / "k.jsonl", kept))], tmp_path / "new2")


def test_where_something_stands_nothing_is_lost(artefact, traffic, calibrated, tmp_path):
    parent, out = tmp_path / "parent", tmp_path / "out"
    shutil.copytree(artefact, parent)
    run = [str(traffic)]
    (tmp_path / "link").symlink_to(parent)
    for place in (parent, tmp_path / "link", parent / "new", tmp_path, tmp_path / "x" / ".." / "parent"):
        with pytest.raises(TrafficError, match="a folder apart from"):
            calibrate_on_traffic(parent, run, place, overwrite=True)
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    with pytest.raises(TrafficError, match="exists already; name another folder, or use --overwrite"):
        calibrate_on_traffic(parent, run, out)
    with pytest.raises(TrafficError, match="is no artefact and is not overwritten"):
        calibrate_on_traffic(parent, run, out, overwrite=True)
    assert folder_content(out) == {"thesis.txt": b"years"} and folder_content(parent) == folder_content(artefact)


def test_overwrite_replaces_an_artefact_only_by_a_complete_one(artefact, traffic, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(artefact, out)
    (out / "stray.txt").write_text("of the old one")
    before = folder_content(out)
    few = write_jsonl(tmp_path / "few.jsonl", [{"text": text} for text in prompts(0, 20)])
    with pytest.raises(TrafficError, match="20 distinct prompts"):
        calibrate_on_traffic(artefact, [str(few)], out, overwrite=True)
    inside = write_jsonl(out / "mine.jsonl", [{"text": "x"}])
    with pytest.raises(TrafficError, match="lies in"):
        calibrate_on_traffic(artefact, [str(inside)], out, overwrite=True)
    inside.unlink()
    assert folder_content(out) == before
    calibrate_on_traffic(artefact, [str(traffic)], out, overwrite=True)
    assert folder_content(out).keys() == folder_content(artefact).keys()
    assert load_artefact(out).provenance["thresholds"]["set_on"] == "traffic"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.jsonl", "out"]


def test_no_artefact_and_no_traffic(artefact, traffic, tmp_path):
    with pytest.raises(ArtefactError, match="no such folder"):
        calibrate_on_traffic(tmp_path / "none", [str(traffic)], tmp_path / "new")
    with pytest.raises(InputError, match="no such file or folder"):
        calibrate_on_traffic(artefact, [str(tmp_path / "none.jsonl")], tmp_path / "new")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(TrafficError, match="0 distinct prompts in 0 rows"):
        calibrate_on_traffic(artefact, [str(tmp_path / "empty.jsonl")], tmp_path / "new")
