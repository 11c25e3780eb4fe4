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

import numpy as np
import PIL.Image
import torch

from handlers import engine, files
from handlers.arrays import Pixels
from handlers.card import EvaluatedNetwork, GraphCard
from handlers.card_fields import Graph, NoveltyRule
from handlers.pixels import decode
from handlers.records import Record, encode, extend
from handlers.records import decode as decode_record
from train import checkpoint, data, novelty, phantoms, quantise, run_facts
from train.cam import explain
from train.data import Dataset
from train.export import difference, export, export_program, verify
from train.networks import Classifier
from train.novelty import Reference
from train.options import KAGGLE

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


def with_graph(weights: Path, exported: Path, target: Path, running: Running) -> GraphCard:
    """Export a network to a file; its card with what was exported, and what is to run it.

    What lies in the folder `exported` already is not exported again. The file's suffix is the
    engine's.

    Raises:
        ArchiveError: the network was never judged, the engine does not compute in that precision,
            or fewer bits change too much or lack their data.
        ExportError: graph and network differ.
    """
    network, trained_card = checkpoint.load(weights)
    precision = running.precision
    if not isinstance(trained_card, EvaluatedNetwork):
        raise ArchiveError(f"{weights} was never judged: run make evaluate")
    card = trained_card
    size = card.input.size
    reference = novelty.load(weights, card)

    def graph_of(runtime: str, precision: str) -> Path:
        """An engine's file, written where it is not there yet."""
        graph = _exported(network, card, reference, exported, runtime, precision)
        return _in_8_bits(weights, card, graph, running.data) if precision == INT8 else graph

    candidates, chosen, times = _candidates(running), running.engine, None
    if chosen == AUTO:
        graphs = {runtime: graph_of(runtime, precision) for runtime in candidates}
        times = milliseconds(graphs, _examples(size, 1).numpy())
        chosen = choose(times)
    graph = graph_of(chosen, precision)
    gate = None
    if precision != F32:
        pair = graph_of(chosen, F32), graph
        gate = _gate(weights, card, pair, chosen, precision, running.data)
    target = target.with_suffix(graph.suffix)
    shutil.copy(graph, target)
    runs = engine.load(chosen, target)
    if precision == F32:
        largest = verify(network, runs, _examples(size), reference)
    else:  # whose distances have a rule of their own
        largest = difference(network, runs, _examples(size))
    log.info(
        "%s: %s, %s; a logit or a cell of the map differs from the network's by at most %.1e",
        *(card.network, chosen, precision, largest),
    )
    golden = decode(golden_image(), size)[None]
    logits = runs(golden)[0].logits
    if precision == F32:  # the logits of the network itself, not of its graph
        logits = explain(network, torch.from_numpy(golden))[0][0].numpy()
    return extend(
        GraphCard,
        card,
        novelty=card.novelty if gate is None else gate.novelty,
        golden_logits=tuple(float(value) for value in logits),
        graph=Graph(
            file=target.name,
            sha256=files.sha256(target),
            precision=precision,
            milliseconds=times,
            engine=chosen,
            gate=None if gate is None else gate.gate,
            max_logit_difference=largest,
        ),
    )


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
    fast = [runtime for runtime in able if runtime != engine.TORCH or torch.cuda.is_available()]
    return fast or list(able)


def _exported(
    network: Classifier,
    card: EvaluatedNetwork,
    reference: Reference | None,
    folder: Path,
    runtime: str,
    precision: str,
) -> Path:
    """The network's graph, in a runtime's format, exported into a folder where it is not there yet.
    In 32 bits, or in half precision."""
    hashes = [card.weights_sha256]
    if reference is not None and card.novelty is not None:
        hashes.append(card.novelty.reference_sha256)
    stem = "-".join(sha256[:32] for sha256 in hashes if sha256 is not None)
    size, half = card.input.size, precision == F16
    if runtime == engine.TORCH:
        graph = folder / f"{stem}{'-half' if half else ''}.pt2"
        if not graph.is_file():
            export_program(network, size, graph, reference, half=half)
    else:
        graph = folder / f"{stem}.onnx"
        if not graph.is_file():
            export(network, size, graph, reference)
    return graph


def _in_8_bits(weights: Path, card: EvaluatedNetwork, whole: Path, root: Path | None) -> Path:
    """The graph in 8 bits, beside the one in 32.

    Raises:
        ArchiveError: the data to calibrate on is not there or is another.
    """
    quantised = whole.with_suffix(".int8.onnx")
    if not quantised.is_file():
        dataset = _training_data(weights, card, root)
        log.info("%s: 8 bits are calibrated on %d images", card.network, quantise.CALIBRATION)
        quantise.quantise(whole, quantise.sample(dataset), quantised)
    return quantised


@dataclass(frozen=True, kw_only=True)
class GateResult(Record):
    """What fewer bits change, by the names of `quantise.LIMITS`, and novelty's rule for them."""

    gate: Mapping[str, float]
    novelty: NoveltyRule | None = None


def _gate(
    weights: Path,
    card: EvaluatedNetwork,
    graphs: tuple[Path, Path],
    runtime: str,
    precision: str,
    root: Path | None,
) -> GateResult:
    """What fewer bits change, graphs of 32 and of fewer run by the engine that will serve.

    Raises:
        ArchiveError: the data to judge on is not there or is another, or the gate is not passed.
    """
    path = graphs[1].with_suffix(f".{runtime}.json")
    if path.is_file():
        return decode_record(GateResult, json.loads(path.read_text()))
    dataset = _training_data(weights, card, root)
    whole, fewer = (engine.load(runtime, graph) for graph in graphs)
    rule = quantise.fit_rule(card, fewer, dataset)
    gate = quantise.gate(card, rule, whole, fewer, dataset)
    table = quantise.table(gate)
    if quantise.failed(gate):
        raise ArchiveError(
            f"{card.network}: {precision} changes too much, and nothing is built:\n{table}\n"
            f"Serve it with PRECISION={F32}"
        )
    log.info("%s: what %s changes\n%s", card.network, precision, table)
    result = GateResult(gate=gate, novelty=rule)
    files.write_text(path, json.dumps(encode(result)) + "\n")
    return result


def _training_data(weights: Path, card: EvaluatedNetwork, root: Path | None) -> Dataset:
    """What a network was trained on: in the named folder, else where its run found it."""
    run = weights.parent
    facts = run_facts.read(run) if (run / run_facts.RUN).is_file() else None
    training = card.training
    root = root or (Path(facts.data) if facts else KAGGLE)
    if not root.is_dir():
        raise ArchiveError(
            f"less than {F32} is judged on what {card.network} was trained on, "
            f"{training.data.name}: name it with DATA=folder"
        )
    dataset = data.load(
        root,
        card.input.size,
        seed=training.split_by,
        patient=facts.patient if facts else None,
        skip_broken=facts.skip_broken if facts else False,
    )
    if dataset.sha256 != training.data.sha256:
        raise ArchiveError(
            f"{root} is not what {card.network} was trained on "
            f"({training.data.name}, sha256 {training.data.sha256[:12]})"
        )
    return dataset


def milliseconds(graphs: Mapping[str, Path], image: Pixels) -> dict[str, float]:
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
