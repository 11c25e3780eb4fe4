"""Folders of labelled images: `train/CLASS/…`, and the folders of patients or groups within."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from handlers import folders
from handlers.folders import printable

PART_ORDER = ("train", "val", "test")
# What the folders of a part are called, in lower case.
PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# Folders between a class and its images that hold many patients.
GROUPS = frozenset(
    {"bacteria", "bacterial", "virus", "viral", "fungal", "fungus", "covid", "covid-19", "covid19"}
    | {"images", "image", "img", "imgs", "jpeg", "jpg", "png", "dicom", "dcm"}
    | {"adult", "adults", "child", "children", "pediatric", "paediatric", "female", "male"}
    | {"ap", "pa", "more", "other", "others", "new", "old", "unknown"}
)
# A level of few folders named by words is of groups, where they hold so many images on average.
_FEW, _MANY = 5, 10


class FolderError(ValueError):
    """The folders are not those of a data set; the message says what to do."""


@dataclass(frozen=True)
class LabelledImage:
    """An image of a part and a class, and the folder of its patient where it lies in one."""

    path: Path
    relative: PurePosixPath
    part: str
    label: str
    patient: str | None


@dataclass(frozen=True)
class LabelledFolders:
    """The images of a data set by path, and what was passed over below its root."""

    images: Sequence[LabelledImage]
    passed_over: Sequence[folders.PassedOver]


def read(root: Path, classes: Sequence[str]) -> LabelledFolders:
    """The images in `train`, `val` and `test` of a folder, each with a folder for every class.

    The names of parts and classes may be in any case, and `valid` or `validation` is `val`. Of the
    folders in a class, the first level that holds no groups (`bacteria`, `virus`) is of patients.

    Raises:
        FolderError: there is no folder `train`, two folders are one part, or what lies in a part
            is no class.
        OSError: a folder of a part can't be read.
    """
    images: list[LabelledImage] = []
    passed_over: list[folders.PassedOver] = []
    for part, folder in sorted(_parts(root, classes, passed_over).items()):
        for entry in sorted(folder.iterdir()):
            relative = PurePosixPath(folder.name, entry.name)
            label = _class_name(entry.name, classes)
            if folders.is_hidden(entry.name):
                passed_over.append(folders.PassedOver(relative, folders.HIDDEN))
            elif entry.is_dir():
                if label is None:
                    raise FolderError(
                        f"{printable(entry)}: known classes are the folders {', '.join(classes)}"
                    )
                walk = folders.images(entry)
                images += _labelled(walk, relative, part, label)
                passed_over += [
                    folders.PassedOver(relative / entry.relative, entry.reason)
                    for entry in walk.passed_over
                ]
            elif entry.is_file() and folders.is_image(entry):
                raise FolderError(
                    f"{printable(entry)} lies in no class: known classes are the folders "
                    f"{', '.join(classes)}"
                )
            else:
                reason = folders.NO_IMAGE if entry.is_file() else folders.DANGLING
                passed_over.append(folders.PassedOver(relative, reason))
    return LabelledFolders(
        sorted(images, key=lambda image: (PART_ORDER.index(image.part), image.relative.parts)),
        passed_over,
    )


def _parts(
    root: Path, classes: Sequence[str], passed_over: list[folders.PassedOver]
) -> dict[str, Path]:
    """The folder of each part; another folder is passed over with a word."""
    parts: dict[str, Path] = {}
    strangers: list[str] = []
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        part = PARTS.get(entry.name.lower())
        if folders.is_hidden(entry.name) or not entry.is_dir():
            if entry.is_symlink() and not entry.exists():
                passed_over.append(folders.PassedOver(PurePosixPath(entry.name), folders.DANGLING))
            continue
        if part is None:
            strangers.append(entry.name)
        elif part in parts:
            raise FolderError(
                f"{printable(root)} has two folders for {part}: {parts[part].name} and "
                f"{entry.name}. Keep one."
            )
        else:
            parts[part] = entry
    if "train" not in parts:
        layout = f"train/{{{','.join(classes)}}} and, optionally, val/ and test/ like it"
        raise FolderError(
            f"{printable(root)} has no folder train/: DATA names a folder with {layout}."
            + (f" It has {', '.join(map(printable, strangers))}." if strangers else "")
        )
    reason = f"no part of a data set: the parts are {', '.join(PART_ORDER)}"
    passed_over += [folders.PassedOver(PurePosixPath(name), reason) for name in strangers]
    return parts


def _class_name(name: str, classes: Sequence[str]) -> str | None:
    return next((label for label in classes if label.lower() == name.lower()), None)


def _labelled(
    walk: folders.Walk, below: PurePosixPath, part: str, label: str
) -> list[LabelledImage]:
    patients = patient_folders([image.relative for image in walk.images])
    return [
        LabelledImage(image.path, below / image.relative, part, label, patient)
        for image, patient in zip(walk.images, patients, strict=True)
    ]


def patient_folders(paths: Sequence[PurePosixPath]) -> list[str | None]:
    """The patient's folder in each path below a class: the first that is no group's.

    Folders on one level are groups where each is called by a word for one, or where they are few,
    named without a digit, and hold many images.
    """
    patients: list[str | None] = [None] * len(paths)

    def settle(rows: Sequence[int], level: int) -> None:
        by_folder = defaultdict(list)
        for row in rows:
            if len(paths[row].parts) > level + 1:
                by_folder[paths[row].parts[level]].append(row)
        if by_folder and _are_groups({name: len(held) for name, held in by_folder.items()}):
            for held in by_folder.values():
                settle(held, level + 1)
        else:
            for name, held in by_folder.items():
                for row in held:
                    patients[row] = name

    settle(range(len(paths)), 0)
    return patients


def _are_groups(images: dict[str, int]) -> bool:
    if all(name.lower() in GROUPS for name in images):
        return True
    words = not any(character.isdigit() for name in images for character in name)
    return words and len(images) <= _FEW and sum(images.values()) >= _MANY * len(images)
