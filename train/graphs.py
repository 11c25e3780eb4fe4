"""A network → the graph that an archive holds, and what its card says of running it."""

import io
import json
import logging
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch

from handlers import engine
from handlers.pixels import decode
from train import checkpoint, data, novelty, phantoms, quantise
from train.cam import explain
from train.checkpoint import Card
from train.data import Dataset
from train.export import difference, export, verify
from train.networks import Classifier
from train.novelty import Reference
from train.options import KAGGLE
from train.run import RUN

AUTO = "auto"  # the engine that `choose` chooses
F32, INT8 = "f32", "int8"
ROUNDS = 15  # of measuring how fast the engines are, in turn
LEAN = "onnxruntime"  # takes half of the memory of the other (docs/log.md)
WORTH = 1.1  # times faster the other must be, to be worth its memory

log = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """An archive can't be built; the message says why."""


@dataclass(frozen=True)
class Running:
    """How an archive's graphs are to be run."""

    engine: str = AUTO
    precision: str = F32
    data: Path | None = None  # of training, for int8; None: where the run found it


DEFAULT = Running()


def with_graph(weights: Path, exported: Path, target: Path, running: Running) -> Card:
    """Export a network to a file; its card with what was exported, and what is to run it.

    What lies in the folder `exported` already is not exported again.

    Raises:
        ArchiveError: the network was never judged, or 8 bits change too much or lack their data.
        ExportError: graph and network differ.
    """
    network, card = checkpoint.load(weights)
    name = card["network"]
    if "temperature" not in card:
        raise ArchiveError(f"{weights} was never judged: run make evaluate")
    size = card["input"]["size"]
    reference = novelty.load(weights, card)
    whole = graph = _exported(network, card, reference, exported)
    facts: dict[str, Any] = {"precision": running.precision}
    if running.precision == INT8:
        graph = _in_8_bits(weights, card, whole, running.data)
    facts["engine"] = running.engine
    if running.engine == AUTO:
        facts["milliseconds"] = milliseconds(graph, _examples(size, 1).numpy())
        facts["engine"] = choose(facts["milliseconds"])
    if running.precision == INT8:
        facts["gate"], rule = _gate(weights, card, (whole, graph), facts["engine"], running.data)
        card = {**card, **rule}
    shutil.copy(graph, target)
    runs = engine.load(facts["engine"], target)
    if running.precision == INT8:  # whose distances have a rule of their own
        apart = difference(network, runs, _examples(size))
    else:
        apart = verify(network, runs, _examples(size), reference)
    log.info(
        "%s: %s, %s; a logit or a cell of the map differs from the network's by at most %.1e",
        *(name, facts["engine"], facts["precision"], apart),
    )
    golden = decode(golden_image(), size)[None]
    answered = runs(golden)[0].logits
    if running.precision != INT8:  # what the network itself, not its graph, finds there
        answered = explain(network, torch.from_numpy(golden))[0][0].numpy()
    return {
        **card,
        "golden_logits": [float(value) for value in answered],
        "graph": {
            "file": target.name,
            "sha256": checkpoint.sha256(target),
            **facts,
            "max_logit_difference": apart,
        },
    }


def _exported(network: Classifier, card: Card, reference: Reference | None, folder: Path) -> Path:
    """The network's graph, exported into a folder where it is not there yet."""
    parts = [card["weights_sha256"]]
    if reference is not None:
        parts.append(card[novelty.CARD]["reference_sha256"])
    graph = folder / f"{'-'.join(part[:32] for part in parts)}.onnx"
    if not graph.is_file():
        export(network, card["input"]["size"], graph, reference)
    return graph


def _in_8_bits(weights: Path, card: Card, whole: Path, root: Path | None) -> Path:
    """The graph in 8 bits, beside the one in 32.

    Raises:
        ArchiveError: the data to calibrate on is not there or is another.
    """
    quantised = whole.with_suffix(".int8.onnx")
    if not quantised.is_file():
        dataset = _training_data(weights, card, root)
        log.info("%s: 8 bits are calibrated on %d images", card["network"], quantise.CALIBRATION)
        quantise.quantise(whole, quantise.sample(dataset), quantised)
    return quantised


def _gate(
    weights: Path, card: Card, graphs: tuple[Path, Path], runtime: str, root: Path | None
) -> tuple[quantise.Gate, dict[str, Any]]:
    """What 8 bits change, graphs of 32 and of 8 bits run by the engine that will serve; and what
    the card says otherwise.

    Raises:
        ArchiveError: the data to judge on is not there or is another, or the gate is not passed.
    """
    judged = graphs[1].with_suffix(f".{runtime}.json")
    if not judged.is_file():
        name = card["network"]
        dataset = _training_data(weights, card, root)
        whole, in_8_bits = (engine.load(runtime, one) for one in graphs)
        rule = quantise.fit_rule(card, in_8_bits, dataset)
        gate = quantise.gate(card, rule, whole, in_8_bits, dataset)
        table = quantise.table(gate)
        if quantise.failed(gate):
            raise ArchiveError(
                f"{name}: 8 bits change too much, and nothing is built:\n{table}\n"
                f"Serve it with PRECISION={F32}"
            )
        log.info("%s: what 8 bits change\n%s", name, table)
        checkpoint.write_text(judged, json.dumps({"gate": gate, "rule": rule}) + "\n")
    found = json.loads(judged.read_text())
    return found["gate"], found["rule"]


def _training_data(weights: Path, card: Card, root: Path | None) -> Dataset:
    """What a network was trained on: in the named folder, else where its run found it."""
    trained = card["training"]
    facts: dict[str, Any] = {"seed": trained["seed"], "patient": None, "skip_broken": False}
    run = weights.parent / RUN
    if run.is_file():
        facts |= json.loads(run.read_text())
    root = root or Path(facts.get("data", KAGGLE))
    if not root.is_dir():
        raise ArchiveError(
            f"PRECISION={INT8} is calibrated and judged on what {card['network']} was trained on, "
            f"{trained['data']['name']}: name it with DATA=folder"
        )
    options = {key: facts[key] for key in ("seed", "patient", "skip_broken")}
    dataset = data.load(root, card["input"]["size"], **options)
    if dataset.sha256 != trained["data"]["sha256"]:
        raise ArchiveError(
            f"{root} is not what {card['network']} was trained on "
            f"({trained['data']['name']}, sha256 {trained['data']['sha256'][:12]})"
        )
    return dataset


def milliseconds(graph: Path, image: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Median milliseconds in which each engine answers one image (1, S, S) on this machine. They
    take turns, so that what else runs here slows all of them."""
    engines = {name: engine.load(name, graph) for name in engine.ENGINES}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, run in engines.items():
            started = time.perf_counter()
            run(image)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(of_engine) for name, of_engine in times.items()}


def choose(times: dict[str, float]) -> str:
    """The fastest engine, or the one that takes less memory where that is nearly as fast."""
    best = min(times, key=times.__getitem__)
    return LEAN if times[LEAN] < WORTH * times[best] else best


def golden_image() -> bytes:
    """A PNG that every worker answers before it serves: a phantom, so of no patient."""
    file = io.BytesIO()
    PIL.Image.fromarray(phantoms.draw(0, 0, 1, 224).image).save(file, "PNG")
    return file.getvalue()


def _examples(size: int, count: int = 8) -> torch.Tensor:
    """Pixels (count, size, size) of phantoms of both classes: always there, and like X-rays."""
    drawn = [phantoms.draw(0, number, number % 2, size).image for number in range(count)]
    return torch.from_numpy(np.stack(drawn))
