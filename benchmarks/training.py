"""Images a second in training, beside the plain loop: `python -m benchmarks.training`.

Ours (channels_last, memory that is kept, augmentation) and the plain eager loop (NCHW, no options,
no augmentation) take turns in processes of their own, since kept memory is a setting of a process.
"""

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from train import augment, memory
from train.networks import NETWORKS, build


def images_a_second(name: str, size: int, batch: int, seconds: float, ours: bool) -> float:
    if ours:
        memory.keep()
    torch.manual_seed(0)
    network = build(name)
    layout = torch.channels_last if ours else torch.contiguous_format
    network = network.to(memory_format=layout).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    pixels = torch.randint(0, 256, (batch, size, size), dtype=torch.uint8)
    labels = torch.arange(batch) % 2
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        changed: torch.Tensor = pixels
        if ours:
            changed = augment.apply(pixels, augment.draw(batch, augment.Strength(), generator))
        optimizer.zero_grad()
        F.cross_entropy(network(changed), labels).backward()
        optimizer.step()

    for _ in range(2):
        step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps * batch / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "WHO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, who = options.one
        print(images_a_second(name, options.size, options.batch, options.seconds, who == "ours"))
        return
    shared = [f"--{key}={getattr(options, key)}" for key in ("size", "batch", "seconds")]
    for name in NETWORKS:
        pairs = []
        for _ in range(options.pairs):
            one = [sys.executable, "-m", "benchmarks.training", *shared, "--one", name]
            pairs.append(
                [
                    float(subprocess.check_output([*one, who], text=True))
                    for who in ("ours", "plain")
                ]
            )
        ratios = [ours / plain for ours, plain in pairs]
        ours, plain = np.median(np.array(pairs), axis=0)
        print(
            f"{name} at {options.size} px: ours {ours:.1f}, plain loop {plain:.1f} images/s; "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
