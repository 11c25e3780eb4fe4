"""Inputs of the serving benchmark: archives by label, the peers' weights and packages."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving import environment
from benchmarks.serving.scenarios import LabelledArchive
from benchmarks.serving.servers import PEERS, ROOT
from client import archives
from handlers import card as cards
from handlers import files
from handlers.card import ArchivedNetwork, TrainedNetwork
from handlers.card_fields import Dataset, Input, MapGrid, Training
from train.model import checkpoint
from train.model.networks import build

STORE = Path("model_store")
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"


def read_archives(options: Sequence[str]) -> list[LabelledArchive]:
    """The archives of the options `LABEL=FILE_OR_FOLDER`; without options, the store as `f32`.

    Raises:
        ValueError: an option is malformed, a label has two archives of one network, or there are
            no archives.
    """
    archived: list[LabelledArchive] = []
    for option in options or [f"f32={STORE}"]:
        label, _, name = option.partition("=")
        if (
            not name
            or not re.fullmatch(r"[\w.-]+", label)
            or label in [peer.name for peer in PEERS]
        ):
            message = "write LABEL=FILE_OR_FOLDER; LABEL must not be a peer's name"
            raise ValueError(f"--archive {option}: {message}")
        path = Path(name)
        paths = [path] if path.is_file() else sorted(path.glob("*.mar"))
        if not paths:
            print(f"NO ARCHIVES FOR {label}: {path} holds none", flush=True)
        archived += [_labelled(label, path) for path in paths]
    names = [(labelled.label, labelled.network) for labelled in archived]
    if len(set(names)) < len(names):
        raise ValueError(f"two archives of one network have the same label: {names}")
    if not archived:
        raise ValueError("no archives: build them with make archive")
    return archived


def _labelled(label: str, path: Path) -> LabelledArchive:
    archive, card = archives.read(path), archives.card_of(path)
    graph = card.networks[0].graph
    weights = card.weights_sha256 if isinstance(card, ArchivedNetwork) else None
    return LabelledArchive(label, archive, graph.precision, graph.engine, weights or "")


def peer_weights(
    network: str, archived: Sequence[LabelledArchive], random: Path | None
) -> Path | None:
    """Path of a network's weights for the peers: published, else random in the folder `random`.

    None if neither is there. Prints a warning if the weights are not those of the archives.
    """
    path = ROOT / checkpoint.PUBLISHED / f"{network}.safetensors"
    if path.is_file():
        sha256 = checkpoint.read_network_card(path).weights_sha256
        if any(labelled.weights_sha256 != sha256 for labelled in archived):
            print(f"THE PEERS OF {network} HAVE DIFFERENT WEIGHTS than its archive", flush=True)
        return path
    if random is None:
        print(f"NO PEERS FOR {network}: {path.name} is missing in weights/", flush=True)
        return None
    print(f"RANDOM WEIGHTS FOR THE PEERS OF {network}: a smoke run, not a result", flush=True)
    path = random / path.name
    checkpoint.write_weights(path, build(network).state_dict())
    cards.write(path.with_suffix(".json"), _untrained_card(network, files.sha256(path)))
    return path


def _untrained_card(network: str, sha256: str) -> TrainedNetwork:
    """The card of a network with random weights."""
    return TrainedNetwork(
        network=network,
        input=Input(size=224),
        map=MapGrid(rows=14, columns=14, dilated=True),
        classes=("NORMAL", "PNEUMONIA"),
        bias=(0.0, 0.0),
        training=Training(
            data=Dataset(name="none", sha256="", counts={}), seed=0, init="random", preset="none"
        ),
        warnings=("never trained: for a smoke run of the benchmark",),
        weights_sha256=sha256,
    )


def install_peers() -> None:
    """Install the peers' packages if a pinned version is missing."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    if all(environment.version(line.split("==")[0]) == line.split("==")[1] for line in lines):
        return
    print("installing the peers' packages ...", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["-c", str(ROOT / "requirements.lock"), "-r", str(REQUIREMENTS)]
    subprocess.run(command, check=True)
