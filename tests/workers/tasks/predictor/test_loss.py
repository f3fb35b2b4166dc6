"""Each ingredient of the loss does what its setting says."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from workers.tasks.predictor.loss import Loss, balanced_pos_weight

LOGITS = torch.linspace(-2, 2, 32).reshape(2, 4, 4)
LABELS = (torch.arange(32).reshape(2, 4, 4) % 3 == 0).float()


def loss(horizon_weights=(1.0, 1.0, 1.0, 1.0), pos_weight=1.0, consistency=0.0, label_smoothing=0.0) -> Loss:
    return Loss(horizon_weights, torch.full((4, 4), pos_weight), consistency, label_smoothing)


def test_plain_settings_give_binary_cross_entropy():
    torch.testing.assert_close(loss()(LOGITS, None, LABELS), binary_cross_entropy_with_logits(LOGITS, LABELS))


def test_a_horizon_of_weight_zero_gets_no_gradient():
    logits = LOGITS.clone().requires_grad_()

    loss(horizon_weights=(1.0, 0.0, 0.8, 0.6))(logits, None, LABELS).backward()

    assert logits.grad[:, 1].abs().max() == 0
    assert (logits.grad[:, [0, 2, 3]] != 0).all()


def test_positive_labels_weigh_what_pos_weight_says():
    positive = torch.ones_like(LABELS)

    torch.testing.assert_close(loss(pos_weight=3.0)(LOGITS, None, positive), 3 * loss()(LOGITS, None, positive))
    torch.testing.assert_close(loss(pos_weight=3.0)(LOGITS, None, 1 - positive), loss()(LOGITS, None, 1 - positive))


def test_consistency_prices_the_jump_between_adjacent_timesteps_alone():
    plain, priced = loss()(LOGITS, None, LABELS), loss(consistency=0.1)

    torch.testing.assert_close(priced(LOGITS, LOGITS, LABELS), plain)
    jump = (LOGITS.sigmoid() - (-LOGITS).sigmoid()).square().mean()
    torch.testing.assert_close(priced(LOGITS, -LOGITS, LABELS), plain + 0.1 * jump)


def test_smoothed_labels_are_cheapest_at_the_smoothed_probability():
    optimum = torch.full((1, 4, 4), 0.95).logit().requires_grad_()

    loss(label_smoothing=0.1)(optimum, None, torch.ones(1, 4, 4)).backward()

    assert optimum.grad.abs().max().item() == pytest.approx(0, abs=1e-7)


def test_balanced_weights_are_negatives_a_positive_at_most_twenty_and_one_without_positives():
    labels = torch.zeros(100, 4, 4)
    labels[:25, 0, 0] = 1
    labels[:1, 1, 1] = 1

    weights = balanced_pos_weight(labels)

    assert (weights[0, 0], weights[1, 1], weights[2, 2]) == (3.0, 20.0, 1.0)
