"""The Makefile: every target and variable is documented, and every variable reaches a script."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from client.__main__ import VERBS as CLIENT_VERBS
from client.__main__ import main as client_main
from train.__main__ import VERBS as TRAIN_VERBS
from train.__main__ import main as train_main

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
REFERENCE = (ROOT / "docs/reference.md").read_text()
TARGETS = dict(re.findall(r"^([a-z-]+):.*## (.+)$", MAKEFILE, re.MULTILINE))
VARIABLES = re.findall(r"^([A-Z_]+) *\?=", MAKEFILE, re.MULTILINE)

# The arguments that a variable becomes when it is x1, by target.
ARGUMENTS = {
    "PYTHON": {"setup": "x1 -m venv"},
    "DATA": dict.fromkeys(("train", "tune", "archive", "serve", "bench"), "--data 'x1'"),
    "INIT": {"train": "--init 'x1'"},
    "PRESET": {"train": "--preset 'x1'"},
    "NETWORKS": {
        **dict.fromkeys(("train", "archive", "publish", "bench"), "--networks 'x1'"),
        **dict.fromkeys(("tune-server", "serve"), "--networks 'x1'"),
    },
    "VERSION": {
        "archive": "--version 'x1'",
        "promote": "promote 'resnet50' 'x1'",
        "retire": "retire 'resnet50' 'x1'",
    },
    "SEED": dict.fromkeys(("train", "tune"), "--seed 'x1'"),
    "SPLIT_SEED": {"train": "--split-seed 'x1'"},
    "PATIENT": dict.fromkeys(("train", "tune"), "--patient 'x1'"),
    "ENGINE": {"archive": "--engine 'x1'"},
    "PRECISION": {"archive": "--precision 'x1'"},
    "MASKS": dict.fromkeys(("train", "tune"), "--masks 'x1'"),
    "TWINS": {"evaluate": "--twins 'x1'"},
    "JUDGE": dict.fromkeys(("train", "evaluate", "crosscheck"), "--judge 'x1'"),
    "TRAIN_FLAGS": {"train": "train train .* x1$"},
    "TUNE_FLAGS": {"tune": "train tune .*x1$"},
    "AUTH": {"serve": "--auth 'x1'"},
    "TLS": {"serve": "--tls 'x1'", "tls": "-keyout 'x1/server.key'"},
    "ADDRESS": {"serve": "--address 'x1'"},
    "REPLAY": {"promote": "--replay 'x1'"},
    "WATCH": {"promote": "--watch 'x1'"},
    "SHADOW": {"promote": "--shadow 'x1'"},
    "IMAGE": {"predict": "predict 'x1' --network"},
    "IMAGES": {"bench": "--images 'x1'"},
    "BENCH_FLAGS": {"bench": r"benchmarks\.serving .*x1$"},
    "NETWORK": {
        "predict": "--network 'x1'",
        **{verb: f"client {verb} 'x1'" for verb in ("promote", "retire", "rollback")},
    },
}


def test_every_target_is_in_the_reference_and_the_reverse() -> None:
    documented = re.findall(r"^\| `make ([a-z-]+)` \|", REFERENCE, re.MULTILINE)
    assert sorted(documented) == sorted(TARGETS)


def test_every_variable_is_in_the_reference_and_the_reverse() -> None:
    documented = re.findall(r'^\| `"?([A-Z_]+)=', REFERENCE, re.MULTILINE)
    assert sorted(documented) == sorted(VARIABLES)


def test_make_without_a_target_prints_every_target() -> None:
    printed = subprocess.check_output(["make"], cwd=ROOT, text=True)
    for name, line in TARGETS.items():
        assert re.search(rf"^{name}\s+{re.escape(line)}$", printed, re.MULTILINE)


def test_the_table_of_arguments_has_every_variable_in_every_target() -> None:
    recipes = re.findall(r"^([a-z-]+|\$\(VENV\)\S+):.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    targets = {
        variable: {
            "setup" if "VENV" in target else target
            for target, recipe in recipes
            if f"$({variable})" in recipe or f"$(or $({variable})" in recipe
        }
        for variable in VARIABLES
    }
    assert targets == {variable: set(arguments) for variable, arguments in ARGUMENTS.items()}


@pytest.mark.parametrize(
    ("variable", "target"),
    [(variable, target) for variable, targets in ARGUMENTS.items() for target in targets],
)
def test_a_variable_reaches_the_script(variable: str, target: str) -> None:
    # --always-make: prints the recipe of the environment too.
    dry_run = ["make", "--dry-run", "--always-make", target, f"{variable}=x1"]
    printed = subprocess.check_output(dry_run, cwd=ROOT, text=True)
    lines = re.sub(r"\s*\\\n\s*", " ", printed)
    expected = ARGUMENTS[variable][target]
    assert re.search(expected, lines, re.MULTILINE), lines


@pytest.mark.parametrize(
    "name",
    [
        "my x-ray.jpeg",
        "scan (1).jpeg",
        "o'brien.jpeg",
        "a&echo x.jpeg",
        "`id`.jpeg",
        'a"b;c|d>e.png',
    ],
)
def test_a_value_reaches_the_script_as_it_was_typed(name: str) -> None:
    dry_run = ["make", "--dry-run", "--no-print-directory", "predict", f"IMAGE={name}"]
    printed = subprocess.check_output(dry_run, cwd=ROOT, text=True)
    words = shlex.split(printed.splitlines()[-1])
    assert words[words.index("predict") + 1] == name


@pytest.mark.parametrize("verb", [verb.name for verb in TRAIN_VERBS])
def test_every_verb_of_train_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"usage: python -m train {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", CLIENT_VERBS)
def test_every_verb_of_the_client_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        client_main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"usage: python -m client {verb}" in capsys.readouterr().out
