from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from tests.small import RECIPE
from train import data, evaluate, lungs, recipes, run, split
from train.data import Dataset
from train.lungs import Lungs, Outside, Swaps
from train.options import Options
from train.patients import DataError
from train.recipes import Phase
from train.trained import networks_of

MASK = np.zeros((40, 40), np.uint8)
MASK[10:30, 10:30] = 255  # where the phantoms of tests/small.py are bright


@pytest.fixture(scope="module")
def dataset(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return data.load(images, 32, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def masks(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of half of the normal and three quarters of the pneumonia images of train."""
    root = tmp_path_factory.mktemp("masks")
    for name, shown in (("NORMAL", 2), ("PNEUMONIA", 4)):
        (root / name).mkdir()
        for number, path in enumerate(sorted((images / "train" / name).iterdir())):
            if number % 4 and number % 4 != 4 - shown:
                Pillow.fromarray(MASK).convert("1").save(root / name / f"{path.stem}.png")
    return root


def square(size: int = 32, low: int = 8, high: int = 24) -> Tensor:
    mask = torch.zeros(1, size, size)
    mask[:, low:high, low:high] = 1
    return mask


def swaps(kind: int) -> Swaps:
    return Swaps(torch.tensor([kind]), torch.tensor([0]), torch.tensor([77.0]))


def test_masks_belong_to_training_images_by_name(dataset: Dataset, masks: Path) -> None:
    found = lungs.read(masks, dataset.images, 32)
    for row, image in enumerate(dataset.images):
        there = (masks / image.path.parent.name / f"{image.path.stem}.png").is_file()
        assert found.known[row] == (there and image.folder == "train")
    inside = found.masks[np.flatnonzero(found.known)[0]]
    assert (inside[10:22, 10:22] == 255).all()
    assert inside.mean() / 255 == pytest.approx(0.25, abs=0.01)


def test_a_folder_without_masks_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training image has a mask"):
        lungs.read(tmp_path, dataset.images, 32)
    (tmp_path / "NORMAL").mkdir()
    name = next(i.path.stem for i in dataset.images if i.path.parts[:2] == ("train", "NORMAL"))
    (tmp_path / "NORMAL" / f"{name}.png").write_text("no image")
    with pytest.raises(DataError, match=name):
        lungs.read(tmp_path, dataset.images, 32)


def test_both_classes_are_changed_as_often(dataset: Dataset, masks: Path) -> None:
    found = lungs.read(masks, dataset.images, 32)
    rows = dataset.rows(split.FIT)
    outside = Outside(found, dataset.labels, rows)
    generator = torch.Generator().manual_seed(0)
    batch = torch.from_numpy(np.tile(rows, 400))
    drawn = outside.draw(batch, 0.8, generator)
    labels, known = dataset.labels[batch.numpy()], found.known[batch.numpy()]
    changed = drawn.kind.numpy() > 0
    for masked in (True, False):
        shares = [(changed & (known == masked))[labels == k].mean() for k in (0, 1)]
        assert shares[0] == pytest.approx(shares[1], abs=0.02)
        assert shares[0] > 0.05
    donors = drawn.donor.numpy()
    assert set(donors) <= set(rows[found.known[rows]])
    assert dataset.labels[donors].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_the_lungs_stay_and_the_outside_goes(kind: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, donor = 255 * torch.rand(2, 1, 32, 32, generator=generator)
    changed = lungs.swap(pixels, square(), donor, square(), swaps(kind))
    assert torch.allclose(changed[:, 12:20, 12:20], pixels[:, 12:20, 12:20], atol=1e-3)
    corner = changed[:, :4, :4]
    expected = {1: donor[:, :4, :4], 3: torch.full((1, 4, 4), 77.0)}.get(kind)
    if expected is None:  # blurred
        assert corner.std() < pixels[:, :4, :4].std() / 3
    else:
        assert torch.allclose(corner, expected, atol=1e-3)


def test_nothing_drawn_changes_nothing() -> None:
    pixels = torch.randint(0, 256, (1, 32, 32), dtype=torch.uint8)
    assert torch.equal(lungs.swap(pixels, square(), pixels, square(), swaps(0)), pixels.float())


def test_without_a_mask_only_the_border_changes() -> None:
    pixels, donor = torch.full((2, 1, 32, 32), 100.0)
    changed = lungs.swap(pixels, torch.zeros(1, 32, 32), donor, square(32, 12, 20), swaps(3))
    kept = (changed[0] - 100).abs() < 1
    assert kept[11:21, 11:21].all()
    assert kept.float().mean() > square(32, 12, 20).mean()
    assert not kept[0].any()


def test_a_donors_lungs_are_blurred_away() -> None:
    donor = 50 + 200 * square()
    left = lungs.without_lungs(donor, square())
    assert left[0, 16, 16] > 200  # smeared, not blackened
    stripes = square() * (torch.arange(32) % 2) * 200
    assert lungs.without_lungs(stripes, square())[0, 12:20, 12:20].std() < 10


def test_the_share_inside_by_hand() -> None:
    halves = torch.zeros(1, 32, 32)
    halves[:, :, :16] = 1
    maps = torch.tensor([[[3.0, -1.0], [0.0, 4.0]]])
    assert lungs.inside(maps, halves).item() == pytest.approx(3 / 8)
    assert lungs.evidence_outside(maps, halves).item() == pytest.approx(5 / 4)
    assert not lungs.peak_inside(maps, halves).item()
    assert lungs.peak_inside(-maps.flip(2), halves).item()
    quarter = torch.zeros(1, 32, 32)
    quarter[:, :8] = 1  # half of the upper cells
    assert lungs.inside(maps, quarter).item() == pytest.approx((3 + 1) / 2 / 8)


def test_swapped_lungs_lie_where_the_lungs_were() -> None:
    theirs = square(32, 4, 12)
    moved = lungs.lungs_of(200 * theirs, theirs, square(32, 8, 24))
    assert (moved[0, 9:23, 9:23] > 150).all()
    assert (moved[0, :6] < 50).all()


def test_a_network_learns_to_look_into_the_lungs(
    images: Path,
    masks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_networks: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    shares = []
    for penalty in (0.0, 0.5):
        recipe = replace(
            RECIPE, phases=(Phase(32, 40),), learning_rate=1e-2, patience=99,
            outside=0.5, lung_penalty=penalty,
        )  # fmt: skip
        monkeypatch.setitem(recipes.PRESETS["quick"], "small", (recipe,))
        options = Options(
            data=images, preset="quick", networks=("small",), init="scratch", masks=masks,
            runs=tmp_path / f"runs{penalty}",
        )  # fmt: skip
        folder = run.train(options)
        report = evaluate.evaluate(folder).read_text()
        assert "## Where the evidence lies" in report
        (one,) = networks_of(folder)
        assert one.card["training"]["lungs"]["images"] > 0
        assert one.masks is not None
        rows = one.dataset.rows(split.FIT)
        evidence = lungs.measure(one.network, one.dataset, one.masks, rows)
        assert len(evidence.share) == one.masks.known[rows].sum()
        shares.append(evidence.share.mean())
    assert shares[1] > shares[0] + 0.1
    # What lies in the lungs is all that tells these classes apart.
    assert evidence.lungs_swapped.mean() > 2 * evidence.outside_swapped.mean()


def test_measuring_needs_no_training(dataset: Dataset) -> None:
    from tests.small import small_network

    masks = Lungs(np.repeat((square().numpy() * 255).astype(np.uint8), len(dataset.images), 0))
    found = lungs.measure(small_network().eval(), dataset, masks, dataset.rows(split.SELECT))
    assert (found.area == 0.25).all()
    assert ((found.share >= 0) & (found.share <= 1)).all()
