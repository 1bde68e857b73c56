"""The report of an evaluation: what it says, what it keeps to itself, and how it does in a real browser."""

import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.decision import DISTILLATION
from training.evaluation.baselines import Baseline, baseline_sections
from training.evaluation.evaluate import EvaluateOptions, Evaluation
from training.evaluation.labelled import measure, read_labelled
from training.evaluation.sections import PROMISED, evaluate_sections
from training.evaluation.suite import Capability, Failure, Outcome, suite_sections
from training.metrics.intervals import ClusterBootstrap, Estimate, rate_estimate
from training.metrics.measures import ranking_measures
from training.metrics.ranking import Ranking
from training.report.curves import recalls_at, steps, trade
from training.report.histogram import score_histogram
from training.report.mistakes import readable
from training.report.page import html_report
from training.report.points import Counts, point_rows, rounded, shown_threshold
from training.report.tables import (
    BROKEN,
    KEPT,
    OPEN,
    aim_of,
    evaluation_text,
    promise,
    seen_sentence,
    share,
    shares,
    show,
    worst_slices,
)

from .conftest import POSITIVE

HOSTILE = 'x</script><script>alert(1)</script><img src=x onerror="alert(2)"> \u202egnp.exe \x00\x1b[31m & שלום \ud83d'
SECRET = "zebra-quartz-prompt"
SUITE_TEXT = "suite-only-wording </div><b>"
COLOURED = '<span style="background: rgba('
WORDS = {"a": "bread", "b": "tax", "c": "soil", "d": "maps", "e": "glass"}
VOID = {"meta", "input", "br", "img", "link", "hr"}
SHOWN = ("threshold", "name", "fpr", "recall", "flagged", "precision", "false", "found", "hits", "missed", "alarms")
SCORED = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (Debian: apt-get install chromium)")


# ---- what is reported on ----


@pytest.fixture(scope="module")
def measured(classifier, built):
    """Some splits, of which some are labelled wrong, some are ambiguous, and some hold hostile or secret text."""
    records = [
        record for split in ("test", "calibration", "validation") for record in read_labelled([str(built)], split)[0]
    ]
    assert sum(not record.labels for record in records) > 110  # so that there is a recall at 1 %
    loud = POSITIVE["reasoning_trace_extraction"].format(**WORDS, n=3)
    made = []
    for i, record in enumerate(records):
        if i % 20 == 3:  # the opposite of what the model says
            record = record.changed(labels=() if record.labels else ("capability_sweep",))
        if i % 15 == 1:
            record = record.changed(extra=record.extra | {"ambiguous": True})
        made.append(record.changed(style="plain" if i % 2 else "homework_show_work"))
    plain = {"messages": None, "labels": (), "source": "made & <b>", "lang": "en", "extra": {"cluster": "own"}}
    made.append(replace(records[0], id="hostile", text=f"{loud} {HOSTILE}", **plain))
    made.append(replace(records[0], id="secret", text=f"{loud} {SECRET}", **plain))
    found = measure(classifier, made)
    # Whatever the tiny model thinks of them, they are the worst false alarms.
    worst = [replace(prediction, distillation=0.9999999, flagged=True) for prediction in found.predictions[-2:]]
    return replace(found, predictions=found.predictions[:-2] + worst)


@pytest.fixture(scope="module")
def outcomes():
    capability = {"area": "basics", "kind": "decision", "what": "Something <must> hold."}
    failures = tuple(Failure(f"{SUITE_TEXT} {i} " + "long " * 200, "flagged", 0.1 * i) for i in range(5))
    return [
        Outcome(Capability(name="failing", must_pass=True, **capability), (True, *[False] * 5), failures),
        Outcome(Capability(name="holding", **capability), (True, True), ()),
    ]


def evaluation(measured, assay, outcomes=(), seen=None, noise=None):
    sections = evaluate_sections(measured, assay, ["origin"] if measured.records[0].origin else [])
    baselines = []
    if noise is not None:
        drawn = np.random.default_rng(0).normal(0, noise, len(measured.records))
        scores = np.log(measured.scores(DISTILLATION) / (1 - measured.scores(DISTILLATION))) + drawn
        baselines = [Baseline("plain <words>", "Looks at words.", scores, 12.5, 0.25)]
        sections |= baseline_sections(measured, baselines)
    if outcomes:
        sections |= suite_sections(outcomes)
    return Evaluation(measured, sections, list(outcomes), baselines, seen)


