"""The gate's arithmetic."""

from dataclasses import replace
from pathlib import Path

import pytest

from client import gate
from client.gate import Answer, GateError

ROOT = Path(__file__).parents[1]
LIMITS = gate.limits(ROOT / "deploy" / "gate.toml")


def answer(sick: bool, probability: float | None, triage: str | None = None) -> Answer:
    label = None if probability is None else ("PNEUMONIA" if probability >= 0.5 else "NORMAL")
    return Answer("x", sick, probability, label, triage, 0.1)


BEFORE = [
    *[answer(True, p) for p in (0.9, 0.8, 0.7, 0.4)],
    *[answer(False, p) for p in (0.1, 0.2, 0.4, 0.6)],
]


def test_figures() -> None:
    found = gate.figures("1.0", [*BEFORE, answer(True, None)])
    assert found.auc == pytest.approx((4 + 4 + 4 + 2.5) / 16)
    assert (found.sensitivity, found.specificity) == (0.75, 0.75)
    assert (found.errors, found.review) == (1, 0.0)


def missed(after: list[Answer]) -> set[str]:
    _, checks = gate.check(BEFORE, after, ("1.0", "2.0"), LIMITS)
    return {one.name for one in checks if not one.passed}


def test_the_same_passes() -> None:
    assert missed(BEFORE) == set()


def test_every_limit_is_held() -> None:
    lower = [replace(one, probability=one.probability and one.probability - 0.01) for one in BEFORE]
    assert missed(lower) == set()  # the order is the same, and so are the labels
    worse = [answer(True, 0.3), *BEFORE[1:]]
    assert missed(worse) == {"auc", "sensitivity", "changed_labels"}
    alarmed = [*BEFORE[:-1], answer(False, 0.65), ]  # fmt: skip
    assert missed(alarmed) == set()
    unspecific = [*BEFORE[:5], answer(False, 0.6), *BEFORE[6:]]
    assert {"specificity", "changed_labels"} <= missed(unspecific)
    doubtful = [replace(one, triage="review") for one in BEFORE]
    assert missed(doubtful) == {"review"}
    slow = [replace(one, seconds=0.16) for one in BEFORE]
    assert missed(slow) == {"latency"}
    fast = [replace(one, seconds=0.001) for one in BEFORE]
    _, checks = gate.check(fast, [replace(one, seconds=0.02) for one in fast], ("a", "b"), LIMITS)
    assert all(one.passed for one in checks)
    failing = [*BEFORE[:-1], replace(answer(False, None), error="500")]
    assert "errors" in missed(failing)


def test_limits_are_all_there(tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text("auc = 0.1\nspeed = 2\n")
    with pytest.raises(GateError, match=r"missing or unknown: .*speed"):
        gate.limits(file)
    with pytest.raises(GateError, match="can't be read"):
        gate.limits(tmp_path / "none.toml")


def test_a_report_says_what_was_missed(tmp_path: Path) -> None:
    after = [answer(True, 0.3), *BEFORE[1:]]
    found, checks = gate.check(BEFORE, after, ("1.0", "2.0"), LIMITS)
    path = gate.write(tmp_path / "reports", "resnet50", found, checks, "Refused for auc")
    text = path.read_text()
    assert "# resnet50: 1.0 → 2.0" in text
    assert "| sensitivity | 0.25 | 0.02 | **missed** |" in text
    assert path.with_suffix(".json").is_file()
