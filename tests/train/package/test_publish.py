"""Publishing: weights, cards, report, credits and model card agree."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from handlers import files
from tests.train.fitting.test_runs import QUICK, trained  # noqa: F401 -- a fixture
from train.data import phantoms
from train.fitting import recipes, run_facts, runs
from train.fitting.options import Options
from train.model import checkpoint
from train.package import publish
from train.report import attribution, cam_report, cam_sections, model_card

ROOT = Path(__file__).parents[3]


def assert_consistent(project: Path) -> None:
    """Weights, cards, metrics and the model card of a project come from the same run."""
    weights = project / checkpoint.PUBLISHED
    metrics = json.loads((project / publish.REPORT / "metrics.json").read_text())
    paths = sorted(weights.glob("*.safetensors"))
    assert paths
    for path in paths:
        checkpoint.load(path)  # verifies the hash
        card = json.loads(path.with_suffix(".json").read_text())
        assert path.stat().st_size <= publish.MAX_BYTES
        model = metrics["networks"][card["network"]]
        assert card["figures"]["test"] == model["parts"]["test"]
        assert card["operating_points"] == model["operating_points"]
    text = model_card.text(weights, project / publish.REPORT / "metrics.json")
    assert (project / model_card.PATH).read_text() == text


@pytest.mark.skipif(not (ROOT / checkpoint.PUBLISHED).is_dir(), reason="no network is published")
def test_the_published_files_are_consistent() -> None:
    assert_consistent(ROOT)
    report = (ROOT / publish.REPORT / "report.md").read_text()
    count = re.search(r"test images opened before \| (\d+) times", report)
    assert count
    # The table also has a row for the report's own look.
    assert int(count[1]) < publish.count_looks(ROOT / publish.LOOKS)
    weights = sorted((ROOT / checkpoint.PUBLISHED).glob("*.safetensors"))
    credits = attribution.report_section([checkpoint.read_network_card(path) for path in weights])
    assert credits
    assert report.endswith(credits)


def test_publishing_a_network(
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
    assert "## Credits" not in report  # the data set is not chest_xray
    assert_consistent(tmp_path)
    text = (tmp_path / model_card.PATH).read_text()
    test = json.loads((tmp_path / "weights/small.json").read_text())["figures"]["test"]
    assert f"| small | {test['auc']:.3f}" in text
    assert "scratch" in text
    assert "Kermany" not in text.split("## Evaluation and training data")[1].split("## ")[0]
    root = Path(json.loads((trained / run_facts.RUN).read_text())["data"])
    monkeypatch.setattr(cam_sections, "PHANTOMS", 6)
    maps = cam_report.explain_published(root)
    assert maps == publish.REPORT / "explain.md"
    assert "# Are the maps right?\n\nThe published networks." in maps.read_text()
    phantoms.write(tmp_path / "other", {"train": (60, 60), "test": (4, 4)}, size=32)
    with pytest.raises(checkpoint.CheckpointError, match="does not hold the images that small"):
        cam_report.explain_published(tmp_path / "other")
    metrics = tmp_path / publish.REPORT / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"brier": ', '"brier": 1'))
    with pytest.raises(AssertionError):
        assert_consistent(tmp_path)


def test_publishing_a_second_network_leaves_the_first_unchanged(
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
    second_run = runs.train(chosen)  # publishing evaluates it
    publish.publish(second_run)
    assert [files.sha256(path) for path in paths] == before
    assert_consistent(tmp_path)
    members = json.loads((tmp_path / "weights/pneumonia.json").read_text())["members"]
    assert [member["network"] for member in members] == ["small", "small-frozen"]
    assert members[0]["weights_sha256"] == before[0]
    metrics = json.loads((tmp_path / publish.REPORT / "metrics.json").read_text())
    assert set(metrics["networks"]) == {"small", "small-frozen", "both"}


def test_a_published_network_of_different_data_is_not_evaluated(
    trained: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    publish.publish(trained)
    card = json.loads((tmp_path / "weights/small.json").read_text())
    card["training"]["data"]["sha256"] = "0" * 64
    (tmp_path / "weights/foreign.safetensors").write_bytes(b"")
    (tmp_path / "weights/foreign.json").write_text(json.dumps(card))
    assert publish._add_published(trained, tmp_path / "weights") == []
    assert not (trained / "foreign").exists()
    assert json.loads((trained / run_facts.RUN).read_text())["networks"] == ["small"]


def test_a_published_report_of_chest_xray_ends_with_credits(
    trained: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    card = checkpoint.read_network_card(trained / "small")
    facts = replace(card.training.data, name=attribution.DATA_SET)
    card = replace(card, training=replace(card.training, data=facts))
    target = tmp_path / "published"
    target.mkdir()
    (target / "outdated.png").write_bytes(b"")
    publish._publish_report(trained / "report", target, tmp_path / "no-looks.md", [card])
    source = (trained / "report/report.md").read_text()
    assert (target / "report.md").read_text() == source + attribution.report_section([card])
    assert {path.name for path in target.iterdir()} == {
        path.name for path in (trained / "report").iterdir()
    }
    assert not (tmp_path / "published.part").exists()
