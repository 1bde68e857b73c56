"""Where earlier builds placed things: carried from manifest to manifest, so that nothing that was placed ever moves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .reading import SPLITS
from .records import Record

# Where clusters of one age merge: a record that was measured on must never be trained on.
PREFERENCE = ("test", "calibration", "validation", "train")


def hashed(key: str) -> str:
    """A key of a text, group, pair or source as placements hold it: nothing of a prompt can be read from it."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]


def text_key(record: Record) -> str:
    """What a record is placed by: its text, hashed."""
    return hashed(f"text:{record.key}")


@dataclass(frozen=True, slots=True)
class Placements:
    """Where earlier builds placed things: for each build, oldest first, split → hashes of what it placed first."""

    builds: list[dict[str, list[str]]] = field(default_factory=list)

    def by_key(self) -> dict[str, tuple[int, int]]:
        """For each hash the age of its place and the split's rank in preference: the smallest is to be kept."""
        return {
            key: (age, PREFERENCE.index(split))
            for age, build in reversed(list(enumerate(self.builds)))
            for split, keys in build.items()
            for key in keys
        }

    def to_json(self) -> list[dict[str, str]]:
        """For the manifest: hashes of one split in one line."""
        return [{split: " ".join(keys) for split, keys in build.items()} for build in self.builds]

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, str]]) -> Placements:
        """What `to_json` wrote."""
        return cls([{split: keys.split() for split, keys in build.items()} for build in content])

    def grown(self, new: Mapping[str, Sequence[str]], moved: Mapping[str, str]) -> Placements:
        """With one more build: what it placed first, and where it moved what was placed before (hash → split)."""
        builds = []
        for build in self.builds:
            placed: dict[str, list[str]] = {split: [] for split in SPLITS}
            for split, keys in build.items():
                for key in keys:
                    placed[moved.get(key, split)].append(key)
            builds.append({split: sorted(keys) for split, keys in placed.items()})
        return Placements([*builds, {split: sorted(set(keys)) for split, keys in new.items()}])
