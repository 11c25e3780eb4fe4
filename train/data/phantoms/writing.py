"""A data set of phantoms in a folder: images, the boxes of their opacities, and its origin."""

import csv
import json
from collections.abc import Iterator, Mapping
from io import BytesIO, StringIO
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from handlers.arrays import Pixels
from train.data.classes import CLASSES
from train.data.phantoms.drawing import draw

VERSION = 1  # of the generator: raise it whenever a phantom's pixels change
SPLITS = ("train", "val", "test")
COUNTS: dict[str, tuple[int, int]] = {"train": (560, 640), "val": (8, 8), "test": (150, 150)}


def write(
    folder: Path,
    counts: Mapping[str, tuple[int, int]] = COUNTS,
    seed: int = 0,
    size: int = 224,
) -> None:
    """Write phantoms of (size, size) pixels, `{split}/{class}/phantom-{split}-{index}.jpeg`.

    `counts` gives (normal, pneumonia) for each split. `boxes.csv` (file, left, top, right, bottom)
    lists the opacities, and `SOURCE.json`, written last, describes the set. A folder whose
    `SOURCE.json` describes the same set is left unchanged; a different or interrupted set is
    drawn again.

    Raises:
        ValueError: an unknown split.
        FileExistsError: the folder holds images that are not phantoms.
    """
    unknown = sorted(set(counts) - set(SPLITS))
    if unknown:
        raise ValueError(f"unknown split {', '.join(unknown)}: use {', '.join(SPLITS)}")
    source = {
        "name": "phantoms",
        "seed": seed,
        "size": size,
        "counts": {split: list(counts[split]) for split in SPLITS if split in counts},
        "generator": VERSION,
    }
    plan = list(_planned_files(counts))
    present = {path.relative_to(folder).as_posix() for path in folder.glob("*/*/*")}
    foreign = [file for file in present if not Path(file).name.startswith("phantom-")]
    if foreign:
        raise FileExistsError(f"{folder / min(foreign)} is not a phantom: choose another folder")
    source_file = folder / "SOURCE.json"
    planned = {file for file, _, _ in plan}
    complete = present == planned and source_file.exists()
    if complete and json.loads(source_file.read_text()) == source:
        return
    source_file.unlink(missing_ok=True)
    for file in present - planned:
        (folder / file).unlink()
    rows = StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["file", "left", "top", "right", "bottom"])
    for file, index, label in tqdm(plan, "phantoms", unit=" images", disable=None):
        phantom = draw(seed, index, label, size)
        table.writerows([file, *box] for box in phantom.boxes)
        _replace(folder / file, _encode_jpeg(phantom.image))
    _replace(folder / "boxes.csv", rows.getvalue().encode())
    _replace(source_file, json.dumps(source, indent=2).encode() + b"\n")


def _planned_files(counts: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """File, index and label of every phantom; every index, and so every patient, occurs once."""
    for part, split in enumerate(SPLITS):
        for label, number in enumerate(counts.get(split, (0, 0))):
            for index in range(number):
                file = f"{split}/{CLASSES[label]}/phantom-{split}-{index:05d}.jpeg"
                yield file, (2 * part + label) * 100_000 + index, label


def _encode_jpeg(image: Pixels) -> bytes:
    stream = BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name, then renamed: an interruption leaves no partial file.
    partial = path.with_name(f"phantom-{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
