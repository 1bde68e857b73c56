"""Cleaning: repeats go, contradictions are settled, boundary cases stay, and nothing vanishes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data.clean import (
    CONFLICT,
    DUPLICATE,
    NEAR_DUPLICATE,
    OVER_GROUP,
    TOO_LONG,
    TOO_SHORT,
    CleanConfig,
    clean,
)
from data.records import parse_record
from data.similar import jaccard, shingles

BASE = "please write a short and friendly note to the neighbours about the noise on friday night in our street"
NEAR = BASE.replace("friday", "monday")
FAR = "which bread flour should i buy for a sourdough loaf that rises well in a cold kitchen over night"
ORGANIC, SWEEP = [], ["capability_sweep"]


def record(text, labels=(), source="s", **fields):
    return parse_record({"text": text, "labels": list(labels), "source": source, **fields}, "s")


def outcome(records, **config):
    """What became of each record: None where it stays, else the reason and the place of the evidence."""
    cleaned = clean(records, CleanConfig(**{"threshold": 0.6, **config}))
    place = {(r.source, r.id): n for n, r in enumerate(records)}
    return [
        (item.reason, place.get((item.evidence_source, item.evidence))) if (item := cleaned.removed.get(n)) else None
        for n in range(len(records))
    ]


def test_the_texts_are_what_they_stand_for():
    assert 0.6 < jaccard(shingles(BASE, 3), shingles(NEAR, 3)) < 1
    assert jaccard(shingles(BASE, 3), shingles(FAR, 3)) == 0


def test_of_repeats_the_first_stays():
    records = [record(BASE, id="1"), record(BASE.upper(), id="2"), record(NEAR, id="3"), record(FAR, id="4")]
    assert outcome(records) == [None, (DUPLICATE, 0), (NEAR_DUPLICATE, 0), None]
    assert outcome(records, threshold=1.0) == [None, (DUPLICATE, 0), None, None]


def test_evidence_says_how_alike():
    cleaned = clean([record(BASE, id="1"), record(NEAR, id="2")], CleanConfig(threshold=0.6))
    assert cleaned.removed[1].similarity == pytest.approx(jaccard(shingles(BASE, 3), shingles(NEAR, 3)))
    assert cleaned.links == [(1, 0)] and [r.id for r in cleaned.kept] == ["1"]


@pytest.mark.parametrize("other", [BASE, NEAR])
def test_where_sources_are_even_nobody_is_believed(other):
    records = [record(BASE, ORGANIC, "a", id="1"), record(other, SWEEP, "b", id="2")]
    assert outcome(records) == [(CONFLICT, 1), (CONFLICT, 0)]


@pytest.mark.parametrize("other", [BASE, NEAR])
def test_more_sources_win(other):
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        three = [record(BASE, ORGANIC, "a"), record(BASE, ORGANIC, "b"), record(other, SWEEP, "c")]
        records = [three[n] for n in order]
        kept = clean(records, CleanConfig(threshold=0.6)).kept
        assert [r.labels for r in kept] == [()]
        reasons = Counter(reason for reason, _ in filter(None, outcome(records)))
        assert reasons == {DUPLICATE: 1, CONFLICT: 1}


@pytest.mark.parametrize(
    ("votes", "stays"),
    [
        ({"x": 4, "y": 3, "z": 2}, "x"),
        ({"x": 3, "y": 2, "z": 2}, "x"),
        ({"x": 3, "y": 2, "z": 1}, "x"),
        ({"x": 2, "y": 2, "z": 1}, None),
        ({"x": 2, "y": 2}, None),
        ({"x": 1, "y": 1, "z": 1}, None),
        ({"x": 2, "y": 1, "z": 1}, "x"),
    ],
)
def test_the_most_frequent_of_several_labels_stays_and_of_even_ones_none(votes, stays):
    labels = {"x": SWEEP, "y": ["censorship_probing"], "z": ORGANIC}
    records = [record(BASE, labels[name], f"{name}{n}") for name, count in votes.items() for n in range(count)]
    for shift in range(len(records)):
        kept = clean(records[shift:] + records[:shift], CleanConfig()).kept
        assert [list(r.labels) for r in kept] == ([labels[stays]] if stays else [])


def test_one_source_has_one_vote_however_often_it_repeats_itself():
    records = [record(BASE, ORGANIC, "a", id=str(n)) for n in range(5)] + [record(BASE, SWEEP, "b", id="9")]
    assert all(reason == CONFLICT for reason, _ in outcome(records))


def test_a_category_that_nobody_judged_contradicts_nothing():
    records = [record(BASE, SWEEP, "a"), record(BASE, ORGANIC, "b", judged=["censorship_probing"])]
    assert outcome(records) == [None, (DUPLICATE, 0)]


def test_boundary_pairs_stay_whatever_they_are_like():
    pair = [record(BASE, ORGANIC, pair="p"), record(NEAR, SWEEP, pair="p")]
    assert outcome(pair) == [None, None]
    assert outcome([*pair, record(NEAR, SWEEP, "x", pair="q")]) == [None, None, None]
    # The row that stands twice goes, and what contradicts a pair from outside goes too.
    assert outcome([*pair, record(BASE, ORGANIC, "x", pair="p")]) == [None, None, (DUPLICATE, 0)]
    assert outcome([pair[0], record(NEAR, SWEEP, "x")]) == [None, (CONFLICT, 0)]
    # One text cannot have two labels, not even in a pair.
    assert outcome([record(BASE, ORGANIC, "a", pair="p"), record(BASE, SWEEP, "b", pair="p")]) == [
        (CONFLICT, 1),
        (CONFLICT, 0),
    ]


def test_a_group_keeps_so_many_that_are_alike():
    def filled(n, **fields):
        return record(BASE.replace("friday", f"day{n}"), **fields)

    records = [filled(n, group="g") for n in range(6)] + [filled(7, group="h"), filled(8), record(FAR, group="g")]
    reasons = [item and item[0] for item in outcome(records, max_per_group=4)]
    assert reasons == [None] * 4 + [OVER_GROUP] * 2 + [NEAR_DUPLICATE] * 2 + [None]


def test_lengths_have_limits():
    records = [record("hi"), record(BASE), record("long " * 50)]
    reasons = [item and item[0] for item in outcome(records, min_chars=3, max_chars=200)]
    assert reasons == [TOO_SHORT, None, TOO_LONG]


def test_limits_that_make_no_sense_are_refused():
    for wrong in ({"threshold": 0.3}, {"threshold": 1.1}, {"words": 0}, {"max_per_group": 0}, {"colour": 1}):
        with pytest.raises(ValidationError):
            CleanConfig(**wrong)


WORDS = "one two three four five six seven eight nine ten".split()  # noqa: SIM905
RECORDS = st.lists(
    st.builds(
        lambda words, labels, source, group, pair, n: record(
            " ".join(words), labels, source, group=group, pair=pair, id=str(n)
        ),
        st.lists(st.sampled_from(WORDS[:4]), min_size=4, max_size=6),
        st.sampled_from([[], ["capability_sweep"], ["capability_sweep", "censorship_probing"]]),
        st.sampled_from("abc"),
        st.sampled_from([None, None, "g", "h"]),
        st.sampled_from([None, None, None, "p", "q"]),
        st.integers(0, 10**9),
    ),
    max_size=25,
    unique_by=lambda r: r.id,
)


@given(RECORDS, st.sampled_from([0.5, 0.8, 1.0]), st.integers(1, 3))
def test_in_is_kept_and_removed_and_every_reason_is_true(records, threshold, most):
    cleaned = clean(records, CleanConfig(threshold=threshold, max_per_group=most))
    assert len(cleaned.kept) + len(cleaned.removed) == len(records)
    by_id = {r.id: r for r in records}
    kept = {r.id for r in cleaned.kept}
    for item in cleaned.removed.values():
        one, other = item.record, by_id[item.evidence]
        alike = jaccard(shingles(one.rendered, 3), shingles(other.rendered, 3))
        assert item.similarity == (1.0 if one.key == other.key else pytest.approx(alike)) and alike >= threshold
        if item.reason == DUPLICATE:
            assert one.key == other.key and one.agrees_with(other) and other.id in kept
        elif item.reason in (NEAR_DUPLICATE, OVER_GROUP):
            assert one.agrees_with(other) and other.id in kept and one.pair is None
            assert (item.reason == OVER_GROUP) == (one.group is not None and one.group == other.group)
    for i, one in enumerate(cleaned.kept):
        for two in cleaned.kept[i + 1 :]:
            alike = one.key == two.key or jaccard(shingles(one.rendered, 3), shingles(two.rendered, 3)) >= threshold
            if alike and not (one.pair or two.pair):
                assert one.group is not None and one.group == two.group and one.agrees_with(two)
            if one.key == two.key:
                assert one.agrees_with(two)
