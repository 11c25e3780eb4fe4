"""Images a second in training, beside the plain loop and beside the same step without data work.

`python -m benchmarks.training`. Four take turns in processes of their own, since kept memory is a
setting of a process: ours (channels_last, memory that is kept, bfloat16 where the processor
multiplies it, there with convolutions by matrices, images gathered, augmented); the same step on
one constant batch, which says what gathering and augmentation cost; the same with convolutions as
PyTorch does them; and the plain eager loop (NCHW, no options, no data work).
"""

import argparse
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F

from train import augment, learner, memory
from train.networks import NETWORKS, build

IMAGES = 1024  # to gather from
OURS, CONSTANT, CONVOLUTIONS, PLAIN = "ours", "constant", "convolutions", "plain"
WHO = (OURS, CONSTANT, CONVOLUTIONS, PLAIN)
OTHERS = (
    "the same step on a constant batch",
    "the same step with PyTorch's convolutions",
    "the plain loop",
)


def images_a_second(name: str, size: int, batch: int, seconds: float, who: str) -> float:
    if who != PLAIN:
        memory.keep()
    torch.manual_seed(0)
    half = None if who == PLAIN else learner.half(torch.device("cpu"))
    layout = torch.contiguous_format if who == PLAIN else torch.channels_last
    network = build(name).to(memory_format=layout).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    images = torch.randint(0, 256, (IMAGES, size, size), dtype=torch.uint8)
    constant = images[:batch].float()
    labels = torch.arange(batch) % 2
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        pixels = constant
        if who in (OURS, CONVOLUTIONS):
            rows = torch.randint(0, IMAGES, (batch,), generator=generator)
            changes = augment.draw(batch, augment.Strength(), generator)
            pixels = augment.apply(images[rows], changes)
        optimizer.zero_grad()
        matrices = (
            learner.convolution(torch.device("cpu")) if who in (OURS, CONSTANT) else nullcontext()
        )
        with torch.autocast("cpu", half, enabled=half is not None), matrices:
            loss = F.cross_entropy(network(pixels), labels)
        loss.backward()
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
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "WHO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, who = options.one
        print(images_a_second(name, options.size, options.batch, options.seconds, who))
        return
    shared = [f"--{key}={getattr(options, key)}" for key in ("size", "batch", "seconds")]
    for name in NETWORKS:
        turns = []
        for _ in range(options.turns):
            one = [sys.executable, "-m", "benchmarks.training", *shared, "--one", name]
            turns.append([float(subprocess.check_output([*one, who], text=True)) for who in WHO])
        rates = np.array(turns)  # (turns, 4)
        said = ", ".join(
            f"{who} {rate:.1f}" for who, rate in zip(WHO, np.median(rates, 0), strict=True)
        )
        print(f"{name} at {options.size} px, images/s: {said}")
        for number, other in enumerate(OTHERS, 1):
            ratios = rates[:, 0] / rates[:, number]
            print(
                f"  ours beside {other}: {np.median(ratios):.2f} times "
                f"({ratios.min():.2f} to {ratios.max():.2f})"
            )


if __name__ == "__main__":
    main()
