"""Images for the load: full-size JPEG files, or phantoms written at that size."""

import io
from pathlib import Path

from PIL import Image

from train.data import phantoms

SUFFIXES = {".jpeg", ".jpg"}
MAX_IMAGES = 16  # each is kept as a body, and sent once before anything is measured
# The median file of the published data set has 1379 by 1130 pixels and 165 kB. A phantom has as
# many pixels, and this quality gives it as many bytes.
SIDE, QUALITY = 1248, 85


def read(folder: Path | None) -> list[bytes]:
    """At most 16 JPEG files, evenly spread over a folder; without a folder, full-size phantoms.

    Raises:
        FileNotFoundError: the folder holds no JPEG file.
    """
    if folder is None:
        return [_phantom(number) for number in range(MAX_IMAGES)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"{folder} holds no JPEG file: choose another with --images")
    count = min(MAX_IMAGES, len(paths))
    return [paths[number * len(paths) // count].read_bytes() for number in range(count)]


def facts(images: list[bytes], source: str) -> dict[str, object]:
    """Number of images; their bytes and megapixels (minimum, median, maximum), for the results."""
    sizes = sorted(map(len, images))
    areas = sorted(_megapixels(image) for image in images)
    middle = len(images) // 2
    return {
        "source": source,
        "count": len(images),
        "bytes": [sizes[0], sizes[middle], sizes[-1]],
        "megapixels": [round(areas[k], 2) for k in (0, middle, -1)],
    }


def _megapixels(image: bytes) -> float:
    width, height = Image.open(io.BytesIO(image)).size
    return width * height / 1e6


def _phantom(number: int) -> bytes:
    drawn = phantoms.draw(0, number, number % 2, SIDE).image
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
