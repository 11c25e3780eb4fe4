"""requirements.lock: exact versions of every dependency, installable on each platform."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if not line.startswith("#")
]


def test_every_line_pins_a_version_without_a_url() -> None:
    assert len(LINES) > 50
    for line in LINES:
        assert re.fullmatch(r"[a-z0-9._-]+==[\w.+!]+( ; .+)?", line), line
        assert "/" not in line
        assert "@" not in line


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pinned = {Requirement(line).name: Requirement(line).specifier for line in LINES}
    for line in (line for group in groups for line in group):
        requirement = Requirement(line)
        (pin,) = pinned[canonicalize_name(requirement.name)]
        assert pin.version in requirement.specifier


def test_packages_of_linux_are_required_only_on_linux() -> None:
    for line in LINES:
        if line.startswith(("nvidia-", "cuda-", "triton")):
            marker = Requirement(line).marker
            assert marker is not None
            assert not marker.evaluate({"platform_system": "Darwin"})
            assert marker.evaluate({"platform_system": "Linux"})
