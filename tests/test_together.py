"""Several networks as one model: its card, its rules, its archive."""

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
from handlers.card_fields import OperatingPoint, TriageStats
from tests.small import RECIPE
from train import archive, checkpoint, evaluate, recipes, run, together
from train.__main__ import main
from train.judge import UNCHANGED, CalibratedModel
from train.options import Options
from train.recipes import Phase
from train.split import CALIBRATE

NAMES = ("small", "small-frozen")


@pytest.fixture
def trained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None
) -> Path:
    """The folder of a judged run of two networks."""
    monkeypatch.chdir(tmp_path)
    recipe = replace(RECIPE, phases=(Phase(32, 2),))
    for name in NAMES:
        monkeypatch.setitem(recipes.PRESETS["quick"], name, (recipe,))
    folder = run.train(Options(data=images, preset="quick", networks=NAMES, init="scratch"))
    evaluate.evaluate(folder, open_test=False)
    return folder


def model(scores: list[float]) -> CalibratedModel:
    """A network with these probabilities on the calibration images, and the threshold 0.5."""
    positive = np.log(np.array(scores) / (1 - np.array(scores)))
    logits = np.stack([0 * positive, positive], axis=1)
    point = OperatingPoint(threshold=0.5, sensitivity=1, specificity=1)
    return CalibratedModel("any", UNCHANGED, {"balanced": point}, {CALIBRATE: logits})


def test_one_image_in_twenty_is_beyond_each_bound() -> None:
    scores = [0.01 * k for k in range(1, 41)]
    networks = [model(scores), model([score + 0.0001 * k for k, score in enumerate(scores)])]
    ensemble = model(scores)
    rules = together.fit_triage(networks, ensemble)
    assert rules.doubt == pytest.approx(np.quantile([np.log((1 - s) / s) for s in scores], 0.05))
    assert rules.disagreement == pytest.approx(np.quantile(np.arange(40) * 0.0001, 0.95))
    labels = np.zeros(40, np.int64)
    labels[[0, 38, 39]] = 1  # missed: one far from the threshold, two near
    data: Any = SimpleNamespace(labels=labels, rows=lambda _part: np.arange(40))

    def caught(unlike: np.ndarray) -> TriageStats:
        return together.measure_triage(networks, ensemble, rules, data, {CALIBRATE: unlike})[
            CALIBRATE
        ]

    stats = caught(np.zeros(40, bool))
    assert (stats.images, stats.errors) == (40, 3)
    assert stats.review == pytest.approx(2 / 40)  # the last two are in doubt and disagreed upon
    assert stats.errors_caught == pytest.approx(2 / 3)
    stats = caught(np.arange(40) == 0)  # the one missed far from the threshold
    assert stats.review == pytest.approx(3 / 40)
    assert stats.errors_caught == 1.0


def test_the_card_of_both(trained: Path) -> None:
    card = json.loads((trained / "pneumonia/card.json").read_text())
    cards = [json.loads((trained / name / "card.json").read_text()) for name in NAMES]
    expected = np.mean([np.divide(one["bias"], one["temperature"]) for one in cards], axis=0)
    np.testing.assert_allclose(card["bias"], expected)
    assert card["temperature"] == 1.0
    assert [one["network"] for one in card["members"]] == list(NAMES)
    metrics = json.loads((trained / "report/metrics.json").read_text())["networks"]["both"]
    assert metrics["temperature"] == 1.0
    assert card["operating_points"] == metrics["operating_points"]
    caught = card["triage"]["caught"]
    assert set(caught) == set(metrics["parts"])
    assert all(0 <= one["review"] <= 1 for one in caught.values())


def test_an_archive_of_both_holds_both(trained: Path, tmp_path: Path) -> None:
    path = archive.archive(trained / "pneumonia", "1.0", tmp_path / "store", tmp_path)
    with zipfile.ZipFile(path) as packed:
        card = json.loads(packed.read("card.json"))
        for member, name in zip(card["members"], NAMES, strict=True):
            (tmp_path / "graph").write_bytes(packed.read(f"{name}.onnx"))
            assert member["graph"]["sha256"] == files.sha256(tmp_path / "graph")
            assert tuple(member["bias"]) == checkpoint.read_card(trained / name).bias
    other = trained / "small/card.json"
    other.write_text(other.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    with pytest.raises(archive.ArchiveError, match=r"judged with another small .*make evaluate"):
        archive.archive(trained / "pneumonia", "1.0", tmp_path / "store", tmp_path)


def test_one_network_alone_leaves_no_card_of_both(trained: Path) -> None:
    facts = json.loads((trained / "run.json").read_text())
    (trained / "run.json").write_text(json.dumps({**facts, "networks": ["small"]}))
    evaluate.evaluate(trained, open_test=False)
    assert not (trained / "pneumonia/card.json").exists()


def test_networks_of_different_maps_are_not_one_model(trained: Path) -> None:
    cards: list[Any] = [checkpoint.read_card(trained / name) for name in NAMES]
    cards[1] = replace(cards[1], map=replace(cards[1].map, rows=cards[1].map.rows + 1))
    assert together.ensemble_card(cards, *4 * [None]) is None  # type: ignore[arg-type]


def test_both_are_published_and_archived_from_there(trained: Path, tmp_path: Path) -> None:
    assert main(["publish"]) == 0
    shutil.rmtree(tmp_path / "runs")
    assert main(["archive"]) == 0
    assert sorted(path.stem for path in (tmp_path / "model_store").glob("*.mar")) == [
        "pneumonia-1.0", "small-1.0", "small-frozen-1.0",
    ]  # fmt: skip
    assert main(["archive", "--networks", "small", "--store", "other"]) == 0
    assert [path.stem for path in (tmp_path / "other").glob("*.mar")] == ["small-1.0"]
