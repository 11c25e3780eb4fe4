"""The share of a map inside the lungs, by hand, and the effect of training with lung masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small import RECIPE, small_network, square_mask
from train.data import splits
from train.data.dataset import Dataset
from train.data.lung_masks import LungMasks
from train.evaluation import lung_evidence
from train.fitting import recipes, runs
from train.fitting.loaded_networks import networks_of
from train.fitting.losses import evidence_outside
from train.fitting.options import Options
from train.fitting.recipes import Phase
from train.report import pipeline


def test_share_and_peak_inside_the_lungs() -> None:
    halves = torch.zeros(1, 32, 32)
    halves[:, :, :16] = 1
    maps = torch.tensor([[[3.0, -1.0], [0.0, 4.0]]])
    assert lung_evidence.share_inside(maps, halves).item() == pytest.approx(3 / 8)
    assert evidence_outside(maps, halves).item() == pytest.approx(5 / 4)
    assert not lung_evidence.peak_inside(maps, halves).item()
    assert lung_evidence.peak_inside(-maps.flip(2), halves).item()
    quarter = torch.zeros(1, 32, 32)
    quarter[:, :8] = 1  # half of the upper cells
    assert lung_evidence.share_inside(maps, quarter).item() == pytest.approx((3 + 1) / 2 / 8)


def test_swapped_lungs_are_aligned_with_the_lungs() -> None:
    donor_mask = square_mask(32, 4, 12)
    moved = lung_evidence.align_lungs(200 * donor_mask, donor_mask, square_mask(32, 8, 24))
    assert (moved[0, 9:23, 9:23] > 150).all()
    assert (moved[0, :6] < 50).all()


def test_training_with_masks_moves_the_evidence_into_the_lungs(
    images: Path,
    mask_folder: Path,
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
            data=images, preset="quick", networks=("small",), init="scratch", masks=mask_folder,
            runs=tmp_path / f"runs{penalty}",
        )  # fmt: skip
        folder = runs.train(options)
        report = pipeline.evaluate(folder).read_text()
        assert "## Where the evidence lies" in report
        (trained,) = networks_of(folder)
        assert trained.card.training.lungs is not None
        assert trained.card.training.lungs.images > 0
        assert trained.masks is not None
        rows = trained.dataset.rows(splits.FIT)
        evidence = lung_evidence.measure(trained.network, trained.dataset, trained.masks, rows)
        assert len(evidence.share) == trained.masks.present[rows].sum()
        shares.append(evidence.share.mean())
    assert shares[1] > shares[0] + 0.1
    # The classes differ only inside the lungs.
    assert evidence.lungs_swapped.mean() > 2 * evidence.outside_swapped.mean()


def test_measuring_needs_no_training(dataset: Dataset) -> None:
    masks = LungMasks(
        np.repeat((square_mask().numpy() * 255).astype(np.uint8), len(dataset.images), 0)
    )
    evidence = lung_evidence.measure(
        small_network().eval(), dataset, masks, dataset.rows(splits.SELECT)
    )
    assert (evidence.area == 0.25).all()
    assert ((evidence.share >= 0) & (evidence.share <= 1)).all()
