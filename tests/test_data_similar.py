"""Likeness: exact Jaccard against a plain definition, and an index that misses nothing over the threshold."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.leaks import similar_across
from data.similar import SimilarIndex, Sketch, bands, jaccard, shingles, tokens

from .conftest import ROOT

WORDS = st.lists(st.sampled_from("a b c d e f g h".split()), min_size=1, max_size=14).map(" ".join)  # noqa: SIM905


def plain_jaccard(one, two, words):
    """By the definition, on sets of tuples."""

    def runs(text):
        found = tokens(text)
        size = min(words, len(found))
        return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}

    a, b = runs(one), runs(two)
    return len(a & b) / len(a | b)


def family(seed, n=60):
    """Texts that differ from one another in a few words, so that similarities lie all around the threshold."""
    random = np.random.default_rng(seed)
    base = [f"w{i}" for i in random.integers(0, 500, 60)]
    made = []
    for _ in range(n):
        words = base.copy()
        for place in random.integers(0, 60, random.integers(0, 7)):
            words[place] = f"x{random.integers(0, 500)}"
        made.append(" ".join(words))
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do I boil an egg?", ["how", "do", "i", "boil", "an", "egg"]),
        ("你好 world，再见", ["你", "好", "world", "再", "见"]),
        ("カタカナ and ไทย", ["カ", "タ", "カ", "ナ", "and", "ไ", "ท", "ย"]),
        ("안녕 세상", ["안녕", "세상"]),
        ("x^2+1 <= 3", ["x", "^", "2", "+", "1", "<", "=", "3"]),
        ("Привет, мир!", ["привет", "мир"]),
    ],
)
def test_words_of_all_scripts(text, expected):
    assert tokens(text) == expected


@given(WORDS, WORDS, st.integers(1, 5))
def test_jaccard_is_that_of_the_definition(one, two, words):
    assert jaccard(shingles(one, words), shingles(two, words)) == pytest.approx(plain_jaccard(one, two, words))


@given(st.text(min_size=1, max_size=30))
def test_every_text_has_a_shingle_and_is_like_itself(text):
    own = shingles(text, 3)
    assert len(own) and (np.diff(own.astype(np.int64)) > 0).all()
    assert jaccard(own, own) == 1.0


def test_shingles_are_the_same_in_every_process():
    code = "from data.similar import shingles; print(shingles('one two three four five', 3).tolist())"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(shingles("one two three four five", 3).tolist())


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_bands_miss_next_to_nothing_at_the_threshold(threshold):
    rows = 128 // bands(threshold)
    assert (1 - threshold**rows) ** bands(threshold) < 1e-6


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
@pytest.mark.parametrize("n", [60, 250])
def test_the_index_finds_what_brute_force_finds(threshold, n):
    texts = family(3, n)
    sketches = [Sketch.of(text, 3) for text in texts]
    index = SimilarIndex(threshold, len(texts))
    seen = 0
    for number, sketch in enumerate(sketches):
        expected = [
            (other, jaccard(sketch.shingles, sketches[other].shingles))
            for other in range(number)
            if jaccard(sketch.shingles, sketches[other].shingles) >= threshold
        ]
        assert index.find(sketch) == expected
        seen += len(expected)
        index.add(number, sketch)
    assert seen > 10


def test_what_is_removed_is_not_found():
    index = SimilarIndex(0.8, 2)
    sketch = Sketch.of("one two three four five six", 3)
    index.add(0, sketch)
    index.add(1, sketch)
    index.remove(0)
    assert index.find(sketch) == [(1, 1.0)]


@given(st.lists(WORDS, max_size=12), st.data(), st.sampled_from([0.5, 0.7, 0.8, 1.0]))
def test_the_exact_check_is_brute_force(texts, data, threshold):
    places = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts))), dtype=int)
    own = [shingles(text, 2) for text in texts]
    across = {
        (i, j)
        for i in range(len(own))
        for j in range(i + 1, len(own))
        if places[i] != places[j] and jaccard(own[i], own[j]) >= threshold
    }
    found = similar_across(own, places, threshold)
    assert (found is None) == (not across)
    if found:
        assert found[:2] in across and found[2] == jaccard(own[found[0]], own[found[1]])
