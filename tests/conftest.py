from pathlib import Path

import pytest

from tests.small import SMALL, SMALL_FROZEN, write_images, write_masks
from train.data import dataset as datasets
from train.data.dataset import Dataset
from train.model import networks


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the architectures `small` and `small-frozen`."""
    monkeypatch.setitem(networks.NETWORKS, "small", SMALL)
    monkeypatch.setitem(networks.NETWORKS, "small-frozen", SMALL_FROZEN)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 100 small images."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def dataset(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """These images as a data set of 32 pixels a side."""
    return datasets.load(images, 32, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def mask_folder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lung masks of half the NORMAL and three quarters of the PNEUMONIA training images."""
    return write_masks(images, tmp_path_factory.mktemp("masks"))
