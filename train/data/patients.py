"""Who is on an image: the patient and the series of ids, from the file's name or a table."""

import csv
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from handlers.class_folders import LabelledImage
from handlers.folders import printable
from train.data.classes import CLASSES

log = logging.getLogger(__name__)


class DataError(ValueError):
    """The data set can't be used as it is; the message says what to do."""


@dataclass(frozen=True)
class Subject:
    """The patient on an image, the series the patient's id was counted in, and the id.

    Ids that follow each other were taken in about the same weeks, so a block of ids is held out
    as a whole: a random patient flatters the network. `folder` is one that stays whole as well.
    """

    patient: str
    series: str
    order: tuple[int, str]
    folder: str | None = None


SubjectOf = Callable[[PurePosixPath], Subject]  # of a path like train/NORMAL/IM-0115-0001.jpeg

# Kaggle's "Chest X-Ray Images (Pneumonia)". The same number among bacteria and among viruses is
# two people.
_PNEUMONIA = re.compile(r"person(\d+)_(bacteria|virus)_\d+")
_NORMAL = re.compile(r"(NORMAL2-)?IM-(\d+)-")

AGES = 1, 5  # years of Kaggle's children (Kermany et al. 2018)

# Patients whose images at original size serve as examples of full-size input: never trained on,
# never chosen by.
FULL_SIZE_PATIENTS = frozenset(
    [f"IM-{n}" for n in (147, 156, 243, 394, 505, 545, 734)]
    + [f"NORMAL2-IM-{n}" for n in (744, 812, 1104, 1148, 1306)]
    + [f"virus-{n}" for n in (272, 469, 754, 921, 1321, 1368)]
    + [f"bacteria-{n}" for n in (23, 389, 392, 492, 568, 898, 1491, 1564)]
)


def kaggle_subject(path: PurePosixPath) -> Subject | None:
    """The subject by Kaggle's file name, or None where the name is of another kind.

    Raises:
        DataError: the name says one class and the folder another.
    """
    if match := _PNEUMONIA.match(path.name):
        number, series, label = int(match[1]), match[2], CLASSES[1]
    elif match := _NORMAL.match(path.name):
        number, series, label = int(match[2]), (match[1] or "") + "IM", CLASSES[0]
    else:
        return None
    if label not in map(str.upper, path.parts[:-1]):
        raise DataError(
            f"{printable(path)}: by its name it is {label}. Move it to the folder {label}."
        )
    return Subject(f"{series}-{number}", series, (number, path.name))


def _natural(text: str) -> tuple[int, str]:
    digits = re.search(r"\d+", text)
    return (int(digits[0]) if digits else 0, text)


def by_file(path: PurePosixPath) -> Subject:
    """The subject of a file that nothing identifies: its path is its patient."""
    return Subject(str(path), _class(path), _natural(path.name))


def by_folder(path: PurePosixPath, folder: str) -> Subject:
    """The subject of a file whose folder is its patient."""
    return Subject(folder, _class(path), _natural(folder))


def _class(path: PurePosixPath) -> str:
    """The class by the folders of a path: the series of ids where no other is known."""
    folders = [part.upper() for part in path.parts[:-1]]
    return next((label for label in CLASSES if label in folders), path.parent.name)


def by_pattern(pattern: str) -> SubjectOf:
    """The patient by a regular expression on the file's name: its first group, or its match.

    A name that does not match is tried with its folders, `train/NORMAL/patient7/1.png`.

    Raises:
        DataError: the expression is broken; later, for a name it does not match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"PATIENT={pattern}: not a regular expression ({error})") from error

    def subject(path: PurePosixPath) -> Subject:
        match = expression.search(path.name) or expression.search(str(path))
        if match is None:
            raise DataError(f"{printable(path)}: PATIENT={pattern} does not match this name")
        patient = match[1] if expression.groups else match[0]
        return Subject(patient, _class(path), _natural(patient))

    return subject


def by_column(table: Path, column: str) -> SubjectOf:
    """A function from an image's path to its subject, read from a CSV table.

    `column` holds the patient; the column `file` an image's path, or else its name.

    Raises:
        DataError: the table lacks a column. The function raises it for an image not in the table.
    """
    with table.open(newline="") as lines:
        reader = csv.DictReader(lines)
        missing = {"file", column} - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{table} has no column {sorted(missing)}: it has {reader.fieldnames}")
        patients = {row["file"]: row[column] for row in reader}

    def subject(path: PurePosixPath) -> Subject:
        names = [name for text in (str(path), path.name) for name in (text, printable(text))]
        patient = next((patients[name] for name in names if patients.get(name)), None)
        if not patient:
            raise DataError(f"{printable(path)}: {table} names no patient for it")
        return Subject(patient, _class(path), _natural(patient))

    return subject


def subject_finder(option: str | None) -> SubjectOf | None:
    """What PATIENT= asks for: `regex`, or `table.csv:column`; None where it was not given."""
    if option is None:
        return None
    table, separator, column = option.rpartition(":")
    if separator and table.endswith(".csv"):
        if not Path(table).is_file():
            raise DataError(f"PATIENT={option}: there is no file {table}")
        return by_column(Path(table), column)
    return by_pattern(option)


# A folder of more of Kaggle's patients is a batch, not a patient's.
_FOLDER_PATIENTS = 3


def identify(images: Sequence[LabelledImage], option: str | None) -> list[Subject]:
    """The subject of each image: as PATIENT= says, else by Kaggle's name, by folder or by file.

    Each image is judged by itself, so that a stray or broken file changes no other's patient.

    Raises:
        DataError: PATIENT= says nothing of an image, or a name and a folder name two classes.
    """
    finder = subject_finder(option)
    if finder is not None:
        return [finder(image.relative) for image in images]
    named = [_PNEUMONIA.match(i.path.name) or _NORMAL.match(i.path.name) for i in images]
    is_kaggles = 2 * sum(map(bool, named)) > len(images)
    subjects = [_subject(image, is_kaggles) for image in images]
    alone = sum(
        subject.patient == str(image.relative) and not image.path.name.startswith("phantom-")
        for image, subject in zip(images, subjects, strict=True)
    )
    if alone:
        log.warning(
            "%s TAKEN FOR A PATIENT OF ITS OWN: two images of one patient may fall into "
            "training and validation. Name the patient with PATIENT=regex or "
            "PATIENT=table.csv:column.",
            "EACH FILE IS" if alone == len(images) else f"EACH OF {alone} FILES IS",
        )
    patients = defaultdict(set)
    for subject in subjects:
        patients[subject.folder].add(subject.patient)
    return [
        replace(subject, folder=None)
        if subject.folder is not None and len(patients[subject.folder]) > _FOLDER_PATIENTS
        else subject
        for subject in subjects
    ]


def _subject(image: LabelledImage, is_kaggles: bool) -> Subject:
    subject = kaggle_subject(image.relative) if is_kaggles else None
    if subject is not None:
        # Kaggle counts healthy and ill children apart.
        folder = image.patient and f"{image.label}/{image.patient}"
        return replace(subject, folder=folder)
    if image.patient is not None:
        return by_folder(image.relative, image.patient)
    return by_file(image.relative)  # each of this project's phantoms is a chest of its own