def options(**changes):
    return EvaluateOptions(Path("model"), ["data <of> mine"], Path("out"), **changes)


@pytest.fixture(scope="module")
def found(measured, classifier, outcomes):
    return evaluation(measured, classifier.assay, outcomes, noise=2.0)


@pytest.fixture(scope="module")
def page(found, classifier):
    return html_report(found, classifier, options())


class Reader(HTMLParser):
    """A page's tags, texts and attributes; an element that is not closed, or closed twice, is a fault."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


def data_of(page):
    return json.loads(re.search(r'id="thresholds-data">(.*?)</script>', page, re.S)[1])


# ---- the page ----


def test_the_page_is_whole_and_needs_nothing_beside_it(page):
    reader = Reader(page)
    assert reader.tags.count("script") == 2 and reader.tags.count("h1") == 1
    assert not {"link", "img", "iframe", "object", "form"} & set(reader.tags)
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for tag, name, value in reader.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert value.startswith("#") and value[1:] in ids, (tag, name, value)
        if name == "style":
            assert "url" not in value
        if name in ("for", "aria-labelledby", "list"):
            assert set(value.split()) <= set(ids)
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert re.search("https?://", page) is None


def test_the_page_says_what_was_measured(page, found, classifier):
    text = Reader(page).text
    assert classifier.assay.fingerprint in text and "data <of> mine" in text
    assert "not proof of a campaign" in text and "A false alarm is an accusation" in text
    for name in (DISTILLATION, *classifier.assay.labels):
        assert show(found.sections[name]["roc_auc"]) in text
    for row in point_rows(classifier.assay, found.sections):
        assert shown_threshold(row.threshold) in text and row.promise in text
        seen = row.section["false_positive_rate"]
        assert shares(seen) in text and shares(row.section["recall"]) in text
        assert seen.n == int(((found.measured.truth == 0) & ~found.measured.ambiguous).sum())
    clusters = len(set(found.measured.clusters[~found.measured.ambiguous]))
    assert f"bootstrap of 2,000 draws over {clusters} clusters" in text
    assert "needs 1,000 organic prompts" in text  # in place of a recall at 0.1 %


def test_confusion_adds_up(page, found, classifier):
    section = found.sections[f"operating point {classifier.assay.default_point}"]
    cells = [section[f"{x}_{y}s"].value for x in ("true", "false") for y in ("positive", "negative")]
    assert sum(cells) == (~found.measured.ambiguous).sum()
    for value, word in zip(cells, ("found", "left alone", "false alarms", "missed"), strict=True):
        assert f"<b>{value:.0f}</b><small>{word}</small>" in page


def test_slices_stand_worst_first_and_small_ones_are_marked(page, found):
    text = Reader(page).text
    assert "too few to judge" in text and "Hard negatives by family" in text and "Number of windows" in text
    worst = worst_slices(found.sections, 3)
    assert [row.badness for _, row in worst] == sorted((row.badness for _, row in worst), reverse=True)
    assert all(not row.too_small for _, row in worst)
    assert "made & <b>" in text  # a source's name is text


def test_slices_of_the_same_prompts_stand_once():
    estimate, other = rate_estimate(3, 40), rate_estimate(30, 40)
    made = {f"{kind} x": {"recall_at_fpr_1pct": estimate} for kind in ("source", "style", "column origin")}
    made["source y"] = {"recall_at_fpr_1pct": other}
    assert [(kind, row.name) for kind, row in worst_slices(made, 9)] == [("source", "x"), ("source", "y")]


def test_ambiguous_prompts_stand_apart(page, found):
    n = int(found.measured.ambiguous.sum())
    assert n and f"Of {n} prompts the labeller says that the text alone cannot decide" in Reader(page).text


def test_baselines_stand_beside_the_model(page, found):
    text = Reader(page).text
    section = found.sections["baseline plain <words>"]
    gain = section["recall_at_fpr_1pct_gain"]
    assert "Does the model earn its cost?" in text and "Looks at words." in text
    assert show(section["recall_at_fpr_1pct"]) in text and f"{gain.value:+.3f} ({gain.low:+.3f} to" in text
    assert ("not shown to be better" in text) == (gain.low <= 0)
    assert page.count("plain &lt;words&gt;") >= 2  # in the table, and in the legend of the ROC curves


@pytest.mark.parametrize(
    ("seen", "words", "loud"),
    [
        (None, "does not say what it was fitted on", False),
        ({}, "None of these prompts shaped the artefact.", False),
        (
            {"train": 1200, "calibration": 3},
            "Measured on 1,203 prompts that the artefact was fitted on (1,200 in",
            True,
        ),
    ],
)
def test_what_the_artefact_has_seen_is_said(found, classifier, seen, words, loud):
    assert words in seen_sentence(seen)
    text = html_report(replace(found, seen=seen), classifier, options())
    assert words in text and ('class="banner"' in text) == loud


# ---- what is private, and what is hostile ----


def private(records):
    """What stands in the prompts and nowhere else: their lines, where they are long enough to be their own."""
    return {line for record in records for line in record.rendered.splitlines() if len(line) > 25}


def test_no_prompt_stands_in_the_page_unless_asked(page, found, classifier):
    text = html.unescape(page)
    assert SECRET not in text and not [line for line in private(found.measured.records) if line in text]
    assert "--show-text" in text and "hostile" in text and "secret" in text  # their ids
    assert SECRET not in json.dumps(data_of(page))


def test_the_suite_that_ships_is_public_and_a_users_own_is_not(page, found, classifier):
    assert html.escape(SUITE_TEXT) in page
    own = html_report(found, classifier, options(suite=Path("mine")))
    assert html.escape(SUITE_TEXT) not in own and "this suite is your own" in own and "1 of 6" in own
    shown = html_report(found, classifier, options(suite=Path("mine"), show_text=True))
    assert html.escape(SUITE_TEXT) in shown


def test_failing_examples_are_few_and_short(page):
    shown = re.findall(r'<div class="text" dir="auto">(.*?)</div>', page, re.S)
    assert len(shown) == 3 and all(text.endswith("…") and len(html.unescape(text)) <= 401 for text in shown)
    assert "and 2 more" in page and "(must pass)" in page and "3 of 8 tests passed" in page


def test_any_prompt_is_text(found, classifier):
    page = html_report(found, classifier, options(show_text=True))
    reader = Reader(page)
    assert reader.tags.count("script") == 2 and "img" not in reader.tags
    assert "alert(1)" in reader.text and SECRET in reader.text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202e]", page)
    page.encode()  # no lone surrogate is left
    pytest.importorskip("captum")
    assert COLOURED in page and "integrated gradients" in reader.text


def test_without_captum_the_text_is_plain_and_a_note_names_the_extra(found, classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    page = html_report(found, classifier, options(show_text=True))
    assert COLOURED not in page
    assert SECRET in page
    assert "promptassay[explain]" in html.unescape(page)


@given(st.text(), st.integers(1, 50))
@example(HOSTILE, 1000)
@example("a\r\nb\rc", 1000)
def test_readable_text_can_be_written_and_is_cut(text, longest):
    shown = readable(text, longest)
    assert len(shown) <= longest + 1 and "\r" not in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode()


# ---- data that is lacking ----


def lacking(measured):
    clear = np.flatnonzero(~measured.ambiguous)
    only = {
        "organic alone": measured.truth == 0,
        "positives alone": measured.truth == 1,
        "ten rows": np.isin(np.arange(len(measured.records)), clear[:10]),
        "one row": np.arange(len(measured.records)) == clear[0],
        "ambiguous alone": measured.ambiguous,
    }
    made = {name: measured.only(mask) for name, mask in only.items()}
    ten = made["ten rows"]
    made["nothing judged"] = replace(ten, labels=np.full_like(ten.labels, -1))
    return made


@pytest.mark.parametrize(
    "name", ["organic alone", "positives alone", "ten rows", "one row", "ambiguous alone", "nothing judged"]
)
def test_what_cannot_be_measured_is_said_and_not_made_up(measured, classifier, name):
    part = lacking(measured)[name]
    found = evaluation(part, classifier.assay, noise=1.0)
    page = html_report(found, classifier, options())
    reader = Reader(page)
    assert not re.search(r"\b(?:nan|inf|None)\b", reader.text.replace("None of these", ""))
    assert "tests passed" not in reader.text
    if name != "ten rows":
        assert "needs both organic and positive prompts" in reader.text
    if name == "organic alone":
        seen = found.sections[f"operating point {classifier.assay.default_point}"]["false_positive_rate"]
        assert shares(seen) in reader.text
    assert "–" in evaluation_text(found)
    points = data_of(page)["points"]
    assert len(points) >= len(classifier.assay.operating_points)
    assert all(min(point["cells"]) >= 0 for point in points)


# ---- numbers ----


@given(st.one_of(st.floats(0, 1), st.integers(0, 10**7).map(lambda n: n / 10**7)))
@example(0.99999)
@example(1e-12)
def test_shares_never_round_to_all_or_nothing(value):
    number = float(share(value).removesuffix(" %")) / 100
    assert number == pytest.approx(value, rel=0.06)
    if value < 1 - 1e-9:
        assert number < 1


@given(st.floats(0, 1))
@example(0.9999871)
@example(1e-9)
def test_a_threshold_keeps_three_digits_of_its_room(value):
    room = min(value, 1 - value)
    assert abs(float(shown_threshold(value)) - value) <= max(room * 0.006, 1e-12)


def test_counts_are_rounded_to_what_is_known():
    assert [rounded(x) for x in (0, 6.1234, 9.99, 10, 591.4, 19_234, 1e6)] == [
        "0", "6.1", "10", "10", "591", "19,200", "1,000,000",
    ]  # fmt: skip


def test_a_promise_is_kept_broken_or_open():
    assert promise(0.01, rate_estimate(8, 1000)) == KEPT
    assert promise(0.01, rate_estimate(30, 1000)) == BROKEN
    assert promise(0.01, rate_estimate(0, 20)) == OPEN  # none of 20 may still be 17 %
    assert promise(0.05, rate_estimate(0, 200)) == KEPT
    assert promise(0.01, Estimate(None, None, None, 0, "no prompts")) == OPEN
    assert promise(None, rate_estimate(1, 100)) == OPEN
    measured = {PROMISED: Estimate(0.09, 0.08, 0.1, 1000)}
    assert aim_of("fpr-0.1pct", measured) == pytest.approx(0.001) and aim_of("balanced", measured) == 0.09


@given(SCORED, st.integers(0, 8), st.randoms(use_true_random=False))
def test_recall_at_many_rates_is_recall_at_each(pairs, draws, random):
    scores, truth = np.array([score for score, _ in pairs]), np.array([positive for _, positive in pairs])
    weights = np.array([[random.randint(0, 3) for _ in pairs] for _ in range(draws)] or [[1] * len(pairs)], float)
    curve = Ranking(scores, truth).curve(weights)
    rates = np.array([0.0, 0.01, 0.1, 0.5, 1.0])
    found = recalls_at(curve, rates)
    for i, rate in enumerate(rates):
        expected = curve.recall_at_fpr(rate)
        usable = (curve.n_positive > 0) & (curve.n_negative > 0)
        np.testing.assert_allclose(found[usable, i], expected[usable])
        assert np.isnan(found[~usable, i]).all()


def test_the_band_is_the_interval_of_the_table():
    rng = np.random.default_rng(1)
    truth = np.r_[np.zeros(300), np.ones(200), [-1.0] * 7]
    scores, clusters = rng.normal(truth, 1), np.arange(len(truth)) // 3
    bootstrap = ClusterBootstrap(clusters)
    found = trade(scores, truth, bootstrap)
    known = truth >= 0
    table = bootstrap.estimates(ranking_measures(scores[known], truth[known] == 1, (0.01,)), known)
    at = list(found.alarms).index(3)
    estimate = table["recall_at_fpr_1pct"]
    assert (found.recalls[at], found.low[at], found.high[at]) == pytest.approx(
        (estimate.value, estimate.low, estimate.high)
    )
    assert trade(scores, np.zeros(len(truth))) is None


@given(st.integers(1, 10**6))
def test_steps_go_from_none_to_all(n):
    found = steps(n)
    assert found[0] == 0 and found[-1] == n and len(found) <= 161 and (np.diff(found) > 0).all()


@given(SCORED, st.integers(0, 60))
def test_the_lowest_threshold_lets_through_what_it_may(pairs, alarms):
    scores, truth = np.array([score for score, _ in pairs]), np.array([float(positive) for _, positive in pairs])
    counts = Counts.of(scores, truth)
    threshold = counts.lowest(alarms)
    if threshold is None:
        assert (scores[truth == 1] <= scores[truth == 0].max()).all()
        return
    hits, wrong = counts.over(threshold)
    assert wrong == (scores[truth == 0] >= threshold).sum() <= alarms
    assert hits == (scores[truth == 1] >= threshold).sum()
    lower = scores[scores < threshold]
    assert not len(lower) or (scores[truth == 0] >= lower.max()).sum() > alarms


@given(st.lists(st.tuples(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0])), st.booleans()), max_size=40))
def test_any_scores_are_a_picture(pairs):
    scores, truth = np.array([score for score, _ in pairs]), np.array([float(positive) for _, positive in pairs])
    found = score_histogram(scores, truth, {"a": 0.0, "b": 1.0})
    for panel in found.panels:
        for x, y, height in panel.bars:
            assert 62 <= x <= 436 and 0 < height <= 113 and y >= 0
    assert all(62 <= line.x <= 436 for line in found.lines)
    for value, panel in zip((0, 1), found.panels, strict=True):
        assert bool(panel.bars) == bool((truth == value).any())


def test_the_slider_counts_right_and_knows_the_operating_points(page, found, classifier):
    data = data_of(page)
    clear = ~found.measured.ambiguous
    scores, truth = found.measured.scores(DISTILLATION)[clear], found.measured.truth[clear]
    thresholds = [point["threshold"] for point in data["points"]]
    assert thresholds == sorted(set(thresholds), reverse=True) and len(thresholds) <= 230
    for point in data["points"]:
        flagged = scores >= point["threshold"]
        cells = [(flagged & (truth == 1)).sum(), (~flagged & (truth == 1)).sum()]
        cells += [(flagged & (truth == 0)).sum(), (~flagged & (truth == 0)).sum()]
        assert point["cells"] == cells
        assert point["recall"] == shares(rate_estimate(int(cells[0]), int((truth == 1).sum())))
        for traffic in point["traffic"]:
            assert ("at least" in traffic["precision"]) == (not cells[2])  # 100 % would be made up
    points = {name: point.thresholds[DISTILLATION] for name, point in classifier.assay.operating_points.items()}
    named = {point["name"]: point["threshold"] for point in data["points"] if point["name"]}
    assert named == points and data["points"][data["start"]]["name"] == classifier.assay.default_point
    for point in data["points"]:
        if point["name"]:
            section = found.sections[f"operating point {point['name']}"]
            assert point["fpr"] == shares(section["false_positive_rate"])
            if point["cells"][2]:
                assert point["traffic"][1]["precision"] == shares(section["precision_at_1_in_1000"])


# ---- for a terminal ----


def test_the_terminal_gets_what_matters(found, classifier):
    text = evaluation_text(found)
    lines = text.splitlines()
    assert len(lines) <= 66 and max(map(len, lines)) <= 120
    assert "area under ROC" in text and "functional suite" in text and "worst slices" in text
    for row in point_rows(classifier.assay, found.sections):
        line = next(line for line in lines if line.startswith(f"| {row.name} "))
        assert row.promise in line and shares(row.section["false_positive_rate"]) in line
        assert share(row.aim) in line
    assert any(line.startswith("| plain <words>") for line in lines)
    assert not any(record.rendered in text for record in found.measured.records)


# ---- in a real browser ----


def browse(page, folder, driver="", fragment="", width=1200, extra=()):
    """The page's DOM after its script ran, and after the driver's; what the browser complains of is a fault."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", f"<script>{driver}</script></body>") if driver else page, encoding="utf-8")
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    arguments += ["--virtual-time-budget=5000", f"--window-size={width},900", "--enable-logging=stderr", *extra]
    result = subprocess.run(
        [CHROMIUM, *arguments, "--dump-dom", f"file://{path}{fragment}"], capture_output=True, text=True, timeout=120
    )
    complaints = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    assert result.returncode == 0 and complaints == [], complaints or result.stderr
    return result.stdout


