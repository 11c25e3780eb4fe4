"""Faithfulness of decision maps: the map of PNEUMONIA minus that of NORMAL, in logits.

Pointing game, deletion and insertion, cascading randomisation. Each takes a network and pixels
(N, S, S) uint8 and returns one number per image, over which intervals can be computed.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from handlers.arrays import Pixels
from train.data import phantoms
from train.fitting.augment import gaussian_blur
from train.metrics.correlation import spearman
from train.model.cam import explain_decision
from train.model.networks import NETWORKS, Classifier, build, predict

Maps = npt.NDArray[np.float32]  # (N, h, w)
Values = npt.NDArray[np.float64]  # one number per image, or one curve

BATCH = 32
STEPS = 14  # of deletion and insertion
BLUR = 1 / 16  # standard deviation, as a share of the side, of the blur that replaces pixels
BLOB = 0.25  # standard deviation, as a share of the side, of the blob in the centre
PHANTOM_SEED = 987_654  # a seed that no data set of phantoms uses by default


def decisions(network: Classifier, pixels: Pixels) -> tuple[Values, Maps]:
    """Decision logits (N,) and decision maps (N, h, w) of pixels (N, S, S)."""
    device = network.head.weight.device
    batches = torch.split(torch.from_numpy(pixels), BATCH)
    outputs = [explain_decision(network, batch.to(device)) for batch in batches]
    logits, maps = zip(*outputs, strict=True)
    return torch.cat(logits).cpu().numpy().astype(np.float64), torch.cat(maps).cpu().numpy()


def upsample(maps: Maps, size: int) -> npt.NDArray[np.float32]:
    """Maps (N, h, w), bilinearly interpolated to (N, S, S), S = `size`."""
    large: npt.NDArray[np.float32] = F.interpolate(
        torch.from_numpy(maps)[:, None], size=(size, size), mode="bilinear"
    )[:, 0].numpy()
    return large


# --- pointing game on phantoms, whose opacities have known boxes


@dataclass(frozen=True)
class PointingResult:
    """Evidence for PNEUMONIA against the boxes of the opacities; each field is (N,)."""

    hit: Values  # 1 if the map's peak lies in a box (Zhang et al. 2016, arXiv:1608.00507), else 0
    share: Values  # of the map's positive part, inside the boxes
    area: Values  # share of the image that the boxes cover


def pointing_game(explain: Callable[[Pixels], Maps], size: int, count: int) -> PointingResult:
    """The pointing game on `count` phantoms with opacities that were not trained on.

    `explain` returns the decision maps (N, h, w) of pixels (N, S, S), S = `size`.
    """
    drawn = [phantoms.draw(PHANTOM_SEED, number, 1, size) for number in range(count)]
    maps = explain(np.stack([phantom.image for phantom in drawn]))
    return score_pointing(upsample(maps, size), [phantom.boxes for phantom in drawn])


def score_pointing(
    maps: npt.NDArray[np.float32], boxes: Sequence[Sequence[phantoms.Box]]
) -> PointingResult:
    """Score maps (N, S, S) against the boxes of each image.

    A box is left, top, right, bottom in pixels, half-open.
    """
    inside = np.zeros(maps.shape, bool)
    for mask, image_boxes in zip(inside, boxes, strict=True):
        for left, top, right, bottom in image_boxes:
            mask[top:bottom, left:right] = True
    peaks = maps.reshape(len(maps), -1).argmax(1)
    positive = maps.clip(min=0)
    return PointingResult(
        hit=inside.reshape(len(maps), -1)[np.arange(len(maps)), peaks].astype(np.float64),
        share=(positive * inside).sum((1, 2)) / positive.sum((1, 2)).clip(min=1e-6),
        area=inside.mean((1, 2)),
    )


# --- deletion and insertion


@dataclass(frozen=True)
class Curves:
    """Probability of the predicted class (N, 15) by the share of pixels deleted or inserted."""

    deletion: Values
    insertion: Values


def pixel_scores(network: Classifier, pixels: Pixels, seed: int = 0) -> Mapping[str, Values]:
    """Scores (N, S, S) that rank an image's pixels for deletion, by name.

    `map` is the decision map's evidence for the predicted class. The baselines are `random`, noise
    of the map's resolution, and `centre`, a blob.
    """
    size = pixels.shape[-1]
    logits, maps = decisions(network, pixels)
    evidence = np.sign(logits)[:, None, None] * upsample(maps, size)
    noise = np.random.default_rng(seed).normal(size=maps.shape).astype(np.float32)
    offsets = (np.arange(size) + 0.5) / size - 0.5
    blob = np.exp(-(offsets**2 + offsets[:, None] ** 2) / (2 * BLOB**2))
    return {
        "map": evidence.astype(np.float64),
        "random": upsample(noise, size).astype(np.float64),
        "centre": np.broadcast_to(blob, pixels.shape),
    }


def curves(network: Classifier, pixels: Pixels, order: Values) -> Curves:
    """Deletion and insertion curves, pixels of the highest `order` (N, S, S) first.

    Petsiuk et al. 2018, arXiv:1806.07421. Pixels are replaced by a blur of the image: a uniform
    grey patch would have edges, which a network may take for structures.
    """
    size = pixels.shape[-1]
    sharp = torch.from_numpy(pixels).float()
    blurred = gaussian_blur(sharp[:, None], BLUR * size)[:, 0]
    flat = order.reshape(len(order), -1)
    ranks = np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1).reshape(order.shape)
    label = predict(network, sharp, size).argmax(1).cpu()

    def probability(images: Tensor) -> Tensor:
        scores = predict(network, images, size).softmax(1).cpu()
        return scores.gather(1, label[:, None])[:, 0]

    deletion, insertion = [], []
    for step in range(STEPS + 1):
        first = torch.from_numpy(ranks < step / STEPS * size * size)
        deletion.append(probability(torch.where(first, blurred, sharp)))
        insertion.append(probability(torch.where(first, sharp, blurred)))
    return Curves(
        deletion=torch.stack(deletion, 1).double().numpy(),
        insertion=torch.stack(insertion, 1).double().numpy(),
    )


def area_under(curve: Values) -> Values:
    """Area (N,) under curves (N, 15) of equal steps from 0 to 1."""
    area: Values = np.trapezoid(curve, dx=1 / (curve.shape[1] - 1), axis=1)
    return area


# --- cascading randomisation


def cascade(network: Classifier, name: str, pixels: Pixels) -> Iterator[tuple[str, Values, Maps]]:
    """Re-initialise the weights stage by stage, from the head down (cascading randomisation).

    Yields after each stage its name, the rank correlation (N,) of the maps with the trained
    network's, and the maps (N, h, w). A map that stays the same does not depend on what was
    learned. Adebayo et al. 2018, arXiv:1810.03292. The network itself is not changed.
    """
    _, trained = decisions(network, pixels)
    torch.manual_seed(0)
    untrained = build(name, dilated=True)
    for module in untrained.modules():
        # A residual block's last scale starts at 0, which would switch the block off.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    random_state = untrained.state_dict()
    randomised = copy.deepcopy(network)
    architecture = NETWORKS[name]
    for depth, (stage, _) in enumerate(
        tqdm(architecture.stages, desc=f"{name}: cascade", disable=None)
    ):
        state = randomised.state_dict()
        for key in state:
            if architecture.stage_of(key) == depth:
                state[key].copy_(random_state[key])
        _, maps = decisions(randomised, pixels)
        yield stage, spearman(trained, maps), maps


# --- agreement


def to_common_grid(first: Maps, second: Maps) -> tuple[Maps, Maps]:
    """Both maps (N, h, h), averaged over the cells of the smaller of the two grids."""
    side = min(first.shape[-1], second.shape[-1])
    first, second = (
        F.adaptive_avg_pool2d(torch.from_numpy(maps), side).numpy() for maps in (first, second)
    )
    return first, second
