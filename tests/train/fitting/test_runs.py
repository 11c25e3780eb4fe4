"""Runs: files of a finished run, resuming legs, seeds, facts of older runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from handlers import files
from tests.small import RECIPE
from train.fitting import network_training, recipes, run_facts, runs
from train.fitting.loaded_networks import networks_of, published_networks
from train.fitting.loop import fit
from train.fitting.options import Options
from train.fitting.recipes import Phase
from train.fitting.run_facts import RunFacts
from train.model import checkpoint
from train.model.checkpoint import CheckpointError
from train.package import publish
from train.report import pipeline

QUICK = replace(RECIPE, phases=(Phase(32, 3),), dilated=True)


@pytest.fixture
def trained(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_networks: None,
) -> Path:
    """The folder of a finished and evaluated run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", (QUICK,))
    return train_small(images)


def train_small(images: Path, **options: object) -> Path:
    """Train and evaluate the small network on images; returns the run's folder."""
    options = {"init": "scratch", **options}
    chosen = Options(data=images, preset="quick", networks=("small",), **options)  # type: ignore[arg-type]
    folder = runs.train(chosen)
    pipeline.evaluate(folder)
    return folder


def test_split_seed_keeps_the_parts(trained: Path, images: Path) -> None:
    reseeded = train_small(images, seed=1, split_seed=0)
    assert reseeded.name == f"{trained.name[: -len('seed0')]}seed1-split0"
    assert (reseeded / "split.csv").read_text() == (trained / "split.csv").read_text()
    first, second = (networks_of(folder)[0] for folder in (trained, reseeded))
    assert first.dataset.parts == second.dataset.parts
    assert first.card.weights_sha256 != second.card.weights_sha256
    report = (reseeded / "report/report.md").read_text()
    assert "| seed | 1; of the split 0 |" in report
    project = reseeded.parent.parent
    publish.publish(reseeded, project=project)
    published = published_networks(images, None, project / checkpoint.PUBLISHED)
    assert published[0].dataset.parts == first.dataset.parts
    resplit = train_small(images, seed=1)
    assert networks_of(resplit)[0].dataset.parts != first.dataset.parts


def test_a_run_writes_report_metrics_and_card(trained: Path) -> None:
    assert (trained.parent / "latest").resolve() == trained.resolve()
    assert not list((trained / "small").glob("state*"))
    metrics = json.loads((trained / "report/metrics.json").read_text())
    test = metrics["networks"]["small"]["parts"]["test"]
    assert test["images"] == 20
    assert np.sum(test["confusion"]) == 20
    assert metrics["crosscheck"]["small"]["passed"]
    report = (trained / "report/report.md").read_text()
    for line in report.splitlines():
        if line.startswith("!["):
            assert (trained / "report" / line.split("(")[1].rstrip(")")).stat().st_size > 1000
    card = json.loads((trained / "small/card.json").read_text())
    assert card["map"]["scale"] > 0
    assert card["figures"]["test"]["auc"] == test["auc"]
    assert card["training"]["data"]["counts"]["test"] == {"NORMAL": 10, "PNEUMONIA": 10}
    assert "balanced" in card["operating_points"]


def test_facts_of_older_runs_are_readable(trained: Path) -> None:
    file = trained / run_facts.RUN
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({key: facts[key] for key in ("data", "preset", "seed", "networks")}))
    assert run_facts.read(trained) == RunFacts(
        data=facts["data"], preset="quick", seed=0, networks=("small",)
    )
    assert run_facts.read(trained).split_by == 0
    assert networks_of(trained)[0].name == "small"
    file.write_text(json.dumps({**facts, "seed": "0"}))
    with pytest.raises(CheckpointError, match=r"run\.json: seed: a whole number is needed"):
        networks_of(trained)
    file.write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json is not JSON"):
        networks_of(trained)


def test_a_second_run_trains_nothing(
    trained: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "train.fitting.network_training.fit",
        lambda *_args, **_options: pytest.fail("trained again"),
    )
    assert train_small(images) == trained


@pytest.mark.usefixtures("small_networks")
def test_interrupted_legs_resume_with_the_same_weights(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    legs = (replace(QUICK, phases=(Phase(16, 2),)), replace(QUICK, learning_rate=1e-3))
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", legs)

    def train(folder: str) -> Path:
        chosen = {"data": images, "preset": "quick", "networks": ("small",), "init": "scratch"}
        return runs.train(Options(**chosen, runs=tmp_path / folder)) / "small"  # type: ignore[arg-type]

    whole = train("whole")
    history = json.loads((whole / network_training.HISTORY).read_text())
    assert [epoch["number"] for epoch in history] == [1, 2, 3, 4, 5]
    assert {epoch["epochs"] for epoch in history} == {5}
    seconds_left = [epoch["left"] for epoch in history]
    assert seconds_left[-1] == 0 < min(seconds_left[:-1])
    last_leg = checkpoint.read_weights(whole / network_training.LEG.format(2))
    network, card = checkpoint.load(whole)
    assert all(torch.equal(weight, last_leg[key]) for key, weight in network.state_dict().items())
    assert [recipe["learning_rate"] for recipe in card.training.recipes or ()] == [3e-3, 1e-3]

    calls = []

    def interrupted_fit(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("train.fitting.network_training.fit", interrupted_fit)
        with pytest.raises(KeyboardInterrupt):
            train("interrupted")
    assert train("interrupted").name == "small"
    resumed = tmp_path / "interrupted" / whole.parent.name / "small"
    for name in ("weights.safetensors", network_training.LEG.format(1)):
        assert files.sha256(resumed / name) == files.sha256(whole / name)


def test_a_changed_recipe_keeps_the_old_network_as_a_backup(
    trained: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files.sha256(trained / "small" / checkpoint.WEIGHTS)
    monkeypatch.setitem(recipes.PRESETS["quick"], "small", (replace(QUICK, weight_decay=0.2),))
    train_small(images)
    (backup,) = trained.glob("small.*")
    assert files.sha256(backup / checkpoint.WEIGHTS) == before
    assert files.sha256(trained / "small" / checkpoint.WEIGHTS) != before
