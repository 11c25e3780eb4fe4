"""CPU time and memory of a server: its whole process tree, the Java frontend included."""

from dataclasses import asdict, dataclass

import psutil

MEBI = 2**20


class DiedError(RuntimeError):
    """A process of a server ended while it was measured."""


@dataclass(frozen=True)
class Memory:
    """Megabytes (MiB): what is in memory at all, and what no other process shares."""

    rss: float
    uss: float


def cpu_seconds(pid: int) -> dict[int, float]:
    """User and system time so far, in seconds, of a process and all below it, by process id."""
    return {process.pid: _seconds(process) for process in tree(pid)}


def tree(pid: int) -> list[psutil.Process]:
    """A process, which comes first, and all below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def spent(before: dict[int, float], after: dict[int, float]) -> dict[int, float]:
    """CPU seconds between two readings of `cpu_seconds`, by process id.

    Raises:
        DiedError: a process of the first reading is gone, and its time with it.
    """
    gone = before.keys() - after.keys()
    if gone:
        raise DiedError(f"processes {sorted(gone)} of the server ended under load: see its log")
    return {pid: seconds - before.get(pid, 0.0) for pid, seconds in after.items()}


def memory(pid: int) -> dict[str, dict[str, float]]:
    """Memory in MB of the frontend (the process itself) and of its workers (all below it)."""
    frontend, *workers = [memory_of(process.pid) for process in tree(pid)]
    below = Memory(sum(one.rss for one in workers), sum(one.uss for one in workers))
    return {"frontend": asdict(frontend), "workers": asdict(below)}


def memory_of(pid: int) -> Memory:
    """Memory in MB of one process."""
    info = psutil.Process(pid).memory_full_info()
    return Memory(round(info.rss / MEBI, 1), round(info.uss / MEBI, 1))


def machine_busy() -> float:
    """CPU seconds that all of this machine's cores have worked so far, for anyone.

    Time that the hypervisor gave to others (steal) counts: it was not there for us.
    """
    times = psutil.cpu_times()
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return float(sum(getattr(times, name, 0.0) for name in names))


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
