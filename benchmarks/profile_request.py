"""Where the milliseconds of a request go that comes alone.

The handler answers in a process of its own, called as TorchServe's worker calls it, with
TorchServe's own reading and writing of a request around it, its metrics and its log. What a real
server takes beyond that, measured in turn with it, is TorchServe's: its frontend, the sockets
before and behind it, and the millisecond in which it waits for more requests to come.
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

from benchmarks import orders
from benchmarks.measured import ANSWER, DECODE, NETWORK, OVERLAY, REST, STEPS, WORKER
from handlers import card, engine, heatmap, pixels, response
from handlers.classifier import Classifier

METRICS = orders.ROOT / "deploy" / "metrics.yaml"


class Clock:
    """Adds up the milliseconds of functions, by step."""

    def __init__(self) -> None:
        """Nothing was called so far."""
        self.milliseconds: dict[str, float] = defaultdict(float)

    def timing(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts as this step's."""

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.milliseconds[step] += 1000 * (time.perf_counter() - started)

        return timed


class Worker:
    """The handler of an archive, as a worker of TorchServe has it, with a clock in its steps."""

    def __init__(self, folder: Path) -> None:
        """Load the unpacked archive."""
        self.clock = Clock()
        for step, module, name in (
            (DECODE, pixels, "read"),
            (OVERLAY, heatmap, "overlay"),
            (ANSWER, response, "answer"),
            (ANSWER, response, "document"),
            (ANSWER, response, "encode"),
        ):
            setattr(module, name, self.clock.timing(step, getattr(module, name)))
        loading = engine.load
        engine.load = lambda *given, **named: self.clock.timing(NETWORK, loading(*given, **named))
        name = card.read(folder / card.CARD).network
        metrics = MetricsCacheYamlImpl(str(METRICS))
        metrics.initialize_cache()
        metrics.model_name = name
        self._context = Context(name, str(folder), {}, 1, None, "0", metrics=metrics)
        self._handler = Classifier()
        self._handler.initialize(self._context)

    def answer(self, image: bytes) -> dict[str, float]:
        """Milliseconds of each step, and of all, of one request."""
        request = {
            "requestId": b"profile",
            "parameters": [{"name": "body", "contentType": "", "value": bytearray(image)}],
            "headers": [{"name": b"content-type", "value": b"application/octet-stream"}],
        }
        self.clock.milliseconds.clear()
        started = time.perf_counter()
        headers, data, ids = Service.retrieve_data_for_inference([request])
        self._context.request_ids, self._context.request_processor = ids, headers
        self._context.metrics.request_ids = ids
        body = self._handler.handle(data, self._context)
        protocol.create_predict_response(body, ids, "", 200, self._context)
        whole = 1000 * (time.perf_counter() - started)
        if self._context.get_response_status(0)[0] != 200:
            raise RuntimeError(f"the handler refused an image: {body[0][:300]!r}")
        steps = dict(self.clock.milliseconds)
        return {**steps, REST: whole - sum(steps.values()), WORKER: whole}


def measure(worker: Worker, images: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """The mean milliseconds of each step, and of all: means, since these add up."""
    found, started = [], time.perf_counter()
    for image in itertools.cycle(images):
        if time.perf_counter() > started + seconds:
            break
        found.append(worker.answer(image))
    means = {step: statistics.mean(one[step] for one in found) for step in (*STEPS, WORKER)}
    return {"requests": len(found), **{step: round(mean, 3) for step, mean in means.items()}}


def main() -> None:
    # As in a worker, lines of the log and of metrics are written; nobody reads them here.
    logging.basicConfig(level=logging.INFO, filename=os.devnull)
    with orders.given() as (folder, images):
        worker = Worker(folder)
        measure(worker, images, 0.5)  # the first calls fill caches
        orders.obey(functools.partial(measure, worker, images))


if __name__ == "__main__":
    main()
