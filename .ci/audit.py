"""Known vulnerabilities of what requirements.lock pins, by pip-audit in an environment of its own.

Ends with 1 where one is found. Where no registry answers with what it knows, it says so and ends
with 0: that is no pass.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"


def audit(folder: Path) -> dict[str, list[dict[str, object]]] | None:
    """pip-audit's report; None where it can't be had."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "pip-audit"]
    if subprocess.run([*pip, "--disable-pip-version-check"], check=False).returncode:
        return None
    words = ["-r", str(LOCK), "--no-deps", "--disable-pip", "--format", "json"]
    words += ["--progress-spinner", "off"]
    done = subprocess.run(
        [str(python), "-m", "pip_audit", *words], capture_output=True, text=True, check=False
    )
    try:
        found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    except ValueError:
        print(done.stderr, file=sys.stderr)
        return None
    return found


def main() -> int:
    """Audit and report."""
    with tempfile.TemporaryDirectory() as folder:
        report = audit(Path(folder))
    packages = report["dependencies"] if report else []
    audited = [one for one in packages if "skip_reason" not in one]
    if not audited:
        print("AUDIT SKIPPED: no registry here tells of vulnerabilities. Nothing was checked.")
        return 0
    found = [(one, known) for one in audited for known in list(one["vulns"])]  # type: ignore[call-overload]
    for one, known in found:
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']}: {known['id']}, fixed in {fixed}")
    print(f"{len(audited)} of {len(packages)} packages audited, {len(found)} vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
