"""Runs the graph of an archive: ONNX Runtime on the CPU."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from handlers.ensemble import Found

THREADS = "PNEUMOCAM_THREADS"

Pixels = npt.NDArray[np.uint8]


class Engine:
    """Pixels uint8 (N, S, S) → logits (N, 2), class activation maps (N, 2, h, w), in logits, and,
    where the graph has them, distances (N, 1 + K) from the training images."""

    def __init__(self, graph: Path, threads: int | None = None) -> None:
        """Load an ONNX file.

        Threads are `threads`, else the environment's PNEUMOCAM_THREADS, else one a physical core
        (in a container with a share of the cores, ONNX Runtime still sees all of the machine's).

        Raises:
            ValueError: PNEUMOCAM_THREADS is no whole number above 0.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads() if threads is None else threads
        # A thread that spins while it waits takes the core from the other network's worker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, pixels: Pixels) -> list[Found]:
        """What is found on each of pixels (N, S, S), N at least 1."""
        outputs = self._session.run(None, {"pixels": pixels})
        return [Found(*one) for one in zip(*outputs, strict=True)]


def _threads() -> int:
    given = os.environ.get(THREADS, "")
    if not given:
        return 0  # ONNX Runtime's word for one a physical core
    if not (given.isascii() and given.isdigit() and int(given) > 0):
        raise ValueError(f"{THREADS}={given}: give a whole number above 0, or leave it out")
    return int(given)
