"""Fetch Kaggle's "Chest X-Ray Images (Pneumonia)" with kagglehub: `make data`."""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from train.data.classes import CLASSES
from train.data.patients import DataError

log = logging.getLogger(__name__)

HANDLE = "paultimothymooney/chest-xray-pneumonia"
PAGE = f"https://www.kaggle.com/datasets/{HANDLE}"

# Images by folder: NORMAL, PNEUMONIA.
COUNTS = {"train": (1341, 3875), "val": (8, 8), "test": (234, 390)}

_MANUAL_DOWNLOAD = (
    f"Download it by hand from {PAGE}, unpack it, and name its folder with DATA=folder; "
    "or try again: the download resumes"
)


class FetchError(RuntimeError):
    """The data set can't be fetched; the message says how to get it otherwise."""


def fetch(
    folder: Path, handle: str = HANDLE, counts: Mapping[str, tuple[int, int]] = COUNTS
) -> None:
    """Put the data set into a folder in Kaggle's layout; a complete folder is left unchanged.

    kagglehub downloads into its own cache and resumes there. The nested second copy of the set and
    the files that macOS added (`__MACOSX`, `._*`) are not copied.

    Raises:
        FetchError: kagglehub is missing or can't reach Kaggle.
        DataError: images are missing, or there are too many.
    """
    if wrong_counts(folder, counts) is None:
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
        _link_or_copy(source / path, folder / path)
    mismatch = wrong_counts(folder, counts)
    if mismatch:
        raise DataError(f"{folder}: {mismatch}. Remove the folder and run make data again.")
    log.info("%s is complete: %d images", folder, len(files))


def wrong_counts(folder: Path, counts: Mapping[str, tuple[int, int]]) -> str | None:
    """The class folders whose number of images is wrong, as text; None where all are right."""
    mismatches = []
    for split, expected in counts.items():
        for name, number in zip(CLASSES, expected, strict=True):
            images = [p for p in (folder / split / name).glob("[!.]*") if p.suffix != ".part"]
            if len(images) != number:
                mismatches.append(f"{split}/{name} has {len(images)} of {number} images")
    return "; ".join(mismatches) or None


def find_root(downloaded: Path, counts: Mapping[str, tuple[int, int]]) -> Path:
    """The folder that holds the splits: the outermost one, since the set holds a copy of itself.

    Raises:
        DataError: no folder holds every split and class.
    """
    candidates = [downloaded, *(p for p in downloaded.rglob("*") if p.is_dir())]
    roots = [
        path
        for path in candidates
        if "__MACOSX" not in path.parts
        and all((path / split / name).is_dir() for split in counts for name in CLASSES)
    ]
    if not roots:
        raise DataError(f"no folder in {downloaded} has {', '.join(counts)}: {_MANUAL_DOWNLOAD}")
    return min(roots, key=lambda path: len(path.parts))


def _download(handle: str) -> Path:
    try:
        import kagglehub
    except ImportError as error:
        raise FetchError(
            f"kagglehub is not installed: pip install 'pneumocam[kaggle]'. {_MANUAL_DOWNLOAD}."
        ) from error
    try:
        return Path(kagglehub.dataset_download(handle))
    # kagglehub passes on errors of requests, of its own and of the disk.
    except Exception as error:
        raise FetchError(
            f"Kaggle's {handle} can't be fetched ({error}). {_MANUAL_DOWNLOAD}."
        ) from error


def _link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file where possible, else copy it; a partial file never has the final name."""
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