def shown_in(dom):
    """What the page shows of the chosen threshold."""
    found = re.findall(r'data-show="(\w+)"[^>]*>(.*?)</', dom)
    return {name: html.unescape(text) for name, text in found}


def expected(point, one_in):
    hits, missed, alarms, _ = point["cells"]
    words = {"threshold": point["shown"], "name": f" ({point['name']})" if point["name"] else ""}
    words |= {"fpr": point["fpr"], "recall": point["recall"], **point["traffic"][[100, 1000, 100_000].index(one_in)]}
    return words | {"hits": str(hits), "missed": str(missed), "alarms": str(alarms)}


@in_browser
def test_a_browser_shows_the_default_point_first(page, tmp_path):
    data = data_of(page)
    dom = browse(page, tmp_path)
    point = data["points"][data["start"]]
    assert shown_in(dom).items() >= expected(point, 1000).items() and set(SHOWN) <= set(shown_in(dom))
    assert 'class="chosen"' in dom and not re.search(r'<section class="chooser"[^>]* hidden', dom)
    circle = re.search(r'<circle class="moving" data-mark="roc"[^>]*>', dom)[0]
    x, y = point["places"]["roc"]
    assert f'cx="{x:g}"' in circle and f'cy="{y:g}"' in circle


@in_browser
def test_an_address_opens_at_its_threshold(page, tmp_path):
    data = data_of(page)
    for asked in (0.0, 0.5, data["points"][3]["threshold"]):
        near = min(data["points"], key=lambda point: abs(point["threshold"] - asked))
        dom = browse(page, tmp_path, fragment=f"#threshold={asked}&one-in=100")
        assert shown_in(dom).items() >= expected(near, 100).items()


