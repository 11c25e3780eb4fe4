"""Evaluation of a run: it is repeatable, changes no weights, and keeps the test images closed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from handlers import decision, files
from tests.train.fitting.test_runs import trained  # noqa: F401 -- a fixture
from train.__main__ import main
from train.evaluation import measurement, predictions
from train.model import checkpoint
from train.model.networks import predict
from train.report import pipeline


def test_second_evaluation_gives_the_same_weights_and_card(trained: Path) -> None:  # noqa: F811
    folder = trained / "small"
    before = {name: files.sha256(folder / name) for name in ("weights.safetensors", "card.json")}
    card = json.loads((folder / "card.json").read_text())
    shift = card["calibration"]["offset"] / 2 * np.array([-1, 1])
    assert abs(shift[1]) > 1e-4
    raw = np.array(card["calibration"]["raw_bias"])
    assert card["bias"] == pytest.approx(raw + shift, abs=1e-6)
    network, _ = checkpoint.load(folder)
    assert network.head.bias.tolist() == card["bias"]
    pipeline.evaluate(trained)
    assert {name: files.sha256(folder / name) for name in before} == before


def test_measuring_changes_no_network_and_no_file(trained: Path) -> None:  # noqa: F811
    predicted = predictions.predict(trained, True, None, ())
    (network,) = predicted.networks
    weights = {name: weight.clone() for name, weight in network.loaded.network.state_dict().items()}
    hashes = {path: files.sha256(path) for path in trained.rglob("*") if path.is_file()}
    evaluation = measurement.measure(predicted, predictions.calibrate(predicted))
    after = network.loaded.network.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    assert {path: files.sha256(path) for path in trained.rglob("*") if path.is_file()} == hashes
    # The reported probability of an image is the one that the served network gives.
    (served,) = evaluation.networks
    rows = evaluation.dataset.rows("test")
    logits = predict(served.network, torch.from_numpy(evaluation.dataset.pixels[rows]), 32)
    scores = decision.printed_probability(logits.numpy(), served.model.calibration.temperature)
    np.testing.assert_allclose(served.model.scores("test"), scores, atol=1e-6)


def test_validation_does_not_evaluate_the_test_images(trained: Path) -> None:  # noqa: F811
    pipeline.evaluate(trained, open_test=False)
    metrics = json.loads((trained / "report/metrics.json").read_text())
    assert "test" not in metrics["networks"]["small"]["parts"]
    assert json.loads((trained / "small/card.json").read_text())["figures"]["test"] is None


def test_a_failed_crosscheck_is_an_error(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("train.evaluation.captum_check.MAP_TOLERANCE", 0.0)
    monkeypatch.setattr("train.evaluation.captum_check.LOGIT_TOLERANCE", -1.0)
    with pytest.raises(pipeline.CrosscheckError, match="Do not serve"):
        pipeline.crosscheck_run(trained)
    assert main(["crosscheck", "--run", str(trained)]) == 1
