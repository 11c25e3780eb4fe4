"""Are the maps right? Tests of decision maps: PNEUMONIA's less NORMAL's, in logits.

Each takes a network and pixels (N, S, S) uint8 and gives a number an image, so that intervals can
be drawn over them.
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
from train import phantoms
from train.augment import gaussian_blur
from train.cam import explain_decision
from train.correlation import spearman
from train.networks import NETWORKS, Classifier, build, predict

Maps = npt.NDArray[np.float32]  # (N, h, w)
Values = npt.NDArray[np.float64]

BATCH = 32
STEPS = 14  # of deletion and insertion
BLUR = 1 / 16  # of the image: standard deviation of what replaces deleted pixels
BLOB = 0.25  # of the image: standard deviation of the blob in its centre
UNSEEN = 987_654  # the seed of phantoms that no run draws by itself


def decisions(network: Classifier, pixels: Pixels) -> tuple[Values, Maps]:
    """Decision logits (N,) and maps (N, h, w)."""
    device = network.head.weight.device
    found = [
        explain_decision(network, part.to(device))
        for part in torch.split(torch.from_numpy(pixels), BATCH)
    ]
    logits, maps = (torch.cat([one[k].cpu() for one in found]).numpy() for k in (0, 1))
    return logits.astype(np.float64), maps


def enlarged(maps: Maps, size: int) -> npt.NDArray[np.float32]:
    """Maps (N, h, w) as (N, S, S), bilinear."""
    large: npt.NDArray[np.float32] = F.interpolate(
        torch.from_numpy(maps)[:, None], size=(size, size), mode="bilinear"
    )[:, 0].numpy()
    return large


# --- phantoms, where the place of every opacity is known


@dataclass(frozen=True)
class Pointing:
    """Of phantoms with an opacity, each (N,): is the map's evidence for PNEUMONIA there?"""

    hit: Values  # 1 where the map's peak lies in a box (Zhang et al. 2016, arXiv:1608.00507)
    share: Values  # of the positive part of the map, inside the boxes
    area: Values  # of the image, the boxes'


def pointing_game(explain: Callable[[Pixels], Maps], size: int, count: int) -> Pointing:
    """The pointing game on phantoms never trained on.

    `explain` gives the decision maps (N, h, w) of pixels (N, S, S), S = `size`.
    """
    drawn = [phantoms.draw(UNSEEN, number, 1, size) for number in range(count)]
    maps = explain(np.stack([phantom.image for phantom in drawn]))
    return pointing(enlarged(maps, size), [phantom.boxes for phantom in drawn])


def pointing(large: npt.NDArray[np.float32], boxes: Sequence[Sequence[phantoms.Box]]) -> Pointing:
    """Of maps (N, S, S) and each image's boxes: left, top, right, bottom, in pixels, half-open."""
    inside = np.zeros(large.shape, bool)
    for mask, some in zip(inside, boxes, strict=True):
        for left, top, right, bottom in some:
            mask[top:bottom, left:right] = True
    peaks = large.reshape(len(large), -1).argmax(1)
    positive = large.clip(min=0)
    return Pointing(
        hit=inside.reshape(len(large), -1)[np.arange(len(large)), peaks].astype(np.float64),
        share=(positive * inside).sum((1, 2)) / positive.sum((1, 2)).clip(min=1e-6),
        area=inside.mean((1, 2)),
    )


# --- deletion and insertion


@dataclass(frozen=True)
class Curves:
    """Probability of the predicted class (N, 15), as pixels are deleted and inserted."""

    deletion: Values
    insertion: Values


def orders(network: Classifier, pixels: Pixels, seed: int = 0) -> Mapping[str, Values]:
    """What to delete first, (N, S, S) by name: the map's evidence for the predicted class, a random
    map as coarse as it, a blob in the centre."""
    size = pixels.shape[-1]
    logits, maps = decisions(network, pixels)
    evidence = np.sign(logits)[:, None, None] * enlarged(maps, size)
    noise = np.random.default_rng(seed).normal(size=maps.shape).astype(np.float32)
    place = (np.arange(size) + 0.5) / size - 0.5
    blob = np.exp(-(place**2 + place[:, None] ** 2) / (2 * BLOB**2))
    return {
        "map": evidence.astype(np.float64),
        "random": enlarged(noise, size).astype(np.float64),
        "centre": np.broadcast_to(blob, pixels.shape),
    }


def curves(network: Classifier, pixels: Pixels, order: Values) -> Curves:
    """Deletion and insertion (Petsiuk et al. 2018, arXiv:1806.07421), highest of `order` first.

    Pixels are replaced by the image's own blur: a patch of one grey would have edges, which look
    like something.
    """
    size = pixels.shape[-1]
    sharp = torch.from_numpy(pixels).float()
    blurred = gaussian_blur(sharp[:, None], BLUR * size)[:, 0]
    flat = order.reshape(len(order), -1)
    ranks = np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1).reshape(order.shape)
    label = predict(network, sharp, size).argmax(1).cpu()
    found: dict[str, list[Tensor]] = {"deletion": [], "insertion": []}
    for step in range(STEPS + 1):
        first = torch.from_numpy(ranks < step / STEPS * size * size)
        for name, changed in (
            ("deletion", torch.where(first, blurred, sharp)),
            ("insertion", torch.where(first, sharp, blurred)),
        ):
            scores = predict(network, changed, size).softmax(1).cpu()
            found[name].append(scores.gather(1, label[:, None])[:, 0])
    return Curves(**{name: torch.stack(each, 1).double().numpy() for name, each in found.items()})


def area(curve: Values) -> Values:
    """Area (N,) under curves (N, 15) of equal steps from 0 to 1."""
    found: Values = np.trapezoid(curve, dx=1 / (curve.shape[1] - 1), axis=1)
    return found


# --- cascading randomisation


def cascade(network: Classifier, name: str, pixels: Pixels) -> Iterator[tuple[str, Values, Maps]]:
    """Stage by stage from the head down, weights drawn anew (Adebayo et al. 2018, 1810.03292).

    After each: the stage's name, the rank correlation (N,) of the maps with the trained network's,
    and the maps. A map that does not change does not show what was learned.
    """
    _, trained = decisions(network, pixels)
    torch.manual_seed(0)
    fresh = build(name, dilated=True)
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):  # a residual block that starts as nothing is no draw
            nn.init.ones_(module.weight)
    drawn = fresh.state_dict()
    changed = copy.deepcopy(network)
    architecture = NETWORKS[name]
    for depth, (stage, _) in enumerate(
        tqdm(architecture.stages, desc=f"{name}: cascade", disable=None)
    ):
        state = changed.state_dict()
        for key in state:
            if architecture.stage_of(key) == depth:
                state[key].copy_(drawn[key])
        _, maps = decisions(changed, pixels)
        yield stage, spearman(trained, maps), maps


# --- agreement


def on_one_grid(one: Maps, other: Maps) -> tuple[Maps, Maps]:
    """Maps of two sizes on the smaller grid of the two, averaged."""
    side = min(one.shape[-1], other.shape[-1])
    first, second = (
        F.adaptive_avg_pool2d(torch.from_numpy(each), side).numpy() for each in (one, other)
    )
    return first, second
