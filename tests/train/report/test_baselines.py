"""Baselines use the pixels that their names promise, and no others."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from train.__main__ import main
from train.data import dataset as datasets
from train.data.lung_masks import LungMasks, read
from train.report import baselines

SIZE = 64


def write_data(root: Path, region: tuple[slice, slice]) -> Path:
    """Write noise in Kaggle's layout; PNEUMONIA is brighter in the region only."""
    random = np.random.default_rng(0)
    for name in ("NORMAL", "PNEUMONIA"):
        (root / "data/train" / name).mkdir(parents=True)
        (root / "masks" / name).mkdir(parents=True)
        for number in range(120):
            pixels = random.integers(0, 200, (SIZE, SIZE))
            if name == "PNEUMONIA":
                pixels[region] += 40
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"data/train/{name}/{number}.png")
            mask = np.zeros((SIZE, SIZE), np.uint8)
            top = 18 + number % 4
            mask[top : top + 26, 12:26] = mask[top : top + 26, 38:52] = 255
            Image.fromarray(mask).save(root / f"masks/{name}/{number}.png")
    return root


def aucs(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    monkeypatch.chdir(root)
    status = main(
        ["shortcuts", "--data", "data", "--masks", "masks", "--out", "out", "--judge", "validation"]
    )
    assert status == 0
    results = json.loads(Path("out/shortcuts.json").read_text())
    parts = {baseline["part"] for baselines in results.values() for baseline in baselines}
    assert parts == {"block-select"}
    assert "| corners and borders | block-select |" in Path("out/shortcuts.md").read_text()
    return {name: baselines[0]["auc"] for name, baselines in results.items()}


def test_a_signal_in_the_lungs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auc = aucs(write_data(tmp_path, (slice(22, 42), slice(14, 24))), monkeypatch)
    for name in ("the whole image", "lungs alone"):
        assert auc[name] > 0.95, name
    for name in ("corners and borders", "all but the lungs", "all but the lungs' bounding box"):
        assert auc[name] < 0.9, name
    assert auc["shape of the lungs alone"] < 0.7  # as varied in both classes


def test_a_signal_in_a_corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auc = aucs(write_data(tmp_path, (slice(0, 10), slice(0, 10))), monkeypatch)
    for name in ("corners and borders", "all but the lungs", "all but the lungs' bounding box"):
        assert auc[name] > 0.95, name
    assert auc["lungs alone"] < 0.9


def test_a_signal_in_the_file_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path, (slice(0, 0), slice(0, 0)))
    for path in (tmp_path / "data/train/PNEUMONIA").iterdir():
        comment = PngInfo()
        comment.add_text("Comment", "the same pixels")
        Image.open(path).save(path, pnginfo=comment)
    assert aucs(tmp_path, monkeypatch)["byte size of the file"] == 1.0


def test_pixels_outside_the_bounding_box() -> None:
    masks = np.zeros((2, 5, 5), bool)
    masks[0, 1, 1] = masks[0, 3, 2] = True
    expected = np.ones((5, 5), bool)
    expected[1:4, 1:3] = False
    outside: npt.NDArray[np.bool_] = baselines.outside_box(masks)
    np.testing.assert_array_equal(outside[0], expected)
    assert outside[1].all()


def test_only_images_with_a_mask_are_counted(tmp_path: Path) -> None:
    write_data(tmp_path, (slice(0, 10), slice(0, 10)))
    dataset = datasets.load(tmp_path / "data", SIZE, cache=tmp_path / "cache")
    masks = read(tmp_path / "masks", dataset.images, SIZE).pixels.copy()
    masks[dataset.rows("block-select")[:4]] = 0
    baselines.write_report(dataset, LungMasks(masks), tmp_path / "out", open_test=False)
    results = json.loads((tmp_path / "out/shortcuts.json").read_text())
    all_images, masked = (results[name][0]["images"] for name in ("the whole image", "lungs alone"))
    assert masked == all_images - 4
