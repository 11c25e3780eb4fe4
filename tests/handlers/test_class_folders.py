from pathlib import Path, PurePosixPath

import pytest

from handlers import class_folders
from handlers.class_folders import FolderError, patient_folders
from tests.handlers.test_folders import write

CLASSES = ("NORMAL", "PNEUMONIA")


def read(root: Path) -> class_folders.LabelledFolders:
    return class_folders.read(root, CLASSES)


def test_parts_and_classes_in_any_spelling(tmp_path: Path) -> None:
    write(tmp_path, "Train/Normal/a.png", "Train/pneumonia/b.png")
    write(tmp_path, "validation/NORMAL/c.png", "TEST/PNEUMONIA/d.png")
    assert [(i.part, i.label, str(i.relative)) for i in read(tmp_path).images] == [
        ("train", "NORMAL", "Train/Normal/a.png"),
        ("train", "PNEUMONIA", "Train/pneumonia/b.png"),
        ("val", "NORMAL", "validation/NORMAL/c.png"),
        ("test", "PNEUMONIA", "TEST/PNEUMONIA/d.png"),
    ]


def test_two_folders_of_one_part_are_named(tmp_path: Path) -> None:
    write(tmp_path, "train/NORMAL/a.png", "val/NORMAL/b.png", "valid/NORMAL/c.png")
    with pytest.raises(FolderError, match="two folders for val: val and valid"):
        read(tmp_path)


def test_a_folder_that_is_no_part_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train/NORMAL/a.png", "holdout/NORMAL/b.png", "__MACOSX/c.png", "SOURCE.json")
    result = read(tmp_path)
    assert [str(image.relative) for image in result.images] == ["train/NORMAL/a.png"]
    assert [str(entry) for entry in result.passed_over] == [
        "holdout: no part of a data set: the parts are train, val, test"
    ]


def test_without_train_what_is_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, "NORMAL/a.png", "PNEUMONIA/b.png")
    with pytest.raises(FolderError, match=r"no folder train/.* It has NORMAL, PNEUMONIA"):
        read(tmp_path)


def test_leftovers_beside_the_classes_are_passed_over_and_images_are_not(tmp_path: Path) -> None:
    write(tmp_path, "train/NORMAL/a.png", "train/.DS_Store", "train/Thumbs.db", "train/README.txt")
    write(tmp_path, "train/.ipynb_checkpoints/b.png")
    assert len(read(tmp_path).images) == 1
    write(tmp_path, "train/c.png")
    with pytest.raises(FolderError, match=r"c.png lies in no class: known classes are"):
        read(tmp_path)
    (tmp_path / "train/c.png").unlink()
    (tmp_path / "train/PNEUMONAI").mkdir()
    with pytest.raises(FolderError, match="known classes are the folders NORMAL, PNEUMONIA"):
        read(tmp_path)


def test_a_class_may_be_a_link_and_share_a_folder_with_another(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/a.png", "root/train/NORMAL/b.png")
    for place in ("PNEUMONIA", "NORMAL/more"):
        (tmp_path / "root/train" / place).symlink_to(tmp_path / "elsewhere")
    result = {str(image.relative) for image in read(tmp_path / "root").images}
    # In both, so that the same image in two classes is seen.
    assert result == {"train/NORMAL/b.png", "train/NORMAL/more/a.png", "train/PNEUMONIA/a.png"}


def patients(*paths: str) -> list[str | None]:
    return patient_folders([PurePosixPath(path) for path in paths])


def test_the_layouts_of_a_class() -> None:
    assert patients("a.png", "b.png") == [None, None]
    assert patients("p1/a.png", "p1/b.png", "p2/a.png") == ["p1", "p1", "p2"]
    assert patients("bacteria/a.png", "virus/b.png") == [None, None]
    assert patients("Bacteria/p1/a.png", "virus/p2/b.png", "virus/c.png") == ["p1", "p2", None]
    assert patients("p1/study 2/series 3/a.png", "p1/study 4/b.png", "c.png") == ["p1", "p1", None]


def test_few_folders_named_by_words_that_hold_many_images_are_groups() -> None:
    groups = [f"{name}/{k}.png" for name in ("lobar", "interstitial") for k in range(12)]
    assert patients(*groups) == [None] * 24
    few = [f"{name}/{k}.png" for name in ("anna", "bert", "carla") for k in range(3)]
    assert patients(*few) == [name for name in ("anna", "bert", "carla") for _ in range(3)]
    numbered = [f"p{number}/{k}.png" for number in range(3) for k in range(12)]
    assert patients(*numbered) == [f"p{number}" for number in range(3) for _ in range(12)]
