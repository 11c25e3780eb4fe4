"""`make audit`: what it makes of pip-audit's report."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

spec = importlib.util.spec_from_file_location("audit", Path(__file__).parents[1] / ".ci/audit.py")
assert spec
assert spec.loader
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

KNOWN = {"id": "PYSEC-2099-1", "fix_versions": ["2.0"], "aliases": []}
WHOLE = {"name": "whole", "version": "1.0", "vulns": []}
BROKEN = {"name": "broken", "version": "1.0", "vulns": [KNOWN]}
SKIPPED = {"name": "skipped", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("report", "code", "said"),
    [
        (None, 0, "AUDIT SKIPPED"),
        ([SKIPPED], 0, "AUDIT SKIPPED"),
        ([WHOLE, SKIPPED], 0, "1 of 2 packages audited, 0 vulnerabilities"),
        ([WHOLE, BROKEN], 1, "broken 1.0: PYSEC-2099-1, fixed in 2.0"),
    ],
)
def test_a_vulnerability_fails_and_no_answer_is_no_pass(
    report: list[Any] | None,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "audit", lambda _folder: report and {"dependencies": report})
    assert audit.main() == code
    assert said in capsys.readouterr().out
