from pathlib import Path

import pytest

from tests.small import SMALL, SMALL_FROZEN, write_images
from train import networks


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`small` and `small-frozen` are networks like the others."""
    monkeypatch.setitem(networks.NETWORKS, "small", SMALL)
    monkeypatch.setitem(networks.NETWORKS, "small-frozen", SMALL_FROZEN)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 100 small images."""
    return write_images(tmp_path_factory.mktemp("images"))
