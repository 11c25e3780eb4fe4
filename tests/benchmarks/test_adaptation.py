"""Adaptation to another hospital's images, on the small network."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments import adaptation
from tests.small import RECIPE, write_images
from train.data import dataset as datasets
from train.data import splits
from train.fitting import recipes
from train.fitting.recipes import Phase


def test_the_quarter_is_the_last_of_every_series(tmp_path: Path) -> None:
    dataset = datasets.load(write_images(tmp_path / "images"), 16, cache=tmp_path / "cache")
    quarter = adaptation.last_quarter(dataset)
    names = {dataset.images[row].path.stem for row in quarter}
    assert names == {
        f"train-{name}-{number:03d}" for name in ("NORMAL", "PNEUMONIA") for number in range(30, 40)
    }


def test_every_count_is_evaluated_on_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "IMAGES", (4, 12))
    dataset = datasets.load(write_images(tmp_path / "images"), 16, cache=tmp_path / "cache")
    quarter = adaptation.last_quarter(dataset)
    few, remaining = adaptation.draw(dataset, quarter, 4, 0)
    many, same = adaptation.draw(dataset, quarter, 12, 0)
    assert (len(few), len(many)) == (4, 12)
    assert set(few) < set(many)
    np.testing.assert_array_equal(remaining, same)
    assert not set(many) & set(remaining)
    assert set(many) | set(remaining) == set(quarter)
    assert list(adaptation.draw(dataset, quarter, 4, 1)[0]) != list(few)
    subset = adaptation.subset(dataset, many, remaining)
    tested = {subset.images[row].path for row in subset.rows(splits.TEST)}
    assert tested == {dataset.images[row].path for row in remaining}
    assert len(subset.rows(splits.FIT)) > 0


def test_every_count_takes_the_same_number_of_steps() -> None:
    for images in adaptation.IMAGES:
        recipe = adaptation.recipe_of("all at once", 96, images)
        fitted = round(0.77 * images)
        assert recipe.epochs * (fitted // recipe.batch) == pytest.approx(adaptation.STEPS, rel=0.2)


@pytest.mark.usefixtures("small_networks")
def test_adaptation_is_measured_once_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", train=80)
    monkeypatch.setattr(adaptation, "IMAGES", (20,))
    monkeypatch.setattr(adaptation, "DRAWS", 1)
    monkeypatch.setattr(adaptation, "STEPS", 4)
    monkeypatch.setitem(
        recipes.PRESETS["quick"], "small", (replace(RECIPE, phases=(Phase(32, 4),)),)
    )
    words = ["--data", "images", "--network", "small", "--images", "20"]
    adaptation.main(words)
    lines = (tmp_path / "docs/results/adaptation-small-quick.jsonl").read_text()
    cells = [json.loads(line) for line in lines.splitlines()]
    assert [cell["way"] for cell in cells] == [adaptation.UNCHANGED, *adaptation.METHODS]
    assert cells[0]["auc"] > 0.9  # the quarter's images do not differ from the rest
    assert cells[1]["auc"] > 0.9
    adaptation.main(words)
    assert (tmp_path / "docs/results/adaptation-small-quick.jsonl").read_text() == lines
    assert "| head only | 20 | 1 |" in (tmp_path / "docs/results/adaptation.md").read_text()
