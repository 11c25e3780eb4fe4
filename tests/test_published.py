"""The published networks, their report and the model card are in step."""

import json
import re
import shutil
from pathlib import Path

import pytest

from handlers import files
from tests.test_run import QUICK, trained  # noqa: F401 -- a fixture
from train import checkpoint, explain_report, model_card, phantoms, publish, recipes, run, run_facts
from train.options import Options

ROOT = Path(__file__).parents[1]


def check(project: Path) -> None:
    """Weights, cards, metrics and the model card of a project are of one run."""
    weights = project / checkpoint.PUBLISHED
    metrics = json.loads((project / publish.REPORT / "metrics.json").read_text())
    files = sorted(weights.glob("*.safetensors"))
    assert files
    for file in files:
        checkpoint.load(file)  # the hash is right
        card = json.loads(file.with_suffix(".json").read_text())
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


def test_a_network_is_published_in_step(
    trained: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.rmtree(tmp_path / "docs", ignore_errors=True)
    (tmp_path / "docs/results").mkdir(parents=True)
    looks = "| date | network |\n| --- | --- |\n| 2026-01-02 | small |\n| 2026-01-03 | small |\n"
    (tmp_path / publish.LOOKS).write_text(looks)
    publish.publish(trained)
    report = (tmp_path / publish.REPORT / "report.md").read_text()
    assert "| test images opened before | 2 times ([each](../test-looks.md)) |\n" in report
    check(tmp_path)
    text = (tmp_path / model_card.PATH).read_text()
    test = json.loads((tmp_path / "weights/small.json").read_text())["figures"]["test"]
    assert f"| small | {test['auc']:.3f}" in text
    assert "scratch" in text
    data = Path(json.loads((trained / run_facts.RUN).read_text())["data"])
    monkeypatch.setattr(explain_report, "PHANTOMS", 6)
    maps = explain_report.explain_published(data)
    assert maps == publish.REPORT / "explain.md"
    assert "# Are the maps right?\n\nThe published networks." in maps.read_text()
    phantoms.write(tmp_path / "other", {"train": (60, 60), "test": (4, 4)}, size=32)
    with pytest.raises(checkpoint.CheckpointError, match="is not, or no longer, what small"):
        explain_report.explain_published(tmp_path / "other")
    metrics = tmp_path / publish.REPORT / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"brier": ', '"brier": 1'))
    with pytest.raises(AssertionError):
        check(tmp_path)


def test_a_second_network_is_published_beside_the_first_which_stays_as_it_is(
    trained: Path,  # noqa: F811
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish.publish(trained)
    paths = [
        tmp_path / "weights/small.safetensors",
        tmp_path / "weights/reference/small.safetensors",
    ]
    before = [files.sha256(path) for path in paths]
    monkeypatch.setitem(recipes.PRESETS["quick"], "small-frozen", (QUICK,))
    chosen = Options(images, "scratch", "quick", ("small-frozen",), runs=tmp_path / "elsewhere")
    other = run.train(chosen)  # publishing judges it
    publish.publish(other)
    assert [files.sha256(path) for path in paths] == before
    check(tmp_path)
    joint = json.loads((tmp_path / "weights/pneumonia.json").read_text())
    assert [one["network"] for one in joint["members"]] == ["small", "small-frozen"]
    assert joint["members"][0]["weights_sha256"] == before[0]
    metrics = json.loads((tmp_path / publish.REPORT / "metrics.json").read_text())
    assert set(metrics["networks"]) == {"small", "small-frozen", "both"}


def test_a_published_network_of_other_data_is_not_judged_here(
    trained: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    publish.publish(trained)
    card = json.loads((tmp_path / "weights/small.json").read_text())
    card["training"]["data"]["sha256"] = "0" * 64
    (tmp_path / "weights/other.safetensors").write_bytes(b"")
    (tmp_path / "weights/other.json").write_text(json.dumps(card))
    assert publish._add_published(trained, tmp_path / "weights") == []
    assert not (trained / "other").exists()
    assert json.loads((trained / run_facts.RUN).read_text())["networks"] == ["small"]
