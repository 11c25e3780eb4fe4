"""Network + hook + normalisation → one graph: uint8 image → logits, maps."""

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from train.cam import Explained, explain
from train.networks import Classifier

GRAPH = "graph.onnx"
TOLERANCE = 1e-3  # in logits and in the maps, which are in logits too


class ExportError(RuntimeError):
    """The graph does not answer as the network does."""


def export(network: Classifier, size: int, path: Path) -> None:
    """Write the graph, ONNX, one file: `pixels` uint8 (N, size, size) → `logits`, `maps`."""
    example = torch.zeros(2, size, size, dtype=torch.uint8)
    # channels_last is a layout of training; the runtime chooses its own.
    explained = Explained(network.cpu().to(memory_format=torch.contiguous_format).eval())
    with warnings.catch_warnings():
        # The exporter warns of its own internals; `verify` is what tells whether it worked.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            explained,
            (example,),
            path,
            input_names=["pixels"],
            output_names=["logits", "maps"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("N", min=1, max=1024)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def verify(network: Classifier, path: Path, pixels: Tensor) -> float:
    """The largest difference, in logits, between graph and network on pixels (N, S, S).

    Raises:
        ExportError: it is more than 1e-3 for a logit or a cell of a map.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = explain(network, pixels)
    worst = 0.0
    for batch in (pixels, pixels[:1]):  # batch sizes other than the traced one
        found = session.run(["logits", "maps"], {"pixels": batch.numpy()})
        for one, other in zip(found, expected, strict=True):
            worst = max(worst, float(np.abs(one - other[: len(batch)].numpy()).max()))
    if not worst <= TOLERANCE:
        raise ExportError(f"{path.name}: graph and network differ by {worst} (at most {TOLERANCE})")
    return worst
