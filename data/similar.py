"""How alike two prompts are: shingles of words, exact Jaccard similarity, and an index that finds what is near.

Near-duplicates are found by MinHash with locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, chapter 3), which only proposes; exact Jaccard similarity of the shingles decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rensa import RMinHash, RMinHashLSH

PERMUTATIONS = 128
_MISS = 1e-6
"""Chance to miss a pair that is just as alike as the threshold."""
_DEVIATIONS = 5
_LARGE = 64

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


class SimilarIndex:
    """Texts under numbers from 0; `find` gives those that are at least `threshold` alike, with how alike."""

    def __init__(self, threshold: float, size: int) -> None:
        self._threshold = threshold
        spread = (threshold * (1 - threshold) / PERMUTATIONS) ** 0.5
        self._least_shared = (threshold - _DEVIATIONS * spread) * PERMUTATIONS
        self._lsh = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=bands(threshold))
        self._digests = np.zeros((size, PERMUTATIONS), dtype=np.uint32)
        self._shingles: dict[int, np.ndarray] = {}

    def add(self, number: int, sketch: Sketch) -> None:
        """Make a text findable under its number, which is below the size."""
        self._lsh.insert(number, sketch.minhash)
        self._digests[number] = sketch.minhash.digest()
        self._shingles[number] = sketch.shingles

    def remove(self, number: int) -> None:
        """Make a text unfindable."""
        self._lsh.remove(number)
        del self._shingles[number]

    def find(self, sketch: Sketch) -> list[tuple[int, float]]:
        """Numbers and similarities of all texts at or over the threshold, by number."""
        near = sorted(self._lsh.query(sketch.minhash))
        if len(near) > _LARGE:  # a family of templates: most can be told apart by their sketches alone
            digest = np.array(sketch.minhash.digest(), dtype=np.uint32)
            shared = (self._digests[near] == digest).sum(axis=1)
            near = [number for number, n in zip(near, shared, strict=True) if n >= self._least_shared]
        alike = ((number, self._similarity(sketch.shingles, self._shingles[number])) for number in near)
        return [(number, similarity) for number, similarity in alike if similarity >= self._threshold]

    def _similarity(self, one: np.ndarray, two: np.ndarray) -> float:
        short, long = sorted((len(one), len(two)))
        return jaccard(one, two) if short >= self._threshold * long else 0.0


def similar_across(texts: Sequence[np.ndarray], places: np.ndarray, threshold: float) -> tuple[int, int, float] | None:
    """The first pair of texts in different places that is at least `threshold` alike, or None: exact, no sketches.

    Two sets with a Jaccard similarity of at least t must share one of their rarest `n - ceil(t n) + 1` members (the
    prefix filter of Bayardo, Ma and Srikant, WWW 2007), so only these are compared.

    Args:
        texts: shingles of each text.
        places: `[texts]`, where each text lies.
        threshold: over 0, at most 1.
    """
    if not len(texts):
        return None
    # Any order of shingles that is the same for all texts will do; the nearer it is to rarity, the fewer pairs are
    # compared. Counting by the leading bits is near enough, and small.
    counts = np.zeros(1 << 22, dtype=np.int64)
    for text in texts:
        np.add.at(counts, text >> 10, 1)
    rare, owner = [], []
    for number, text in enumerate(texts):
        size = len(text) - math.ceil(threshold * len(text) - 1e-9) + 1
        order = np.argpartition(counts[text >> 10] << 32 | text, min(size, len(text) - 1))[:size]
        rare.append(text[order])
        owner.append(np.full(size, number, dtype=np.int32))
    shared, owners = np.concatenate(rare), np.concatenate(owner)
    order = np.argsort(shared, kind="stable")
    bounds = np.flatnonzero(np.diff(shared[order])) + 1
    seen: set[tuple[int, int]] = set()
    for start, end in zip([0, *bounds.tolist()], [*bounds.tolist(), len(order)], strict=True):
        if end - start < 2:
            continue
        members = owners[order[start:end]]
        here = places[members]
        if (here == here[0]).all():
            continue
        for i, one in enumerate(members.tolist()):
            for two in members[i + 1 :][here[i + 1 :] != here[i]].tolist():
                pair = (min(one, two), max(one, two))
                short, long = sorted((len(texts[one]), len(texts[two])))
                if short < threshold * long or pair in seen:
                    continue
                seen.add(pair)
                similarity = jaccard(texts[one], texts[two])
                if similarity >= threshold:
                    return (*pair, similarity)
    return None
