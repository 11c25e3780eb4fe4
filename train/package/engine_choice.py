"""Chooses the engine that runs a graph: the fastest on this machine."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

from handlers import engine
from handlers.arrays import Pixels

ROUNDS = 15  # of timing, engines in turns
LOW_MEMORY_ENGINE = "onnxruntime"  # takes about half of the memory of OpenVINO (docs/log.md)
MIN_SPEEDUP = 1.1  # that justifies the memory of a different engine


def milliseconds(graphs: Mapping[str, Path], image: Pixels) -> dict[str, float]:
    """The least milliseconds of 15 runs, by engine name, for one image (1, S, S).

    `graphs` are the engines' files. Engines run in turns. The minimum is compared because other
    programs on this machine only add time, and unequally.
    """
    engines = {name: engine.load(name, graph) for name, graph in graphs.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, run in engines.items():
            start = time.perf_counter()
            run(image)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: min(rounds) for name, rounds in times.items()}


def choose(times: dict[str, float]) -> str:
    """The name of the fastest engine, or of the one with less memory if it is nearly as fast."""
    fastest = min(times, key=times.__getitem__)
    if times.get(LOW_MEMORY_ENGINE, math.inf) < MIN_SPEEDUP * times[fastest]:
        return LOW_MEMORY_ENGINE
    return fastest
