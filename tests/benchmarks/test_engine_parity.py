"""Parity of engines with the network in PyTorch: which differences are found."""

import ctypes
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from benchmarks.experiments import engine_parity
from handlers import engine
from handlers.card import ArchivedNetwork, parse
from handlers.engine import ModelOutput
from tests import cards
from tests.train.fitting.test_runs import trained  # noqa: F401 -- a fixture
from train.__main__ import main
from train.package import engine_choice

CARD = parse(cards.archived(network="small"))
assert isinstance(CARD, ArchivedNetwork)


def run_engine(pixels: npt.NDArray[np.uint8]) -> list[ModelOutput]:
    """Outputs whose logit is the image's first pixel − 3, and 0.001 more in a batch."""
    offset = 0.001 * (len(pixels) > 1)
    maps = np.zeros((2, 1, 1), np.float32)
    return [
        ModelOutput(np.array([0, float(image[0, 0]) - 3 + offset], np.float32), maps)
        for image in pixels
    ]


def test_largest_differences_and_changed_labels_are_counted() -> None:
    pixels = np.zeros((7, 2, 2), np.uint8)
    pixels[:, 0, 0] = range(7)
    reference = np.stack([output.logits for image in pixels for output in run_engine(image[None])])
    reference[2, 1] += 1.25  # the engine's logit is -1: the label changes
    parity = engine_parity.compare(CARD, run_engine, "fake", pixels, reference)
    assert parity.logit_difference == pytest.approx(1.249, abs=1e-5)
    assert (parity.changed_labels, parity.images) == (1, 7)
    # At a logit of 0 the probability's slope is a quarter. The last batch has three images, so its
    # offset applies too.
    assert parity.batch_difference == pytest.approx(0.001 / 4, rel=1e-3)


@pytest.mark.parametrize(
    ("onnxruntime", "openvino", "chosen"),
    [(40, 50, "onnxruntime"), (42, 41, "onnxruntime"), (50, 40, "openvino")],
)
def test_the_engine_with_less_memory_is_chosen_at_nearly_equal_speed(
    onnxruntime: float, openvino: float, chosen: str
) -> None:
    assert engine_choice.choose({"onnxruntime": onnxruntime, "openvino": openvino}) == chosen


def test_an_archive_has_the_logits_of_the_network(
    trained: Path,  # noqa: F811
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["archive"]) == 0
    results = tmp_path / "engines.md"
    words = ["--data", str(images), "--results", str(results)]
    engine_parity.main([*words, "--weights", str(trained / "small")])
    lines = results.read_text().splitlines()
    assert lines[-1] in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[-2:]]
    assert [row[2] for row in rows] == ["onnxruntime", "openvino"]
    for row in rows:
        assert 0 < float(row[3]) < 1e-3
        assert row[4] == "0 of 20"
        assert float(row[5]) < 1e-5
    with pytest.raises(ValueError, match="no weights of sha256"):
        engine_parity.main(words)  # this folder has no published weights


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_free_memory_is_returned_to_the_kernel() -> None:
    process = psutil.Process()
    blocks = [np.ones(64 * 1024, np.uint8) for _ in range(3000)]  # too small for mmap
    del blocks[:-1]  # the last stays at the top of the heap, above the free blocks
    before = process.memory_info().rss
    engine.give_back_memory()
    assert before - process.memory_info().rss > 100e6
    assert len(blocks) == 1
