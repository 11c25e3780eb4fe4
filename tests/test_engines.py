"""Engines beside the network: what is compared, and that a difference would be seen."""

import ctypes
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from benchmarks import engines
from handlers import engine
from handlers.card import ArchivedNetwork, parse
from handlers.engine import ModelOutput
from tests import cards
from tests.test_run import trained  # noqa: F401 -- a fixture
from train import graphs
from train.__main__ import main

CARD = parse(cards.archived(network="small"))
assert isinstance(CARD, ArchivedNetwork)


def answering(pixels: npt.NDArray[np.uint8]) -> list[ModelOutput]:
    """A logit by the image's first pixel, .001 more in a batch."""
    more = 0.001 * (len(pixels) > 1)
    maps = np.zeros((2, 1, 1), np.float32)
    return [
        ModelOutput(np.array([0, float(image[0, 0]) - 3 + more], np.float32), maps)
        for image in pixels
    ]


def test_the_largest_differences_and_the_labels_are_told() -> None:
    pixels = np.zeros((7, 2, 2), np.uint8)
    pixels[:, 0, 0] = range(7)
    eager = np.stack([one.logits for image in pixels for one in answering(image[None])])
    eager[2, 1] += 1.25  # -1 as the engine has it: PNEUMONIA now
    found = engines.beside(CARD, answering, "fake", pixels, eager)
    assert found.logit_difference == pytest.approx(1.249, abs=1e-5)
    assert (found.changed_labels, found.images) == (1, 7)
    # At a logit of 0 the probability moves by a quarter of what the logit moves by. The last
    # image's batch is of three, so it moves too.
    assert found.batch_difference == pytest.approx(0.001 / 4, rel=1e-3)


@pytest.mark.parametrize(
    ("onnxruntime", "openvino", "chosen"),
    [(40, 50, "onnxruntime"), (42, 41, "onnxruntime"), (50, 40, "openvino")],
)
def test_the_leaner_engine_is_chosen_where_it_is_nearly_as_fast(
    onnxruntime: float, openvino: float, chosen: str
) -> None:
    assert graphs.choose({"onnxruntime": onnxruntime, "openvino": openvino}) == chosen


def test_an_archive_answers_like_its_network(
    trained: Path,  # noqa: F811
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["archive"]) == 0
    results = tmp_path / "engines.md"
    words = ["--data", str(images), "--results", str(results)]
    engines.main([*words, "--weights", str(trained / "small")])
    lines = results.read_text().splitlines()
    assert lines[-1] in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[-2:]]
    assert [row[2] for row in rows] == ["onnxruntime", "openvino"]
    for row in rows:
        assert 0 < float(row[3]) < 1e-3
        assert row[4] == "0 of 20"
        assert float(row[5]) < 1e-5
    with pytest.raises(ValueError, match="no weights of sha256"):
        engines.main(words)  # nothing is published in this folder


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_memory_that_is_free_goes_back_to_the_kernel() -> None:
    process = psutil.Process()
    blocks = [np.ones(64 * 1024, np.uint8) for _ in range(3000)]  # too small for maps of their own
    del blocks[:-1]  # the last is at the top: what lies below it stays by itself
    before = process.memory_info().rss
    engine.give_back_memory()
    assert before - process.memory_info().rss > 100e6
    assert len(blocks) == 1
