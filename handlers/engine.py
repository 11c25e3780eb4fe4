"""Engines: each runs an archive's graph with the runtime that its card names."""

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
    """ONNX Runtime, on the CPU."""

    def __init__(self, graph: Path, threads: int) -> None:
        """Load an ONNX file; 0 threads stands for one per physical core."""
        import onnxruntime  # here, so that a worker loads only the runtime it uses

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Otherwise ONNX Runtime keeps a block of memory for each batch size.
        options.enable_mem_pattern = False
        # A thread that spins while it waits would take the core from the other network's worker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, pixels: Pixels) -> list[ModelOutput]:
        """The network's output on each of pixels (N, S, S)."""
        outputs = self._session.run(None, {"pixels": pixels})
        return [ModelOutput(*each) for each in zip(*outputs, strict=True)]


class OpenVino:
    """OpenVINO, on the CPU."""

    def __init__(self, graph: Path, threads: int) -> None:
        """Compile an ONNX file; 0 threads stands for one per physical core."""
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            # Without this OpenVINO computes in bfloat16 on processors that have it.
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
        # Copies: the next request writes to the same memory.
        outputs = [
            self._request.get_output_tensor(index).data.copy() for index in range(self._count)
        ]
        return [ModelOutput(*each) for each in zip(*outputs, strict=True)]


class Torch:
    """PyTorch, on a GPU if there is one."""

    def __init__(self, graph: Path, threads: int, gpu: int | None = None) -> None:
        """Load a file of torch.export on the GPU with index `gpu` (None: the first).

        0 threads stands for one per physical core.
        """
        import torch
        from torch.export.passes import move_to_device_pass

        self._torch = torch
        if threads:
            torch.set_num_threads(threads)
        on_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda", gpu or 0) if on_gpu else torch.device("cpu")
        # TF32 would round the operands of a GPU's convolutions to ten bits.
        torch.backends.cudnn.allow_tf32 = False
        program = move_to_device_pass(torch.export.load(graph), self._device)
        self._run = program.module()
        # A stream per worker, or the workers would wait for each other.
        self._stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]

    def __call__(self, pixels: Pixels) -> list[ModelOutput]:
        """The network's output on each of pixels (N, S, S)."""
        torch = self._torch
        batch = torch.from_numpy(pixels)
        if self._stream is not None:
            batch = batch.pin_memory()  # only copies from pinned memory overlap with the GPU's work
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
    """The engine of a name, with its graph loaded: an ONNX file, for `torch` one of torch.export.

    `threads` defaults to PNEUMOCAM_THREADS in the environment, then to one per physical core (in a
    container with a share of the cores, the runtimes may still see all of the machine's). `gpu` is
    the index of the GPU for `torch`.

    Raises:
        ValueError: the engine is unknown, or PNEUMOCAM_THREADS is not a whole number above 0.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: known are {', '.join(ENGINES)}")
    threads = _threads() if threads is None else threads
    if engine == TORCH:
        return Torch(graph, threads, gpu)
    return OF_ONNX[engine](graph, threads)


def _threads() -> int:
    setting = os.environ.get(THREADS, "")
    if not setting:
        return 0  # the runtimes' own default: one per physical core
    if not (setting.isascii() and setting.isdigit() and int(setting) > 0):
        raise ValueError(f"{THREADS}={setting}: give a whole number above 0, or leave it out")
    return int(setting)


def give_back_memory() -> None:
    """Return free memory to the kernel (malloc_trim(3)); without glibc, do nothing.

    Loading a graph needs two or three times the memory of its weights.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, TypeError):  # not glibc; on Windows, CDLL(None) fails
        return
    trim(0)


def cores() -> int:
    """PNEUMOCAM_THREADS if it is set, else the number of cores this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _threads() or usable or 1
