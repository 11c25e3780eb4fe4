"""The gate's figures, limits and report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from client import gate
from client.gate import Answer, GateError

ROOT = Path(__file__).parents[2]
LIMITS = gate.limits(ROOT / "deploy" / "gate.toml")


def answer(sick: bool, probability: float | None, triage: str | None = None) -> Answer:
    label = None if probability is None else ("PNEUMONIA" if probability >= 0.5 else "NORMAL")
    return Answer("x", sick, probability, label, triage, 0.1)


BEFORE = [
    *[answer(True, p) for p in (0.9, 0.8, 0.7, 0.4)],
    *[answer(False, p) for p in (0.1, 0.2, 0.4, 0.6)],
]


def test_figures() -> None:
    figures = gate.figures("1.0", [*BEFORE, answer(True, None)])
    assert figures.auc == pytest.approx((4 + 4 + 4 + 2.5) / 16)
    assert (figures.sensitivity, figures.specificity) == (0.75, 0.75)
    assert (figures.errors, figures.review) == (1, 0.0)


def missed(after: list[Answer]) -> set[str]:
    _, checks = gate.check(BEFORE, after, ("1.0", "2.0"), LIMITS)
    return {check.name for check in checks if not check.passed}


def test_the_same_answers_pass() -> None:
    assert missed(BEFORE) == set()


def with_fields(**changes: object) -> list[Answer]:
    """The answers of BEFORE with some fields changed."""
    return [replace(answer, **changes) for answer in BEFORE]  # type: ignore[arg-type]


def test_every_limit_refuses() -> None:
    lower = [
        replace(answer, probability=answer.probability and answer.probability - 0.01)
        for answer in BEFORE
    ]
    assert missed(lower) == set()  # the order is the same, and so are the labels
    worse = [answer(True, 0.3), *BEFORE[1:]]
    assert missed(worse) == {"auc", "sensitivity", "changed_labels"}
    alarmed = [*BEFORE[:-1], answer(False, 0.65)]
    assert missed(alarmed) == set()
    unspecific = [*BEFORE[:5], answer(False, 0.6), *BEFORE[6:]]
    assert {"specificity", "changed_labels"} <= missed(unspecific)
    assert missed(with_fields(triage="review")) == {"review"}
    assert missed(with_fields(seconds=0.16)) == {"latency"}
    fast, slower = with_fields(seconds=0.001), with_fields(seconds=0.02)
    _, checks = gate.check(fast, slower, ("a", "b"), LIMITS)
    assert all(check.passed for check in checks)
    failing = [*BEFORE[:-1], replace(answer(False, None), error="500")]
    assert "errors" in missed(failing)


def test_a_missing_or_unknown_limit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text("auc = 0.1\nspeed = 2\n")
    with pytest.raises(GateError, match=r"missing or unknown: .*speed"):
        gate.limits(file)
    with pytest.raises(GateError, match="can't be read"):
        gate.limits(tmp_path / "none.toml")


def test_a_report_has_the_missed_limits(tmp_path: Path) -> None:
    after = [answer(True, 0.3), *BEFORE[1:]]
    figures, checks = gate.check(BEFORE, after, ("1.0", "2.0"), LIMITS)
    path = gate.write(tmp_path / "reports", "resnet50", figures, checks, "Refused for auc")
    text = path.read_text()
    assert "# resnet50: 1.0 → 2.0" in text
    assert "| sensitivity | 0.25 | 0.02 | **missed** |" in text
    document = json.loads(path.with_suffix(".json").read_text())
    assert {"name": "sensitivity", "found": 0.25, "allowed": 0.02, "passed": False} in document[
        "checks"
    ]
