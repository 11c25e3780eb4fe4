"""Which part of the data an image belongs to: by patient, in blocks of ids and at random."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from train.data.patients import FULL_SIZE_PATIENTS

if TYPE_CHECKING:
    from train.data.dataset import Image

FIT = "fit"  # the only part that trains
RANDOM = "random"  # patients at random: flatters, kept to show how much
SELECT = "block-select"  # early stopping and every choice
CALIBRATE = "block-calibrate"  # temperature and operating points of a finished network
OFFICIAL = "val"  # the folder val, 16 images in Kaggle's set: reported apart
TEST = "test"
PARTS = (FIT, RANDOM, SELECT, CALIBRATE, OFFICIAL, TEST)

SHARES = {RANDOM: 0.05, SELECT: 0.08, CALIBRATE: 0.10}  # of the folder train
TEST_SHARE = 0.12  # of it, where there is no folder test: the block that stands in for one


def part(images: Sequence["Image"], seed: int) -> list[str]:
    """The part of each image; the same seed gives the same parts.

    Patients stay whole, and so do patients who share a byte-identical image. From each series of
    ids (bacteria, virus, IM, NORMAL2-IM in Kaggle's set) one run of consecutive patients goes to
    each block, and patients at random to `random`. Patients whose full-size images are examples
    go to `random`.
    """
    folders = {image.folder for image in images}
    shares = SHARES if TEST in folders else {**SHARES, TEST: TEST_SHARE}
    training = [row for row, image in enumerate(images) if image.folder == "train"]
    parts = [image.folder for image in images]
    series = defaultdict(list)
    for group in _groups(images, training):
        series[images[group[0]].subject.series].append(group)
    for number, name in enumerate(sorted(series)):
        ordered = sorted(series[name], key=lambda group: images[group[0]].subject.order)
        random = np.random.default_rng([seed, number])
        for group, chosen in zip(ordered, _deal(images, ordered, shares, random), strict=True):
            for row in group:
                parts[row] = chosen
    return parts


def _groups(images: Sequence["Image"], rows: Sequence[int]) -> list[list[int]]:
    """Rows that must stay together: one patient's, and those of byte-identical images."""
    parent = {row: row for row in rows}

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    first: dict[str, int] = {}
    for row in rows:
        for key in (f"patient {images[row].subject.patient}", f"bytes {images[row].sha256}"):
            parent[find(row)] = find(first.setdefault(key, row))
    groups = defaultdict(list)
    for row in rows:
        groups[find(row)].append(row)
    return list(groups.values())


def _deal(
    images: Sequence["Image"],
    groups: Sequence[Sequence[int]],
    shares: dict[str, float],
    random: np.random.Generator,
) -> list[str]:
    """The part of each group of one series, groups in the order of their ids."""
    parts = [FIT] * len(groups)
    total = sum(len(group) for group in groups)
    taken = 0
    for place, group in enumerate(groups):
        if any(images[row].subject.patient in FULL_SIZE_PATIENTS for row in group):
            parts[place] = RANDOM
            taken += len(group)
    free = [place for place, chosen in enumerate(parts) if chosen == FIT]
    for name, share in shares.items():
        if name == RANDOM:
            continue
        for place in _run(groups, free, share * total, random):
            parts[place] = name
        free = [place for place in free if parts[place] == FIT]
    for place in random.permutation(free):
        if taken >= shares[RANDOM] * total:
            break
        parts[place] = RANDOM
        taken += len(groups[place])
    return parts


def _run(
    groups: Sequence[Sequence[int]],
    free: Sequence[int],
    images: float,
    random: np.random.Generator,
) -> list[int]:
    """Consecutive free groups that hold about that many images, from a random start.

    The last group is taken only where that comes nearer to the number; at least one is.
    """
    sizes = np.array([len(groups[place]) for place in free])
    ends = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.flatnonzero(ends[-1] - ends[:-1] >= images)
    start = int(random.choice(starts))
    stop = start + max(1, int(np.abs(ends[start + 1 :] - ends[start] - images).argmin()) + 1)
    return list(free[start:stop])
