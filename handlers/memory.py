"""A backstop on Linux: a worker's memory is bounded, so that one request can't take the machine's.

The bound is of data (RLIMIT_DATA, setrlimit(2): heap and private mappings), not of address space,
of which the runtimes reserve gigabytes without using them.
"""

import logging
import os
import sys
from pathlib import Path

log = logging.getLogger(__name__)

# Megabytes (2**20 bytes) above what a loaded worker holds: for a full batch and its decoded images.
# `make serve` sets it. Without it nothing is bounded: the process may not be a worker.
MARGIN = "PNEUMOCAM_MEMORY_MARGIN"
STATUS = Path("/proc/self/status")


def data_bytes() -> int:
    """The data of this process, in bytes (VmData, proc_pid_status(5))."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no VmData")


def limit_data() -> int | None:
    """Bound this process's data to its present size plus the margin; the bound, in bytes.

    None, and nothing is bounded, without a margin or where there is no Linux. A lower bound that is
    in force stays.

    Raises:
        ValueError: the margin is no whole number above 0.
    """
    text = os.environ.get(MARGIN, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{MARGIN}={text}: give whole megabytes above 0, or leave it out")
    if sys.platform != "linux":
        log.warning("the memory of a worker is not bounded on %s", sys.platform)
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [data_bytes() + int(text) * 2**20]
    bounds += [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    bound = min(bounds)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    log.info("data of this worker is bounded to %d MB", bound // 2**20)
    return bound
