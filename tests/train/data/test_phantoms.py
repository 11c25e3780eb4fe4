from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from train.data import phantoms
from train.data.classes import CLASSES
from train.data.phantoms import writing

SIZE = 96
Bytes = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def drawn() -> list[phantoms.Phantom]:
    return [phantoms.draw(0, index, index % 2, SIZE) for index in range(300)]


def box_mask(boxes: tuple[phantoms.Box, ...], size: int, margin: int) -> npt.NDArray[np.bool_]:
    inside = np.zeros((size, size), bool)
    for left, top, right, bottom in boxes:
        rows = slice(max(0, top - margin), bottom + margin)
        inside[rows, max(0, left - margin) : right + margin] = True
    return inside


def separation(drawn: list[phantoms.Phantom], statistic: list[float]) -> float:
    """AUC of a statistic in its better direction: 0.5 is chance."""
    area = float(roc_auc_score([phantom.label for phantom in drawn], statistic))
    return max(area, 1 - area)


def read_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("label", [0, 1])
def test_the_same_arguments_give_the_same_phantom(label: int) -> None:
    first, repeated = phantoms.draw(3, 5, label, SIZE), phantoms.draw(3, 5, label, SIZE)
    assert first.image.tobytes() == repeated.image.tobytes()
    assert first.boxes == repeated.boxes
    assert first.lungs.tobytes() == repeated.lungs.tobytes()


def test_seed_and_index_change_the_phantom() -> None:
    first = phantoms.draw(3, 5, 1, SIZE)
    for changed in (phantoms.draw(4, 5, 1, SIZE), phantoms.draw(3, 6, 1, SIZE)):
        assert np.mean(first.image != changed.image) > 0.5


@pytest.mark.parametrize("size", [32, 64, 224])
def test_shapes_and_types_at_every_size(size: int) -> None:
    phantom = phantoms.draw(0, 1, 1, size)
    assert phantom.image.shape == phantom.lungs.shape == (size, size)
    assert (phantom.image.dtype, phantom.lungs.dtype) == (np.uint8, np.bool_)
    assert phantom.boxes


def test_boxes_lie_in_the_image_and_on_the_lungs(drawn: list[phantoms.Phantom]) -> None:
    for phantom in drawn:
        assert (len(phantom.boxes) > 0) == (phantom.label == 1)
        for left, top, right, bottom in phantom.boxes:
            assert 0 <= left < right <= SIZE
            assert 0 <= top < bottom <= SIZE
            assert phantom.lungs[top:bottom, left:right].mean() > 0.25


