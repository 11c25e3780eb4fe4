"""The commands of README and docs/api.md, run as they stand against a real server."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.serving.conftest import ROOT, Served, picture

CURL = re.compile(r"^curl .+$", re.MULTILINE)
TEXTS = {name: (ROOT / name).read_text() for name in ("README.md", "docs/api.md")}
# A version that the server of the tests does not have.
COMMANDS = [
    pytest.param(command, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, command in enumerate(CURL.findall(text))
    if "/2.0" not in command
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_curl_of_the_documents_works(command: str, served: Served, tmp_path: Path) -> None:
    (tmp_path / "IMAGE").write_bytes(picture(200))
    command = command.replace("http://127.0.0.1:8080", served.place.inference)
    command = command.replace("http://127.0.0.1:8081", served.place.management)
    shell = ["bash", "-c", command.replace("curl ", "curl --silent --fail-with-body ", 1)]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    overlay = tmp_path / "overlay.png"
    if "image/png" in command:
        assert overlay.read_bytes().startswith(b"\x89PNG")
        return
    answer = json.loads(done.stdout)
    if "/predict" in command:
        sick = answer["probability"]["PNEUMONIA"] >= answer["threshold"]
        assert answer["label"] == ("PNEUMONIA" if sick else "NORMAL")
    else:
        assert "densenet161" in done.stdout or "resnet50" in done.stdout


def test_there_are_such_commands() -> None:
    assert len(COMMANDS) >= 10
