"""A wheel of the project: its packages import without the checkout, its files are complete."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("train", "handlers", "client", "arguments")
TEXTS = ("LICENSE", "NOTICE")
MODULES = ("train.data", "train.fitting.loop", "handlers.card", "client", "arguments")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves files beside its source."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", *TEXTS):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    build += ["--disable-pip-version-check", "--no-cache-dir", "--wheel-dir", str(folder)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


IMPORT = """
import importlib, sys
folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
for name in names:
    print(importlib.import_module(name).__file__)
"""


def test_the_modules_of_the_wheel_import(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # -I: without the current folder and PYTHONPATH, so that the checkout is not imported.
    command = [sys.executable, "-I", "-c", IMPORT, str(tmp_path), *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    paths = done.stdout.splitlines()
    assert len(paths) == len(MODULES)
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)


def test_the_wheel_has_every_module_and_the_texts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for package in PACKAGES:
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert modules <= names
    assert "train/report/model_card.md" in names
    for text in TEXTS:
        assert any(name.endswith(f".dist-info/licenses/{text}") for name in names), text
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
