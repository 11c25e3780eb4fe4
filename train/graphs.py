"""A network → the graph that an archive holds, and what its card says of running it."""

import io
import json
import logging
import math
import shutil
import time
from collections.abc import Mapping
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
from train.card import split_seed
from train.checkpoint import Card
from train.data import Dataset
from train.export import difference, export, export_program, verify
from train.networks import Classifier
from train.novelty import Reference
from train.options import KAGGLE
from train.run import RUN

AUTO = "auto"  # the engine that `choose` chooses
F32, F16, INT8 = "f32", "f16", "int8"
PRECISIONS = {F32: engine.ENGINES, F16: (engine.TORCH,), INT8: tuple(engine.OF_ONNX)}  # by whom
ROUNDS = 15  # of measuring how fast the engines are, in turn
LEAN = "onnxruntime"  # takes about half of the memory of the other (docs/log.md)
WORTH = 1.1  # times faster the other must be, to be worth its memory

log = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """An archive can't be built; the message says why."""


@dataclass(frozen=True)
class Running:
    """How an archive's graphs are to be run."""

    engine: str = AUTO
    precision: str = F32
    data: Path | None = None  # of training, for less than f32; None: where the run found it


DEFAULT = Running()


def with_graph(weights: Path, exported: Path, target: Path, running: Running) -> Card:
    """Export a network to a file; its card with what was exported, and what is to run it.

    What lies in the folder `exported` already is not exported again. The file's suffix is the
    engine's.

    Raises:
        ArchiveError: the network was never judged, the engine does not compute in that precision,
            or fewer bits change too much or lack their data.
        ExportError: graph and network differ.
    """
    network, card = checkpoint.load(weights)
    name, precision = card["network"], running.precision
    if "temperature" not in card:
        raise ArchiveError(f"{weights} was never judged: run make evaluate")
    size = card["input"]["size"]
    reference = novelty.load(weights, card)
    facts: dict[str, Any] = {"precision": precision}

    def graph_of(one: str, precision: str) -> Path:
        """An engine's file, written where it is not there yet."""
        graph = _exported(network, card, reference, exported, one, precision)
        return _in_8_bits(weights, card, graph, running.data) if precision == INT8 else graph

    candidates, chosen = _candidates(running), running.engine
    if chosen == AUTO:
        graphs = {one: graph_of(one, precision) for one in candidates}
        facts["milliseconds"] = milliseconds(graphs, _examples(size, 1).numpy())
        chosen = choose(facts["milliseconds"])
    facts["engine"] = chosen
    graph = graph_of(chosen, precision)
    if precision != F32:
        whole = graph_of(chosen, F32)
        facts["gate"], rule = _gate(weights, card, (whole, graph), facts, running.data)
        card = {**card, **rule}
    target = target.with_suffix(graph.suffix)
    shutil.copy(graph, target)
    runs = engine.load(chosen, target)
    if precision == F32:
        apart = verify(network, runs, _examples(size), reference)
    else:  # whose distances have a rule of their own
        apart = difference(network, runs, _examples(size))
    log.info(
        "%s: %s, %s; a logit or a cell of the map differs from the network's by at most %.1e",
        *(name, chosen, precision, apart),
    )
    golden = decode(golden_image(), size)[None]
    answered = runs(golden)[0].logits
    if precision == F32:  # what the network itself, not its graph, finds there
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


def _candidates(running: Running) -> list[str]:
    """The engines to choose from; PyTorch where it has a GPU, or alone computes in the precision.

    Raises:
        ArchiveError: the one that was named does not compute in the precision.
    """
    able = PRECISIONS[running.precision]
    if running.engine not in (AUTO, *able):
        raise ArchiveError(
            f"ENGINE={running.engine} does not run PRECISION={running.precision}: "
            f"give {' or '.join(able)}, or leave it out"
        )
    there = [one for one in able if one != engine.TORCH or torch.cuda.is_available()]
    return there or list(able)


