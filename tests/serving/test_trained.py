"""A network from training to its answer over HTTP: the very pixels, numbers and maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
import torch

from handlers import pixels
from tests.serving.conftest import client, new_place
from tests.small import RECIPE
from train import archive, checkpoint, evaluate, recipes, run
from train.cam import explain
from train.judge import probabilities
from train.options import Options
from train.recipes import Phase


@pytest.mark.usefixtures("small_networks")
def test_the_server_answers_as_the_network_did_offline(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        recipes.PRESETS["quick"], "small", (replace(RECIPE, phases=(Phase(32, 3),)),)
    )
    folder = run.train(Options(data=images, preset="quick", networks=("small",), init="scratch"))
    evaluate.evaluate(folder)
    archive.archive(folder / "small", "1.0", place.store)
    started = client("serve", place)
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        network, card = checkpoint.load(folder / "small")
        for path in sorted((images / "test").glob("*/*"))[::4]:
            answer = requests.post(
                f"{place.inference}/predictions/small", data=path.read_bytes(), timeout=30,
                headers={"Content-Type": "application/octet-stream"},
            ).json()  # fmt: skip
            decoded = torch.from_numpy(pixels.decode(path.read_bytes(), 32))[None]
            logits, maps = explain(network, decoded)
            expected = probabilities(logits.double().numpy(), card["temperature"])[0, 1]
            assert answer["probability"]["PNEUMONIA"] == pytest.approx(expected, abs=1e-5)
            threshold = card["operating_points"]["balanced"]["threshold"]
            assert (answer["label"] == "PNEUMONIA") == (expected >= threshold)
            shown = card["classes"].index(answer["heatmap"]["class"])
            np.testing.assert_allclose(answer["heatmap"]["map"], maps[0, shown], atol=1e-4)
    finally:
        stopped = client("stop", place)
    assert stopped.returncode == 0, stopped.stderr
