"""The backstop on a worker's memory, in processes of their own."""

import os
import subprocess
import sys

import pytest

from handlers import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")

MEGABYTE = 2**20


def run(margin: int, code: str) -> str:
    """What a process with a margin, in MB, prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, memory.MARGIN: str(margin)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_above_the_bound_is_a_memory_error_and_the_process_goes_on() -> None:
    printed = run(
        200,
        "import numpy as np\n"
        "from handlers import memory\n"
        "memory.limit_data()\n"
        f"fits = np.ones({100 * MEGABYTE}, np.uint8)\n"
        "try:\n"
        f"    np.ones({300 * MEGABYTE}, np.uint8)\n"
        "except MemoryError:\n"
        "    print('refused', fits.sum())\n",
    )
    assert printed == f"refused {100 * MEGABYTE}"


def test_the_bound_is_the_present_size_and_the_margin() -> None:
    printed = run(
        500,
        "import resource\n"
        "from handlers import memory\n"
        "before = memory.data_bytes()\n"
        "bound = memory.limit_data()\n"
        "print(bound - before, resource.getrlimit(resource.RLIMIT_DATA)[0] == bound)\n",
    )
    difference, in_force = printed.split()
    assert abs(int(difference) - 500 * MEGABYTE) < 20 * MEGABYTE
    assert in_force == "True"


def test_a_lower_bound_that_is_in_force_stays() -> None:
    printed = run(
        1500,
        "import resource\n"
        "from handlers import memory\n"
        f"lower = memory.data_bytes() + {300 * MEGABYTE}\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (lower, resource.RLIM_INFINITY))\n"
        "print(memory.limit_data() == lower)\n",
    )
    assert printed == "True"


def test_without_a_margin_nothing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(memory.MARGIN, raising=False)
    assert memory.limit_data() is None
    for nonsense in ("0", "-1", "much", "1.5"):
        monkeypatch.setenv(memory.MARGIN, nonsense)
        with pytest.raises(ValueError, match="whole megabytes"):
            memory.limit_data()
