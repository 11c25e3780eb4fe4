"""CPU time and memory of a server's process tree: TorchServe's Java frontend and its workers."""

from dataclasses import asdict, dataclass

import psutil

MEBI = 2**20


class DiedError(RuntimeError):
    """A process of a server ended while it was measured."""


@dataclass(frozen=True)
class Memory:
    """Resident memory (RSS) and the part not shared with other processes (USS), in MiB."""

    rss: float
    uss: float


def cpu_seconds(pid: int) -> dict[int, float]:
    """CPU seconds (user and system) so far of a process and its descendants, by process id."""
    return {process.pid: _seconds(process) for process in tree(pid)}


def tree(pid: int) -> list[psutil.Process]:
    """A process, first in the list, and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def spent(before: dict[int, float], after: dict[int, float]) -> dict[int, float]:
    """CPU seconds between two readings of `cpu_seconds`, by process id.

    Raises:
        DiedError: a process of the first reading has ended, so its time is unknown.
    """
    gone = before.keys() - after.keys()
    if gone:
        raise DiedError(f"processes {sorted(gone)} of the server ended under load: see its log")
    return {pid: seconds - before.get(pid, 0.0) for pid, seconds in after.items()}


def memory(pid: int) -> dict[str, dict[str, float]]:
    """Memory in MiB of the frontend (the process itself) and of its workers (all descendants)."""
    frontend, *workers = [memory_of(process.pid) for process in tree(pid)]
    total = Memory(sum(w.rss for w in workers), sum(w.uss for w in workers))
    return {"frontend": asdict(frontend), "workers": asdict(total)}


def memory_of(pid: int) -> Memory:
    """Memory of one process, in MiB."""
    info = psutil.Process(pid).memory_full_info()
    return Memory(round(info.rss / MEBI, 1), round(info.uss / MEBI, 1))


def machine_busy() -> float:
    """CPU seconds that all cores of this machine have been busy so far, for any process.

    Time that the hypervisor gave to other machines (steal) counts: it was not available here.
    """
    times = psutil.cpu_times()
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return float(sum(getattr(times, name, 0.0) for name in names))


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
