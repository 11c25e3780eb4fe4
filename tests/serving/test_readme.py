"""The commands of the README's quick start, run; what they print is what the README says."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import settings
from tests.serving.conftest import ROOT, Place, client, new_place

README = (ROOT / "README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SERVED, PREDICTED = [text for language, text in FENCED if not language][:2]


def normal(text: str) -> list[str]:
    """Lines without what differs from run to run: seconds, and the width of columns."""
    lines = [re.sub(r"\(\d+ s\)", "(N s)", line).split() for line in text.splitlines()]
    return [" ".join(words) for words in lines if words]


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, str]]:
    """A server with the published weights, and what `make archive serve` prints of serving."""
    place = new_place(tmp_path_factory.mktemp("quick-start"))
    archive = [sys.executable, "-m", "train", "archive", "--store", str(place.store)]
    subprocess.run(archive, cwd=ROOT, capture_output=True, check=True)
    try:
        done = client("serve", place)
        assert done.returncode == 0, done.stdout + done.stderr
        printed = done.stdout.replace(str(place.state), ".server")
        defaults = settings.ports_of(settings.read(ROOT / "config.properties", {}))
        for name, port in place.ports.items():
            printed = printed.replace(f":{port}", f":{defaults[name]}")
        yield place, printed
    finally:
        client("stop", place)


@pytest.mark.minutes
def test_make_archive_serve_prints_the_lines_of_the_readme(quick_start: tuple[Place, str]) -> None:
    _, printed = quick_start
    expected = normal(SERVED)
    assert normal(printed)[: len(expected)] == expected


@pytest.mark.minutes
def test_make_predict_prints_the_lines_of_the_readme(
    quick_start: tuple[Place, str], tmp_path: Path
) -> None:
    place, _ = quick_start
    done = client("predict", place, "docs/example.png", "--save", tmp_path)
    assert done.returncode == 0, done.stderr
    assert normal(done.stdout) == normal(PREDICTED)
    assert (tmp_path / "example.png.png").read_bytes().startswith(b"\x89PNG")
