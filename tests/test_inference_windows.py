"""Windows cover a prompt, and pooling does not favour long ones."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.windows import Windower, WindowSpec, pool_logits, window_starts

SHAPES = st.tuples(st.integers(0, 5000), st.integers(4, 300), st.integers(0, 100), st.integers(1, 20)).filter(
    lambda shape: shape[2] <= shape[1] // 2
)


@given(SHAPES)
def test_windows_cover_all_unless_truncated(shape):
    n, capacity, overlap, limit = shape
    starts, truncated = window_starts(n, capacity, overlap, limit)
    assert len(starts) <= limit
    assert starts[0] == 0
    seen = np.zeros(n, dtype=bool)
    for start in starts:
        seen[start : start + capacity] = True
    if not truncated:
        assert seen.all()
        assert all(b - a <= capacity - overlap for a, b in zip(starts, starts[1:], strict=False))
    elif limit > 1:
        assert starts[-1] + capacity == n


@pytest.mark.parametrize(
    ("n", "expected"), [(0, ([0], False)), (10, ([0], False)), (11, ([0, 1], False)), (100, ([0, 45, 90], True))]
)
def test_golden_starts(n, expected):
    assert window_starts(n, 10, 2, 3) == expected


def test_windows_of_a_real_tokenizer(encoder):
    windower = Windower(Tokenizer.from_file(str(encoder / "tokenizer.json")), WindowSpec(32, 4, 3))
    text = "my bread broke again . " * 100
    short, long = windower(["my bread", text])
    assert (len(short.ids), short.spans, short.truncated) == (1, [(0, 8)], False)
    assert (len(long.ids), long.truncated, long.n_tokens) == (3, True, 500)
    assert {len(ids) for ids in long.ids} == {32}
    assert {ids[0] for ids in long.ids} == {short.ids[0][0]} and {ids[-1] for ids in long.ids} == {short.ids[0][-1]}
    assert long.spans[0][0] == 0 and long.spans[-1][1] == len(text)


def test_windows_too_small_for_their_overlap_are_refused(encoder):
    with pytest.raises(ValueError, match="leave no room"):
        Windower(Tokenizer.from_file(str(encoder / "tokenizer.json")), WindowSpec(10, 8, 3))


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12), st.integers(1, 6))
def test_equal_windows_pool_to_one(logits, copies):
    row = torch.tensor([logits])
    pooled = pool_logits(row.repeat(copies, 1), torch.zeros(copies, dtype=torch.long), 1)
    torch.testing.assert_close(pooled, row)


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12))
def test_pooling_lies_between_mean_and_maximum(logits):
    column = torch.tensor(logits).unsqueeze(1)
    pooled = pool_logits(column, torch.zeros(len(logits), dtype=torch.long), 1).item()
    assert column.mean().item() - 1e-3 <= pooled <= column.max().item() + 1e-3


def test_pooling_keeps_prompts_apart_and_passes_gradients():
    logits = torch.tensor([[1.0], [3.0], [-2.0]], requires_grad=True)
    pooled = pool_logits(logits, torch.tensor([0, 0, 1]), 2)
    assert pooled[1].item() == pytest.approx(-2.0)
    assert pooled[0].item() == pytest.approx(np.log((np.e + np.e**3) / 2), rel=1e-6)
    pooled.sum().backward()
    assert logits.grad[:2].sum().item() == pytest.approx(1.0)
