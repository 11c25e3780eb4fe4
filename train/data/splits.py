"""Which part of the data an image belongs to: by patient, in blocks of ids and at random."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from train.data.classes import CLASSES
from train.data.patients import FULL_SIZE_PATIENTS, DataError

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

    Raises:
        DataError: a class of the folder train has fewer patients than there are parts.
    """
    folders = {image.folder for image in images}
    shares = SHARES if TEST in folders else {**SHARES, TEST: TEST_SHARE}
    training = [row for row, image in enumerate(images) if image.folder == "train"]
    parts = [image.folder for image in images]
    series = _series(images, _groups(images, training), [FIT, *shares])
    for number, name in enumerate(sorted(series)):
        ordered = sorted(series[name], key=lambda group: images[group[0]].subject.order)
        random = np.random.default_rng([seed, number])
        for group, chosen in zip(ordered, _deal(images, ordered, shares, random), strict=True):
            for row in group:
                parts[row] = chosen
    return parts


def _series(
    images: Sequence["Image"], groups: Sequence[list[int]], wanted: Sequence[str]
) -> dict[str, list[list[int]]]:
    """Groups by series; a series too small for a group in each part joins its class's largest."""
    by_class: dict[int, dict[str, list[list[int]]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        image = images[group[0]]
        by_class[image.label][image.subject.series].append(group)
    series: dict[str, list[list[int]]] = {}
    for label, members in sorted(by_class.items()):
        free = {name: sum(not _kept_out(images, g) for g in members[name]) for name in members}
        count = sum(free.values())
        if count < len(wanted):
            number = sum(image.folder == "train" and image.label == label for image in images)
            raise DataError(
                f"train/{CLASSES[label]} holds {number} images, of {count} patients to be "
                f"distributed: at least {len(wanted)} are needed, one for each of "
                f"{', '.join(wanted)}. Add {len(wanted) - count} or more."
            )
        largest = max(sorted(free), key=lambda name: free[name])
        for name in sorted(free):
            if name != largest and free[name] < len(wanted):
                members[largest] += members.pop(name)
        for name, held in members.items():
            series[name if name not in series else f"{name} {CLASSES[label]}"] = held
    return series


def _kept_out(images: Sequence["Image"], group: Sequence[int]) -> bool:
    return any(images[row].subject.patient in FULL_SIZE_PATIENTS for row in group)


def _groups(images: Sequence["Image"], rows: Sequence[int]) -> list[list[int]]:
    """Rows that must stay together: one patient's or folder's, and of byte-identical images."""
    parent = {row: row for row in rows}

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    first: dict[str, int] = {}
    for row in rows:
        subject = images[row].subject
        keys = [f"patient {subject.patient}", f"bytes {images[row].sha256}"]
        if subject.folder is not None:
            keys.append(f"folder {subject.folder}")
        for key in keys:
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
        if _kept_out(images, group):
            parts[place] = RANDOM
            taken += len(group)
    free = [place for place, chosen in enumerate(parts) if chosen == FIT]
    blocks = [name for name in shares if name != RANDOM]
    for number, name in enumerate(blocks):
        rest = len(blocks) - number + 1  # one for each later block, RANDOM and FIT
        for place in _run(groups, free, shares[name] * total, random, rest):
            parts[place] = name
        free = [place for place in free if parts[place] == FIT]
    for place in random.permutation(free)[: len(free) - 1]:
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
    rest: int,
) -> list[int]:
    """Consecutive free groups that hold about that many images, from a random start.

    The last group is taken only where that comes nearer to the number; at least one is, and at
    least `rest` are left.
    """
    sizes = np.array([len(groups[place]) for place in free])
    ends = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.flatnonzero(ends[-1] - ends[:-1] >= images)
    start = int(random.choice(starts)) if len(starts) else 0
    stop = start + max(1, int(np.abs(ends[start + 1 :] - ends[start] - images).argmin()) + 1)
    return list(free[start : min(stop, start + len(free) - rest)])
