"""A folder of images → verified, grey, parted by patient, cached as one uint8 array."""

import csv
import hashlib
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from handlers import class_folders, files, pixels
from handlers.arrays import Pixels
from handlers.class_folders import PART_ORDER as FOLDERS
from handlers.errors import ImageError
from handlers.folders import HIDDEN, PassedOver, printable
from train.data import splits
from train.data.classes import CLASSES
from train.data.patients import AGES, DataError, Subject, identify, kaggle_subject

log = logging.getLogger(__name__)

CACHE = Path("cache")
SHOWN = 20  # files of a list in the log


@dataclass(frozen=True)
class Image:
    """One file of the data set: `path` below its root, the part it came in, who is on it."""

    path: PurePosixPath
    folder: str
    label: int
    subject: Subject
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """Verified images, their pixels (N, S, S) uint8, and the part each belongs to."""

    name: str
    root: Path
    images: Sequence[Image]
    pixels: Pixels
    parts: Sequence[str]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels (N,): 0 NORMAL, 1 PNEUMONIA."""
        return np.array([image.label for image in self.images], dtype=np.int64)

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """The patient of each image (N,)."""
        return np.array([image.subject.patient for image in self.images])

    @property
    def series(self) -> npt.NDArray[np.str_]:
        """The series that the patient of each image was counted in (N,)."""
        return np.array([image.subject.series for image in self.images])

    @property
    def sha256(self) -> str:
        """Hash of every file's path and content: what the card calls this data."""
        lines = "\n".join(f"{image.sha256} {image.path}" for image in self.images)
        return hashlib.sha256(os.fsencode(lines)).hexdigest()

    @property
    def ages(self) -> tuple[int, int] | None:
        """Of the youngest and the oldest patient, in years, where the data set is known."""
        return AGES if all(kaggle_subject(image.path) for image in self.images) else None

    def rows(self, part: str) -> npt.NDArray[np.int64]:
        """The indices of a part's images."""
        return np.flatnonzero(np.array(self.parts) == part)

    def sample(self, part: str, count: int) -> npt.NDArray[np.int64]:
        """At most so many indices of a part's images, in random order; always the same."""
        return np.random.default_rng(0).permutation(self.rows(part))[:count]

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by part and class."""
        counted = Counter(zip(self.parts, (i.label for i in self.images), strict=True))
        return {
            part: {name: counted[part, label] for label, name in enumerate(CLASSES)}
            for part in splits.PARTS
            if any(counted[part, label] for label in range(len(CLASSES)))
        }


def load(
    root: Path,
    size: int,
    *,
    seed: int = 0,
    patient: str | None = None,
    skip_broken: bool = False,
    cache: Path = CACHE,
) -> Dataset:
    """The data set in `root`, verified, decoded to (N, size, size) and parted by patient.

    Raises:
        DataError: a file is broken or misplaced, a class is missing, one image lies in two
            splits; the message names the files and the remedy.
    """
    images = scan(root, patient)
    decoded, broken = _decode_all(root, images, size, cache)
    if broken and not skip_broken:
        raise DataError(_listing(broken) + "\nMend or remove them, or go on with --skip-broken.")
    if broken:
        log.warning("LEFT OUT, %s", _listing(broken))
    kept = [row for row, image in enumerate(images) if image.path not in broken]
    images = [images[row] for row in kept]
    verify(images)
    return Dataset(
        name=_name(root),
        root=root,
        images=images,
        pixels=decoded if len(kept) == len(decoded) else decoded[kept],
        parts=splits.part(images, seed),
    )


def scan(root: Path, patient: str | None = None) -> list[Image]:
    """Every image below the class folders of `root`, hashed; what is passed over is logged.

    Raises:
        DataError: no such folders, or a folder that is no class.
    """
    try:
        labelled = class_folders.read(root, CLASSES)
    except class_folders.FolderError as error:
        raise DataError(str(error)) from error
    _warn([entry for entry in labelled.passed_over if entry.reason != HIDDEN])
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(files.sha256, [image.path for image in labelled.images])
        return [
            Image(image.relative, image.part, CLASSES.index(image.label), subject, digest)
            for image, subject, digest in zip(
                labelled.images, identify(labelled.images, patient), hashes, strict=True
            )
        ]


def _warn(passed_over: Sequence[PassedOver]) -> None:
    if passed_over:
        more = len(passed_over) - SHOWN
        log.warning(
            "PASSED OVER:\n%s%s",
            "\n".join(f"  {entry}" for entry in passed_over[:SHOWN]),
            f"\n  and {more} more" if more > 0 else "",
        )


def verify(images: Sequence[Image]) -> None:
    """Every class in every folder, and no image or patient in two folders or two classes.

    Raises:
        DataError: naming what is missing or doubled.
    """
    present = {(image.folder, image.label) for image in images}
    for folder in {image.folder for image in images} | {"train"}:
        for label, name in enumerate(CLASSES):
            if (folder, label) not in present:
                raise DataError(f"{folder}/{name} holds no image: both classes are needed")
    twins = defaultdict(list)
    for image in images:
        twins[image.sha256].append(image)
    for same in twins.values():
        if len({(image.folder, image.label) for image in same}) > 1:
            names = ", ".join(printable(image.path) for image in same)
            raise DataError(f"the same image in two splits or classes: {names}. Keep one.")
    folders = defaultdict(set)
    for image in images:
        folders[image.subject.patient].add(image.folder)
    shared = sorted(patient for patient, where in folders.items() if len(where) > 1)
    if shared:
        raise DataError(
            f"{len(shared)} patients lie in two of {FOLDERS}: {', '.join(shared[:5])} … "
            "Move each to one, or name patients rightly with PATIENT=."
        )


def _decode_all(
    root: Path, images: Sequence[Image], size: int, cache: Path
) -> tuple[Pixels, dict[PurePosixPath, str]]:
    """Pixels (N, size, size), memory-mapped from the cache, and why a file could not be read.

    The cache is keyed by the files' content, by the size and by the package that decodes.
    """
    modules = sorted(Path(pixels.__file__).parent.glob("*.py"))
    code = b"".join(module.read_bytes() for module in modules)
    key = hashlib.sha256(code + str(size).encode())
    key.update("".join(image.sha256 for image in images).encode())
    target = cache / f"{_name(root)}-{size}-{key.hexdigest()[:16]}.npy"
    listing = target.with_suffix(".broken.json")
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        side = target.with_suffix(f".{os.getpid()}.part")
        shape = (len(images), size, size)
        array = np.lib.format.open_memmap(side, mode="w+", dtype=np.uint8, shape=shape)
        broken = {}

        def decode(path: PurePosixPath) -> Pixels | str:
            try:
                return pixels.decode((root / path).read_bytes(), size)
            except ImageError as error:
                return str(error)

        with ThreadPoolExecutor() as pool:
            results = pool.map(decode, [image.path for image in images])
            bar = tqdm(results, "decoding", len(images), unit=" images", disable=None)
            for row, result in enumerate(bar):
                if isinstance(result, str):
                    broken[str(images[row].path)] = result
                else:
                    array[row] = result
        array.flush()
        listing.write_text(json.dumps(broken, indent=1))
        side.rename(target)  # last, so that an interrupted run leaves no cache to be believed
    reasons: dict[str, str] = json.loads(listing.read_text())
    return (
        np.load(target, mmap_mode="c"),  # copy on write, which torch asks for; nothing writes
        {PurePosixPath(path): why for path, why in reasons.items()},
    )


def _listing(broken: dict[PurePosixPath, str]) -> str:
    lines = "\n".join(f"  {printable(path)}: {why}" for path, why in broken.items())
    return f"{len(broken)} unreadable files:\n{lines}"


def _name(root: Path) -> str:
    source = root / "SOURCE.json"  # what our own phantoms say of themselves
    return str(json.loads(source.read_text())["name"]) if source.is_file() else root.resolve().name


def write_split(dataset: Dataset, path: Path) -> None:
    """The split as CSV: file, class, patient, part, sha256; paths as `folders.original` reads."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "class", "patient", "split", "sha256"])
        for image, part in zip(dataset.images, dataset.parts, strict=True):
            names = printable(image.path), CLASSES[image.label], printable(image.subject.patient)
            writer.writerow([*names, part, image.sha256])


def table(dataset: Dataset) -> str:
    """Images by part and class, and patients by part, to print."""
    rows = [f"{'part':16}{'NORMAL':>8}{'PNEUMONIA':>11}{'patients':>10}{'of its folder':>15}"]
    folders = Counter(image.folder for image in dataset.images)
    for part, classes in dataset.counts().items():
        first = dataset.images[dataset.rows(part)[0]]
        patients = len(set(dataset.patients[dataset.rows(part)]))
        share = sum(classes.values()) / folders[first.folder]
        rows.append(
            f"{part:16}{classes['NORMAL']:8}{classes['PNEUMONIA']:11}{patients:10}{share:15.1%}"
        )
    return "\n".join(rows)
