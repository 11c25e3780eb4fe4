"""Builds the graph of an archive from a network, and the part of the card on how it is run."""

import io
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from handlers import engine, files
from handlers.card import EvaluatedNetwork, GraphCard
from handlers.card_fields import Graph, NoveltyRule
from handlers.pixels import decode
from handlers.records import Record, encode, extend
from handlers.records import decode as decode_record
from train.data import dataset as datasets
from train.data import phantoms
from train.data.dataset import Dataset
from train.evaluation import novelty
from train.fitting import run_facts
from train.fitting.options import KAGGLE
from train.model import checkpoint
from train.model.cam import explain
from train.package import engine_choice, quantise
from train.package.onnx_export import export_cached, max_difference, verify

AUTO = "auto"  # the engine is chosen by `engine_choice`
F32, F16, INT8 = "f32", "f16", "int8"
# The engines that can compute in each precision.
PRECISIONS = {F32: engine.ENGINES, F16: (engine.TORCH,), INT8: tuple(engine.OF_ONNX)}

log = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """An archive can't be built; the message gives the reason."""


@dataclass(frozen=True)
class GraphOptions:
    """Engine and precision of an archive's graphs."""

    engine: str = AUTO
    precision: str = F32
    data: Path | None = None  # training data, needed below f32; None: the folder in run.json


DEFAULT = GraphOptions()


def with_graph(weights: Path, exported: Path, target: Path, options: GraphOptions) -> GraphCard:
    """Write a network's graph to a file; returns its card with the graph's fields.

    Graphs are cached in the folder `exported`. The suffix of `target` is replaced by the one that
    the engine needs.

    Raises:
        ArchiveError: the network was not evaluated, the engine can't compute in that precision, or
            reduced precision exceeds the limits or lacks its data.
        ExportError: the graph's outputs differ from the network's.
    """
    network, trained_card = checkpoint.load(weights)
    precision = options.precision
    if not isinstance(trained_card, EvaluatedNetwork):
        raise ArchiveError(f"{weights} was not evaluated: run make evaluate")
    card = trained_card
    size = card.input.size
    reference = novelty.load(weights, card)

    def graph_of(runtime: str, precision: str) -> Path:
        half = precision == F16
        graph = export_cached(network, card, reference, exported, runtime, half=half)
        return _quantised(weights, card, graph, options.data) if precision == INT8 else graph

    candidates, chosen, times = _candidates(options), options.engine, None
    if chosen == AUTO:
        graphs = {runtime: graph_of(runtime, precision) for runtime in candidates}
        times = engine_choice.milliseconds(graphs, _examples(size, 1).numpy())
        chosen = engine_choice.choose(times)
    graph = graph_of(chosen, precision)
    gate = None
    if precision != F32:
        pair = graph_of(chosen, F32), graph
        gate = _gate(weights, card, pair, chosen, precision, options.data)
    target = target.with_suffix(graph.suffix)
    shutil.copy(graph, target)
    run = engine.load(chosen, target)
    if precision == F32:
        largest = verify(network, run, _examples(size), reference)
    else:  # The distances differ, but are judged by a rule of their own.
        largest = max_difference(network, run, _examples(size))
    log.info(
        "%s: %s, %s; a logit or a cell of the map differs from the network's by at most %.1e",
        *(card.network, chosen, precision, largest),
    )
    golden = decode(golden_image(), size)[None]
    logits = run(golden)[0].logits
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


def _candidates(options: GraphOptions) -> list[str]:
    """The engines to choose from.

    PyTorch is one of them if it has a GPU, or if no other engine computes in the precision.

    Raises:
        ArchiveError: the engine in the options can't compute in the precision.
    """
    capable = PRECISIONS[options.precision]
    if options.engine not in (AUTO, *capable):
        raise ArchiveError(
            f"ENGINE={options.engine} does not run PRECISION={options.precision}: "
            f"give {' or '.join(capable)}, or leave it out"
        )
    fast = [runtime for runtime in capable if runtime != engine.TORCH or torch.cuda.is_available()]
    return fast or list(capable)


def _quantised(weights: Path, card: EvaluatedNetwork, graph: Path, root: Path | None) -> Path:
    """The path of the graph in 8 bits; it is written if it does not exist yet.

    Raises:
        ArchiveError: the data to calibrate on is missing or differs.
    """
    quantised = graph.with_suffix(".int8.onnx")
    if not quantised.is_file():
        dataset = _training_data(weights, card, root)
        log.info("%s: calibrating 8 bits on %d images", card.network, quantise.CALIBRATION)
        quantise.quantise(graph, quantise.calibration_images(dataset), quantised)
    return quantised


@dataclass(frozen=True, kw_only=True)
class GateResult(Record):
    """Differences of reduced precision, by the names of `quantise.LIMITS`, and its novelty rule."""

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
    """Compare two graphs, in f32 and in reduced precision, run by the engine that will serve.

    The result is cached beside the second graph.

    Raises:
        ArchiveError: the data to compare on is missing or differs, or a difference exceeds its
            limit.
    """
    path = graphs[1].with_suffix(f".{runtime}.json")
    if path.is_file():
        return decode_record(GateResult, json.loads(path.read_text()))
    dataset = _training_data(weights, card, root)
    full, reduced = (engine.load(runtime, graph) for graph in graphs)
    rule = quantise.fit_rule(card, reduced, dataset)
    gate = quantise.gate(card, rule, full, reduced, dataset)
    table = quantise.table(gate)
    if quantise.failures(gate):
        raise ArchiveError(
            f"{card.network}: {precision} changes too much, nothing was built:\n{table}\n"
            f"Serve it with PRECISION={F32}"
        )
    log.info("%s: differences of %s\n%s", card.network, precision, table)
    result = GateResult(gate=gate, novelty=rule)
    files.write_text(path, json.dumps(encode(result)) + "\n")
    return result


def _training_data(weights: Path, card: EvaluatedNetwork, root: Path | None) -> Dataset:
    """The data set that a network was trained on, from `root` or, without it, as in run.json.

    Raises:
        ArchiveError: the folder is missing, or its data differs from the card's.
    """
    run = weights.parent
    facts = run_facts.read(run) if (run / run_facts.RUN).is_file() else None
    training = card.training
    root = root or (Path(facts.data) if facts else KAGGLE)
    if not root.is_dir():
        raise ArchiveError(
            f"a precision below {F32} is tested on the data that {card.network} was trained on, "
            f"{training.data.name}: name it with DATA=folder"
        )
    dataset = datasets.load(
        root,
        card.input.size,
        seed=training.split_by,
        patient=facts.patient if facts else None,
        skip_broken=facts.skip_broken if facts else False,
    )
    if dataset.sha256 != training.data.sha256:
        raise ArchiveError(
            f"{root} is not what {card.network} was trained on "
            f"({training.data.name}, sha256 {training.data.sha256[:12]}): name that with "
            "DATA=folder"
        )
    return dataset


def golden_image() -> bytes:
    """The PNG file on which every worker checks its graph at start: a phantom, no patient."""
    file = io.BytesIO()
    PIL.Image.fromarray(phantoms.draw(0, 0, 1, 224).image).save(file, "PNG")
    return file.getvalue()


def _examples(size: int, count: int = 8) -> torch.Tensor:
    """Pixels (count, size, size) of phantoms of both classes, which resemble X-rays."""
    drawn = [phantoms.draw(0, number, number % 2, size).image for number in range(count)]
    return torch.from_numpy(np.stack(drawn))
