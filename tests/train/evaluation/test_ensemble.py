"""Ensembles of networks: card, triage rules, archive."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from handlers import files
from handlers.card_fields import TriageStats
from tests.small import RECIPE
from tests.train.evaluation.models import model_of
from train.__main__ import main
from train.data.splits import CALIBRATE
from train.evaluation import ensemble
from train.fitting import recipes, runs
from train.fitting.options import Options
from train.fitting.recipes import Phase
from train.model import checkpoint
from train.package import archive
from train.report import pipeline

NAMES = ("small", "small-frozen")


@pytest.fixture
def trained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None
) -> Path:
    """The folder of an evaluated run of two networks."""
    monkeypatch.chdir(tmp_path)
    recipe = replace(RECIPE, phases=(Phase(32, 2),))
    for name in NAMES:
        monkeypatch.setitem(recipes.PRESETS["quick"], name, (recipe,))
    folder = runs.train(Options(data=images, preset="quick", networks=NAMES, init="scratch"))
    pipeline.evaluate(folder, open_test=False)
    return folder


def test_triage_reviews_five_percent_beyond_each_bound() -> None:
    scores = [0.01 * k for k in range(1, 41)]
    shifted = [score + 0.0001 * k for k, score in enumerate(scores)]
    networks = [model_of(scores, part=CALIBRATE), model_of(shifted, part=CALIBRATE)]
    joint = model_of(scores, part=CALIBRATE)
    rules = ensemble.fit_triage(networks, joint)
    assert rules.doubt == pytest.approx(np.quantile([np.log((1 - s) / s) for s in scores], 0.05))
    assert rules.disagreement == pytest.approx(np.quantile(np.arange(40) * 0.0001, 0.95))
    labels = np.zeros(40, np.int64)
    labels[[0, 38, 39]] = 1  # missed: one far from the threshold, two near
    dataset: Any = SimpleNamespace(labels=labels, rows=lambda _part: np.arange(40))

    def measure(unlike: np.ndarray) -> TriageStats:
        stats = ensemble.measure_triage(networks, joint, rules, dataset, {CALIBRATE: unlike})
        return stats[CALIBRATE]

    stats = measure(np.zeros(40, bool))
    assert (stats.images, stats.errors) == (40, 3)
    assert stats.review == pytest.approx(2 / 40)  # the last two, by doubt and by disagreement
    assert stats.errors_caught == pytest.approx(2 / 3)
    stats = measure(np.arange(40) == 0)  # the image missed far from the threshold
    assert stats.review == pytest.approx(3 / 40)
    assert stats.errors_caught == 1.0


def test_the_card_of_an_ensemble(trained: Path) -> None:
    card = json.loads((trained / "pneumonia/card.json").read_text())
    cards = [json.loads((trained / name / "card.json").read_text()) for name in NAMES]
    expected = np.mean([np.divide(member["bias"], member["temperature"]) for member in cards], 0)
    np.testing.assert_allclose(card["bias"], expected)
    assert card["temperature"] == 1.0
    assert [member["network"] for member in card["members"]] == list(NAMES)
    metrics = json.loads((trained / "report/metrics.json").read_text())["networks"]["both"]
    assert metrics["temperature"] == 1.0
    assert card["operating_points"] == metrics["operating_points"]
    stats = card["triage"]["caught"]
    assert set(stats) == set(metrics["parts"])
    assert all(0 <= part["review"] <= 1 for part in stats.values())


def test_an_ensembles_archive_contains_both_graphs(trained: Path, tmp_path: Path) -> None:
    path = archive.archive(trained / "pneumonia", "1.0", tmp_path / "store", tmp_path)
    with zipfile.ZipFile(path) as packed:
        card = json.loads(packed.read("card.json"))
        for member, name in zip(card["members"], NAMES, strict=True):
            (tmp_path / "graph").write_bytes(packed.read(f"{name}.onnx"))
            assert member["graph"]["sha256"] == files.sha256(tmp_path / "graph")
            assert tuple(member["bias"]) == checkpoint.read_card(trained / name).bias
    member_card = trained / "small/card.json"
    text = member_card.read_text().replace('"weights_sha256": "', '"weights_sha256": "0')
    member_card.write_text(text)
    message = r"evaluated with other weights of small .*make evaluate"
    with pytest.raises(archive.ArchiveError, match=message):
        archive.archive(trained / "pneumonia", "1.0", tmp_path / "store", tmp_path)


def test_evaluating_a_single_network_removes_the_ensembles_card(trained: Path) -> None:
    facts = json.loads((trained / "run.json").read_text())
    (trained / "run.json").write_text(json.dumps({**facts, "networks": ["small"]}))
    pipeline.evaluate(trained, open_test=False)
    assert not (trained / "pneumonia/card.json").exists()


def test_networks_with_different_map_sizes_form_no_ensemble(trained: Path) -> None:
    cards: list[Any] = [checkpoint.read_card(trained / name) for name in NAMES]
    cards[1] = replace(cards[1], map=replace(cards[1].map, rows=cards[1].map.rows + 1))
    assert ensemble.ensemble_card(cards, *4 * [None]) is None  # type: ignore[arg-type]


def test_an_ensemble_is_published_and_archived(trained: Path, tmp_path: Path) -> None:
    assert main(["publish"]) == 0
    shutil.rmtree(tmp_path / "runs")
    assert main(["archive"]) == 0
    assert sorted(path.stem for path in (tmp_path / "model_store").glob("*.mar")) == [
        "pneumonia-1.0", "small-1.0", "small-frozen-1.0",
    ]  # fmt: skip
    assert main(["archive", "--networks", "small", "--store", "other"]) == 0
    assert [path.stem for path in (tmp_path / "other").glob("*.mar")] == ["small-1.0"]
