"""The client imports only light modules: it starts fast and needs no network."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIGHT = {
    "arrays",
    "card",
    "card_fields",
    "class_folders",
    "decision",
    "files",
    "folders",
    "records",
}  # of handlers


def test_the_contract_forbids_every_heavy_module_of_handlers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each.get("source_modules") == ["client"]]
    modules = {path.stem for path in (ROOT / "handlers").glob("*.py")} - {"__init__"}
    forbidden = {f"handlers.{name}" for name in modules - LIGHT}
    assert forbidden <= set(contract["forbidden_modules"])


def test_the_client_starts_without_heavy_packages() -> None:
    script = "import sys, client.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "handlers.card" in imported
    heavy = {
        "torch",
        "PIL",
        "pydicom",
        "onnxruntime",
        "openvino",
        "numpy",
        "scipy",
        "sklearn",
        "ts",
    }
    assert not heavy & imported
