"""Graph + card + handlers → model_store/<name>-<version>.mar, by torch-model-archiver."""

import io
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import torch

import handlers
from handlers.pixels import decode
from train import checkpoint, novelty, phantoms, together
from train.cam import explain
from train.checkpoint import Card
from train.export import GRAPH, export, verify
from train.networks import NETWORKS, Classifier

GOLDEN = "golden.png"

log = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """An archive can't be built; the message says why."""


def sources(run: Path | None, latest: Path, published: Path) -> dict[str, Path]:
    """Networks by name, and what to load each from: a run's folders, or published files.

    The run that is named; else the latest; else, where nothing was trained, what is published.
    Several networks are there together too, under the name `pneumonia`.

    Raises:
        ArchiveError: nothing is there.
    """
    names = [*NETWORKS, together.NAME]
    folder = run or latest
    found = {path.parent.name: path.parent for path in folder.glob(f"*/{checkpoint.CARD}")}
    if not found and run is None:
        found = {path.stem: path.with_suffix(".safetensors") for path in published.glob("*.json")}
        log.info("nothing was trained here: the published networks of %s are packed", published)
    found = {name: found[name] for name in names if name in found}
    if not found:
        raise ArchiveError(f"{folder} holds no finished network: train one with make train")
    return found


def archive(weights: Path, version: str, store: Path, graphs: Path) -> Path:
    """Pack the network in a folder of weights and card, or in a published file; its archive's path.

    A card alone, of several networks, packs them together. Each graph is compared with its network
    on phantoms; what lies in the folder `graphs` already is not exported again. The archive holds
    the graphs, the card and the whole `handlers` package, so it serves on a stock TorchServe.

    Raises:
        ArchiveError: the version is no version, a network was never judged or is not the one that
            was judged together with the other, or torch-model-archiver fails.
        ExportError: graph and network differ.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise ArchiveError(f"VERSION={version}: a version is numbers and dots, such as 1.0")
    card = checkpoint.read_card(weights)
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder) / "extra"  # its content lands beside the entry, folders kept
        staging.mkdir()
        if "members" in card:
            members = [
                _with_graph(_member(weights, one), graphs, staging / f"{one['network']}.onnx")
                for one in card["members"]
            ]
            card = {**card, "members": members}
        else:
            card = _with_graph(weights, graphs, staging / GRAPH)
        golden = staging / GOLDEN
        golden.write_bytes(_golden_image())
        card = {
            **card,
            "version": version,
            "golden": {"file": GOLDEN, "sha256": checkpoint.sha256(golden)},
        }
        (staging / checkpoint.CARD).write_text(json.dumps(card, indent=2) + "\n")
        package = Path(handlers.__file__).parent
        shutil.copytree(
            package, staging / package.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        target = store / f"{card['network']}-{version}.mar"
        if target.is_file():
            log.warning("%s is replaced", target)
        return _pack(card["network"], version, package / "classifier.py", staging, target)


def _member(together: Path, member: Card) -> Path:
    """Where the weights lie that belong to a card of several networks."""
    name = member["network"]
    published = together.suffix == ".safetensors"
    path = together.with_stem(name) if published else together.with_name(name)
    found = checkpoint.read_card(path)["weights_sha256"]
    if found != member["weights_sha256"]:
        raise ArchiveError(
            f"{together} was judged with another {name} (sha256 {member['weights_sha256'][:12]}, "
            f"now {found[:12]}): run make evaluate"
        )
    return path


def _with_graph(weights: Path, graphs: Path, target: Path) -> Card:
    """Export a network to a file; its card with what was exported."""
    network, card = checkpoint.load(weights)
    if "temperature" not in card:
        raise ArchiveError(f"{weights} was never judged: run make evaluate")
    size = card["input"]["size"]
    reference = novelty.load(weights, card)
    parts = [card["weights_sha256"]]
    if reference is not None:
        parts.append(card[novelty.CARD]["reference_sha256"])
    graph = graphs / f"{'-'.join(part[:32] for part in parts)}.onnx"
    if not graph.is_file():
        export(network, size, graph, reference)
    shutil.copy(graph, target)
    difference = verify(network, target, _examples(size), reference)
    log.info("%s: graph and network differ by at most %.1e in logits", card["network"], difference)
    return {
        **card,
        "golden_logits": _golden_logits(network, size),
        "graph": {
            "file": target.name,
            "sha256": checkpoint.sha256(target),
            "max_logit_difference": difference,
        },
    }


def _golden_image() -> bytes:
    """A PNG that every worker answers before it serves: a phantom, so of no patient."""
    file = io.BytesIO()
    PIL.Image.fromarray(phantoms.draw(0, 0, 1, 224).image).save(file, "PNG")
    return file.getvalue()


def _golden_logits(network: Classifier, size: int) -> list[float]:
    """What the network itself, not its graph, finds there."""
    pixels = torch.from_numpy(decode(_golden_image(), size))[None]
    return [float(value) for value in explain(network, pixels)[0][0]]


def _examples(size: int, count: int = 8) -> torch.Tensor:
    """Pixels (count, size, size) of phantoms of both classes: always there, and like X-rays."""
    drawn = [phantoms.draw(0, number, number % 2, size).image for number in range(count)]
    return torch.from_numpy(np.stack(drawn))


def _pack(name: str, version: str, entry: Path, staging: Path, target: Path) -> Path:
    """Run torch-model-archiver to the side, then rename."""
    side = staging.parent / "packed"
    side.mkdir()
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [Path(sys.executable).with_name("torch-model-archiver")]
    options = {
        "--model-name": name,
        "--version": version,
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
