from pathlib import Path

import pytest

from tests.small import SMALL, SMALL_FROZEN, write_images, write_masks
from train import data, networks
from train.data import Dataset


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`small` and `small-frozen` are networks like the others."""
    monkeypatch.setitem(networks.NETWORKS, "small", SMALL)
    monkeypatch.setitem(networks.NETWORKS, "small-frozen", SMALL_FROZEN)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 100 small images."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def dataset(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same as a data set of 32 pixels a side."""
    return data.load(images, 32, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def mask_folder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of half of the normal and three quarters of the pneumonia images of train."""
    return write_masks(images, tmp_path_factory.mktemp("masks"))
