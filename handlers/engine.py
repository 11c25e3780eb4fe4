"""Runs the graph of an archive on the CPU, by the runtime that its card names."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from handlers.ensemble import Found

THREADS = "PNEUMOCAM_THREADS"

Pixels = npt.NDArray[np.uint8]


class Engine(Protocol):
    """Pixels uint8 (N, S, S), N at least 1, → what is found on each: logits (2,), class activation
    maps (2, h, w), in logits, and, where the graph has them, distances (1 + K,)."""

    def __call__(self, pixels: Pixels) -> list[Found]:
        """What is found on each of pixels (N, S, S)."""


class OnnxRuntime:
    """By ONNX Runtime."""

    def __init__(self, graph: Path, threads: int) -> None:
        """Load an ONNX file; 0 threads is one a physical core."""
        import onnxruntime  # a worker loads the runtime it uses and no other

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Else the feature maps of every size of batch have a block of memory of their own.
        options.enable_mem_pattern = False
        # A thread that spins while it waits takes the core from the other network's worker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, pixels: Pixels) -> list[Found]:
        """What is found on each of pixels (N, S, S)."""
        outputs = self._session.run(None, {"pixels": pixels})
        return [Found(*one) for one in zip(*outputs, strict=True)]


class OpenVino:
    """By OpenVINO."""

    def __init__(self, graph: Path, threads: int) -> None:
        """Compile an ONNX file; 0 threads is one a physical core."""
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            # Where the processor multiplies bfloat16, OpenVINO would compute in it unasked.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        model = openvino.Core().compile_model(graph, "CPU", settings)
        self._request = model.create_infer_request()
        self._count = len(model.outputs)

    def __call__(self, pixels: Pixels) -> list[Found]:
        """What is found on each of pixels (N, S, S)."""
        self._request.infer([pixels])
        # Copies: the next request writes over the same memory.
        outputs = [
            self._request.get_output_tensor(place).data.copy() for place in range(self._count)
        ]
        return [Found(*one) for one in zip(*outputs, strict=True)]


ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}


def load(engine: str, graph: Path, threads: int | None = None) -> Engine:
    """An engine by its name, with an ONNX file.

    Threads are `threads`, else the environment's PNEUMOCAM_THREADS, else one a physical core (in a
    container with a share of the cores, the runtimes may still see all of the machine's).

    Raises:
        ValueError: the engine is unknown, or PNEUMOCAM_THREADS is no whole number above 0.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: known are {', '.join(ENGINES)}")
    return ENGINES[engine](graph, _threads() if threads is None else threads)


def _threads() -> int:
    given = os.environ.get(THREADS, "")
    if not given:
        return 0  # the runtimes' own choice: one a physical core
    if not (given.isascii() and given.isdigit() and int(given) > 0):
        raise ValueError(f"{THREADS}={given}: give a whole number above 0, or leave it out")
    return int(given)


def give_back_memory() -> None:
    """Let glibc return to the kernel what is free; elsewhere nothing is done (malloc_trim(3)).

    To load a graph takes its weights two or three times.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, TypeError):  # another C library than glibc; Windows has none to name
        return
    trim(0)


def cores() -> int:
    """PNEUMOCAM_THREADS, else how many cores this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _threads() or usable or 1
