"""Graph + card + handlers → model_store/<name>-<version>.mar, by torch-model-archiver."""

import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import handlers
from train import checkpoint, phantoms
from train.export import GRAPH, export, verify
from train.networks import NETWORKS

log = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """An archive can't be built; the message says why."""


def sources(run: Path | None, latest: Path, published: Path) -> dict[str, Path]:
    """Networks by name, and what to load each from: a run's folders, or published files.

    The run that is named; else the latest; else, where nothing was trained, what is published.

    Raises:
        ArchiveError: nothing is there.
    """
    folder = run or latest
    found = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{checkpoint.CARD}"))}
    found = {name: found[name] for name in NETWORKS if name in found}
    if not found and run is None:
        found = {path.stem: path for path in sorted(published.glob("*.safetensors"))}
        log.info("nothing was trained here: the published networks of %s are packed", published)
    if not found:
        raise ArchiveError(f"{folder} holds no finished network: train one with make train")
    return found


def archive(weights: Path, version: str, store: Path) -> Path:
    """Pack the network in a folder of weights and card, or in a published file; its archive's path.

    The graph is compared with the network on phantoms. The archive holds the graph, the card and
    the whole `handlers` package, so it serves on a stock TorchServe.

    Raises:
        ArchiveError: the version is no version, the network was never judged, or
            torch-model-archiver fails.
        ExportError: graph and network differ.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise ArchiveError(f"VERSION={version}: a version is numbers and dots, such as 1.0")
    network, card = checkpoint.load(weights)
    name = card["network"]
    if "temperature" not in card:
        raise ArchiveError(f"{weights} was never judged: run make evaluate")
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder) / "extra"  # its content lands beside the entry, folders kept
        staging.mkdir()
        graph = Path(folder) / GRAPH
        export(network, card["input"]["size"], graph)
        difference = verify(network, graph, _examples(card["input"]["size"]))
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


def _examples(size: int, count: int = 8) -> torch.Tensor:
    """Pixels (count, size, size) of phantoms of both classes: always there, and like X-rays."""
    drawn = [phantoms.draw(0, number, number % 2, size).image for number in range(count)]
    return torch.from_numpy(np.stack(drawn))


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
