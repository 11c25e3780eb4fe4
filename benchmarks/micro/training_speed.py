"""Images per second in training, against a plain loop and against the same step with less work.

`python -m benchmarks.micro.training_speed`. Three variants run in turns, each in a process of its
own, because keeping freed memory is a setting of the process:

- `training`: as `make train` does it. channels_last, freed memory is kept, bfloat16 if the
  processor multiplies it, images gathered, augmented;
- `constant`: the same step on one constant batch, which shows the cost of gathering and
  augmentation;
- `plain`: an eager loop without options (NCHW, no gathering, no augmentation).
"""

import argparse
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from train.fitting import allocator, augment, learner
from train.model.networks import NETWORKS, build

IMAGES = 1024  # to gather from
TRAINING, CONSTANT, PLAIN = "training", "constant", "plain"
VARIANTS = (TRAINING, CONSTANT, PLAIN)
REFERENCES = ("the same step on a constant batch", "the plain loop")


def images_per_second(name: str, size: int, batch: int, seconds: float, variant: str) -> float:
    if variant != PLAIN:
        allocator.keep_freed_memory()
    torch.manual_seed(0)
    half = None if variant == PLAIN else learner.mixed_precision_type(torch.device("cpu"))
    layout = torch.contiguous_format if variant == PLAIN else torch.channels_last
    network = build(name).to(memory_format=layout).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    images = torch.randint(0, 256, (IMAGES, size, size), dtype=torch.uint8)
    constant = images[:batch].float()
    labels = torch.arange(batch) % 2
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        pixels = constant
        if variant == TRAINING:
            rows = torch.randint(0, IMAGES, (batch,), generator=generator)
            changes = augment.draw(batch, augment.Strength(), generator)
            pixels = augment.apply(images[rows], changes)
        optimizer.zero_grad()
        with torch.autocast("cpu", half, enabled=half is not None):
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
    parser.add_argument("--seconds", type=float, default=8, help="per measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--single", nargs=2, metavar=("NETWORK", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.single:
        name, variant = options.single
        print(images_per_second(name, options.size, options.batch, options.seconds, variant))
        return
    shared = [f"--{key}={getattr(options, key)}" for key in ("size", "batch", "seconds")]
    command = [sys.executable, "-m", "benchmarks.micro.training_speed", *shared, "--single"]
    for name in NETWORKS:
        turns = [
            [float(subprocess.check_output([*command, name, v], text=True)) for v in VARIANTS]
            for _ in range(options.turns)
        ]
        rates = np.array(turns)  # (turns, 3)
        medians = ", ".join(
            f"{variant} {rate:.1f}"
            for variant, rate in zip(VARIANTS, np.median(rates, 0), strict=True)
        )
        print(f"{name} at {options.size} px, images/s: {medians}")
        for column, reference in enumerate(REFERENCES, 1):
            ratios = rates[:, 0] / rates[:, column]
            print(
                f"  training against {reference}: {np.median(ratios):.2f} times "
                f"({ratios.min():.2f} to {ratios.max():.2f})"
            )


if __name__ == "__main__":
    main()
