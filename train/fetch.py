"""Fetch Kaggle's "Chest X-Ray Images (Pneumonia)" with kagglehub: `make data`."""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from train.networks import CLASSES
from train.patients import DataError

log = logging.getLogger(__name__)

HANDLE = "paultimothymooney/chest-xray-pneumonia"
PAGE = f"https://www.kaggle.com/datasets/{HANDLE}"

# Images by folder: NORMAL, PNEUMONIA.
COUNTS = {"train": (1341, 3875), "val": (8, 8), "test": (234, 390)}

_BY_HAND = (
    f"Download it by hand from {PAGE}, unpack it, and name its folder with DATA=folder; "
    "or try again, what was fetched so far is kept"
)


class FetchError(RuntimeError):
    """The data set can't be fetched; the message says what else to do."""


def fetch(
    folder: Path, handle: str = HANDLE, counts: Mapping[str, tuple[int, int]] = COUNTS
) -> None:
    """Put the data set into a folder in Kaggle's layout; whole, it is left as it is.

    kagglehub downloads into its own cache and resumes there. The nested second copy of the set and
    what macOS has added (`__MACOSX`, `._*`) are left behind.

    Raises:
        FetchError: kagglehub is missing or can't reach Kaggle.
        DataError: images are missing, or there are too many.
    """
    if missing(folder, counts) is None:
        log.info("%s is complete", folder)
        return
    source = find_root(_download(handle), counts)
    files = [
        path.relative_to(source)
        for split in counts
        for name in CLASSES
        for path in sorted((source / split / name).glob("[!.]*"))
    ]
    for path in tqdm(files, f"into {folder}", unit=" images", disable=None):
        _place(source / path, folder / path)
    wrong = missing(folder, counts)
    if wrong:
        raise DataError(f"{folder}: {wrong}. Remove the folder and run make data again.")
    log.info("%s: %d images, every one there", folder, len(files))


def missing(folder: Path, counts: Mapping[str, tuple[int, int]]) -> str | None:
    """Where the number of images is not the expected one, or None."""
    wrong = []
    for split, expected in counts.items():
        for name, number in zip(CLASSES, expected, strict=True):
            images = [p for p in (folder / split / name).glob("[!.]*") if p.suffix != ".part"]
            if len(images) != number:
                wrong.append(f"{split}/{name} has {len(images)} of {number} images")
    return "; ".join(wrong) or None


def find_root(downloaded: Path, counts: Mapping[str, tuple[int, int]]) -> Path:
    """The folder with the splits: the outermost, since the set holds a copy of itself.

    Raises:
        DataError: there is none.
    """
    candidates = [downloaded, *(p for p in downloaded.rglob("*") if p.is_dir())]
    roots = [
        path
        for path in candidates
        if "__MACOSX" not in path.parts
        and all((path / split / name).is_dir() for split in counts for name in CLASSES)
    ]
    if not roots:
        raise DataError(f"{downloaded} holds no folder with {', '.join(counts)}: {_BY_HAND}")
    return min(roots, key=lambda path: len(path.parts))


def _download(handle: str) -> Path:
    try:
        import kagglehub
    except ImportError as error:
        raise FetchError(
            f"kagglehub is not installed: pip install 'pneumocam[kaggle]'. {_BY_HAND}."
        ) from error
    try:
        return Path(kagglehub.dataset_download(handle))
    # kagglehub lets errors of requests, of its own and of the disk through.
    except Exception as error:
        raise FetchError(f"Kaggle's {handle} can't be fetched ({error}). {_BY_HAND}.") from error


def _place(source: Path, target: Path) -> None:
    """Link a file where that is possible, else copy it to the side and rename it."""
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    side = target.with_name(target.name + ".part")
    side.unlink(missing_ok=True)
    try:
        os.link(source, side)
    except OSError:  # another disk
        shutil.copyfile(source, side)
    side.replace(target)
