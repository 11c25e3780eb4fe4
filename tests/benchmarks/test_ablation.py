"""The ablation's arithmetic and resumption, on the small network."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.experiments import ablation, ablation_changes
from benchmarks.experiments.ablation_changes import STRETCHED, UNCHANGED
from benchmarks.experiments.ablation_report import Cell, table_rows
from tests.small import RECIPE, small_network
from train.data import dataset as datasets
from train.fitting import recipes
from train.fitting.recipes import Phase
from train.model import checkpoint


def cell(change: str, auc: float, seed: int = 0, random: float = 0.9) -> Cell:
    return Cell(change, seed, auc, 0.3, auc, 0.4, random, 0.2, None, None)


BASE = [cell(UNCHANGED, auc, seed) for seed, auc in enumerate((0.89, 0.90, 0.91))]  # ± 0.01


def test_a_change_counts_beyond_two_standard_deviations() -> None:
    base = [
        replace(unchanged, random_auc=auc)
        for unchanged, auc in zip(BASE, (0.89, 0.9, 0.91), strict=True)
    ]
    verdicts = {
        row[0]: row[-1]
        for row in table_rows(
            [
                *base,
                cell("better", 0.921),
                cell("not enough", 0.919),
                cell("at random's cost", 0.95, random=0.879),
                cell("worse", 0.7),
                replace(cell("not under stress", 0.95), stress_auc=0.9),
                replace(cell("by loss", 0.9), select_loss=0.2, stress_loss=0.3),
            ]
        )
    }
    assert verdicts == {
        UNCHANGED: "", "better": "yes", "not enough": "no", "at random's cost": "no", "worse": "no",
        "not under stress": "no", "by loss": "yes",
    }  # fmt: skip
    row = table_rows([*base, cell("better", 0.921)])[1]
    assert row[:3] == ["better", "1", "+0.0210"]


def test_a_change_has_the_mean_over_seeds() -> None:
    cells = [*BASE, cell("change", 0.91, 0), cell("other", 0.9), cell("change", 0.95, 1)]
    rows = {row[0]: row for row in table_rows(cells)}
    assert rows["change"][:3] == ["change", "2", "+0.0300"]  # 0.93 − 0.90, three deviations
    assert rows["change"][-1] == "yes"
    assert rows[UNCHANGED][:3] == [UNCHANGED, "3", "0.9000 ± 0.0100"]


@pytest.mark.parametrize(("preset", "network"), [("quick", "resnet50"), ("full", "resnet50")])
def test_every_change_changes_every_leg(preset: str, network: str) -> None:
    legs = recipes.legs(preset, network)
    variants = ablation_changes.changes(legs)
    assert variants.pop(STRETCHED) == legs  # it changes the network
    assert len(set(variants.values())) == len(variants)
    assert ("as tuned" in variants) == (preset == "quick")
    for changed in variants.values():
        assert all(a != b for a, b in zip(changed, legs, strict=True))


def test_stretching_maps_percentiles_to_black_and_white() -> None:
    ramp = torch.arange(101.0).repeat(101, 1)  # the percentiles are 1 and 99
    pixels = torch.stack([ramp, 2 * ramp + 40, torch.full_like(ramp, 70)])
    stretched = ablation_changes.stretch_grey(small_network(), (pixels,))
    expected = (255 * (ramp - 1) / 98).clamp(0, 255)
    torch.testing.assert_close(stretched, torch.stack([expected, expected, 0 * ramp]))


def test_scaled_logits_do_not_change_a_cell(images: Path, tmp_path: Path) -> None:
    dataset = datasets.load(images, 32, cache=tmp_path)

    def figures(scale: float, offset: float) -> list[float]:
        network = small_network().eval()
        with torch.no_grad():
            network.head.weight.mul_(scale)
            network.head.bias.mul_(scale)[1] += offset
        judged = ablation.judge(network, "scaled", 0, dataset, None, small_network().eval())
        assert judged.agreement == pytest.approx(1)  # scaling a map keeps its ranks
        aucs, losses = [judged.select_auc, judged.stress_auc], [judged.select_loss]
        return [*aucs, *losses, judged.stress_loss, judged.random_loss]

    assert figures(3, 0.7) == pytest.approx(figures(1, 0), abs=5e-3)


@pytest.mark.usefixtures("small_networks")
def test_cells_are_trained_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        recipes.PRESETS["quick"], "small", (replace(RECIPE, phases=(Phase(24, 1),)),)
    )
    words = ["--data", str(images), "--network", "small", "--only", "no dropout"]
    ablation.main(words)
    path = tmp_path / "docs/results/ablation-small-quick.jsonl"
    before = path.read_text()
    cells = [json.loads(line) for line in before.splitlines()]
    assert [(finished["change"], finished["seed"]) for finished in cells] == [
        (UNCHANGED, 0), (UNCHANGED, 1), (UNCHANGED, 2), ("no dropout", 0),
    ]  # fmt: skip
    assert [finished["agreement"] is None for finished in cells] == [True, False, False, False]
    folder = tmp_path / "runs/ablation/small-quick"
    assert not (folder / "no-dropout-0").exists()  # without --keep
    ablation.main([*words, "--seeds", "0", "1", "--keep"])
    after = path.read_text()
    assert after.startswith(before)
    assert json.loads(after.splitlines()[-1])["seed"] == 1
    assert checkpoint.read_card(folder / "no-dropout-1").training.seed == 1
    grey = ["--only", STRETCHED, "--keep"]
    ablation.main([*words[:4], *grey])
    plain = checkpoint.read_weights(folder / "first.safetensors")["head.weight"]
    weights = folder / f"{STRETCHED}-0".replace(" ", "-") / checkpoint.WEIGHTS
    stretched = checkpoint.read_weights(weights)["head.weight"]  # same recipe, same seed
    assert not torch.equal(plain, stretched)
    after = path.read_text()
    assert json.loads(after.splitlines()[-1])["change"] == STRETCHED
    monkeypatch.setattr(ablation, "train", None)  # every cell is finished
    ablation.main(words)
    assert path.read_text() == after
    assert "| no dropout | 2 |" in path.with_suffix(".md").read_text()
    with pytest.raises(SystemExit):
        ablation.main([*words, "no such change"])
