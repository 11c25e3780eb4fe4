"""What training minimises: functions of tensors, differentiable."""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_weights(labels: Tensor) -> Tensor:
    """Weights, float32 (2,), by which both classes of labels (N,) count the same."""
    counts = torch.bincount(labels, minlength=2)
    return (counts.sum() / (2 * counts)).to(torch.float32)


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    smoothing: float = 0.0,
    kept: float = 1.0,
) -> Tensor:
    """Cross-entropy, a scalar in nats: logits (N, 2), labels (N,), weights of the classes (2,).

    Where mixup kept a share of each image, the rest counts for the label of the image before it.
    """
    loss = _cross_entropy(logits, labels, weights, smoothing)
    if kept < 1:
        loss = kept * loss + (1 - kept) * _cross_entropy(logits, labels.roll(1), weights, smoothing)
    return loss


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    # In float32, as autocast takes it: half precision would round the loss to two or three digits.
    losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
    # Not divided by the sum of the weights, which would differ from rank to rank.
    return (losses * weights[labels]).mean()


def lung_penalty(features: Tensor, weight: Tensor, masks: Tensor, present: Tensor) -> Tensor:
    """Mean evidence from outside the lungs, a scalar in logits; 0 for an image without a mask.

    Of the decision map, which the head's weight (2, C) makes of features (N, C, h, w). Masks
    (N, S, S) are in 0..1, `present` (N,) says which images have one.
    """
    maps = torch.einsum("c,nchw->nhw", weight[1] - weight[0], features.float())
    return (evidence_outside(maps, masks) * present).mean()


def evidence_outside(maps: Tensor, masks: Tensor) -> Tensor:
    """Logits (N,) of either sign that maps (N, h, w) draw from outside masks (N, S, S) in 0..1.

    After Ross et al. 2017, arXiv:1703.03717. Not the share of a map outside the lungs: that does
    not grow with the map, so its gradient is largest while the map is still close to zero.
    """
    return (maps.abs() * (1 - lung_cover(masks, maps))).mean((1, 2))


def lung_cover(masks: Tensor, maps: Tensor) -> Tensor:
    """The share of each cell of maps (N, h, w) that is lung, by masks (N, S, S) in 0..1."""
    height, width = maps.shape[-2:]
    return F.adaptive_avg_pool2d(masks[:, None], (height, width))[:, 0]
