"""`make predict` without a server: the answers to a folder of images."""

from pathlib import Path

import pytest
import torch

from handlers import pixels
from handlers.card import EvaluatedNetwork
from tests.train.fitting.test_runs import trained  # noqa: F401 -- a fixture
from train import predict
from train.model import checkpoint
from train.model.cam import explain


def test_show_answers_a_folder_of_images(trained: Path, images: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "images").mkdir()
    image_file = images / "test/PNEUMONIA/test-PNEUMONIA-003.png"
    (tmp_path / "images/good.png").write_bytes(image_file.read_bytes())
    (tmp_path / "images/bad.png").write_text("no image")
    answers, unreadable = predict.show(trained / "small", tmp_path / "images", tmp_path / "out")
    assert [answer.path.name for answer in answers] == ["good.png"]
    assert [path.name for path in unreadable] == ["bad.png"]
    network, card = checkpoint.load(trained / "small")
    logits, _ = explain(network, torch.from_numpy(pixels.decode(image_file.read_bytes(), 32))[None])
    assert isinstance(card, EvaluatedNetwork)
    expected = torch.softmax(logits / card.temperature, 1)[0, 1]
    assert answers[0].probability == pytest.approx(float(expected), abs=1e-6)
    assert (tmp_path / "out/gallery.png").is_file()
    assert (tmp_path / "out/0001-good.png").is_file()
