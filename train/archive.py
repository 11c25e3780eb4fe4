"""Graph + card + handlers → model_store/<name>-<version>.mar, by torch-model-archiver."""

import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import handlers
from handlers import card as cards
from handlers import files
from handlers.card import (
    CARD,
    Archived,
    ArchivedEnsemble,
    ArchivedNetwork,
    Card,
    EvaluatedEnsemble,
    Member,
)
from handlers.card_fields import StoredFile
from handlers.records import extend
from train import checkpoint, graphs, together
from train.export import GRAPH
from train.graphs import DEFAULT, ArchiveError, Running
from train.networks import NETWORKS

GOLDEN = "golden.png"

log = logging.getLogger(__name__)


def sources(run: Path | None, latest: Path, published: Path) -> dict[str, Path]:
    """Networks by name, and what to load each from: a run's folders, or published files.

    The run that is named; else the latest; else, where nothing was trained, what is published.
    Several networks are there together too, under the name `pneumonia`.

    Raises:
        ArchiveError: nothing is there.
    """
    names = [*NETWORKS, together.NAME]
    folder = run or latest
    paths = {path.parent.name: path.parent for path in folder.glob(f"*/{CARD}")}
    if not paths and run is None:
        paths = {path.stem: path.with_suffix(".safetensors") for path in published.glob("*.json")}
        log.info("nothing was trained here: the published networks of %s are packed", published)
    paths = {name: paths[name] for name in names if name in paths}
    if not paths:
        raise ArchiveError(f"{folder} holds no finished network: train one with make train")
    return paths


def archive(
    weights: Path, version: str, store: Path, exported: Path, running: Running = DEFAULT
) -> Path:
    """Pack the network in a folder of weights and card, or in a published file; its archive's path.

    A card alone, of several networks, packs them together. Each graph is compared with its network
    on phantoms; what lies in the folder `exported` already is not exported again. The archive holds
    the graphs, the card and the whole `handlers` package, so it serves on a stock TorchServe.

    Raises:
        ArchiveError: the version is no version, a network was never judged or is not the one that
            was judged together with the other, 8 bits change too much or lack their data, or
            torch-model-archiver fails.
        ExportError: graph and network differ.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise ArchiveError(f"VERSION={version}: a version is numbers and dots, such as 1.0")
    card = checkpoint.read_card(weights)
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder) / "extra"  # its content lands beside the entry, folders kept
        staging.mkdir()
        golden = staging / GOLDEN
        golden.write_bytes(graphs.golden_image())
        stored = StoredFile(file=GOLDEN, sha256=files.sha256(golden))
        archived = _with_graphs(weights, card, version, stored, exported, staging, running)
        cards.write(staging / CARD, archived)
        package = Path(handlers.__file__).parent
        shutil.copytree(
            package, staging / package.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        target = store / f"{card.network}-{version}.mar"
        if target.is_file():
            log.warning("%s is replaced", target)
        return _pack(card.network, version, package / "classifier.py", staging, target)


def _with_graphs(
    weights: Path,
    card: Card,
    version: str,
    golden: StoredFile,
    exported: Path,
    staging: Path,
    running: Running,
) -> Archived:
    """The card of an archive; the graphs are written into the folder `staging`."""
    if not isinstance(card, EvaluatedEnsemble):
        graph_card = graphs.with_graph(weights, exported, staging / GRAPH, running)
        return extend(ArchivedNetwork, graph_card, version=version, golden=golden)
    members = tuple(
        graphs.with_graph(
            _member(weights, member), exported, staging / f"{member.network}.onnx", running
        )
        for member in card.members
    )
    return extend(ArchivedEnsemble, card, members=members, version=version, golden=golden)


def _member(ensemble: Path, member: Member) -> Path:
    """Where the weights lie of a network of the ensemble whose card is at `ensemble`."""
    published = ensemble.suffix == ".safetensors"
    name = member.network
    path = ensemble.with_stem(name) if published else ensemble.with_name(name)
    sha256 = checkpoint.read_network_card(path).weights_sha256 or ""
    if sha256 != member.weights_sha256:
        raise ArchiveError(
            f"{ensemble} was judged with another {name} (sha256 {member.weights_sha256[:12]}, "
            f"now {sha256[:12]}): run make evaluate"
        )
    return path


def _pack(name: str, version: str, entry: Path, staging: Path, target: Path) -> Path:
    """Run torch-model-archiver to the side, then rename."""
    side = staging.parent / "packed"
    side.mkdir()
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
    with files.replacing(target) as partial:  # the store may be on another disk
        shutil.move(packed, partial)
    return target
