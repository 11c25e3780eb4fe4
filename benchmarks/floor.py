"""What an answer costs at least: its parts in one process, one thread of Python, without HTTP.

JPEG → pixels (`handlers.pixels`) → the archive's own graph → overlay (`handlers.heatmap`) → JSON.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import load, orders, processes
from handlers import card as cards
from handlers import heatmap, pixels
from handlers.arrays import Pixels
from handlers.card import CARD, Archived, ArchivedNetwork

ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
BATCHES = (1, 4)  # of a lone request, and the largest that the server makes (client.api.BATCH_SIZE)

Network = Callable[[Pixels], tuple[Any, Any]]  # logits (N, 2), maps (N, 2, h, w)


def open_onnx_runtime(graph: Path, _shape: tuple[int, int, int]) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads that spin while Python decodes would be counted as work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda batch: tuple(session.run(["logits", "maps"], {"pixels": batch}))


def open_openvino(graph: Path, shape: tuple[int, int, int]) -> Network:
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape({"pixels": list(shape)})
    # Else f32 would be computed in bf16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(batch: Pixels) -> tuple[Any, Any]:
        found = request.infer({"pixels": batch}, share_inputs=True)
        return found["logits"], found["maps"]

    return run


OPEN = {ONNX_RUNTIME: open_onnx_runtime, OPENVINO: open_openvino}


def runtimes(card: Archived) -> list[str]:
    """Those that run the graph of an archive: none where it is PyTorch's, or of several."""
    is_onnx = isinstance(card, ArchivedNetwork) and card.graph.file.endswith(".onnx")
    return list(OPEN) if is_onnx else []


def answer_all(
    images: Sequence[bytes], card: ArchivedNetwork, network: Network
) -> Iterator[dict[str, Any]]:
    """What a batch of images must be answered at least."""
    decoded = [pixels.decode(image, card.input.size) for image in images]
    for image, logits, maps in zip(decoded, *network(np.stack(decoded)), strict=True):
        odds = np.exp(logits - logits.max())
        shown = int(logits.argmax())
        overlay = heatmap.overlay(image, maps[shown], card.map.scale)
        yield {
            "label": card.classes[shown],
            "probability": (odds / odds.sum()).tolist(),
            "heatmap": {
                "map": maps[shown].tolist(),
                "overlay": base64.b64encode(overlay).decode(),
            },
        }


def measure(
    images: Sequence[bytes], card: ArchivedNetwork, network: Network, batch: int, seconds: float
) -> dict[str, Any]:
    """Rate, wall milliseconds a request (p50, p95, p99) and CPU milliseconds a request."""
    turn, taken = 0, []
    busy, cpu, started = processes.machine_busy(), time.process_time(), time.perf_counter()
    while time.perf_counter() < started + seconds:
        chosen = [images[(turn + k) % len(images)] for k in range(batch)]
        before = time.perf_counter()
        for said in answer_all(chosen, card, network):
            json.dumps(said).encode()
        taken.append((time.perf_counter() - before) / batch)
        turn += batch
    whole, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "heatmap": load.OVERLAY,
        "batch": batch,
        "requests": turn,
        "seconds": round(whole, 3),
        "rate": round(turn / whole, 3),
        **load.latencies(taken),
        "cpu_ms": round(1000 * cpu / turn, 3),
        "others": round(max(0.0, processes.machine_busy() - busy - cpu) / whole, 3),
    }


def main() -> None:
    with orders.given() as (folder, images):
        card = cards.read(folder / CARD)
        if not isinstance(card, ArchivedNetwork):
            raise ValueError("the floor is that of one network: name its archive")

        @cache
        def network(runtime: str, batch: int) -> Network:
            size = card.input.size
            opened = OPEN[runtime](folder / card.graph.file, (batch, size, size))
            measure(images, card, opened, batch, 0.5)  # the first calls fill caches
            return opened

        def obeyed(runtime: str, batch: int, seconds: float) -> dict[str, Any]:
            return measure(images, card, network(runtime, batch), batch, seconds)

        orders.obey(obeyed)


if __name__ == "__main__":
    main()
