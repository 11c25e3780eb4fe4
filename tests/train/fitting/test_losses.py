"""Training losses against values computed by hand."""

import math

import pytest
import torch

from train.fitting.losses import class_weights, classification_loss, lung_penalty

# Probabilities 1/2 and 1/2; 1/4 and 3/4.
LOGITS = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
LABELS = torch.tensor([0, 1])
EQUAL_WEIGHTS = torch.ones(2)


def test_class_weights_balance_the_classes() -> None:
    weights = class_weights(torch.tensor([0, 1, 1, 1]))
    assert weights.tolist() == pytest.approx([2, 2 / 3])


def test_cross_entropy_by_class() -> None:
    loss = classification_loss(LOGITS, LABELS, torch.tensor([2.0, 0.5]))
    assert loss.item() == pytest.approx((2 * math.log(2) + 0.5 * math.log(4 / 3)) / 2)


def test_loss_of_a_batch_is_the_mean_over_slices() -> None:
    """So that several processes that share a batch take the same step as a single process."""
    weights = torch.tensor([2.0, 0.5])
    whole = classification_loss(LOGITS, LABELS, weights, smoothing=0.1)
    slices = [
        classification_loss(LOGITS[k : k + 1], LABELS[k : k + 1], weights, smoothing=0.1)
        for k in range(2)
    ]
    assert float(whole) == pytest.approx(float(sum(slices)) / 2)


def test_mixed_images_count_for_both_labels() -> None:
    loss = classification_loss(LOGITS, LABELS, EQUAL_WEIGHTS, mixup_weight=0.25)
    own = (math.log(2) + math.log(4 / 3)) / 2
    previous = (math.log(2) + math.log(4)) / 2
    assert loss.item() == pytest.approx(0.25 * own + 0.75 * previous)


def test_lung_penalty_is_the_mean_evidence_outside_the_lungs() -> None:
    """Two images of 2 × 2 cells; the left half of the first is lung, the second has no mask."""
    features = torch.tensor([[[3.0, 1.0], [0.0, 4.0]], [[0.0, 2.0], [1.0, 0.0]]])
    features = torch.stack([features, features])  # (2, 2, 2, 2)
    weight = torch.tensor([[0.0, 1.0], [2.0, 0.0]], requires_grad=True)
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4] = 1
    penalty = lung_penalty(features, weight, masks, torch.tensor([True, False]))
    # The decision map is twice the first channel minus the second: 2 · 1 − 2 = 0 and 2 · 4 − 0 = 8.
    assert penalty.item() == pytest.approx((0 + 8) / 4 / 2)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad[1].tolist() == pytest.approx([4 / 4 / 2, 0])
