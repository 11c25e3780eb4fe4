"""What test-time augmentation is worth: `python -m benchmarks.views --data FOLDER`.

The published networks, alone and together, on `block-select` as it is and under the stress set's
mixed changes: the mean of the logits of an image and of its mirror image, and of four mild crops as
well, beside those of the image alone. Each view costs the network's whole time once more.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor

from train import calibrate, checkpoint, data, memory, sections, split, stress
from train.data import Dataset
from train.networks import Classifier, predict, resize

MARGIN = 0.04  # of the side: what a crop leaves out, on one side or split between two
SHIFTS = (0.0, 1.0)  # where a crop lies in the margin
TOGETHER = "both"

Logits = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
View = Callable[[Tensor], Tensor]


def crop(pixels: Tensor, left: float, top: float) -> Tensor:
    """Pixels (N, S, S) without a margin, enlarged to the same size."""
    size = pixels.shape[-1]
    margin = round(MARGIN * size)
    x, y = round(left * margin), round(top * margin)
    side = size - margin
    return resize(pixels[:, y : y + side, x : x + side], size)


def mirror(pixels: Tensor) -> Tensor:
    """Pixels (N, S, S), right for left."""
    return pixels.flip(2)


def views() -> dict[str, Sequence[View]]:
    """What is averaged, by name."""
    both: list[View] = [torch.as_tensor, mirror]
    crops = [partial(crop, left=x, top=y) for x in SHIFTS for y in SHIFTS]
    return {
        "the image": both[:1],
        "and its mirror image": both,
        "and four crops": [*both, *crops],
    }


def logits_of(network: Classifier, pixels: Pixels) -> dict[str, Logits]:
    """Mean logits (N, 2) over the views of each name; every view is computed once."""
    found: dict[int, Logits] = {}
    means = {}
    for name, some in views().items():
        for number, view in enumerate(some):  # each name's views begin with those before it
            if number not in found:
                seen = view(torch.from_numpy(pixels)).contiguous()
                found[number] = predict(network, seen, pixels.shape[-1]).double().numpy()
        means[name] = np.mean([found[number] for number in range(len(some))], axis=0)
    return means


def judge(logits: Logits, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """AUC and log-loss, calibrated on these images, as training judges."""
    scores = calibrate.fit(logits, labels).scores(logits)
    auc = roc_auc_score(labels, logits[:, 1] - logits[:, 0])
    return float(auc), float(log_loss(labels, scores, labels=[0, 1]))


def rows(
    found: Mapping[str, Mapping[str, Mapping[str, Logits]]], labels: npt.NDArray[np.int64]
) -> list[list[str]]:
    """A line for each network and each name of views, of logits by network, change and views."""
    lines = []
    for network, by_change in found.items():
        for name, some in views().items():
            judged = [judge(logits[name], labels) for logits in by_change.values()]
            figures = [f"{auc:.4f}, {loss:.4f}" for auc, loss in judged]
            lines.append([network, name, str(len(some)), *figures])
    return lines


def measure(dataset: Dataset, sources: Sequence[Path]) -> list[list[str]]:
    """The table of networks of one size."""
    select = dataset.rows(split.SELECT)
    pixels = dataset.pixels[select]
    kinds = {"as it is": pixels, stress.MIXED: stress.change(pixels, stress.MIXED)}
    found: dict[str, dict[str, dict[str, Logits]]] = {}
    for source in sources:
        network, card = checkpoint.load(source)
        network.to(memory_format=torch.channels_last)
        found[card["network"]] = {
            kind: {
                name: logits / card["temperature"]
                for name, logits in logits_of(network, some).items()
            }
            for kind, some in kinds.items()
        }
    if len(found) > 1:
        found[TOGETHER] = {
            kind: {
                name: np.mean([one[kind][name] for one in found.values()], axis=0)
                for name in views()
            }
            for kind in kinds
        }
    return rows(found, dataset.labels[select])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, nargs="+", help="(all of weights/)")
    options = parser.parse_args(arguments)
    memory.keep()
    sources = options.weights or sorted(checkpoint.PUBLISHED.glob("*.safetensors"))
    size = checkpoint.read_card(sources[0])["input"]["size"]
    head = ["network", "mean over", "views", "AUC, log-loss", "under mixed changes"]
    print(sections.table(head, measure(data.load(options.data, size), sources)))


if __name__ == "__main__":
    main()