@in_browser
def test_the_slider_its_buttons_and_the_rarity_work(page, tmp_path):
    data = data_of(page)
    driver = """
      const slider = document.getElementById("threshold"), rarity = document.getElementById("one-in");
      const texts = () => Object.fromEntries([...document.querySelectorAll("[data-show]")].map(
        (element) => [element.dataset.show, element.textContent]));
      const seen = [];
      slider.value = 2; slider.dispatchEvent(new Event("input")); seen.push([texts(), location.hash]);
      rarity.selectedIndex = 2; rarity.dispatchEvent(new Event("change")); seen.push([texts(), location.hash]);
      for (const button of document.querySelectorAll("[data-index]")) {
        button.click(); seen.push([texts(), button.getAttribute("aria-pressed")]);
      }
      location.hash = "#threshold=0.5";
      dispatchEvent(new Event("beforeprint"));
      const folded = document.querySelectorAll("details:not(.fold):not([open])").length;
      const result = document.createElement("pre"); result.id = "result";
      result.textContent = JSON.stringify({seen, folded}); document.body.append(result);
    """
    dom = browse(page, tmp_path, driver)
    result = json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', dom, re.S)[1]))
    (first, address), (second, again), *buttons = result["seen"]
    assert first.items() >= expected(data["points"][2], 1000).items()
    assert address == f"#threshold={data['points'][2]['threshold']}&one-in=1000"
    assert second.items() >= expected(data["points"][2], 100_000).items() and again.endswith("one-in=100000")
    named = [point for point in data["points"] if point["name"]]
    assert len(buttons) == len(named)
    for (texts, pressed), point in zip(buttons, named, strict=True):
        assert texts.items() >= expected(point, 100_000).items() and pressed == "true"
    assert result["folded"] == 0


