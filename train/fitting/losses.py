"""Training losses: differentiable functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_weights(labels: Tensor) -> Tensor:
    """Class weights, float32 (2,): N / (2 × count) of labels (N,); each class totals N / 2."""
    counts = torch.bincount(labels, minlength=2)
    return (counts.sum() / (2 * counts)).to(torch.float32)


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    smoothing: float = 0.0,
    mixup_weight: float = 1.0,
) -> Tensor:
    """Cross-entropy, a scalar in nats: logits (N, 2), labels (N,), weights of the classes (2,).

    With mixup the label of each image has `mixup_weight`, that of the previous image the rest.
    """
    loss = _cross_entropy(logits, labels, weights, smoothing)
    if mixup_weight < 1:
        previous = _cross_entropy(logits, labels.roll(1), weights, smoothing)
        loss = mixup_weight * loss + (1 - mixup_weight) * previous
    return loss


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    # In float32, as under autocast: half precision rounds the loss to two or three digits.
    losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
    # Not divided by the sum of the weights, which differs from rank to rank.
    return (losses * weights[labels]).mean()


def lung_penalty(features: Tensor, weight: Tensor, masks: Tensor, present: Tensor) -> Tensor:
    """Mean evidence outside the lungs, a scalar in logits; 0 for an image without a mask.

    The evidence is that of the decision map, computed from features (N, C, h, w) and the head's
    weight (2, C). Masks (N, S, S) are in 0..1; `present` (N,) marks the images that have one.
    """
    maps = torch.einsum("c,nchw->nhw", weight[1] - weight[0], features.float())
    return (evidence_outside(maps, masks) * present).mean()


def evidence_outside(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean absolute evidence (N,) of maps (N, h, w) outside masks (N, S, S) in 0..1, in logits.

    After Ross et al. 2017, arXiv:1703.03717. Not the share of a map outside the lungs: it does
    not grow with the map, so its gradient is largest while the map is still close to zero.
    """
    return (maps.abs() * (1 - lung_cover(masks, maps))).mean((1, 2))


def lung_cover(masks: Tensor, maps: Tensor) -> Tensor:
    """The share of each cell of maps (N, h, w) that is lung, by masks (N, S, S) in 0..1."""
    height, width = maps.shape[-2:]
    return F.adaptive_avg_pool2d(masks[:, None], (height, width))[:, 0]
