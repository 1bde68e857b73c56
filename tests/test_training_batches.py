"""Which prompts a step reads, which of their windows, and how they are packed."""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.batches import Packer, StepSampler, TrainingPrompts, row_shares

SOURCES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("wxyz")), min_size=1, max_size=60)


def rows_of(counts, labels=(1.0, 0.0, -1.0)):
    """Encoded rows: so many windows each, every window with tokens that say whose it is and which."""
    return [
        {
            "windows": [[2, 1000 * row + window, *[7] * length, 3] for window in range(count)],
            "labels": list(labels),
            "weight": 1.0,
            "source": f"s{row % 3}",
            "group": f"g{row % 5}",
        }
        for row, (count, length) in enumerate(counts)
    ]


def encoded_of(counts):
    return datasets.Dataset.from_list(rows_of(counts))


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 90)), min_size=1, max_size=24), st.integers(16, 400))
def test_packing_loses_no_window_and_keeps_the_budget(counts, tokens):
    rows = rows_of(counts)
    step = Packer(0, tokens)(rows)
    assert step["labels"].shape == (len(rows), 3) and step["weight"].tolist() == [1.0] * len(rows)
    seen = []
    for batch in step["batches"]:
        members = batch["rows"].tolist()
        assert batch["input_ids"].numel() <= tokens or len(members) == 1
        assert (batch["attention_mask"].sum(dim=1) > 0).all()
        lengths = batch["attention_mask"].sum(dim=1)
        assert lengths.max() == batch["input_ids"].shape[1]  # nothing is padded beyond the longest
        for place, row in enumerate(members):
            mine = (batch["owner"] == place).nonzero().flatten()
            windows = [batch["input_ids"][i, : lengths[i]].tolist() for i in mine]
            assert windows == rows[row]["windows"]
        seen += members
    assert sorted(seen) == list(range(len(rows)))


def test_similar_lengths_go_together():
    lengths = [10, 100, 11, 99, 12, 98] * 4
    step = Packer(0, 400)(rows_of([(1, length) for length in lengths]))
    padded = sum(batch["input_ids"].numel() for batch in step["batches"])
    useful = sum(int(batch["attention_mask"].sum()) for batch in step["batches"])
    assert useful / padded > 0.85


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 50))
def test_a_draw_takes_windows_in_order_and_never_two_of_the_middle_before_the_ends(count, limit, epoch):
    prompts = TrainingPrompts(encoded_of([(count, 1)]), limit, seed=3)
    found = [window[1] for window in prompts[(0, epoch)]["windows"]]
    assert found == sorted(set(found)) and len(found) == min(count, limit)
    middle = [number for number in found if number not in (0, count - 1)]
    if limit <= 3:
        assert len(middle) <= 1
    elif count > 2:
        assert {0, count - 1} <= set(found)
    assert [window[1] for window in prompts[(0, epoch)]["windows"]] == found  # the same draw again


def test_every_part_of_a_prompt_is_read_sooner_or_later():
    prompts = TrainingPrompts(encoded_of([(7, 1)]), 1, seed=0)
    draws = [prompts[(0, epoch)]["windows"][0][1] for epoch in range(300)]
    assert set(draws) == set(range(7))
    assert draws.count(0) > 60 and draws.count(6) > 60  # head and tail a third each


def test_without_an_epoch_windows_are_spread_from_head_to_tail():
    prompts = TrainingPrompts(encoded_of([(9, 1), (2, 1)]), 3, seed=0)
    assert [window[1] for window in prompts[0]["windows"]] == [0, 4, 8]
    assert [window[1] for window in prompts[1]["windows"]] == [1000, 1001]


def test_an_epoch_reads_every_prompt_once_in_an_order_of_its_own():
    sampler = StepSampler(encoded_of([(1, 1)] * 50), 1, 1.0, seed=5)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {e for _, e in keys} == {epoch} and len(keys) == len(sampler) == 50
        orders.append([row for row, _ in keys])
    assert sorted(orders[0]) == list(range(50)) == sorted(orders[1])
    assert orders[0] == orders[2] != orders[1]


def test_an_epoch_ends_with_a_full_step():
    sampler = StepSampler(encoded_of([(1, 1)] * 50), 16, 1.0, seed=5)
    keys = list(sampler)
    assert len(keys) == len(sampler) == 48 and len(set(keys)) == 48


@given(SOURCES, st.floats(0, 1))
def test_shares_are_fair_in_sources_and_groups(pairs, temperature):
    sources, groups = zip(*pairs, strict=True)
    shares = row_shares(sources, groups, temperature)
    assert shares.sum() == pytest.approx(1) and (shares > 0).all()
    names, counts = np.unique(sources, return_counts=True)
    by_source = {name: shares[np.array(sources) == name].sum() for name in names}
    total = (counts**temperature).sum()
    for name, count in zip(names, counts, strict=True):
        assert by_source[name] == pytest.approx(count**temperature / total)
    assert row_shares(sources, groups, 1.0) == pytest.approx(np.full(len(pairs), 1 / len(pairs)))


@given(SOURCES, st.integers(0, 5))
def test_a_temperature_reads_each_row_its_share_rounded(pairs, epoch):
    encoded = datasets.Dataset.from_list([{"source": s, "group": g} for s, g in pairs])
    sampler = StepSampler(encoded, 1, 0.3, seed=1)
    sampler.set_epoch(epoch)
    counts = np.bincount([row for row, _ in sampler], minlength=len(pairs))
    expected = row_shares(*zip(*pairs, strict=True), 0.3) * len(pairs)
    assert counts.sum() == len(pairs)
    assert (counts >= np.floor(expected - 1e-6)).all() and (counts <= np.ceil(expected + 1e-6)).all()


def test_a_prompts_loss_does_not_depend_on_how_a_step_is_packed(encoder, run_config):
    """Gradients of one step: all in one batch, or each prompt alone."""
    from training.encoders import find_encoder
    from training.model import PromptModel, open_network

    torch.manual_seed(0)
    model = PromptModel(open_network(find_encoder(run_config.encoder), run_config.encoder))
    rows = [
        row | {"windows": [[min(token, 99) for token in w] for w in row["windows"]], "weight": 0.25 * (i % 4 + 1)}
        for i, row in enumerate(rows_of([(1, 3), (3, 20), (2, 11), (1, 40), (4, 2)]))
    ]
    gradients = []
    for tokens in (16, 100_000):
        step = Packer(0, tokens)(rows)
        assert len(step["batches"]) == (len(rows) if tokens == 16 else 1)
        model.zero_grad()
        for batch in step["batches"]:
            loss = model(**{name: value for name, value in batch.items() if name != "rows"})["loss"]
            (loss / step["weight"].sum()).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4)
