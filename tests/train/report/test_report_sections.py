"""The sections that the code writes are those of the published report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.evaluation.lung_evidence import LungEvidenceSummary
from train.evaluation.novelty_rule import NoveltyResult
from train.evaluation.robustness import RobustnessResult
from train.evaluation.selective_prediction import DoubtResult
from train.evaluation.significance import Difference
from train.report import markdown, report_sections
from train.report.report_sections import Section

FOLDER = Path(__file__).parents[3] / markdown.PUBLISHED

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no report is published")


def published_sections() -> list[Section]:
    """Sections written from the published metrics.json."""
    metrics: dict[str, Any] = json.loads((FOLDER / "metrics.json").read_text())
    results = {
        network: {name: RobustnessResult(**fields) for name, fields in by_name.items()}
        for network, by_name in metrics["stress"].items()
    }
    for by_name in results.values():
        del by_name["mean"]
    novelty = {
        network: NoveltyResult(
            # One flag whose mean is the share: the flags themselves are not stored.
            parts={part: np.array([share]) for part, share in fields["parts"].items()},
            changed=fields["changed"],
        )
        for network, fields in metrics["novelty"].items()
    }
    evidence = {
        network: {group: LungEvidenceSummary(**fields) for group, fields in groups.items()}
        for network, groups in metrics["evidence"].items()
    }
    doubt = {measure: DoubtResult(**fields) for measure, fields in metrics["doubt"].items()}
    pairs = [Difference(**fields) for fields in metrics["differences"]]
    return [
        report_sections.differences(pairs, "test"),
        report_sections.selective_prediction("both", "test", doubt),
        report_sections.corruptions(results),
        report_sections.evidence(evidence),
        report_sections.novelty(novelty),
    ]


def test_the_published_report_contains_the_sections() -> None:
    report = (FOLDER / "report.md").read_text()
    for section in published_sections():
        assert section.text in report, section.key


def test_the_published_metrics_contain_the_documents() -> None:
    metrics = json.loads((FOLDER / "metrics.json").read_text())
    for section in published_sections():
        assert json.loads(json.dumps(section.document)) == metrics[section.key], section.key


@pytest.mark.parametrize("part", markdown.PART_NOTES)
def test_the_published_report_contains_the_notes_on_parts(part: str) -> None:
    assert f"\n{markdown.PART_NOTES[part]} 95% intervals" in (FOLDER / "report.md").read_text()
