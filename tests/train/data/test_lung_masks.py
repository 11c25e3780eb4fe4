"""Mask files are matched to training images; a folder without masks is an error."""

from pathlib import Path

import numpy as np
import pytest

from train.data import lung_masks
from train.data.dataset import Dataset
from train.data.patients import DataError


def test_masks_are_matched_to_training_images_by_name(dataset: Dataset, mask_folder: Path) -> None:
    masks = lung_masks.read(mask_folder, dataset.images, 32)
    for row, image in enumerate(dataset.images):
        file = mask_folder / image.path.parent.name / f"{image.path.stem}.png"
        assert masks.present[row] == (file.is_file() and image.folder == "train")
    inside = masks.pixels[np.flatnonzero(masks.present)[0]]
    assert (inside[10:22, 10:22] == 255).all()
    assert inside.mean() / 255 == pytest.approx(0.25, abs=0.01)


def test_a_folder_without_masks_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training image has a mask"):
        lung_masks.read(tmp_path, dataset.images, 32)
    (tmp_path / "NORMAL").mkdir()
    name = next(i.path.stem for i in dataset.images if i.path.parts[:2] == ("train", "NORMAL"))
    (tmp_path / "NORMAL" / f"{name}.png").write_text("no image")
    with pytest.raises(DataError, match=name):
        lung_masks.read(tmp_path, dataset.images, 32)