def test_lungs_are_a_quarter_of_the_picture_and_dark(drawn: list[phantoms.Phantom]) -> None:
    assert 0.15 < np.mean([phantom.lungs.mean() for phantom in drawn]) < 0.45
    for phantom in drawn[::2]:
        # The middle column's mediastinum is brighter than the air beside it.
        assert phantom.lungs.any()
        middle = phantom.image[SIZE // 3 : SIZE // 2, SIZE * 15 // 32 : SIZE * 17 // 32]
        assert phantom.image[phantom.lungs].mean() < middle.mean()


def test_labels_differ_only_in_brighter_opacities() -> None:
    for index in range(40):
        normal, ill = phantoms.draw(1, index, 0, SIZE), phantoms.draw(1, index, 1, SIZE)
        assert np.array_equal(normal.lungs, ill.lungs)
        difference = ill.image.astype(int) - normal.image
        # Except for rounding and clipped grain, filling air only brightens.
        assert difference.min() >= -1
        assert not difference[~box_mask(ill.boxes, SIZE, margin=8)].any()
        for box in ill.boxes:
            assert difference[box_mask((box,), SIZE, margin=0) & ill.lungs].mean() > 5


def test_only_the_lungs_depend_on_the_label(drawn: list[phantoms.Phantom]) -> None:
    fifth = SIZE // 5
    border = box_mask(((fifth, 0, SIZE - fifth, SIZE - fifth),), SIZE, margin=0)
    assert separation(drawn, [phantom.image.mean() for phantom in drawn]) < 0.65
    assert separation(drawn, [phantom.image.std() for phantom in drawn]) < 0.65
    assert separation(drawn, [phantom.image[~border].mean() for phantom in drawn]) < 0.6
    assert separation(drawn, [phantom.image[~phantom.lungs].mean() for phantom in drawn]) < 0.6
    # Compared with the same chest without opacities, the lungs are brighter.
    pairs = [(phantoms.draw(0, i, 0, SIZE), phantoms.draw(0, i, 1, SIZE)) for i in range(20)]
    assert all(a.image[a.lungs].mean() < b.image[b.lungs].mean() for a, b in pairs)


@pytest.mark.parametrize(("label", "size"), [(2, SIZE), (0, 16)])
def test_unknown_label_and_tiny_size_raise(label: int, size: int) -> None:
    with pytest.raises(ValueError, match="must be 0 or 1, size"):
        phantoms.draw(0, 0, label, size)


COUNTS = {"train": (3, 4), "val": (1, 1), "test": (2, 2)}


def test_write_makes_the_layout_and_the_boxes(tmp_path: Path) -> None:
    phantoms.write(tmp_path, COUNTS, seed=2, size=SIZE)
    for split, numbers in COUNTS.items():
        for name, number in zip(CLASSES, numbers, strict=True):
            files = sorted(path.name for path in (tmp_path / split / name).iterdir())
            assert files == [f"phantom-{split}-{index:05d}.jpeg" for index in range(number)]
    with Image.open(tmp_path / "train/NORMAL/phantom-train-00000.jpeg") as image:
        assert (image.mode, image.size) == ("L", (SIZE, SIZE))
    header, *rows = (tmp_path / "boxes.csv").read_text().splitlines()
    assert header == "file,left,top,right,bottom"
    ill = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/PNEUMONIA/*")}
    assert {row.split(",")[0] for row in rows} == ill


def test_every_file_is_a_different_patient(tmp_path: Path) -> None:
    phantoms.write(tmp_path, COUNTS, size=SIZE)
    images = [np.asarray(Image.open(path), float) for path in sorted(tmp_path.rglob("*.jpeg"))]
    for index, image in enumerate(images):
        assert all(np.abs(image - second).mean() > 5 for second in images[index + 1 :])


def test_a_complete_set_is_left_alone(tmp_path: Path) -> None:
    phantoms.write(tmp_path, COUNTS, size=SIZE)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    phantoms.write(tmp_path, COUNTS, size=SIZE)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_an_interrupted_set_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantoms.write(tmp_path / "whole", COUNTS, size=SIZE)
    draw, calls = phantoms.draw, iter(range(5))

    def interrupted(*arguments: int) -> phantoms.Phantom:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(writing, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        phantoms.write(tmp_path / "cut", COUNTS, size=SIZE)
    assert not (tmp_path / "cut/SOURCE.json").exists()
    assert len(list((tmp_path / "cut").rglob("*.jpeg"))) == 5
    monkeypatch.undo()
    phantoms.write(tmp_path / "cut", COUNTS, size=SIZE)
    assert read_files(tmp_path / "cut") == read_files(tmp_path / "whole")


def test_different_counts_or_seed_replace_the_set(tmp_path: Path) -> None:
    phantoms.write(tmp_path / "a", COUNTS, seed=0, size=SIZE)
    for folder in ("a", "b"):
        phantoms.write(tmp_path / folder, {"test": (1, 2)}, seed=1, size=SIZE)
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")


def test_a_folder_with_foreign_images_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "train/NORMAL/IM-0001-0001.jpeg"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="is not a phantom: choose another folder"):
        phantoms.write(tmp_path, COUNTS, size=SIZE)
    assert read_files(tmp_path) == {"train/NORMAL/IM-0001-0001.jpeg": b"mine"}


def test_unknown_split_lists_the_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown split tune: use train, val, test"):
        phantoms.write(tmp_path, {"tune": (1, 1)})
