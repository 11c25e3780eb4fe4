"""The ablation's arithmetic and its resumption, on the small network."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import ablation
from benchmarks.ablation import AS_IT_IS, Cell
from tests.small import RECIPE, small_network
from train import checkpoint, data, recipes
from train.recipes import Phase


def cell(change: str, auc: float, seed: int = 0, random: float = 0.9) -> Cell:
    return Cell(change, seed, auc, 0.3, auc, 0.4, random, 0.2, None, None)


BASE = [cell(AS_IT_IS, auc, seed) for seed, auc in enumerate((0.89, 0.90, 0.91))]  # ± .01


def test_a_change_counts_beyond_twice_the_spread() -> None:
    base = [replace(one, random_auc=auc) for one, auc in zip(BASE, (0.89, 0.9, 0.91), strict=True)]
    found = {
        row[0]: row[-1]
        for row in ablation.worth(
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
    assert found == {
        AS_IT_IS: "", "better": "yes", "not enough": "no", "at random's cost": "no", "worse": "no",
        "not under stress": "no", "by loss": "yes",
    }  # fmt: skip
    row = ablation.worth([*base, cell("better", 0.921)])[1]
    assert row[:3] == ["better", "1", "+0.0210"]


def test_a_change_with_several_seeds_is_their_mean() -> None:
    cells = [*BASE, cell("change", 0.91, 0), cell("other", 0.9), cell("change", 0.95, 1)]
    rows = {row[0]: row for row in ablation.worth(cells)}
    assert rows["change"][:3] == ["change", "2", "+0.0300"]  # .93 less .90, three spreads
    assert rows["change"][-1] == "yes"
    assert rows[AS_IT_IS][:3] == [AS_IT_IS, "3", "0.9000 ± 0.0100"]


@pytest.mark.parametrize(("preset", "network"), [("quick", "resnet50"), ("full", "resnet50")])
def test_every_change_changes_every_leg(preset: str, network: str) -> None:
    legs = recipes.legs(preset, network)
    found = ablation.changes(legs)
    assert found.pop(ablation.STRETCHED) == legs  # its network is another
    assert len(set(found.values())) == len(found)
    assert ("as tuned" in found) == (preset == "quick")
    for changed in found.values():
        assert all(a != b for a, b in zip(changed, legs, strict=True))


def test_stretched_grey_has_its_percentiles_at_black_and_white() -> None:
    ramp = torch.arange(101.0).repeat(101, 1)  # the percentiles are 1 and 99
    pixels = torch.stack([ramp, 2 * ramp + 40, torch.full_like(ramp, 70)])
    stretched = ablation.stretch_grey(small_network(), (pixels,))
    expected = (255 * (ramp - 1) / 98).clamp(0, 255)
    torch.testing.assert_close(stretched, torch.stack([expected, expected, 0 * ramp]))


def test_bolder_probabilities_alone_change_nothing(images: Path, tmp_path: Path) -> None:
    dataset = data.load(images, 32, cache=tmp_path)

    def judged(scale: float, offset: float) -> list[float]:
        network = small_network().eval()
        with torch.no_grad():
            network.head.weight.mul_(scale)
            network.head.bias.mul_(scale)[1] += offset
        one = ablation.judge(network, "bolder", 0, dataset, None, small_network().eval())
        assert one.agreement == pytest.approx(1)  # a map's order is that of its multiples
        return [one.select_auc, one.select_loss, one.stress_auc, one.stress_loss, one.random_loss]

    assert judged(3, 0.7) == pytest.approx(judged(1, 0), abs=5e-3)


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
    assert [(one["change"], one["seed"]) for one in cells] == [
        (AS_IT_IS, 0), (AS_IT_IS, 1), (AS_IT_IS, 2), ("no dropout", 0),
    ]  # fmt: skip
    assert [one["agreement"] is None for one in cells] == [True, False, False, False]
    folder = tmp_path / "runs/ablation/small-quick"
    assert not (folder / "no-dropout-0").exists()  # its weights are not wanted
    ablation.main([*words, "--seeds", "0", "1", "--keep"])
    after = path.read_text()
    assert after.startswith(before)
    assert json.loads(after.splitlines()[-1])["seed"] == 1
    assert checkpoint.read_card(folder / "no-dropout-1").training.seed == 1
    grey = ["--only", ablation.STRETCHED, "--keep"]
    ablation.main([*words[:4], *grey])
    plain = checkpoint.read_weights(folder / "first.safetensors")["head.weight"]
    weights = folder / f"{ablation.STRETCHED}-0".replace(" ", "-") / checkpoint.WEIGHTS
    stretched = checkpoint.read_weights(weights)["head.weight"]  # same recipe, same seed
    assert not torch.equal(plain, stretched)
    after = path.read_text()
    assert json.loads(after.splitlines()[-1])["change"] == ablation.STRETCHED
    monkeypatch.setattr(ablation, "train", None)  # nothing is left to do
    ablation.main(words)
    assert path.read_text() == after
    assert "| no dropout | 2 |" in path.with_suffix(".md").read_text()
    with pytest.raises(SystemExit):
        ablation.main([*words, "no such change"])
