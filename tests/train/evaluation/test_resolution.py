"""Originals and their small copies."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small import small_network
from tests.train.evaluation.models import model_of
from train.data import dataset as datasets
from train.data.patients import DataError
from train.evaluation import resolution


def test_originals_are_matched_by_name_and_compared(images: Path, tmp_path: Path) -> None:
    dataset = datasets.load(images, 32, cache=tmp_path / "cache")
    originals = tmp_path / "originals/NORMAL"
    originals.mkdir(parents=True)
    names = ["train-NORMAL-003", "train-NORMAL-004"]
    source = images / f"train/NORMAL/{names[0]}.png"
    with Image.open(source) as image:
        image.save(originals / f"{names[0]}.png")
        image.point([255 - v for v in range(256)]).save(originals / f"{names[1]}.png")
    pixels, rows = resolution.read_originals(tmp_path / "originals", dataset)
    np.testing.assert_array_equal(pixels[0], dataset.pixels[rows[0]])
    assert [dataset.images[row].path.stem for row in rows] == names
    network, model = small_network().eval(), model_of([0.5])
    equal = resolution.measure(network, model, dataset, (pixels[:1], rows[:1]))
    assert (equal.images, equal.largest, equal.changed) == (1, 0.0, 0)
    result = resolution.measure(network, model, dataset, (pixels, rows))
    assert result.largest > 0
    assert result.median == pytest.approx(result.largest / 2)
    (originals / "stranger.png").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match=r"stranger\.png has no twin"):
        resolution.read_originals(tmp_path / "originals", dataset)
    with pytest.raises(DataError, match="no files"):
        resolution.read_originals(tmp_path / "nowhere", dataset)
