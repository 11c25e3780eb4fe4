"""Network + hooks + normalisation → one graph: uint8 image → logits, maps, distances.

ONNX, or torch.export's own format for PyTorch.
"""

import copy
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from handlers.engine import Engine
from train.cam import Explained, capture
from train.networks import Classifier
from train.novelty import Reference, halves

GRAPH = "graph.onnx"
TOLERANCE = 1e-3  # in logits, in the maps, which are in logits too, and in distances
OUTPUTS = ("logits", "maps", "distances")
ANY_NUMBER = {"pixels": {0: torch.export.Dim("N", min=1, max=1024)}}


class ExportError(RuntimeError):
    """The graph does not answer as the network does."""


class Answering(nn.Module):
    """A network that answers pixels (N, S, S) with logits and maps, and with distances (N, 1 + K)
    from its training images where their reference is known."""

    def __init__(self, network: Classifier, reference: Reference | None) -> None:
        """Answer with this network; it is used, not copied."""
        super().__init__()
        self.explained = Explained(network)
        self.reference = reference

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Logits (N, 2), maps (N, 2, h, w) and distances (N, 1 + K)."""
        if self.reference is None:
            logits, maps = self.explained(pixels)
            return logits, maps
        trunk = self.explained.network.trunk
        with capture(trunk.get_submodule(self.reference.stage)) as early:
            logits, maps = self.explained(pixels)
        return logits, maps, self.reference(halves(early.value.float()))


def export(network: Classifier, size: int, path: Path, reference: Reference | None = None) -> None:
    """Write the graph, ONNX, one file: `pixels` uint8 (N, size, size) → `logits`, `maps` and, with
    a reference, `distances`."""
    with warnings.catch_warnings():
        # The exporter warns of its own internals; `verify` is what tells whether it worked.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _answering(network, reference),
            (_example(size),),
            path,
            input_names=["pixels"],
            output_names=list(OUTPUTS if reference else OUTPUTS[:2]),
            dynamic_shapes=ANY_NUMBER,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(path)
    for node in graph.graph.node:
        del node.metadata_props[:]  # where in whose checkout the exporter met each operation
    onnx.save(graph, path)


def export_program(
    network: Classifier,
    size: int,
    path: Path,
    reference: Reference | None = None,
    *,
    half: bool = False,
) -> None:
    """Write the same as a program of torch.export, one file; with the trunk in half precision where
    `half` says so. What follows the feature maps stays in f32, so that mean(map) + bias = logit."""
    if half:
        network = _in_half(network)
    program = torch.export.export(
        _answering(network, reference), (_example(size),), dynamic_shapes=ANY_NUMBER
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # as above
    torch.export.save(program, path)


def _in_half(network: Classifier) -> Classifier:
    """A copy whose trunk takes and gives f32, and computes in half precision."""
    network = copy.deepcopy(network)
    network.trunk.half()
    network.trunk.register_forward_pre_hook(lambda _trunk, inputs: (inputs[0].half(),))
    network.trunk.register_forward_hook(lambda _trunk, _inputs, output: output.float())
    return network


def _answering(network: Classifier, reference: Reference | None) -> Answering:
    # channels_last is a layout of training; the runtime chooses its own.
    plain = network.cpu().to(memory_format=torch.contiguous_format)
    return Answering(plain, reference).eval()


def _example(size: int) -> Tensor:
    return torch.zeros(2, size, size, dtype=torch.uint8)


def difference(
    network: Classifier, engine: Engine, pixels: Tensor, reference: Reference | None = None
) -> float:
    """The largest difference between an engine and its network on pixels (N, S, S), in logits: of
    a logit, a cell of a map or, with a reference, a distance."""
    with torch.inference_mode():
        expected = Answering(network, reference).eval()(pixels)
    worst = 0.0
    for batch in (pixels, pixels[:1]):  # batch sizes other than the traced one
        found = zip(*engine(batch.numpy()), strict=True)
        for one, other in zip(found, expected, strict=False):
            worst = max(worst, float(np.abs(np.stack(one) - other[: len(batch)].numpy()).max()))
    return worst


def verify(
    network: Classifier, engine: Engine, pixels: Tensor, reference: Reference | None = None
) -> float:
    """`difference`, where it is small enough.

    Raises:
        ExportError: it is more than 1e-3.
    """
    worst = difference(network, engine, pixels, reference)
    if not worst <= TOLERANCE:  # nor nan
        raise ExportError(f"graph and network differ by {worst} (at most {TOLERANCE})")
    return worst
