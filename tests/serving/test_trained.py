"""A network from training to its answer over HTTP: the very pixels, numbers and maps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch

from handlers import decision, pixels
from handlers.card import EvaluatedNetwork
from tests.serving.conftest import Place, client, new_place
from tests.small import RECIPE
from train.__main__ import main
from train.fitting import recipes, runs
from train.fitting.options import Options
from train.fitting.recipes import Phase
from train.model import checkpoint
from train.model.cam import explain
from train.report import pipeline


@pytest.mark.usefixtures("small_networks")
def test_the_server_answers_as_the_networks_did_offline(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = replace(RECIPE, phases=(Phase(32, 3),))
    for name in ("small", "small-frozen"):
        monkeypatch.setitem(recipes.PRESETS["quick"], name, (recipe,))
    names = ("small", "small-frozen")
    folder = runs.train(Options(data=images, preset="quick", networks=names, init="scratch"))
    pipeline.evaluate(folder)
    assert main(["archive", "--store", str(place.store)]) == 0
    started = client("serve", place)
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        for path in sorted((images / "test").glob("*/*"))[::4]:
            decoded = torch.from_numpy(pixels.decode(path.read_bytes(), 32))[None]
            result = [_check(place, folder / name, path, decoded) for name in names]
            answer = _ask(place, "pneumonia", path)
            logits, maps = (np.mean(each, axis=0) for each in zip(*result, strict=True))
            for k, name in enumerate(answer["probability"]):
                assert answer["logit"][name] == pytest.approx(logits[k], abs=1e-4)
            expected = decision.printed_probability(logits[None], 1.0)[0]
            assert answer["probability"]["PNEUMONIA"] == pytest.approx(expected, abs=1e-5)
            shown = list(answer["probability"]).index(answer["heatmap"]["class"])
            np.testing.assert_allclose(answer["heatmap"]["map"], maps[shown], atol=1e-4)
            mean = np.mean(answer["heatmap"]["map"]) + answer["heatmap"]["bias"]
            assert mean == pytest.approx(logits[shown], abs=1e-3)
            assert answer["triage"]["decision"] in ("clear", "flag", "review")
    finally:
        stopped = client("stop", place)
    assert stopped.returncode == 0, stopped.stderr


def _ask(place: Place, name: str, path: Path) -> Any:
    return requests.post(
        f"{place.inference}/predictions/{name}",
        data=path.read_bytes(),
        headers={"Content-Type": "application/octet-stream"},
        timeout=30,
    ).json()


def _check(
    place: Place, weights: Path, path: Path, decoded: torch.Tensor
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The served answer is that of the network; its logits and maps over its temperature."""
    network, card = checkpoint.load(weights)
    answer = _ask(place, weights.name, path)
    logits, maps = explain(network, decoded)
    assert isinstance(card, EvaluatedNetwork)
    expected = decision.printed_probability(logits.numpy(), card.temperature)[0]
    assert answer["probability"]["PNEUMONIA"] == pytest.approx(expected, abs=1e-5)
    threshold = card.operating_points["balanced"].threshold
    assert (answer["label"] == "PNEUMONIA") == (expected >= threshold)
    shown = card.classes.index(answer["heatmap"]["class"])
    np.testing.assert_allclose(answer["heatmap"]["map"], maps[0, shown], atol=1e-4)
    return (logits[0] / card.temperature).numpy(), (maps[0] / card.temperature).numpy()
