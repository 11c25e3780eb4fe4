"""`make audit`: its exit status and output for reports of pip-audit."""

from typing import Any

import pytest

from tests.project import scripts

audit = scripts.load("audit")

VULNERABILITY = {"id": "PYSEC-2099-1", "fix_versions": ["2.0"], "aliases": []}
WHOLE = {"name": "whole", "version": "1.0", "vulns": []}
BROKEN = {"name": "broken", "version": "1.0", "vulns": [VULNERABILITY]}
SKIPPED = {"name": "skipped", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("report", "code", "output"),
    [
        (None, 0, "AUDIT SKIPPED"),
        ([SKIPPED], 0, "AUDIT SKIPPED"),
        ([WHOLE, SKIPPED], 0, "1 of 2 packages audited, 0 vulnerabilities"),
        ([WHOLE, BROKEN], 1, "broken 1.0: PYSEC-2099-1, fixed in 2.0"),
    ],
)
def test_vulnerabilities_fail_and_a_skipped_audit_is_reported(
    report: list[Any] | None,
    code: int,
    output: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "audit", lambda _folder: report and {"dependencies": report})
    assert audit.main() == code
    assert output in capsys.readouterr().out
