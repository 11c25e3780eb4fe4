"""Runs the graph of an archive, by the runtime that its card names."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from handlers.arrays import Distances, Logits, Maps, Pixels

THREADS = "PNEUMOCAM_THREADS"


class ModelOutput(NamedTuple):
    """A network's output on one image: logits (2,), class activation maps (2, h, w) in logits and,
    where its graph has them, distances (1 + K,) from the training images."""

    logits: Logits
    maps: Maps
    distances: Distances | None = None


class Engine(Protocol):
    """Runs a network's graph on pixels uint8 (N, S, S), N at least 1."""

    def __call__(self, pixels: Pixels) -> list[ModelOutput]:
        """The network's output on each of pixels (N, S, S)."""


class OnnxRuntime:
    """By ONNX Runtime, on the CPU."""

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

    def __call__(self, pixels: Pixels) -> list[ModelOutput]:
        """The network's output on each of pixels (N, S, S)."""
        outputs = self._session.run(None, {"pixels": pixels})
        return [ModelOutput(*each) for each in zip(*outputs, strict=True)]


class OpenVino:
    """By OpenVINO, on the CPU."""

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

    def __call__(self, pixels: Pixels) -> list[ModelOutput]:
        """The network's output on each of pixels (N, S, S)."""
        self._request.infer([pixels])
        # Copies: the next request writes over the same memory.
        outputs = [
            self._request.get_output_tensor(place).data.copy() for place in range(self._count)
        ]
        return [ModelOutput(*each) for each in zip(*outputs, strict=True)]


class Torch:
    """By PyTorch, on a GPU where there is one."""

    def __init__(self, graph: Path, threads: int, gpu: int | None = None) -> None:
        """Load a file of torch.export; 0 threads is one a physical core. `gpu` is which, where
        there are several."""
        import torch
        from torch.export.passes import move_to_device_pass

        self._torch = torch
        if threads:
            torch.set_num_threads(threads)
        on_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda", gpu or 0) if on_gpu else torch.device("cpu")
        # Else a GPU's convolutions in f32 would be rounded to ten bits (TF32).
        torch.backends.cudnn.allow_tf32 = False
        program = move_to_device_pass(torch.export.load(graph), self._device)
        self._run = program.module()
        # Each worker has a stream of its own, or they would wait for each other.
        self._stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]

    def __call__(self, pixels: Pixels) -> list[ModelOutput]:
        """The network's output on each of pixels (N, S, S)."""
        torch = self._torch
        batch = torch.from_numpy(pixels)
        if self._stream is not None:
            batch = batch.pin_memory()  # a copy from elsewhere would not run beside the GPU
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            outputs = self._run(batch.to(self._device, non_blocking=True))
            arrays = [output.cpu().numpy() for output in outputs]
        return [ModelOutput(*each) for each in zip(*arrays, strict=True)]


OF_ONNX: dict[str, Callable[[Path, int], Engine]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}
TORCH = "torch"
ENGINES = (*OF_ONNX, TORCH)


def load(engine: str, graph: Path, threads: int | None = None, gpu: int | None = None) -> Engine:
    """An engine by its name, with its file: ONNX, or torch.export's for `torch`.

    Threads are `threads`, else the environment's PNEUMOCAM_THREADS, else one a physical core (in a
    container with a share of the cores, the runtimes may still see all of the machine's). `gpu` is
    which, for `torch`.

    Raises:
        ValueError: the engine is unknown, or PNEUMOCAM_THREADS is no whole number above 0.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: known are {', '.join(ENGINES)}")
    threads = _threads() if threads is None else threads
    if engine == TORCH:
        return Torch(graph, threads, gpu)
    return OF_ONNX[engine](graph, threads)


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
