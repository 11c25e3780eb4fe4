"""Who is on an image: the patient and the series of ids, from the file's name or a table."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from train.data.classes import CLASSES


class DataError(ValueError):
    """The data set can't be used as it is; the message says what to do."""


@dataclass(frozen=True)
class Subject:
    """The patient on an image, the series the patient's id was counted in, and the id.

    Ids that follow each other were taken in about the same weeks, so a block of ids is held out
    as a whole: a random patient flatters the network.
    """

    patient: str
    series: str
    order: tuple[int, str]


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
    if path.parent.name != label:
        raise DataError(f"{path}: by its name it is {label}. Move it to the folder {label}.")
    return Subject(f"{series}-{number}", series, (number, path.name))


def _natural(text: str) -> tuple[int, str]:
    digits = re.search(r"\d+", text)
    return (int(digits[0]) if digits else 0, text)


def by_file(path: PurePosixPath) -> Subject:
    """Each file its own patient: what is left where nothing else is known."""
    return Subject(str(path), path.parent.name, _natural(path.name))


def by_pattern(pattern: str) -> SubjectOf:
    """The patient by a regular expression on the file's name: its first group, or its match.

    Raises:
        DataError: the expression is broken; later, for a name it does not match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"PATIENT={pattern}: not a regular expression ({error})") from error

    def subject(path: PurePosixPath) -> Subject:
        match = expression.search(path.name)
        if match is None:
            raise DataError(f"{path}: PATIENT={pattern} does not match this name")
        patient = match[1] if expression.groups else match[0]
        return Subject(patient, path.parent.name, _natural(patient))

    return subject


def by_column(table: Path, column: str) -> SubjectOf:
    """The patient from a CSV table: its column `file` is the path or the name of an image.

    Raises:
        DataError: the table lacks a column; later, an image.
    """
    with table.open(newline="") as lines:
        reader = csv.DictReader(lines)
        missing = {"file", column} - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{table} has no column {sorted(missing)}: it has {reader.fieldnames}")
        patients = {row["file"]: row[column] for row in reader}

    def subject(path: PurePosixPath) -> Subject:
        patient = patients.get(str(path), patients.get(path.name))
        if not patient:
            raise DataError(f"{path}: {table} names no patient for it")
        return Subject(patient, path.parent.name, _natural(patient))

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
