import io

import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from handlers import heatmap
from handlers.heatmap import draw, overlay

SIZE = 48
PICTURE = np.add.outer(np.arange(SIZE) * 3, np.arange(SIZE)).astype(np.uint8)
NONE = np.zeros((6, 6), np.float32)


def drawn(evidence: NDArray[np.float32], scale: float = 2.0) -> NDArray[np.int64]:
    return np.asarray(draw(PICTURE, evidence, scale)).astype(int)


def change(evidence: NDArray[np.float32], scale: float = 2.0) -> NDArray[np.int64]:
    """By how much the map changes the picture (H, W), red, green and blue together."""
    return np.abs(drawn(evidence, scale) - drawn(NONE)).sum(2)


@pytest.mark.parametrize(
    ("size", "side"), [(32, 384), (64, 384), (96, 384), (100, 400), (224, 448), (384, 384)]
)
def test_enlarged_by_a_whole_factor_to_384_at_least(size: int, side: int) -> None:
    content = overlay(np.zeros((size, size), np.uint8), NONE, 1.0)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (side, side))


def test_the_png_holds_the_drawn_pixels() -> None:
    evidence = np.random.default_rng(0).normal(0, 2, (6, 6)).astype(np.float32)
    with Image.open(io.BytesIO(overlay(PICTURE, evidence, 2.0))) as image:
        image.load()
        assert_array_equal(np.asarray(image), drawn(evidence))


def test_the_colours_are_matplotlibs_inferno() -> None:
    table = (np.array(matplotlib.colormaps["inferno"].colors) * 255).round()
    assert_array_equal(np.frombuffer(heatmap.INFERNO, np.uint8).reshape(256, 3), table)


@pytest.mark.parametrize("value", [0.0, -1e-3, -50.0])
def test_without_evidence_the_overlay_is_the_plain_image(value: float) -> None:
    result = drawn(np.full((6, 6), value, np.float32))
    side = result.shape[0]
    plain = Image.fromarray(PICTURE).resize((side, side), Image.Resampling.BICUBIC)
    assert_array_equal(result, np.dstack([plain] * 3))


def test_evidence_stays_within_the_cell() -> None:
    evidence = np.full((6, 6), -3.0, np.float32)
    evidence[2, 3] = 2.0
    changed = change(evidence) > 0
    cell = changed.shape[0] // 6
    rows, columns = np.nonzero(changed)
    assert rows.min() >= cell * 1.5 - 1
    assert rows.max() <= cell * 3.5
    assert columns.min() >= cell * 2.5 - 1
    assert columns.max() <= cell * 4.5
    assert changed[cell * 5 // 2, cell * 7 // 2]


def test_evidence_against_rebounds_nowhere() -> None:
    evidence = NONE.copy()
    evidence[3, 3] = -100.0
    assert change(evidence).max() == 0


def test_weak_evidence_stays_faint() -> None:
    evidence = np.random.default_rng(0).uniform(0, 1, (6, 6)).astype(np.float32)
    assert change(evidence, scale=1.0).max() > 200
    assert change(evidence, scale=100.0).max() < 5


def test_half_the_evidence_has_half_the_opacity() -> None:
    black = np.zeros((SIZE, SIZE), np.uint8)
    white = np.full((SIZE, SIZE), 255, np.uint8)

    def opacity(value: float, scale: float) -> float:
        evidence = np.full((6, 6), value, np.float32)
        over = [np.asarray(draw(image, evidence, scale)).astype(int) for image in (black, white)]
        return 1 - float((over[1] - over[0]).mean()) / 255

    assert opacity(2.0, 2.0) == pytest.approx(heatmap.OPACITY, abs=0.01)
    assert opacity(2.0, 4.0) == pytest.approx(heatmap.OPACITY / 2, abs=0.01)
    assert opacity(1.0, 2.0) == pytest.approx(heatmap.OPACITY / 2, abs=0.01)
    assert opacity(9.0, 2.0) == pytest.approx(heatmap.OPACITY, abs=0.01)  # no more than full


def test_the_more_evidence_the_brighter() -> None:
    black = np.zeros((SIZE, SIZE), np.uint8)
    greys = [
        np.asarray(draw(black, np.full((2, 2), value, np.float32), 1.0).convert("L")).mean()
        for value in np.linspace(0, 1, 11)
    ]
    assert greys[0] == 0
    assert (np.diff(greys) > 0).all()


def test_a_map_is_aligned_with_the_image() -> None:
    evidence = NONE.copy()
    evidence[0, 5] = 2.0  # above, right
    rows, columns = np.nonzero(change(evidence))
    side = drawn(NONE).shape[0]
    assert rows.max() < side / 3
    assert columns.min() > side * 2 / 3
    # A flat map stays flat to the border.
    assert len(np.unique(draw(np.zeros_like(PICTURE), np.ones((3, 4)), 2.0))) <= 3


def test_a_single_cell_in_double_precision() -> None:
    assert change(np.full((1, 1), 2.0)).min() > 0
