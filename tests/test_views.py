"""Test-time augmentation: what is averaged, and what is told of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import views
from tests.small import small_network
from tests.test_run import trained  # noqa: F401 -- a fixture


def test_a_crop_is_the_image_without_a_margin() -> None:
    pixels = torch.zeros(1, 50, 50, dtype=torch.uint8)
    pixels[:, 48:, 48:] = 200  # in the last two rows and columns, which is the margin
    assert float(views.crop(pixels, 0, 0).max()) == 0
    assert float(views.crop(pixels, 1, 1).max()) > 150
    assert views.crop(pixels, 0, 1).shape == (1, 50, 50)


def test_the_mean_over_an_image_and_its_mirror_image_is_that_of_either() -> None:
    network = small_network().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    one, other = (
        views.logits_of(network, np.ascontiguousarray(some)) for some in (pixels, pixels[..., ::-1])
    )
    assert set(one) == set(views.views())
    mirrored = "and its mirror image"
    np.testing.assert_allclose(one[mirrored], other[mirrored], atol=1e-5)
    np.testing.assert_allclose(
        one[mirrored], (one["the image"] + other["the image"]) / 2, atol=1e-5
    )
    assert np.abs(one["and four crops"] - one[mirrored]).max() > 1e-4


def test_the_table_has_every_network_and_mean(
    trained: Path,  # noqa: F811
    images: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    views.main(["--data", str(images), "--weights", str(trained / "small")])
    lines = capsys.readouterr().out.splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    assert [(row[0], row[2]) for row in rows] == [("small", "1"), ("small", "2"), ("small", "6")]
    for row in rows:
        auc, loss = map(float, row[3].split(", "))
        assert 0.5 <= auc <= 1
        assert loss < 0.7
