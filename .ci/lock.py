"""Make requirements.lock anew: `make lock`.

pip resolves what pyproject.toml names, without installing it, and says which package asked for
what under what condition. What is only asked for under a condition of the platform (nvidia-* for
torch on Linux, say) is locked under that condition, so that the lock installs elsewhere too.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# What decides whether another machine needs a package; the Python version is left to pip.
PLATFORM = re.compile(r"platform|sys_|os_name")

HEADER = """\
# The whole environment, exactly. Made by `make lock` with pip; change pyproject.toml, not this.
"""


def direct() -> list[str]:
    """The requirements of pyproject.toml, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(line for extra in extras for line in extra)]


def resolve(requirements: list[str]) -> list[dict[str, object]]:
    """What pip would install into an empty environment: the metadata of each package."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--report", "-", *requirements]
    report = json.loads(subprocess.check_output(command, text=True))
    return [item["metadata"] for item in report["install"]]


def conditions(packages: list[dict[str, object]], named: list[str]) -> dict[str, set[str]]:
    """For each package the conditions under which it is asked for; "" is: always.

    What a package under a condition asks for comes under the same.
    """
    needs = {canonicalize_name(str(p["name"])): p.get("requires_dist", []) for p in packages}
    asked: dict[str, set[str]] = defaultdict(set)
    waiting = [("", Requirement(line)) for line in named]
    seen = set()
    while waiting:
        condition, requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in needs or (key := (condition, name, *sorted(requirement.extras))) in seen:
            continue
        seen.add(key)
        asked[name].add(condition)
        for line in needs[name]:
            wanted = Requirement(line)
            if applies(wanted.marker, requirement.extras):
                waiting.append((condition or platform_condition(wanted.marker), wanted))
    return asked


def applies(marker: Marker | None, extras: set[str]) -> bool:
    """Whether a requirement counts here, with these extras or none."""
    if marker is None:
        return True
    return any(marker.evaluate({"extra": extra}) for extra in (extras or {""}))


def platform_condition(marker: Marker | None) -> str:
    """The part of a marker that speaks of the platform."""
    parts = re.split(r"\s+and\s+", str(marker)) if marker else []
    return " and ".join(p.strip("()") for p in parts if PLATFORM.search(p) and "extra" not in p)


def main() -> None:
    """Write requirements.lock."""
    packages = resolve(direct())
    asked = conditions(packages, direct())
    lines = []
    for package in packages:
        name = canonicalize_name(str(package["name"]))
        found = asked[name]
        when = "" if "" in found else " or ".join(sorted(found))
        lines.append(f"{name}=={package['version']}" + (f" ; {when}" if when else ""))
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(sorted(lines)) + "\n")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
