"""Known vulnerabilities of the packages in requirements.lock, from pip-audit in a new environment.

The exit status is 1 if there are any. If no registry reports vulnerabilities, nothing was checked:
this is printed, and the exit status is 0.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements.lock"


def audit(folder: Path) -> dict[str, list[dict[str, Any]]] | None:
    """pip-audit's report, from an environment made in `folder`; None if pip-audit gives none."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "pip-audit"]
    if subprocess.run([*pip, "--disable-pip-version-check"], check=False).returncode:
        return None
    options = ["-r", str(LOCK), "--no-deps", "--disable-pip", "--format", "json"]
    options += ["--progress-spinner", "off"]
    done = subprocess.run(
        [str(python), "-m", "pip_audit", *options], capture_output=True, text=True, check=False
    )
    try:
        report: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    except ValueError:
        print(done.stderr, file=sys.stderr)
        return None
    return report


def main() -> int:
    """Audit and print the report; 1 if there are vulnerabilities, else 0."""
    with tempfile.TemporaryDirectory() as folder:
        report = audit(Path(folder))
    packages = report["dependencies"] if report else []
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        print("AUDIT SKIPPED: no registry here reports vulnerabilities. Nothing was checked.")
        return 0
    count = 0
    for package in audited:
        for vulnerability in package["vulns"]:
            count += 1
            versions = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            print(
                f"{package['name']} {package['version']}: {vulnerability['id']}, "
                f"fixed in {versions}"
            )
    print(f"{len(audited)} of {len(packages)} packages audited, {count} vulnerabilities")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
