"""The report on the faithfulness of maps, on the small network."""

import json
from pathlib import Path

import pytest

from tests.train.fitting.test_runs import trained  # noqa: F401 -- a fixture
from train.report import cam_report, cam_sections


def test_the_report_on_maps(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(cam_sections, "PHANTOMS", 6)
    path = cam_report.explain_report(trained, trained)
    text = path.read_text()
    assert "| map minus random |" in text
    numbers = json.loads((path.parent / "explain.json").read_text())
    assert numbers["small"]["cascade"].keys() == {"head", "stage1", "stem"}
    assert "map less random" in numbers["small"]["deletion and insertion"]
    (title,) = numbers["agreement"]
    assert title == "small, seeds 0 and 0"
    assert numbers["agreement"][title]["pearson"]["mean"] == pytest.approx(1.0)
    for name in ("deletion-small.png", "cascade-small.png"):
        assert (path.parent / name).is_file()
        assert name in text
