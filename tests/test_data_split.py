"""Splits: what belongs together stays together, what was placed stays placed, and the check finds every leak."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.clean import CleanConfig, clean
from data.fixup import SplitError
from data.leaks import LeakError, check_splits
from data.placements import Placements, text_key
from data.reading import SPLITS
from data.records import CATEGORIES, ORGANIC, parse_record
from data.split import JOINS_SPLITS, SplitRules, SplitShares, clusters, place

from .test_data_clean import BASE, NEAR

CONFIG = CleanConfig(threshold=0.6)


def record(text, labels=(), source="s", **fields):
    return parse_record({"text": text, "labels": list(labels), "source": source, **fields}, "s")


def crowd(n=60, start=0, **fields):
    """Records of every label that are nothing like one another, `n` of each."""
    return [
        record(
            f"{label[:4]} {number} {number * 7919} {number * 104729} unlike",
            [] if label == ORGANIC else [label],
            **fields,
        )
        for label in (*CATEGORIES, ORGANIC)
        for number in range(start, start + n)
    ]


def split(records, previous=None, **rules):
    """Split of each kept record by its text, and the whole result."""
    placed = place(clean(records, CONFIG), SplitRules(**rules), previous or Placements())
    return {records[number].text: name for number, name in placed.splits.items()}, placed


def test_shares_come_out():
    shares = SplitShares(calibration=0.2, validation=0.1, test=0.15)
    placed = [shares.split_of(f"cluster {n}", 0) for n in range(20_000)]
    assert placed.count("calibration") / 20_000 == pytest.approx(0.2, abs=0.01)
    assert placed.count("train") / 20_000 == pytest.approx(0.55, abs=0.01)


def test_likeness_group_pair_and_source_join():
    joined = [
        record(BASE, pair="p1"),
        record(NEAR, ["capability_sweep"], pair="p2"),  # like the first
        record("quite another text", pair="p2", group="g"),
        record("and one more that is not like it", group="g"),
    ]
    for seed in range(12):
        homes, placed = split(crowd() + joined, seed=seed)
        assert len({homes[r.text] for r in joined}) == 1
        assert len({placed.clusters[n] for n in range(240, 244)}) == 1
        homes, _ = split(
            crowd(source="a") + crowd(start=100, source="b") + [record("x y z", source="c")] * 2, seed=seed
        )
        assert len(set(homes.values())) == 4
    records = [
        *crowd(10, 0, source="a"),
        *crowd(10, 20, source="b"),
        *crowd(10, 40, source="c"),
        *crowd(10, 60, source="d"),
    ]
    homes, _ = split(records, by_source=True)
    assert len({(r.source, homes[r.text]) for r in records}) == 4


def test_a_missing_label_is_brought_in_from_where_most_is():
    few = [record(f"rare {n} {n * 31}", ["censorship_probing"]) for n in range(4)]
    records = [r for r in crowd() if "censorship_probing" not in r.labels] + few
    for seed in range(6):
        homes, placed = split(records, seed=seed)
        assert sorted(homes[r.text] for r in few) == sorted(SPLITS)
        for move in placed.moves:
            assert move["reason"] == f"{move['to']} had no censorship_probing" and move["records"] == 1
        assert split(records[::-1], seed=seed)[0] == homes


def test_a_label_that_cannot_be_everywhere_is_named():
    records = [r for r in crowd() if "censorship_probing" not in r.labels]
    with pytest.raises(SplitError, match="no record of censorship_probing can be placed in train: it stands in 0"):
        split(records)
    three = [record(f"rare {n} {n * 31}", ["censorship_probing"]) for n in range(3)]
    with pytest.raises(SplitError, match="it stands in 3 cluster"):
        split(records + three)


def test_a_fix_up_moves_nothing_that_was_placed():
    old = [r for r in crowd() if "censorship_probing" not in r.labels]
    four = [record(f"rare {n} {n * 31}", ["censorship_probing"]) for n in range(4)]
    homes, placed = split(old + four)
    there = {r.text: homes[r.text] for r in four}
    again, after = split(old + four + crowd(5, 500), placed.placements)
    assert {text: again[text] for text in there} == there and after.moves == []


def test_held_out_sources_stand_in_test_alone():
    like = record(BASE, source="held")
    held = [like, *[record(f"held {n} {n * 13}", source="held") for n in range(20)]]
    records = crowd() + held + [record(NEAR, source="other", group="g"), record("of the group of it", group="g")]
    for seed in range(6):
        homes, _ = split(records, hold_out_sources=["held"], seed=seed)
        assert {homes[r.text] for r in held if r.text in homes} == {"test"}
        assert homes["of the group of it"] == "test"  # its group holds what is like a held-out prompt


def test_a_source_that_was_trained_on_cannot_be_held_out():
    records = crowd(source="a") + crowd(20, 100, source="b")
    _, placed = split(records)
    with pytest.raises(SplitError, match="source b is to be held out, and the previous build placed records of it in"):
        split(records, placed.placements, hold_out_sources=["b"])


def test_placed_records_stay_when_the_seed_and_the_shares_change():
    homes, placed = split(crowd())
    again, _ = split(crowd() + crowd(30, 300), placed.placements, seed=5, shares=SplitShares(test=0.5))
    assert homes.items() <= again.items()


def test_a_group_goes_where_it_was_placed_though_its_records_are_new():
    old = crowd() + [record("old one of g", group="g")]
    for seed in range(5):
        homes, placed = split(old, seed=seed)
        again, _ = split([*crowd(), record("new one of g", group="g")], placed.placements, seed=seed + 1)
        assert again["new one of g"] == homes["old one of g"]


def test_a_repeat_of_what_was_trained_on_is_never_measured_on():
    """What was left out as a near-duplicate keeps its place, and takes it when its twin is gone."""
    homes, placed = split(crowd() + [record(BASE), record(NEAR)])
    assert NEAR not in homes
    again, _ = split([*crowd(), record(NEAR)], placed.placements, seed=3)
    assert again[NEAR] == homes[BASE]


def apart(placed_in=("train", "test")):
    """Two groups that a build placed in two splits."""
    for seed in range(50):
        records = crowd() + [record("first of one", group="one"), record("first of two", group="two")]
        homes, placed = split(records, seed=seed)
        if (homes["first of one"], homes["first of two"]) == placed_in:
            return records, homes, placed, seed
    raise AssertionError("no seed does it")


def test_a_new_record_that_would_join_two_splits_is_left_out():
    records, homes, placed, seed = apart()
    bridge = record("bridge", group="one", pair="p")
    other = record("other end", group="two", pair="p")
    again, after = split([*records, bridge, other], placed.placements, seed=seed)
    assert homes.items() <= again.items()
    assert [item.reason for item in after.removed.values()] == [JOINS_SPLITS]
    assert [item.evidence for item in after.removed.values()] == ["test and train"]


def test_old_records_that_are_now_joined_go_to_the_older_place_or_to_test():
    records, homes, placed, seed = apart(("train", "test"))
    merged = [r if r.group is None else r.changed(group="both") for r in records]
    again, after = split(merged, placed.placements, seed=seed)
    assert again["first of one"] == again["first of two"] == "test"
    assert [move["to"] for move in after.moves] == ["test"]
    assert {text: home for text, home in again.items() if not text.startswith("first")}.items() <= homes.items()
    # A younger place gives way to an older one.
    _, young = split([*records[:-1], record("first of three", group="three")], placed.placements, seed=seed + 1)
    assert text_key(record("first of three")) in {key for keys in young.placements.builds[1].values() for key in keys}
    joined = [*records[:-2], record("first of one", group="both"), record("first of three", group="both")]
    final, _ = split(joined, young.placements, seed=seed)
    assert final["first of three"] == final["first of one"] == "train"


def test_placements_are_written_and_read_back():
    placements = Placements([{"train": ["a", "b"], "test": []}, {"train": [], "test": ["c"]}])
    assert Placements.from_json(placements.to_json()) == placements
    assert placements.by_key() == {"a": (0, 3), "b": (0, 3), "c": (1, 0)}


WORDS = st.lists(st.sampled_from("one two three four".split()), min_size=3, max_size=6).map(" ".join)  # noqa: SIM905
RECORDS = st.lists(
    st.builds(
        lambda text, n, labels, group, pair: record(text, labels, group=group, pair=pair, id=str(n)),
        WORDS,
        st.integers(0, 10**9),
        st.sampled_from([[], ["capability_sweep"]]),
        st.sampled_from([None, None, "g", "h"]),
        st.sampled_from([None, None, "p", "q"]),
    ),
    max_size=20,
    unique_by=lambda r: r.id,
)
ANCHORS = crowd(20, 1000)


def by_split(records, placed):
    splits = {name: [] for name in SPLITS}
    for number, name in placed.splits.items():
        splits[name].append(records[number])
    return splits


@given(RECORDS, RECORDS, st.integers(0, 3))
def test_nothing_leaks_and_nothing_that_was_placed_moves(first, more, seed):
    old = ANCHORS + first
    homes, placed = split(old, seed=seed)
    check_splits(by_split(old, placed), CONFIG.threshold, CONFIG.words)
    assert len(placed.splits) + len(clean(old, CONFIG).removed) == len(old)

    # The rank of what was placed before is first, as a build takes it.
    known = {text_key(r) for n, r in enumerate(old) if n in placed.splits}
    both = sorted(ANCHORS + first + more, key=lambda r: text_key(r) not in known)
    again, after = split(both, placed.placements, seed=seed + 7)
    check_splits(by_split(both, after), CONFIG.threshold, CONFIG.words)
    if not after.moves:
        assert all(again[text] == home for text, home in homes.items() if text in again)


@given(RECORDS, st.randoms(), st.integers(0, 3))
def test_the_order_of_records_does_not_matter_to_their_clusters(records, random, seed):
    shuffled = records[:]
    random.shuffle(shuffled)
    names = {r.id: name for r, name in zip(records, clusters(records), strict=True)}
    assert {r.id: name for r, name in zip(shuffled, clusters(shuffled), strict=True)} == names
    for one in records:
        for two in records:
            if (one.group and one.group == two.group) or (one.pair and one.pair == two.pair) or one.key == two.key:
                assert names[one.id] == names[two.id]


def test_the_check_finds_leaks():
    every = crowd(8)

    def check(a, b, **rules):
        check_splits({"train": a, "test": b}, 0.6, 3, **rules)

    check(every[::2], every[1::2])
    with pytest.raises(LeakError, match="text of record"):
        check(every, every[:1])
    with pytest.raises(LeakError, match="group of record"):
        check([*every[::2], record("x", group="g")], [*every[1::2], record("y", group="g")])
    with pytest.raises(LeakError, match="pair of record"):
        check([*every[::2], record("x", pair="g")], [*every[1::2], record("y", pair="g")])
    with pytest.raises(LeakError, match="source of record"):
        check(every[::2], every[1::2], by_source=True)
    with pytest.raises(LeakError, match="of the held-out source s stands in train"):
        check(every[::2], every[1::2], held_out=["s"])
    with pytest.raises(LeakError, match=r"in train and \w+ in test are 0.7\d alike, at or over the threshold 0.6"):
        check([*every[::2], record(BASE)], [*every[1::2], record(NEAR)])
    with pytest.raises(LeakError, match="no record of censorship_probing in test"):
        check(every[::2], [r for r in every[1::2] if r.labels != ("censorship_probing",)])
