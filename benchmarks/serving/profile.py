"""Milliseconds of a single request by step.

The handler answers in a process of its own. It is called as TorchServe's worker calls it, and
TorchServe's code reads and writes the request, its metrics and its log. The rest of a real server's
time, measured in turns with this process, is TorchServe's: its frontend, the sockets on both sides
of it, and the millisecond in which it waits to fill the batch.
"""

import functools
import itertools
import logging
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ts.context import Context
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.protocol import otf_message_handler as protocol
from ts.service import Service

from benchmarks.serving import worker as workers
from benchmarks.serving.results import ANSWER, DECODE, NETWORK, OVERLAY, REST, STEPS, WORKER
from handlers import card, engine, heatmap, pixels, response
from handlers.classifier import Classifier

METRICS = workers.ROOT / "deploy" / "metrics.yaml"


class Clock:
    """Sums the milliseconds spent in functions, by step."""

    def __init__(self) -> None:
        """Start with no time in any step."""
        self.milliseconds: dict[str, float] = defaultdict(float)

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; its time counts for `step`."""

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.milliseconds[step] += 1000 * (time.perf_counter() - started)

        return call


class Worker:
    """An archive's handler as in a worker of TorchServe, with a clock around its steps."""

    def __init__(self, folder: Path) -> None:
        """Load the archive that is unpacked in `folder`, and patch the steps' functions."""
        self.clock = Clock()
        for step, module, name in (
            (DECODE, pixels, "read"),
            (OVERLAY, heatmap, "overlay"),
            (ANSWER, response, "answer"),
            (ANSWER, response, "document"),
            (ANSWER, response, "encode"),
        ):
            setattr(module, name, self.clock.timed(step, getattr(module, name)))
        load = engine.load
        engine.load = lambda *names, **options: self.clock.timed(NETWORK, load(*names, **options))
        name = card.read(folder / card.CARD).network
        metrics = MetricsCacheYamlImpl(str(METRICS))
        metrics.initialize_cache()
        metrics.model_name = name
        self._context = Context(name, str(folder), {}, 1, None, "0", metrics=metrics)
        self._handler = Classifier()
        self._handler.initialize(self._context)

    def profile(self, image: bytes) -> dict[str, float]:
        """Milliseconds of one request: of each step, and their sum (`WORKER`)."""
        request = {
            "requestId": b"profile",
            "parameters": [{"name": "body", "contentType": "", "value": bytearray(image)}],
            "headers": [{"name": b"content-type", "value": b"application/octet-stream"}],
        }
        self.clock.milliseconds.clear()
        started = time.perf_counter()
        headers, inputs, ids = Service.retrieve_data_for_inference([request])
        self._context.request_ids, self._context.request_processor = ids, headers
        self._context.metrics.request_ids = ids
        body = self._handler.handle(inputs, self._context)
        protocol.create_predict_response(body, ids, "", 200, self._context)
        total = 1000 * (time.perf_counter() - started)
        if self._context.get_response_status(0)[0] != 200:
            raise RuntimeError(f"the handler refused an image: {body[0][:300]!r}")
        steps = dict(self.clock.milliseconds)
        return {**steps, REST: total - sum(steps.values()), WORKER: total}


def measure(worker: Worker, images: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """Mean milliseconds of each step and of their sum; means, because means add up."""
    profiles, started = [], time.perf_counter()
    for image in itertools.cycle(images):
        if time.perf_counter() > started + seconds:
            break
        profiles.append(worker.profile(image))
    means = {
        step: statistics.mean(profile[step] for profile in profiles) for step in (*STEPS, WORKER)
    }
    return {"requests": len(profiles), **{step: round(mean, 3) for step, mean in means.items()}}


def main() -> None:
    # As in a worker, lines of the log and of metrics are written, here to nowhere.
    logging.basicConfig(level=logging.INFO, filename=os.devnull)
    with workers.inputs() as (folder, images):
        worker = Worker(folder)
        measure(worker, images, 0.5)  # the first calls fill caches
        workers.serve_commands(functools.partial(measure, worker, images))


if __name__ == "__main__":
    main()
