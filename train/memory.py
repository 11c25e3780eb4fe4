"""Memory that is kept rather than given back: a third to two thirds more images a second."""

import ctypes
import sys

# From <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep() -> bool:
    """Let glibc keep freed memory instead of returning it to the kernel; False elsewhere.

    Every step of training on a CPU frees and takes the same few gigabytes of feature maps. By
    default each is a fresh mapping whose pages the kernel clears again (mallopt(3)).
    `benchmarks/training.py` measures the difference.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than glibc
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 256 * 2**20))
    accepted = [mallopt(parameter, value) for parameter, value in settings]
    return all(accepted)
