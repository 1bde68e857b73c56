"""What is minimised: blind to what nobody judged, fair to weights, and each option does what it says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import LossConfig
from training.losses import any_logit, energy, positive_weights, prompt_losses

PLAIN = LossConfig()
LOGITS = st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=6)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


@given(LOGITS, st.integers(0, 26))
def test_the_plain_loss_is_cross_entropy_over_categories_and_distillation(logits, pattern):
    """Against the same in numpy, written from the definition."""
    values = torch.tensor(logits, dtype=torch.float64)
    row = [[0.0, 1.0, -1.0][pattern // 3**i % 3] for i in range(3)]
    labels = torch.tensor([row] * len(logits), dtype=torch.float64)
    losses = prompt_losses(values, labels, PLAIN).numpy()
    for found, z in zip(losses, logits, strict=True):
        p = sigmoid(z)
        expected = sum(-np.log(p[i] if row[i] == 1 else 1 - p[i]) for i in range(3) if row[i] >= 0) / 3
        none = np.prod(1 - p)
        if 1.0 in row:
            expected += -np.log1p(-none)
        elif -1.0 not in row:
            expected += -np.log(none)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_loss_is_blind_to_what_nobody_judged():
    labels = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
    logits = torch.tensor([[9.0, 5.0, -3.0], [-2.0, -2.0, -2.0]], requires_grad=True)
    other = torch.tensor([[9.0, 0.0, -3.0], [-2.0, -2.0, -2.0]])
    losses = prompt_losses(logits, labels, PLAIN)
    losses.sum().backward()
    # distillation is known already by the first category, so the second hardly matters
    assert losses[0].item() == pytest.approx(prompt_losses(other, labels, PLAIN)[0].item(), abs=1e-3)
    assert abs(logits.grad[0, 1].item()) < 1e-3 < logits.grad[1, 1].item()


@given(LOGITS)
def test_a_focus_counts_less_what_is_right_already(logits):
    values = torch.tensor(logits, dtype=torch.float64)
    for labels in (torch.zeros_like(values), torch.ones_like(values)):
        plain = prompt_losses(values, labels, PLAIN)
        focused = prompt_losses(values, labels, LossConfig(focal_gamma=2.0))
        assert (focused <= plain + 1e-12).all() and (focused >= 0).all()
    sure = torch.tensor([[-6.0, -6.0, -6.0]])
    unsure = torch.tensor([[0.0, 0.0, 0.0]])
    zero = torch.zeros(1, 3)
    keeps = [
        (prompt_losses(x, zero, LossConfig(focal_gamma=2.0)) / prompt_losses(x, zero, PLAIN)).item()
        for x in (sure, unsure)
    ]
    assert keeps[0] < 1e-3 < keeps[1]


def test_smoothing_makes_certainty_cost():
    labels = torch.tensor([[1.0, 0.0, 0.0]])
    sure, modest = torch.tensor([[30.0, -30.0, -30.0]]), torch.tensor([[4.0, -4.0, -4.0]])
    assert prompt_losses(sure, labels, PLAIN) < prompt_losses(modest, labels, PLAIN)
    smooth = LossConfig(label_smoothing=0.02)
    assert prompt_losses(sure, labels, smooth) > prompt_losses(modest, labels, smooth)


def test_energy_is_low_where_a_category_claims_a_prompt():
    logits = torch.tensor([[-20.0, -20.0, -20.0], [8.0, -20.0, -20.0]])
    assert energy(logits).tolist() == [pytest.approx(0, abs=1e-6), pytest.approx(-8, abs=1e-2)]
    torch.testing.assert_close(torch.expm1(-energy(logits[1:])).log(), any_logit(logits[1:]))


@given(LOGITS)
def test_the_energy_penalty_pushes_the_classes_apart(logits):
    config = LossConfig(energy_weight=1.0)
    values = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    for labels, inside in (
        (torch.zeros_like(values), energy(values) >= config.energy_organic),
        (torch.ones_like(values), energy(values) <= config.energy_positive),
    ):
        extra = prompt_losses(values, labels, config) - prompt_losses(values, labels, PLAIN)
        assert (extra >= -1e-12).all()
        assert ((extra.abs() < 1e-9) | ~inside).all()  # inside the margin nothing is pushed
        gradient = torch.autograd.grad(extra.sum(), values)[0]
        assert (gradient >= -1e-12).all() if not labels.any() else (gradient <= 1e-12).all()


def test_an_unknown_prompt_has_no_energy_penalty():
    labels = torch.tensor([[0.0, -1.0, 0.0]])
    logits = torch.full((1, 3), 3.0)
    assert prompt_losses(logits, labels, LossConfig(energy_weight=1.0)) == prompt_losses(logits, labels, PLAIN)


def test_rare_categories_weigh_more():
    labels = torch.zeros(100, 3)
    labels[:10, 0] = labels[10:50, 1] = 1
    labels[50:60, 2] = -1
    weights = positive_weights(labels, 1.0)
    # nine to one, six to four, none of the third, and distillation: fifty positive against forty organic
    torch.testing.assert_close(weights, torch.tensor([9.0, 1.5, 90.0, 0.8]))
    torch.testing.assert_close(positive_weights(labels, 0.0), torch.ones(4))
    one = torch.tensor([[1.0, 0.0, 0.0]])
    logits = torch.tensor([[-1.0, -2.0, -2.0]])
    heavier = prompt_losses(logits, one, PLAIN, torch.tensor([9.0, 1.0, 1.0, 1.0]))
    assert heavier > prompt_losses(logits, one, PLAIN)
    assert prompt_losses(logits, torch.zeros(1, 3), PLAIN, weights) == prompt_losses(logits, torch.zeros(1, 3), PLAIN)