@in_browser
@pytest.mark.parametrize("show_text", [False, True])
def test_nothing_makes_a_phone_scroll_sideways(found, classifier, tmp_path, show_text, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    page = html_report(found, classifier, options(show_text=show_text))
    # A frame, since no window of this browser is as narrow as a phone.
    frame = f'<iframe width="390" height="844" style="border: 0" srcdoc="{html.escape(page)}"></iframe>'
    driver = """
      const frame = document.querySelector("iframe");
      frame.addEventListener("load", () => {
        const inside = frame.contentDocument;
        for (const part of inside.querySelectorAll("details")) part.open = true;
        const root = inside.documentElement;
        document.title = [frame.contentWindow.innerWidth, root.scrollWidth, inside.body.scrollWidth].join(" ");
      });
    """
    dom = browse(f"<!doctype html><title></title><body>{frame}</body>", tmp_path, driver)
    inner, *widths = map(int, re.search("<title>(.*?)</title>", dom)[1].split())
    assert inner == 390 and max(widths) <= 390


@in_browser
def test_hostile_text_runs_nothing(found, classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    page = html_report(found, classifier, options(show_text=True))
    dom = browse(page, tmp_path)  # an alert, or what the policy refuses, would stand in its log
    assert dom.count("<script") == 2
    assert "<img" not in dom
    assert "alert(1)" in html.unescape(dom)


@in_browser
def test_the_page_is_a_picture_and_prints(page, tmp_path):
    browse(page, tmp_path)
    path, arguments = tmp_path / "page.html", ["--headless=new", "--no-sandbox", "--disable-gpu"]
    for name, how in (("a.png", "--screenshot"), ("a.pdf", "--print-to-pdf")):
        command = [CHROMIUM, *arguments, f"--user-data-dir={tmp_path / 'profile'}", f"{how}={tmp_path / name}"]
        subprocess.run([*command, f"file://{path}"], capture_output=True, timeout=120, check=True)
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "a.pdf").read_bytes()[:5] == b"%PDF-" and (tmp_path / "a.pdf").stat().st_size > 30_000
