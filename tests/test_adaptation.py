"""Adaptation to images of elsewhere, on the small network."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import adaptation
from tests.small import RECIPE, write_images
from train import data, recipes, split
from train.recipes import Phase


def test_elsewhere_is_the_last_quarter_of_every_series(tmp_path: Path) -> None:
    dataset = data.load(write_images(tmp_path / "images"), 16, cache=tmp_path / "cache")
    away = adaptation.elsewhere(dataset)
    names = {dataset.images[row].path.stem for row in away}
    assert names == {
        f"train-{name}-{number:03d}" for name in ("NORMAL", "PNEUMONIA") for number in range(30, 40)
    }


def test_what_is_scored_on_is_the_same_for_every_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "IMAGES", (4, 12))
    dataset = data.load(write_images(tmp_path / "images"), 16, cache=tmp_path / "cache")
    away = adaptation.elsewhere(dataset)
    few, others = adaptation.draw(dataset, away, 4, 0)
    many, same = adaptation.draw(dataset, away, 12, 0)
    assert (len(few), len(many)) == (4, 12)
    assert set(few) < set(many)
    np.testing.assert_array_equal(others, same)
    assert not set(many) & set(others)
    assert set(many) | set(others) == set(away)
    assert list(adaptation.draw(dataset, away, 4, 1)[0]) != list(few)
    parted = adaptation.part_of(dataset, many, others)
    tested = {parted.images[row].path for row in parted.rows(split.TEST)}
    assert tested == {dataset.images[row].path for row in others}
    assert len(parted.rows(split.FIT)) > 0


def test_every_way_takes_as_many_steps() -> None:
    for images in adaptation.IMAGES:
        recipe = adaptation.recipe_of("all at once", 96, images)
        fitted = round(0.77 * images)
        assert recipe.epochs * (fitted // recipe.batch) == pytest.approx(adaptation.STEPS, rel=0.2)


@pytest.mark.usefixtures("small_networks")
def test_the_whole_of_it_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert [cell["way"] for cell in cells] == [adaptation.AS_IT_IS, *adaptation.WAYS]
    at_home = cells[0]["auc"]
    assert at_home > 0.9  # nothing differs elsewhere in these images
    assert cells[1]["auc"] > 0.9
    adaptation.main(words)
    assert (tmp_path / "docs/results/adaptation-small-quick.jsonl").read_text() == lines
    assert "| head only | 20 | 1 |" in (tmp_path / "docs/results/adaptation.md").read_text()
