import numpy as np
import pytest

from handlers.decision import correlation
from train.metrics.correlation import spearman


def test_pearson_equals_numpy_per_image() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)
    expected = [np.corrcoef(first[k].ravel(), second[k].ravel())[0, 1] for k in range(3)]
    np.testing.assert_allclose(correlation(first, second), expected, atol=1e-6)


def test_correlation_ignores_scale_and_offset() -> None:
    maps = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert correlation(maps, 3 * maps + 7) == pytest.approx([1, 1])
    assert correlation(maps, np.stack([maps[0], -maps[1]])) == pytest.approx([1, -1])


def test_a_constant_map_has_no_correlation() -> None:
    maps = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert np.isnan(correlation(maps, np.ones_like(maps))).all()
    np.testing.assert_array_equal(spearman(maps, np.ones_like(maps)), 0)


def test_spearman_depends_only_on_the_order() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(spearman(maps, np.exp(maps)), 1)
    np.testing.assert_allclose(spearman(maps, -maps), -1)
