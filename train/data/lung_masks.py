"""Hand-drawn lung masks, one file per image, for training and evaluation only."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from handlers import pixels as decoding
from handlers.arrays import Pixels
from handlers.errors import ImageError
from train.data.classes import CLASSES
from train.data.dataset import Image
from train.data.patients import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LungMasks:
    """Masks of a data set's images, uint8 (N, S, S): 255 is lung; an image without a mask has 0."""

    pixels: Pixels

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Whether each image has a mask, bool (N,)."""
        return np.array([mask.any() for mask in self.pixels], dtype=bool)

    @property
    def sha256(self) -> str:
        """SHA-256 of the pixels, hexadecimal."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


def read(root: Path, images: Sequence[Image], size: int) -> LungMasks:
    """Masks (N, size, size) of images, from `root`/<class>/<image's stem>.png; white is lung.

    Images outside the folder `train` get no mask.

    Raises:
        DataError: no training image has a mask, or a file can't be decoded.
    """
    pixels = np.zeros((len(images), size, size), np.uint8)

    def decode(row: int) -> None:
        image = images[row]
        path = root / CLASSES[image.label] / f"{image.path.stem}.png"
        if image.folder != "train" or not path.is_file():
            return
        try:
            pixels[row] = decoding.decode(path.read_bytes(), size)
        except ImageError as error:
            raise DataError(f"{path}: {error}") from error

    with ThreadPoolExecutor() as pool:
        list(pool.map(decode, range(len(images))))
    masks = LungMasks(pixels)
    if not masks.present.any():
        raise DataError(
            f"MASKS={root}: no training image has a mask; expected files such as "
            f"{CLASSES[0]}/{images[0].path.stem}.png"
        )
    log.info("lung masks: %d of %d images have one", masks.present.sum(), len(images))
    return masks
