"""Baselines see what they are said to see, and nothing else."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from train import data, shortcuts
from train.__main__ import main
from train.lung_masks import LungMasks, read

SIZE = 64


def write(root: Path, where: tuple[slice, slice]) -> Path:
    """Noise in Kaggle's layout; PNEUMONIA is brighter there, and nowhere else."""
    random = np.random.default_rng(0)
    for name in ("NORMAL", "PNEUMONIA"):
        (root / "data/train" / name).mkdir(parents=True)
        (root / "masks" / name).mkdir(parents=True)
        for number in range(120):
            pixels = random.integers(0, 200, (SIZE, SIZE))
            if name == "PNEUMONIA":
                pixels[where] += 40
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"data/train/{name}/{number}.png")
            mask = np.zeros((SIZE, SIZE), np.uint8)
            top = 18 + number % 4
            mask[top : top + 26, 12:26] = mask[top : top + 26, 38:52] = 255
            Image.fromarray(mask).save(root / f"masks/{name}/{number}.png")
    return root


def aucs(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    monkeypatch.chdir(root)
    done = main(
        ["shortcuts", "--data", "data", "--masks", "masks", "--out", "out", "--judge", "validation"]
    )
    assert done == 0
    found = json.loads(Path("out/shortcuts.json").read_text())
    assert {one["part"] for each in found.values() for one in each} == {"block-select"}
    assert "| corners and borders | block-select |" in Path("out/shortcuts.md").read_text()
    return {name: each[0]["auc"] for name, each in found.items()}


def test_what_only_the_lungs_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = aucs(write(tmp_path, (slice(22, 42), slice(14, 24))), monkeypatch)
    for name in ("the whole image", "lungs alone"):
        assert found[name] > 0.95, name
    for name in ("corners and borders", "all but the lungs", "all but the lungs' bounding box"):
        assert found[name] < 0.9, name
    assert found["shape of the lungs alone"] < 0.7  # as varied in both classes


def test_what_only_the_corner_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = aucs(write(tmp_path, (slice(0, 10), slice(0, 10))), monkeypatch)
    for name in ("corners and borders", "all but the lungs", "all but the lungs' bounding box"):
        assert found[name] > 0.95, name
    assert found["lungs alone"] < 0.9


def test_the_size_of_a_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, (slice(0, 0), slice(0, 0)))
    for path in (tmp_path / "data/train/PNEUMONIA").iterdir():
        said = PngInfo()
        said.add_text("Comment", "the same pixels")
        Image.open(path).save(path, pnginfo=said)
    assert aucs(tmp_path, monkeypatch)["byte size of the file"] == 1.0


def test_outside_the_bounding_box() -> None:
    masks = np.zeros((2, 5, 5), bool)
    masks[0, 1, 1] = masks[0, 3, 2] = True
    expected = np.ones((5, 5), bool)
    expected[1:4, 1:3] = False
    found: npt.NDArray[np.bool_] = shortcuts.outside_box(masks)
    np.testing.assert_array_equal(found[0], expected)
    assert found[1].all()


def test_only_images_with_a_mask_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, (slice(0, 10), slice(0, 10)))
    dataset = data.load(tmp_path / "data", SIZE, cache=tmp_path / "cache")
    masks = read(tmp_path / "masks", dataset.images, SIZE).pixels.copy()
    some = dataset.rows("block-select")[:4]
    masks[some] = 0
    shortcuts.shortcuts(dataset, LungMasks(masks), tmp_path / "out", open_test=False)
    found = json.loads((tmp_path / "out/shortcuts.json").read_text())
    whole, of_lungs = (found[name][0]["images"] for name in ("the whole image", "lungs alone"))
    assert of_lungs == whole - 4
