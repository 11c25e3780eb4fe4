"""The published networks, their report and the model card are in step."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.test_run import trained  # noqa: F401 -- a fixture
from train import checkpoint, model_card, publish

ROOT = Path(__file__).parents[1]


def check(project: Path) -> None:
    """Weights, cards, metrics and the model card of a project are of one run."""
    weights = project / checkpoint.PUBLISHED
    metrics = json.loads((project / publish.REPORT / "metrics.json").read_text())
    files = sorted(weights.glob("*.safetensors"))
    assert files
    for file in files:
        _, card = checkpoint.load(file)  # the hash is right
        assert file.stat().st_size <= publish.LARGEST
        its = metrics["networks"][card["network"]]
        assert card["figures"]["test"] == its["parts"]["test"]
        assert card["operating_points"] == its["operating_points"]
    text = model_card.text(weights, project / publish.REPORT / "metrics.json")
    assert (project / model_card.PATH).read_text() == text


@pytest.mark.skipif(not (ROOT / checkpoint.PUBLISHED).is_dir(), reason="nothing is published")
def test_what_is_published_is_in_step() -> None:
    check(ROOT)
    report = (ROOT / publish.REPORT / "report.md").read_text()
    before = re.search(r"test images opened before \| (\d+) times", report)
    assert before
    assert int(before[1]) < publish.looks(ROOT / publish.LOOKS)  # this one has its line too


def test_a_network_is_published_in_step(trained: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.rmtree(tmp_path / "docs", ignore_errors=True)
    (tmp_path / "docs/results").mkdir(parents=True)
    looks = "| date | network |\n| --- | --- |\n| 2026-01-02 | small |\n| 2026-01-03 | small |\n"
    (tmp_path / publish.LOOKS).write_text(looks)
    publish.publish(trained)
    report = (tmp_path / publish.REPORT / "report.md").read_text()
    assert "| test images opened before | 2 times ([each](../test-looks.md)) |\n" in report
    check(tmp_path)
    text = (tmp_path / model_card.PATH).read_text()
    test = checkpoint.read_card(tmp_path / "weights/small.safetensors")["figures"]["test"]
    assert f"| small | {test['auc']:.3f}" in text
    assert "scratch" in text
    metrics = tmp_path / publish.REPORT / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"brier": ', '"brier": 1'))
    with pytest.raises(AssertionError):
        check(tmp_path)
