"""Training in several processes that torchrun starts, one per GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed


@contextmanager
def processes() -> Iterator[int]:
    """Join the processes that torchrun started; yields this process's rank, 0 without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


@contextmanager
def first_rank_first(rank: int) -> Iterator[None]:
    """Run the block in the first process, then in the others, which wait for it."""
    if rank and distributed.is_initialized():
        distributed.barrier()
    yield
    if rank == 0 and distributed.is_initialized():
        distributed.barrier()
