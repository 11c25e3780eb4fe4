"""The floor of a request's cost: its steps in one process and one Python thread, without HTTP.

JPEG → pixels (`handlers.pixels`) → the archive's graph → overlay (`handlers.heatmap`) → JSON.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import load, processes, worker
from handlers import card as cards
from handlers import heatmap, pixels
from handlers.arrays import Pixels
from handlers.card import CARD, Archived, ArchivedNetwork

ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
BATCHES = (1, 4)  # a single request, and the server's largest batch (client.api.BATCH_SIZE)

Network = Callable[[Pixels], tuple[Any, Any]]  # pixels → logits (N, 2), maps (N, 2, h, w)


def load_onnx_runtime(graph: Path, _shape: tuple[int, int, int]) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads that spin while Python decodes would count as work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda batch: tuple(session.run(["logits", "maps"], {"pixels": batch}))


def load_openvino(graph: Path, shape: tuple[int, int, int]) -> Network:
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape({"pixels": list(shape)})
    # Without the hint f32 is computed in bf16 on processors that support it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(batch: Pixels) -> tuple[Any, Any]:
        outputs = request.infer({"pixels": batch}, share_inputs=True)
        return outputs["logits"], outputs["maps"]

    return run


LOADERS = {ONNX_RUNTIME: load_onnx_runtime, OPENVINO: load_openvino}


def runtimes(card: Archived) -> list[str]:
    """Names of the runtimes that run an archive's graph: none for a PyTorch graph or ensemble."""
    is_onnx = isinstance(card, ArchivedNetwork) and card.graph.file.endswith(".onnx")
    return list(LOADERS) if is_onnx else []


def answers(
    images: Sequence[bytes], card: ArchivedNetwork, network: Network
) -> Iterator[dict[str, Any]]:
    """The least that an answer needs, for each image of a batch: label, probabilities, heatmap."""
    decoded = [pixels.decode(image, card.input.size) for image in images]
    for image, logits, maps in zip(decoded, *network(np.stack(decoded)), strict=True):
        odds = np.exp(logits - logits.max())
        predicted = int(logits.argmax())
        overlay = heatmap.overlay(image, maps[predicted], card.map.scale)
        yield {
            "label": card.classes[predicted],
            "probability": (odds / odds.sum()).tolist(),
            "heatmap": {
                "map": maps[predicted].tolist(),
                "overlay": base64.b64encode(overlay).decode(),
            },
        }


def measure(
    images: Sequence[bytes], card: ArchivedNetwork, network: Network, batch: int, seconds: float
) -> dict[str, Any]:
    """Figures of a window, named as in `load.measure`: rate, p50, p95, p99, `cpu_ms`, `others`."""
    count, latencies = 0, []
    busy, cpu, started = processes.machine_busy(), time.process_time(), time.perf_counter()
    while time.perf_counter() < started + seconds:
        chosen = [images[(count + k) % len(images)] for k in range(batch)]
        before = time.perf_counter()
        for answer in answers(chosen, card, network):
            json.dumps(answer).encode()
        latencies.append((time.perf_counter() - before) / batch)
        count += batch
    duration, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "heatmap": load.OVERLAY,
        "batch": batch,
        "requests": count,
        "seconds": round(duration, 3),
        "rate": round(count / duration, 3),
        **load.latencies(latencies),
        "cpu_ms": round(1000 * cpu / count, 3),
        "others": round(max(0.0, processes.machine_busy() - busy - cpu) / duration, 3),
    }


def main() -> None:
    with worker.inputs() as (folder, images):
        card = cards.read(folder / CARD)
        if not isinstance(card, ArchivedNetwork):
            raise ValueError("the archive is of an ensemble: choose the archive of one network")

        @cache
        def network(runtime: str, batch: int) -> Network:
            size = card.input.size
            loaded = LOADERS[runtime](folder / card.graph.file, (batch, size, size))
            measure(images, card, loaded, batch, 0.5)  # the first calls fill caches
            return loaded

        def execute(runtime: str, batch: int, seconds: float) -> dict[str, Any]:
            return measure(images, card, network(runtime, batch), batch, seconds)

        worker.serve_commands(execute)


if __name__ == "__main__":
    main()
