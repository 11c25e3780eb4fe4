"""Exports a network with hooks and normalisation: uint8 images → logits, maps, distances.

To ONNX, or to the format of torch.export for PyTorch.
"""

import copy
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from handlers import engine
from handlers.card import EvaluatedNetwork
from handlers.engine import Engine
from train.evaluation.novelty import Reference, halves
from train.model.cam import ExplainedClassifier, capture
from train.model.networks import Classifier

GRAPH = "graph.onnx"
TOLERANCE = 1e-3  # of logits and maps, both in logits, and of distances
OUTPUTS = ("logits", "maps", "distances")
DYNAMIC_BATCH = {"pixels": {0: torch.export.Dim("N", min=1, max=1024)}}


class ExportError(RuntimeError):
    """A graph's outputs differ from the network's."""


class ExportModule(nn.Module):
    """The exported module: pixels (N, S, S) → logits, maps and, with a reference, distances."""

    def __init__(self, network: Classifier, reference: Reference | None) -> None:
        """Wrap a network without copying it."""
        super().__init__()
        self.explained = ExplainedClassifier(network)
        self.reference = reference

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Logits (N, 2), maps (N, 2, h, w) and, with a reference, distances (N, 1 + K)."""
        if self.reference is None:
            logits, maps = self.explained(pixels)
            return logits, maps
        trunk = self.explained.network.trunk
        with capture(trunk.get_submodule(self.reference.stage)) as early:
            logits, maps = self.explained(pixels)
        return logits, maps, self.reference(halves(early.value.float()))


def export(network: Classifier, size: int, path: Path, reference: Reference | None = None) -> None:
    """Write the graph as a single ONNX file.

    Its input is `pixels`, uint8 (N, size, size); its outputs are `logits`, `maps` and, with a
    reference, `distances`.
    """
    with warnings.catch_warnings():
        # The exporter warns about its own internals; `verify` checks the result.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _export_module(network, reference),
            (_example(size),),
            path,
            input_names=["pixels"],
            output_names=list(OUTPUTS if reference else OUTPUTS[:2]),
            dynamic_shapes=DYNAMIC_BATCH,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(path)
    for node in graph.graph.node:
        del node.metadata_props[:]  # paths of this machine
    onnx.save(graph, path)


def export_program(
    network: Classifier,
    size: int,
    path: Path,
    reference: Reference | None = None,
    *,
    half: bool = False,
) -> None:
    """Write the graph as a single file of torch.export.

    With `half`, the trunk computes in half precision. Everything after the feature maps stays in
    f32, so that mean(map) + bias = logit.
    """
    if half:
        network = _in_half(network)
    program = torch.export.export(
        _export_module(network, reference), (_example(size),), dynamic_shapes=DYNAMIC_BATCH
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    torch.export.save(program, path)


def export_cached(
    network: Classifier,
    card: EvaluatedNetwork,
    reference: Reference | None,
    folder: Path,
    runtime: str,
    *,
    half: bool,
) -> Path:
    """The path of a network's graph in a folder, in the format of an engine.

    The graph is exported unless the folder contains it already. `half` applies to PyTorch only.
    """
    hashes = [card.weights_sha256]
    if reference is not None and card.novelty is not None:
        hashes.append(card.novelty.reference_sha256)
    stem = "-".join(sha256[:32] for sha256 in hashes if sha256 is not None)
    size = card.input.size
    if runtime == engine.TORCH:
        graph = folder / f"{stem}{'-half' if half else ''}.pt2"
        if not graph.is_file():
            export_program(network, size, graph, reference, half=half)
    else:
        graph = folder / f"{stem}.onnx"
        if not graph.is_file():
            export(network, size, graph, reference)
    return graph


def _in_half(network: Classifier) -> Classifier:
    """A copy whose trunk computes in half precision, with inputs and outputs in f32."""
    network = copy.deepcopy(network)
    network.trunk.half()
    network.trunk.register_forward_pre_hook(lambda _trunk, inputs: (inputs[0].half(),))
    network.trunk.register_forward_hook(lambda _trunk, _inputs, output: output.float())
    return network


def _export_module(network: Classifier, reference: Reference | None) -> ExportModule:
    # channels_last is training's memory layout; the runtime chooses its own.
    contiguous = network.cpu().to(memory_format=torch.contiguous_format)
    return ExportModule(contiguous, reference).eval()


def _example(size: int) -> Tensor:
    return torch.zeros(2, size, size, dtype=torch.uint8)


def max_difference(
    network: Classifier, run: Engine, pixels: Tensor, reference: Reference | None = None
) -> float:
    """The largest absolute difference between an engine's outputs and the network's.

    On pixels (N, S, S); over logits, cells of maps (both in logits) and, with a reference,
    distances.
    """
    with torch.inference_mode():
        expected_outputs = ExportModule(network, reference).eval()(pixels)
    largest = 0.0
    for batch in (pixels, pixels[:1]):  # batch sizes that were not traced
        outputs = zip(*run(batch.numpy()), strict=True)
        for output, expected in zip(outputs, expected_outputs, strict=False):
            differences = np.abs(np.stack(output) - expected[: len(batch)].numpy())
            largest = max(largest, float(differences.max()))
    return largest


def verify(
    network: Classifier, run: Engine, pixels: Tensor, reference: Reference | None = None
) -> float:
    """The result of `max_difference`, if it is within tolerance.

    Raises:
        ExportError: it is more than 1e-3, or NaN.
    """
    largest = max_difference(network, run, pixels, reference)
    if not largest <= TOLERANCE:  # also true of NaN
        raise ExportError(f"graph and network differ by {largest} (at most {TOLERANCE})")
    return largest
