"""The layouts of a data set: which patient an image is of, and that patients stay whole."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image as Pillow

from handlers.folders import original
from tests.small import write_images
from tests.train.data.test_dataset import load
from train.data import dataset as datasets
from train.data import splits
from train.data.classes import CLASSES
from train.data.dataset import Image
from train.data.patients import DataError, Subject, by_pattern


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)
    Pillow.fromarray(noise).save(path)


Place = Callable[[str, int], str]


def kaggle_set(root: Path, place: Place = lambda label, number: "", patients: int = 30) -> Path:
    """Two images of each patient, of each class; `place` is the folder within the class."""
    for number in range(2 * patients):
        patient = number // 2
        names = f"IM-{patient:04d}-{number:04d}.jpeg", f"person{patient}_bacteria_{number}.jpeg"
        for label, name in zip(CLASSES, names, strict=True):
            picture(root / "train" / label / place(label, number) / name, len(label) + 10 * number)
    return root


def parts_by_patient(dataset: datasets.Dataset) -> dict[str, set[str]]:
    parts: dict[str, set[str]] = {}
    for image, part in zip(dataset.images, dataset.parts, strict=True):
        parts.setdefault(image.subject.patient, set()).add(part)
    return parts


@pytest.mark.parametrize("stray", ["broken.jpeg", "IMG_0001.png", "scan 7.dcm", "IM1234"])
def test_a_broken_file_that_is_skipped_changes_no_patient(tmp_path: Path, stray: str) -> None:
    root = kaggle_set(tmp_path / "set")
    before = load(root, tmp_path / "cache")
    content = bytes(128) + b"DICM cut short"
    (root / "train/NORMAL" / stray).write_bytes(content)
    (root / "train/PNEUMONIA" / f"other {stray}").write_bytes(content + b".")
    after = load(root, tmp_path / "cache", skip_broken=True)
    assert after.parts == before.parts
    assert [image.subject for image in after.images] == [image.subject for image in before.images]
    whole = parts_by_patient(after)
    assert len(whole) == 60
    assert all(len(parts) == 1 for parts in whole.values())


def test_a_stray_image_is_a_patient_of_its_own_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = kaggle_set(tmp_path / "set")
    picture(root / "train/NORMAL/copy of something.png", 9999)
    dataset = load(root, tmp_path / "cache")
    assert all(len(parts) == 1 for parts in parts_by_patient(dataset).values())
    assert "EACH OF 1 FILES IS TAKEN FOR A PATIENT" in caplog.text


@pytest.mark.parametrize(
    "place",
    [
        lambda label, number: f"p{number // 2}",
        lambda label, number: f"p{number // 4}",
        lambda label, number: f"batch{number // 30}",
        lambda label, number: ["bacteria", "virus"][number // 2 % 2],
        lambda label, number: f"bacteria/p{number // 2}" if label == "PNEUMONIA" else "",
        lambda label, number: f"p{number // 2}/study {number}",
    ],
    ids=["patients", "two patients", "batches", "groups", "groups of patients", "studies"],
)
def test_kaggles_patients_stay_whole_in_every_layout(tmp_path: Path, place: Place) -> None:
    dataset = load(kaggle_set(tmp_path / "set", place), tmp_path / "cache")
    assert len(dataset.images) == 120
    whole = parts_by_patient(dataset)
    assert len(whole) == 60
    assert all(len(parts) == 1 for parts in whole.values())
    if place("NORMAL", 4) == "p1":  # of two patients
        folders: dict[str, set[str]] = {}
        for image, part in zip(dataset.images, dataset.parts, strict=True):
            folders.setdefault(str(image.path.parent), set()).add(part)
        assert all(len(parts) == 1 for parts in folders.values())


@pytest.mark.parametrize("groups", ["", "bacteria/"])
def test_a_patients_folder_is_kept_whole(tmp_path: Path, groups: str) -> None:
    for label in CLASSES:
        for number in range(60):
            group = groups if label == "PNEUMONIA" else ""
            path = tmp_path / "set/train" / label / f"{group}{label[0]}{number // 3}"
            picture(path / f"view {number % 3}.png", number + len(label) * 100)
    dataset = load(tmp_path / "set", tmp_path / "cache")
    whole = parts_by_patient(dataset)
    assert len(whole) == 40
    assert all(len(parts) == 1 for parts in whole.values())
    assert set(dataset.series) == set(CLASSES)
    assert set(dataset.parts) == set(splits.PARTS) - {splits.OFFICIAL}


def test_the_patient_by_a_folder_that_a_pattern_names(tmp_path: Path) -> None:
    path = PurePosixPath("train/NORMAL/site 2/patient-31/view.png")
    assert by_pattern(r"patient-(\d+)")(path).patient == "31"
    assert by_pattern(r"patient-(\d+)")(path).series == "NORMAL"


@pytest.mark.parametrize("folders", [("TRAIN", "Test"), ("training", "testing")])
def test_parts_by_other_names(tmp_path: Path, folders: tuple[str, str]) -> None:
    root = write_images(tmp_path / "set")
    expected = load(root, tmp_path / "cache")
    for name, second in zip(("train", "test"), folders, strict=True):
        (root / name).rename(root / second)
    result = load(root, tmp_path / "cache")
    assert result.parts == expected.parts
    assert {image.folder for image in result.images} == {"train", "test"}


def test_what_is_passed_over_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_images(tmp_path / "set")
    (root / "train/NORMAL/gone.png").symlink_to("/nowhere")
    (root / "holdout/NORMAL").mkdir(parents=True)
    (root / "train/NORMAL/.ipynb_checkpoints").mkdir()
    shutil.copy(
        root / "train/NORMAL/train-NORMAL-000.png", root / "train/NORMAL/.ipynb_checkpoints"
    )
    assert len(datasets.scan(root)) == 100
    assert "train/NORMAL/gone.png: a link that leads nowhere" in caplog.text
    assert "holdout: no part of a data set" in caplog.text
    assert "ipynb" not in caplog.text


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_class_with_few_patients_is_answered_with_what_is_missing(
    tmp_path: Path, count: int
) -> None:
    root = write_images(tmp_path / "set", test=0)
    shutil.rmtree(root / "test")
    for path in sorted((root / "train/NORMAL").iterdir())[count:]:
        path.unlink()
    missing = rf"train/NORMAL holds {count} images, of {count} patients .* Add {5 - count} or more"
    with pytest.raises(DataError, match=missing):
        load(root, tmp_path / "cache")


@pytest.mark.parametrize("count", [5, 6, 9])
@pytest.mark.parametrize(
    "sizes", [[1] * 9, [1, 1, 1, 40, 1, 1, 2, 1, 1], [30, 1, 1, 1, 1, 9, 1, 1, 1]]
)
def test_few_patients_reach_every_part(count: int, sizes: list[int]) -> None:
    images = []
    for label, name in enumerate(CLASSES):
        for number, size in enumerate(sizes[:count]):
            subject = Subject(f"{name}-{number}", name, (number, ""))
            path = PurePosixPath(f"train/{name}/{number}.png")
            images += [
                Image(path, "train", label, subject, f"{name}{number}{k}") for k in range(size)
            ]
    for seed in range(10):
        parts = splits.part(images, seed)
        for label in range(2):
            held = {p for p, image in zip(parts, images, strict=True) if image.label == label}
            assert held == {splits.FIT, splits.RANDOM, splits.SELECT, splits.CALIBRATE, splits.TEST}


def test_a_series_of_few_joins_its_class() -> None:
    images = [
        Image(
            PurePosixPath(f"train/PNEUMONIA/{n}"), "train", 1,
            Subject(f"p{n}", "virus" if n < 2 else "bacteria", (n, "")), f"hash{n}",
        )
        for n in range(40)
    ]  # fmt: skip
    assert set(splits.part(images, 0)) == {*splits.SHARES, splits.FIT, splits.TEST}


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set")
    names = {b"r\xf6ntgen.png": 1, b"two\nlines.png": 2, b"back\\slash.png": 3}
    for name, seed in names.items():
        picture(root / "train/NORMAL/x.png", seed)
        (root / "train/NORMAL/x.png").rename(root / "train/NORMAL" / os.fsdecode(name))
    (root / "train/NORMAL" / os.fsdecode(b"\xff.png")).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"\\xff.png") as error:
        load(root, tmp_path / "cache")
    str(error.value).encode()
    dataset = load(root, tmp_path / "cache", skip_broken=True)
    assert len(dataset.sha256) == 64
    datasets.write_split(dataset, tmp_path / "splits.csv")
    with (tmp_path / "splits.csv").open(encoding="utf-8") as lines:
        written = {os.fsencode(original(row["file"])) for row in csv.DictReader(lines)}
    assert {b"train/NORMAL/" + name for name in names} < written
