"""README, Makefile and command line tell the same."""

import re
import subprocess
from pathlib import Path

import pytest

from client.__main__ import main as client_main
from train.__main__ import VERBS
from train.__main__ import main as train_main
from train.recipes import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):.*## (.+)$", MAKEFILE, re.MULTILINE)


def test_every_target_is_in_the_readme_and_the_other_way_round() -> None:
    told = set(re.findall(r"^\| `make ([a-z-]+)", README, re.MULTILINE))
    assert told == {name for name, _ in TARGETS}


def test_make_alone_prints_every_target_with_its_line() -> None:
    printed = subprocess.check_output(["make"], cwd=ROOT, text=True)
    for name, line in TARGETS:
        assert re.search(rf"^{name}\s+{re.escape(line)}$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    "option",
    [
        *("DATA", "INIT", "PRESET", "NETWORKS", "VERSION", "SEED", "PATIENT", "MASKS", "JUDGE"),
        *("ENGINE", "PRECISION"),
    ],
)
def test_every_option_of_the_make_line_reaches_a_script(option: str) -> None:
    assert f"`{option}=" in README
    dry = ["make", "--dry-run", "train", "archive", "serve", f"{option}=x1"]
    commands = subprocess.check_output(dry, cwd=ROOT, text=True)
    assert "x1" in commands.replace(f"{option}=x1", "")


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_helps(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_main([verb, "--help"])
    assert stopped.value.code == 0
    assert "usage: python -m train" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["serve", "stop", "predict", "versions", "promote", "rollback"])
def test_every_verb_of_the_client_helps(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        client_main([verb, "--help"])
    assert stopped.value.code == 0
    assert verb in capsys.readouterr().out


def test_every_preset_is_told() -> None:
    for preset in PRESETS:
        assert f"`{preset}`" in README


def test_every_file_the_readme_names_is_there() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_the_results_table_is_that_of_the_report() -> None:
    report = (ROOT / "docs/results/published/report.md").read_text()
    test = report.split("## test:")[1].split("\n## ")[0]
    table = re.search(r"(?:^\|.+\n)+", test, re.MULTILINE)
    assert table
    assert table[0] in README


def test_the_results_table_has_every_published_network() -> None:
    for weights in (ROOT / "weights").glob("*.safetensors"):
        assert re.search(rf"^\| {weights.stem} \|", README, re.MULTILINE)
