"""Packs graph, card and handlers into model_store/<name>-<version>.mar, by torch-model-archiver."""

import logging
import os
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
from train.evaluation import ensemble
from train.model import checkpoint
from train.model.networks import NETWORKS
from train.package import graph
from train.package.graph import DEFAULT, ArchiveError, GraphOptions
from train.package.onnx_export import GRAPH

GOLDEN = "golden.png"

log = logging.getLogger(__name__)


def sources(run: Path | None, latest: Path, published: Path) -> dict[str, Path]:
    """The networks to archive: by name, the folder in a run or the published file of weights.

    They come from `run`; without one, from `latest`; if that has no networks, from `published`.
    The ensemble of several networks is among them under the name `pneumonia`.

    Raises:
        ArchiveError: there is no finished network.
    """
    names = [*NETWORKS, ensemble.NAME]
    folder = run or latest
    paths = {path.parent.name: path.parent for path in folder.glob(f"*/{CARD}")}
    if not paths and run is None:
        paths = {path.stem: path.with_suffix(".safetensors") for path in published.glob("*.json")}
        log.info("no trained networks in %s: packing the published ones of %s", latest, published)
    paths = {name: paths[name] for name in names if name in paths}
    if not paths:
        raise ArchiveError(f"{folder} holds no finished network: train one with make train")
    return paths


def archive(
    weights: Path, version: str, store: Path, exported: Path, options: GraphOptions = DEFAULT
) -> Path:
    """Pack a network, or an ensemble, into an archive in `store`; returns the archive's path.

    `weights` is a network's folder in a run or a published file; an ensemble's has only a card.
    Each graph is compared with its network on phantoms. Graphs are cached in the folder `exported`.
    The archive contains graphs, card and the whole `handlers` package, so a stock TorchServe can
    serve it.

    Raises:
        ArchiveError: the version is malformed, a network was not evaluated or has changed since the
            ensemble was evaluated, reduced precision exceeds the limits or lacks its data, or
            torch-model-archiver fails.
        ExportError: a graph's outputs differ from the network's.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise ArchiveError(f"VERSION={version}: a version is numbers and dots, such as 1.0")
    card = checkpoint.read_card(weights)
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder) / "extra"  # its content is put into the archive's root
        staging.mkdir()
        golden = staging / GOLDEN
        golden.write_bytes(graph.golden_image())
        stored = StoredFile(file=GOLDEN, sha256=files.sha256(golden))
        archived = _with_graphs(weights, card, version, stored, exported, staging, options)
        cards.write(staging / CARD, archived)
        package = Path(handlers.__file__).parent
        shutil.copytree(
            package, staging / package.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        target = store / f"{card.network}-{version}.mar"
        if target.is_file():
            log.warning("replacing %s", target)
        return _pack(card.network, version, package / "classifier.py", staging, target)


def _with_graphs(
    weights: Path,
    card: Card,
    version: str,
    golden: StoredFile,
    exported: Path,
    staging: Path,
    options: GraphOptions,
) -> Archived:
    """The card of an archive; the graphs are written to the folder `staging`."""
    if not isinstance(card, EvaluatedEnsemble):
        graph_card = graph.with_graph(weights, exported, staging / GRAPH, options)
        return extend(ArchivedNetwork, graph_card, version=version, golden=golden)
    members = tuple(
        graph.with_graph(
            _member(weights, member), exported, staging / f"{member.network}.onnx", options
        )
        for member in card.members
    )
    return extend(ArchivedEnsemble, card, members=members, version=version, golden=golden)


def _member(ensemble: Path, member: Member) -> Path:
    """The weights of a member of the ensemble whose card is at `ensemble`.

    Raises:
        ArchiveError: the weights have changed since the ensemble was evaluated.
    """
    published = ensemble.suffix == ".safetensors"
    name = member.network
    path = ensemble.with_stem(name) if published else ensemble.with_name(name)
    sha256 = checkpoint.read_network_card(path).weights_sha256 or ""
    if sha256 != member.weights_sha256:
        raise ArchiveError(
            f"{ensemble} was evaluated with other weights of {name} (sha256 "
            f"{member.weights_sha256[:12]}, now {sha256[:12]}): run make evaluate"
        )
    return path


def _pack(name: str, version: str, entry: Path, staging: Path, target: Path) -> Path:
    """Run torch-model-archiver in a temporary folder, then move the archive to `target`."""
    output = staging.parent / "packed"
    output.mkdir()
    command = [Path(sys.executable).with_name("torch-model-archiver")]
    options = {
        "--model-name": name,
        "--version": version,
        "--handler": entry,
        "--extra-files": staging,
        "--export-path": output,
    }
    # It stages in <temporary folder>/<model name>: two packings at once would share that folder.
    temporary = staging.parent / "temporary"
    temporary.mkdir()
    process = subprocess.run(
        [*map(str, command), *[str(word) for pair in options.items() for word in pair]],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    packed = output / f"{name}.mar"
    if process.returncode or not packed.is_file():
        raise ArchiveError(f"torch-model-archiver failed: {process.stderr or process.stdout}")
    with files.replacing(target) as partial:  # the store may be on a different disk
        shutil.move(packed, partial)
    return target