def _exported(
    network: Classifier,
    card: Card,
    reference: Reference | None,
    folder: Path,
    runtime: str,
    precision: str,
) -> Path:
    """The network's graph, in a runtime's format, exported into a folder where it is not there yet.
    In 32 bits, or in half precision."""
    parts = [card["weights_sha256"]]
    if reference is not None:
        parts.append(card[novelty.CARD]["reference_sha256"])
    stem = "-".join(part[:32] for part in parts)
    size, half = card["input"]["size"], precision == F16
    if runtime == engine.TORCH:
        graph = folder / f"{stem}{'-half' if half else ''}.pt2"
        if not graph.is_file():
            export_program(network, size, graph, reference, half=half)
    else:
        graph = folder / f"{stem}.onnx"
        if not graph.is_file():
            export(network, size, graph, reference)
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
    weights: Path,
    card: Card,
    graphs: tuple[Path, Path],
    facts: Mapping[str, Any],
    root: Path | None,
) -> tuple[quantise.Gate, dict[str, Any]]:
    """What fewer bits change, graphs of 32 and of fewer run by the engine that will serve; and what
    the card says otherwise.

    Raises:
        ArchiveError: the data to judge on is not there or is another, or the gate is not passed.
    """
    runtime, precision = facts["engine"], facts["precision"]
    judged = graphs[1].with_suffix(f".{runtime}.json")
    if not judged.is_file():
        name = card["network"]
        dataset = _training_data(weights, card, root)
        whole, fewer = (engine.load(runtime, one) for one in graphs)
        rule = quantise.fit_rule(card, fewer, dataset)
        gate = quantise.gate(card, rule, whole, fewer, dataset)
        table = quantise.table(gate)
        if quantise.failed(gate):
            raise ArchiveError(
                f"{name}: {precision} changes too much, and nothing is built:\n{table}\n"
                f"Serve it with PRECISION={F32}"
            )
        log.info("%s: what %s changes\n%s", name, precision, table)
        checkpoint.write_text(judged, json.dumps({"gate": gate, "rule": rule}) + "\n")
    found = json.loads(judged.read_text())
    return found["gate"], found["rule"]


def _training_data(weights: Path, card: Card, root: Path | None) -> Dataset:
    """What a network was trained on: in the named folder, else where its run found it."""
    trained = card["training"]
    facts: dict[str, Any] = {"patient": None, "skip_broken": False}
    run = weights.parent / RUN
    if run.is_file():
        facts |= json.loads(run.read_text())
    root = root or Path(facts.get("data", KAGGLE))
    if not root.is_dir():
        raise ArchiveError(
            f"less than {F32} is judged on what {card['network']} was trained on, "
            f"{trained['data']['name']}: name it with DATA=folder"
        )
    options = {key: facts[key] for key in ("patient", "skip_broken")}
    dataset = data.load(root, card["input"]["size"], seed=split_seed(card), **options)
    if dataset.sha256 != trained["data"]["sha256"]:
        raise ArchiveError(
            f"{root} is not what {card['network']} was trained on "
            f"({trained['data']['name']}, sha256 {trained['data']['sha256'][:12]})"
        )
    return dataset


def milliseconds(graphs: Mapping[str, Path], image: npt.NDArray[np.uint8]) -> dict[str, float]:
    """The least milliseconds in which each engine, by its file, answers one image (1, S, S) on this
    machine. They take turns; what else runs here only adds, and not to all of them alike."""
    engines = {name: engine.load(name, graph) for name, graph in graphs.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, run in engines.items():
            started = time.perf_counter()
            run(image)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: min(of_engine) for name, of_engine in times.items()}


def choose(times: dict[str, float]) -> str:
    """The fastest engine, or the one that takes less memory where that is nearly as fast."""
    best = min(times, key=times.__getitem__)
    return LEAN if times.get(LEAN, math.inf) < WORTH * times[best] else best


def golden_image() -> bytes:
    """A PNG that every worker answers before it serves: a phantom, so of no patient."""
    file = io.BytesIO()
    PIL.Image.fromarray(phantoms.draw(0, 0, 1, 224).image).save(file, "PNG")
    return file.getvalue()


def _examples(size: int, count: int = 8) -> torch.Tensor:
    """Pixels (count, size, size) of phantoms of both classes: always there, and like X-rays."""
    drawn = [phantoms.draw(0, number, number % 2, size).image for number in range(count)]
    return torch.from_numpy(np.stack(drawn))
