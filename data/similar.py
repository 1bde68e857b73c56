"""How alike two prompts are: shingles of words, exact Jaccard similarity, and an index that finds what is near.

Near-duplicates are found by MinHash with locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, chapter 3), which only proposes; exact Jaccard similarity of the shingles decides.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rensa import RMinHash, RMinHashLSH

PERMUTATIONS = 128
_MISS = 1e-6
"""Chance to miss a pair that is just as alike as the threshold."""
_MANY = 64
_DROPPED_BITS = 10
_BUCKETS = 1 << 32 - _DROPPED_BITS

# Words; scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) character by character; and signs
# that carry meaning in mathematics and code. Other punctuation does not make two prompts different.
_TOKEN = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
    r"|(?:(?![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff])\w)+"
    r"|[+*/<>=^%]"
)
_ASCII_TOKEN = re.compile(r"\w+|[+*/<>=^%]")
_PRIMES = np.array([0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


def tokens(text: str) -> list[str]:
    """The words of a text, without case; each character of scripts without spaces is a word."""
    return (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text.casefold())


def shingles(text: str, words: int) -> np.ndarray:
    """Hashes of all runs of `words` neighbouring words, `[distinct shingles]` uint32, ascending.

    A text of fewer words has one shingle: all of it. Hashes are the same in every process.
    """
    own = tokens(text) or [" ".join(text.split())]  # where a text is nothing but punctuation
    hashes = np.array(RMinHash.hash_token_sets([own])[0], dtype=np.uint64)
    size = min(words, len(hashes))
    mixed = np.zeros(len(hashes) - size + 1, dtype=np.uint64)
    for place in range(size):
        mixed = (mixed ^ hashes[place : place + len(mixed)]) * _PRIMES[place % 3]
        mixed ^= mixed >> np.uint64(29)
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def jaccard(one: np.ndarray, two: np.ndarray) -> float:
    """Shared shingles by all shingles of two texts."""
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / (len(one) + len(two) - shared)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A text as the index takes it."""

    shingles: np.ndarray
    minhash: RMinHash

    @classmethod
    def of(cls, text: str, words: int) -> Sketch:
        """Shingles and MinHash of a text."""
        own = shingles(text, words)
        flat = own.tobytes()
        minhash = RMinHash(num_perm=PERMUTATIONS, seed=1)
        minhash.update([flat[i : i + 4] for i in range(0, len(flat), 4)])
        return cls(own, minhash)


def bands(threshold: float) -> int:
    """The fewest bands, and so the fewest false candidates, that miss a pair at the threshold no oftener than 1e-6."""
    for rows in (8, 4, 2):
        number = PERMUTATIONS // rows
        if (1 - threshold**rows) ** number < _MISS:
            return number
    return PERMUTATIONS


def overlap_needed(one: Any, two: Any, threshold: float) -> Any:
    """Shingles that two texts of so many shingles must share to be as alike as the threshold; numbers or arrays."""
    return np.ceil(threshold / (1 + threshold) * (one + two) - 1e-9)


class Rarity:
    """An order of shingles from rare to frequent, as far as they were counted."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, dtype=np.int64)

    def count(self, text: np.ndarray) -> None:
        """Count the shingles of a text, by their leading bits: near enough, and small."""
        self._counts[text >> _DROPPED_BITS] += 1

    def rarest(self, text: np.ndarray, threshold: float) -> np.ndarray:
        """So many of a text's shingles, rarest first, that any text as alike as the threshold has one of them."""
        size = len(text) - math.ceil(threshold * len(text) - 1e-9) + 1
        rank = self._counts[text >> _DROPPED_BITS] << 32 | text
        return text[np.argsort(rank)[:size]]


class SimilarIndex:
    """Texts under numbers; `find` gives those that are at least `threshold` alike, with how alike.

    Thousands of texts of one template resemble each other without being near-duplicates, and each would be compared
    with all others. Where a text has many candidates, a join with positional filter takes over (Xiao, Wang, Lin and
    Yu, WWW 2008): two texts are compared only if one has a rare shingle of the other so far up in its order of
    rarity that enough shingles are left to be shared.
    """

    def __init__(self, threshold: float, size: int) -> None:
        self._threshold = threshold
        self._lsh = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=bands(threshold))
        self._shingles: dict[int, np.ndarray] = {}
        self._sizes = np.zeros(size, dtype=np.int64)
        self._rarity = Rarity()
        self._posted = np.zeros(size, dtype=bool)
        self._postings: dict[int, tuple[array[int], array[int]]] = {}

    def add(self, number: int, sketch: Sketch) -> None:
        """Make a text findable under its number, which is below the size."""
        self._lsh.insert(number, sketch.minhash)
        self._shingles[number] = sketch.shingles
        self._sizes[number] = len(sketch.shingles)
        self._rarity.count(sketch.shingles)

    def remove(self, number: int) -> None:
        """Make a text unfindable."""
        self._lsh.remove(number)
        del self._shingles[number]

    def find(self, sketch: Sketch) -> list[tuple[int, float]]:
        """Numbers and similarities of all texts at or over the threshold, by number."""
        near = self._lsh.query(sketch.minhash)
        if len(near) > _MANY:
            near = self._narrowed(sketch.shingles, np.array(near))
        alike = ((number, self._similarity(sketch.shingles, self._shingles[number])) for number in sorted(near))
        return [(number, similarity) for number, similarity in alike if similarity >= self._threshold]

    def _narrowed(self, own: np.ndarray, near: np.ndarray) -> list[int]:
        """Of many texts those that a positional filter leaves."""
        for number in near[~self._posted[near]].tolist():
            for place, shingle in enumerate(self._rarity.rarest(self._shingles[number], self._threshold).tolist()):
                numbers, places = self._postings.setdefault(shingle, (array("q"), array("q")))
                numbers.append(number)
                places.append(place)
        self._posted[near] = True
        found: set[int] = set()
        for shingle in own.tolist():
            if shingle in self._postings:
                others, ranks = (np.array(values) for values in self._postings[shingle])
                sizes = self._sizes[others]
                enough = sizes - ranks >= overlap_needed(len(own), sizes, self._threshold)
                found.update(others[enough].tolist())
        return [number for number in found if number in self._shingles]

    def _similarity(self, one: np.ndarray, two: np.ndarray) -> float:
        short, long = sorted((len(one), len(two)))
        return jaccard(one, two) if short >= self._threshold * long else 0.0


def near_pairs(texts: Sequence[str], threshold: float, words: int) -> list[tuple[int, int]]:
    """The places of all pairs of texts that are at least `threshold` alike in their runs of `words` words."""
    index = SimilarIndex(threshold, len(texts))
    pairs = []
    for number, text in enumerate(texts):
        sketch = Sketch.of(text, words)
        pairs += [(number, other) for other, _ in index.find(sketch)]
        index.add(number, sketch)
    return pairs
