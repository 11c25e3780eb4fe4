"""Graph + card + handlers → model_store/<name>-<version>.mar, by torch-model-archiver."""

import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import handlers
from train import checkpoint
from train.export import GRAPH, export, verify

log = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """An archive can't be built; the message says why."""


def archive(weights: Path, version: str, store: Path, examples: torch.Tensor) -> Path:
    """Pack the network in a folder of weights and card; the path of its archive.

    The graph is compared with the network on `examples`, uint8 pixels (N, S, S). The archive holds
    the graph, the card and the whole `handlers` package, so it serves on a stock TorchServe.

    Raises:
        ArchiveError: the version is no version, or torch-model-archiver fails.
        ExportError: graph and network differ.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise ArchiveError(f"VERSION={version}: a version is numbers and dots, such as 1.0")
    network, card = checkpoint.load(weights)
    name = card["network"]
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder) / "extra"  # its content lands beside the entry, folders kept
        staging.mkdir()
        graph = Path(folder) / GRAPH
        export(network, card["input"]["size"], graph)
        difference = verify(network, graph, examples)
        log.info("%s: graph and network differ by at most %.1e in logits", name, difference)
        card = {
            **card,
            "version": version,
            "graph": {
                "file": GRAPH,
                "sha256": checkpoint.sha256(graph),
                "max_logit_difference": difference,
            },
        }
        (staging / checkpoint.CARD).write_text(json.dumps(card, indent=2) + "\n")
        package = Path(handlers.__file__).parent
        shutil.copytree(
            package, staging / package.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        target = store / f"{name}-{version}.mar"
        if target.is_file():
            log.warning("%s is replaced", target)
        return _pack(name, version, graph, package / "classifier.py", staging, target)


def _pack(name: str, version: str, graph: Path, entry: Path, staging: Path, target: Path) -> Path:
    """Run torch-model-archiver to the side, then rename."""
    side = graph.parent / "packed"
    side.mkdir()
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [Path(sys.executable).with_name("torch-model-archiver")]
    options = {
        "--model-name": name,
        "--version": version,
        "--serialized-file": graph,
        "--handler": entry,
        "--extra-files": staging,
        "--export-path": side,
    }
    done = subprocess.run(
        [*map(str, command), *[str(word) for pair in options.items() for word in pair]],
        capture_output=True,
        text=True,
        check=False,
    )
    packed = side / f"{name}.mar"
    if done.returncode or not packed.is_file():
        raise ArchiveError(f"torch-model-archiver failed: {done.stderr or done.stdout}")
    beside = target.with_suffix(".mar.part")  # the store may be on another disk
    shutil.move(packed, beside)
    return beside.rename(target)
